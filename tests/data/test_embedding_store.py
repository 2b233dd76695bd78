import ast
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_sets import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kerasmlp
from kerasmlp.data.sample import SAMPLE
from kerasmlp.data.stores.checksums import checksum
from kerasmlp.data.stores.embedding_store import EmbeddingStore, StoreInfo
from kerasmlp.data.stores.hdf5_writing import write_hdf5
from kerasmlp.utils.checks import InputError

ERROR = re.compile(r"`[^`]+` (must|needs) .+\. Received: .+", re.DOTALL)
INFO = StoreInfo(
    embedder="r50.onnx",
    embedder_sha256="a" * 64,
    detector="scrfd.onnx",
    min_det_score=0.5,
    source="tëst",
    licence="CC BY 4.0",
    removal_report={"inputs": 9, "kept": 6, "removed": {"no face": 3}},
)


def unit_rows(rows, width=16, seed=0):
    values = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def store():
    labels = {
        "age_years": [1.5, np.nan, 30, 40, 50, 130],
        "gender": [0, 1, -1, 0, 1, 1],
        "age_group": ["0-2", "", "30-39", "40-49", "50-59", "more than 70"],
        "group": ["a", "a", "b", "c", "d", "e"],
        "fold": [0, 1, 2, 3, 4, 0],
        "name": ["Zoë", "", "名前", "שם", "🙂", "a\tb\nc"],
    }
    return EmbeddingStore(unit_rows(6), labels, INFO)


def assert_same(left, right):
    np.testing.assert_array_equal(left.embeddings, right.embeddings)
    assert left.labels.keys() == right.labels.keys()
    for key, column in left.labels.items():
        np.testing.assert_array_equal(column, right.labels[key])
    assert left.info == right.info and left.storage_dtype == right.storage_dtype
    assert left.digest() == right.digest()


def run_python(code, *arguments):
    root = Path(kerasmlp.__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=60,
    )


