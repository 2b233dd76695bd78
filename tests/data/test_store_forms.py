"""One file, a folder of shards and Parquet are the same store."""

import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kerasmlp import EmbeddingStore, ImageStore, StoreInfo
from kerasmlp.cli import run_command
from kerasmlp.data.stores import parquet_rows
from kerasmlp.data.stores.partial_store import PartialStore
from kerasmlp.data.stores.store_paths import check_store_path, is_store, save_store
from kerasmlp.data.stores.streamed_rows import StreamedRows
from kerasmlp.utils.checks import InputError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
FORMS = ("b.h5", "shards", "b.parquet")


def made(rows=500, width=8, dtype="float16"):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, width))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = {
        "gender": np.arange(rows) % 3 - 1,
        "age_years": np.where(np.arange(rows) % 7, np.arange(rows) % 100, np.nan),
        "race": np.array(["", "schön", "b"])[np.arange(rows) % 3],
        "large": np.arange(rows, dtype=np.uint64) + np.uint64(2**63),
        "small": (np.arange(rows) % 5 - 2).astype(np.int16),
        "half": np.linspace(-1, 1, rows).astype(np.float16),
    }
    report = {"inputs": rows + 1, "kept": rows, "removed": {"no face": 1}}
    info = StoreInfo("made.onnx", source="ä test", licence="none", removal_report=report)
    return EmbeddingStore(x.astype(dtype), labels, info)


def same(one, other):
    assert one.digest() == other.digest() and one.info == other.info
    assert one.storage_dtype == other.storage_dtype
    for name, column in one.labels.items():
        assert other.labels[name].dtype.kind == column.dtype.kind
        np.testing.assert_array_equal(other.labels[name], column)
    np.testing.assert_array_equal(np.asarray(one.embeddings), np.asarray(other.embeddings))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_store_back(tmp_path, form, dtype, monkeypatch):
    monkeypatch.setattr(parquet_rows, "_GROUP_BYTES", 2000)  # several groups of rows
    store, path = made(dtype=dtype), tmp_path / form
    save_store(store, path, rows_per_shard=130 if form == "shards" else None)
    assert is_store(path)
    for streamed in (False, True):
        found = EmbeddingStore.open(path, verify=True, streamed=streamed)
        assert isinstance(found.embeddings, StreamedRows) == streamed and found.name == path
        same(store, found)
        some = np.array([499, 3, 3, 250])
        same(store.subset(some), found.subset(some))
    save_store(found, tmp_path / "again.h5")  # from ranges of rows
    EmbeddingStore.open(path).save(tmp_path / "whole.h5")
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_other_programs_read_the_parquet_file(tmp_path):
    store = made()
    save_store(store, tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 8)
    flat = table.column("embedding").combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(-1, 8).astype("f4"), store.embeddings)
    assert table.column("race").to_pylist()[:3] == [None, "schön", "b"]
    assert table.column("gender").null_count == (store.labels["gender"] == -1).sum()


LABELS = st.sampled_from(["U", "f2", "f4", "f8", "i1", "i8", "u1", "u8", "b"]).flatmap(
    lambda kind: arrays.arrays(
        np.dtype("U3") if kind == "U" else kind, 4,
        elements=st.text("aé\U0001f600", max_size=3) if kind == "U" else None,
    )
)  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.sampled_from(["a", "ü", "embedding.x", "list", "z z"]), LABELS))
def test_any_labels_come_back(tmp_path, labels):
    store = EmbeddingStore(np.eye(4), labels)
    save_store(store, tmp_path / "a.parquet", overwrite=True)
    same(store, EmbeddingStore.open(tmp_path / "a.parquet"))


