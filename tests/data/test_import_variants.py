"""Whatever a table was saved in: its values come back, or one sentence says why not."""

import os
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_variants import UNKNOWN_WORDS, VARIANTS, WORDS, Truth, as_text

from kerasmlp.data.importing.embedding_files import import_embeddings
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.utils.checks import InputError

pytest.importorskip("pyarrow")

EXAMPLES = int(os.environ.get("IMPORT_EXAMPLES", "60"))
AGES = {
    "whole": lambda a: (a, a),
    "float": lambda a: (a + 0.5, a + 0.5),
    "text": lambda a: (f"{a}.5", a + 0.5),
    "years": lambda a: (f"{a} years", a),
    "months": lambda a: (f"{a} months", a / 12),
    "decimal comma": lambda a: (f"{a},5", a + 0.5),
    "decimal comma, years": lambda a: (f"{a},5 years", a + 0.5),
    "pandas.cut": lambda a: (f"({a}, {a + 8}]", a + 4),
    "tuple": lambda a: (f"({a}, {a + 7})", a + 3.5),
    "to": lambda a: (f"{a} to {a + 7}", a + 3.5),
}
GENDERS = {
    "words": ("Male", "Female"), "letters": ("m", "F"), "codes": (0, 1), "mixed": ("MALE", "woman"),
}  # fmt: skip
KINDS = {
    "mood": lambda draw: WORDS,
    "id": lambda draw: ("001", "01", "1", "1e5", "100000", "1.10", "1.1", "12345678901234567890"),
    "smiling": lambda draw: (True, False),
    "kind": lambda draw: (0, 1, 2, 5),
    "sentiment": lambda draw: draw(st.sampled_from([(-1, 1), (-1, 0, 1)])),
}


@st.composite
def truths(draw):
    count, width = draw(st.integers(3, 9)), draw(st.integers(3, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = (rng.integers(-99, 100, (count, width)) / 64).astype(np.float32)
    rows[:, 0] = rng.integers(1, 64, count) / 64 + 0.0078125
    truth = Truth(rows)

    def add(name, stored, values, texts, gaps):
        word = draw(st.sampled_from(UNKNOWN_WORDS))
        text = any(isinstance(v, str) for v in values)
        truth.labels[name] = [
            (word if text else None) if gap else v for v, gap in zip(values, gaps, strict=True)
        ]
        truth.expected[stored] = ["" if gap else t for t, gap in zip(texts, gaps, strict=True)]

    def some_gaps():
        gaps = draw(st.lists(st.booleans(), min_size=count, max_size=count))
        return gaps if draw(st.booleans()) else [False] * count

    if draw(st.booleans()):
        write = AGES[draw(st.sampled_from(sorted(AGES)))]
        both = [write(int(a)) for a in rng.integers(9, 90, count)]
        texts = [str(np.float32(t)).removesuffix(".0") for _, t in both]
        add(
            draw(st.sampled_from(["age", "Age"])),
            "age_years",
            [v for v, _ in both],
            texts,
            some_gaps(),
        )
    if draw(st.booleans()):
        words = GENDERS[draw(st.sampled_from(sorted(GENDERS)))]
        codes = rng.integers(0, 2, count).tolist()
        name = draw(st.sampled_from(["gender", "Sex"]))
        add(name, "gender", [words[c] for c in codes], [str(c) for c in codes], some_gaps())
    for name, choose in KINDS.items():
        if draw(st.booleans()):
            choices = choose(draw)
            values = [*choices[:2], *(choices[i] for i in rng.integers(0, len(choices), count - 2))]
            gaps = [False, False, *some_gaps()[2:]]
            add(name, name, values, [str(v) for v in values], gaps)
    return truth


COUNTS = Counter()
MOST_REFUSED = 0.1


@given(st.sampled_from(["npz", "csv", "csv JSON", "parquet lists", "hdf5"]), truths())
@settings(
    max_examples=EXAMPLES // 2, deadline=None, derandomize=EXAMPLES == 60, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_parts_are_joined_as_the_whole(kind, truth):
    """Written as files of some rows each: joined, the values are those of the whole."""
    truth.labels.pop(
        "sentiment", None
    )  # of a part that holds only -1 nothing says that it is known
    truth.expected.pop("sentiment", None)
    ends = [0, len(truth.rows) // 3, len(truth.rows) // 2, len(truth.rows)]
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for start, end in pairwise(ends):
            if start == end:
                continue
            labels = {name: values[start:end] for name, values in truth.labels.items()}
            path = VARIANTS[kind](
                Path(folder, f"part{start}"), Truth(truth.rows[start:end], labels)
            )
            parts.append(path)
        try:
            store = EmbeddingStore.concatenate([import_embeddings(path) for path in parts])
        except InputError:
            return
    np.testing.assert_array_equal(store.embeddings, truth.rows)
    for name, texts in truth.expected.items():
        if name in store.labels:  # of nothing but gaps no kind can be told
            assert as_text(store.labels[name]) == texts, (kind, name)


def check(kind, truth, folder):
    """Imports one file; gives what came of it: right or refused."""
    path = VARIANTS[kind](Path(folder, "a"), truth)
    try:
        store = import_embeddings(path)
    except InputError as error:
        assert str(error).count("\n") == 0 and "must" in str(error)
        return f"refused: {str(error).partition('` ')[2][:60]}"
    assert store.embeddings.shape == truth.rows.shape, (kind, store.embeddings.shape)
    np.testing.assert_array_equal(store.embeddings, truth.rows, kind)
    for name, texts in truth.expected.items():
        assert name in store.labels, (kind, name, store.info.import_report)
        assert as_text(store.labels[name]) == texts, (kind, name)
    known = {*truth.expected, *(f"bbox_{k}" for k in range(4))}
    assert set(store.labels) <= known, (kind, set(store.labels) - known)
    report = store.info.import_report["sources"][0]
    assert set(report["labels"]) == set(store.labels) and report["rows"] == len(store)
    return "right"


def test_there_are_enough_variants():
    assert len(VARIANTS) >= 60


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_plain_table_comes_back(kind, tmp_path):
    """Each variant at least once, and right, not merely refused."""
    rng = np.random.default_rng(0)
    rows = (rng.integers(1, 99, (7, 9)) / 64).astype(np.float32)
    labels = {"age": [9, 30, 41, 7, 5, 60, 22], "kind": [0, 1, 2, 2, 1, 0, 0]}
    labels["mood"] = ["cat", "dog", "", "cat", "été", "dog", "cat"]
    expected = {"kind": list("0122100"), "mood": labels["mood"]}
    expected["age_years"] = [str(a) for a in labels["age"]]
    assert check(kind, Truth(rows, labels, expected), tmp_path) == "right"


@given(st.sampled_from(sorted(VARIANTS)), truths())
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 60, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_the_truth_or_a_sentence(kind, truth):
    with tempfile.TemporaryDirectory() as folder:
        COUNTS[check(kind, truth, folder)] += 1
    refused = sum(count for came, count in COUNTS.items() if came != "right")
    assert refused <= 10 + MOST_REFUSED * sum(COUNTS.values()), COUNTS
    if sum(COUNTS.values()) % 500 == 0:
        print(dict(COUNTS))
