"""A folder of photos without labels."""

from __future__ import annotations

import os

from kerasmlp.data.datasets.photos import find_photos
from kerasmlp.data.datasets.records import Record, check_folder, records_of


def read(source: str | os.PathLike) -> list[Record]:
    """Lists the images below a folder and those that it links to.

    Files that are no images by name, or by content where the name does not
    tell, are no inputs.
    """
    folder = check_folder(source, "a folder of images")
    return records_of(find_photos(folder), folder)