def test_round_trip_in_a_fresh_process(store, tmp_path):
    path = tmp_path / "a.h5"
    store.save(path)
    assert_same(EmbeddingStore.open(path), store)
    code = (
        "import sys\nfrom kerasmlp import EmbeddingStore\n"
        "s = EmbeddingStore.open(sys.argv[1]); print(s.digest(), s.labels['name'].tolist())\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    result = run_python(code, path)
    assert result.stdout.strip() == f"{store.digest()} {store.labels['name'].tolist()}"


def test_file_is_plain_for_other_programs(store, tmp_path):
    store.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        rows = file["embedding"]
        assert rows.chunks is None and rows.compression is None and rows.dtype == np.float32
        np.testing.assert_array_equal(rows[:], store.embeddings)
        assert file["labels/name"].asstr()[:].tolist() == store.labels["name"].tolist()


def test_many_rows_in_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("kerasmlp.data.stores.row_reader._TASK_BYTES", 1000)
    store = EmbeddingStore(unit_rows(1003, 24), {"group": np.arange(1003)})
    store.save(tmp_path / "a.h5")
    assert_same(EmbeddingStore.open(tmp_path / "a.h5"), store)


def test_half_precision_keeps_its_values(tmp_path):
    half = unit_rows(2000, 100).astype(np.float16)
    store = EmbeddingStore(half)
    store.save(tmp_path / "a.h5")
    again = EmbeddingStore.open(tmp_path / "a.h5")
    assert_same(again, store)
    assert again.embeddings.dtype == np.float32 and again.storage_dtype == np.float16
    assert (tmp_path / "a.h5").stat().st_size < 2000 * 100 * 2 + 10_000


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_labels_come_back(tmp_path, data):
    rows = data.draw(st.integers(1, 9))

    def column(values):
        return st.lists(values, min_size=rows, max_size=rows)

    text = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
    labels = {
        "name": data.draw(column(text)),
        "city": data.draw(column(text)),
        "weight": data.draw(column(st.none() | st.floats(width=32))),
        "height": data.draw(column(st.none() | st.floats(width=32))),
        "group": data.draw(column(st.integers(-1, 2**40)) | column(text)),
        "set": data.draw(column(st.integers(-1, 2**40)) | column(text)),
        "age_years": data.draw(column(st.none() | st.floats(0, 130, width=32))),
    }
    store = EmbeddingStore(unit_rows(rows), labels)
    store.save(tmp_path / "a.h5", overwrite=True)
    again = EmbeddingStore.open(tmp_path / "a.h5")
    assert_same(again, store)
    # numpy's text drops NUL at the end
    for key in ("name", "city"):
        expected = [(v or "").rstrip("\0") for v in labels[key]]
        if any(v is not None for v in labels[key]):
            assert again.labels[key].tolist() == expected


@pytest.mark.parametrize(
    ("rows", "labels", "text"),
    [
        (np.full((3, 4), np.nan), {}, "must hold finite numbers only. Received: NaN .* 3 rows"),
        (unit_rows(3) * 2, {}, "must hold embeddings of norm 1.* Received: norm 2 in row 0"),
        (np.zeros((0, 4)), {}, "at least one row. Received: shape \\(0, 4\\)"),
        (np.zeros((3, 0)), {}, "at least one row"),
        (np.zeros(3), {}, "numeric array"),
        (np.array([["a"]]), {}, "numeric array"),
        (np.array([[None]]), {}, "numeric array"),
        (unit_rows(3), {"age_years": [1, 2, 131]}, "ages of 0 to 130 .* 131.0 in row 2"),
        (unit_rows(3), {"age_years": [1, -1, 2]}, "ages of 0 to 130 .* -1.0 in row 1"),
        (unit_rows(3), {"age_years": ["1", "b", "2"]}, "must hold numbers in label 'age_years'"),
        (unit_rows(3), {"gender": [0, 1, 2]}, "0 .male., 1 .female. .* 2 in row 2"),
        (unit_rows(3), {"gender": [0, 1, 0.5]}, "0 .male., 1 .female. .* 0.5 in row 2"),
        (unit_rows(3), {"gender": ["m", "f", ""]}, "must hold numbers in label 'gender'"),
        (unit_rows(3), {"group": [0, 1]}, "must hold 3 values of label 'group'.*\\(2,\\)"),
        (unit_rows(3), {"group": [0, 1.5, 2]}, "whole numbers or text, in label 'group'"),
        (unit_rows(3), {"x": [[1], [2], [3]]}, "must hold 3 values of label 'x'"),
        (unit_rows(3), {"x": [{}, [], None]}, "must hold numbers or text in label 'x'"),
        (unit_rows(3), {"x": [1j, 2, 3]}, "must hold numbers or text in label 'x'"),
        (unit_rows(3), {"x": ["\ud800", "", ""]}, "valid Unicode text"),
        (unit_rows(3), {"x": [b"\xff", b"", b""]}, "must hold UTF-8 text in label 'x'"),
        (unit_rows(3), {"a/b": [1, 2, 3]}, "names that are words without '/'"),
        (unit_rows(3), {"": [1, 2, 3]}, "names that are words without '/'"),
    ],
)
def test_bad_data(rows, labels, text):
    with pytest.raises(InputError, match=text) as caught:
        EmbeddingStore(rows, labels, name="a.h5")
    assert ERROR.fullmatch(str(caught.value)) and str(caught.value).startswith("`a.h5` must")


def test_a_row_of_zeros_is_one_of_a_table_and_no_embedding_of_norm_1():
    rows = unit_rows(3) * 7
    rows[1] = 0
    table = EmbeddingStore(rows, info=StoreInfo(normalized=False))
    assert not table.info.normalized and not table.embeddings[1].any()
    with pytest.raises(InputError, match="must hold embeddings of norm 1"):
        EmbeddingStore(np.array([[1.0], [0.0], [1.0]]))


def test_subset(store):
    chosen = store.subset(store.labels["gender"] == 1)
    assert chosen.labels["name"].tolist() == ["", "🙂", "a\tb\nc"]
    assert store.subset([5, 0, 0]).labels["fold"].tolist() == [0, 0, 0]
    for indices, text in [
        ([], "at least one row"),
        ([6], "must be rows of a store of 6"),
        ([0.5], "must be whole numbers"),
        ([True, False], "must be whole numbers"),
    ]:
        with pytest.raises(InputError, match=f"`indices` .*{text}"):
            store.subset(indices)


def test_concatenate(store):
    bare = EmbeddingStore(unit_rows(2, seed=1), {"extra": np.array([1, 2], np.uint8)})
    both = EmbeddingStore.concatenate([bare, store])
    assert len(both) == 8 and both.info.embedder_sha256 == "a" * 64 and both.info.source == "tëst"
    assert both.labels["extra"].tolist() == [1, 2, -1, -1, -1, -1, -1, -1]
    assert both.labels["name"][:3].tolist() == ["", "", "Zoë"]
    assert np.isnan(both.labels["age_years"][:2]).all()
    assert both.labels["gender"][:2].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (EmbeddingStore(unit_rows(2, 8)), "must have width 16, as `u.h5` has. Received: width 8"),
        (
            EmbeddingStore(unit_rows(2), info=StoreInfo("other", "b" * 64)),
            "embeddings of r50.onnx .sha256 a+., as `a.h5` does. .*those of other .sha256 b+",
        ),
        (EmbeddingStore(unit_rows(2), info=StoreInfo("other")), "must hold embeddings of r50"),
        (EmbeddingStore(unit_rows(2), info=StoreInfo(normalized=False)), "not normalised"),
        (EmbeddingStore(unit_rows(2), {"name": [1, 2]}), "must hold text in label 'name'"),
    ],
)
def test_concatenate_with_a_foreign_store(store, other, text):
    unknown = EmbeddingStore(unit_rows(2))
    with pytest.raises(InputError, match=text) as caught:
        EmbeddingStore.concatenate([unknown, store, other], names=["u.h5", "a.h5", "b.h5"])
    assert ERROR.fullmatch(str(caught.value)) and str(caught.value).startswith("`b.h5`")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (([3, -1], [0.5, -1.0], None), [3, np.nan, 0.5, -1, np.nan, np.nan]),
        ((None, [0.5, 1], [7, -1]), [np.nan, np.nan, 0.5, 1, 7, np.nan]),
        ((np.array([2**62 + 1, 1], np.uint64), [-1, 2**62]), [2**62 + 1, 1, -1, 2**62]),
        ((np.array([2**62 + 1, 1], np.uint64), None), [2**62 + 1, 1, -1, -1]),
        ((np.array([2**64 - 1, 1], np.uint64),), [2**64 - 1, 1]),
        ((["a", ""], None), ["a", "", "", ""]),
    ],
)
def test_joined_labels_keep_their_values(parts, expected):
    stores = [EmbeddingStore(unit_rows(2), {} if p is None else {"k": p}) for p in parts]
    column = EmbeddingStore.concatenate(stores).labels["k"]
    np.testing.assert_array_equal(column, expected)
    assert column.tolist() == expected or np.isnan(expected).any()  # as integers, exactly


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (([2**53 + 1, 1], [0.5, 1]), "`a` must hold whole numbers below 9,007.* row 0"),
        (([0.5, 1], [1, -(2**60)]), "`b` must hold whole numbers below 9,007.* row 1"),
        ((np.array([2**63, 1], np.uint64), [-1, 1]), "`a` must .* below 9,223.* row 0"),
        ((np.array([2**63, 1], np.uint64), None), "`a` must .* below 9,223.* row 0"),
    ],
)
def test_joined_labels_are_never_rounded(parts, text):
    stores = [EmbeddingStore(unit_rows(2), {} if p is None else {"k": p}) for p in parts]
    with pytest.raises(InputError, match=text):
        EmbeddingStore.concatenate(stores, names=["a", "b"])


