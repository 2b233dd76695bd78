"""CIFAR-10 and CIFAR-100, their own binary versions → image store, unpacked or not."""

import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasmlp.data.stores.image_store import ImageStore
from kerasmlp.data.stores.store_info import RowsInfo
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import what_is

_SHAPE = (3, 32, 32)
_LARGEST = 1 << 28  # bytes of a file in an archive; the largest of the originals has 2^27.2


@dataclass(frozen=True)
class _Version:
    """Its files, and the labels that each record begins with, with their number of classes."""

    name: str
    training: tuple[str, ...]
    test: str
    classes: dict[str, int]


_VERSIONS = (
    _Version(
        "CIFAR-10",
        tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
        "test_batch.bin",
        {"class": 10},
    ),
    _Version("CIFAR-100", ("train.bin",), "test.bin", {"superclass": 20, "class": 100}),
)
_NAMES = frozenset(name for version in _VERSIONS for name in (*version.training, version.test))


def is_cifar(path: str | os.PathLike) -> bool:
    """Whether this is a folder with a test part of CIFAR, or may be the archive of one."""
    path = Path(path)
    archive = path.name.lower().endswith((".tar.gz", ".tgz"))
    return archive or any((path / version.test).is_file() for version in _VERSIONS)


def store_of_cifar(path: str | os.PathLike) -> ImageStore:
    """Reads CIFAR-10 or CIFAR-100; labels are `class`, and of CIFAR-100 `superclass`.

    Args:
        path: The folder `cifar-10-batches-bin` or `cifar-100-binary`, or the
            `.tar.gz` that holds it, which is not unpacked.

    Raises:
        InputError: if a file is missing, cut off, or holds other classes.
    """
    path = Path(path)
    files = _files_of_folder(path) if path.is_dir() else _files_of_archive(path)
    for version in _VERSIONS:
        if version.test in files:
            break
    else:
        reject_file(path, "must hold test_batch.bin (CIFAR-10) or test.bin (CIFAR-100)", "neither")
    parts, split = [], []
    for part, names in (("train", version.training), ("test", (version.test,))):
        for name in names:
            if name not in files:
                reject_file(path / name, f"must be there, as a part of {version.name}", "no file")
            parts.append(parse(files[name], version.classes, path / name))
            split += [part] * len(parts[-1][0])
    images, labels = zip(*parts, strict=True)
    columns = {k: np.concatenate([part[k] for part in labels]) for k in version.classes}
    info = RowsInfo(source=version.name)
    return ImageStore(np.concatenate(images), {**columns, "split": split}, info, name=path)


def parse(
    content: bytes, classes: dict[str, int], name: str | os.PathLike
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Images and labels of one file.

    Example:

    >>> images, labels = parse(bytes([7] + 3072 * [255]), {"class": 10}, "a.bin")
    >>> images.shape, labels
    ((1, 32, 32, 3), {'class': array([7], dtype=int32)})
    """
    size = len(classes) + int(np.prod(_SHAPE))
    if not content or len(content) % size:
        came = f"{len(content):,} bytes"
        reject_file(name, f"must be complete, a multiple of {size} bytes", came)
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    labels = {key: records[:, k].astype(np.int32) for k, key in enumerate(classes)}
    for k, (key, count) in enumerate(classes.items()):
        if labels[key].max() >= count:
            requirement = f"must hold a {key} below {count} in byte {k} of each record"
            reject_file(name, requirement, f"{labels[key].max()}")
    images = records[:, len(classes) :].reshape(-1, *_SHAPE)
    return images.transpose(0, 2, 3, 1), labels


def _files_of_folder(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in _NAMES if (path / name).is_file()}


def _files_of_archive(path: Path) -> dict[str, bytes]:
    requirement = "must be a folder or .tar.gz with the binary version of CIFAR-10 or CIFAR-100"
    if not path.is_file():
        reject_file(path, requirement, what_is(path))
    files = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = os.path.basename(member.name)
                if member.isreg() and name in _NAMES and member.size <= _LARGEST:
                    files[name] = archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        reject_file(path, requirement, " ".join(str(error).split())[:200])
    return files
