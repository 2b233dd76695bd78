"""Runs that are calibrated anew: against NumPy, and as a user does it by the command."""

import json
import shutil

import keras
import numpy as np
import pytest
from damage import is_one_sentence, outcome, without_hashes
from data_sets import INFO, make_store

from kerasmlp import (
    EmbeddingStore,
    InputError,
    Predictor,
    choose_target,
    evaluate,
    export_model,
    load_model,
    recalibrate,
    train,
)
from kerasmlp.data.labels import age_classes
from kerasmlp.data.other_targets import NumberTarget, SeveralTargets
from kerasmlp.data.targets import age_target
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import load_seen, row_hashes
from kerasmlp.training.batch_norm_statistics import as_trained_on, renew_batch_norm
from kerasmlp.uncertainty.measures import age_interval_years

RECIPE = Recipe(epochs=3, batch_size=128, dropout_rate=0.2, conformal_by=("predicted",))


def wild(rows, seed):
    """People whose ages are harder to tell than where the run has learned, and a number of them."""
    store, rng = make_store(rows=rows, seed=seed), np.random.default_rng(seed)
    years = np.clip(store.labels["age_years"] + rng.normal(6, 9, rows), 0, 99).astype("float32")
    groups = age_classes("fairface")
    names = np.array(groups.class_names)[groups.encode(years)]
    more = {"age_years": years, "height": 150 + years / 3 + rng.normal(0, 4, rows)}
    columns = store.labels | more | {"age_group": names}
    columns["group"] = columns["group"] + 10_000
    return EmbeddingStore(store.embeddings, columns, INFO, name="wild.h5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recalibrated")


@pytest.fixture(scope="module")
def old():
    store = make_store(rows=1500)
    height = 150 + store.labels["age_years"] / 3 + np.random.default_rng(0).normal(0, 2, 1500)
    return EmbeddingStore(store.embeddings, store.labels | {"height": height}, INFO)


@pytest.fixture(scope="module")
def run(folder, old):
    target = age_target("age_years", "fairface", by_years=True)
    train(old, target, RECIPE, folder / "age", validation_share=0.2, pictures=False)
    return folder / "age"


@pytest.fixture(scope="module")
def several(folder, old):
    heads = (choose_target(old, "gender"), NumberTarget("height", "cm"))
    target = SeveralTargets(heads)
    train(old, target, RECIPE, folder / "several", validation_share=0.2, pictures=False)
    return folder / "several"


@pytest.fixture(scope="module")
def new(folder, run):
    """Its report, and the rows it is of."""
    store = wild(600, 7)
    return recalibrate(run, store, folder / "new"), store


def mean_of(predictor, store):
    return np.concatenate([c["mean"] for c in predictor.uncertainty(store, num_samples=64)])


def test_promises_hold_where_they_did_not(run, new, folder):
    others = wild(4000, 8)
    for path, low, high in ((run, 0.0, 0.86), (folder / "new", 0.87, 0.94)):
        predictor = Predictor(path)
        mean = mean_of(predictor, others)
        ends = predictor.intervals(mean, sampled=True)[90]
        truth = others.labels["age_years"]
        assert low <= ((truth >= ends[:, 0]) & (truth <= ends[:, 1])).mean() <= high
    sets = predictor.sets(mean, sampled=True)
    classes = age_classes("fairface").encode(truth)
    assert 0.87 <= sets[np.arange(4000), classes].mean() <= 0.94


def test_limits_are_those_of_the_new_rows(new, folder):
    """The offset of a predicted group, from the answers of the model as it is."""
    predictor, store = Predictor(folder / "new"), new[1]
    mean, years = mean_of(predictor, store), np.arange(101)
    names = np.array(predictor.target.measured_names)
    likeliest = names[predictor.target.measured(mean).argmax(axis=1)]
    checked = 0
    own = [one for one in predictor.calibration.groups.models["mc_mean"] if one.group]
    for one in own:
        chosen = likeliest == one.group[0]
        low, high = age_interval_years(mean[chosen], years, 0.9).T
        truth = store.labels["age_years"][chosen]
        scores = np.sort(np.maximum(low - truth, truth - high))
        rank = int(np.ceil(round(0.9 * (len(scores) + 1), 9)))
        assert one.rows == chosen.sum()
        assert one.limits["90"] == pytest.approx(scores[rank - 1], abs=0.05)
        checked += 1
    assert checked >= 3 and predictor.calibration.rows == 600


