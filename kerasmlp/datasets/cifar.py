"""CIFAR-10 and CIFAR-100 from their own binary versions, unpacked or not."""

from __future__ import annotations

import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasmlp.checks import reject_file
from kerasmlp.files import what_is

_SHAPE = (3, 32, 32)
_LARGEST = 1 << 28  # bytes of a file in an archive; the largest of the originals has 2^27.2


@dataclass(frozen=True)
class _Version:
    """Each record of a file is these labels, a byte each, and an image."""

    num_classes: tuple[int, ...]  # the last label is the one that is learned
    training: tuple[str, ...]
    test: str

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.training, self.test)


_VERSIONS = (
    _Version((10,), tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"),
    _Version((20, 100), ("train.bin",), "test.bin"),  # coarse and fine
)
TEST_FILES = tuple(version.test for version in _VERSIONS)
_NAMES = frozenset(name for version in _VERSIONS for name in version.names)


def read_cifar(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads CIFAR-10 or CIFAR-100.

    Args:
        path: The folder `cifar-10-batches-bin` or `cifar-100-binary`, or the
            `.tar.gz` that holds it, which is not unpacked.

    Returns:
        `x_train`, `y_train`, `x_test`, `y_test`: images `(rows, 32, 32, 3)`, uint8,
        and labels, of CIFAR-100 the fine ones.

    Raises:
        InputError: if a file is missing or damaged.
    """
    path = Path(path)
    files = _files_of_folder(path) if path.is_dir() else _files_of_archive(path)
    for version in _VERSIONS:
        if version.test in files:
            break
    else:
        reject_file(path, "must hold test_batch.bin (CIFAR-10) or test.bin (CIFAR-100)", "neither")
    for name in version.names:
        if name not in files:
            reject_file(path, f"must hold {', '.join(version.names)}", f"no {name}")
    parts = [parse(files[name], version.num_classes, f"{path}/{name}") for name in version.names]
    images, labels = zip(*parts, strict=True)
    return {
        "x_train": np.concatenate(images[:-1]),
        "y_train": np.concatenate(labels[:-1]),
        "x_test": images[-1],
        "y_test": labels[-1],
    }


def parse(content: bytes, num_classes: tuple[int, ...], name: str) -> tuple:
    """Images and labels of one file.

    Args:
        content: Of the file.
        num_classes: Of each label of a record.
        name: Of the file, for errors.

    Example:

    >>> images, labels = parse(bytes([7] + 3072 * [255]), (10,), "a.bin")
    >>> images.shape, labels
    ((1, 32, 32, 3), array([7], dtype=uint8))
    """
    size = len(num_classes) + int(np.prod(_SHAPE))
    if not content or len(content) % size:
        reject_file(name, f"must hold records of {size} bytes", f"{len(content)} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    labels, images = records[:, : len(num_classes)], records[:, len(num_classes) :]
    for column, count in zip(labels.T, num_classes, strict=True):
        if column.max() >= count:
            reject_file(name, f"must hold labels below {count}", f"a label {column.max()}")
    images = images.reshape(-1, *_SHAPE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels[:, -1].copy()


def _files_of_folder(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in _NAMES if (path / name).is_file()}


def _files_of_archive(path: Path) -> dict[str, bytes]:
    requirement = "must be a folder or .tar.gz with the binary version of CIFAR-10 or CIFAR-100"
    if not path.is_file():
        reject_file(path, requirement, what_is(path))
    files = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = os.path.basename(member.name)
                if member.isreg() and name in _NAMES and member.size <= _LARGEST:
                    files[name] = archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        reject_file(path, requirement, " ".join(str(error).split())[:200])
    return files
