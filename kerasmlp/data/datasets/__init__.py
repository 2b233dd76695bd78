"""Raw data sets as lists of records: every input is counted, kept or removed with a reason."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass

from kerasmlp.data.datasets.records import Record
from kerasmlp.utils.checks import check_choice, reject_file


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk, and which face of an image its labels mean.

    Attributes:
        source: Name of the data set, or None for the user's own photos.
        licence: Of the data, in words, or None.
        face: The face to take unless told otherwise.
    """

    source: str | None
    licence: str | None
    face: str


LAYOUTS = {
    "folder": Layout(None, None, "only"),
    "csv": Layout(None, None, "only"),
    "adience": Layout("Adience", "research only", "centre"),
    "imdb-wiki": Layout("IMDB-WIKI", "academic research only", "only"),
    "utkface": Layout("UTKFace", "non-commercial research only", "centre"),
    "fairface": Layout("FairFace", "CC BY 4.0 (Kärkkäinen and Joo, WACV 2021)", "centre"),
}

_MODULES = {"csv": "photo_table", "imdb-wiki": "imdb_wiki"}


def read_records(layout: str, source: str | os.PathLike) -> list[Record]:
    """Lists every input of a data set.

    Args:
        layout: One of `LAYOUTS`.
        source: The folder or table.

    Raises:
        InputError: if the source does not have this layout or holds no input.
    """
    check_choice("layout", layout, LAYOUTS)
    module = importlib.import_module(f"kerasmlp.data.datasets.{_MODULES.get(layout, layout)}")
    records = module.read(source)
    if not records:
        reject_file(source, f"must hold images in the layout {layout!r}", "none")
    return records
