"""CIFAR's binary files and `.npz` arrays → image store, never by pickle."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kerasmlp.checks import reject_file
from kerasmlp.stores.image_store import ImageStore
from kerasmlp.stores.source_arrays import read_source
from kerasmlp.stores.store_info import RowsInfo

_PARTS = ("train", "test")
_PIXELS = 3 * 32 * 32
_CIFAR = {  # name: files of train and test, labels with their number of classes
    "CIFAR-10": (
        ([f"data_batch_{k}.bin" for k in range(1, 6)], ["test_batch.bin"]),
        {"class": 10},
    ),
    "CIFAR-100": ((["train.bin"], ["test.bin"]), {"superclass": 20, "class": 100}),
}


def store_of_arrays(path: str | os.PathLike) -> ImageStore:
    """Reads `x_train`, `y_train`, `x_test`, `y_test` of an `.npz`; the label is `class`.

    Raises:
        InputError: if it does not hold images and classes.
    """
    columns = read_source(path).columns
    names = [f"{kind}_{part}" for part in _PARTS for kind in "xy"]
    for name in names:
        if name not in columns:
            reject_file(path, f"must hold {', '.join(names)}", f"no {name}")
    images = [columns[f"x_{part}"] for part in _PARTS]
    images = [x[..., None] if x.ndim == 3 else x for x in images]
    classes = [columns[f"y_{part}"].reshape(-1) for part in _PARTS]
    for part, x, y in zip(_PARTS, images, classes, strict=True):
        if len(x) != len(y) or y.dtype.kind not in "iu" or (len(y) and y.min() < 0):
            requirement = f"must hold a class 0, 1, … for each of the {len(x)} images in y_{part}"
            reject_file(path, requirement, f"{len(y)} values, dtype {y.dtype}")
    if images[0].shape[1:] != images[1].shape[1:]:
        came = f"{images[0].shape[1:]} in x_train, {images[1].shape[1:]} in x_test"
        reject_file(path, "must hold images of one shape", came)
    split = np.repeat(_PARTS, [len(y) for y in classes])
    labels = {"class": np.concatenate(classes), "split": split}
    return ImageStore(np.concatenate(images), labels, name=path)


def is_cifar(folder: str | os.PathLike) -> bool:
    """Whether a folder holds the binary version of CIFAR-10 or CIFAR-100."""
    return any(Path(folder, files[0]).is_file() for (_, files), _ in _CIFAR.values())


def store_of_cifar(folder: str | os.PathLike) -> ImageStore:
    """Reads the binary version of CIFAR-10 or CIFAR-100; labels are `class`, and `superclass`.

    Raises:
        InputError: if a file is missing, cut off, or holds other classes.
    """
    folder = Path(folder)
    of = next(k for k, (files, _) in _CIFAR.items() if (folder / files[1][0]).is_file())
    parts, classes = _CIFAR[of]
    rows, split = [], []
    for part, names in zip(_PARTS, parts, strict=True):
        for name in names:
            rows.append(_records(folder / name, of, classes))
            split += [part] * len(rows[-1])
    records = np.concatenate(rows)
    planes = records[:, len(classes) :].reshape(-1, 3, 32, 32)
    labels = {key: records[:, k].astype(np.int32) for k, key in enumerate(classes)}
    images = planes.transpose(0, 2, 3, 1)
    return ImageStore(images, {**labels, "split": split}, RowsInfo(source=of), name=folder)


def _records(path: Path, of: str, classes: dict[str, int]) -> np.ndarray:
    if not path.is_file():
        reject_file(path, f"must be there, as a part of {of}", "no such file")
    data, width = np.fromfile(path, np.uint8), len(classes) + _PIXELS
    if not len(data) or len(data) % width:
        reject_file(path, f"must be complete, a multiple of {width} bytes", f"{len(data):,} bytes")
    records = data.reshape(-1, width)
    for k, (key, number) in enumerate(classes.items()):
        if records[:, k].max() >= number:
            requirement = f"must hold a {key} below {number} in byte {k} of each record"
            reject_file(path, requirement, f"{records[:, k].max()}")
    return records
