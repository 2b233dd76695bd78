import argparse
import json
import os
import random
import signal
import subprocess
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from damage import without_hashes
from data_sets import ROOT, make_store
from forked import fresh_python

from kerasmlp import EmbeddingStore, StoreInfo, load_model
from kerasmlp.callbacks.checkpoint import Checkpoint
from kerasmlp.callbacks.validation import Validation, forward
from kerasmlp.cli import run_command
from kerasmlp.commands import train_gender
from kerasmlp.commands.task_options import choose_recipe, for_rows
from kerasmlp.commands.training_options import choose_validation_share
from kerasmlp.data.examples import Examples
from kerasmlp.data.targets import Target, age_target, choose_age_target, choose_target
from kerasmlp.evaluation.measuring import measure, measure_groups, with_classes
from kerasmlp.experiments.age_cnn.recipe import AgeCNNRecipe
from kerasmlp.models.presets import PRESETS, Recipe
from kerasmlp.models.recipe_files import find_recipe
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.runs.mc_model import can_be_sampled
from kerasmlp.runs.predictor import Predictor
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import count_seen, load_seen, row_hashes
from kerasmlp.training.batches import training_chunks
from kerasmlp.training.calibrating import fit_calibration
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.embeddings import train
from kerasmlp.training.fit import compile_by_recipe, course_by_recipe, fit
from kerasmlp.training.initial_weights import check_init
from kerasmlp.training.losses import recipe_loss
from kerasmlp.training.rows import Rows
from kerasmlp.uncertainty.samples import predict_uncertainty
from kerasmlp.utils.checks import InputError
from kerasmlp.utils.manifest import write_manifest
from kerasmlp.utils.tables import csv_of, read_csv

SMALL = Recipe(epochs=4, batch_size=32, dropout_rate=0.2)


@pytest.fixture(scope="module")
def store():
    return make_store()


