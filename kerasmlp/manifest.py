"""The hashes of a folder's files, as `sha256sum -c` takes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from kerasmlp.checks import reject_file
from kerasmlp.files import sha256_file, what_is, write_text

_LINE = re.compile(r"([0-9a-f]{64})  ([\w.]+)")
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


def check_against_manifest(manifest: Path, name: str) -> None:
    """Rejects a file beside a manifest that is no more what it was.

    Example:

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "report.json").write_text("{}")
    >>> write_manifest(folder / "DONE", ["report.json"])
    >>> check_against_manifest(folder / "DONE", "report.json")

    Raises:
        InputError: naming the file, if it is another than the manifest says.
    """
    expected, path = read_manifest(manifest).get(name), manifest.parent / name
    if expected is None:
        return
    if not path.is_file():
        reject_file(path, f"must be there, as {manifest.name} says", what_is(path))
    if (came := sha256_file(path)) != expected:
        requirement = f"must be as it was written, with SHA-256 {expected[:12]} by {manifest.name}"
        reject_file(path, requirement, f"a damaged or altered file, with {came[:12]}")
