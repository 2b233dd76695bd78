import io
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from kerasmlp.cli import run_command
from kerasmlp.data.importing.embedding_files import ColumnNames, import_embeddings
from kerasmlp.data.stores.embedding_store import EmbeddingStore, StoreInfo
from kerasmlp.utils.checks import InputError

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
ROWS = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
UNIT = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
GENDER, AGE = [0, 1, 1, 0, 1], [1, 30, 45, 99, 7]


def write_table(path, columns):
    names = list(columns)
    lines = [",".join(names)] + [
        ",".join(str(v) for v in row) for row in zip(*columns.values(), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def wide(rows=UNIT, prefix="e"):
    return {f"{prefix}{k}": rows[:, k] for k in range(rows.shape[1])}


def write_npz(path, /, **arrays):
    np.savez(path, **arrays)
    return path


def write_hdf5(path, arrays, **attributes):
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value
        file.attrs.update(attributes)
    return path


def make(kind, folder):
    path = folder / f"a.{kind}"
    if kind == "npz":
        return write_npz(path, X=UNIT, Sex=GENDER, AGE=AGE, tag=list("abcde"))
    if kind == "h5":
        tags = [b"a", b"b", b"c", b"d", b"e"]
        arrays = {"in/features": UNIT, "in/gender": GENDER, "in/years": AGE, "in/tag": tags}
        return write_hdf5(path, arrays)
    table = {**wide(prefix="" if kind == "tsv" else "e"), "sex": GENDER, "age": AGE, "tag": "abcde"}
    if kind == "parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = {"embedding": list(UNIT), "sex": GENDER, "age": AGE, "tag": list("abcde")}
        parquet.write_table(pa.table(columns), path, row_group_size=2)
        return path
    pytest.importorskip("pyarrow")
    write_table(path, table)
    separator = {"csv": ";", "tsv": "\t"}[kind]
    path.write_text("\ufeff" + path.read_text().replace(",", separator), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["npz", "csv", "tsv", "parquet", "h5"])
def test_every_format_gives_the_same_store(kind, tmp_path):
    said = []
    store = import_embeddings(make(kind, tmp_path), say=said.append)
    np.testing.assert_allclose(store.embeddings, UNIT, rtol=1e-6)
    assert store.labels["gender"].tolist() == GENDER
    assert store.labels["age_years"].tolist() == AGE
    assert store.labels["tag"].tolist() == list("abcde")
    assert sorted(store.labels) == ["age_years", "gender", "tag"]
    assert store.info.normalized and "0 male, 1 female" in said[0] and len(said) == 1


def test_npy_without_labels(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(ROWS.astype(np.float64)))
    store = import_embeddings(tmp_path / "a.npy")
    assert store.labels == {} and not store.info.normalized
    np.testing.assert_array_equal(store.embeddings, ROWS)
    store = import_embeddings(tmp_path / "a.npy", normalize=True, float16=True)
    assert store.info.normalized and store.storage_dtype == np.float16
    np.testing.assert_allclose(store.embeddings, UNIT, atol=1e-3)
    store.save(tmp_path / "a.h5")
    assert EmbeddingStore.open(tmp_path / "a.h5").digest() == store.digest()


def test_gaps_in_a_table(tmp_path):
    pytest.importorskip("pyarrow")
    columns = {**wide(), "age": ["30", "", "", "7", "8"], "gender": ["1", "", "0", "0", "1"]}
    columns |= {"group": ["1", "", "2", "2", "3"], "name": ["a", "", "None", "b", "ü"]}
    store = import_embeddings(write_table(tmp_path / "a.csv", columns))
    assert store.labels["gender"].tolist() == [1, -1, 0, 0, 1]
    assert store.labels["group"].tolist() == [1, -1, 2, 2, 3]
    assert np.isnan(store.labels["age_years"]).tolist() == [False, True, True, False, False]
    assert store.labels["name"].tolist() == ["a", "", "", "b", "ü"]


def test_fairface_table(tmp_path):
    """Its groups are called `age`, and a spreadsheet went over them."""
    groups = ["03-Sep", "Oct-19", "more than 70", "0-2", "20-29"]
    path = write_npz(tmp_path / "a.npz", x=UNIT, age=groups, gender=["Female", "Male"] * 2 + [""])
    store = import_embeddings(path)
    assert store.labels["age_group"].tolist() == ["3-9", "10-19", "more than 70", "0-2", "20-29"]
    assert store.labels["gender"].tolist() == [1, 0, 1, 0, -1] and "age_years" not in store.labels


def test_adience_ages(tmp_path):
    ages = ["(25, 32)", "None", "35", "(0, 2)", ""]
    store = import_embeddings(write_npz(tmp_path / "a.npz", x=UNIT, age=ages))
    np.testing.assert_array_equal(store.labels["age_years"], [28.5, np.nan, 35, 1, np.nan])


@pytest.mark.parametrize(
    ("attribute", "option", "expected"),
    [
        ("0 male, 1 female", "auto", [0, 1, 1, 0, 1]),
        ("0 = female, 1 = male", "auto", [1, 0, 0, 1, 0]),
        ("male=1 female=0", "auto", [1, 0, 0, 1, 0]),
        ("female 0 male 1", "auto", [1, 0, 0, 1, 0]),
        ("female: 0 male: 1", "auto", [1, 0, 0, 1, 0]),
        ('{"female": 0, "male": 1}', "auto", [1, 0, 0, 1, 0]),
        ("female=0, male=1, -1 unknown", "auto", [1, 0, 0, 1, 0]),
        ("0 = woman, 1 = man", "auto", [1, 0, 0, 1, 0]),
        ("F=0, M=1", "auto", [1, 0, 0, 1, 0]),
        (b"M=0, F=1", "auto", [0, 1, 1, 0, 1]),
        (None, "auto", [0, 1, 1, 0, 1]),
        (None, "male0", [0, 1, 1, 0, 1]),
        ("0 male, 1 female", "female0", [1, 0, 0, 1, 0]),
    ],
)
def test_gender_codes(attribute, option, expected, tmp_path):
    attributes = {"gender_codes": attribute} if attribute else {}
    path = write_hdf5(tmp_path / "a.h5", {"x": UNIT, "sex": GENDER}, **attributes)
    said = []
    store = import_embeddings(path, gender_codes=option, say=said.append)
    assert store.labels["gender"].tolist() == expected
    assert bool(said) == (attribute is None and option == "auto")


@pytest.mark.parametrize(
    "said", ["male 0 female", "0 male, 0 female", "1 male, 2 female", "male0 1female", "not male 0"]
)
def test_gender_codes_that_cannot_be_read(said, tmp_path):
    path = write_npz(tmp_path / "a.npz", x=UNIT, sex=GENDER, gender_codes=said)
    with pytest.raises(InputError, match="attribute 'gender_codes' which .*--gender-codes must"):
        import_embeddings(path)
    store = import_embeddings(path, gender_codes="female0")
    assert store.labels["gender"].tolist() == [1, 0, 0, 1, 0]
    words = write_npz(tmp_path / "b.npz", x=UNIT, sex=list("mffmf"), gender_codes=said)
    assert import_embeddings(words).labels["gender"].tolist() == GENDER


RACES = ["White", "", "East Asian", "White", "Black"]


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("0 White, 1 Black, 2 East Asian", None),
        ("White = 0; Black = 1; East Asian = 2.", None),
        ('{"0": "White", "1": "Black", "2": "East Asian", "3": "other"}', None),
        ("0 White, 1 Black", "which names no code 2"),
        ("0 to 2", "which does not say one name for each code"),
        (["White", "Black", "East Asian"], "an attribute that is a list"),
    ],
)
def test_codes_of_a_label_by_their_names_or_named_as_left_out(said, left, tmp_path):
    arrays, notes = {"x": UNIT, "race": [0, -1, 2, 0, 1]}, []
    path = write_hdf5(tmp_path / "a.h5", arrays, race_codes=said, hair_codes="0 red, 1 grey")
    store = import_embeddings(path, say=notes.append)
    report = store.info.import_report["sources"][0]["left_out"]
    assert report.pop("hair_codes") == "which is of no label: there is no column 'hair'"
    if left is None:
        assert store.labels["race"].tolist() == RACES and report == {}
    else:
        assert store.labels["race"].tolist() == arrays["race"]
        assert report.pop("race_codes").startswith(left) and report == {}
        assert any(f"left out 'race_codes', {left}" in note for note in notes)
        with pytest.raises(InputError, match="must leave no doubt"):
            import_embeddings(path, strict=True)


