"""Image stores, CIFAR's binary files and `.npz` arrays as an `ImageStore`, never by pickle."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kerasmlp.checks import reject_file
from kerasmlp.datasets.cifar import TEST_FILES, read_cifar
from kerasmlp.files import what_is
from kerasmlp.stores.image_store import ImageStore
from kerasmlp.stores.source_arrays import read_source

_PARTS = ("train", "test")


def image_store_of(path: str | os.PathLike) -> ImageStore:
    """Reads an image store, CIFAR's own binary version, or an `.npz`.

    Raises:
        InputError: if it is none of them, or damaged.
    """
    path = Path(path)
    if path.suffix.lower() == ".h5":
        return ImageStore.open(path)
    if path.is_dir() or is_cifar(path):
        return store_of_cifar(path)
    if path.suffix.lower() != ".npz" or not path.is_file():
        requirement = "must be an image store (.h5), an .npz of images, or CIFAR's binary version"
        reject_file(path, requirement, what_is(path))
    return store_of_arrays(path)


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
    return _store(images, classes, path)


def is_cifar(path: str | os.PathLike) -> bool:
    """Whether a path is an archive, or a folder with the binary version of CIFAR."""
    path = Path(path)
    return path.name.endswith((".tar.gz", ".tgz")) or any(
        (path / name).is_file() for name in TEST_FILES
    )


def store_of_cifar(path: str | os.PathLike) -> ImageStore:
    """Reads what `read_cifar` does; the label is `class`.

    Raises:
        InputError: if a file is missing or damaged.
    """
    arrays = read_cifar(path)
    images, classes = ([arrays[f"{kind}_{part}"] for part in _PARTS] for kind in "xy")
    return _store(images, classes, path)


def _store(
    images: list[np.ndarray], classes: list[np.ndarray], path: str | os.PathLike
) -> ImageStore:
    split = np.repeat(_PARTS, [len(y) for y in classes])
    labels = {"class": np.concatenate(classes).astype(np.int32), "split": split}
    return ImageStore(np.concatenate(images), labels, name=path)
