"""A folder of photos without labels."""

from __future__ import annotations

import os

from kerasmlp.datasets.records import Record, check_folder, image_files, printable


def read(source: str | os.PathLike) -> list[Record]:
    """Lists the images below a folder; files that are no images by name are no inputs."""
    folder = check_folder(source, "a folder of images")
    return [
        Record(key=printable(path.relative_to(folder)), image=path) for path in image_files(folder)
    ]
