"""A store of many files: a folder of shards, and a manifest that is written last."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from kerasmlp.data.stores.checksums import content_crc
from kerasmlp.data.stores.hdf5 import open_hdf5
from kerasmlp.data.stores.hdf5_links import own_part
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import read_json, what_is, write_json
from kerasmlp.utils.schema import (
    Fault,
    check_object,
    dict_of,
    fields,
    list_of,
    one_of,
    optional,
    whole,
)

MANIFEST = "manifest.json"
FORMAT = "kerasmlp.store_folder"
SCHEMA_VERSION = 1

_MOST_ROWS = 10**12
_MOST_SHARDS = 10**5
_WHAT = "the manifest of a store of shards"


def _shard_name(place: str, value: object) -> Fault | None:
    named = isinstance(value, str) and value.endswith(".h5") and value == os.path.basename(value)
    return None if named else Fault(place, "the name of an .h5 file in the folder", value)


def _attribute(place: str, value: object) -> Fault | None:
    plain = isinstance(value, str | bool | int | float)
    return None if plain else Fault(place, "a text, a number or a flag", value)


_SHARD = fields(
    {"file": _shard_name, "rows": whole(1, _MOST_ROWS), "crc32": optional(whole(0, 2**32 - 1))}
)
_SCHEMA = {
    "format": one_of(FORMAT),
    "schema_version": one_of(SCHEMA_VERSION),
    "rows": whole(1, _MOST_ROWS),
    "info": dict_of(_attribute),
    "shards": list_of(_SHARD, _MOST_SHARDS),
}


def shard_name(number: int) -> str:
    """What a shard is called.

    Example:

    >>> shard_name(12)
    '000012.h5'
    """
    return f"{number:06}.h5"


def is_store_folder(path: str | os.PathLike) -> bool:
    """Whether a folder says that it is a store."""
    return (Path(path) / MANIFEST).is_file()


def write_manifest(folder: str | os.PathLike, rows: Mapping[str, int], info: StoreInfo) -> None:
    """Says which shards a store has; they must be there, and are one from now on.

    Args:
        folder: In which they lie.
        rows: Of each shard by its name, in the order of the store.
        info: Of the whole store.
    """
    shards = [
        {"file": name, "rows": count, "crc32": _crc_of(Path(folder) / name)}
        for name, count in rows.items()
    ]
    says = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "info": info.to_attributes()}
    write_json(Path(folder) / MANIFEST, says | {"rows": sum(rows.values()), "shards": shards})


def check_contents(path: str | os.PathLike) -> None:
    """Rejects a shard that is not the one of which the manifest tells; older ones do not tell."""
    for shard in _config(Path(path) / MANIFEST)["shards"]:
        file, crc = Path(path) / shard["file"], shard.get("crc32")
        if crc is not None and _crc_of(file) != crc:
            came = "a shard of another store, or of other labels"
            reject_file(file, f"must hold the rows and labels of which {MANIFEST} tells", came)


def _crc_of(shard: Path) -> int:
    with open_hdf5(shard) as file:
        labels = own_part(shard, file, "labels")
        return content_crc(file, ["embedding", *(f"labels/{key}" for key in labels or ())])


def _config(manifest: Path) -> dict:
    return check_object(manifest, read_json(manifest), _SCHEMA, _WHAT)


def shards_of(path: str | os.PathLike) -> tuple[dict[Path, int], StoreInfo]:
    """The files of a store of shards, in its order, with their rows, and what it says of itself.

    Raises:
        InputError: if the folder holds no manifest, or a damaged one, or lacks a shard.
    """
    folder = Path(path)
    if not is_store_folder(folder):
        came = f"{what_is(folder)} without {MANIFEST}"
        reject_file(path, "must be an embedding store, one file or a folder of shards", came)
    manifest = folder / MANIFEST
    config = _config(manifest)
    found = {folder / shard["file"]: shard["rows"] for shard in config["shards"]}
    if not found or len(found) < len(config["shards"]) or sum(found.values()) != config["rows"]:
        came = f"{len(config['shards'])} with {sum(found.values())} of {config['rows']} rows"
        reject_file(manifest, "must name shards that have all rows, each once", came)
    for shard in found:
        if not shard.is_file():
            reject_file(shard, f"must be a shard of the store, as {MANIFEST} says", what_is(shard))
    return found, StoreInfo.from_attributes(manifest, config["info"])
