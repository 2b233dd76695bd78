"""Trainings of several members: what each learns, what is fitted and answered, one run for all."""

import dataclasses
import json
import subprocess

import keras
import numpy as np
import pytest
from data_sets import make_store
from forked import fresh_python

from kerasmlp import EmbeddingStore, NumberTarget, Predictor, Recipe, StoreInfo, load_model, train
from kerasmlp.callbacks.checkpoint import Checkpoint
from kerasmlp.cli import run_command
from kerasmlp.data.examples import Examples
from kerasmlp.data.targets import choose_target
from kerasmlp.evaluation.measuring import measure
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, plan_runs
from kerasmlp.layers.members import members_apart, members_of
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.fit import answering, compile_by_recipe, course_by_recipe, fit
from kerasmlp.training.losses import MemberLoss, RankedCrossentropy, recipe_loss
from kerasmlp.training.precision import computing_in
from kerasmlp.uncertainty.numbers import fit_floor
from kerasmlp.utils.checks import InputError

RECIPE = Recipe(epochs=4, batch_size=32, dropout_rate=0.3, learning_rate=3e-3)


@pytest.fixture(scope="module")
def bench():
    return Workbench(xla=False)


def trained(members: int, seed: int, path, store, target):
    """Model and history, without rows kept back."""
    recipe = RECIPE.replace(members=members)
    model = ResidualMLP(num_classes=2, seed=seed, **recipe.network(store.width))
    how = {"steps": recipe.steps(len(store)), "loss": recipe_loss(recipe, ordered=False)}
    model = compile_by_recipe(model, recipe, xla=False, **how)
    y = Examples.of(store, target).soft_targets(0.0)
    how = {"steps": how["steps"], "seed": seed, "callbacks": []}
    course = course_by_recipe(store.embeddings, y, recipe, **how)
    history, _ = fit(model, course, checkpoint_path=path / f"{members}_{seed}.npz")
    return answering(model), history


def test_each_learns_what_it_would_alone(tmp_path):
    """Orders of rows, mixup, noise, masks and steps of a training of `seed + m`."""
    store = make_store(rows=300)
    target = choose_target(store, "gender")
    model, history = trained(3, 7, tmp_path, store, target)
    each = members_apart(model, own_rows=False).predict(store.embeddings, verbose=0)
    alone = [trained(1, 7 + m, tmp_path, store, target) for m in range(3)]
    for m, (one, _) in enumerate(alone):
        expected = one.predict(store.embeddings, verbose=0)
        np.testing.assert_allclose(each[:, m], expected, atol=2e-6)
        others = each[:, (m + 1) % 3]
        assert np.abs(others - expected).max() > 1e-3
    losses = [[row["loss"] for row in past] for past in (history, *(past for _, past in alone))]
    np.testing.assert_allclose(losses[0], np.mean(losses[1:], axis=0), rtol=1e-4)


def test_the_loss_is_the_sum_of_theirs():
    rng = np.random.default_rng(0)
    y, answers = rng.dirichlet(np.ones(4), (2, 6, 3)).astype("float32")
    loss = RankedCrossentropy(rps_weight=0.5)
    each = [float(loss(y[:, m], answers[:, m])) for m in range(3)]
    assert float(MemberLoss(loss, 3)(y, answers)) == pytest.approx(sum(each), rel=1e-5)
    restored = MemberLoss.from_config(MemberLoss(loss, 3).get_config())
    assert float(restored(y, answers)) == pytest.approx(sum(each), rel=1e-5)


