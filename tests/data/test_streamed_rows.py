"""Rows that stay in their files are those that are read whole, to the bit."""

import gc
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from forked import fresh_python
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasmlp import EmbeddingStore, StoreInfo, import_embeddings
from kerasmlp.data.row_hashes import row_hashes
from kerasmlp.data.sources import large_arrays
from kerasmlp.data.stores.store_folder import MANIFEST, shard_name, write_manifest
from kerasmlp.data.stores.store_paths import save_store
from kerasmlp.data.stores.streamed_rows import FilePart, HeldPart, StreamedRows, joined_rows
from kerasmlp.data.stores.watched_file import WatchedFile
from kerasmlp.utils.checks import InputError


def unit_rows(rows, width=16, seed=0):
    x = np.random.default_rng(seed).normal(size=(rows, width))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def of_file(folder, values, name="rows"):
    path = folder / name
    path.write_bytes(b"head" + values.tobytes())
    with open(path, "rb") as file:
        return FilePart(WatchedFile(path, file.fileno()), 4, values.shape, values.dtype)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Parts of 5, 1 and 20 rows, and all as an array."""
    folder, whole = tmp_path_factory.mktemp("parts"), unit_rows(26, 6).astype("float16")
    some = np.split(whole, [5, 6])
    files = of_file(folder, some[0], "a"), HeldPart(some[1]), of_file(folder, some[2], "b")
    return files, whole.astype(np.float32)


def keys(rows):
    numbers = st.lists(st.integers(-rows, rows - 1), max_size=60).map(lambda v: np.array(v, int))
    ends = st.none() | st.integers(-40, 40)
    ranges = st.builds(slice, ends, ends, st.sampled_from([None, 1, 2, -1]))
    masks = st.lists(st.booleans(), min_size=rows, max_size=rows).map(np.array)
    return numbers | ranges | masks | st.integers(-rows, rows - 1)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_indices_give_what_an_array_gives(parts, data):
    rows, whole = StreamedRows(parts[0]), parts[1]
    if data.draw(st.booleans()):
        key = data.draw(keys(26).filter(lambda k: np.ndim(k) > 0))
        rows, whole = rows.subset(key), whole[key]
        assert rows.shape == whole.shape and isinstance(rows, StreamedRows)
    key = data.draw(keys(len(whole)) if len(whole) else st.just(slice(None)))
    found = rows[key]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, whole[key])
    np.testing.assert_array_equal(np.asarray(rows), whole)
    np.testing.assert_array_equal(rows.held()[key], whole[key])
    blocks = list(rows.blocks(7))
    assert [start for start, _ in blocks] == list(range(0, len(whole), 7))
    np.testing.assert_array_equal(np.concatenate([whole[:0], *(b for _, b in blocks)]), whole)


def test_of_single_precision_and_joined(parts, tmp_path):
    rows, whole = StreamedRows(parts[0]), parts[1]
    other = unit_rows(4, 6, seed=1).astype("float32")
    joined = joined_rows([rows.subset(np.array([25, 0])), other])
    assert isinstance(joined, StreamedRows) and joined.stored_dtype == np.float32
    np.testing.assert_array_equal(joined, np.concatenate([whole[[25, 0]], other]))
    single = StreamedRows([of_file(tmp_path, other)])
    np.testing.assert_array_equal(single[[3, 3, 0]], other[[3, 3, 0]])
    np.testing.assert_array_equal(row_hashes(single), row_hashes(other))
    with pytest.raises(IndexError):
        rows[[26]]


def saved(path, rows=3000, dtype="float16", **labels):
    labels |= {"gender": np.arange(rows) % 3 - 1, "group": [f"é{k % 7}" for k in range(rows)]}
    store = EmbeddingStore(unit_rows(rows).astype(dtype), labels, StoreInfo("made.onnx"))
    store.save(path)
    return store


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_streamed_store_is_the_store(tmp_path, dtype):
    saved(tmp_path / "a.h5", dtype=dtype)
    store, streamed = (
        EmbeddingStore.open(tmp_path / "a.h5", verify=True, streamed=s) for s in (None, True)
    )
    assert isinstance(streamed.embeddings, StreamedRows) and repr(streamed) == repr(store)
    assert isinstance(store.embeddings, np.ndarray)
    assert streamed.digest() == store.digest() and streamed.storage_dtype == dtype
    some = np.array([2999, 0, 7])
    assert streamed.subset(some).digest() == store.subset(some).digest()
    streamed.save(tmp_path / "b.h5")
    assert (tmp_path / "b.h5").read_bytes() == (tmp_path / "a.h5").read_bytes()
    streamed.with_labels({}).save(tmp_path / "c.h5")
    assert EmbeddingStore.open(tmp_path / "c.h5").labels == {}
    os.truncate(tmp_path / "a.h5", 4000)  # whatever happens to the file, there is no crash
    with pytest.raises(InputError, match=r"a\.h5` must stay as it is .* 4,000 bytes instead of"):
        streamed.embeddings[:]


def changed_later(path):
    """Writes other bytes of as many into a file, in place."""
    when = path.stat().st_mtime_ns
    with open(path, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(bytes(100))
    os.utime(path, ns=(when + 10**9, when + 10**9))


@pytest.mark.parametrize("form", ["a.h5", "a.parquet", "a.npy"])
def test_a_file_that_is_written_to_meanwhile_is_refused(tmp_path, form, monkeypatch):
    path = tmp_path / form
    if form == "a.npy":
        monkeypatch.setattr(large_arrays, "STREAMED_BYTES", 0)
        np.save(path, unit_rows(3000).astype("float16"))
        rows = import_embeddings(path).embeddings
    else:
        save_store(saved(tmp_path / "first.h5"), path)
        rows = EmbeddingStore.open(path, streamed=True).embeddings
    assert isinstance(rows, StreamedRows) and rows[[5, 2000]].shape == (2, 16)
    if form == "a.parquet":
        rows.parts[0]._held = -1, None  # else the group that is in memory is asked
    changed_later(path)
    for key in (slice(0, 5), [5, 2000]):
        with pytest.raises(InputError, match=rf"{form}` must stay as it is .* written"):
            rows[key]


def test_an_atomic_replacement_leaves_the_rows_of_before(tmp_path):
    saved(tmp_path / "a.h5")
    rows = EmbeddingStore.open(tmp_path / "a.h5", streamed=True).embeddings
    before = np.asarray(rows)
    EmbeddingStore(unit_rows(3000, seed=9)).save(tmp_path / "a.h5", overwrite=True)
    np.testing.assert_array_equal(rows, before)


def test_few_files_are_open_whatever_the_number_of_shards(tmp_path):
    store = saved(tmp_path / "a.h5", rows=200)
    save_store(store, tmp_path / "shards", rows_per_shard=1)
    before = len(os.listdir("/proc/self/fd"))
    found = EmbeddingStore.open(tmp_path / "shards", streamed=True)
    assert found.digest() == store.digest()
    assert len(os.listdir("/proc/self/fd")) < before + 80
    with ThreadPoolExecutor(8) as pool:  # that close each other's files
        draws = [np.random.default_rng(k).permutation(200) for k in range(16)]
        for draw, rows in zip(draws, pool.map(found.embeddings.__getitem__, draws), strict=True):
            np.testing.assert_array_equal(rows, store.embeddings[draw])
    for number in (0, 199):  # one of them is closed, one is open
        EmbeddingStore(unit_rows(1, seed=9)).save(tmp_path / "other.h5", overwrite=True)
        os.replace(tmp_path / "other.h5", tmp_path / "shards" / shard_name(number))
    with pytest.raises(InputError, match="must stay as it is"):
        for number in (*range(1, 199), 0, *range(1, 199), 199):
            found.embeddings[number]
    del found
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_limit_of_files_is_no_damage(tmp_path):
    saved(tmp_path / "a.h5", rows=3)
    code = (
        "import resource, sys\n"
        "from kerasmlp import EmbeddingStore\n"
        "EmbeddingStore.open(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "EmbeddingStore.open(sys.argv[1])"
    )
    command = [fresh_python(), "-c", code, tmp_path / "a.h5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "OSError: [Errno 24] Too many open files" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "key",
    [
        (3, 5), (np.int64(-1), 2), (3, slice(1, 4)), (slice(2, 9), 1), ([1, 20], [0, 3]),
        ([1, 20, 7], slice(0, 2)), (slice(None), [1, 3]), (4,), ([5, 2],),
    ],
    ids=str,
)  # fmt: skip
def test_two_indices_are_those_of_an_array(parts, key):
    rows, whole = StreamedRows(parts[0]), parts[1]
    np.testing.assert_array_equal(rows[key], whole[key])


def test_rows_that_are_none_are_refused_although_they_stay_where_they_are(tmp_path):
    store = saved(tmp_path / "a.h5")
    content = bytearray((tmp_path / "a.h5").read_bytes())
    at = content.index(store.embeddings[1500].astype("float16").tobytes())
    content[at : at + 2] = np.array([np.nan], "float16").tobytes()
    (tmp_path / "a.h5").write_bytes(content)
    for verify in (False, True):
        said = []
        for streamed in (False, True):
            with pytest.raises(InputError) as error:
                EmbeddingStore.open(tmp_path / "a.h5", verify=verify, streamed=streamed)
            said.append(str(error.value))
        assert said[0] == said[1] and ("checksums" if verify else "finite") in said[0]


def folder_of(path, store, ends):
    """A folder of shards as another program would write it."""
    path.mkdir()
    rows = {}
    for number, some in enumerate(np.split(np.arange(len(store)), ends)):
        store.subset(some).save(path / shard_name(number))
        rows[shard_name(number)] = len(some)
    write_manifest(path, rows, store.info)


@pytest.mark.parametrize("streamed", [None, True])
def test_shards_are_one_store(tmp_path, streamed):
    store = saved(tmp_path / "a.h5", years_known=np.array([0.5] * 1500 + [np.nan] * 1500))
    folder_of(tmp_path / "shards", store, [1, 1000, 2990])
    found = EmbeddingStore.open(tmp_path / "shards", verify=True, streamed=streamed)
    assert found.digest() == store.digest() and found.info == store.info
    assert found.name == tmp_path / "shards" and found.storage_dtype == np.float16
    assert isinstance(found.embeddings, StreamedRows) == bool(streamed)


def test_a_damaged_folder_is_one_sentence(tmp_path):
    store = saved(tmp_path / "a.h5", rows=100)
    folder = tmp_path / "shards"
    folder_of(folder, store, [40])
    good = json.loads((folder / MANIFEST).read_text())

    def said(change=None, **parts):
        content = change if change is not None else json.dumps(good | parts)
        (folder / MANIFEST).write_text(content)
        with pytest.raises(InputError) as error:
            EmbeddingStore.open(folder)
        return str(error.value)

    first, second = good["shards"]
    assert "must be a JSON file" in said(change="{") or "JSON" in said(change="{")
    assert "each once" in said(shards=[first, first], rows=80)
    assert "each once" in said(rows=101)
    assert "each once" in said(shards=[], rows=1)
    assert "an .h5 file in the folder" in said(shards=[first | {"file": "../a.h5"}], rows=40)
    assert "no such file" in said(shards=[first, second | {"file": "000007.h5"}])
    assert "41 rows with labels" in said(shards=[first | {"rows": 41}, second], rows=101)
    assert "made.onnx" in said(info=good["info"] | {"embedder": "other.onnx"})
    assert "a flag" in said(info={"embedder": [1]})
    store.subset(np.arange(60)).with_labels({}).save(folder / "000001.h5", overwrite=True)
    assert "no labels" in said(change=json.dumps(good))
    store.subset(np.arange(60)).save(folder / "000001.h5", overwrite=True)
    with pytest.raises(InputError, match="a shard of another store"):
        EmbeddingStore.open(folder)
    labels = {k: v[40:][::-1] for k, v in store.labels.items()}
    other = store.subset(np.arange(40, 100)).with_labels(labels)
    other.save(folder / "000001.h5", overwrite=True)
    with pytest.raises(InputError, match="or of other labels"):
        EmbeddingStore.open(folder)
    older = [{k: v for k, v in shard.items() if k != "crc32"} for shard in good["shards"]]
    (folder / MANIFEST).write_text(json.dumps(good | {"shards": older}))
    assert len(EmbeddingStore.open(folder)) == 100
    (folder / MANIFEST).unlink()
    with pytest.raises(InputError, match="a folder without manifest.json"):
        EmbeddingStore.open(folder)


_PEAK = """
import sys
from kerasmlp import EmbeddingStore
from kerasmlp.data.row_hashes import row_hashes

store = EmbeddingStore.open(sys.argv[1], verify=True, streamed=True)
print(store.digest(), row_hashes(store.embeddings).sum())
with open("/proc/self/status") as file:
    print(next(line for line in file if line.startswith("VmHWM")).split()[1])
"""


def test_memory_does_not_grow_with_the_rows(tmp_path):
    peaks = []
    for rows in (20_000, 200_000):
        block = EmbeddingStore(unit_rows(1000, 256).astype("float16"))
        block.subset(np.arange(rows) % 1000).save(tmp_path / f"{rows}.h5")
        done = subprocess.run(
            [fresh_python(), "-c", _PEAK, tmp_path / f"{rows}.h5"],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout.split()[-1]) << 10)
    assert peaks[1] - peaks[0] < 60 << 20  # of 205 MB in single precision