def test_rows_of_zeros_are_kept_and_said(tmp_path):
    """A table may hold them; embeddings that failed are often written so."""
    rows = np.array([[0, 0], [1, 0], [0, 0], [3, 4]], np.float32)
    np.savez(tmp_path / "a.npz", x=rows)
    said = []
    store = import_embeddings(tmp_path / "a.npz", say=said.append)
    np.testing.assert_array_equal(store.embeddings, rows)
    assert not store.info.normalized
    expected = "nothing but zeros in 2 rows, the first of them row 0: kept as they are"
    assert [expected in text for text in said] == [True], said
    assert expected in store.info.import_report["sources"][0]["doubts"][0]
    for how in ({"strict": True}, {"normalize": True}):
        with pytest.raises(InputError, match="nothing but zeros in 2 rows"):
            import_embeddings(tmp_path / "a.npz", **how)


def test_codes_are_read_wherever_a_file_has_attributes(tmp_path):
    said = {"sex_codes": "1 male, 2 female", "age_codes": "0 0-17, 1 18+"}
    arrays = {"x": UNIT, "sex": [1, 2, 2, 1, 2], "race": [0.0, np.nan, 2.0, 0.0, 1.0]}
    path = write_npz(tmp_path / "a.npz", **arrays, race_codes="0 White, 1 Black, 2 East Asian")
    with pytest.raises(InputError, match="gender as codes 0 and 1"):
        import_embeddings(path)
    path = write_npz(
        tmp_path / "b.npz", **arrays, **said, race_codes="White 0, Black 1, East Asian 2"
    )
    labels = import_embeddings(path).labels
    assert labels["gender"].tolist() == [0, 1, 1, 0, 1] and labels["race"].tolist() == RACES
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"embedding": list(UNIT), "sex": arrays["sex"], "race": [0, None, 2, 0, 1]}
    table = pa.table(columns).replace_schema_metadata(
        {**said, "race_codes": "0: White, 1: Black, 2: East Asian"}
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    labels = import_embeddings(tmp_path / "a.parquet").labels
    assert labels["gender"].tolist() == [0, 1, 1, 0, 1] and labels["race"].tolist() == RACES


def test_attributes_are_taken_over(tmp_path):
    attributes = {"embedder": "r50", "embedder_sha256": "a" * 64, "min_det_score": np.float32(0.5)}
    attributes |= {"licence": "CC0", "normalized": True, "colour": "blue"}
    path = write_hdf5(tmp_path / "a.h5", {"x": UNIT}, **attributes)
    info = import_embeddings(path, info={"licence": "mine", "source": "s"}).info
    assert (info.embedder, info.embedder_sha256, info.min_det_score) == ("r50", "a" * 64, 0.5)
    assert (info.licence, info.source, info.normalized) == ("mine", "s", True)


def test_named_columns(tmp_path):
    arrays = {"a": UNIT, "b": ROWS, "when": AGE, "who": list("vwxyz"), "junk": np.arange(5)}
    path = write_npz(tmp_path / "a.npz", **arrays, short=np.arange(3), scalar=np.float64(3))
    labels = {"age_years": "when", "group": "who"}
    said = []
    store = import_embeddings(path, columns=ColumnNames("a", labels, ["junk"]), say=said.append)
    assert sorted(store.labels) == ["age_years", "group"]
    assert re.search(r"left out 'b', 12 values per row", said[0]) and "'short'" in said[1]


def test_existing_store(tmp_path):
    store = EmbeddingStore(UNIT.astype(np.float16), {"gender": [0, -1, 1, 1, 0]}, StoreInfo("r50"))
    store.save(tmp_path / "a.h5")
    said = []
    again = import_embeddings(tmp_path / "a.h5", say=said.append)
    assert again.digest() == store.digest() and not said
    assert again.info.embedder == "r50" and again.storage_dtype == np.float16


@pytest.mark.parametrize("name", ["utkface", "fairface"])
def test_real_files_need_no_options(name, tmp_path):
    path = SHARED / f"{name}_arcface.h5"
    if not path.is_file():
        pytest.skip("needs the shared data")
    store = import_embeddings(path)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(store.labels["gender"], file["gender"])
        np.testing.assert_array_equal(store.labels["group"], file["group"])
        assert store.info.embedder_sha256 == file.attrs["embedder_sha256"]
    assert ("age_years" in store.labels) == (name == "utkface")
    assert store.info.normalized and store.storage_dtype == np.float16


def test_what_nobody_needs_is_left_out_and_named(tmp_path):
    said = []
    objects = np.array([{}, 1, 2, 3, 4], object)
    path = write_npz(tmp_path / "a.npz", x=UNIT, label=objects, image=np.zeros((5, 4, 4)), age=AGE)
    info = import_embeddings(path, columns=ColumnNames(drop=["age"]), say=said.append).info
    assert info.import_report["sources"][0]["left_out"] == {
        "label": "Python objects (pickled), which are never loaded",
        "age": "as asked by --drop",
        "image": "16 values per row, where a label has one",
    }
    assert len(said) == 2 and "'label'" in said[0]
    with pytest.raises(InputError, match="must leave no doubt .--strict.*left out 'label'"):
        import_embeddings(path, strict=True)
    latin = tmp_path / "a.csv"
    latin.write_bytes(b"e0,e1,n\n1,2,\xff\xfe\n")
    pytest.importorskip("pyarrow")
    left = import_embeddings(latin).info.import_report["sources"][0]["left_out"]
    assert "UTF-8 text" in left["n"]
    with pytest.raises(InputError, match="UTF-8 text in label 'name' .*`iconv -f latin1 -t utf8`"):
        import_embeddings(latin, columns=ColumnNames(labels={"name": "n"}))
    latin.write_bytes(b"e0,e1,\xff\n1,2,a\n")
    with pytest.raises(InputError, match="UTF-8 or UTF-16 .save it as UTF-8, or by `iconv -f la"):
        import_embeddings(latin)


def cut(kind, share):
    def write(folder):
        path = make(kind, folder)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        return path

    return write


def content(name, data):
    def write(folder):
        path = folder / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write


def npz(**arrays):
    return lambda folder: write_npz(folder / "a.npz", **arrays)


def table(**columns):
    return lambda folder: write_table(folder / "a.csv", {**wide(), **columns})


def without_e3(folder):
    return write_table(folder / "a.csv", {k: v for k, v in wide().items() if k != "e3"})


def ragged_parquet(folder):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"embedding": [[1.0, 2.0], [1.0]]}), folder / "a.parquet")
    return folder / "a.parquet"


