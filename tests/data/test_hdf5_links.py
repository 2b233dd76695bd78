import os

import h5py
import numpy as np
import pytest

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.hdf5 import open_hdf5
from kerasmlp.data.stores.hdf5_links import refuse_outside
from kerasmlp.utils.checks import InputError


def external_link(file, other):
    file["label"] = h5py.ExternalLink(other, "/x")


def link_behind_a_soft_link(file, other):
    file["hidden/far"] = h5py.ExternalLink(other, "/")
    file["label"] = h5py.SoftLink("/hidden/far/x")


def external_storage(file, other):
    file.create_dataset("in/label", (3,), "u1", external=[(other, 0, 3)])


def virtual_dataset(file, other):
    layout = h5py.VirtualLayout((3,), "i4")
    layout[:] = h5py.VirtualSource(other, "x", (3,))
    file.create_virtual_dataset("label", layout)


def growing_virtual_dataset(file, other):
    layout = h5py.VirtualLayout((3,), "i4", maxshape=(None,))
    source = h5py.VirtualSource(other, "x", (3,), maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    file.create_virtual_dataset("label", layout)


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (external_link, "a link to another file in 'label'"),
        (link_behind_a_soft_link, "a link to another file in 'hidden/far'"),
        (external_storage, "values stored in another file in 'in/label'"),
        (virtual_dataset, "a virtual data set of other data in 'label'"),
        (growing_virtual_dataset, "a virtual data set of other data in 'label'"),
    ],
)
def test_what_lies_elsewhere_is_refused_unopened(write, text, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # whoever opens it waits for ever
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file, str(pipe))
    with (
        h5py.File(tmp_path / "a.h5") as file,
        pytest.raises(InputError, match=f"`a.h5` must hold all of its data itself.*{text}"),
    ):
        refuse_outside("a.h5", file)


def test_links_inside_are_no_matter(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(3)
        file["soft"], file["hard"] = h5py.SoftLink("/x"), file["x"]
        file["nowhere"] = h5py.SoftLink("/nothing")
        file["loop"] = file["/"]
        refuse_outside("a.h5", file)


def test_a_damaged_heap_of_texts_is_refused(tmp_path):
    """One turned bit in it, and HDF5 would search for ever."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.array([b"GCOL", b"GCOL\1\0\0\0\1\0\0\0\0\0\0\0"])
        file.attrs.update(one="a", two="b")
    with open_hdf5(path) as file:
        assert file.attrs["two"] == "b" and file["x"][0] == b"GCOL"
    content = bytearray(path.read_bytes())
    second = content.rindex(b"GCOL\1\0\0\0") + 16 + 24
    assert content[second] == 2
    content[second] = 0  # no object, and no room either
    path.write_bytes(content)
    message = "complete HDF5 file.*a damaged heap of texts"
    with pytest.raises(InputError, match=message), open_hdf5(path) as file:
        file.attrs["two"]


def test_groups_in_groups_take_no_time(tmp_path):
    """Visits by whole names took a minute for 2,000 of them."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file
        for _ in range(2_000):
            group = group.create_group("g")
        group["x"] = np.arange(3)
        with pytest.raises(InputError, match="must hold groups in at most 100 levels"):
            refuse_outside("a.h5", file)


@pytest.mark.parametrize("name", ["labels", "labels/gender", "embedding"])
def test_a_type_without_values_is_no_part_of_a_store(name, tmp_path):
    path = tmp_path / "a.h5"
    EmbeddingStore(np.eye(3), {"gender": [0, 1, 0]}).save(path)
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = np.dtype("f4")
    with pytest.raises(InputError, match=f"must hold a group or values as '{name}'"):
        EmbeddingStore.open(path)