def test_existing_file_is_kept(store, tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("precious")
    with pytest.raises(InputError, match=r"must not exist yet\. Received: an existing file"):
        store.save(path)
    assert path.read_text() == "precious"


def edited(store, path, edit):
    store.save(path, overwrite=True)
    with h5py.File(path, "a") as file:
        edit(file)
    return path


def replace_dataset(name, values):
    def edit(file):
        if name in file:
            del file[name]
        file[name] = values

    return edit


def _labels_are_a_dataset(file):
    del file["labels"]
    file["labels"] = np.zeros(6)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (
            lambda f: f.attrs.__setitem__("schema_version", 2),
            "must have schema version 1. Received: 2",
        ),
        (lambda f: f.attrs.__delitem__("format"), "must be an embedding store"),
        (lambda f: f.__delitem__("embedding"), "must hold rows of numbers as `embedding`"),
        (replace_dataset("embedding", np.zeros((0, 16))), "must hold rows of numbers"),
        (replace_dataset("embedding", np.zeros(6)), "must hold rows of numbers"),
        (replace_dataset("embedding", "text"), "must hold rows of numbers"),
        (replace_dataset("embedding", [[b"a"]]), "must hold rows of numbers"),
        (replace_dataset("embedding", unit_rows(5)), "must hold 5 values of label"),
        (replace_dataset("embedding", unit_rows(6) * np.nan), "must hold finite numbers only"),
        (replace_dataset("embedding", unit_rows(6) * 3), "must hold embeddings of norm 1"),
        (replace_dataset("labels/gender", np.full(6, 3)), "0 .male., 1 .female."),
        (replace_dataset("labels/deep/er", np.zeros(6)), "must hold 6 values of label 'deep'"),
        (replace_dataset("labels/text", np.array([b"\xff"] * 6)), "UTF-8 text in label 'text'"),
        (_labels_are_a_dataset, "must be a complete HDF5 file"),
        (lambda f: f.attrs.__setitem__("embedder", 3), "must hold text in attribute 'embedder'"),
        (lambda f: f.attrs.__setitem__("normalized", "yes"), "True or False in attribute"),
        (lambda f: f.attrs.__setitem__("removal_report", "{"), "a JSON object in attribute"),
        (lambda f: f.attrs.__setitem__("min_det_score", "high"), "a number in attribute"),
    ],
)
def test_file_of_wrong_content(store, tmp_path, edit, text):
    path = edited(store, tmp_path / "a.h5", edit)
    with pytest.raises(InputError, match=text) as caught:
        EmbeddingStore.open(path)
    assert ERROR.fullmatch(str(caught.value)) and str(path) in str(caught.value)


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "empty.h5").touch()
    for name in ("text.h5", "empty.h5", "missing.h5", "."):
        with pytest.raises(
            InputError, match=r"must be an? (complete )?HDF5 file|without manifest.json"
        ):
            EmbeddingStore.open(tmp_path / name)