def twice_in_parquet(folder):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = [pa.array(UNIT.tolist()), *[pa.array(range(len(UNIT)))] * 2]
    table = pa.Table.from_arrays(columns, names=["embedding", "age", "age"])
    parquet.write_table(table, folder / "a.parquet")
    return folder / "a.parquet"


BROKEN = UNIT.copy()
BROKEN[2, 3] = np.nan
BAD = [
    (lambda f: f / "none.npz", "must be a file. Received: no such file"),
    (lambda f: f / "a.xlsx", "must end in one of .npz, .npy.* Received: suffix '.xlsx'"),
    (lambda f: f, "a folder of shards. Received: a folder without manifest.json"),
    (content("a.csv", ""), "must hold embeddings. Received: an empty file"),
    (content("a.csv", "e0,e1\n"), r"at least one row. Received: shape \(0, 2\)"),
    (
        content("a.csv", "e0,e1\n1,2\n3\n"),
        "must be a complete table.*row has 1 values, the header 2 names",
    ),
    (content("a.csv", "e0,e1,e1\n1,2,3\n"), "must hold each column once. Received: 'e1' twice"),
    (content("a.csv", "e0,e1\n1,two\n"), "must hold numbers as embeddings.*text in column 'e1'"),
    (content("a.csv", "e0,e1\n1,\n2,3\n"), "must hold finite numbers only.*1 rows"),
    (
        content("a.csv", "a,b\n1,2\n"),
        "must hold embeddings as 'embedding' or e0.*Received: a int64",
    ),
    (content("a.npz", "hello"), "must hold plain arrays. Received: pickled or foreign"),
    (content("a.npy", pickle.dumps([1])), "must hold plain arrays. Received: pickled"),
    (content("a.h5", "hello"), "must be a complete HDF5 file"),
    (content("a.parquet", "hello"), "must be a complete table"),
    (twice_in_parquet, "must hold each column once. Received: 'age' twice"),
    (npz(x=np.array([{}] * 5, object)), "one width in 'x'.* Received: Python objects .pickled"),
    (cut("npz", 0.7), "must be a complete .npz file"),
    (cut("h5", 0.7), "must be a complete HDF5 file"),
    (cut("parquet", 0.7), "must be a complete table"),
    (cut("csv", 0.7), "must be a complete table|finite numbers|must hold"),
    (npz(x=BROKEN), "must hold finite numbers only. Received: NaN .* row 2"),
    (npz(x=UNIT.astype(str)), "one width in 'x'.* Received: shape .5, 12., dtype"),
    (npz(embedding=np.zeros((0, 3))), "at least one row"),
    (npz(a=UNIT, b=UNIT), "must hold embeddings as 'embedding'.*Received: a float32"),
    (npz(x=UNIT, age=[1, 2]), "must hold 5 values of label 'age_years'"),
    (npz(x=UNIT, age=["1", "2", "x", "", "3"]), "must hold ages in years.*Received: 'x'"),
    (npz(x=UNIT, age=[1, 2, 3, 4, 300]), "ages of 0 to 130 years.*300.0 in row 4"),
    (npz(x=UNIT, gender=[1, 2, 1, 2, 1]), "must hold gender as codes 0 and 1.*Received: 2"),
    (npz(x=UNIT, gender=list("mfdmf")), "must hold gender as one of male, man, .*Received: 'd'"),
    (without_e3, "must hold the columns e0 to e11. Received: no e3"),
    (ragged_parquet, "one width in 'embedding'.* Received: lists of several lengths"),
    (
        lambda f: write_hdf5(f / "a.h5", {"x": ROWS}, normalized=True),
        "must hold embeddings of norm 1",
    ),
    (lambda f: write_hdf5(f / "a.h5", {"x": UNIT}, embedder=[1, 2]), "text in attribute"),
    (lambda f: write_hdf5(f / "a.h5", {"a/x": UNIT, "b/x": UNIT}), "each column once.*'x' in two"),
]