@pytest.fixture(scope="module")
def age_run(store, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "age"
    target = choose_age_target(store, None, "adience", by_years=True)
    return path, target, train(store, target, SMALL.replace(epochs=12), path, seed=1)


def test_a_run_folder_is_complete(age_run, store):
    path, _, report = age_run
    names = {p.name for p in path.iterdir()} - {"tensorboard"}  # where it is installed
    assert names == {
        "DONE", "config.json", "report.json", "history.csv", "model.keras", "calibration.json",
        "curves.png", "confusion_matrix.png", "seen.npy", ".lock",
    }  # fmt: skip
    assert json.loads((path / "report.json").read_text()) == report
    assert report["rows"] == {"training": 360, "validation": 40, "unlabelled": 0}
    assert report["data_digest"] == store.digest()
    assert set(report["versions"]) >= {"kerasmlp", "python", "tensorflow", "keras", "numpy"}
    assert len((path / "history.csv").read_text().splitlines()) == 1 + 12
    assert sum(row["rows"] for row in report["validation_groups"]) == 40


def kept_back(store, target, share: float, seed: int) -> Examples:
    """The rows that `train` keeps back."""
    how = {"validation_share": share, "seed": seed, "group": None}
    return Rows.of(store, target, None, how).heads[0].part


def test_a_run_is_calibrated_as_it_answers(age_run, store):
    path, target, report = age_run
    part = kept_back(store, target, 0.1, 1)
    predictor = Predictor(path)
    model = load_model(path)
    mean = predict_uncertainty(model, part.inputs, num_samples=64)["mean"]
    both = {"deterministic": predictor.probabilities(part.inputs), "mc_mean": mean}
    expected = fit_calibration(part, both, 64)
    assert predictor.calibration.offsets_years.keys() == both.keys()
    for name, offsets in expected.offsets_years.items():
        assert predictor.calibration.offsets_years[name] == pytest.approx(offsets, abs=1e-3)
    np.testing.assert_allclose(
        predictor.calibration.abstention.thresholds, expected.abstention.thresholds, rtol=1e-4
    )
    assert report["before_temperature"].keys() == {"nll", "ece"}
    # 40 rows are too few for a temperature: nothing changed
    assert report["before_temperature"]["nll"] == report["validation"]["nll"]


def test_a_model_without_dropout_is_calibrated_as_it_is(store, tmp_path):
    recipe = SMALL.replace(epochs=1, dropout_rate=0.0)
    target = choose_age_target(store, None, None, by_years=True)
    train(store, target, recipe, tmp_path / "run", pictures=False)
    predictor = Predictor(tmp_path / "run")
    assert not can_be_sampled(predictor.model)
    assert predictor.calibration.offsets_years.keys() == {"deterministic"}
    with pytest.raises(InputError, match="needs. Received: a model without dropout or members"):
        predictor.threshold_nats(0.5, num_samples=64)


def test_a_store_is_answered_as_its_rows_if_the_embedder_is_the_same(age_run, store):
    predictor = Predictor(age_run[0])
    few = store.subset(range(4))
    expected = list(predictor.rows(few.embeddings, num_samples=8))
    assert list(predictor.rows(few, num_samples=8)) == expected
    np.testing.assert_array_equal(
        predictor.probabilities(few), predictor.probabilities(few.embeddings)
    )
    other = StoreInfo(embedder="other.onnx", embedder_sha256="1" * 64)
    foreign = EmbeddingStore(few.embeddings, info=other)
    with pytest.raises(InputError, match=r"`the store` must hold embeddings of .*other.onnx"):
        predictor.rows(foreign)


def test_it_learns(age_run, store):
    path, target, _ = age_run
    fresh = make_store(seed=5)
    result = measure(Examples.of(fresh, target), Predictor(path).probabilities(fresh.embeddings))
    constant = np.abs(fresh.labels["age_years"] - np.median(store.labels["age_years"])).mean()
    assert result["mae_years"] < 0.7 * constant
    assert result["accuracy"] > 0.3


@pytest.fixture(scope="module")
def gender_run(store, tmp_path_factory):
    """A training by itself, of seed 3."""
    path = tmp_path_factory.mktemp("runs") / "gender"
    train(store, choose_target(store, "gender"), SMALL, path, seed=3, pictures=False)
    return path


def test_same_seed_same_bits_and_another_seed_others(gender_run, store, tmp_path, workbench):
    target = choose_target(store, "gender")
    for name, seed in (("b", 3), ("c", 4)):
        how = {"seed": seed, "workbench": workbench}
        train(store, target, SMALL, tmp_path / name, **how, pictures=False)
    a, b, c = (load_model(p).get_weights() for p in (gender_run, tmp_path / "b", tmp_path / "c"))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert any((x != y).any() for x, y in zip(a, c, strict=True))


def test_global_generators_neither_matter_nor_change(gender_run, store, tmp_path):
    """To set TensorFlow's seed would also have every kernel made anew."""
    keras.utils.set_random_seed(98)
    random.seed(5)
    np.random.seed(5)
    train(store, choose_target(store, "gender"), SMALL, tmp_path / "b", seed=3, pictures=False)
    drawn = (random.random(), np.random.random())
    a, b = (load_model(path).variables for path in (gender_run, tmp_path / "b"))
    assert len(a) > len(load_model(gender_run).weights)  # dropout's generators are compared too
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert drawn == (random.Random(5).random(), np.random.RandomState(5).random())


@pytest.mark.parametrize("rows", [0, 1, 512, 700])
def test_compiled_outputs_are_those_of_the_model(rows):
    model = ResidualMLP(num_classes=3, width=8, seed=0)
    x = np.random.default_rng(0).normal(size=(rows, 8)).astype("float32")
    outputs = forward(model, x, xla=True)
    assert outputs.shape == (rows, 3)
    np.testing.assert_allclose(outputs, forward(model, x), atol=1e-6)


def test_the_temperature_is_part_of_the_model(store, tmp_path, workbench):
    target = choose_target(store, "gender")
    half = {"seed": 0, "validation_share": 0.5, "workbench": workbench, "pictures": False}
    report = train(store, target, SMALL, tmp_path / "with", **half)
    train(store, target, SMALL.replace(calibrate=False), tmp_path / "without", **half)
    scaled, plain = (load_model(tmp_path / n).get_layer("logits") for n in ("with", "without"))
    for x, y in zip(scaled.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(x * report["temperature"], y, rtol=1e-5)
    assert report["temperature"] != 1
    assert report["before_temperature"]["nll"] > report["validation"]["nll"]


def test_early_stopping_takes_the_best_weights(store):
    """A validation loss that rises from the first epoch on: stop after patience, keep epoch 0."""
    recipe = SMALL.replace(epochs=10, patience=2)
    target = choose_target(store, "gender")
    model = ResidualMLP(num_classes=2, **recipe.network(store.width), seed=0)
    steps = recipe.steps(len(store))
    model = compile_by_recipe(
        model, recipe, steps=steps, loss=recipe_loss(recipe, ordered=False), xla=False
    )
    weights = []

    def rising(_):
        weights.append(model.get_weights())
        return {"loss": float(len(weights))}

    y = Examples.of(store, target).soft_targets(0)
    validation = Validation(store.embeddings, rising)
    how = {"steps": steps, "seed": 0, "callbacks": [validation]}
    course = course_by_recipe(store.embeddings, y, recipe, **how)
    history, stopped = fit(model, course, checkpoint_path=_scratch())
    assert stopped and len(history) == 3
    for best, now in zip(weights[0], model.get_weights(), strict=True):
        np.testing.assert_array_equal(best, now)


def _scratch():
    import tempfile
    from pathlib import Path

    return Path(tempfile.mkdtemp()) / "checkpoint.npz"


def test_init_copies_what_fits_across_another_number_of_classes(
    age_run, store, tmp_path, workbench
):
    path, _, _ = age_run
    target = age_target("age_years", "adience", by_years=False)
    recipe = SMALL.replace(epochs=1, learning_rate=1e-12, weight_decay=0.0, label_sigma_years=0.0)
    how = {"init": path, "pictures": False, "workbench": workbench}
    report = train(store, target, recipe, tmp_path / "run", **how)
    assert report["weights_from_init"]["new"] == ["logits"]
    assert "residual_0_0" in report["weights_from_init"]["copied"]
    seen = load_seen(RunFolder(tmp_path / "run"))
    np.testing.assert_array_equal(seen, np.unique(row_hashes(store.embeddings)))
    kernels = [
        load_model(p).get_layer("downsample_0").dense.kernel for p in (path, tmp_path / "run")
    ]
    np.testing.assert_allclose(*kernels, atol=1e-6)


def test_before_and_after_are_measured_on_the_same_rows(
    age_run, store, tmp_path, workbench, monkeypatch
):
    path, target, _ = age_run
    how = {"init": path, "seed": 1, "pictures": False, "workbench": workbench}
    encoded, encode = [], Target.encode
    with monkeypatch.context() as patch:
        patch.setattr(
            Target, "encode", lambda self, rows: encoded.append(self) or encode(self, rows)
        )
        report = train(store, target, SMALL.replace(epochs=1), tmp_path / "run", **how)
    assert encoded == [target]  # once, for training, measures, calibration and remarks together
    part = kept_back(store, target, 0.1, 1)
    expected = measure(part, Predictor(path).probabilities(part.inputs))
    before = report["before_training"]
    assert before.pop("rows_learned_from") == 40 == report["validation"]["rows"]
    assert before == pytest.approx(expected, rel=1e-5)
    assert before.keys() == report["validation"].keys()
    assert report["validation"]["nll"] != before["nll"]
    other = choose_target(store, "gender")
    gender = train(store, other, SMALL, tmp_path / "gender", **how)
    assert gender["before_training"] is None  # another head: nothing to set beside it


@pytest.mark.parametrize(
    ("words", "rows", "changes"),
    [
        ([], 12_000, {}),
        ([], 1999, {"batch_size": 64}),
        (["--init", "run"], 500, {"learning_rate": 3e-4, "patience": 25}),
        (
            ["--init", "run", "--learning-rate", "0.01"],
            500,
            {"learning_rate": 0.01, "patience": 25},
        ),
        (["--init", "run", "--preset", "gender"], 500, {}),
        (["--batch-size", "100"], 500, {"batch_size": 100}),
    ],
)
def test_defaults_are_gentle_and_options_win(words, rows, changes):
    parser = argparse.ArgumentParser()
    train_gender.add_arguments(parser)
    args = parser.parse_args(words)
    store = make_store(rows=rows, width=4)
    recipe = for_rows(args, choose_recipe(args, "gender"), store, choose_target(store, "gender"))
    assert recipe == PRESETS["gender"].replace(**changes)
    share = 0.2 if "--init" in words and rows < 1000 else 0.1
    assert choose_validation_share(args, rows) == share


def test_groups_are_never_split():
    store = make_store(group=np.repeat(np.arange(100), 4))
    how = {"validation_share": 0.2, "seed": 0, "group": "group"}
    (head,) = Rows.of(store, choose_target(store, "gender"), None, how).heads
    parts = head.training, head.part
    rest, others = (set(part.labels["group"]) for part in parts)
    assert not rest & others and len(rest | others) == 100
    assert sum(map(len, parts)) == 400


def test_rows_without_the_label_are_counted_and_not_learned_from(tmp_path, workbench):
    gender = np.where(np.arange(400) < 8, -1, np.arange(400) % 2)
    store = make_store(gender=gender)
    how = {"workbench": workbench, "pictures": False}
    report = train(store, choose_target(store, "gender"), SMALL, tmp_path / "r", **how)
    assert report["rows"]["unlabelled"] == 8
    assert report["rows"]["training"] + report["rows"]["validation"] == 392
    run = RunFolder(tmp_path / "r")
    np.testing.assert_array_equal(load_seen(run), np.unique(row_hashes(store.embeddings[8:])))
    assert count_seen(run, store.embeddings) == 392
    (run / "seen.npy").unlink()
    without_hashes(run)  # without the hashes of what was trained
    assert count_seen(run, store.embeddings) is None
    with pytest.raises(InputError, match="seen.npy` must tell what the run has learned from"):
        check_init(run, run.config())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"gender": np.zeros(400, int)}, "`gender` must hold at least two classes"),
        ({"gender": np.full(400, -1)}, "`gender` must hold at least two classes"),
        ({"group": np.zeros(400, int)}, "`groups` must hold"),
    ],
)
def test_data_that_cannot_be_trained_on(tmp_path, labels, message):
    store = make_store(**labels)
    with pytest.raises(InputError, match=message):
        train(store, choose_target(store, "gender"), SMALL, tmp_path / "run")


