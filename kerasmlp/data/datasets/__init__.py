"""Raw data sets as lists of records: every input is counted, kept or removed with a reason."""

import importlib
import os

from kerasmlp.data.datasets.records import Record
from kerasmlp.data.layouts import LAYOUTS
from kerasmlp.utils.checks import check_choice, reject_file

_MODULES = {"classes": "class_folders", "csv": "photo_table", "imdb-wiki": "imdb_wiki"}


def read_records(layout: str, source: str | os.PathLike) -> list[Record]:
    """Lists every input of a data set: of a folder or table in one of `LAYOUTS`.

    Raises:
        InputError: if the source does not have this layout or holds no input.
    """
    check_choice("layout", layout, LAYOUTS)
    module = importlib.import_module(f"kerasmlp.data.datasets.{_MODULES.get(layout, layout)}")
    records = module.read(source)
    if not records:
        reject_file(source, f"must hold images in the layout {layout!r}", "none")
    return records
