import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from damage import without_hashes
from data_sets import ROOT, make_store
from forked import copy_of, fresh_python

from kerasmlp import EmbeddingStore, load_model
from kerasmlp.data.joining import open_stores
from kerasmlp.data.targets import age_target, choose_age_target, choose_target
from kerasmlp.experiments.cross_validation import ray_runs
from kerasmlp.experiments.cross_validation.comparison import TooFewPairs, compare, comparison_table
from kerasmlp.experiments.cross_validation.cross_validate import cross_validate
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, plan_runs, shared_steps
from kerasmlp.experiments.cross_validation.table import markdown_of
from kerasmlp.experiments.cross_validation.trainer import TrainingPool, train_planned
from kerasmlp.experiments.summary import summarize
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.embeddings import train
from kerasmlp.training.figures import curves_with_bands
from kerasmlp.utils.checks import InputError
from kerasmlp.utils.locks import lock_file

SMALL = Recipe(epochs=2, batch_size=32, dropout_rate=0.2)


def plan_of(store, **changes):
    settings = {"target": choose_target(store, "gender"), "recipe": SMALL, "seeds": (0, 1)}
    return CrossValidationPlan(**settings | changes)


@pytest.fixture(scope="module")
def pool(quick_starts):
    """Two worker processes, which keep what they have compiled."""
    with TrainingPool(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pool):
    """A real one: two worker processes, one seed, two folds."""
    folder = tmp_path_factory.mktemp("cv")
    store = make_store()
    store.save(folder / "store.h5")
    plan = plan_of(store, seeds=(3,), num_folds=2)
    report = cross_validate(folder / "store.h5", plan, folder / "cv", pool=pool)
    return folder, store, plan, report


def test_folds_test_every_row_once_per_seed_and_split_no_group():
    store = make_store(group=np.repeat(np.arange(100), 4))
    runs = plan_runs(store, plan_of(store, num_folds=4))
    assert [(r.seed, r.fold) for r in runs] == [(s, f) for s in (0, 1) for f in range(4)]
    for seed in (0, 1):
        tested = np.concatenate([r.test for r in runs if r.seed == seed])
        assert sorted(tested) == list(range(400))
    groups = store.labels["group"]
    for run in runs:
        assert not set(groups[run.training]) & set(groups[run.test])
        assert len(run.training) + len(run.test) == 400
    assert not np.array_equal(runs[0].test, runs[4].test)