@pytest.mark.slow
def test_the_temperature_is_that_of_their_mean(bench, tmp_path):
    store = make_store(rows=900)
    target = choose_target(store, "gender")
    recipe = RECIPE.replace(members=3, epochs=8)
    how = {"seed": 2, "workbench": bench, "validation_share": 0.3, "pictures": False}
    report = train(store, target, recipe, tmp_path / "a", **how)
    train(store, target, recipe.replace(calibrate=False), tmp_path / "b", **how)
    plain = load_model(tmp_path / "b")
    logits = keras.Model(plain.input, plain.get_layer("logits").output).predict(
        store.embeddings, verbose=0
    )
    found = Predictor(tmp_path / "a").probabilities(store.embeddings)
    powers = np.exp(logits.reshape(-1, 3, 2) / report["temperature"])
    expected = (powers / powers.sum(axis=2, keepdims=True)).mean(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(report["temperature"] - 1) > 0.01
    assert report["validation"]["nll"] <= report["before_temperature"]["nll"]


def test_the_spread_leaves_what_members_differ_in():
    """`factor² · own + floor² + variance of the means` has the lowest NLL."""
    rng = np.random.default_rng(0)
    own, fixed = rng.uniform(0.5, 2, 3000), rng.uniform(0, 3, 3000)
    numbers = rng.normal(size=3000) * np.sqrt(0.5 * own + 0.3 + fixed)
    factor, floor = fit_floor(numbers, np.zeros(3000), own, fixed)

    def nll(factor, floor):
        variance = factor**2 * own + floor**2 + fixed
        return (np.log(variance) + numbers**2 / variance).mean()

    grid = np.linspace(0, 1.5, 31)
    assert nll(factor, floor) < min(nll(a, b) for a in grid for b in grid if a + b) + 1e-3
    # However sure the members are: the errors are ten times what they say.
    own, fixed = own / 1e4, np.full(3000, 1e-6)
    sure = [fit_floor(numbers, np.zeros(3000), own, f) for f in (fixed, 0.0)]
    assert nll(*sure[0]) == pytest.approx(nll(*sure[1]), abs=1e-3)


@pytest.mark.slow
def test_numbers_are_answered_by_the_mixture(bench, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4)).astype("float32")
    store = EmbeddingStore(
        x, {"y": 3 * x[:, 0] + rng.normal(size=400)}, StoreInfo(normalized=False)
    )
    recipe = Recipe(members=2, epochs=15, batch_size=64, learning_rate=0.01, dropout_rate=0.1)
    how = {"workbench": bench, "pictures": False, "validation_share": 0.3}
    report = train(store, NumberTarget("y"), recipe, tmp_path / "run", **how)
    model = load_model(tmp_path / "run")
    each = members_apart(model, own_rows=False).predict(x, verbose=0)
    mean, std = model.predict(x, verbose=0).T
    np.testing.assert_allclose(mean, each[..., 0].mean(axis=1), rtol=1e-4, atol=1e-4)
    variance = (each[..., 1] ** 2).mean(axis=1) + each[..., 0].var(axis=1)
    np.testing.assert_allclose(std, np.sqrt(variance), rtol=1e-4)
    head = model.get_layer("gaussian").get_weights()
    spread = report["spread"]
    np.testing.assert_allclose(head[2:], [spread["factor"], spread["floor"] / head[1]], rtol=1e-5)


@pytest.mark.slow
def test_from_the_command_to_answers(tmp_path, capsys):
    store = make_store(rows=400)
    store.save(tmp_path / "store.h5")
    run, words = tmp_path / "run", ["--members", "3", "--epochs", "2", "--refit"]
    words = [*words, "--store", tmp_path / "store.h5", "--run-dir", run]
    assert run_command("train-gender", list(map(str, words))) == 0
    config = json.loads((run / "config.json").read_text())
    assert config["recipe"]["members"] == 3 and members_of(load_model(run)) == 3
    evaluated = ["--num-samples", "6"]
    assert run_command("evaluate", [str(run), str(tmp_path / "store.h5"), *evaluated]) == 0
    report = json.loads((run / "evaluation-store" / "report.json").read_text())
    predictor = Predictor(run)
    rows = Examples.of(store, choose_target(store, "gender"))
    expected = measure(rows, predictor.probabilities(store.embeddings))
    assert report["deterministic"]["nll"] == pytest.approx(expected["nll"], abs=1e-6)
    answers = list(predictor.rows(store.embeddings[:5], num_samples=6))
    assert all(answer["mutual_information_nats"] > 0 for answer in answers)
    code = (
        "import numpy as np, kerasmlp\n"
        f"store = kerasmlp.EmbeddingStore.open({str(tmp_path / 'store.h5')!r})\n"
        f"answers = kerasmlp.load_model({str(run)!r}).predict(store.embeddings, verbose=0)\n"
        f"np.save({str(tmp_path / 'answers.npy')!r}, answers)\n"
    )
    subprocess.run([fresh_python(), "-c", code], check=True)
    answers = np.load(tmp_path / "answers.npy")
    np.testing.assert_allclose(answers, predictor.probabilities(store.embeddings), atol=1e-6)


@pytest.mark.slow
def test_without_dropout_members_differ_nevertheless(bench, tmp_path):
    store = make_store(rows=200)
    recipe = RECIPE.replace(members=2, dropout_rate=0.0, epochs=1)
    how = {"workbench": bench, "pictures": False}
    train(store, choose_target(store, "gender"), recipe, tmp_path / "run", **how)
    (chunk,) = Predictor(tmp_path / "run").uncertainty(store.embeddings[:9], num_samples=2)
    model = load_model(tmp_path / "run")
    each = members_apart(model, own_rows=False).predict(store.embeddings[:9], verbose=0)
    entropy = -(each * np.log(each)).sum(axis=2).mean(axis=1)
    mean = each.mean(axis=1)
    total = -(mean * np.log(mean)).sum(axis=1)
    np.testing.assert_allclose(chunk["mutual_information_nats"], total - entropy, atol=1e-5)


