"""The hashes of a folder's files, as `sha256sum -c` takes them."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import (
    MOST_JSON_BYTES,
    parse_json,
    read_json,
    sha256_file,
    what_is,
    write_text,
)  # fmt: skip

_LINE = re.compile(r"([0-9a-f]{64})  ([\w.-]+)")
_MOST_BYTES = 1 << 16


def write_manifest(path: Path, names: Iterable[str]) -> None:
    """Writes the hashes of files that lie beside a path into it."""
    lines = [f"{sha256_file(path.parent / name)}  {name}\n" for name in names]
    write_text(path, "".join(lines))


def read_manifest(path: Path) -> dict[str, str]:
    """Names and hashes; none where there is no such file, or an empty one.

    Raises:
        InputError: if it is damaged.
    """
    if not path.is_file():
        return {}
    with open(path, "rb") as file:
        lines = file.read(_MOST_BYTES).decode("utf-8", "replace").splitlines()
    found = [_LINE.fullmatch(line) for line in lines]
    if not all(found) or len({m[2] for m in found}) < len(lines):
        reject_file(path, "must hold a hash for each file of the run", "a damaged file")
    return {m[2]: m[1] for m in found}


def check_against_manifest(manifest: Path, name: str, content: bytes | None) -> None:
    """Rejects a file beside a manifest that is no more what it was, or came later.

    Args:
        manifest: Of the folder; without one, or an empty one, nothing is held against it.
        name: Of the file.
        content: Of the file as it was read, or None where there is none.

    Example:

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "report.json").write_text("{}")
    >>> write_manifest(folder / "DONE", ["report.json"])
    >>> check_against_manifest(folder / "DONE", "report.json", b"{}")

    Raises:
        InputError: naming the file, if it is another than the manifest says.
    """
    hashes, path = read_manifest(manifest), manifest.parent / name
    expected = hashes.get(name)
    if content is None:
        if expected is not None:
            reject_file(path, f"must be there, as {manifest.name} says", what_is(path))
        return
    if hashes and expected is None:
        reject_file(path, f"must be one of the files that {manifest.name} names", "another one")
    if expected is not None and (came := hashlib.sha256(content).hexdigest()) != expected:
        requirement = f"must be as it was written, with SHA-256 {expected[:12]} by {manifest.name}"
        reject_file(path, requirement, f"a damaged or altered file, with {came[:12]}")


def read_preset_json(path: str | os.PathLike) -> Any:
    """A JSON file of hyperparameters; `best.json` of a finished search is what that wrote.

    Raises:
        InputError: naming the file.
    """
    path = Path(path)
    if path.name != "best.json" or not path.is_file():
        return read_json(path)
    with open(path, "rb") as file:
        content = file.read(MOST_JSON_BYTES + 1)
    check_against_manifest(path.parent / "DONE", path.name, content)
    return parse_json(path, content)
