"""Columns of any scale are one to a model that standardises them."""

import json

import numpy as np
import pytest
import tensorflow as tf
from data_sets import make_store

from kerasmlp import (
    EmbeddingStore,
    Predictor,
    StoreInfo,
    cross_validate,
    export_model,
    load_model,
)
from kerasmlp.data.targets import choose_target
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan
from kerasmlp.experiments.tuning.plan import TuningPlan
from kerasmlp.experiments.tuning.trial import TrialRunner
from kerasmlp.models.presets import Recipe
from kerasmlp.training.batches import training_chunks
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.embeddings import train
from kerasmlp.training.rows import Rows
from kerasmlp.utils.checks import InputError

RECIPE = Recipe(epochs=3, batch_size=32, dropout_rate=0.2, calibrate=False)
INFO = StoreInfo(embedder="table", normalized=False)
POWERS = np.float32(2.0) ** np.arange(-30, 34, 2)


def table(store=None, scale=1.0, shift=0.0) -> EmbeddingStore:
    store = store or make_store()
    x = store.embeddings * np.float32(scale) + np.float32(shift)
    return EmbeddingStore(x, store.labels, INFO)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """From a table, and what its columns are multiplied with, to a run."""
    bench, folder = Workbench(), tmp_path_factory.mktemp("runs")

    def made(name, store, **how):
        target = choose_target(store, "gender")
        report = train(store, target, RECIPE, folder / name, workbench=bench, pictures=False, **how)
        return folder / name, report

    made.bench = bench
    made("other", table(make_store(seed=4), scale=100.0))  # leaves its statistics in the bench
    made.plain, made.report = made("plain", table())
    return made


def test_scales_change_no_bit_of_the_answers(runs):
    scaled, _ = runs("scaled", table(scale=POWERS))
    answers = Predictor(scaled).probabilities(table(scale=POWERS))
    np.testing.assert_array_equal(answers, Predictor(runs.plain).probabilities(table()))
    shifts = np.linspace(-50, 50, 32)
    shifted, _ = runs("shifted", table(shift=shifts))
    close = Predictor(shifted).probabilities(table(shift=shifts))
    np.testing.assert_allclose(close, answers, atol=0.01)
    assert len(runs.bench._models) == 1


