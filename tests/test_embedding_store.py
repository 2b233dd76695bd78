import ast
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kerasmlp
from kerasmlp.checks import InputError
from kerasmlp.stores.embedding_store import EmbeddingStore, StoreInfo

SAMPLE = Path(__file__).parent.parent / "data" / "fairface_sample.h5"
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
    monkeypatch.setattr("kerasmlp.stores.hdf5._BLOCK_BYTES", 1000)
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
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_labels_come_back(tmp_path, data):
    rows = data.draw(st.integers(1, 5))

    def column(values):
        return st.lists(values, min_size=rows, max_size=rows)

    text = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
    labels = {
        "name": data.draw(column(text)),
        "weight": data.draw(column(st.none() | st.floats(width=32))),
        "group": data.draw(column(st.integers(-1, 2**40)) | column(text)),
        "age_years": data.draw(column(st.none() | st.floats(0, 130, width=32))),
    }
    store = EmbeddingStore(unit_rows(rows), labels)
    store.save(tmp_path / "a.h5", overwrite=True)
    again = EmbeddingStore.open(tmp_path / "a.h5")
    assert_same(again, store)
    # numpy's text drops NUL at the end
    expected = [(v or "").rstrip("\0") for v in labels["name"]]
    if any(v is not None for v in labels["name"]):
        assert again.labels["name"].tolist() == expected


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


def test_rows_of_zeros_are_rejected_even_unnormalised():
    rows = unit_rows(3) * 7
    assert not EmbeddingStore(rows, info=StoreInfo(normalized=False)).info.normalized
    rows[1] = 0
    with pytest.raises(InputError, match="must hold no row of zeros"):
        EmbeddingStore(rows, info=StoreInfo(normalized=False))


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
        (EmbeddingStore(unit_rows(2, 8)), "must have width 16. Received: width 8"),
        (
            EmbeddingStore(unit_rows(2), info=StoreInfo("other", "b" * 64)),
            "embeddings of r50.onnx .sha256 a+.*those of other .sha256 b+",
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
        with pytest.raises(InputError, match=r"must be an? (complete )?HDF5 file"):
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
from kerasmlp.checks import InputError
from kerasmlp.stores.embedding_store import EmbeddingStore
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
from kerasmlp.stores.embedding_store import EmbeddingStore
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
from kerasmlp.stores.embedding_store import EmbeddingStore
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
    card = SAMPLE.with_name("README.md").read_text()
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
