"""What a run keeps by which moved rows are noticed: against NumPy, and damaged in every way."""

import base64
import json
import random
import shutil

import numpy as np
import pytest
from damage import VALUES, altered, is_one_sentence, outcome, without_hashes
from data_sets import make_store

from kerasmlp import InputError, Predictor
from kerasmlp.data.splits import one_of_each_group
from kerasmlp.runs.reference import MIN_SCORES, MOST_SCORES, Reference, answer_scores
from kerasmlp.training.reference_fitting import directions_of, fit_reference


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reference")


@pytest.fixture(scope="module")
def store(folder):
    """Faces of which every second has a copy."""
    one = make_store(rows=900, width=16)
    group = np.arange(900) // 2 * 2
    one.labels["group"] = np.where(np.arange(900) % 4 < 2, group, np.arange(900))
    one.save(folder / "store.h5")
    return one


@pytest.fixture(scope="module")
def run(folder, store):
    how = ["--epochs", "2", "--batch-size", "64", "--num-blocks", "1"]
    words = ["--store", folder / "store.h5", "--validation-share", "0.4"]
    assert outcome("train-gender", *words, "--run-dir", folder / "run", *how)[0] == 0
    return folder / "run"


@pytest.fixture
def broken(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def kept_back(store, run):
    from kerasmlp.data.targets import choose_target
    from kerasmlp.training.rows import Rows

    how = {"validation_share": 0.4, "seed": 0, "group": None}
    return Rows.of(store, choose_target(store, "gender"), None, how).heads[0]


def test_scores_are_distances_along_and_across_the_rows_trained_on(store, run):
    rows, reference = kept_back(store, run), Predictor(run).reference
    x = rows.training.inputs.astype(float)
    scale = x.std(axis=0)
    z = (x - x.mean(axis=0)) / scale
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    standard = (rows.part.inputs - x.mean(axis=0)) / scale @ vectors / np.sqrt(values)
    expected = {"along": (standard[:, 8:] ** 2).sum(1), "across": (standard[:, :8] ** 2).sum(1)}
    found = reference.of_rows(rows.part.inputs)
    for name, column in expected.items():
        np.testing.assert_allclose(found[name], column, rtol=1e-3)
    assert reference.number_along == 8 and reference.directions.shape == (16, 16)


def test_one_row_of_each_group_is_kept(store, run):
    rows, reference = kept_back(store, run), Predictor(run).reference
    groups = rows.part.labels["group"]
    number = len(np.unique(groups))
    assert number < len(groups)
    scores = reference.of_rows(rows.part.inputs)["along"]
    for group, score in zip(groups, scores, strict=True):
        each = scores[groups == group]
        there = [np.isclose(reference.scores["along"], v, rtol=1e-5).any() for v in each]
        assert sum(there) == 1, (group, score)
    assert all(len(v) == number for v in [*reference.scores.values(), *reference.answers.values()])


def test_answers_are_those_of_the_deterministic_model(store, run):
    rows, predictor = kept_back(store, run), Predictor(run)
    p = predictor.probabilities(rows.part.inputs).astype(float)
    entropy = -(p * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(answer_scores(predictor.target, p), entropy)
    known = predictor.reference.answers["gender"]
    assert np.isclose(known[:, None], entropy, rtol=1e-4).any(axis=1).all()
    assert (np.diff(known) >= 0).all()


def test_what_is_written_is_small_and_no_row(store, run):
    content = json.loads((run / "reference.json").read_text())
    assert set(content) == {
        "format", "width", "center", "directions", "number_along", "scores", "answers",
    }  # fmt: skip
    packed = np.frombuffer(base64.b64decode(content["directions"]), "<f4").reshape(16, 16)
    unit = packed / np.linalg.norm(packed, axis=1, keepdims=True)
    assert np.abs(unit @ store.embeddings.T).max() < 0.95


def test_large_sets_keep_some_rows_and_wide_ones_some_columns():
    rng = np.random.default_rng(0)
    wide = directions_of(rng.normal(size=(300, 3000)).astype("float32"), 0)
    assert wide.directions.shape == (10, 3000) and (wide.directions != 0).any(0).sum() == 512
    x = rng.normal(size=(5000, 4)).astype("float32")
    found = fit_reference(directions_of(x, 0), x, np.arange(5000) // 2, {}, 0)
    assert {len(v) for v in found.scores.values()} == {MOST_SCORES}
    few = fit_reference(directions_of(x, 0), x[:199], np.arange(199) // 2, {}, 0)
    assert few.scores["along"].shape == (100,)
    assert fit_reference(directions_of(x, 0), x[:198], np.arange(198) // 2, {}, 0) is None
    assert directions_of(x[:99], 0) is None and directions_of(np.ones_like(x), 0) is None
    alone = fit_reference(None, x, np.arange(5000), {"a": (x[:, 0], np.arange(5000))}, 0)
    assert alone.of_rows(x) == {} and len(alone.answers["a"]) == MOST_SCORES
    again = Reference.from_json("r.json", alone.to_json(), 4)
    np.testing.assert_array_equal(again.answers["a"], alone.answers["a"])


def test_a_column_that_never_varied_is_across():
    x = np.random.default_rng(0).normal(size=(400, 3)).astype("float32")
    x[:, 1] = 7
    reference = directions_of(x, 0)
    moved = x + np.array([0, 1, 0], "float32")
    assert reference.of_rows(x)["across"].max() < 1 < reference.of_rows(moved)["across"].min()


def test_rows_that_repeat_are_known_by_their_scores():
    rng, many = np.random.default_rng(0), np.arange(1500)
    for columns, repeats in ((3, True), (10, True), (20, False)):
        x = rng.integers(0, 2, (1500, columns)).astype("float32")
        found = fit_reference(directions_of(x, 0), x, many, {"a": (x[:, 0], many)}, 0)
        again = Reference.from_json("r.json", found.to_json())
        assert found.repeats == again.repeats == repeats
    few_answers = {"a": (x[:, 0], many)}  # of rows that are all different
    x = rng.normal(size=(1500, 3)).astype("float32")
    assert not fit_reference(directions_of(x, 0), x, many, few_answers, 0).repeats
    assert fit_reference(None, x, many, few_answers, 0).repeats


def test_rows_of_groups_are_drawn_evenly():
    groups = np.array(["a", "a", "b", "", "", "a"])
    drawn = [one_of_each_group(groups, seed) for seed in range(600)]
    assert all(len(rows) == 4 and {2, 3, 4} <= set(rows) for rows in drawn)
    counts = np.bincount([next(iter(set(rows) - {2, 3, 4})) for rows in drawn])[[0, 1, 5]]
    assert counts.min() > 150
    assert len({rows[0] for rows in drawn}) == 6


def predict(run, folder):
    return outcome("predict", run, folder / "store.h5", "--num-samples", "0")


def test_runs_of_older_versions_have_none(run, folder, broken, tmp_path):
    (broken / "reference.json").unlink()
    without_hashes(broken)
    assert predict(broken, folder) == predict(run, folder)
    words = ["evaluate", broken, folder / "store.h5", "--output", tmp_path / "e"]
    code, out, _ = outcome(*words, "--num-samples", "0")
    assert code == 0 and "holds no reference.json: it is of an older version" in out


def test_a_reference_that_was_taken_away_or_altered_is_one_sentence(run, folder, broken):
    text = (broken / "reference.json").read_text()
    (broken / "reference.json").write_text(text.replace("1", "2", 1))
    code, _, err = predict(broken, folder)
    assert code == 2 and is_one_sentence(err) and "reference.json` must be as it was" in err
    (broken / "reference.json").unlink()
    code, _, err = predict(broken, folder)
    assert code == 2 and is_one_sentence(err) and "reference.json` must be there" in err


def changed(**parts):
    return lambda content: content | parts


def scores(values):
    return lambda content: content | {"scores": content["scores"] | {"along": values}}


RISING = list(map(float, range(MIN_SCORES)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(width=17), "of width 16"),
        (changed(width=1 << 40), "`width` is a whole number"),
        (changed(center="AAAA"), "whose center are rows of 16 finite numbers"),
        (changed(center=None), "both center and directions"),
        (changed(center="=" * 50), "whose center are"),
        (changed(directions="A" * 400_000), "`directions` is a text of at most"),
        (changed(directions="AAAAgH8=" * 1000), "whose directions are"),
        (changed(directions=base64.b64encode(np.full(256, np.nan, "<f4")).decode()), "finite"),
        (changed(directions=None, center=None), "with scores of none"),
        (changed(number_along=17), "with fewer directions"),
        (changed(number_along=16), "with scores along"),
        (changed(number_along=-1), "`number_along` is a whole number"),
        (changed(scores={}), "with scores along, across"),
        (scores(RISING[:-1]), "100 rising scores or more"),
        (scores(RISING[::-1]), "rising scores"),
        (scores([*RISING, 1e308]), "`scores.along"),
        (scores([*RISING, "1"]), "`scores.along"),
        (scores([*RISING] * 30), "a list of at most 2000"),
        (changed(answers={"gender": [None] * 100}), "`answers.gender[0]` is a number"),
        (changed(format="kerasmlp.calibration"), "`format` is"),
        (changed(more=1), "one with 'more'"),
        (lambda content: [content], "must hold an object"),
    ],
)
def test_what_is_no_reference_is_refused(change, message, run):
    content = change(json.loads((run / "reference.json").read_text()))
    with pytest.raises(InputError, match="reference.json") as caught:
        Reference.from_json("reference.json", content, 16)
    assert message in str(caught.value), str(caught.value)[:300]


def test_altered_references_are_one_sentence_or_work(run, folder, broken):
    rng, codes = random.Random(0), {0: 0, 2: 0}
    text = (run / "reference.json").read_text()
    without_hashes(broken)
    for _ in range(24):
        new, what = altered(text, rng)
        (broken / "reference.json").write_text(new, encoding="utf-8", errors="surrogatepass")
        code, out, err = predict(broken, folder)
        assert code in codes, f"{what}: {err}"
        assert code == 0 or (is_one_sentence(err) and "reference.json" in err), f"{what}: {err}"
        assert "NaN" not in out
        codes[code] += 1
    assert codes[2] >= 6


def test_any_value_in_any_place_is_read_or_refused(run):
    text = (run / "reference.json").read_text()
    for name in json.loads(text):
        for value in VALUES:
            content = json.loads(text) | {name: value}
            try:
                Reference.from_json("reference.json", content, 16)
            except InputError as error:
                assert "reference.json" in str(error)