def test_layouts_of_other_programs(store, tmp_path):
    def rewrite(file):
        values = file["embedding"][:]
        del file["embedding"]
        file.create_dataset("embedding", data=values.astype(">f4"), chunks=(4, 5), compression=3)
        del file["labels/name"]
        file["labels/name"] = store.labels["name"].tolist()  # variable length
        file["labels/big"] = np.arange(6, dtype=">i4")

    again = EmbeddingStore.open(edited(store, tmp_path / "a.h5", rewrite))
    assert again.labels.pop("big").dtype.isnative
    assert_same(again, store)


def test_every_truncation_is_noticed(store, tmp_path):
    path = tmp_path / "a.h5"
    store.save(path)
    content = path.read_bytes()
    cuts = sorted({*range(0, len(content), 97), *range(len(content) - 20, len(content))})
    for cut in cuts:
        path.write_bytes(content[:cut])
        with pytest.raises(InputError, match=r"HDF5 file|complete|empty"):
            EmbeddingStore.open(path)


def test_damaged_bytes_never_crash(store, tmp_path):
    """In a process of its own: HDF5 is C, and a crash should fail this test only."""
    path = tmp_path / "a.h5"
    store.save(path)
    code = """
import random, sys
from kerasmlp.utils.checks import InputError
from kerasmlp.data.stores.embedding_store import EmbeddingStore
path, noticed = sys.argv[1], 0
content = open(path, "rb").read()
for seed in range(400):
    rng = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 3, 30, 300])):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    open(path, "wb").write(damaged)
    try:
        store = EmbeddingStore.open(path)
        assert store.embeddings.ndim == 2 and store.digest()
    except InputError as error:
        assert "\\n" not in str(error) and "Received: " in str(error), str(error)
        noticed += 1
print(noticed)
"""
    result = run_python(code, path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) > 100


