"""Large arrays stay in their files while they are imported; the store is the same to the bit."""

import h5py
import numpy as np
import pytest

from kerasmlp import import_embeddings
from kerasmlp.cli import run_command
from kerasmlp.data.importing.embedding_files import ColumnNames
from kerasmlp.data.sources import large_arrays
from kerasmlp.data.stores import embedding_store
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.data.stores.store_paths import save_store
from kerasmlp.data.stores.streamed_rows import StreamedRows
from kerasmlp.utils.checks import InputError

GENDERS = np.arange(300) % 2
FORMS = ("npy", "plain.h5", "store.h5", "shards", "store.parquet", "foreign.parquet")


def rows(dtype, norm):
    x = np.random.default_rng(0).normal(size=(300, 12))
    return (x / np.linalg.norm(x, axis=1, keepdims=True) * norm).astype(dtype)


def written(folder, form, x):
    path = folder / (f"a.{form}" if form == "npy" else form)
    if form == "npy":
        np.save(path, x)
    elif form == "plain.h5":
        with h5py.File(path, "w") as file:
            file["features"], file["sex"] = x, GENDERS
    elif form == "foreign.parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        lists = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
        pq.write_table(pa.table({"sex": GENDERS, "emb": lists}), path, row_group_size=70)
    else:
        norm = bool(abs(np.linalg.norm(x[0].astype("f4")) - 1) < 0.01)
        store = EmbeddingStore(x, {"gender": GENDERS}, StoreInfo("made", normalized=norm))
        save_store(store, path, rows_per_shard=None if path.suffix else 70)
    return path


@pytest.fixture
def all_are_large(monkeypatch):
    def switch():
        monkeypatch.setattr(embedding_store, "STREAMED_BYTES", 0)
        monkeypatch.setattr(large_arrays, "STREAMED_BYTES", 0)

    return switch


@pytest.mark.parametrize("how", [{}, {"normalize": True}, {"float16": True}], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_store(tmp_path, all_are_large, form, dtype, how):
    path, said = written(tmp_path, form, rows(dtype, 3 if how else 1)), []
    whole = import_embeddings(path, **how, say=said.append)
    all_are_large()
    streamed = import_embeddings(path, **how, say=said.append)
    assert isinstance(streamed.embeddings, StreamedRows)
    assert isinstance(whole.embeddings, np.ndarray)
    assert streamed.digest() == whole.digest() and streamed.storage_dtype == whole.storage_dtype
    assert streamed.info.normalized == whole.info.normalized == (how != {"float16": True})
    assert streamed.info.import_report == whole.info.import_report
    assert said[: len(said) // 2] == said[len(said) // 2 :]
    for number, store in enumerate((streamed, whole)):
        save_store(store, tmp_path / f"{number}.h5")
        saved = EmbeddingStore.open(tmp_path / f"{number}.h5", verify=True, streamed=False)
        assert saved.digest() == whole.digest()
    if form != "npy":
        np.testing.assert_array_equal(streamed.labels["gender"], GENDERS)


@pytest.mark.parametrize("how", [{}, {"normalize": True}, {"float16": True}], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["npy", "plain.h5", "foreign.parquet"])
def test_what_is_not_finite_is_refused(tmp_path, all_are_large, form, value, dtype, how):
    x, said = rows(dtype, 1), []
    x[[0, 123]] = value
    path = written(tmp_path, form, x)
    for large in (False, True):
        if large:
            all_are_large()
        with pytest.raises(InputError, match="finite numbers|half precision") as error:
            import_embeddings(path, **how)
        said.append(str(error.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("form", ["npy", "plain.h5", "foreign.parquet"])
def test_bad_rows_get_the_same_sentence(tmp_path, all_are_large, form):
    def refusals(**how):
        found = []
        for value in (np.nan, np.inf, 0):
            x = rows("float32", 1)
            x[123] = value
            path = written(tmp_path, form, x)
            with pytest.raises(InputError) as error:
                import_embeddings(path, normalize=True, **how)
            found.append(str(error.value))
        x = rows("float32", 1e6)
        with pytest.raises(InputError, match="must fit half precision") as error:
            import_embeddings(written(tmp_path, form, x), float16=True, **how)
        return [*found, str(error.value)]

    whole = refusals()
    all_are_large()
    assert refusals() == whole and "row 123" in whole[0]


def test_what_is_no_embedding_is_found_out(tmp_path, all_are_large):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["probs"], file["u"] = np.full((300, 4), 0.25, "f4"), rows("float32", 1)
    all_are_large()
    store = import_embeddings(path)
    assert store.info.import_report["sources"][0]["embedding"]["from"] == "u"
    named = import_embeddings(path, columns=ColumnNames(embedding="probs"))
    assert named.width == 4 and not named.info.normalized


def test_chunked_and_turned_files_are_read_whole(tmp_path, all_are_large):
    all_are_large()
    np.save(tmp_path / "a.npy", np.asfortranarray(rows("float32", 1)))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=rows("float16", 1), chunks=(50, 12), compression="gzip")
    for name in ("a.npy", "a.h5"):
        assert isinstance(import_embeddings(tmp_path / name).embeddings, np.ndarray)


def test_commands_take_and_write_each_form(tmp_path, capsys):
    x = written(tmp_path, "npy", rows("float16", 1))
    assert run_command("import-embeddings", [str(x), "-o", str(tmp_path / "a.parquet")]) == 0
    for old, new in (("a.parquet", "b"), ("b", "c.h5")):
        arguments = [str(tmp_path / old), "-o", str(tmp_path / new)]
        assert run_command("import-embeddings", arguments) == 0
    digests = {EmbeddingStore.open(tmp_path / n).digest() for n in ("a.parquet", "b", "c.h5")}
    assert len(digests) == 1
    assert run_command("import-embeddings", [str(x), "-o", str(tmp_path / "b")]) == 2
    assert "must not exist yet" in capsys.readouterr().err
