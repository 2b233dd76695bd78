"""Pictures of anything: the folder that one lies in is its class."""

import os
from dataclasses import replace
from pathlib import PurePosixPath

from kerasmlp.data.datasets.records import NO_CLASS, Record, records_below


def read(source: str | os.PathLike) -> list[Record]:
    """Lists the images below a folder with their label `class`: the name of their own folder.

    So `cat/1.png` and `train/cat/1.png` are of the class `cat`; what lies in the folder
    itself has no class.
    """
    records = records_below(source, "a folder with a folder for each class")
    return [record if record.removed else _labelled(record) for record in records]


def _labelled(record: Record) -> Record:
    name = PurePosixPath(record.key).parent.name
    return replace(record, extra={"class": name}) if name else replace(record, removed=NO_CLASS)