def test_the_temperature_is_on_top_of_that_of_the_run(run, new, folder):
    paths = run, folder / "new"
    before, after = (load_model(path).weights for path in paths)
    temperatures = [RunFolder(path).report()["temperature"] for path in paths]
    factor = temperatures[1] / temperatures[0]
    for a, b in zip(before, after, strict=True):
        logits = "logits" in a.path
        np.testing.assert_allclose(a, b * factor if logits else b, rtol=1e-5)
    assert abs(factor - 1) > 1e-3
    assert new[0]["validation"]["nll"] < new[0]["before"]["nll"]


def test_it_is_a_whole_run_that_says_what_it_came_from(run, new, folder):
    path, store = folder / "new", new[1]
    config = RunFolder(path).config()
    RunFolder(path).check_files()
    assert config["recalibrated"]["data_digest"] == store.digest()
    assert config["recalibrated"]["model_sha256"] in (run / "DONE").read_text()
    assert config["data_digest"] == RunFolder(run).config()["data_digest"]
    assert (path / "history.csv").read_bytes() == (run / "history.csv").read_bytes()
    assert np.isin(row_hashes(store.embeddings), load_seen(RunFolder(path))).all()
    assert np.isin(load_seen(RunFolder(run)), load_seen(RunFolder(path))).all()


@pytest.mark.slow
def test_it_is_measured_exported_and_calibrated_again(folder, new, tmp_path):
    path = folder / "new"
    wild(300, 9).save(tmp_path / "others.h5")
    report = evaluate(path, tmp_path / "others.h5", tmp_path / "e", num_samples=64)
    assert report["moved"]["moved"] is False and report["moved"]["promises_kept"] is True
    assert report["rows_learned_from"] == 0
    assert export_model(path, tmp_path / "age")["calibrated"]
    assert outcome("card", path, "-o", tmp_path / "card.md")[0] == 0
    again = recalibrate(path, wild(200, 10), tmp_path / "again")
    assert again["rows"]["validation"] == 200


def test_the_reference_is_of_the_new_rows(new, folder):
    reference = Predictor(folder / "new").reference
    expected = np.sort(reference.of_rows(new[1].embeddings)["across"])
    np.testing.assert_allclose(reference.scores["across"], expected, rtol=1e-5)
    assert len(reference.answers["age"]) == 600


def test_the_same_rows_give_the_same_run(run, new, folder, tmp_path):
    recalibrate(run, new[1], tmp_path / "again")
    for name in ("calibration.json", "reference.json", "seen.npy", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / "new" / name).read_bytes()


def test_groups_are_enough_but_for_intervals_in_years(run, tmp_path, capsys):
    store = wild(500, 11)
    columns = {k: v for k, v in store.labels.items() if k in ("age_group", "group")}
    EmbeddingStore(store.embeddings, columns, INFO).save(tmp_path / "groups.h5")
    words = [run, tmp_path / "groups.h5", "-o", tmp_path / "new", "--json"]
    code, out, err = outcome("recalibrate", *words)
    assert code == 0 and err == ""
    assert "note: age_years: these rows know groups, not years" in out
    predictor = Predictor(tmp_path / "new")
    assert predictor.calibration.offsets_years == {} and predictor.calibration.year_errors is None
    assert predictor.calibration.set_thresholds and predictor.calibration.abstention
    others = wild(3000, 12)
    sets = predictor.sets(mean_of(predictor, others), sampled=True)
    classes = age_classes("fairface").encode(others.labels["age_years"])
    assert 0.87 <= sets[np.arange(3000), classes].mean() <= 0.94
    result = json.loads(out.splitlines()[-1])
    assert result["before"]["rows"] == result["validation"]["rows"] == 500
    with pytest.raises(InputError, match="no ages in years"):
        predictor.threshold_nats(0.5, num_samples=64, within_years=5)


