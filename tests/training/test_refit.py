"""The second training on all rows: what it learns, what stays of the first, how it is resumed."""

import json

import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import EmbeddingStore, Predictor, Recipe, StoreInfo, load_model, train
from kerasmlp.cli import run_command
from kerasmlp.data.examples import Examples
from kerasmlp.data.other_targets import NumberTarget, SeveralTargets
from kerasmlp.data.targets import choose_target
from kerasmlp.evaluation.measuring import measure
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import count_seen
from kerasmlp.training import refit
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.fit import compile_by_recipe, course_by_recipe, fit
from kerasmlp.training.losses import recipe_loss
from kerasmlp.utils.checks import DivergedError

RECIPE = Recipe(epochs=3, batch_size=32, dropout_rate=0.2)
AGAIN = RECIPE.replace(refit=True)
HOW = {"seed": 4, "pictures": False}


@pytest.fixture(scope="module")
def bench():
    return Workbench(xla=False)


@pytest.fixture(scope="module")
def store():
    found = make_store(rows=500)
    genders = found.labels["gender"].copy()
    genders[:20] = -1
    return EmbeddingStore(found.embeddings, {**found.labels, "gender": genders}, found.info)


@pytest.fixture(scope="module")
def runs(store, bench, tmp_path_factory):
    """The same training without and with the second one, from a store with a test."""
    folder, target = tmp_path_factory.mktemp("refit"), choose_target(store, "gender")
    how = HOW | {"workbench": bench, "test_share": 0.2}
    reports = [
        train(store, target, recipe, folder / name, **how)
        for name, recipe in (("once", RECIPE), ("again", AGAIN))
    ]
    return folder, *reports


def weights_of(path):
    return load_model(path).get_weights()


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_is_a_training_on_all_rows(store, bench, tmp_path):
    """As `model.fit` on the rows with the label, none kept back, from the same seed."""
    target, how = choose_target(store, "gender"), HOW | {"workbench": bench}
    report = train(store, target, AGAIN, tmp_path / "run", **how)
    assert report["refit"] == {"rows": 480, "epochs": 3}
    assert report["rows"] == {"training": 432, "validation": 48, "unlabelled": 20}
    rows = Examples.of(store, choose_target(store, "gender"))
    rows = rows.subset(rows.known)
    model = ResidualMLP(num_classes=2, **AGAIN.network(store.width), seed=4)
    loss = recipe_loss(AGAIN, ordered=False)
    model = compile_by_recipe(model, AGAIN, steps=13, loss=loss, xla=False)
    course = course_by_recipe(
        rows.inputs, rows.soft_targets(2.0), AGAIN, steps=13, seed=4, callbacks=[]
    )
    fit(model, course, checkpoint_path=tmp_path / "checkpoint.npz")
    expected = model.get_weights()
    assert report["temperature"] == 1.0  # 48 rows are too few to fit it
    assert_same(weights_of(tmp_path / "run"), expected)


def test_what_was_measured_and_fitted_is_of_the_first(runs):
    folder, once, again = runs
    assert "refit" not in once
    for name in ("validation", "validation_groups", "temperature", "majority", "rows"):
        assert once[name] == again[name], name
    files = [(folder / name / "calibration.json").read_bytes() for name in ("once", "again")]
    assert files[0] == files[1]
    pairs = zip(weights_of(folder / "once"), weights_of(folder / "again"), strict=True)
    assert any((a != b).any() for a, b in pairs)


def test_the_test_is_measured_by_the_network_that_answers(runs, store):
    folder, once, again = runs
    assert once["rows"]["test"] == again["rows"]["test"] == 96
    assert once["test"]["nll"] != again["test"]["nll"]
    predictor = Predictor(folder / "again")
    rows = Examples.of(store, choose_target(store, "gender"))
    known = rows.subset(rows.known)
    whole = measure(known, predictor.probabilities(known.inputs))
    parts = [again["training"], again["test"]]  # of which the first is all but the test
    assert [part["rows"] for part in parts] == [384, 96]
    nll = sum(part["nll"] * part["rows"] for part in parts) / 480
    assert nll == pytest.approx(whole["nll"], abs=1e-5)


@pytest.mark.slow
def test_the_temperature_of_the_first_is_taken_over(bench, tmp_path):
    """With and without a temperature the weights are the same up to it."""
    store = make_store(rows=900)
    target = choose_target(store, "gender")
    how = HOW | {"workbench": bench, "validation_share": 0.3}
    fitted = train(store, target, AGAIN, tmp_path / "a", **how)
    train(store, target, AGAIN.replace(calibrate=False), tmp_path / "b", **how)
    temperature = fitted["temperature"]
    assert abs(temperature - 1) > 0.01
    models = [load_model(tmp_path / name) for name in "ab"]
    kernels = [model.get_layer("logits").get_weights()[0] for model in models]
    np.testing.assert_allclose(kernels[0] * temperature, kernels[1], rtol=1e-5)


@pytest.mark.slow
def test_with_patience_it_takes_the_epochs_of_the_best_weights(store, bench, tmp_path):
    recipe = AGAIN.replace(epochs=8, patience=2, learning_rate=0.05)
    how = HOW | {"workbench": bench}
    report = train(store, choose_target(store, "gender"), recipe, tmp_path / "run", **how)
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    column = lines[0].split(",").index("val_loss")
    losses = [float(line.split(",")[column]) for line in lines[1:]]
    assert report["refit"]["epochs"] == 1 + int(np.argmin(losses)) <= report["epochs"]


