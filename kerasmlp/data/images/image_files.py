"""The image files of a folder or of a zip archive, by name."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

from kerasmlp.data.datasets.photos import (
    IMAGE_SUFFIXES,
    begins_as_image,
    find_photos,
    is_photo_name,
    read_photo,
)
from kerasmlp.data.datasets.records import Record, records_of
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import what_is

# what zipfile was seen to raise on damaged archives and members, or on those with a password
ZIP_DAMAGE = (
    OSError, ValueError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile,
    zlib.error, KeyError, OverflowError,
)  # fmt: skip
_LARGEST = 1 << 26  # bytes of a file in an archive, which a small archive may promise by billions


class ImageFiles:
    """Names and bytes of the images below a folder or in a zip archive.

    Args:
        source: Folder or `.zip`.

    Attributes:
        names: Relative paths, sorted.
        removed: Linked folders that are not walked and folders that cannot be listed.

    Raises:
        InputError: if there is no such folder or archive, or no image in it.

    Example:

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> _ = Path(folder, "a.jpg").write_bytes(b"not really")
    >>> with ImageFiles(folder) as files:
    ...     files.names, files.read("a.jpg")
    (['a.jpg'], b'not really')
    """

    def __init__(self, source: str | os.PathLike):
        source = Path(source)
        self._zip, self._paths = None, {}
        self.removed: list[Record] = []
        if source.is_dir():
            records = records_of(find_photos(source), source)
            self._paths = {r.key: r.image for r in records if not r.removed}
            self.removed = [r for r in records if r.removed]
            self.names = list(self._paths)
        elif source.is_file():
            try:
                self._zip = zipfile.ZipFile(source)
            except ZIP_DAMAGE as error:
                text = " ".join(str(error).split())[:200]
                requirement = "must be a folder, a complete zip archive, or an .npz"
                reject_file(source, requirement, f"a damaged or foreign file ({text})")
            self.names = sorted(filter(self._is_image, dict.fromkeys(self._zip.namelist())))
        else:
            reject_file(source, "must be a folder, a zip archive, or an .npz", what_is(source))
        if not self.names:
            self.close()
            requirement = f"must hold images ({', '.join(IMAGE_SUFFIXES)})"
            reject_file(source, requirement, "none")

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            OSError: if they cannot be read, also for every kind of damage of an archive.
        """
        if self._zip is None:
            return read_photo(self._paths[name])
        size = self._zip.getinfo(name).file_size
        if size > _LARGEST:
            raise OSError(f"{size} bytes, more than {_LARGEST}")
        try:
            return self._zip.read(name)
        except ZIP_DAMAGE as error:
            raise OSError(f"{error}") from error

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()

    def _is_image(self, name: str) -> bool:
        if name.endswith("/") or any(p.startswith((".", "__MACOSX")) for p in name.split("/")):
            return False
        if is_photo_name(name):
            return True
        try:
            with self._zip.open(name) as file:
                return begins_as_image(file.read(32), plain_name=not Path(name).suffix)
        except ZIP_DAMAGE:
            return False

    def __enter__(self) -> ImageFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
