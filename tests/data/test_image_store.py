"""One file of images: what comes back, and what is refused."""

import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from data_sets import ROOT
from data_sets import make_store as make_embeddings
from face_images import make_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasmlp import EmbeddingStore, ImageStore, InputError
from kerasmlp.data.stores.store_info import RowsInfo

ERROR = re.compile(r"`[^`]+` must .+\. Received: .+", re.DOTALL)


def assert_same(left, right):
    np.testing.assert_array_equal(left.images, right.images)
    assert left.images.dtype == right.images.dtype == np.uint8
    assert left.labels.keys() == right.labels.keys()
    for key, column in left.labels.items():
        np.testing.assert_array_equal(column, right.labels[key])
    assert left.info == right.info and left.digest() == right.digest()


@pytest.mark.parametrize("shape", [(5, 91, 91, 1), (4, 32, 32, 3), (1, 1, 2, 1)])
def test_round_trip(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    rows = shape[0]
    labels = {"class": np.arange(rows), "split": ["train"] * rows, "path": ["né"] * rows}
    info = RowsInfo(source="made", removal_report={"inputs": rows, "kept": rows, "removed": {}})
    store = ImageStore(images, labels, info)
    path = tmp_path / "a.h5"
    store.save(path)
    assert_same(ImageStore.open(path), store)
    with h5py.File(path) as file:
        assert file["image"].chunks is None and file["image"].id.get_offset() is not None
    # Rewritten by another program: chunked and compressed.
    with h5py.File(path) as file, h5py.File(tmp_path / "b.h5", "w") as copy:
        for key, value in file.attrs.items():
            copy.attrs[key] = value
        file.copy("labels", copy)
        copy.create_dataset("image", data=file["image"][()], compression="gzip")
    assert_same(ImageStore.open(tmp_path / "b.h5"), store)
    before = path.read_bytes()
    with pytest.raises(InputError, match="must not exist yet"):
        store.save(path)
    with h5py.File(path) as file:  # no times of writing
        assert not any(h5py.h5o.get_info(file[k].id).mtime for k in ("/", "labels", "image"))
    store.save(path, overwrite=True)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_fresh_process_reads_it_without_tensorflow(tmp_path):
    store = make_store()
    store.save(tmp_path / "a.h5")
    code = (
        "import sys\nfrom kerasmlp import ImageStore\n"
        "store = ImageStore.open(sys.argv[1]); print(store.digest())\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.h5")]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == store.digest()


def test_splits_and_subsets():
    store = make_store((5, 3, 2))
    assert store.rows("validation").tolist() == [5, 6, 7]
    part = store.subset(store.rows("test"))
    np.testing.assert_array_equal(part.images, store.images[8:])
    assert set(part.labels["split"]) == {"test"} and part.digest() != store.digest()
    with pytest.raises(InputError, match="must hold images of split 'train'. Received: 'test'"):
        part.rows("train")
    with pytest.raises(InputError, match="Received: no splits"):
        ImageStore(store.images).rows("train")
    with pytest.raises(InputError, match="`indices` must be rows of a store of 2"):
        part.subset([2])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4), np.uint8), {}, r"must hold uint8 images .* shape \(2, 4, 4\)"),
        (np.zeros((2, 4, 4, 1), np.float32), {}, "dtype float32"),
        (np.zeros((0, 4, 4, 1), np.uint8), {}, "shape"),
        (np.zeros((2, 4, 4, 2), np.uint8), {}, "must hold images of 1 or 3 channels. .* 2 chan"),
        (np.zeros((2, 4, 4, 1), np.uint8), {"class": [1]}, "must hold 2 values of label 'class'"),
        (np.zeros((2, 4, 4, 1), np.uint8), {"age_years": [1, 131]}, "ages of 0 to 130 years"),
        (np.zeros((2, 4, 4, 1), np.uint8), {"split": ["train", "dev"]}, "label 'split'.*'dev'"),
        (np.zeros((2, 4, 4, 1), np.uint8), {"split": [0, 1]}, "label 'split'"),
    ],
)
def test_bad_arrays(images, labels, message):
    with pytest.raises(InputError, match=message):
        ImageStore(images, labels)


def test_other_files_are_refused(tmp_path):
    make_embeddings(rows=20).save(tmp_path / "faces.h5")
    with pytest.raises(InputError, match="must be an image store .* another kind"):
        ImageStore.open(tmp_path / "faces.h5")
    make_store().save(tmp_path / "images.h5")
    with pytest.raises(InputError, match="must be an embedding store"):
        EmbeddingStore.open(tmp_path / "images.h5")
    for change, message in (
        (lambda file: file.attrs.__setitem__("schema_version", 9), "must have schema version 1"),
        (lambda file: file.__delitem__("image"), "must hold uint8 images .* as `image`"),
        (lambda file: file.__delitem__("labels/split"), None),
    ):
        make_store().save(tmp_path / "a.h5", overwrite=True)
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            change(file)
        if message is None:
            assert "split" not in ImageStore.open(tmp_path / "a.h5").labels
            continue
        with pytest.raises(InputError, match=message):
            ImageStore.open(tmp_path / "a.h5")


def test_pixels_are_those_that_were_written(tmp_path):
    store = make_store((40, 3, 2))
    path = tmp_path / "a.h5"
    store.save(path)
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        end = file["image"].id.get_offset() + file["image"].nbytes
    content[end - 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"by its checksums. Received: damage in .* of `image`"):
        ImageStore.open(path, verify=True)
    assert ImageStore.open(path).images.sum() != store.images.sum()
    store.save(tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5", "r+") as file:  # an image of the right shape, elsewhere
        shape, size = file["image"].shape, file["image"].nbytes
        del file["image"]
        file.create_dataset("image", shape, np.uint8, external=[(str(path), 0, size)])
    with pytest.raises(InputError, match="values stored in another file in 'image'"):
        ImageStore.open(tmp_path / "b.h5")
    assert re.fullmatch(r"ImageStore of 45 images, \d+×\d+ pixels, \w+, labels .*", repr(store))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "whole.h5"
    make_store((6, 2, 2)).save(path)
    return path.read_bytes()


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_end_in_one_sentence(whole, tmp_path, data):
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    if len(damaged) == len(whole) or data.draw(st.booleans()):
        damaged = bytearray(whole)
        # Structures lie before the pixels: most of the damage goes there.
        for _ in range(data.draw(st.integers(1, 8))):
            damaged[data.draw(st.integers(0, len(whole) // 2))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.h5"
    path.write_bytes(damaged)
    try:
        store = ImageStore.open(path)
    except InputError as error:
        assert ERROR.fullmatch(str(error)) and str(path) in str(error)
    else:
        assert store.images.dtype == np.uint8 and store.images.ndim == 4