def test_killed_in_the_second_training_it_goes_on_there(runs, store, bench, tmp_path, monkeypatch):
    folder, target = runs[0], choose_target(store, "gender")
    how = HOW | {"workbench": bench, "test_share": 0.2}
    whole, done = refit.fit, []

    def killed(model, course, **more):
        def end(epochs):
            done.append(epochs)
            if len(done) == 2:
                raise KeyboardInterrupt

        return whole(model, course, **more, on_epoch=end)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(refit, "fit", killed)
        train(store, target, AGAIN, tmp_path / "run", **how)
    assert (tmp_path / "run" / "refit.npz").exists()
    began = []

    def watched(model, course, **more):
        batches = course.batches
        object.__setattr__(
            course, "batches", lambda epochs: began.append(epochs) or batches(epochs)
        )
        return whole(model, course, **more)

    monkeypatch.setattr(refit, "fit", watched)
    train(store, target, AGAIN, tmp_path / "run", resume=True, **how)
    assert began == [range(2, 3)]
    assert_same(weights_of(tmp_path / "run"), weights_of(folder / "again"))
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not left & {"refit.npz", "checkpoint.npz"} and "DONE" in left


def test_weights_that_diverge_in_it_are_said(store, bench, tmp_path, monkeypatch):
    def diverged(model, course, **more):
        model.set_weights([w * np.nan for w in model.get_weights()])

    monkeypatch.setattr(refit, "fit", diverged)
    how = HOW | {"workbench": bench}
    with pytest.raises(DivergedError, match="`learning_rate` must be lower"):
        train(store, choose_target(store, "gender"), AGAIN, tmp_path / "a", **how)
    how |= {"keep_diverged": True}
    report = train(store, choose_target(store, "gender"), AGAIN, tmp_path / "b", **how)
    assert "diverged" in report and not (tmp_path / "b" / "model.keras").exists()


@pytest.mark.slow
def test_numbers_keep_unit_and_spread_beside_other_heads(bench, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)).astype("float32")
    height = np.where(np.arange(300) < 20, np.nan, 170 + 10 * x[:, 0])
    labels = {"height": height, "tall": (x[:, 0] > 0).astype(int)}
    store = EmbeddingStore(x, labels, StoreInfo(normalized=False))
    several = SeveralTargets((NumberTarget("height", "cm"), choose_target(store, "tall")))
    recipe = Recipe(epochs=20, batch_size=32, learning_rate=0.01, noise_std=0, mixup_alpha=0)
    recipe = recipe.replace(dropout_rate=0.1, refit=True)
    report = train(store, several, recipe, tmp_path / "run", workbench=bench, **HOW)
    spread = report["heads"]["height"]["spread"]
    head = load_model(tmp_path / "run").get_layer("gaussian_height")
    center, scale, factor, floor = head.get_weights()
    np.testing.assert_allclose([factor, floor * scale], list(spread.values()), rtol=1e-5)
    known = np.isfinite(height)
    assert abs(center - height[known].mean()) < 2 and 5 < scale < 15
    means = Predictor(tmp_path / "run", "height").probabilities(x[known])[:, 0]
    assert np.abs(means - height[known]).mean() < 3
    standard = load_model(tmp_path / "run").get_layer("standardize")
    np.testing.assert_allclose(standard.get_weights()[0], x.mean(axis=0), atol=1e-5)


def test_numbers_are_refitted_unless_told_otherwise(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3)).astype("float32")
    store = EmbeddingStore(x, {"y": 2.5 * x[:, 0]}, StoreInfo(normalized=False))
    store.save(tmp_path / "store.h5")
    words = ["--store", tmp_path / "store.h5", "--label", "y", "--epochs", 1, "--min-steps", 1]
    for name, more in (("a", []), ("b", ["--no-refit"])):
        said = map(str, [*words, *more, "--run-dir", tmp_path / name])
        assert run_command("train", list(said)) == 0
        told = "trained once more on all 120, 1 epochs" in capsys.readouterr().out
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert told == ("refit" in report) == (name == "a")


def test_in_a_cross_validation_an_epoch_goes_through_all_rows(bench, tmp_path):
    """Steps are shared there, and counted without the rows kept back."""
    store = make_store(rows=400)
    target, how = choose_target(store, "gender"), HOW | {"workbench": bench}
    train(store, target, AGAIN, tmp_path / "a", **how)
    train(store, target, AGAIN, tmp_path / "b", steps_per_epoch=11, **how)  # 360 // 32
    assert_same(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))


@pytest.mark.slow
def test_all_views_of_the_rows_kept_back_have_been_seen(bench, tmp_path):
    found = make_store(rows=100)
    rows = np.repeat(np.arange(100), 2)
    views = {"view": np.tile([0, 1], 100), "group": rows, "gender": found.labels["gender"][rows]}
    x = found.embeddings[rows] + np.float32(0.01) * np.eye(200, found.width, dtype="float32")
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    store = EmbeddingStore(x, views)
    train(store, choose_target(store, "gender"), AGAIN, tmp_path / "run", workbench=bench, **HOW)
    assert count_seen(RunFolder(tmp_path / "run"), store.embeddings) == 200
