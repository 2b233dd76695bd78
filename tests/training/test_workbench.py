"""Runs that share a compiled step are the runs that they would have been alone, to the bit."""

import keras
import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import load_model
from kerasmlp.data.targets import choose_age_target, choose_target
from kerasmlp.models.presets import Recipe
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.embeddings import train
from kerasmlp.training.losses import RankedCrossentropy

SMALL = Recipe(epochs=3, batch_size=32, dropout_rate=0.3)
BARE = SMALL.replace(epochs=2, calibrate=False)  # where it is about the weights alone


def weights(path):
    return load_model(path).get_weights()


@pytest.mark.parametrize(
    "recipe",
    [
        SMALL,
        pytest.param(
            SMALL.replace(epochs=6, patience=1, schedule="exponential", gamma=0.5),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_shared_step_gives_the_bits_of_a_fresh_run(recipe, tmp_path):
    store, bench = make_store(), Workbench()
    target = choose_age_target(store, None, "adience", by_years=True)
    test = store.subset(np.arange(300, 400))
    other = recipe.replace(learning_rate=0.02, weight_decay=0.3, schedule="cosine", noise_std=0.2)
    for seed, first, values in ((5, 0, other), (6, 20, recipe), (5, 40, recipe)):
        rows = store.subset(np.arange(first, first + 260))
        settings = {"seed": seed, "test": test, "steps_per_epoch": 7, "pictures": False}
        shared = train(rows, target, values, tmp_path / f"{first}", workbench=bench, **settings)
    assert len(bench._models) == 1
    alone = train(rows, target, recipe, tmp_path / "alone", **settings)
    for a, b in zip(weights(tmp_path / "40"), weights(tmp_path / "alone"), strict=True):
        np.testing.assert_array_equal(a, b)
    for part in ("training", "validation", "test"):
        assert shared[part] == alone[part]
    histories = [(tmp_path / n / "history.csv").read_text() for n in ("40", "alone")]
    assert histories[0] == histories[1]


def test_runs_of_one_shape_trace_once_and_another_shape_anew(tmp_path, monkeypatch):
    """The Python code of the loss runs when a step is traced, and never after."""
    store, bench, traced = make_store(), Workbench(), []
    loss = RankedCrossentropy.call
    monkeypatch.setattr(
        RankedCrossentropy, "call", lambda self, *a: traced.append(1) or loss(self, *a)
    )
    target, counts = choose_target(store, "gender"), []
    for name, seed, steps in (("a", 0, 8), ("b", 1, 8), ("c", 2, 7), ("d", 3, 8)):
        settings = {"seed": seed, "workbench": bench, "steps_per_epoch": steps}
        train(store, target, BARE, tmp_path / name, **settings, pictures=False)
        counts.append(len(traced))
    assert counts[0] > 0
    assert counts == [counts[0], counts[0], 2 * counts[0], 2 * counts[0]]


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX always compiles")
def test_xla_compiles_where_it_is_earned_back():
    shape = {
        "heads": 2,
        "width": 8,
        "batch_size": 4,
        "loss": RankedCrossentropy(rps_weight=0.0),
        "precision": "float32",
    }
    for wanted, steps, compiled in ((None, 166, False), (None, 167, True), (False, 167, False)):
        model = Workbench(xla=wanted).model(SMALL, **shape, steps=steps, seed=0)
        assert model.jit_compile is compiled  # of three epochs


def test_the_models_handed_out_last_are_kept():
    bench = Workbench(max_models=2, xla=False)
    shape = {"heads": 2, "width": 8, "steps": 3, "precision": "float32"}
    shape["loss"] = RankedCrossentropy(rps_weight=0.0)
    sizes = (4, 5, 4, 6, 4, 5)
    models = [bench.model(SMALL, **shape, batch_size=size, seed=0) for size in sizes]
    assert models[0] is models[2] is models[4]
    assert models[1] is not models[5] and len(bench._models) == 2


def test_init_goes_into_a_shared_model(tmp_path):
    store, bench = make_store(), Workbench()
    target = choose_target(store, "gender")
    train(store, target, BARE, tmp_path / "init", seed=9, workbench=bench, pictures=False)
    how = {"init": tmp_path / "init", "pictures": False}
    train(store, target, BARE, tmp_path / "shared", workbench=bench, **how)
    assert len(bench._models) == 1
    train(store, target, BARE, tmp_path / "alone", **how)
    for a, b in zip(weights(tmp_path / "shared"), weights(tmp_path / "alone"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_measures_on_test_rows(tmp_path):
    store = make_store()
    test = make_store(rows=100, seed=3)
    how = {"test": test, "pictures": False}
    report = train(store, choose_target(store, "gender"), SMALL, tmp_path / "run", **how)
    assert report["training"]["rows"] == 360 and report["test"]["rows"] == 100
    config = (tmp_path / "run" / "config.json").read_text()
    assert test.digest() in config