@pytest.mark.parametrize("half", [False, True])
def test_bits_that_turned_are_named(tmp_path, half):
    rows = unit_rows(1000, 1024).astype(np.float16 if half else np.float32)
    store = EmbeddingStore(rows, {"gender": np.arange(1000) % 2, "name": ["né"] * 1000})
    path = tmp_path / "a.h5"
    store.save(path)
    content = path.read_bytes()
    with h5py.File(path) as file:
        size = file["embedding"].attrs["checksums"][0]
        ends = {n: file[n].id.get_offset() + file[n].nbytes for n in ("embedding", "labels/name")}
    assert size == (512 if half else 256)
    for name, offset, came in (
        ("embedding", rows.nbytes - rows[0].nbytes * 300, f"rows {300 // size * size} to "),
        ("embedding", 1, f"rows {999 // size * size} to 999 of `embedding`"),
        ("labels/name", 3, "rows 0 to 999 of `labels/name`"),
    ):
        damaged = bytearray(content)
        damaged[ends[name] - offset] ^= 1
        path.write_bytes(damaged)
        message = f"a.h5` must hold what was written, by its checksums. Received: damage in {came}"
        with pytest.raises(InputError, match=re.escape(message)):
            EmbeddingStore.open(path, verify=True)
        assert EmbeddingStore.open(path).digest() != store.digest()
    damaged = bytearray(content)
    damaged[ends["embedding"] - rows.nbytes] ^= 1
    damaged[ends["embedding"] - 1] ^= 128
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=f"rows 0 to {size - 1} .*and in 1 other blocks of rows"):
        EmbeddingStore.open(path, verify=True)


def test_a_checksum_tells_what_sums_do_not():
    values = np.random.default_rng(0).integers(0, 256, 50_001).astype(np.uint8)
    seen = {checksum(values)}
    for first, second in ((0, 2048), (8, 8168), (8192, 16384), (0, 40_000)):
        swapped = values.copy()  # rows, pages
        swapped[first : first + 512], swapped[second : second + 512] = (
            values[second : second + 512], values[first : first + 512],
        )  # fmt: skip
        seen.add(checksum(swapped))
    for place in (0, 7, 8167, 8168, 49_999, 50_000):
        for bit in (0, 7):
            turned = values.copy()
            turned[place] ^= 1 << bit
            seen.add(checksum(turned))
    seen |= {checksum(values[:-1]), checksum(values[1:])}
    assert len(seen) == 1 + 4 + 12 + 2