def test_rows_that_the_run_has_learned_from_are_counted_or_refused(run, old, tmp_path):
    code, _, err = outcome("recalibrate", run, saved(old, tmp_path), "-o", tmp_path / "new")
    assert code == 2 and is_one_sentence(err) and "that it has" in err
    both = EmbeddingStore.concatenate([old.subset(range(50)), wild(40, 13)])
    report = recalibrate(run, both, tmp_path / "new")
    assert report["rows"]["learned_from"] == 50 and report["rows"]["validation"] == 40
    assert any(note.startswith("50 rows are left out") for note in report["notes"])
    assert any("the temperature stays as it was: 40 rows" in note for note in report["notes"])
    temperatures = [RunFolder(p).report()["temperature"] for p in (run, tmp_path / "new")]
    assert temperatures[0] == temperatures[1]
    passes = [Predictor(p).calibration.mc_temperature for p in (run, tmp_path / "new")]
    assert passes[0] == passes[1]


def saved(store, folder):
    store.save(folder / "store.h5", overwrite=True)
    return folder / "store.h5"


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (lambda: wild(29, 14), [], "must hold at least 30 different rows with age_years"),
        (lambda: wild(29, 14).subset(np.arange(290) % 29), [], "has learned from. Received: 29"),
        (lambda: EmbeddingStore(wild(99, 14).embeddings), [], "30 different rows with age_years"),
        (lambda: wild(99, 14), ["--conformal-by", "race"], "must be columns of the store"),
        (lambda: wild(99, 14), ["--conformal-by", "age_group"], "must be known when the model"),
        (lambda: make_store(rows=99, width=16, seed=3), [], "of width 32"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_nothing_is_written(make, words, message, run, tmp_path):
    words = [run, saved(make(), tmp_path), "-o", tmp_path / "new", *words]
    code, out, err = outcome("recalibrate", *words)
    assert (code, out) == (2, "") and is_one_sentence(err) and message in err, err
    assert not (tmp_path / "new").exists()


def test_folders_that_are_taken_are_not_written(run, tmp_path):
    path = saved(wild(99, 15), tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    for folder, message in ((run, "another folder than"), (tmp_path / "taken", "must be empty")):
        code, _, err = outcome("recalibrate", run, path, "-o", folder)
        assert code == 2 and is_one_sentence(err) and message in err
    assert outcome("recalibrate", run, path, "-o", tmp_path / "new")[0] == 0
    code, _, err = outcome("recalibrate", run, path, "-o", tmp_path / "new")
    assert code == 2 and "must be empty (or give --force)" in err
    assert outcome("recalibrate", run, path, "-o", tmp_path / "new", "--force")[0] == 0


def test_what_the_rows_lack_is_said(old, tmp_path):
    """Columns by which the run has limits are asked for; classes that no row is of are named."""
    site = np.where(np.arange(len(old)) % 2, "a", "b")
    store = EmbeddingStore(old.embeddings, {**old.labels, "site": site}, INFO)
    recipe = RECIPE.replace(epochs=1, conformal_by=("site",))
    train(store, choose_target(store, "gender"), recipe, tmp_path / "run", pictures=False)
    new = wild(300, 21)
    sentence = r"wild\.h5. must hold the columns by which the run has limits.*Received: no site"
    with pytest.raises(InputError, match=sentence):
        recalibrate(tmp_path / "run", new, tmp_path / "new")
    women = new.subset(new.labels["gender"] == 1)
    report = recalibrate(tmp_path / "run", women, tmp_path / "new", conformal_by=())
    assert "gender: no row is male: what is fitted knows nothing of such" in report["notes"]
    report = recalibrate(tmp_path / "run", new, tmp_path / "both", conformal_by=())
    assert not any("no row is" in note for note in report["notes"])


@pytest.mark.slow
def test_several_labels_and_numbers(several, tmp_path):
    store = wild(400, 16)
    report = recalibrate(several, store, tmp_path / "both")
    assert set(report["heads"]) == {"gender", "height"} and report["before"]["height_rows"] == 400
    others = wild(3000, 17)
    heads = {p.name: p for p in Predictor.heads(tmp_path / "both")}
    mean = mean_of(heads["height"], others)
    low, high = heads["height"].intervals(mean, sampled=True)[90].T
    truth = others.labels["height"]
    assert 0.86 <= ((truth >= low) & (truth <= high)).mean() <= 0.94
    spread = np.std(truth - mean[:, 0]) / np.sqrt((mean[:, 1] ** 2).mean())
    assert 0.8 < spread < 1.2
    sets = heads["gender"].sets(mean_of(heads["gender"], others), sampled=True)
    assert sets[np.arange(3000), others.labels["gender"]].mean() >= 0.87


@pytest.mark.slow
def test_a_label_that_the_store_lacks_stays_as_it_was(several, tmp_path):
    store = wild(400, 18)
    some = EmbeddingStore(store.embeddings, {"height": store.labels["height"]}, INFO)
    report = recalibrate(several, some, tmp_path / "one")
    assert any(n.startswith("gender stays as it was: 0 new rows") for n in report["notes"])
    before, after = (
        {p.name: p for p in Predictor.heads(path)} for path in (several, tmp_path / "one")
    )
    assert before["gender"].calibration == after["gender"].calibration
    x = store.embeddings[:5]
    np.testing.assert_array_equal(
        before["gender"].probabilities(x), after["gender"].probabilities(x)
    )
    assert before["height"].calibration != after["height"].calibration
    code, _, err = outcome(
        "recalibrate", several, saved(some, tmp_path), "-o", tmp_path / "bn", "--batch-norm"
    )
    assert code == 2 and "rows of every label" in err


def test_runs_without_calibration_or_reference_get_one(run, tmp_path):
    older = shutil.copytree(run, tmp_path / "older")
    for name in ("calibration.json", "reference.json"):
        (older / name).unlink()
    without_hashes(older)
    report = recalibrate(older, wild(300, 19), tmp_path / "new")
    assert any("holds no reference" in note for note in report["notes"])
    predictor = Predictor(tmp_path / "new")
    assert predictor.calibration.rows == 300 and set(predictor.reference.answers) == {"age"}


def test_statistics_of_batch_norm_are_those_of_the_rows():
    """Of one pass in NumPy, layer after layer, each batch by its own mean."""
    rng = np.random.default_rng(0)
    layers = [keras.layers.BatchNormalization(epsilon=1e-3), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.BatchNormalization()])
    x = rng.normal(3, 2, size=(9000, 4)).astype("float32")
    renew_batch_norm(model, x, RECIPE.replace(mixup_alpha=0.0, noise_std=0.0))
    first, dense, last = model.layers
    np.testing.assert_allclose(first.moving_mean, x.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(first.moving_variance, x.var(axis=0), rtol=0.01)
    z = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3) @ dense.kernel.numpy()
    np.testing.assert_allclose(last.moving_mean, z.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(last.moving_variance, z.var(axis=0), rtol=0.01)
    assert first.momentum == last.momentum == 0.99
    with pytest.raises(InputError, match="without batch norm"):
        renew_batch_norm(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), x, RECIPE)


def test_rows_are_mixed_as_in_training():
    rng, x = np.random.default_rng(0), make_store(rows=400).embeddings
    mixed = as_trained_on(x, RECIPE, None, rng)
    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-5)
    plain = as_trained_on(x, RECIPE.replace(mixup_alpha=0.0, noise_std=0.0), None, rng)
    np.testing.assert_array_equal(plain, x)
    units = np.array([0.0, *[1.0] * 31])
    noisy = as_trained_on(x, RECIPE.replace(mixup_alpha=0.0), units, rng) - x
    assert np.abs(noisy[:, 0]).max() < 1e-6 and noisy[:, 1:].std() == pytest.approx(
        RECIPE.noise_std / 3**0.5, rel=0.1
    )


@pytest.mark.slow
def test_batch_norm_follows_rows_that_have_moved(run, tmp_path):
    """Rows of which some have no label give the statistics, and the network's weights stay."""
    store = wild(600, 20)
    store.labels["age_years"][300:] = np.nan
    store.labels.pop("age_group")
    code, out, _ = outcome(
        "recalibrate", run, saved(store, tmp_path), "-o", tmp_path / "new", "--batch-norm"
    )
    assert code == 0 and "batch norm has the statistics of 300 rows\n" in out
    before, after = load_model(run), load_model(tmp_path / "new")
    changed = {
        v.path for v, w in zip(before.weights, after.weights, strict=True)
        if not np.array_equal(v, w)
    }  # fmt: skip
    assert {"moving" in p for p in changed} == {True, False}
    assert all("logits" in p for p in changed if "moving" not in p)
    assert RunFolder(tmp_path / "new").config()["recalibrated"]["batch_norm"] is True
    few = wild(300, 21)
    report = recalibrate(run, few, tmp_path / "few", batch_norm=True)
    assert any("300 rows (those that calibrate among them)" in note for note in report["notes"])
