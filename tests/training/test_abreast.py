"""Trainings side by side: each ends where it would have ended alone."""

from dataclasses import replace

import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import EmbeddingStore, NumberTarget, Recipe, StoreInfo, load_model
from kerasmlp.callbacks.checkpoint import Checkpoint
from kerasmlp.data.other_targets import SeveralTargets
from kerasmlp.data.targets import choose_age_target, choose_target
from kerasmlp.experiments.cross_validation import side_by_side
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, plan_runs
from kerasmlp.experiments.cross_validation.side_by_side import groups_of, runs_abreast
from kerasmlp.experiments.cross_validation.trainer import train_planned, train_together
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training import embedding_training
from kerasmlp.training.abreast import train_abreast
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.embeddings import prepared
from kerasmlp.utils.checks import InputError
from kerasmlp.utils.tables import read_csv

RECIPE = Recipe(epochs=5, batch_size=32, dropout_rate=0.3, learning_rate=0.03)


@pytest.fixture(scope="module")
def bench():
    return Workbench(xla=False)


def numbers_store(rows=300):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(rows, 4)) * [1, 50, 0.01, 0]).astype("float32")
    y = x[:, 0] + x[:, 1] / 50 + 0.1 * rng.normal(size=rows)
    return EmbeddingStore(x, {"y": y}, StoreInfo(normalized=False))


CASES = {
    "classes": (make_store(rows=300), "gender", RECIPE.replace(patience=1)),
    "numbers": (
        numbers_store(),
        None,
        RECIPE.replace(mixup_alpha=0.0, noise_std=0.1, learning_rate=3e-3),
    ),
}


def plan_of(store, label, recipe, seeds=(0, 1)):
    target = NumberTarget("y") if label is None else choose_target(store, label)
    return CrossValidationPlan(target=target, recipe=recipe, seeds=seeds, num_folds=2)


def check_equal(a, b, store):
    histories = [read_csv(path / "history.csv") for path in (a, b)]
    assert [len(h) for h in histories] == [len(histories[0])] * 2
    for mine, theirs in zip(*histories, strict=True):
        for name in mine:
            assert float(mine[name]) == pytest.approx(float(theirs[name]), rel=1e-3, abs=1e-4)
    answers = [load_model(p).predict(store.embeddings, verbose=0) for p in (a, b)]
    np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-4)
    return answers[0]


@pytest.mark.parametrize("case", ["classes", pytest.param("numbers", marks=pytest.mark.slow)])
def test_each_ends_where_it_would_alone(case, bench, tmp_path):
    store, label, recipe = CASES[case]
    plan = plan_of(store, label, recipe, seeds=(0,))
    runs = plan_runs(store, plan)
    train_together(store, plan, runs, tmp_path / "together", bench)
    answers, epochs = [], []
    for run in runs:
        train_planned(store, plan, run, tmp_path / "alone", bench)
        folders = [tmp_path / kind / run.name for kind in ("together", "alone")]
        answers.append(check_equal(*folders, store))
        epochs.append(len(read_csv(folders[0] / "history.csv")))
    apart = [np.abs(a - b).max() for a in answers for b in answers if a is not b]
    assert min(apart) > 1e-3
    assert (min(epochs) < recipe.epochs) == (recipe.patience is not None), epochs


def check_same(a, b):
    """Products of other numbers of networks may be rounded otherwise."""
    np.testing.assert_allclose(a, b, atol=1e-5)


def weights_of(path):
    return load_model(path).get_weights()


