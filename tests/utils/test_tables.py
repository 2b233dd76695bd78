"""Rows of many columns as CSV, which are in memory one at a time."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasmlp.utils.tables import csv_of, row_writer

NAMES = st.text(max_size=3)
CELLS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
ROWS = st.lists(st.dictionaries(NAMES, CELLS | st.dictionaries(NAMES, CELLS, max_size=3)))


def flat(row):
    """Rows of two levels, as their columns are called."""
    cells = {}
    for name, value in row.items():
        several = isinstance(value, dict)
        cells |= {f"{name}.{k}": v for k, v in value.items()} if several else {name: value}
    return cells


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "a.csv"


@given(ROWS)
def test_rows_that_are_written_one_by_one_are_the_table_of_all(path, rows):
    with row_writer(path, "csv") as write:
        for row in rows:
            write(row)
    expected = csv_of([flat(row) for row in rows])
    assert path.read_bytes() == expected.encode("utf-8", "backslashreplace")
    assert [other.name for other in path.parent.iterdir()] == ["a.csv"]


def test_the_memory_of_a_table_does_not_grow_with_its_rows(path):
    peaks = []
    for rows in (1000, 20_000):
        tracemalloc.start()
        with row_writer(path, "csv") as write:
            for row in range(rows):
                write({"input": "a.h5", "row": row, "age": {"age_years": row / 3, "std": 1.5}})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000  # bytes; all rows as dicts take more than ten million
    assert path.read_text().splitlines()[-1] == f"a.h5,19999,{19999 / 3},1.5"


def test_nothing_is_written_where_a_row_fails(path):
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(KeyboardInterrupt), row_writer(path, "csv") as write:
        write({"a": 1})
        raise KeyboardInterrupt
    assert (path.read_bytes() if path.exists() else None) == before
    assert len(list(path.parent.iterdir())) == (before is not None)
