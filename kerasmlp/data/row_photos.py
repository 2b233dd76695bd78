"""The photo that a row of a store comes from, where a column names it and a folder holds it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from kerasmlp.data.datasets.photos import find_photos, is_photo_name
from kerasmlp.utils.checks import reject, reject_file
from kerasmlp.utils.files import what_is

USUAL = "path"
"""The column in which `extract-embeddings` names the photos."""
_TRIED = 1000


def photo_column(
    labels: Mapping[str, np.ndarray], asked: str | None = None, *, needed: bool = True
) -> str | None:
    """The column that names photos: the one asked for, `path`, or the only one that can.

    Args:
        labels: Columns of a store.
        asked: By the user, or None.
        needed: Whether it must be told which of several is meant.

    Returns:
        None where there is none, or several that are not needed.

    Raises:
        InputError: if the one asked for is no text, or several could be meant.

    Example:

    >>> photo_column({"race": np.array(["a"]), "file": np.array(["1.jpg"])})
    'file'
    """
    texts = [name for name, column in labels.items() if column.dtype.kind == "U"]
    if asked is not None and asked not in texts:
        listed = ", ".join(texts) or "none"
        reject("photo_column", f"must be a column of text of the store ({listed})", asked)
    if asked is not None or USUAL in texts:
        return asked or USUAL
    found = [name for name in texts if _names_photos(labels[name])]
    if len(found) > 1 and needed:
        reject("photo_column", f"must be given: {', '.join(found)} name photos", None)
    return found[0] if len(found) == 1 else None


def _names_photos(column: np.ndarray) -> bool:
    names = [name for name in column[:_TRIED].tolist() if name]
    return bool(names) and sum(map(is_photo_name, names)) * 2 > len(names)


class RowPhotos:
    """Photos of a folder, found by the names that a store holds.

    A name is looked for as the path from the folder on, and where there is none as that of a
    file alone, if one photo is called so. Nothing outside the folder is looked at.

    Args:
        folder: With photos, in folders of their own or not.

    Raises:
        InputError: if there is none, or it holds no photos.

    Example:

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "train").mkdir()
    >>> (folder / "train" / "1.jpg").touch()
    >>> photos = RowPhotos(folder)
    >>> [bool(photos.of(name)) for name in ("train/1.jpg", "1.jpg", "../1.jpg", "2.jpg")]
    [True, True, True, False]
    """

    def __init__(self, folder: str | os.PathLike):
        folder = Path(folder)
        if not folder.is_dir():
            reject_file(folder, "must be a folder of photos", what_is(folder))
        photos = find_photos(folder).photos
        if not photos:
            reject_file(folder, "must hold photos", "a folder without any")
        self._by_path = {path.relative_to(folder).as_posix(): path for path in photos}
        self._by_name: dict[str, list[Path]] = {}
        for path in photos:
            self._by_name.setdefault(path.name, []).append(path)

    def of(self, name: str) -> Path | None:
        """The photo of a row, or None."""
        if (path := self._by_path.get(name)) is not None:
            return path
        called = self._by_name.get(PurePosixPath(name).name, ())
        return called[0] if len(called) == 1 else None