def test_folds_of_the_column_are_taken_and_rows_without_label_or_fold_left_out():
    fold = np.arange(400) % 3
    fold[:10] = -1
    gender = np.arange(400) % 2
    gender[10:30] = -1
    store = make_store(fold=fold, gender=gender)
    runs = plan_runs(store, plan_of(store))
    assert [(r.seed, r.fold) for r in runs] == [(s, f) for s in (0, 1) for f in range(3)]
    for run in runs:
        np.testing.assert_array_equal(run.test, np.flatnonzero((fold == run.fold) & (gender >= 0)))
        np.testing.assert_array_equal(
            run.training, np.flatnonzero((fold != run.fold) & (fold >= 0) & (gender >= 0))
        )
    with pytest.raises(InputError, match="`num_folds` must be 3, as the store's column `fold`"):
        plan_runs(store, plan_of(store, num_folds=5))
    with pytest.raises(InputError, match="`fold` must hold at least two folds"):
        plan_runs(make_store(fold=np.zeros(400, int)), plan_of(store))
    rare = make_store(fold=np.arange(400) % 2, gender=(np.arange(400) == 7).astype(int))
    with pytest.raises(InputError, match="two classes to train on where seed 0 tests fold 1"):
        plan_runs(rare, plan_of(rare))
    with pytest.raises(InputError, match="`fold` must hold numbers of folds"):
        plan_runs(make_store(fold=np.arange(400) % 3 - 2), plan_of(store))
    whole = make_store(fold=fold, group=np.arange(400) % 30)
    assert len(plan_runs(whole, plan_of(whole))) == 6
    some = make_store(fold=fold, group=np.where(np.arange(400) < 100, np.arange(400) % 30, -1))
    assert len(plan_runs(some, plan_of(some))) == 6  # an unknown group is one of its own
    numbered = make_store(fold=np.where(np.arange(400) % 2, 7, 3))
    runs = plan_runs(numbered, plan_of(numbered, seeds=(0,)))
    assert [run.name for run in runs] == ["seed0_fold3", "seed0_fold7"]
    assert (numbered.labels["fold"][runs[1].test] == 7).all()
    split = make_store(fold=fold, group=np.arange(400) // 4)
    with pytest.raises(InputError, match=r"`fold` must keep the rows of one group together \(col"):
        plan_runs(split, plan_of(split))


def test_several_stores_are_joined_in_every_process(tmp_path, pool):
    paths, whole = [tmp_path / "a.h5", tmp_path / "b.h5"], make_store()
    group, twice = np.arange(400) // 2, np.r_[200:400, :10]  # rows 0 to 9 are in both
    for path, rows in zip(paths, (np.arange(200), twice), strict=True):
        part = whole.subset(rows)
        labels = {"gender": part.labels["gender"], "group": group[rows] % 50}
        EmbeddingStore(part.embeddings, labels, part.info).save(path)
    plan = plan_of(whole, seeds=(3,), num_folds=2)
    cross_validate(paths, plan, tmp_path / "cv", pool=pool)
    joined = open_stores(paths)
    groups = joined.labels["group"]
    assert joined.info.joined["same_rows"] == 10 and len(set(groups)) == 50 + 50 - 5
    for run in plan_runs(joined, plan):
        assert not set(groups[run.training]) & set(groups[run.test])
        assert [(k in run.test) for k in range(10)] == [(400 + k in run.test) for k in range(10)]
        folder = RunFolder(tmp_path / "cv" / run.name)
        assert folder.config()["data_digest"] == joined.subset(run.training).digest()
        assert [s["rows"] for s in folder.config()["stores"]] == [200, 210]
        by_store = folder.report()["test_by_store"]
        assert sum(one["rows"] for one in by_store.values()) == len(run.test)
    with pytest.raises(InputError, match="must be resumed with the same data_digest"):
        cross_validate(paths[::-1], plan, tmp_path / "cv", pool=pool, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ()}, "`seeds` must be one or more different integers"),
        ({"seeds": (1, 1)}, "`seeds` must be one or more different integers"),
        ({"seeds": (-1,)}, "`seed` must be an integer >= 0"),
        ({"validation_share": 1.0}, r"`validation_share` must be in \(0, 1\)"),
        ({"group": "persno"}, "`group` must be a column of the store"),
        ({"num_folds": 1}, "`num_folds` must be an integer >= 2"),
        ({"num_folds": 0}, "`num_folds` must be an integer >= 2"),
        ({"recipe": SMALL.replace(num_blocks=16)}, "`num_blocks` must leave a width of at least"),
    ],
)
def test_bad_plans(changes, message):
    store = make_store()
    with pytest.raises(InputError, match=message):
        plan_runs(store, plan_of(store, **changes))


def test_one_class_is_refused_before_anything_runs():
    store = make_store(gender=np.zeros(400, int))
    with pytest.raises(InputError, match="`gender` must hold at least two classes to be trained"):
        plan_runs(store, plan_of(store))


def test_close_numbers_of_steps_are_made_equal_and_others_kept():
    assert shared_steps([100, 100, 101, 99]) == [99, 99, 99, 99]
    assert shared_steps([100, 80, 79, 100]) == [100, 79, 79, 100]
    full = np.random.default_rng(0).integers(1, 160, 60).tolist()
    for most, steps in zip(full, shared_steps(full), strict=True):
        assert (1 - 0.02) * most <= steps <= most


def test_a_plan_survives_json():
    store = make_store()
    target = choose_age_target(store, None, "adience", by_years=True)
    plan = plan_of(store, target=target, init="runs/a", num_folds=3)
    config = json.loads(json.dumps(plan.to_config()))
    assert config == plan.to_config() and CrossValidationPlan.from_config(config) == plan


