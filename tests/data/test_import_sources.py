"""What files of other programs mean, and what is refused in one sentence."""

import gzip
import io
import json
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from kerasmlp.cli import run_command
from kerasmlp.data.importing.embedding_files import ColumnNames, import_embeddings
from kerasmlp.data.importing.vector_cells import UnreadCells, rows_of
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import choose_target
from kerasmlp.utils.checks import InputError

pytest.importorskip("pyarrow")

CASES = Path(__file__).parents[3] / "shared" / "cases"
ROWS = (np.random.default_rng(0).integers(-99, 100, (6, 4)) / 64 + 0.01).astype(np.float32)
AGES = [4, 30, 41, 7, 55, 60]
TABLE = {"age_years": [18.5, 44.5, 79.5], "mood": ["glad"] * 3, "gender": [0, 1, 1]}
FORTY = [79, 54, 18]
RIGHT = {
    "one_array_per_row.npz": ((6, 8), {}),
    "text_embedding_beside_boxes.csv": ((30, 8), {"age_years": [35, 48, 61]}),
    "pandas_one_block.h5": ((40, 8), {"age_years": FORTY, "gender": [1, 0, 0]}),
    "anndata.h5ad": ((40, 8), {"age_years": FORTY, "species": ["cat", "dog", "dog"]}),
    "class_labels.parquet": (
        (200, 8),
        {
            "age_group": ["0-2", "40-49", "30-39"],
            "gender": [1, 1, 0],
            "emotion": ["angry", "sad", "sad"],
        },
    ),
    "soft_link.h5": ((30, 8), {"age_years": [35, 48, 61], "gender": [1, 0, 1]}),
    "compound_table.h5": ((30, 8), {"age_years": [35, 48, 61], "gender": [1, 0, 1]}),
    "age_comma.csv": ((60, 8), TABLE),
    "age_text_comma.npz": ((40, 8), {"age_years": [4.5, 25.5, 4.5]}),
    "age_text_intervals.npz": ((40, 8), {"age_years": [12, 28, 12]}),
    "excel_de.csv": ((60, 8), TABLE),
    "utf16.csv": ((60, 8), TABLE),
    "table.csv.gz": ((60, 8), TABLE),
    "index.csv": ((60, 8), TABLE),
    "r_na.csv": ((60, 8), TABLE | {"mood": ["", "", ""]}),
    "sentiment.npz": ((600, 16), {"sentiment": ["1", "0", "0"]}),
    "image_struct.parquet": ((30, 8), {"age_years": [35, 48, 61]}),
}
FIRST_NUMBER = {(60, 8): 0.1257, (600, 16): 0.62705004}


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the shared cases")
@pytest.mark.parametrize("name", RIGHT)
def test_files_as_people_have_them(name):
    shape, labels = RIGHT[name]
    store = import_embeddings(CASES / name)
    assert store.embeddings.shape == shape
    truth = CASES / f"{Path(name).stem}.truth.npy"
    if truth.is_file():
        np.testing.assert_allclose(store.embeddings, np.load(truth), rtol=1e-6)
    assert store.embeddings[0, 0] == pytest.approx(FIRST_NUMBER.get(shape, 0.06750061), rel=1e-5)
    others = {f"bbox_{k}" for k in range(4)} | {"path"}
    assert set(store.labels) - others == set(labels)
    for label, values in labels.items():
        assert store.labels[label][:3].tolist() == values, label


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the shared cases")
def test_images_with_one_hot_labels_hold_no_embedding():
    with pytest.raises(InputError, match="images or other arrays, but no embedding"):
        import_embeddings(CASES / "images_and_onehot.npz")


def npz(folder, /, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def text(folder, content, name="a.csv"):
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"X": ROWS, "embedding": ROWS * 2}, "'embedding' or 'X'"),
        ({"embeddings": ROWS * 2, "landmarks": ROWS}, None),
    ],
)
def test_the_plainer_name_goes_first(arrays, expected, tmp_path):
    said = []
    store = import_embeddings(npz(tmp_path, **arrays), say=said.append)
    np.testing.assert_array_equal(store.embeddings, ROWS * 2)
    assert len(said) == 1 and "left out" in said[0], expected