@pytest.mark.parametrize(("write", "text"), BAD)
def test_bad_input_is_one_sentence(write, text, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    path, output = write(tmp_path), tmp_path / "out.h5"
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError, match=text):
        import_embeddings(path)
    assert run_command("import-embeddings", [str(path), "-o", str(output)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"error: `.+` must .+\. Received: .+", last) and str(path) in last
    assert sorted(os.listdir(tmp_path)) == before


def test_pickles_are_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], object), allow_pickle=True)
    for name, data in [("a.npy", buffer.getvalue()), ("b.npy", pickle.dumps(Trap()))]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="pickled"):
            import_embeddings(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_command(tmp_path):
    first = write_npz(tmp_path / "a.npz", x=UNIT, sex=GENDER, y=AGE, path=list("abcde"))
    second = write_npz(tmp_path / "b.npz", x=-UNIT, sex=GENDER, y=AGE, path=list("fghij"))
    output = tmp_path / "out.h5"
    options = ["-o", output, "--label", "age_years=y", "--drop", "path", "--float16"]
    options += ["--embedder", "r50", "--embedder-sha256", "a" * 64, "--licence", "CC0"]
    command = [sys.executable, ROOT / "bin" / "import-embeddings", first, second, *options]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines == [
        "rows 10",
        "embedding 12 wide, float16, norm 1",
        "embedder r50",
        *(
            line
            for name in "ab"
            for line in (
                f"read {name}.npz, 5 rows",
                "embedding from 'x', float32 of shape [5, 12]",
                "age_years years from 1 to 99, 0 unknown (from 'y')",
                "gender 2 classes: male, female, 0 unknown (from 'sex')",
                "left out 'path', as asked by --drop",
                "doubt read gender as 0 male, 1 female; --gender-codes says otherwise",
            )
        ),
        f"store {output}",
    ]
    strict = [*map(str, command[2:]), "--force", "--strict"]
    assert run_command("import-embeddings", strict) == 2
    assert result.stderr.count("0 male, 1 female") == 2
    store = EmbeddingStore.open(output)
    assert len(store) == 10 and store.info.embedder_sha256 == "a" * 64
    assert [s["file"] for s in store.info.import_report["sources"]] == ["a.npz", "b.npz"]
    again = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert again.returncode == 2 and "must not exist yet (--force replaces it)" in again.stderr
    assert run_command("import-embeddings", [*map(str, command[2:]), "--force"]) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--label", "x"], "`--label` must be NEW=OLD"),
        (["--label", "b=x", "--label", "b=sex"], "must give label 'b' one column"),
        (["--gender", "sex", "--drop", "sex"], "each column for one thing"),
        (["--drop", "nothing"], "must hold column 'nothing'. Received: x, sex"),
        (["--age", "nothing"], "must hold column 'nothing'"),
        (["--embedding", "nothing"], "must hold embeddings as 'nothing'"),
        (["--embedder-sha256", "abc"], "`--embedder-sha256` must be 64"),
        (["--model-dir", "/nowhere"], "`/nowhere` must be a folder"),
        (["-o", "/nowhere/out.h5"], "must lie in an existing folder"),
    ],
)
def test_bad_options(options, text, tmp_path, capsys):
    path = write_npz(tmp_path / "a.npz", x=UNIT, sex=GENDER)
    argv = [str(path), "-o", str(tmp_path / "out.h5"), *options]
    assert run_command("import-embeddings", argv) == 2
    assert text in capsys.readouterr().err


