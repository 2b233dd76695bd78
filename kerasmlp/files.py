"""Files that appear whole or not at all, and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerasmlp.checks import reject_file


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path; moves it to `path` if the block succeeds, removes it if not.

    The content is on disk before the name appears, so a killed process or a
    full disk leaves either the old file or the new one. A file that is
    replaced keeps its permissions; a link keeps pointing to it.

    Raises:
        InputError: if the folder is not there.
        OSError: if the file cannot be written.

    Example:

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(f"{folder}/a.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     os.listdir(folder)
    ['a.txt']
    """
    require_file_place(path)
    path = Path(os.path.realpath(path))
    prefix, suffix = f".{path.stem[:60]}.", path.suffix[:20]
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # replacing a private file must not open it to others: stores are biometric data
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        temporary.chmod(mode)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def require_file_place(path: str | os.PathLike) -> None:
    """Rejects a path at which no file can be written."""
    folder = Path(path).parent
    if not folder.is_dir():
        reject_file(path, "must lie in an existing folder", f"no folder {str(folder)!r}")
    if Path(path).is_dir():
        reject_file(path, "must be a file", "a folder")


def what_is(path: str | os.PathLike) -> str:
    """What lies at a path, for the end of an error: "a folder", "a file" or that there is none."""
    path = Path(path)
    return "a folder" if path.is_dir() else "a file" if path.is_file() else "no such file or folder"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike, text: str) -> None:
    r"""Writes UTF-8.

    Bytes of a file name that are not UTF-8 become `\udc80` to `\udcff`, as Python
    has them: in JSON that is the very name, which `os.fsencode` turns into its bytes.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file, or says in one sentence why it cannot be read."""
    path = Path(path)
    if not path.is_file():
        reject_file(path, "must be a JSON file", what_is(path))
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        reject_file(path, "must be a JSON file", "a file that is no text")
    except (ValueError, RecursionError) as error:
        reject_file(path, "must be a JSON file", f"{error}")


def sha256_file(path: str | os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