def test_targets_say_what_a_store_lacks(store):
    with pytest.raises(InputError, match="`label` must be a column of the store, which holds"):
        choose_target(store, "race")
    with pytest.raises(InputError, match="`label` must be a column of integers or text"):
        choose_target(store, "age_years")
    names = make_store(name=np.arange(400).astype(str))
    with pytest.raises(InputError, match="`name` must hold classes, which rows share"):
        choose_target(names, "name")
    groups = make_store(age_group=np.array(["0-2", "3-9"] * 200))
    with pytest.raises(InputError, match="`classes` must be 'fairface'"):
        choose_age_target(groups, "age_group", "adience", by_years=True)
    target = age_target("age_years", "adience", by_years=False)
    with pytest.raises(InputError, match="`classes` must be 'adience', which the model"):
        with_classes(target, "fairface")


def test_soft_labels_are_a_normal_distribution_around_the_age(store):
    target = age_target("age_years", "years", by_years=True)
    y = Examples.of(store, target).soft_targets(2.0)
    row = int(np.flatnonzero(store.labels["age_years"] == 40)[0])
    assert y.shape == (400, 101) and y[row].argmax() == 40
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-5)
    spread = np.sqrt(((np.arange(101) - 40) ** 2 * y[row]).sum())
    assert spread == pytest.approx(2.0, abs=0.01)
    for measured in ("years", "adience"):
        rows = Examples.of(store, age_target("age_years", measured, by_years=True))
        hard = rows.soft_targets(0.0)
        np.testing.assert_array_equal(hard.argmax(axis=1), store.labels["age_years"])


