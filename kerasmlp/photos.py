"""Which files are photos, and what their drawn copies are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kerasmlp.checks import reject_file
from kerasmlp.files import what_is

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def photos_of(path: Path) -> list[Path]:
    """The photo, or all photos in a folder, in order of their names."""
    if path.is_dir():
        found = sorted(
            p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in PHOTO_SUFFIXES
        )
        if not found:
            reject_file(path, "must hold photos", "a folder without any")
        return found
    if not path.is_file():
        reject_file(path, "must be a photo, a folder or a store", what_is(path))
    return [path]


def picture_paths(photos: Sequence[Path], folder: Path) -> list[Path]:
    """One PNG per photo, named after it; equal names are numbered.

    Example:

    >>> [str(p) for p in picture_paths([Path("a/1.jpg"), Path("b/1.png")], Path("out"))]
    ['out/1.png', 'out/1-2.png']
    """
    paths: dict[Path, None] = {}
    for photo in photos:
        path, number = folder / f"{photo.stem}.png", 1
        while path in paths:
            number += 1
            path = folder / f"{photo.stem}-{number}.png"
        paths[path] = None
    return list(paths)