def test_a_shared_step_has_the_masks_of_each_seed(tmp_path):
    """One compiled model for two seeds gives what each gives alone."""
    store, bench = make_store(rows=120), Workbench(xla=False)
    target, how = choose_target(store, "gender"), {"pictures": False}
    recipe = RECIPE.replace(members=2, epochs=2)
    for name, seed, shared in (("a", 0, bench), ("b", 6, bench), ("c", 6, Workbench(xla=False))):
        train(store, target, recipe, tmp_path / name, seed=seed, workbench=shared, **how)
    a, b, c = (load_model(tmp_path / name).get_weights() for name in "abc")
    for one, other in zip(b, c, strict=True):
        np.testing.assert_array_equal(one, other)
    assert any((one != other).any() for one, other in zip(a, b, strict=True))


def test_interrupted_and_resumed_members_end_the_same(bench, tmp_path, monkeypatch):
    store = make_store(rows=120)
    target, recipe = choose_target(store, "gender"), RECIPE.replace(members=2, epochs=3)
    how = {"workbench": bench, "pictures": False}
    train(store, target, recipe, tmp_path / "whole", **how)

    kept = Checkpoint.on_epoch_end

    def stop(self, epoch, logs=None):
        kept(self, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Checkpoint, "on_epoch_end", stop)
        train(store, target, recipe, tmp_path / "broken", **how)
    assert (tmp_path / "broken" / "checkpoint.npz").exists()
    train(store, target, recipe, tmp_path / "broken", resume=True, **how)
    whole, broken = (load_model(tmp_path / n).get_weights() for n in ("whole", "broken"))
    for one, other in zip(whole, broken, strict=True):
        np.testing.assert_array_equal(one, other)


def test_members_in_half_precision(tmp_path):
    store = make_store(rows=120)
    recipe = RECIPE.replace(members=2, epochs=1)
    before = keras.config.dtype_policy()
    with computing_in("mixed_bfloat16"):
        model = ResidualMLP(num_classes=2, seed=0, **recipe.network(store.width))
        apart = members_apart(model)
    assert keras.config.dtype_policy() == before
    x = np.repeat(store.embeddings[:9, None], 2, axis=1)
    answers = keras.ops.convert_to_numpy(apart(x))
    assert answers.dtype == np.float32 and answers.shape == (9, 2, 2)
    full = ResidualMLP(num_classes=2, seed=0, **recipe.network(store.width))
    full.set_weights(model.get_weights())
    np.testing.assert_allclose(answers.mean(axis=1), full.predict(x[:, 0], verbose=0), atol=0.02)


def test_seeds_of_a_cross_validation_share_no_member():
    store = make_store(rows=120)
    plan = CrossValidationPlan(
        target=choose_target(store, "gender"), recipe=Recipe(members=3), seeds=(0, 2), num_folds=2
    )
    with pytest.raises(InputError, match="must lie 3 apart"):
        plan_runs(store, plan)
    apart = dataclasses.replace(plan, seeds=(0, 3))
    assert [run.seed for run in plan_runs(store, apart)] == [0, 0, 3, 3]


def test_init_says_how_many_members_it_wants(bench, tmp_path):
    store = make_store(rows=120)
    target, how = choose_target(store, "gender"), {"workbench": bench, "pictures": False}
    train(store, target, RECIPE.replace(epochs=1), tmp_path / "one", **how)
    with pytest.raises(InputError, match="must be a run with --members 2. Received: 1"):
        recipe = RECIPE.replace(members=2)
        train(store, target, recipe, tmp_path / "two", init=tmp_path / "one", **how)


def test_numbers_of_numpy_and_steps_of_seeds(tmp_path, capsys):
    recipe = Recipe(members=np.int64(2), epochs=np.int32(3), dropout_rate=np.float64(0.25))
    assert (
        json.loads(json.dumps(recipe.to_config()))
        == Recipe(members=2, epochs=3, dropout_rate=0.25).to_config()
    )
    words = ["--members", "2", "--seeds", "2", "--seed-step", "1", "--run-dir", tmp_path / "cv"]
    assert run_command("cross-validate", list(map(str, words))) == 2
    assert "must lie 2 apart" in capsys.readouterr().err
    assert not (tmp_path / "cv").exists()


def test_each_member_gets_a_pass(tmp_path):
    store = make_store(rows=300)
    recipe = RECIPE.replace(members=3, epochs=1)
    train(store, choose_target(store, "gender"), recipe, tmp_path / "run", pictures=False)
    predictor = Predictor(tmp_path / "run")
    for ask in (predictor.uncertainty, predictor.rows):
        with pytest.raises(InputError, match="must be 0 or >= 3: a pass of each member"):
            list(ask(store.embeddings, num_samples=2))
    apart = members_apart(load_model(tmp_path / "run"), own_rows=False)
    each = apart.predict(store.embeddings, verbose=0)
    answers = np.concatenate(
        [a["mean"] for a in predictor.uncertainty(store.embeddings, num_samples=0)]
    )
    np.testing.assert_allclose(answers, each.mean(axis=1), atol=1e-6)