def test_a_store_is_replaced_whole_or_not_at_all(tmp_path):
    store, other = made(), made(100)
    for form in FORMS:
        path = tmp_path / form
        save_store(store, path)
        with pytest.raises(InputError, match="must not exist yet"):
            save_store(other, path)
        same(store, EmbeddingStore.open(path))
        save_store(other, path, overwrite=True)
        same(other, EmbeddingStore.open(path))
    assert sorted(os.listdir(tmp_path)) == sorted(FORMS)
    (tmp_path / "shards" / "mine.txt").write_text("not to be lost")
    with pytest.raises(InputError, match="'mine.txt' too"):
        save_store(store, tmp_path / "shards", overwrite=True)
    with pytest.raises(InputError, match="must end in"):
        check_store_path(tmp_path / "a.csv", force=False)
    (tmp_path / "old").write_text("a file without a suffix, as stores once were")
    with pytest.raises(InputError, match="must end in .* a file without a suffix"):
        check_store_path(tmp_path / "old", force=True)
    save_store(store, tmp_path / "LOUD.H5")
    assert is_store(tmp_path / "LOUD.H5")
    same(store, EmbeddingStore.open(tmp_path / "LOUD.H5"))
    with pytest.raises(InputError, match="left out for one file"):
        check_store_path(tmp_path / "a.h5", force=False, rows_per_shard=5)
    with pytest.raises(InputError, match="label of the name"):
        bad = EmbeddingStore(np.eye(2), {"embedding": [1, 2]})
        save_store(bad, tmp_path / "c.parquet")
    assert not (tmp_path / "c.parquet").exists()


def test_export_embeddings(tmp_path, capsys):
    made().save(tmp_path / "first.h5")
    EmbeddingStore.open(tmp_path / "first.h5").save(tmp_path / "a.h5")  # columns by their names

    def run(*arguments):
        code = run_command("export-embeddings", [str(a) for a in arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    shards, table = tmp_path / "shards", tmp_path / "a.parquet"
    assert run(tmp_path / "a.h5", "-o", shards, "--rows-per-shard", 100)[0] == 0
    assert len(list(shards.glob("*.h5"))) == 5
    assert run(shards, "-o", table) == (
        0,
        f"rows         500, 8 wide, float16\nstore        {table}\n",
    )
    assert run(table, "-o", tmp_path / "back.h5")[0] == 0
    assert (tmp_path / "back.h5").read_bytes() == (tmp_path / "a.h5").read_bytes()
    for arguments, sentence in (
        ((table, "-o", table), "must not be the store that is read"),
        ((table, "-o", shards), "must not exist yet"),
        ((table, "-o", tmp_path / "c.npy"), "must end in"),
        ((table, "-o", tmp_path / "c.h5", "--rows-per-shard", 5), "--rows-per-shard"),
        ((tmp_path / "none.h5", "-o", tmp_path / "c.h5"), "no such file"),
        ((tmp_path, "-o", tmp_path / "c.h5"), "without manifest.json"),
    ):
        code, said = run(*arguments)
        assert code == 2 and sentence in said and said.count("\n") == 1, said


def test_damaged_and_foreign_parquet_is_one_sentence(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"embedding": pa.array(np.eye(3).tolist())}), path)
    assert not is_store(path)
    with pytest.raises(InputError, match="import-embeddings"):
        EmbeddingStore.open(path)
    save_store(made(), path, overwrite=True)
    content = path.read_bytes()
    assert is_store(path)
    rng, refused = np.random.default_rng(0), 0
    for trial in range(150):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 1 + trial % 3):
            damaged[place] ^= 1 << rng.integers(8)
        if trial % 5 == 0:
            del damaged[rng.integers(len(content)) :]
        path.write_bytes(damaged)
        try:
            found = EmbeddingStore.open(path, verify=True)
        except InputError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            same_rows = np.array_equal(np.asarray(found.embeddings), made().embeddings)
            assert same_rows or len(found) != 500
    assert refused > 100


@pytest.mark.parametrize(
    "says",
    [
        "[]", "{}", '{"attributes": {}, "labels": {"a": "O"}}',
        '{"attributes": {"embedder": [1]}, "labels": {}}',
        '{"attributes": {}, "labels": {"nothing": "i8"}}',
        '{"attributes": {}, "labels": {"text": "i8"}}',
        '{"attributes": {}, "labels": {"embedding": "f2"}}', "\\ud800", '{"attributes": 5}',
    ],
)  # fmt: skip
def test_crafted_metadata_is_one_sentence(tmp_path, says):
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.eye(3, dtype="f4").reshape(-1)), 3)
    table = pa.table({"embedding": lists, "text": ["a", "b", None]})
    crc = {"kerasmlp": says, "kerasmlp_crc32": "00000000"}
    pq.write_table(table.replace_schema_metadata(crc), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="a damaged footer"):
        EmbeddingStore.open(tmp_path / "a.parquet")
    parquet_rows._keep_crc(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="a damaged or foreign one|embedder"):
        EmbeddingStore.open(tmp_path / "a.parquet")