def test_groups_without_years_become_blurred_years():
    groups = make_store(age_group=np.array(["0-2", "3-9", "", "more than 70"] * 100))
    target = choose_age_target(groups, "age_group", None, by_years=True)
    assert (target.head, target.classes) == ("years", "fairface")
    y = Examples.of(groups, target).subset(np.array([0, 1, 3])).soft_targets(1.0)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(target.measured(y).argmax(axis=1), [0, 1, 8])
    assert y[1, 4:9] == pytest.approx(1 / 7, rel=0.2)
    assert y[2, 90] < y[2, 75]
    assert target.encode(groups)[2] == -1


def test_groups_are_sums_of_years():
    target = age_target("age_years", "adience", by_years=True)
    p = np.random.default_rng(0).dirichlet(np.ones(101), size=3)
    groups = target.measured(p)
    np.testing.assert_allclose(groups.sum(axis=1), 1)
    assert groups[0, 0] == pytest.approx(p[0, :4].sum())  # 3 lies between 1 and 5: the younger


def test_measures_per_group_add_up(age_run, store):
    path, target, _ = age_run
    p = Predictor(path).probabilities(store.embeddings)
    rows = measure_groups(Examples.of(store, target), p)
    total = measure(Examples.of(store, target), p)
    assert sum(r["rows"] for r in rows) == total["rows"] == 400
    for name in ("accuracy", "nll", "mae_years"):
        mean = sum(r[name] * r["rows"] for r in rows) / 400
        assert mean == pytest.approx(total[name], rel=1e-6)


