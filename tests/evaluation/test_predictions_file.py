"""The Parquet file of answers out of fold: what it holds, and what is refused."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from kerasmlp import EmbeddingStore, NumberTarget, Target
from kerasmlp.data.examples import Examples
from kerasmlp.data.targets import age_target
from kerasmlp.evaluation.predictions_file import FORMAT, Predictions, label_numbers
from kerasmlp.evaluation.seed_means import mean_over_seeds
from kerasmlp.utils.checks import InputError

GENDER = Target("gender", ("male", "female"))


def made(target=GENDER, rows=30, seeds=(0, 1), **changes):
    """Answers of two seeds for each row."""
    rng = np.random.default_rng(0)
    number = rows * len(seeds)
    columns = {
        "row": np.tile(np.arange(rows), len(seeds)),
        "seed": np.repeat(seeds, rows),
        "fold": np.arange(number) % 5,
    }
    names = None
    if target.is_number:
        columns["label"] = np.tile(rng.normal(size=rows), len(seeds))
        columns |= {"mean": rng.normal(size=number), "std": rng.uniform(0.5, 2, number)}
        columns["epistemic_std"] = rng.uniform(0.1, 0.4, number)
    else:
        names = list(target.class_names)
        columns["label"] = np.tile(rng.integers(0, len(names), rows), len(seeds))
        p = rng.dirichlet(np.ones(len(names)), number).astype(np.float32)
        columns["probabilities"] = p
        columns["predictive_entropy_nats"] = -(p * np.log(p)).sum(axis=1, dtype=np.float64)
        columns["mutual_information_nats"] = rng.uniform(0, 0.1, number)
    about = {
        "data_digest": "0" * 64, "store_rows": rows, "answers": "mc_mean", "num_samples": 8,
        "label_names": names, "rows_without_label": 0, "diverged": [],
    }  # fmt: skip
    return Predictions(target, about | changes, columns)


def content_of(predictions, tmp_path):
    predictions.save(tmp_path / "a.parquet")
    return (tmp_path / "a.parquet").read_bytes()


@pytest.mark.parametrize(
    "target", [GENDER, NumberTarget("bmi", "kg/m²"), age_target("age_years", "adience", by_years=1)]
)
def test_what_is_written_is_read(target, tmp_path):
    before = made(target)
    after = Predictions.read("a.parquet", content_of(before, tmp_path))
    assert after.target == target and after.about["num_samples"] == 8
    assert list(after.columns) == list(before.columns)
    for name, column in before.columns.items():
        np.testing.assert_array_equal(after.columns[name], column)


def test_pandas_reads_it_and_cleanlab_takes_that(tmp_path):
    import pandas

    before = made()
    content_of(before, tmp_path)
    table = pandas.read_parquet(tmp_path / "a.parquet")
    p = np.stack(table["probabilities"])
    np.testing.assert_array_equal(p, before.columns["probabilities"])
    rank = pytest.importorskip("cleanlab.rank", reason="needs cleanlab (`pip install cleanlab`)")
    theirs = rank.get_label_quality_scores(table["label"].to_numpy(), p)
    ours = p[np.arange(len(table)), table["label"]]
    np.testing.assert_allclose(theirs, ours, atol=1e-6)
    said = json.loads(parquet.read_schema(tmp_path / "a.parquet").metadata[FORMAT.encode()])
    assert said["answers"] == "mc_mean" and said["label_names"] == ["male", "female"]


def test_seeds_are_averaged_and_what_they_disagree_in_is_uncertainty():
    answers = made()
    means, c = mean_over_seeds(answers), answers.columns
    p = c["probabilities"].astype(float).reshape(2, 30, 2).mean(axis=0)
    np.testing.assert_allclose(means.answers, p)
    entropy = -(p * np.log(p)).sum(axis=1)
    np.testing.assert_allclose(means.uncertainty["predictive_entropy_nats"], entropy)
    expected = c["predictive_entropy_nats"] - c["mutual_information_nats"]
    mutual = np.maximum(entropy - expected.reshape(2, 30).mean(axis=0), 0)
    np.testing.assert_allclose(means.uncertainty["mutual_information_nats"], mutual, atol=1e-7)
    assert (means.seeds == 2).all() and list(means.rows) == list(range(30))


def test_numbers_of_several_seeds_are_a_mixture_of_normals():
    answers = made(NumberTarget("bmi"))
    means, c = mean_over_seeds(answers), answers.columns
    mean, std, epistemic = (c[k].reshape(2, 30) for k in ("mean", "std", "epistemic_std"))
    np.testing.assert_allclose(means.answers[:, 0], mean.mean(axis=0))
    whole = (std**2).mean(axis=0) + mean.var(axis=0)
    np.testing.assert_allclose(means.answers[:, 1], np.sqrt(whole))
    unsure = (epistemic**2).mean(axis=0) + mean.var(axis=0)
    np.testing.assert_allclose(means.uncertainty["epistemic_std"], np.sqrt(unsure))


def test_rows_that_fewer_seeds_answer_are_means_of_those():
    whole = made()
    some = np.flatnonzero((whole.columns["row"] != 3) | (whole.columns["seed"] == 0))
    part = Predictions(GENDER, whole.about, {k: v[some] for k, v in whole.columns.items()})
    means = mean_over_seeds(part)
    assert means.seeds[3] == 1 and means.seeds.sum() == 59
    np.testing.assert_allclose(means.answers[3], whole.columns["probabilities"][3])


def test_labels_are_numbers_of_what_the_head_answers_where_the_store_knows_that():
    years = [0.4, 34.5, 116, None]
    groups = ["0-2", "30-39", "more than 70", ""]
    store = EmbeddingStore(np.eye(4), {"age_years": years, "age_group": groups})
    by_years = age_target("age_years", "adience", by_years=True)
    labels, names = label_numbers(Examples.of(store, by_years))
    assert labels.tolist() == [0, 34, 100, -1] and len(names) == 101
    by_groups = age_target("age_group", "fairface", by_years=True)
    labels, names = label_numbers(Examples.of(store, by_groups))
    assert labels.tolist() == [0, 4, 8, -1] and names[4] == "30-39"
    answers = made(by_groups, label_names=names)
    answers.columns["label"][:] %= 9
    p = answers.columns["probabilities"].astype(float)
    np.testing.assert_allclose(answers.in_label_classes[:, 1], p[:, 3:10].sum(axis=1))


def changed(**columns):
    whole = made()
    return Predictions(GENDER, whole.about, {**whole.columns, **columns})


def at(name, value, place=7):
    column = made().columns[name].copy()
    column[place] = value
    return changed(**{name: column})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (at("row", 30), r"must hold numbers from 0 to 29 in 'row'. Received: 30 at place 7"),
        (at("row", -1), r"must hold numbers from 0 to 29 in 'row'. Received: -1"),
        (at("row", 6), "Received: one that holds a row of a seed twice"),
        (at("seed", -5), "in 'seed'. Received: -5"),
        (at("label", 2), r"must hold numbers from 0 to 1 in 'label'. Received: 2"),
        (at("label", -1), r"must hold numbers from 0 to 1 in 'label'. Received: -1"),
        (at("probabilities", [np.nan, 0.5]), "in 'probabilities'. Received: nan at place 7"),
        (at("probabilities", [1.5, -0.5]), "in 'probabilities'. Received: 1.5 at place 7"),
        (at("probabilities", [0.6, 0.6]), "sum to another number than 1, by 0.2"),
        (at("mutual_information_nats", np.inf), "of at least 0 in 'mutual_information_nats'"),
        (changed(extra=np.zeros(60)), "must hold the columns row .*, fold"),
        (changed(label=np.zeros(60)), "must hold the columns row .*, label .int64."),
        (changed(probabilities=np.full((60, 3), 1 / 3, np.float32)), "must hold the columns"),
        (made(label_names=["m", "f"]), "whose labels are in other classes than its answers"),
        (made(label_names=None), "whose labels are in other classes"),
        (made(data_digest="x"), "whose `data_digest` is a hash of 64 digits"),
        (made(store_rows=0), "whose `store_rows` is a whole number from 1"),
        (made(answers="oracle"), "whose `answers` is 'mc_mean' or 'deterministic'"),
        (made(answers="deterministic"), "must hold the columns"),
        (made(target=NumberTarget("a"), answers=None), "whose `answers` is"),
    ],
)
def test_what_is_no_answer_is_refused_in_one_sentence(bad, message, tmp_path):
    with pytest.raises(InputError, match=f"a.parquet` .*{message}"):
        Predictions.read("a.parquet", content_of(bad, tmp_path))


def test_numbers_without_a_spread_are_refused(tmp_path):
    whole = made(NumberTarget("a"))
    for value in (0.0, -1.0, np.nan):
        whole.columns["std"][4] = value
        with pytest.raises(InputError, match="in 'std'. Received"):
            Predictions.read("a.parquet", content_of(whole, tmp_path))


def rewritten(content, *, metadata=None, **how):
    table = parquet.read_table(io.BytesIO(content))
    if metadata is not None:
        table = table.replace_schema_metadata(metadata)
    file = io.BytesIO()
    parquet.write_table(table, file, **how)
    return file.getvalue()


def test_foreign_tables_are_refused(tmp_path):
    content = content_of(made(), tmp_path)
    key = FORMAT.encode()
    for bad, message in (
        (rewritten(content, metadata={}), "a table without a word of what it holds"),
        (rewritten(content, metadata={key: b"[]"}), "must hold an object"),
        (rewritten(content, metadata={key: b"{"}), "a damaged or foreign one"),
        (rewritten(content, metadata={key: b"[" * 100_000}), "a damaged or foreign one"),
        (rewritten(content, metadata={key: b'{"a": 1, "a": 2}'}), "a damaged or foreign one"),
        (rewritten(content, compression="zstd"), "one that is compressed"),
        (b"", "a damaged or foreign one"),
        (b"PAR1" * 100, "a damaged or foreign one"),
        (content[:-9], "a damaged or foreign one"),
    ):
        with pytest.raises(InputError, match=message):
            Predictions.read("a.parquet", bad)


def test_a_file_cannot_say_more_rows_than_it_has_room_for(tmp_path):
    """A dictionary of one row for a billion rows takes some bytes, and 17 GB once read."""
    whole = made(rows=1, seeds=(0,))
    many = 200_000
    columns = {k: np.repeat(v, many, axis=0) for k, v in whole.columns.items()}
    columns["row"] = np.zeros(many, np.int64)
    Predictions(GENDER, whole.about, columns).save(tmp_path / "a.parquet")
    bomb = rewritten((tmp_path / "a.parquet").read_bytes(), compression="none", use_dictionary=True)
    assert len(bomb) < many
    with pytest.raises(InputError, match=r"bytes that says it has 200,000 rows"):
        Predictions.read("a.parquet", bomb)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_still_whole(data):
    content = bytearray(_content())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = Predictions.read("a.parquet", bytes(content))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        p = found.columns["probabilities"]
        assert p.shape == (60, 2) and np.isfinite(p).all() and abs(p.sum(axis=1) - 1).max() < 2e-3


_WRITTEN = []


def _content():
    if not _WRITTEN:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            made().save(f"{folder}/a.parquet")
            with open(f"{folder}/a.parquet", "rb") as file:
                _WRITTEN.append(file.read())
    return _WRITTEN[0]


def test_gaps_are_refused(tmp_path):
    table = parquet.read_table(io.BytesIO(content_of(made(), tmp_path)))
    for name in ("fold", "mutual_information_nats"):
        place = table.column_names.index(name)
        column = pa.array([None, *table[name].to_pylist()[1:]], table[name].type)
        file = io.BytesIO()
        bad = table.set_column(place, table.schema.field(name), column)
        parquet.write_table(bad, file, compression="none")
        with pytest.raises(InputError, match="one with gaps"):
            Predictions.read("a.parquet", file.getvalue())
