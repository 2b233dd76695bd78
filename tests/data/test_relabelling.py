"""Corrections of a person, back into the store that they are for."""

import csv
import io

import numpy as np
import pytest
from data_sets import INFO, make_store
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasmlp import EmbeddingStore, InputError, relabel
from kerasmlp.cli import run_command
from kerasmlp.data.importing.relabelling import in_words
from kerasmlp.utils.tables import csv_of, read_csv

GROUPS = ["0-2", "3-9", "10-19", "20-29"]


def made(rows=20):
    labels = {
        "gender": np.arange(rows) % 2,
        "age_years": np.where(np.arange(rows) == 5, np.nan, np.arange(rows) + 0.5),
        "age_group": np.array(GROUPS)[np.arange(rows) % 4],
        "kind": np.array(["cat", "dog ", "=x"])[np.arange(rows) % 3],
        "stars": np.arange(rows) % 5,
        "bmi": np.linspace(17, 33, rows),
    }
    return make_store(rows=rows, **labels)


def lines_of(store, column, corrections, *, numbers=False):
    """The table of `doctor`, of all rows."""
    words = in_words(store.labels[column], column)
    score = "scaled_residual" if numbers else "self_confidence"
    return [
        {
            "rank": row + 1, "row": row, "store": "a.h5", "path": f"{row}.jpg", "column": column,
            "label": words[row], "suggested": "?", "corrected": corrections.get(row, ""),
            score: 0.5, "store_digest": store.digest(),
        }
        for row in range(len(store))
    ]  # fmt: skip


def written(folder, lines, name="suspects.csv"):
    (folder / name).write_text(csv_of(lines), encoding="utf-8")
    return folder / name


def test_filled_lines_change_labels_and_nothing_else_does(tmp_path):
    store = made()
    path = written(tmp_path, lines_of(store, "gender", {3: "male", 4: "female", 6: "male"}))
    found, counts = relabel(store, [path])
    assert counts == {"changed": 2, "confirmed": 1, "empty": 17, "of_other_stores": 0}
    expected = store.labels["gender"].copy()
    expected[3], expected[4] = 0, 1
    np.testing.assert_array_equal(found.labels["gender"], expected)
    assert found.labels["gender"].dtype == np.int8
    for name in set(store.labels) - {"gender"}:
        np.testing.assert_array_equal(found.labels[name], store.labels[name])
    np.testing.assert_array_equal(found.embeddings, store.embeddings)
    assert found.info.embedder_sha256 == store.info.embedder_sha256
    said = found.info.import_report["sources"][-1]
    assert said == {"file": "suspects.csv", "relabelled": {"gender": 2}}
    assert store.labels["gender"][3] == 1 and store.digest() != found.digest()


def test_every_kind_of_label_takes_what_it_can_be(tmp_path):
    store = made()
    corrections = {
        "kind": {0: "dog", 1: "unknown", 2: " cat "},  # the class has a space at its end
        "age_group": {1: "10-19", 2: "Oct-19", 3: "03-Sep", 4: "n/a"},  # as spreadsheets write
        "stars": {0: "4", 1: "?"},
        "age_years": {0: "61", 5: "7.25", 7: "unknown"},
        "bmi": {3: "40.125", 4: "unknown"},
    }
    paths = [
        written(
            tmp_path,
            lines_of(store, name, given, numbers=name in ("age_years", "bmi")),
            f"{name}.csv",
        )
        for name, given in corrections.items()
    ]
    found, counts = relabel(store, paths)
    assert counts["changed"] == 13 and counts["confirmed"] == 1
    assert found.labels["kind"][:3].tolist() == ["dog ", "", "cat"]
    assert found.labels["age_group"][1:5].tolist() == ["10-19", "10-19", "3-9", ""]
    assert found.labels["stars"][:2].tolist() == [4, -1]
    assert found.labels["age_years"][[0, 5]].tolist() == [61, 7.25]
    assert np.isnan(found.labels["age_years"][7]) and np.isnan(found.labels["bmi"][4])
    assert found.labels["bmi"][3] == 40.125


def test_lines_of_other_stores_are_left_and_counted(tmp_path):
    store, other = made(), made(30)
    lines = lines_of(store, "gender", {1: "male"}) + lines_of(other, "gender", {0: "female"})
    found, counts = relabel(store, [written(tmp_path, lines)])
    assert counts == {"changed": 1, "confirmed": 0, "empty": 19, "of_other_stores": 30}
    assert found.labels["gender"][:2].tolist() == [0, 0]


def line_with(**changes):
    return lambda line: line | changes


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("gender", {"corrected": "mail"}, "line 5` must be corrected to male, female, or `unk"),
        ("gender", {"corrected": "0.5"}, "must be corrected to male, female"),
        (
            "kind",
            {"corrected": "Dog"},
            "must be corrected to =x, cat, dog, or `unknown`. Rec.*'Dog'",
        ),
        ("age_group", {"corrected": "30-39"}, "must be corrected to 0-2, 10-19, 20-29, 3-9"),
        ("stars", {"corrected": "9"}, "must be corrected to 0, 1, 2, 3, 4, or `unknown`"),
        ("age_years", {"corrected": "old"}, "must be corrected to a number up to 130"),
        ("age_years", {"corrected": "131"}, "must be corrected to a number up to 130"),
        ("age_years", {"corrected": "-1"}, "must be corrected to a number up to 130"),
        ("bmi", {"corrected": "inf"}, "must be corrected to a number up to"),
        ("bmi", {"corrected": "1e400"}, "must be corrected to a number up to"),
        ("gender", {"row": "20"}, r"line 5` must name a row from 0 to 19. Received: '20'"),
        ("gender", {"row": "-1"}, "must name a row from 0 to 19"),
        ("gender", {"row": "3.5"}, "must name a row from 0 to 19"),
        ("gender", {"row": "2"}, r"must have the label that row 2 of the store has \(male\)"),
        ("gender", {"label": "mal"}, r"must have the label that row 3 of the store has \(female"),
        ("gender", {"column": "sex"}, "must name a label of the store .age_years"),
    ],
)
def test_a_line_that_does_not_fit_is_refused_by_its_number(tmp_path, column, change, message):
    store = made()
    numbers = column in ("age_years", "bmi")
    lines = lines_of(store, column, {3: in_words(store.labels[column], column)[3]}, numbers=numbers)
    lines[3] |= change
    with pytest.raises(InputError, match=message):
        relabel(store, [written(tmp_path, lines)])