@pytest.mark.slow
def test_nothing_hangs_on_how_many_are_beside_nor_on_a_kill(bench, tmp_path, monkeypatch):
    store, label, recipe = CASES["classes"]
    plan = plan_of(store, label, recipe)
    runs = plan_runs(store, plan)
    train_together(store, plan, runs, tmp_path / "four", bench)
    for part in (runs[:2], runs[2:]):
        train_together(store, plan, part, tmp_path / "two", bench)
    kept = Checkpoint.on_epoch_end
    epochs = []

    def dies(self, epoch, logs=None):
        kept(self, epoch, logs)
        epochs.append(epoch)
        if len(epochs) == 10:  # two of four have kept the third epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "on_epoch_end", dies)
    with pytest.raises(KeyboardInterrupt):
        train_together(store, plan, runs, tmp_path / "killed", bench)
    monkeypatch.undo()
    train_together(store, plan, runs, tmp_path / "killed", bench)
    for run in runs:
        expected = weights_of(tmp_path / "four" / run.name)
        for other in ("two", "killed"):
            for mine, theirs in zip(weights_of(tmp_path / other / run.name), expected, strict=True):
                check_same(mine, theirs)


def made_for(store, plan, bench, broken):
    """What makes the training of a run of a plan, whose weights are no numbers in one."""

    def maker(run):
        def make():
            what, how = (store.subset(run.training), plan.target, plan.recipe), {"pictures": False}
            how |= {"seed": run.seed, "steps_per_epoch": run.steps_per_epoch}
            training = prepared(*what, workbench=bench, **how)
            if run is broken:
                training.model.set_weights([w * np.nan for w in training.model.get_weights()])
            return training

        return make

    return maker


def test_one_that_diverges_leaves_the_others_alone(bench, tmp_path):
    store, label, recipe = CASES["classes"]
    plan = plan_of(store, label, recipe)
    runs = plan_runs(store, plan)

    made = made_for(store, plan, bench, broken=runs[1])
    for name, chosen in (("all", runs), ("sound", runs[2:])):
        pairs = [(made(run), RunFolder(tmp_path / name / run.name)) for run in chosen]
        train_abreast(pairs)
    assert not (tmp_path / "all" / runs[1].name / "checkpoint.npz").exists()
    for run in runs[2:]:
        saved = [np.load(tmp_path / n / run.name / "checkpoint.npz") for n in ("all", "sound")]
        assert saved[0].files == saved[1].files
        for name in {*saved[0].files} - {"meta"}:
            check_same(saved[0][name], saved[1][name])


def test_in_half_precision_nobody_is_held_up_by_one_that_diverges(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_training, "default_policy", lambda: "mixed_float16")
    store, label, recipe = CASES["classes"]
    plan = plan_of(store, label, recipe)
    runs = plan_runs(store, plan)
    made = made_for(store, plan, bench, broken=runs[1])
    train_abreast([(made(run), RunFolder(tmp_path / run.name)) for run in runs])
    assert not list(tmp_path.glob("*/checkpoint.npz"))


def test_groups_are_of_equal_steps(monkeypatch, tmp_path):
    store = make_store(rows=60)
    assert groups_of(range(25), [7] * 25, 10) == [[*range(9)], [*range(9, 17)], [*range(17, 25)]]
    assert groups_of([3], [7] * 25, 10) == [[3]]
    plan = plan_of(store, "gender", Recipe())

    def most(plan=plan, asked=None, store=store, **changes):
        changed = replace(plan, recipe=plan.recipe.replace(**changes))
        return runs_abreast(changed, store, asked)

    assert most(asked=5) == 5
    gpus = tmp_path / "gpus"
    monkeypatch.setattr(side_by_side, "_GPUS", gpus)
    assert most() == 1
    (gpus / "0000:00").mkdir(parents=True)
    assert most() == 32 and most(members=2) == 1 and most(hidden_width=4096) == 3
    monkeypatch.setattr(side_by_side, "_BYTES", 3 * 4 * 60 * store.width * 7)
    assert most() == 7
    ages = choose_age_target(store, "age_years", None, by_years=True)
    both = SeveralTargets((plan.target, ages))
    assert most(replace(plan, target=both)) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert most() == 1
    for wrong in ({"plan": replace(plan, target=both)}, {"members": 2}):
        with pytest.raises(InputError, match="must be 1 where a run has several members or"):
            most(asked=5, **wrong)
    with pytest.raises(InputError, match="num_blocks.*parameters"):
        most(asked=50, hidden_width=4096)