UNREAD = {
    "two called so": ({"emb": ROWS, "embedding": ROWS}, "one embedding.*emb, embedding"),
    "two that could be": ({"a": ROWS, "b": ROWS}, "Received: a float32.*b float32"),
    "whole numbers": ({"tokens": np.ones((6, 4), int)}, "must hold embeddings as"),
    "one-hot only": ({"z": np.eye(6)}, "must hold embeddings as"),
    "boxes only": ({"bbox": ROWS}, "must hold embeddings as"),
    "one vector": ({"embedding": ROWS[0]}, r"Received: shape \(4,\)"),
    "images": ({"X": np.ones((6, 4, 4)), "vectors": ROWS}, "images or other arrays"),
    "ellipsis": ({"embedding": np.array(["[0.1 ... 0.2]"] * 6)}, "NumPy left out"),
    "cut off": ({"embedding": np.array(["[0.1, 0.2"] * 6)}, "cut-off text in row 0"),
    "ragged text": ({"embedding": np.array(["[1.5, 2]", "[1.5]"])}, "2 numbers in row 0, 1 in row"),
    "words": ({"embedding": np.array(["a.npy"] * 6)}, "no list of numbers in row 0: 'a.npy'"),
    "nothing": ({"embedding": np.array(["[1, 2]", ""])}, "nothing in row 1"),
    "decimal commas between commas": ({"embedding": np.array(["0,1,0,2"] * 6)}, "may be decimal"),
    "commas of two kinds": ({"embedding": np.array(["[0,5, 1,5]"] * 6)}, "commas of two kinds"),
    "a number twice": ({f"e{k}": ROWS[:, 0] for k in ("0", "1", "01")}, "column of its number"),
    "transposed": ({"embedding": ROWS.T, "age": AGES}, "as many as embeddings are wide: transpo"),
    "rows across": (
        {f"arr_{k}": ROWS[:, k] for k in range(4)} | {"age": AGES},
        "4 arrays of 6 values, and labels of 6: transposed",
    ),
    "rows or columns": ({f"e{k}": ROWS[:, k] for k in range(4)}, "4 rows, or columns"),
    "rows of many lengths": ({"arr_0": ROWS[0], "arr_1": ROWS[1, :3]}, "arrays of one length"),
    "labels positional": ({"arr_0": np.arange(6), "arr_1": np.arange(6)}, "must hold embeddings"),
    "true or false gender": ({"X": ROWS, "gender": [True, False] * 3}, "--gender-codes"),
    "comma of two minds": ({"X": ROWS, "age": ["25,32", "38,43"] * 3}, "may mean either"),
    "a comma twice alike": ({"X": ROWS, "age": ["25,32", "60,60"] * 3}, "may mean either"),
    "a comma before a unit": ({"X": ROWS, "age": ["25,32 years", "9"] * 3}, "may mean either"),
    "unread age": ({"X": ROWS, "age": ["3"] * 5 + ["old"]}, "ages in years.*Received: 'old'"),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_what_could_mean_something_else_is_refused(kind, tmp_path):
    arrays, message = UNREAD[kind]
    with pytest.raises(InputError, match=message) as caught:
        import_embeddings(npz(tmp_path, **arrays))
    assert "\n" not in str(caught.value)


E = (np.random.default_rng(1).integers(-99, 100, (6, 8)) / 64 + 0.01).astype(np.float32)
WIDE = {f"e{k}": E[:, k] for k in range(8)}
OBJECTS = np.array([{}] * 6, object)
PAIR = np.zeros(6, [("a", "f4"), ("b", "f4")])
REFUSED = {
    "labels across": ({"X": E.T, "age": np.ones((6, 1))}, "6 values in 'age'.*transposed"),
    "labels in a row": ({"X": E.T, "age": np.ones((1, 6))}, "6 values in 'age'.*transposed"),
    "a member of objects": (WIDE | {"e0": OBJECTS}, "columns e0 to e7.*'e0', Python objects"),
    "a member too wide": (WIDE | {"e0": np.ones((6, 2, 2))}, "'e0', shape .6, 2, 2."),
    "dimensions by names": (
        {f"e{k}": np.ones(12) / 3 for k in range(8)} | {"names": list("abcdefgh")},
        "8 rows, or columns",
    ),
    "regions": ({f"roi_{k}": E[:, k] for k in range(8)}, "must hold embeddings as"),
    "corners": ({f"corner{k}": E[:, k] for k in range(8)} | {"a": AGES}, "must hold embed"),
    "few columns": ({f"dim{k}": E[:, k] for k in range(7)} | {"a": AGES}, "must hold embed"),
    "telephones": ({"tel": np.array(["+49 30 1234"] * 6)}, "must hold embeddings as"),
    "an embedding of positions": (
        WIDE | {"position_embedding": np.array(["[0.5, 1, 2]"] * 6), "age": AGES},
        "one embedding .*e0 to e7, position_embedding",
    ),
    "measures or what was made": ({"X": E, "X_pca": E[:, :3]}, "one embedding.*X, X_pca"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_embedding_for_sure_is_refused(kind, tmp_path):
    arrays, message = REFUSED[kind]
    with pytest.raises(InputError, match=message):
        import_embeddings(npz(tmp_path, **arrays))


def test_a_family_keeps_its_columns_of_shape_n_1(tmp_path):
    store = import_embeddings(npz(tmp_path, **WIDE | {"e0": E[:, :1]}, age=AGES))
    np.testing.assert_array_equal(store.embeddings, E)


def test_columns_are_for_one_thing(tmp_path):
    header = "e0,e1,age,e2\n1,2,30,4.5\n2,1,40,3\n"
    path = text(tmp_path, header)
    with pytest.raises(InputError, match="no label among.*--columns.* Received: 'age'"):
        import_embeddings(path, columns=ColumnNames(numbers="e0:e2"))
    for names in (
        ColumnNames(labels={"b": "age", "c": "age"}),
        ColumnNames(labels={"b": "age"}, drop=["age"]),
        ColumnNames(labels={"age_years": "age", "age_group": "age"}),
        ColumnNames("age", labels={"b": "age"}),
    ):
        with pytest.raises(InputError, match="each column for one thing.* Received: 'age' twice"):
            import_embeddings(path, columns=names)


@pytest.mark.parametrize(
    ("name", "values", "label", "expected"),
    [
        ("age_group", [2, -1, 0, 1, 1, 1], "age_group", ["2", "", "0", "1", "1", "1"]),
        ("age_group", [2.0, np.nan, 0, 1, 1, 1], "age_group", ["2", "", "0", "1", "1", "1"]),
        ("years", [1969, 1999, 2001, 1970, 1980, 1], "years", [1969, 1999, 2001, 1970, 1980, 1]),
        ("years", AGES, "age_years", AGES),
        ("group", [True, False] * 3, "group", None),
        ("fold", list("abcabc"), "fold", None),
        ("train/y", [1, 2] * 3, "train/y", None),
        (".", [1, 2] * 3, ".", None),
    ],
)
def test_labels_mean_what_they_can(name, values, label, expected, tmp_path):
    store = import_embeddings(npz(tmp_path, X=E, **{name: values}))
    report = store.info.import_report["sources"][0]
    assert (label in store.labels) == (expected is not None) == (label not in report["left_out"])
    if expected is not None:
        assert store.labels[label].tolist() == expected


IDS = {
    "zeros": (["001", "01", "1"], ["001", "01", "1"]),
    "digits": (["12345678901234567890", "12345678901234567891", "7"],) * 2,
    "one number": (["1e5", "10e4", "100000"],) * 2,
    "versions": (["1.1", "1.10", "1.2"],) * 2,
    "times": (["10:30", "2020-01-01", "10:30:00"],) * 2,
    "plain": (["7", "-3", "12"], [7, -3, 12]),
    "measures": (["0.50", "NULL", "2.5"], [0.5, np.nan, 2.5]),
    "gaps": (["3", "UNKNOWN", "Na"], [3, -1, -1]),
    "bools": (["true", "False", ""], ["True", "False", ""]),
}


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("separator", [",", ";"])
def test_texts_of_a_table_can_be_got_back(kind, separator, tmp_path):
    written, expected = IDS[kind]
    rows = [["e0", "e1", "e2", "id"], *(["0.5", "1", str(k), t] for k, t in enumerate(written))]
    path = text(tmp_path, "\n".join(separator.join(row) for row in rows) + "\n")
    said = []
    store = import_embeddings(path, say=said.append)
    np.testing.assert_array_equal(store.labels["id"], np.array(expected))
    assert store.embeddings.tolist() == [[0.5, 1, k] for k in range(3)]
    assert bool(said) == (kind in ("zeros", "digits", "one number", "versions"))


def test_large_numbers_of_arrow_are_never_merged(tmp_path):
    from decimal import Decimal

    import pyarrow as pa
    from pyarrow import parquet

    large = [2**63 + 1, None, 2**63, 2**63 + 2, 5, 6]
    made = {
        "embedding": list(E),
        "unsigned": pa.array(large, pa.uint64()),
        "negative": pa.array([-(2**60), None, -(2**60) - 1, 1, 2, 3]),
        "signed": pa.array([2**60, None, 2**60 + 1, 1, 2, 3]),
        "decimal": pa.array(
            [None if v is None else Decimal(v) for v in large], pa.decimal128(38, 0)
        ),
        "small": pa.array([Decimal(7), None] + [Decimal(2)] * 4, pa.decimal128(38, 0)),
        "price": pa.array([Decimal("1.25")] * 6, pa.decimal128(9, 2)),
        "view": pa.array(list("abcabc"), pa.string_view()),
        "bytes": pa.array([b"a", b"b"] * 3, pa.binary_view()),
    }
    parquet.write_table(pa.table(made), tmp_path / "a.parquet")
    labels = import_embeddings(tmp_path / "a.parquet").labels
    words = ["" if v is None else str(v) for v in large]
    assert labels["unsigned"].tolist() == labels["decimal"].tolist() == words
    assert labels["negative"].tolist() == [str(-(2**60)), "", str(-(2**60) - 1), "1", "2", "3"]
    assert labels["signed"].tolist() == [2**60, -1, 2**60 + 1, 1, 2, 3]
    assert labels["small"].tolist() == [7, -1, 2, 2, 2, 2]
    assert labels["price"].tolist() == [1.25] * 6
    assert labels["view"].tolist() == list("abcabc") and labels["bytes"].tolist() == list("ababab")
    store = EmbeddingStore(E, {"id": [2**53 + 1, None, 2**53, 1, 2, 3]}, _plain())
    assert store.labels["id"].tolist() == [str(2**53 + 1), "", str(2**53), "1", "2", "3"]


@pytest.mark.parametrize(
    ("rows", "label", "doubts"),
    [
        ("gallery/X", "probe/person", 1),
        ("train/X", "test/y", 1),
        ("train/X", "train/y", 0),
        ("X", "meta/y", 0),
        ("in/X", "y", 0),
        ("in/X", "inner/y", 1),
    ],
)
def test_labels_of_another_group_are_a_doubt(rows, label, doubts, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[rows], file[label] = E, AGES
    said = []
    store = import_embeddings(tmp_path / "a.h5", say=said.append)
    assert store.labels[label.rpartition("/")[2]].tolist() == AGES
    assert len(said) == doubts and all("other rows?" in text for text in said)


def test_names_of_classes_as_cards_have_them(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    features = {"mood": {"class_label": {"names": {"0": "sad", "1": "glad"}}}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    made = pa.table({"embedding": list(E), "mood": [0, 1] * 3}).replace_schema_metadata(metadata)
    parquet.write_table(made, tmp_path / "a.parquet")
    labels = import_embeddings(tmp_path / "a.parquet").labels
    assert labels["mood"].tolist() == ["sad", "glad"] * 3


def test_columns_of_anndata_that_nobody_needs(tmp_path):
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file.attrs["encoding-type"] = "anndata"
        file["X"], file["version"] = E, 3
        file.create_group("var")
        file["obs/age"] = AGES
        bad = file.create_group("obs/bad")
        bad.attrs["encoding-type"] = "categorical"
    store = import_embeddings(tmp_path / "a.h5ad")
    assert store.labels["age_years"].tolist() == AGES
    assert "bad" in store.info.import_report["sources"][0]["left_out"]


def test_a_structured_array_is_a_table(tmp_path):
    table = np.zeros(6, [*((f"e{k}", "f4") for k in range(8)), ("names", "U1")])
    for k in range(8):
        table[f"e{k}"] = E[:, k]
    np.save(tmp_path / "a.npy", table)
    np.testing.assert_array_equal(import_embeddings(tmp_path / "a.npy").embeddings, E)


@pytest.mark.parametrize("first", ["3,1,2", "0,1,2", "12,7,255"])
def test_a_first_row_of_whole_numbers_is_no_header(first, tmp_path):
    with pytest.raises(InputError, match="must hold embeddings as|columns"):
        import_embeddings(text(tmp_path, f"{first}\n4,5,6\n7,8,9\n"))
    bare = import_embeddings(text(tmp_path, "0,1,2\n0.5,5,6\n7,8,9\n"))
    assert bare.embeddings.tolist() == [[0.5, 5, 6], [7, 8, 9]]


def test_ages_that_hardly_are_are_a_doubt(tmp_path):
    said = []
    store = import_embeddings(npz(tmp_path, X=E, age=np.array(AGES) / 100), say=said.append)
    np.testing.assert_allclose(store.labels["age_years"], np.array(AGES) / 100, rtol=1e-6)
    assert len(said) == 1 and "none above 1: scaled?" in said[0]


def test_a_comma_at_the_end_of_lines_is_no_index(tmp_path):
    store = import_embeddings(text(tmp_path, "e0,e1,age,\n1,2,30,\n2,1,40,\n"))
    assert store.labels["age_years"].tolist() == [30, 40]
    left_out = store.info.import_report["sources"][0]["left_out"]
    assert left_out == {"Unnamed: 3": "neither a name nor values"}


def test_a_file_has_one_decimal_sign(tmp_path):
    rows = "e0;e1;e2;price;share\n0,25;1,5;2;1.234;0,5\n0,5;2,25;1;2.500;1,25\n"
    said = []
    store = import_embeddings(text(tmp_path, rows), say=said.append)
    assert store.embeddings.tolist() == [[0.25, 1.5, 2], [0.5, 2.25, 1]]
    assert store.labels["price"].tolist() == ["1.234", "2.500"]
    assert store.labels["share"].tolist() == [0.5, 1.25]
    assert len(said) == 1 and "'price' as text: a point, where other" in said[0]


def test_a_header_behind_a_hash_keeps_its_first_column(tmp_path):
    header = "# " + ",".join([*WIDE, "age"])
    table = np.column_stack([E, AGES])
    np.savetxt(tmp_path / "a.csv", table, delimiter=",", header=header[2:])
    store = import_embeddings(tmp_path / "a.csv")
    np.testing.assert_array_equal(store.embeddings, E)
    assert store.labels["age_years"].tolist() == AGES
    np.savetxt(tmp_path / "b.csv", table, header=header[2:].replace(",", " "), comments="")
    with pytest.raises(InputError, match="between values. Received: spaces"):
        import_embeddings(tmp_path / "b.csv")


def test_long_cells(tmp_path):
    cells = [json.dumps(np.resize(row, 8000).astype(float).tolist()) for row in E]
    lines = ["embedding;age", *(f"{c};{a}" for c, a in zip(cells, AGES, strict=True))]
    store = import_embeddings(text(tmp_path, "\n".join(lines) + "\n"))
    np.testing.assert_array_equal(
        store.embeddings, np.resize(E[:, :8], (6, 8)).repeat(1, 0)[:, np.arange(8000) % 8]
    )
    assert store.labels["age_years"].tolist() == AGES


def test_attributes_that_change_values_are_a_doubt(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["X"], file["age"] = E, AGES
        file["age"].attrs["scale_factor"] = 0.1
    said = []
    import_embeddings(tmp_path / "a.h5", say=said.append)
    assert len(said) == 1 and "'age' as it is stored, without its attribute scale_f" in said[0]


def test_long_names_and_cells_take_no_time(tmp_path):
    import time

    start = time.perf_counter()
    digits = "1" * 40_000
    store = import_embeddings(npz(tmp_path, X=E, **{digits: AGES}))
    assert store.labels[digits].tolist() == AGES
    with pytest.raises(UnreadCells):
        rows_of(np.array(["array(" + ", a=" * 20_000], object))
    assert time.perf_counter() - start < 5  # it took minutes


def test_what_is_dropped_is_no_candidate(tmp_path):
    path = npz(tmp_path, embedding=np.array(["x.npy"] * 6), features=ROWS)
    with pytest.raises(InputError, match="no list of numbers"):
        import_embeddings(path)
    store = import_embeddings(path, columns=ColumnNames(drop=["embedding"]))
    np.testing.assert_array_equal(store.embeddings, ROWS)


def test_columns_that_the_user_lists(tmp_path):
    path = text(tmp_path, "id,p,q,r,note\n1,0.5,2,3,a\n2,4,5.5,6,b\n")
    store = import_embeddings(path, columns=ColumnNames(numbers="r,p:q"))
    assert store.embeddings.tolist() == [[3, 0.5, 2], [6, 4, 5.5]]
    assert sorted(store.labels) == ["id", "note"]
    for wrong, message in [
        ("p,x", "columns 'x'"),
        ("p,p:q", "each column once"),
        ("note,p", "text"),
    ]:
        with pytest.raises(InputError, match=message):
            import_embeddings(path, columns=ColumnNames(numbers=wrong))


def test_bytes_are_read_only_if_they_can_be_one_thing(tmp_path):
    unit = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    for kind in ("<f4", "<f2", "<f8"):
        cells = np.array([row.astype(kind).tobytes() for row in unit], object)
        np.testing.assert_allclose(rows_of(cells), unit, atol=1e-3)
    halves = np.array([(row * 3).astype("<f2").tobytes() for row in ROWS[:, :3]], object)
    with pytest.raises(UnreadCells, match="6 bytes per row, which may be float16"):
        rows_of(halves)  # any bytes look like halves: only a norm of 1 tells
    halves = np.array([row.astype("<f4").tobytes() for row in np.ones((3, 4)) * 3], object)
    with pytest.raises(UnreadCells, match="16 bytes per row, which may be"):
        rows_of(halves)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([-1, 1, 1, -1, 1, 1]), ["-1", "1", "1", "-1", "1", "1"]),
        (np.array([-1, 0, 1, 0, 0, 1]), ["-1", "0", "1", "0", "0", "1"]),
        (np.array([-1.0, 0, np.nan, 2, 0, 1]), ["-1", "0", "", "2", "0", "1"]),
        (np.array([-1, 0, 3, 2, 0, 1]), [-1, 0, 3, 2, 0, 1]),
        (np.array([0.0, 1, 2, np.nan, 1, 1]), [0, 1, 2, -1, 1, 1]),
        (np.array([[0], [1], [2], [1], [1], [1]]), [0, 1, 2, 1, 1, 1]),
        (np.array([True, False] * 3), ["True", "False"] * 3),
        (np.array(["None", "a", "N/A", "?", "nan", "b"]), ["", "a", "", "", "", "b"]),
    ],
)
def test_classes_and_unknowns(values, expected, tmp_path):
    store = import_embeddings(npz(tmp_path, X=ROWS, label=values))
    assert store.labels["label"].tolist() == expected
    known = {v for v in expected if v not in ("", -1)}
    assert set(choose_target(store, "label").class_names) == {str(v) for v in known}


def test_a_model_of_whole_numbers_is_measured_on_floats():
    numbers = [0, 1, 2, 1, 0, 2]
    target = choose_target(EmbeddingStore(ROWS, {"kind": numbers}, _plain()), "kind")
    floats = EmbeddingStore(ROWS, {"kind": [0.0, 1.0, 2.0, np.nan, 0.0, 2.0]}, _plain())
    assert target.encode(floats).tolist() == [0, 1, 2, -1, 0, 2]
    assert choose_target(floats, "kind").class_names == ("0", "1", "2")
    with pytest.raises(InputError, match="must hold the classes 0, 1, 2"):
        target.encode(EmbeddingStore(ROWS, {"kind": [0.0, 1.5, 2.0, 1.0, 0.0, 2.0]}, _plain()))


def _plain():
    from kerasmlp.data.stores.store_info import StoreInfo

    return StoreInfo(normalized=False)


def test_the_report_is_kept_and_joined(tmp_path):
    path = npz(tmp_path, X=ROWS, age=AGES, mood=["a", "b", "NA", "a", "b", "a"], wide=ROWS[:3])
    store = import_embeddings(path)
    store.save(tmp_path / "s.h5")
    opened = EmbeddingStore.open(tmp_path / "s.h5")
    assert opened.info.import_report == store.info.import_report
    assert opened.digest() == store.digest()
    (report,) = opened.info.import_report["sources"]
    assert report == {
        "file": "a.npz",
        "rows": 6,
        "embedding": {"from": "X", "shape": [6, 4], "dtype": "float32"},
        "labels": {
            "mood": {
                "from": "mood", "kind": "classes", "number": 2, "names": ["a", "b"], "unknown": 1,
                "unknown_words": ["NA"],
            },
            "age_years": {"from": "age", "kind": "years", "range": [4.0, 60.0], "unknown": 0},
        },
        "left_out": {"wide": "whose shape (3, 4) is not that of 6 rows"},
        "doubts": [],
    }  # fmt: skip
    joined = EmbeddingStore.concatenate([opened, opened.subset([0, 1])])
    assert len(joined.info.import_report["sources"]) == 2
    with h5py.File(tmp_path / "s.h5", "a") as file:
        del file.attrs["import_report"]  # as older stores are
    assert EmbeddingStore.open(tmp_path / "s.h5").info.import_report is None


def bomb_csv(folder):
    return text(folder, "e0,e99999999\n1,2\n")


def bomb_gzip(folder):
    (folder / "a.csv.gz").write_bytes(
        gzip.compress(b"e0,e1\n") + gzip.compress(b"0,1\n" * (1 << 18)) * 270
    )
    return folder / "a.csv.gz"


def bomb_npz(folder):
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 70)}
    archive = zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("X.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(70):
            member.write(bytes(1 << 22))
    return folder / "a.npz"


def lying_npz(folder):
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 64)}
    np.lib.format.write_array_header_1_0(header, shape)
    (folder / "a.npy").write_bytes(header.getvalue() + bytes(64))
    return folder / "a.npy"


def bomb_hdf5(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("X", (1 << 22, 256), "f4", chunks=(1 << 14, 256), compression="gzip")
    return folder / "a.h5"


def bomb_chunk(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        options = {"chunks": (1 << 20, 256), "maxshape": (None, 256)}
        file.create_dataset("X", (3, 256), "f4", **options)
    return folder / "a.h5"


def bomb_parquet(folder):
    import pyarrow as pa
    from pyarrow import parquet

    codes = pa.array(np.zeros(1 << 22, np.int8))
    columns = {f"e{k}": pa.DictionaryArray.from_arrays(codes, [0.5]) for k in range(9)}
    parquet.write_table(pa.table(columns), folder / "a.parquet")
    return folder / "a.parquet"


def bomb_width(folder):
    return text(folder, ",".join(f"e{k}" for k in range(60_000)) + "\n" + "1," * 59_999 + "1\n")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (bomb_csv, "must hold the columns e0 to e99999999. Received: no e1"),
        (bomb_gzip, "must unpack to at most 4 times its size and 256 MiB"),
        (bomb_npz, "must unpack to at most 4 times its size and 256 MiB"),
        (lying_npz, "must be a complete .npy file.* an array that says it has shape"),
        (bomb_hdf5, "must unpack to at most 4 times its size and 256 MiB.*4,294,967,296 bytes"),
        (bomb_chunk, "must unpack to at most 4 times its size and 256 MiB"),
        (bomb_parquet, "must unpack to at most 4 times its size and 256 MiB"),
        (bomb_width, "must hold at most 50,000 columns"),
    ],
)
def test_sizes_are_checked_before_memory_is_taken(write, message, tmp_path):
    path = write(tmp_path)
    with pytest.raises(InputError, match=message):
        import_embeddings(path)


def test_a_pipe_is_no_file(tmp_path):
    for suffix in ("csv", "npz", "parquet", "h5", "csv.gz"):
        os.mkfifo(tmp_path / f"a.{suffix}")
        with pytest.raises(InputError, match="must be a"):
            import_embeddings(tmp_path / f"a.{suffix}")


def test_a_ring_of_links_is_no_file(tmp_path, capsys):
    (tmp_path / "a.csv").symlink_to(tmp_path / "a.csv")
    assert run_command("import-embeddings", [f"{tmp_path}/a.csv", "-o", f"{tmp_path}/b.h5"]) == 2
    assert "a.csv` must be a file" in capsys.readouterr().err


def test_hdf5_reaches_nowhere_else(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"123456")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["X"] = ROWS
        file.create_dataset("age", (6,), "u1", external=[(str(secret), 0, 6)])
    with pytest.raises(InputError, match="hold all of its data itself.*another file in 'age'"):
        import_embeddings(tmp_path / "a.h5")


def test_pickled_frames_are_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["PYTABLES_FORMAT_VERSION"] = np.bytes_(b"2.1")
        frame = file.create_group("df")
        frame.attrs["pandas_type"] = np.bytes_(b"frame_table")
        frame["table"] = np.zeros(3, [("index", "i8"), ("values_block_0", "f8", (4,))])
    with pytest.raises(InputError, match="data_columns=True.*column.* names are pickled"):
        import_embeddings(tmp_path / "a.h5")


def test_codes_without_a_name_are_refused(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    features = {"mood": {"names": ["a", "b"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    made = pa.table({"embedding": list(ROWS[:2]), "mood": [0, 2]}).replace_schema_metadata(metadata)
    parquet.write_table(made, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="codes of its 2 names in 'mood'. Received: 2"):
        import_embeddings(tmp_path / "a.parquet")


def test_corners_of_boxes_are_no_embedding(tmp_path):
    with pytest.raises(InputError, match="must hold embeddings as"):
        import_embeddings(text(tmp_path, "id,x1,y1,x2,y2\n1,1.5,2.5,3.5,4.5\n2,3.5,1,2,0.5\n"))


@pytest.mark.parametrize("codes", ["auto", "male0", "female0"])
def test_a_gender_that_could_be_a_gap_is_refused(codes, tmp_path):
    genders = np.where(np.arange(20) % 2, 1, -1)
    np.savez(tmp_path / "a.npz", embedding=np.eye(20), gender=genders)
    with pytest.raises(InputError, match="as codes 0 and 1, or as words. Received: -1 and 1"):
        import_embeddings(tmp_path / "a.npz", gender_codes=codes)


def test_labels_among_the_dimensions_are_a_doubt(tmp_path):
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=(50, 16)), rng.integers(1, 90, 50)])
    np.save(tmp_path / "a.npy", rows)
    said = []
    assert import_embeddings(tmp_path / "a.npy", say=said.append).width == 17
    (doubt,) = [text for text in said if "whole numbers" in text]
    assert "in dimension 16: labels?" in doubt
    with pytest.raises(InputError, match="whole numbers"):
        import_embeddings(tmp_path / "a.npy", strict=True)
    np.save(tmp_path / "b.npy", rng.integers(0, 9, (50, 16)).astype(np.float32))  # all are whole
    np.save(tmp_path / "c.npy", np.maximum(rng.normal(size=(50, 16)), 0) * (np.arange(16) != 3))
    for name in "bc":
        said.clear()
        import_embeddings(tmp_path / f"{name}.npy", say=said.append)
        assert not [text for text in said if "whole numbers" in text]


@pytest.mark.parametrize("gap", [0, 99])
def test_an_age_that_many_have_is_a_doubt(gap, tmp_path):
    ages = np.r_[np.full(10, gap), np.arange(20, 60)]
    np.savez(tmp_path / "a.npz", embedding=np.eye(50), age=ages)
    said = []
    store = import_embeddings(tmp_path / "a.npz", say=said.append)
    assert store.labels["age_years"].tolist() == ages.tolist()
    assert any(f"took age {gap} as one, which 20% of the rows have" in text for text in said)


def test_a_table_without_a_header_is_named(tmp_path):
    rows = np.random.default_rng(0).normal(size=(9, 4))
    np.savetxt(tmp_path / "a.csv", rows, delimiter=",")
    with pytest.raises(InputError, match="names of its columns. Received: numbers such"):
        import_embeddings(tmp_path / "a.csv")


def test_text_of_another_encoding_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes("größe;e0;e1\n1;2;3\n".encode("cp1252"))
    with pytest.raises(
        InputError,
        match=r"must be text in UTF-8 or UTF-16 \(save it as UTF-8, .*Received: other bytes",
    ):
        import_embeddings(tmp_path / "a.csv")
    whole = gzip.compress(b"e0,e1\n1,2\n" * 99)
    (tmp_path / "b.csv.gz").write_bytes(whole[:-9])
    with pytest.raises(InputError, match="must be a complete table"):
        import_embeddings(tmp_path / "b.csv.gz")


@pytest.mark.parametrize("shape", [(), (6,)])
def test_text_of_no_characters_is_refused(shape, tmp_path):
    broken = np.full(shape or 1, 0x7FFFFFFF, np.uint32).view("U1").reshape(shape)
    with pytest.raises(InputError, match="must hold text in 'mood'.*no characters"):
        import_embeddings(npz(tmp_path, X=ROWS, mood=broken))


def test_separators_that_could_be_two(tmp_path):
    with pytest.raises(InputError, match="one separator.*',' and ';'"):
        import_embeddings(text(tmp_path, "e0,e1;e2\n1,2;3\n"))


def test_an_unnamed_code_in_a_field_of_a_table_is_unknown(tmp_path):
    path = tmp_path / "a.h5"
    named = h5py.enum_dtype({"a": 0, "b": 1}, basetype="i1")
    table = np.zeros(4, [("embedding", "f4", (3,)), ("race", named)])
    table["embedding"], table["race"] = np.eye(4, 3) + 1, [0, 1, -1, 0]
    with h5py.File(path, "w") as file:
        file["table"] = table
    assert import_embeddings(path).labels["race"].tolist() == ["a", "b", "", "a"]