def test_gaps_in_rows_are_refused(tmp_path):
    save_store(EmbeddingStore(np.eye(3, dtype="f4")), tmp_path / "a.parquet")
    schema = pq.read_schema(tmp_path / "a.parquet")
    values = pa.array([[1.0, 0, 0], None, [0, 0, 1]], pa.list_(pa.float32(), 3))
    pq.write_table(pa.Table.from_arrays([values], schema=schema), tmp_path / "a.parquet")
    parquet_rows._keep_crc(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="rows without a list"):
        EmbeddingStore.open(tmp_path / "a.parquet")
    assert json.loads(schema.metadata[b"kerasmlp"])["labels"] == {}


def test_no_file_is_called_what_it_is_not(tmp_path):
    store = made()
    for name in ("a.parquet", "a.CSV", "a.npz"):
        with pytest.raises(InputError, match="must end in .h5 or .hdf5"):
            store.save(tmp_path / name)
    with pytest.raises(InputError, match="must end in .h5 or .hdf5"):
        ImageStore(np.zeros((1, 4, 4, 3), np.uint8)).save(tmp_path / "a.parquet")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("form", FORMS)
def test_copies_and_extractions_are_of_any_form(tmp_path, form, capsys):
    made().save(tmp_path / "a.h5")
    arguments = ["a.h5", "--threshold", "0.99", "--write-groups", form]
    arguments = [str(tmp_path / a) if a in ("a.h5", form) else a for a in arguments]
    assert run_command("leaks", arguments) == 0
    found = EmbeddingStore.open(tmp_path / form, verify=True)
    np.testing.assert_array_equal(found.embeddings, EmbeddingStore.open(tmp_path / "a.h5").values)
    arguments[-1] = str(tmp_path / "new.csv")
    capsys.readouterr()
    assert run_command("leaks", arguments) == 2
    assert "must end in" in capsys.readouterr().err

    target = tmp_path / f"new_{form}"
    with PartialStore(target, settings={}, width=8) as partial:
        partial.append({"key": "a.jpg"}, np.eye(8, dtype="f4")[2])
        partial.finish({"path": ["a.jpg"]}, StoreInfo())
    assert is_store(target) and EmbeddingStore.open(target).labels["path"] == ["a.jpg"]
    with pytest.raises(InputError, match="must end in"):
        PartialStore(tmp_path / "new.npy", settings={}, width=8)
    assert not (tmp_path / "new.npy.partial").exists()


@pytest.mark.parametrize("name", ["race", "embedding.x"])
def test_a_text_that_all_rows_share_is_not_unfolded(tmp_path, name):
    texts = ["é", "", "é", "b" * 40_000]
    store = EmbeddingStore(np.eye(4, dtype="f4"), {name: texts})
    save_store(store, tmp_path / "a.parquet")
    same(store, EmbeddingStore.open(tmp_path / "a.parquet"))
    table = pq.read_table(tmp_path / "a.parquet")
    crowd = pa.concat_tables([table.slice(3), *[table.slice(0, 1)] * 3999]).combine_chunks()
    pq.write_table(crowd, tmp_path / "b.parquet", use_dictionary=[name])
    parquet_rows._keep_crc(tmp_path / "b.parquet")
    assert (tmp_path / "b.parquet").stat().st_size < 1_000_000
    with pytest.raises(InputError, match=f"640,000,000 bytes for `{name}`"):
        EmbeddingStore.open(tmp_path / "b.parquet")


@pytest.mark.parametrize("form", FORMS)
def test_most_bytes_hold_for_each_form(tmp_path, form):
    save_store(made(), tmp_path / form, rows_per_shard=100 if form == "shards" else None)
    size = made().embeddings.nbytes + sum(v.nbytes for v in made().labels.values())
    assert len(EmbeddingStore.open(tmp_path / form, most_bytes=5 * size)) == 500
    with pytest.raises(InputError, match="must take at most"):
        EmbeddingStore.open(tmp_path / form, most_bytes=size // 2)