def test_batches_have_no_tuner_to_wait_for():
    x = np.eye(4, dtype="float32")
    chunks = training_chunks(x, x, batch_size=2, num_epochs=1, seed=0)
    assert chunks.options().autotune.enabled is False


@pytest.mark.parametrize("steps", [2, 32, 33, 70])
def test_chunks_of_an_epoch_are_a_permutation_and_resume_in_the_middle(steps):
    x = np.arange(1, 5 * steps + 1, dtype="float32")[:, None]

    def epochs_of(**which):
        chunks = training_chunks(x, x, batch_size=5, num_epochs=3, seed=7, **which)
        steps_of_chunks = [np.array(rows)[:count] for rows, _, count in chunks]
        return np.concatenate(steps_of_chunks).reshape(-1, 5 * steps)

    whole, rest = epochs_of(), epochs_of(first_epoch=1)
    np.testing.assert_array_equal(whole[1:], rest)
    np.testing.assert_array_equal(np.sort(whole), np.tile(x[:, 0], (3, 1)))
    assert (whole[0] != whole[1]).any()


@pytest.mark.parametrize("steps", [7, 40])
def test_few_rows_are_gone_through_again_in_an_epoch(steps):
    x = np.arange(16, dtype="float32")[:, None]

    def epochs_of(**which):
        how = {"batch_size": 5, "num_epochs": 3, "seed": 7, "steps_per_epoch": steps, **which}
        rows = [np.array(rows)[:count] for rows, _, count in training_chunks(x, x, **how)]
        return np.concatenate(rows).reshape(-1, steps, 5)

    whole, rest = epochs_of(), epochs_of(first_epoch=1)
    np.testing.assert_array_equal(whole[1:], rest)
    passes = [whole[k, i : i + 3].ravel() for k in range(3) for i in range(0, steps - 2, 3)]
    assert all(len(set(rows)) == 15 for rows in passes)  # one of 16 is left out of each
    assert len({tuple(rows) for rows in passes}) == len(passes)
    assert {row for rows in passes for row in set(range(16)) - set(rows)} != {0.0}


@pytest.mark.parametrize("batch_size", [64, 1024])
def test_a_batch_of_all_rows_takes_as_many_steps(batch_size, tmp_path):
    store = make_store(rows=300)
    recipe = Recipe(epochs=2, batch_size=batch_size, dropout_rate=0.0, min_steps=70)
    bench = Workbench()
    train(store, choose_target(store, "gender"), recipe, tmp_path, workbench=bench, pictures=False)
    ((model, _),) = bench._models.values()
    assert int(model.optimizer.iterations) == 2 * 70


def test_a_recipe_says_how_many_steps_an_epoch_has_at_least(tmp_path):
    store, target = make_store(rows=100), choose_target(make_store(rows=100), "gender")
    recipe = Recipe(epochs=2, batch_size=16, dropout_rate=0.0, min_steps=12)
    assert [recipe.steps(rows) for rows in (5, 100, 400)] == [12, 12, 25]
    train(store, target, recipe, tmp_path / "a", pictures=False)
    how = {"steps_per_epoch": 12, "pictures": False}
    train(store, target, recipe.replace(min_steps=1), tmp_path / "b", **how)
    few = train(store, target, recipe.replace(min_steps=1), tmp_path / "c", pictures=False)
    a, b, c = (load_model(tmp_path / name).get_weights() for name in "abc")
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)
    assert any((one != other).any() for one, other in zip(a, c, strict=True))
    assert few["epochs"] == 2
    for bad in (0, 1.5, 1 << 21):
        with pytest.raises(InputError, match="`min_steps` must be"):
            Recipe(min_steps=bad)
        with pytest.raises(InputError, match="`steps_per_epoch` must be"):
            train(store, target, recipe, tmp_path / "d", steps_per_epoch=bad)
    assert not (tmp_path / "d").exists()