def damage(content, rng):
    damaged, size = bytearray(content), len(content)
    kind = rng.choice(["bits", "bytes", "cut", "splice", "zeros", "swap"])
    start, other = rng.randrange(size), rng.randrange(size)
    length = rng.choice([16, 512, 4096])
    if kind == "bits":
        for _ in range(rng.choice([1, 1, 2, 8])):
            damaged[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        for _ in range(rng.choice([1, 30, 300])):
            damaged[rng.randrange(size)] = rng.randrange(256)
    elif kind == "cut":
        del damaged[start:]
    elif kind == "splice":
        damaged[start : start + length] = content[other : other + length]
    elif kind == "zeros":
        damaged[start : start + length] = bytes(min(length, size - start))
    else:
        first, second = sorted((start // 512 * 512, other // 512 * 512))
        damaged[first : first + 512] = content[second : second + 512]
        damaged[second : second + 512] = content[first : first + 512]
    return bytes(damaged)


def test_labels_of_other_rows_are_noticed(store, tmp_path):
    path, other = tmp_path / "a.h5", tmp_path / "other.h5"
    store.save(path)
    store.subset([5, 4, 3, 2, 1, 0]).save(other)
    with h5py.File(path, "r+") as file, h5py.File(other) as source:  # as blocks of a mixed backup
        del file["labels/gender"]
        source.copy("labels/gender", file["labels"])
    with pytest.raises(InputError, match="damage in rows 0 to 5 of `labels/gender`"):
        EmbeddingStore.open(path, verify=True)


def test_damage_is_refused_or_changes_nothing(tmp_path):
    labels = {"gender": np.arange(90) % 2, "name": [f"é{i}.jpg" for i in range(90)]}
    path, refused = tmp_path / "a.h5", 0
    for dtype in (np.float32, np.float16):
        store = EmbeddingStore(unit_rows(90, 64).astype(dtype), labels, INFO)
        store.save(path, overwrite=True)
        content = path.read_bytes()
        for seed in range(120):
            path.write_bytes(damage(content, random.Random(seed)))
            try:
                assert_same(EmbeddingStore.open(path, verify=True), store)
            except InputError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 200


def test_a_store_replaced_while_it_is_opened_is_one_of_the_two(tmp_path):
    path, other = tmp_path / "a.h5", tmp_path / "other.h5"
    stores = [
        EmbeddingStore(unit_rows(rows, 64, seed=rows), {"gender": np.full(rows, rows % 2)})
        for rows in (300, 301)
    ]
    contents = []
    for store in stores:
        store.save(path, overwrite=True)
        contents.append(path.read_bytes())
    stop = threading.Event()

    def replace():
        while not stop.is_set():
            for content in contents:
                other.write_bytes(content)
                os.replace(other, path)
                time.sleep(0.001)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        opened = [EmbeddingStore.open(path).digest() for _ in range(150)]
    finally:
        stop.set()
        thread.join()
    assert set(opened) == {store.digest() for store in stores}  # each came at some time


def _pipe(file, folder):
    os.mkfifo(folder / "pipe")
    return str(folder / "pipe")


def _external_link(file, folder):
    del file["labels/gender"]
    file["labels/gender"] = h5py.ExternalLink(_pipe(file, folder), "labels/gender")


def _external_storage(file, folder):
    del file["embedding"]
    file.create_dataset("embedding", (6, 16), "f4", external=[(_pipe(file, folder), 0, 384)])


def _virtual(file, folder):
    del file["embedding"]
    layout = h5py.VirtualLayout((6, 16), "f4")
    layout[:] = h5py.VirtualSource(_pipe(file, folder), "embedding", (6, 16))
    file.create_virtual_dataset("embedding", layout)


def _soft_link(file, folder):
    file["labels/x"] = h5py.SoftLink("/labels/gender")


def _packed(file, folder):  # 200 kB that say they are 4 GB
    del file["embedding"]
    how = {"chunks": (1000, 1024), "compression": 9, "fillvalue": 1 / 32}
    file.create_dataset("embedding", (1_000_000, 1024), "f4", **how)[0] = 1


def _never_written(file, folder):
    del file["labels/gender"]
    file.create_dataset("labels/gender", (6,), "i1", fillvalue=1)


def _one_long_text(file, folder):
    del file["labels"], file["embedding"]
    file["embedding"] = unit_rows(20_000)
    texts = np.array(["x" * 60_000] + ["y"] * 19_999, object)
    file.create_dataset("labels/x", data=texts, dtype=h5py.string_dtype())


def test_rows_that_point_to_one_long_text(tmp_path):
    path, rows = tmp_path / "a.h5", 6000
    EmbeddingStore(unit_rows(rows)).save(path)
    with h5py.File(path, "r+") as file:
        texts = np.array(["x" * 300_000] + ["y"] * (rows - 1), object)
        column = file.create_dataset("labels/x", data=texts, dtype=h5py.string_dtype())
        offset, size = column.id.get_offset(), column.id.get_storage_size() // rows
    content = bytearray(path.read_bytes())
    content[offset : offset + rows * size] = content[offset : offset + size] * rows
    path.write_bytes(content)
    with pytest.raises(InputError, match="must take at most .* bytes of memory, as .* for `x`"):
        EmbeddingStore.open(path)


def _many_names(file, folder):
    file["labels/long"] = np.array([b"x" * 40_000] * 6)
    for number in range(500):
        file[f"labels/name{number}"] = file["labels/long"]


def _list_of_texts(file, folder):
    file.attrs.create("embedder", ["a"] * 1000, dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (
            _external_link,
            "all of its data itself. Received: a link to another file in 'labels/gend",
        ),
        (_external_storage, "Received: values stored in another file in 'embedding'"),
        (_virtual, "Received: a virtual data set of other data in 'embedding'"),
        (
            _soft_link,
            "must hold all of its data itself. Received: a link to another part in 'labels/x'",
        ),
        (_packed, "bytes of memory, as it has .* Received: 8,196,096,000 bytes for `embedding`"),
        (_never_written, "must hold the values of `gender`. Received: none that were ever written"),
        (_one_long_text, "Received: 6,000,000,000 bytes for `x`"),
        (_many_names, "must take at most .* bytes of memory"),
        (_list_of_texts, "single values as attributes. Received: a list in 'embedder'"),
    ],
)
def test_files_that_reach_outside_or_claim_more_than_they_are(store, tmp_path, edit, text):
    path = edited(store, tmp_path / "a.h5", lambda file: edit(file, tmp_path))
    with pytest.raises(InputError, match=text) as caught:
        EmbeddingStore.open(path)
    assert ERROR.fullmatch(str(caught.value))


def test_locks_of_hdf5_do_not_matter(store, tmp_path):
    store.save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+"):  # locks it, as another program that writes
        assert_same(EmbeddingStore.open(tmp_path / "a.h5"), store)


def test_save_without_overwrite_never_replaces(store, tmp_path, monkeypatch):
    path, other = tmp_path / "a.h5", store.subset([0])

    def meanwhile(*arguments):  # another process saves between the look and the move
        monkeypatch.undo()
        other.save(path)
        write_hdf5(*arguments)

    monkeypatch.setattr("kerasmlp.data.stores.row_store.write_hdf5", meanwhile)
    with pytest.raises(InputError, match="a.h5` must not exist yet. Received: an existing file"):
        store.save(path)
    assert_same(EmbeddingStore.open(path), other)
    assert os.listdir(tmp_path) == ["a.h5"] and path.stat().st_mode & 0o777 == 0o600


def test_a_pipe_is_no_store(tmp_path):
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(InputError, match="an HDF5 file. Received: a pipe, socket or device"):
        EmbeddingStore.open(tmp_path / "a.h5")


def test_older_stores_have_no_checksums_and_open(store, tmp_path):
    def forget(file):
        for name in ("embedding", *(f"labels/{key}" for key in store.labels)):
            del file[name].attrs["checksums"]

    assert_same(EmbeddingStore.open(edited(store, tmp_path / "a.h5", forget), verify=True), store)


@pytest.mark.parametrize(
    "value", [[1.5], [[1]], "x", 3, *(np.array(v, "u4") for v in ([0, 1], [8]))]
)
def test_checksums_that_are_none(store, tmp_path, value):
    def spoil(file):
        file["labels/fold"].attrs["checksums"] = value

    with pytest.raises(InputError, match="must be a complete HDF5 file. Received: checksums of an"):
        EmbeddingStore.open(edited(store, tmp_path / "a.h5", spoil), verify=True)


def test_repr(store):
    assert repr(store) == (
        "EmbeddingStore of 6 rows, 16 wide, float32, normalised, of r50.onnx, "
        "labels age_years, gender, age_group, group, fold, name"
    )
    many = EmbeddingStore(unit_rows(2), {f"n{i}": [1, 2] for i in range(11)})
    assert repr(many).endswith("of an unknown embedder, labels n0, n1, n2, n3, n4, n5, n6, n7 and "
                               "3 others")  # fmt: skip


def _tmpfs(folder, size):
    return subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
    )


def test_disk_full(tmp_path):
    if os.geteuid() or _tmpfs(tmp_path, "1m").returncode:
        pytest.skip("needs to mount a small file system")
    try:
        path = tmp_path / "a.h5"
        old = EmbeddingStore(unit_rows(3, 512))
        old.save(path)
        free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
        for rows in (free // 2048, free // 2048 + 1, 2000):
            with pytest.raises(OSError, match="No space left on device"):
                EmbeddingStore(unit_rows(rows, 512)).save(path, overwrite=True)
            assert os.listdir(tmp_path) == ["a.h5"]
            assert_same(EmbeddingStore.open(path), old)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_file_size_limit(store, tmp_path):
    """The limit hits at every stage of a save, and the process goes on sound."""
    path = tmp_path / "a.h5"
    store.save(path)
    code = """
import os, resource, sys
from kerasmlp.data.stores.embedding_store import EmbeddingStore
path = sys.argv[1]
store = EmbeddingStore.open(path)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
size = os.path.getsize(path)
for limit in range(0, size, size // 40):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        store.save(path, overwrite=True)
    except OSError as error:
        assert error.errno == 27 and str(error).count("\\n") == 0, error
    else:
        raise SystemExit(f"no error at {limit} of {size}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert os.listdir(os.path.dirname(path)) == ["a.h5"]
    assert EmbeddingStore.open(path).digest() == store.digest()
store.save(path, overwrite=True)
assert EmbeddingStore.open(path).digest() == store.digest()
print("sound")
"""
    result = run_python(code, path)
    assert (result.stdout.strip(), result.returncode) == ("sound", 0), result.stderr[-2000:]


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_killed_while_saving(store, tmp_path, stage):
    path = tmp_path / "a.h5"
    store.save(path)
    code = """
import os, sys
from kerasmlp.data.stores.embedding_store import EmbeddingStore
store = EmbeddingStore.open(sys.argv[1]).subset([0])
setattr(os, sys.argv[2], lambda *_: os.kill(os.getpid(), 9))
store.save(sys.argv[1], overwrite=True)
"""
    assert run_python(code, path, stage).returncode == -signal.SIGKILL
    assert_same(EmbeddingStore.open(path), store)


def test_digest_tells_data_apart(store):
    digests = {store.digest(), store.subset([0, 1, 2, 3, 5, 4]).digest()}
    for key, value in {"fold": 3, "name": "x", "age_years": 2.0}.items():
        labels = {k: v.copy() for k, v in store.labels.items()}
        labels[key][0] = value
        digests.add(EmbeddingStore(store.embeddings, labels).digest())
    assert len(digests) == 5


def test_no_pickle_anywhere():
    """Loading is not running code: no pickle, and numpy never with `allow_pickle`."""
    for path in Path(kerasmlp.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {a.name for a in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "cloudpickle", "dill", "joblib", "shelve"}, path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert node.value.value is False, path
            called = isinstance(node, ast.Call) and ast.unparse(node.func)
            if called in ("np.load", "numpy.load"):
                assert "allow_pickle" in {k.arg for k in node.keywords}, path


def test_sample_is_the_one_of_the_data_card():
    sample = EmbeddingStore.open(SAMPLE)
    card = (ROOT / "data" / "README.md").read_text()
    assert f"`{sample.digest()}`" in card
    assert sample.info.embedder_sha256 in card and sample.info.detector_sha256 in card
    assert sample.info.licence == "CC BY 4.0" and "WACV 2021" in sample.info.source
    assert len(sample) == 18_500 and sample.storage_dtype == np.float16
    assert sorted(sample.labels) == ["age_group", "gender", "group", "race"]
    for group in np.unique(sample.labels["age_group"]):
        genders = sample.labels["gender"][sample.labels["age_group"] == group]
        male, female = np.bincount(genders, minlength=2)
        assert f"| {group} | {male:,} | {female:,} | {len(genders):,} | " in card
    races, counts = np.unique(sample.labels["race"], return_counts=True)
    assert f"| {' | '.join(races)} |\n| " in card
    assert f"| {' | '.join(f'{n:,}' for n in counts)} |" in card
    assert f"({len(np.unique(sample.labels['group'])):,} groups)" in card
    assert f"({SAMPLE.stat().st_size / 1e6:.1f} MB)" in card
    assert json.dumps(sample.info.removal_report) == "null"