def test_one_row_is_corrected_once(tmp_path):
    store = made()
    lines = lines_of(store, "gender", {3: "male"})
    with pytest.raises(InputError, match=r"line 22` must correct a row once, as .*line 5 does"):
        relabel(store, [written(tmp_path, [*lines, lines[3]])])
    path = written(tmp_path, lines)
    with pytest.raises(InputError, match="must correct a row once"):
        relabel(store, [path, path])


def test_tables_of_other_stores_or_of_nobody_are_refused(tmp_path):
    store, other = made(), made(30)
    path = written(tmp_path, lines_of(other, "gender", {0: "female"}))
    with pytest.raises(
        InputError, match=f"must be of this store, whose digest is {store.digest()[:12]}"
    ):
        relabel(store, [path])
    changed, _ = relabel(other, [path])
    with pytest.raises(InputError, match="or of this one before a change"):
        relabel(changed, [path])
    for text, message in (
        ("", "must be a table of `doctor` with the columns row, column"),
        ("a,b\n1,2\n", "must be a table of `doctor` with the columns"),
        (csv_of(lines_of(store, "gender", {})).replace("rank", "row", 1), "each column once"),
        (csv_of(lines_of(store, "gender", {})) + "1,2\n", "line 22` must have as many cells"),
    ):
        (tmp_path / "b.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            relabel(store, [tmp_path / "b.csv"])
    wide = csv_of(lines_of(store, "gender", {1: "x" * (1 << 21)}))
    (tmp_path / "b.csv").write_text(wide)
    with pytest.raises(InputError, match="must be a table of `doctor`. Received: a damaged one"):
        relabel(store, [tmp_path / "b.csv"])
    (tmp_path / "b.csv").write_bytes(b"row,column\xff\xfe\xfd")
    with pytest.raises(InputError, match="must be text in UTF-8"):
        relabel(store, [tmp_path / "b.csv"])
    with pytest.raises(InputError, match="must be a table of `doctor`. Received: no such"):
        relabel(store, [tmp_path / "c.csv"])


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-16")])
def test_what_spreadsheets_make_of_the_table_is_read(tmp_path, separator, encoding):
    """Another separator, a decimal comma, a mark at the beginning, other order and more lines."""
    store = made()
    lines = lines_of(store, "bmi", {2: "20,5"}, numbers=True)[::-1]
    for line in lines:
        line["label"] = line["label"].replace(".", ",")
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(lines[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(lines)
    (tmp_path / "a.csv").write_bytes(file.getvalue().encode(encoding))
    found, counts = relabel(store, [tmp_path / "a.csv"])
    assert counts["changed"] == 1 and found.labels["bmi"][2] == 20.5


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=12), row=st.text(max_size=4), label=st.text(max_size=6))
def test_whatever_stands_in_a_cell_it_is_taken_or_refused(text, row, label):
    import tempfile
    from pathlib import Path

    store = made(6)
    lines = lines_of(store, "kind", {1: text})
    lines[1] |= {"row": row or "1", "label": label or "dog "}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text(csv_of(lines), encoding="utf-8", newline="", errors="backslashreplace")
        try:
            found, counts = relabel(store, [path])
        except InputError as error:
            assert "a.csv" in str(error)
            return
    known = {"cat", "dog ", "=x", ""}
    assert set(found.labels["kind"].tolist()) <= known and sum(counts.values()) == 6


def test_the_command_makes_a_store_of_it(tmp_path, capsys):
    store = EmbeddingStore(made().embeddings.astype("float16"), made().labels, INFO)
    store.save(tmp_path / "a.h5")
    store = EmbeddingStore.open(tmp_path / "a.h5")
    path = written(tmp_path, lines_of(store, "gender", {3: "male", 4: "male"}))
    words = [str(tmp_path / "a.h5"), "--relabel", str(path), "-o", str(tmp_path / "b.h5")]
    assert run_command("import-embeddings", words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["changed", "1", "labels"]
    assert lines[1] == "left         18 without a correction, 1 corrected to what they were"
    found = EmbeddingStore.open(tmp_path / "b.h5", verify=True)
    assert found.labels["gender"][3] == 0 and found.storage_dtype == np.float16
    assert run_command("import-embeddings", [*words, "--force", "--normalize"]) == 2
    assert "`--normalize` must be left out with --relabel" in capsys.readouterr().err
    assert run_command("import-embeddings", [str(path), *words, "--force"]) == 2
    assert "`--relabel` must come with one store" in capsys.readouterr().err
    assert len(read_csv(path)) == 20