def test_statistics_are_those_of_the_rows_trained_on(runs, tmp_path):
    store = table()
    how = {"validation_share": 0.1, "seed": 0, "group": None}
    rows = Rows.of(store, choose_target(store, "gender"), None, how)
    layer = load_model(runs.plain).get_layer("standardize")
    np.testing.assert_allclose(layer.mean, rows.inputs.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(1 / layer.scale, rows.inputs.std(axis=0), rtol=1e-5)
    assert np.abs(rows.part_inputs.mean(axis=0) - layer.mean).max() > 1e-3
    assert runs.report["columns"] == {"standardized": 32, "constant": 0, "hidden_width": 64}
    alone = tmp_path / "alone"
    train(store, choose_target(store, "gender"), RECIPE, alone, pictures=False)
    for a, b in zip(*(load_model(p).get_weights() for p in (runs.plain, alone)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_goes_on_with_the_statistics_of_the_first(runs, tmp_path):
    report = runs("tuned", table(make_store(seed=9), scale=3.0), init=runs.plain)[1]
    assert report["weights_from_init"]["new"] == []
    first, later = (load_model(runs.plain.parent / n) for n in ("plain", "tuned"))
    np.testing.assert_array_equal(
        first.get_layer("standardize").scale, later.get_layer("standardize").scale
    )
    older = tmp_path / "older"
    target = choose_target(table(), "gender")
    train(table(), target, RECIPE, older, pictures=False, workbench=runs.bench)
    config = json.loads((older / "config.json").read_text())
    del config["standardized"], config["hashes"]
    (older / "config.json").write_text(json.dumps(config))
    (older / "DONE").write_text("")
    np.testing.assert_array_equal(  # it answers all the same
        Predictor(older).probabilities(table()), Predictor(runs.plain).probabilities(table())
    )
    with pytest.raises(InputError, match="must be a run whose model standardises"):
        runs("from-older", table(), init=older)


def test_an_export_standardises_by_itself(runs, tmp_path):
    store = table()
    export_model(runs.plain, tmp_path / "served")
    signatures = tf.saved_model.load(str(tmp_path / "served" / "1")).signatures
    answer = signatures["serving_default"](embedding=tf.constant(store.embeddings))
    expected = Predictor(runs.plain).probabilities(store)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
    zeros = signatures["serving_default"](embedding=tf.zeros((1, store.width)))
    assert np.isfinite(zeros["probabilities"]).all()


@pytest.mark.slow
def test_every_fold_is_standardised_by_its_own_rows(tmp_path):
    table().save(tmp_path / "table.h5")
    target = choose_target(table(), "gender")
    plan = CrossValidationPlan(target=target, recipe=RECIPE, seeds=(0,), num_folds=2)
    cross_validate(tmp_path / "table.h5", plan, tmp_path / "cv", workers=1)
    means = [
        load_model(tmp_path / "cv" / f"seed0_fold{k}").get_layer("standardize").mean
        for k in range(2)
    ]
    assert np.abs(np.subtract(*means)).max() > 1e-3


def test_inputs_that_are_not_to_be_scaled_are_not(tmp_path):
    store, recipe = table(), RECIPE.replace(epochs=1, scale_inputs=False, hidden_width=32)
    report = train(store, choose_target(store, "gender"), recipe, tmp_path / "a", pictures=False)
    names = [layer.name for layer in load_model(tmp_path / "a").layers]
    assert names[:2] == ["embedding", "residual_0_0"] and report["columns"] is None


def test_noise_in_units_of_each_column():
    x = np.ones((4000, 3), "float32")
    how = {"batch_size": 4000, "num_epochs": 1, "seed": 0, "noise_std": 0.3}
    units = np.float32([0, 1, 500])
    ((noisy,), _, _), *_ = training_chunks(x, x, noise_units=units, **how)
    added = np.array(noisy) - x
    assert (added[:, 0] == 0).all()
    # a deviation from U(0, 0.3) for each row: 0.3 / sqrt(3) in all
    np.testing.assert_allclose(added[:, 1:].std(axis=0), 0.3 / 3**0.5 * units[1:], rtol=0.05)
    assert abs(np.corrcoef(added[:, 1], added[:, 2])[0, 1]) < 0.1


def test_a_search_standardises_by_its_rows(tmp_path):
    how = {"base": RECIPE, "space": "narrow", "max_epochs": 2}
    stores = table(), table(scale=POWERS)
    runners = [TrialRunner(s, TuningPlan(target=choose_target(s, "gender"), **how)) for s in stores]
    runners[1].workbench = runners[0].workbench  # compiled once
    trials = [r.run(RECIPE, tmp_path / f"{k}", stop_after=2) for k, r in enumerate(runners)]
    assert trials[0]["val_loss"] == trials[1]["val_loss"] < 10


def test_few_columns_are_widened_and_normalised_ones_are_not():
    recipe = Recipe()
    assert recipe.network(8, normalized=False)["hidden_width"] == 64
    assert recipe.network(128, normalized=False)["hidden_width"] == 128
    assert recipe.network(8)["hidden_width"] == 8
    assert recipe.replace(hidden_width=20).network(8)["hidden_width"] == 20
    deep = recipe.replace(num_blocks=6)
    assert deep.network(8, normalized=False)["standardize"]
    with pytest.raises(InputError, match="`num_blocks` must leave a width of at least 1"):
        deep.network(8)
    with pytest.raises(InputError, match="must make a network of at most"):
        recipe.replace(hidden_width=65_536).network(8)