def test_a_chunk_trains_as_its_batches_one_by_one():
    """Keras' own step, batch by batch, ends with the same weights, up to rounding."""
    rng, recipe = np.random.default_rng(0), Recipe(batch_size=4, epochs=2, dropout_rate=0.3)
    x, y = rng.normal(size=(150, 8)).astype("float32"), np.eye(2, dtype="float32")[[0, 1] * 75]
    chunks = training_chunks(x, y, batch_size=4, num_epochs=2, seed=1)
    batches = [(rows[i], labels[i]) for rows, labels, count in chunks for i in range(int(count))]
    assert len(batches) == 2 * 37  # chunks of 19 and 18
    ends = []
    for chunked, xla in ((False, False), (True, False), (True, True)):
        model = ResidualMLP(num_classes=2, seed=0, **recipe.network(8))
        model = compile_by_recipe(
            model, recipe, steps=37, loss=recipe_loss(recipe, ordered=False), xla=xla
        )
        if chunked:
            model.fit(chunks, epochs=2, steps_per_epoch=2, shuffle=False, verbose=0)
        else:
            model.optimizer.build(model.trainable_variables)
            step = tf.function(keras.Model.train_step.__get__(model))
            for batch in batches:
                step(batch)
        assert int(model.optimizer.iterations) == 74
        ends.append(model.get_weights())
    for others in zip(*ends, strict=True):
        for other in others[1:]:
            np.testing.assert_allclose(others[0], other, rtol=1e-4, atol=1e-5)


def test_mixup_mixes_rows_and_labels_alike_and_keeps_the_norm():
    rng = np.random.default_rng(0)
    x = np.eye(8, dtype="float32")[rng.integers(0, 8, 64)]
    how = {"batch_size": 64, "num_epochs": 1, "seed": 0}
    ((mixed,), (labels,), _), *_ = training_chunks(x, x, mixup_alpha=0.4, **how)
    np.testing.assert_allclose(mixed, labels, atol=1e-6)
    np.testing.assert_allclose(np.sum(labels, axis=1), 1, atol=1e-6)
    assert ((np.array(labels) > 0.01) & (np.array(labels) < 0.99)).any()
    ((noisy,), _, _), *_ = training_chunks(x, x, noise_std=0.1, **how)
    np.testing.assert_allclose(np.linalg.norm(noisy, axis=1), 1, atol=1e-5)
    assert 0.001 < np.abs(np.array(noisy) - np.round(noisy)).mean() < 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dropout_rate": 1.2}, r"`dropout_rate` must be in \[0, 1\). Received: dropout_rate=1.2"),
        ({"epochs": 0}, "`epochs` must be an integer >= 1"),
        ({"schedule": "linear"}, "`schedule` must be one of 'cosine', 'exponential'"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a finite number > 0"),
        ({"learning_rate": float("inf")}, "must be a JSON file. Received: Infinity, which is no"),
        ({"num_blocks": 99999999999}, "`num_blocks` must be at most 16"),
        ({"colour": 1}, r"must hold hyperparameters of a recipe. Received: \['colour'\]"),
    ],
)
def test_bad_presets(tmp_path, values, message):
    path = tmp_path / "preset.json"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=message):
        find_recipe(path)
    with pytest.raises(InputError, match=r"`preset` must be one of age, .*Received: preset='agee'"):
        find_recipe("agee")


@pytest.mark.parametrize(
    ("read", "recipe"), [(find_recipe, Recipe()), (AgeCNNRecipe.from_file, AgeCNNRecipe())]
)
def test_the_best_of_a_search_is_as_it_was_written(tmp_path, read, recipe):
    path = tmp_path / "best.json"
    path.write_text(json.dumps(recipe.to_config()))
    write_manifest(tmp_path / "DONE", ["best.json"])
    assert read(path) == recipe
    path.write_text(json.dumps(recipe.replace(learning_rate=0.5).to_config()))
    with pytest.raises(InputError, match="best.json` must be as it was written, with SHA-256"):
        read(path)
    path.rename(tmp_path / "mine.json")
    assert read(tmp_path / "mine.json").learning_rate == 0.5


def test_presets_survive_json(tmp_path):
    for name, recipe in PRESETS.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(recipe.to_config()))
        assert find_recipe(path) == recipe


def test_a_target_survives_json():
    target = age_target("age_years", "0-17,18+", by_years=True)
    config = json.loads(json.dumps(target.__dict__))
    assert Target.from_config(config) == target