def test_sources_that_do_not_fit(tmp_path, capsys):
    first = write_hdf5(tmp_path / "a.h5", {"x": UNIT}, embedder="r50")
    foreign = write_hdf5(tmp_path / "b.h5", {"x": UNIT}, embedder="r100")
    narrow = write_npz(tmp_path / "c.npz", x=np.eye(3))
    plain = write_npz(tmp_path / "d.npz", x=ROWS)
    for path, text in [
        (foreign, "must hold embeddings of r50 .* those of r100"),
        (narrow, "must have width 12, as `.*a.h5` has. Received: width 3"),
        (plain, "must hold embeddings that are normalised"),
    ]:
        argv = [str(first), str(path), "-o", str(tmp_path / "out.h5")]
        assert run_command("import-embeddings", argv) == 2
        error = capsys.readouterr().err
        assert re.search(f"`{re.escape(str(path))}` {text}", error), error


def test_rows_that_sources_share_are_counted(tmp_path, capsys):
    first = write_npz(tmp_path / "a.npz", x=UNIT)
    other = write_npz(tmp_path / "b.npz", x=np.concatenate([UNIT[[1, 1, 3]], -UNIT[:1]]))
    third = write_npz(tmp_path / "c.npz", x=-UNIT[:2])
    argv = [str(first), str(other), str(third), "-o", str(tmp_path / "out.h5")]
    assert run_command("import-embeddings", argv) == 0
    shared = [line for line in capsys.readouterr().out.splitlines() if "also in a source" in line]
    assert [line.split()[1:4] for line in shared] == [["3", "rows", "of"], ["1", "rows", "of"]]
    assert str(other) in shared[0] and str(third) in shared[1]
    assert len(EmbeddingStore.open(tmp_path / "out.h5")) == len(UNIT) + 6