def test_each_run_is_what_train_makes_of_its_rows(finished, tmp_path):
    """Worker processes, a shared step, one thread: and the bits of a run of its own."""
    folder, store, plan, report = finished
    for run, row in zip(plan_runs(store, plan), report["runs"], strict=True):
        alone = train(
            store.subset(run.training),
            plan.target,
            SMALL,
            tmp_path / run.name,
            seed=3,
            test=store.subset(run.test),
            steps_per_epoch=run.steps_per_epoch,
            pictures=False,
        )
        ours = load_model(folder / "cv" / run.name).get_weights()
        for a, b in zip(ours, load_model(tmp_path / run.name).get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert row["test_nll"] == alone["test"]["nll"]
        assert row["training_accuracy"] == alone["training"]["accuracy"]


def test_the_folder_is_complete(finished):
    folder, _, _, report = finished
    names = {p.name for p in (folder / "cv").iterdir()}
    assert names == {
        "DONE", "config.json", "report.json", "runs.csv", "table.md", "curves.png", ".lock",
        "seed3_fold0", "seed3_fold1",
    }  # fmt: skip
    assert json.loads((folder / "cv" / "report.json").read_text()) == report
    with open(folder / "cv" / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    values = [float(row["test_nll"]) for row in rows]
    assert report["summary"]["test_nll"]["mean"] == pytest.approx(np.mean(values))
    assert report["summary"]["test_nll"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert sum(int(row["test_rows"]) for row in rows) == 400
    table = (folder / "cv" / "table.md").read_text()
    assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in table


def test_a_finished_one_is_not_computed_again_and_another_is_refused(finished):
    folder, store, plan, report = finished
    before = (folder / "cv" / "report.json").stat().st_mtime_ns
    path = folder / "cv"
    assert cross_validate(folder / "store.h5", plan, path, resume=True) == report
    assert (path / "report.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"must be empty \(or give --resume or --force\)"):
        cross_validate(folder / "store.h5", plan, path)
    other = plan_of(store, seeds=(4,), num_folds=2)
    with pytest.raises(InputError, match="must be resumed with the same seeds"):
        cross_validate(folder / "store.h5", other, path, resume=True)


def test_init_across_another_number_of_classes(tmp_path):
    store = make_store()
    years = choose_age_target(store, None, "years", by_years=True)
    recipe = SMALL.replace(epochs=1, calibrate=False)
    train(make_store(seed=1), years, recipe, tmp_path / "years", pictures=False)
    groups = choose_age_target(store, None, "adience", by_years=False)
    plan = plan_of(
        store, target=groups, num_folds=2, init=str(tmp_path / "years"),
        recipe=recipe.replace(label_sigma_years=0.0),
    )  # fmt: skip
    report = train_planned(store, plan, plan_runs(store, plan)[0], tmp_path)
    assert report["weights_from_init"]["new"] == ["logits"]
    assert report["test"]["rows"] == 200 and "mae_years" in report["test"]


def test_what_a_worker_refuses_is_said_and_finished_runs_stay(finished, pool, tmp_path):
    folder, store, _, _ = finished
    recipe = SMALL.replace(learning_rate=1e30, warmup_share=0.0)
    plan = plan_of(store, recipe=recipe, num_folds=2)
    with pytest.raises(InputError, match="`learning_rate` must be lower: the weights diverged"):
        cross_validate(folder / "store.h5", plan, tmp_path / "cv", pool=pool)


def test_a_run_that_diverged_is_counted_and_left_out(finished, tmp_path):
    folder, store, _, _ = finished
    plan = plan_of(store, num_folds=2)

    bench = Workbench()

    class OneDiverges:
        number = 1

        def train(self, settings, pending, steps, **how):
            for number in pending:
                wild = SMALL.replace(learning_rate=1e30, warmup_share=0.0)
                recipe = wild if number == 1 else SMALL
                wanted = replace(plan, recipe=recipe)
                run = plan_runs(store, wanted)[number]
                train_planned(store, wanted, run, settings["run_dir"], bench)
                yield number

    run_dir = tmp_path / "cv"
    report = cross_validate(folder / "store.h5", plan, run_dir, pool=OneDiverges())
    assert report["diverged"] == 1 and report["runs"][1]["diverged"]
    sound = [row["test_nll"] for row in report["runs"] if "diverged" not in row]
    assert (
        report["summary"]["test_nll"]["mean"] == pytest.approx(np.mean(sound)) and len(sound) == 3
    )
    table = (run_dir / "table.md").read_text()
    assert "of 3 runs. 1 more diverged and are left out." in table
    assert "| 0 | 1 | diverged |" in table
    result = compare(run_dir, run_dir)
    assert result["nll"]["pairs"] == 3 and result["nll"]["difference"] == 0


def test_weights_that_have_seen_the_store_are_refused(finished, tmp_path):
    folder, store, _, _ = finished
    inner = folder / "cv" / "seed3_fold0"
    others = make_store(seed=9)
    train(others, plan_of(others).target, SMALL, tmp_path / "later", init=inner, pictures=False)
    half = EmbeddingStore(store.embeddings[:50].astype("float16"), {"gender": np.arange(50) % 2})
    half.save(tmp_path / "half.h5")
    seen = {
        "store.h5": 200,
        "half.h5": np.isin(np.arange(50), plan_runs(*finished[1:3])[0].training).sum(),
    }
    for name, number in seen.items():
        path = folder / name if name == "store.h5" else tmp_path / name
        for init in (inner, tmp_path / "later"):
            plan = plan_of(store, init=str(init), num_folds=2)
            with pytest.raises(
                InputError, match="must have learned from other faces than"
            ) as caught:
                cross_validate(path, plan, tmp_path / "cv")
            assert f"a run that has seen {number} of their rows" in str(caught.value)


def test_weights_of_other_kinds_are_one_sentence(finished, tmp_path):
    folder, store, _, _ = finished
    for name, config, came in (
        ("cnn", {"kind": "age-cnn", "recipe": {"epochs": 1}}, "a run of kind 'age-cnn'"),
        ("torch", {"width": 3}, "another one"),
    ):
        run = RunFolder(tmp_path / name)
        with run.working(config, resume=False, force=False):
            (run / "model.keras").write_bytes(b"")
            run.finish({})
        message = f"must be a training on embeddings. Received: {came}"
        with pytest.raises(InputError, match=message):
            cross_validate(folder / "store.h5", plan_of(store, init=str(run.path)), tmp_path / "cv")


def test_finished_runs_are_taken_over_only_as_they_were_asked_for(finished, pool, tmp_path):
    folder, _, plan, report = finished
    for number, (change, message) in enumerate(
        (
            ({}, None),
            ({"recipe": {"learning_rate": 0.5}}, r"the same recipe.learning_rate \(0.5\)"),
            ({"recipe": {"num_blocks": 3}}, r"the same recipe.num_blocks \(3\)"),
            ({"target": {"label": "age_group"}}, r"the same target.label \('age_group'\)"),
            ({"seed": 77}, r"the same seed \(77\)"),
            ({"data_digest": "other"}, r"the same data_digest \('other'\)"),
            ({"test_digest": "other"}, r"the same test_digest \('other'\)"),
        )
    ):
        path = shutil.copytree(folder / "cv", tmp_path / f"{number}")
        (path / "DONE").unlink()
        inner = next(path.glob("seed*_fold1"))
        config = json.loads((inner / "config.json").read_text())
        for key, value in change.items():
            config[key] = {**config[key], **value} if isinstance(value, dict) else value
        (inner / "config.json").write_text(json.dumps(config))
        without_hashes(inner)
        if message is None:
            result = cross_validate(folder / "store.h5", plan, path, pool=pool, resume=True)
            assert result["summary"] == report["summary"]
            continue
        with pytest.raises(InputError, match=f"seed.*must be resumed with {message}"):
            cross_validate(folder / "store.h5", plan, path, pool=pool, resume=True)


@pytest.mark.parametrize("name", ["report.json", "history.csv", "model.keras", "config.json"])
def test_damaged_finished_runs_are_not_taken_over(finished, pool, tmp_path, name):
    folder, _, plan, _ = finished
    path = shutil.copytree(folder / "cv", tmp_path / "cv")
    (path / "DONE").unlink()
    inner = next(path.glob("seed*_fold1"))
    content = bytearray((inner / name).read_bytes())
    content[len(content) // 2] ^= 1
    (inner / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}` must be as it was written"):
        cross_validate(folder / "store.h5", plan, path, pool=pool, resume=True)


def test_runs_of_two_precisions_make_no_mean(finished, pool, tmp_path):
    folder, _, plan, report = finished
    assert report["precision"] == "float32"
    shutil.copytree(folder / "cv", tmp_path / "cv")
    first, *_, last = [tmp_path / "cv" / f"seed{r['seed']}_fold{r['fold']}" for r in report["runs"]]
    for path in (tmp_path / "cv", last):
        (path / "DONE").unlink()
    config = json.loads((first / "config.json").read_text()) | {"precision": "mixed_float16"}
    (first / "config.json").write_text(json.dumps(config))
    without_hashes(first)  # as of an older version, which kept no hashes
    message = "must hold runs of one precision. Received: float32 and mixed_float16"
    with pytest.raises(InputError, match=message):
        cross_validate(folder / "store.h5", plan, tmp_path / "cv", pool=pool, resume=True)
    (first / "DONE").unlink()  # now it had only begun, and no other one
    for path in {p.parent for p in (tmp_path / "cv").glob("*/config.json")} - {first}:
        shutil.rmtree(path)
    message = "must be resumed where runs are trained in mixed_float16. Received: float32"
    with pytest.raises(InputError, match=message):
        cross_validate(folder / "store.h5", plan, tmp_path / "cv", pool=pool, resume=True)


def test_force_deletes_runs_and_nothing_else(tmp_path):
    def make():
        outer = RunFolder(tmp_path / "cv")
        files = ["seed*_fold*/"]
        with outer.working({}, resume=True, force=False, files=files):
            with RunFolder(outer / "seed0_fold0").working({}, resume=True, force=False):
                pass
            outer.finish({})
        return outer

    outer = make()
    (outer / "seed0_fold0" / "thesis.txt").write_text("mine")
    with (
        pytest.raises(InputError, match="must hold nothing but a run to be replaced"),
        outer.working({}, resume=False, force=True),
    ):
        pass
    assert outer.done and (outer / "seed0_fold0" / "thesis.txt").read_text() == "mine"
    (outer / "seed0_fold0" / "thesis.txt").unlink()
    elsewhere = RunFolder(tmp_path / "elsewhere")
    with elsewhere.working({}, resume=False, force=False):
        elsewhere.finish({})
    (outer / "seed1_fold1").symlink_to(elsewhere.path)
    with (
        pytest.raises(InputError, match="must hold nothing but a run"),
        outer.working({}, resume=False, force=True),
    ):
        pass
    assert elsewhere.done and outer.done
    (outer / "seed1_fold1").unlink()
    with outer.working({"new": 1}, resume=False, force=True):
        assert {p.name for p in outer.path.iterdir()} == {".lock", "config.json"}


def test_means_are_those_of_numpy_and_one_run_has_no_deviation():
    rows = [
        {"seed": 0, "fold": k, "epochs": 2, **{f"{p}_{m}": v + k for p in ("training",
         "validation", "test") for m, v in (("nll", 1.0), ("accuracy", 0.25))}}
        for k in range(3)
    ]  # fmt: skip
    summary = summarize(rows)
    assert summary["test_nll"] == {"mean": 2.0, "std": 1.0}
    gender = choose_target(make_store(), "gender")
    assert "| loss (NLL) | 2.0000 ± 1.0000 |" in markdown_of(rows, summary, gender)
    assert summarize(rows[:1])["test_nll"] == {"mean": 1.0, "std": None}
    assert "| loss (NLL) | 1.0000 |" in markdown_of(rows[:1], summarize(rows[:1]), gender)


def test_bands_of_runs_that_stop_at_different_epochs(tmp_path):
    histories = [[{"loss": "1.5", "val_loss": "1.0"}] * n for n in (1, 4)]
    curves_with_bands(histories, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def quick(monkeypatch):
    """Pools whose workers do as their settings say, and no training."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "helpers"))
    monkeypatch.setattr("kerasmlp.experiments.cross_validation.trainer._MODULE", "quick_worker")


def test_a_worker_takes_runs_of_the_shape_it_knows_first(quick):
    with TrainingPool(1) as pool:
        assert list(pool.train({}, range(5), [7, 8, 7, 8, 7])) == [0, 2, 4, 1, 3]
        assert list(pool.train({}, [], [])) == []
        assert list(pool.train({}, [3, 1], [7] * 5)) == [3, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_kills_every_worker_is_said(quick, workers):
    message = "run 1 ended 3 workers, the last one ended with signal SIGKILL out of memory"
    with TrainingPool(workers) as pool, pytest.raises(RuntimeError, match=message):
        for number in pool.train({"fatal": [[1]]}, [0, 1, 2], [7, 7, 7]):
            assert number != 1  # which is tried again when there are no others


def test_a_pool_without_workers_is_refused():
    with pytest.raises(InputError, match="`workers` must be an integer >= 1"):
        TrainingPool(-1)


def test_a_run_that_a_lost_node_still_holds_is_waited_for(finished, tmp_path, monkeypatch):
    """What an actor of a cluster does, here."""
    monkeypatch.setattr(ray_runs, "_AGAIN_SECONDS", 0.2)
    folder, _, plan, _ = finished
    shutil.copytree(folder / "cv", tmp_path / "cv")
    run = tmp_path / "cv" / "seed3_fold1"
    (run / "DONE").unlink()
    settings = {"store": str(folder / "store.h5"), "plan": plan.to_config()}
    settings |= {"run_dir": str(tmp_path / "cv"), "precision": "float32"}
    train_group = ray_runs._prepare({"settings": settings, "steps": [1, 1]})
    lock = lock_file(run / ".lock")
    with monkeypatch.context() as patch, pytest.raises(InputError, match="must not be in use"):
        patch.setattr(ray_runs, "_BUSY_SECONDS", 0.0)
        train_group([1])
    threading.Timer(1.0, lock.close).start()
    train_group([1])
    before = RunFolder(folder / "cv" / "seed3_fold1").report()["test"]
    assert lock.closed and RunFolder(run).report()["test"] == before


def test_a_search_is_no_run_to_begin_with(finished, tmp_path):
    folder, store, _, _ = finished
    search = RunFolder(tmp_path / "search")
    with search.working({"kind": "tuning"}, resume=False, force=False):
        search.finish({})
    plan = plan_of(store, init=str(search.path))
    with pytest.raises(InputError, match="Received: a run of kind 'tuning'"):
        cross_validate(folder / "store.h5", plan, tmp_path / "cv")


def start(store, run_dir, workers):
    command = [
        fresh_python(), ROOT / "bin" / "cross-validate", "--store", store, "--label", "gender",
        "--run-dir", run_dir, "--seeds", "1", "--folds", "3", "--epochs", "30", "--batch-size",
        "32", "--workers", workers, "--resume", "--save-predictions",
    ]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen([str(c) for c in command], env={**os.environ}, **quiet)


def wait_for_a_checkpoint(process, folder):
    while process.poll() is None and not list(folder.glob("*/checkpoint.npz")):
        time.sleep(0.02)


def children_of(process):
    found = []
    tasks = f"/proc/{copy_of(process.pid)}/task"
    for task in os.listdir(tasks):
        with open(f"{tasks}/{task}/children") as file:
            found += [int(pid) for pid in file.read().split()]
    return found


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_table(tmp_path):
    """The first process is killed whole, of the second one worker; one alone does as much."""
    store = tmp_path / "store.h5"
    make_store(rows=600, width=64).save(store)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(store, whole, 1)
    assert process.wait() == 0, process.stderr.read().decode()
    process = start(store, broken, 2)
    wait_for_a_checkpoint(process, broken)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (broken / "DONE").exists()
    for path in broken.glob("*/checkpoint.npz"):
        path.unlink()  # so that the next one is the second process's
    process = start(store, broken, 2)  # at once: no worker of the dead one may be in the way
    wait_for_a_checkpoint(process, broken)
    workers = children_of(process)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert process.wait() == 0, process.stderr.read().decode()
    assert len(list(broken.glob("*/DONE"))) == 3
    for name in ("runs.csv", "table.md", "predictions.parquet"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def fake(path, *, nll, folds_from="seed", seeds=(0, 1), precision="float32", **changes):
    """A finished cross-validation whose numbers are given."""
    rows = []
    folds = range(changes.get("num_folds", 2))
    for loss, (s, f) in zip(itertools.cycle(nll), itertools.product(seeds, folds), strict=False):
        result = {"diverged": True} if loss is None else {"test_nll": loss}
        rows.append({"seed": s, "fold": f, **result})
    config = {
        "kind": "cross-validation", "data_digest": "d", "seeds": list(seeds), "num_folds": 2,
        "folds_from": folds_from, "folds_digest": "f",
        "target": {"label": "gender", "classes": None, "class_names": ["male", "female"]},
    }  # fmt: skip
    run = RunFolder(path)
    with run.working(config | changes, resume=False, force=False):
        report = {"runs": rows, "summary": {}, "test_share": 0.25, "seconds": {"total": 1.0}}
        report["diverged"] = sum("diverged" in row for row in rows)
        run.finish(report | {"precision": precision})
    return path


def test_paired_differences_and_their_test(tmp_path):
    from scipy import stats

    a = fake(tmp_path / "a", nll=[1.0, 1.1, 1.2, 1.0])
    b = fake(tmp_path / "b", nll=[0.9, 1.05, 1.0, 0.95])
    row = compare(a, b)["nll"]
    d = np.array([-0.1, -0.05, -0.2, -0.05])
    t = d.mean() / np.sqrt((1 / 4 + 0.25) * d.var(ddof=1))
    assert row["difference"] == pytest.approx(d.mean())
    assert row["t"] == pytest.approx(t) and row["degrees_of_freedom"] == 3
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(t), 3))
    assert "nll" in comparison_table({"nll": row})


def test_means_beside_a_difference_are_those_of_its_pairs(tmp_path):
    a = fake(tmp_path / "a", nll=[1.0, 1.1, 1.2, None])
    b = fake(tmp_path / "b", nll=[None, 1.0, 1.0, 0.9])
    row = compare(a, b)["nll"]
    assert (row["a"]["mean"], row["b"]["mean"], row["pairs"]) == (pytest.approx(1.15), 1.0, 2)
    assert row["difference"] == pytest.approx(row["b"]["mean"] - row["a"]["mean"])
    c = fake(tmp_path / "c", nll=[None, None, None, 0.9])
    with pytest.raises(TooFewPairs, match="must have sound runs on two test sets where the other"):
        compare(b, c)


def test_seeds_on_the_same_folds_are_averaged_first(tmp_path):
    """Seeds make no other test rows: two folds are two observations, not four."""
    a = fake(tmp_path / "a", nll=[1.0, 1.1, 1.2, 1.0], folds_from="column")
    b = fake(tmp_path / "b", nll=[0.9, 1.05, 1.0, 0.95], folds_from="column")
    row = compare(a, b)["nll"]
    d = np.array([-0.15, -0.05])
    assert row["degrees_of_freedom"] == 1
    assert row["t"] == pytest.approx(d.mean() / np.sqrt((1 / 2 + 0.25) * d.var(ddof=1)))


def test_the_exact_year_has_its_name_in_older_results_too(tmp_path):
    """They called it `accuracy`, which is that of groups now."""
    target = age_target("age_years", "years", by_years=True).to_config()
    older, newer = (fake(tmp_path / n, nll=[1.0, 1.1, 1.2, 1.0], target=target) for n in "ab")
    for path, name in ((older, "test_accuracy"), (newer, "test_exact_year_accuracy")):
        report = RunFolder(path).report()
        for i, row in enumerate(report["runs"]):
            row[name] = 0.05 + 0.01 * i
        without_hashes(RunFolder(path))
        (path / "report.json").write_text(json.dumps(report))
    result = compare(older, newer)
    assert set(result) == {"nll", "exact_year_accuracy"}
    assert result["exact_year_accuracy"]["a"]["mean"] == pytest.approx(0.065)
    assert result["exact_year_accuracy"]["difference"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_digest": "e"}, "must have the same data_digest"),
        ({"seeds": (5, 6)}, "must have the same seeds"),
        ({"num_folds": 3}, "must have the same num_folds"),
        ({"folds_digest": "g"}, "must have the same folds_digest"),
        ({"kind": "x"}, "must be the folder of a cross-validation. Received: a run of kind 'x'"),
        (
            {"target": age_target("age_group", "adience", by_years=False).to_config()},
            "must be measured in the same",
        ),
    ],
)
def test_what_cannot_be_compared(tmp_path, changes, message):
    a = fake(tmp_path / "a", nll=[1.0, 1.1, 1.2, 1.0])
    b = fake(tmp_path / "b", nll=[1.0, 1.1, 1.2, 1.0], **changes)
    with pytest.raises(InputError, match=message):
        compare(a, b)
    with pytest.raises(InputError, match="must be a run folder"):
        compare(a, tmp_path / "none")


def test_two_precisions_are_not_compared(tmp_path):
    a = fake(tmp_path / "a", nll=[1.0, 1.1, 1.2, 1.0])
    b = fake(tmp_path / "b", nll=[1.0, 1.1, 1.2, 1.0], precision="mixed_float16")
    with pytest.raises(InputError, match="must be trained in float32, as the other"):
        compare(a, b)
    report = json.loads((b / "report.json").read_text())
    report["dtype"] = report.pop("precision")  # as older versions say it
    (b / "report.json").write_text(json.dumps(report))
    without_hashes(b)
    with pytest.raises(InputError, match="as the other. Received: mixed_float16"):
        compare(a, b)


def test_damaged_folders_are_one_sentence(tmp_path):
    a = fake(tmp_path / "a", nll=[1.0, 1.1, 1.2, 1.0])
    for name, change, message in (
        ("report.json", {"runs": []}, r"report.json` must hold 4 runs. Received: 0"),
        ("report.json", {"runs": [{}] * 4}, r"report.json` must hold 4 runs. Received: 0"),
        (
            "report.json",
            {"runs": [{"seed": 0, "fold": 0, "test_nll": 1.0}] * 4},
            r"report.json` must hold each of 4 pairs of seed and fold once",
        ),
        ("report.json", {"runs": None}, r"whose `runs` is a list of .*. Received: runs=None"),
        ("report.json", {"diverged": 1}, r"must count the runs that diverged. Received: 1"),
        ("report.json", {"test_share": "1"}, r"`test_share` is a number from 0 to 1e\+06. Rec"),
        ("config.json", {"seeds": [[0], [1]]}, r"whose `seeds\[0\]` is a whole number from 0 to"),
        ("config.json", {"seeds": 5}, r"whose `seeds` is a list of .*. Received: seeds=5"),
        ("config.json", {"data_digest": ...}, r"`data_digest` is a text .*: data_digest=nothing"),
    ):
        b = RunFolder(fake(tmp_path / f"{len(list(tmp_path.iterdir()))}", nll=[1.0, 1.1, 1.2, 1.0]))
        without_hashes(b)  # as of an older version, which kept no hashes
        values = json.loads((b / name).read_text()) | change
        (b / name).write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
        with pytest.raises(InputError, match=message):
            compare(a, b.path)