def test_a_folder_in_use_is_refused(tmp_path):
    run = RunFolder(tmp_path / "run")
    with (
        run.working({}, resume=False, force=False),
        pytest.raises(InputError, match="must not be in use"),
        RunFolder(tmp_path / "run").working({}, resume=True, force=False),
    ):
        pass


@pytest.mark.parametrize("name", ["thesis.txt", ".bashrc", "config.json"])
def test_a_folder_of_other_files_is_neither_used_nor_deleted(tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}')
    (tmp_path / ".env").write_text("mine")
    for flags in ({"resume": False, "force": False}, {"resume": True, "force": False},
                  {"resume": False, "force": True}):  # fmt: skip
        with pytest.raises(InputError), RunFolder(tmp_path).working({}, **flags):
            pass
    assert (tmp_path / name).read_text() == '{"mine": 1}'
    assert (tmp_path / ".env").read_text() == "mine"


def test_resume_refuses_another_configuration(tmp_path):
    run = RunFolder(tmp_path / "run")
    with run.working({"seed": 0}, resume=False, force=False):
        pass
    with (
        pytest.raises(InputError, match=r"must be resumed with the same seed \(0\). Received: 1"),
        run.working({"seed": 1}, resume=True, force=False),
    ):
        pass
    inner = RunFolder(tmp_path / "two")
    with inner.working({"a": {"lr": 1}, "b": {"lr": 2}}, resume=False, force=False):
        pass
    with (
        pytest.raises(InputError, match=r"must be resumed with the same a\.lr \(1\)"),
        inner.working({"a": {"lr": 3}, "b": {"lr": 2}}, resume=True, force=False),
    ):
        pass


def words_of(store_path, run_dir, *flags):
    words = ["--store", str(store_path), "--run-dir", str(run_dir), *flags]
    return [*words, "--epochs", "15", "--batch-size", "32"]


def start(*words):
    command = [fresh_python(), str(ROOT / "bin" / "train-gender"), *words_of(*words)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ}
    )


def test_killed_and_resumed_ends_with_the_same_weights(tmp_path):
    store_path = tmp_path / "store.h5"
    make_store(rows=600, width=64).save(store_path)
    assert start(store_path, tmp_path / "whole").wait() == 0
    kills, rng = 0, random.Random(0)
    process = start(store_path, tmp_path / "broken", "--resume")
    while kills < 1:
        # Once there is something to lose; ten kills are in tests/benchmarks/kill_training.py.
        while process.poll() is None and not (tmp_path / "broken" / "checkpoint.npz").exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        process = start(store_path, tmp_path / "broken", "--resume")
    assert process.wait() == 0, process.stderr.read().decode()
    assert kills >= 1
    whole, broken = (load_model(tmp_path / n).get_weights() for n in ("whole", "broken"))
    for a, b in zip(whole, broken, strict=True):
        np.testing.assert_array_equal(a, b)
    histories = [(tmp_path / n / "history.csv").read_text() for n in ("whole", "broken")]
    assert histories[0] == histories[1]
    # A finished run is not computed again.
    before = (tmp_path / "whole" / "model.keras").stat().st_mtime_ns
    words = words_of(store_path, tmp_path / "whole", "--resume")
    assert run_command("train-gender", words) == 0
    assert (tmp_path / "whole" / "model.keras").stat().st_mtime_ns == before


def test_the_history_grows_while_it_trains_and_outlives_a_kill(tmp_path):
    path, seen = tmp_path / "history.csv", []
    x = np.eye(8, 3, dtype="float32")

    def fit_to(epochs):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=False, run_eagerly=True)
        checkpoint = Checkpoint(tmp_path / "checkpoint.npz", history_path=path)
        first = checkpoint.restore(model)
        watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(read_csv(path)))
        how = {"epochs": epochs, "initial_epoch": first, "verbose": 0}
        model.fit(x, x[:, :1], callbacks=[checkpoint, watch], **how)
        assert path.read_text() == csv_of(checkpoint.history)

    fit_to(3)
    with open(path, "a") as file:
        file.write("3,0.")  # killed in the middle of a line
    fit_to(5)
    assert [[int(row["epoch"]) for row in rows] for rows in seen] == [
        list(range(n)) for n in range(1, 6)
    ]