def test_model_dir(tmp_path):
    models = SHARED / "models"
    if not models.is_dir():
        pytest.skip("needs the shared data")
    pytest.importorskip("onnx")
    path = write_npz(tmp_path / "a.npz", x=UNIT)
    argv = [str(path), "-o", str(tmp_path / "out.h5"), "--model-dir", str(models)]
    assert run_command("import-embeddings", argv) == 0
    info = EmbeddingStore.open(tmp_path / "out.h5").info
    assert info.embedder == "w600k_mbf_dequant.onnx" and info.embedder_sha256.startswith("62a5a76d")


def test_drop_takes_labels_out_of_a_store_too(tmp_path, capsys):
    source, output = tmp_path / "faces.h5", tmp_path / "shared.h5"
    EmbeddingStore(np.eye(3, 8), {"path": ["ann.jpg", "bob.jpg", "x"], "gender": [0, 1, 1]}).save(
        source
    )
    words = [str(source), "-o", str(output), "--drop", "path"]
    assert run_command("import-embeddings", words) == 0
    assert "as asked by --drop" in capsys.readouterr().out
    assert list(EmbeddingStore.open(output).labels) == ["gender"]
    assert b"ann.jpg" not in output.read_bytes()


def test_named_columns_stay_in_their_order(tmp_path):
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    table = {name: rng.normal(size=60) for name in ("slag", "water", "strength")}
    table["days"] = rng.integers(1, 90, 60).astype(float)
    path, said = write_table(tmp_path / "a.csv", table), []
    stores = [
        import_embeddings(path, columns=ColumnNames(numbers=listed), say=said.append)
        for listed in ("slag,water,days", "water,slag,days")
    ]
    assert stores[0].info.preprocessing == {"columns": ["slag", "water", "days"]}
    days_first = ColumnNames(numbers="days,slag")
    table["days"] = table["days"].astype(int)
    store = import_embeddings(write_table(tmp_path / "c.csv", table), columns=days_first)
    (source,) = store.info.import_report["sources"]
    assert source["embedding"]["dtype"] == "int64, float64"
    np.testing.assert_allclose(store.embeddings[:, 1], table["slag"], rtol=1e-6)
    assert not said  # whole numbers in a column that was named are no labels among others
    stores[0].save(tmp_path / "a.h5")
    assert EmbeddingStore.open(tmp_path / "a.h5").info.preprocessing == stores[0].info.preprocessing
    with pytest.raises(InputError, match="in their order: .* as number 1"):
        EmbeddingStore.concatenate(stores)
    path = write_table(tmp_path / "b.csv", wide())
    store = import_embeddings(path, columns=ColumnNames(numbers="e0:e2"))
    assert store.info.preprocessing is None


@pytest.mark.parametrize(
    ("values", "doubt"),
    [
        ([1.5, -999, 3.5, -999], "took -999 in 'score', 2 times, for a number: a gap?"),
        ([1, 9999, 3, 9999], "took 9999 in 'score', 2 times, for a number: a gap?"),
        ([1.5, -999, -99, -999], "took -999 in 'score', 2 times, for a number: a gap?"),
        ([1.5, -999, 3.5, 4.5], None),
        ([-5.5, -99, 3.5, -99], None),
    ],
)
def test_a_number_far_from_all_others_is_doubted(values, doubt, tmp_path):
    said = []
    path = write_npz(tmp_path / "a.npz", x=np.eye(4), score=np.array(values))
    store = import_embeddings(path, say=said.append)
    assert store.labels["score"].tolist() == values
    assert [text for text in said if "gap" in text] == ([f"{path}: {doubt}"] if doubt else [])
