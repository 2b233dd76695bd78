import os

import h5py
import numpy as np
import pytest

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