def test_float16_policy_trains_and_is_saved_as_float32(store, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "kerasmlp.training.embedding_training.default_policy", lambda: "mixed_float16"
    )
    scaled = []
    wrap = keras.optimizers.LossScaleOptimizer
    monkeypatch.setattr(
        keras.optimizers, "LossScaleOptimizer", lambda inner: scaled.append(1) or wrap(inner)
    )
    recipe = SMALL.replace(epochs=2)
    train(store, choose_target(store, "gender"), recipe, tmp_path / "run", pictures=False)
    model = load_model(tmp_path / "run")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert keras.backend.standardize_dtype(model.output.dtype) == "float32"
    assert scaled


def test_diverged_weights_are_said_and_keep_the_run(store, tmp_path, workbench):
    target = choose_target(store, "gender")
    recipe = SMALL.replace(learning_rate=1e30, warmup_share=0.0)
    with pytest.raises(InputError, match="`learning_rate` must be lower: the weights diverged"):
        train(store, target, recipe, tmp_path / "run", workbench=workbench)


def test_odd_ages_do_not_spoil_another_label(tmp_path, workbench):
    store = make_store(age_years=np.full(400, np.nan), age_group=np.array(["young", "old"] * 200))
    how = {"workbench": workbench, "pictures": False}
    report = train(store, choose_target(store, "gender"), SMALL, tmp_path / "r", **how)
    assert {row["age_group"] for row in report["validation_groups"]} == {"all"}


def test_a_column_of_groups_that_is_not_there_is_refused(store, tmp_path):
    with pytest.raises(InputError, match="`group` must be a column of the store"):
        train(store, choose_target(store, "gender"), SMALL, tmp_path / "run", group="persno")


def test_init_refuses_another_embedder_or_scale(age_run, store, tmp_path):
    path, target, _ = age_run
    from dataclasses import replace

    from kerasmlp import EmbeddingStore

    info = replace(store.info, embedder="b.onnx", embedder_sha256="1" * 64)
    other = EmbeddingStore(store.embeddings, store.labels, info)
    with pytest.raises(InputError, match="of the store's embedder, with SHA-256"):
        train(other, target, SMALL, tmp_path / "a", init=path)
    with pytest.raises(InputError, match="must be a run with scale_inputs=False"):
        train(store, target, SMALL.replace(scale_inputs=False), tmp_path / "b", init=path)


def test_few_rows_are_not_calibrated_on(store, tmp_path, workbench):
    """The 40 rows kept back are fewer than a temperature needs."""
    target = choose_target(store, "gender")
    how = {"workbench": workbench, "pictures": False}
    report = train(store, target, SMALL, tmp_path / "run", **how)
    assert report["temperature"] == 1.0


def test_init_has_not_learned_from_the_test(age_run, store, tmp_path, workbench):
    path, target, _ = age_run
    how = {"init": path, "pictures": False, "workbench": workbench}
    for test in ({"test_share": 0.2}, {"test": store.subset(np.arange(80))}):
        with pytest.raises(InputError, match="other faces .* has seen 80 of their rows"):
            train(store, target, SMALL, tmp_path / "run", **how, **test)
    assert not (tmp_path / "run").exists()


def test_rows_on_both_sides_of_a_test_are_said(store, tmp_path, workbench):
    first = np.arange(100)
    twice = store.subset(np.concatenate([first, first]))
    twice.labels["group"] = np.arange(200)
    target, recipe = choose_target(twice, "gender"), SMALL.replace(epochs=1)
    how = {"workbench": workbench, "pictures": False, "test_share": 0.2}
    report = train(twice, target, recipe, tmp_path / "run", **how)
    how = {"validation_share": 0.1, "test_share": 0.2, "seed": 0, "group": None}
    test = Rows.of(twice, target, None, how).heads[0].test
    same = (test.inputs[:, None] == test.inputs).all(axis=2).sum()  # with themselves
    common = len(test) - (same - len(test))
    assert report["rows"]["test_learned_from"] == common > 20
    assert f"{common} of the 40 rows held out as a test are among" in " ".join(report["notes"])


def test_a_compiled_model_is_saved_and_loaded_with_its_optimiser(tmp_path):
    recipe = SMALL.replace(weight_decay=0.25)
    model = ResidualMLP(num_classes=2, seed=0, **recipe.network(8))
    model = compile_by_recipe(model, recipe, steps=3, loss=recipe_loss(recipe, ordered=True))
    model.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert float(loaded.optimizer.weight_decay) == 0.25
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    x = np.ones((2, 8), "float32")
    np.testing.assert_array_equal(loaded(x), model(x))
