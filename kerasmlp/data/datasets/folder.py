"""A folder of photos without labels."""

import os

from kerasmlp.data.datasets.records import Record, records_below


def read(source: str | os.PathLike) -> list[Record]:
    """Lists the images below a folder and those that it links to.

    Files that are no images by name, or by content where the name does not
    tell, are no inputs.
    """
    return records_below(source, "a folder of images")
