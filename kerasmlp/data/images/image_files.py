"""The image files of a data set, in folders or in a zip archive."""

import contextlib
import os
import zipfile
import zlib
from pathlib import Path

from kerasmlp.data.datasets import read_records
from kerasmlp.data.datasets.photos import (
    IMAGE_SUFFIXES,
    begins_as_image,
    is_photo_name,
    read_photo,
)
from kerasmlp.data.datasets.records import Record
from kerasmlp.data.datasets.utkface import labelled
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import what_is

# what zipfile was seen to raise on damaged archives and members, or on those with a password
ZIP_DAMAGE = (
    OSError, ValueError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile,
    zlib.error, KeyError, OverflowError,
)  # fmt: skip
_LARGEST = 1 << 26  # bytes of a file in an archive, which a small archive may promise by billions
_BY_NAME = {"folder": lambda record: record, "utkface": labelled}
"""What makes a record of the layouts whose labels, if any, are in the names."""


class ImageFiles(contextlib.AbstractContextManager):
    """The inputs of a data set, and the bytes of each.

    Args:
        source: As `read_records` takes it; where names alone tell the labels, a `.zip`, too.
        layout: One of `LAYOUTS`.

    Attributes:
        records: Of all inputs; what fell out already says so.

    Raises:
        InputError: if the source does not have this layout, or holds no image.

    Example:

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> _ = Path(folder, "a.jpg").write_bytes(b"not really")
    >>> with ImageFiles(folder, "folder") as files:
    ...     [files.read(record) for record in files.records]
    [b'not really']
    """

    def __init__(self, source: str | os.PathLike, layout: str):
        source, self._zip = Path(source), None
        if layout not in _BY_NAME or source.is_dir():
            self.records = read_records(layout, source)
            return
        if not source.is_file():
            reject_file(source, "must be a folder, a zip archive, or an .npz", what_is(source))
        try:
            self._zip = zipfile.ZipFile(source)
        except ZIP_DAMAGE as error:
            text = " ".join(str(error).split())[:200]
            requirement = "must be a folder, a complete zip archive, or an .npz"
            reject_file(source, requirement, f"a damaged or foreign file ({text})")
        names = sorted(filter(self._is_image, dict.fromkeys(self._zip.namelist())))
        if not names:
            self.close()
            reject_file(source, f"must hold images ({', '.join(IMAGE_SUFFIXES)})", "none")
        self.records = [_BY_NAME[layout](Record(key=name, image=None)) for name in names]

    def read(self, record: Record) -> bytes:
        """The bytes of an input; none where they cannot be read, by damage of any kind."""
        try:
            if self._zip is None:
                return read_photo(record.image)
            large = self._zip.getinfo(record.key).file_size > _LARGEST
            return b"" if large else self._zip.read(record.key)
        except ZIP_DAMAGE:
            return b""

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

    def __exit__(self, *exception: object) -> None:
        self.close()
