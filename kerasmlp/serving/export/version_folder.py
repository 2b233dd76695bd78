"""Numbered folders, each of which appears whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import sync
from kerasmlp.utils.locks import try_lock

TEMPORARY = ".export"
"""The version that is being written."""


@contextlib.contextmanager
def new_version(parent: str | os.PathLike) -> Iterator[tuple[Path, Path]]:
    """Yields a temporary folder and the one it becomes if the block succeeds.

    The number is one more than the highest that is there. A server that
    watches the parent never sees half a version: its content is on disk
    before the number appears. What a killed process left is removed by the
    next one.

    Args:
        parent: Made where it is missing.

    Raises:
        InputError: if the parent is no folder, a run, or in use by another export.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     for _ in range(2):
    ...         with new_version(parent) as (temporary, final):
    ...             _ = (temporary / "a.txt").write_text("whole")
    ...     sorted(os.listdir(parent))
    ['1', '2']
    """
    parent = Path(parent)
    if parent.exists() and not parent.is_dir():
        reject_file(parent, "must be a folder", "a file")
    if (parent / "config.json").exists():
        reject_file(parent, "must be a folder of its own", "a run folder")
    is_new = not parent.exists()
    parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(parent, os.O_RDONLY)
    temporary = parent / TEMPORARY
    try:
        if not try_lock(handle, parent):
            reject_file(parent, "must not be in use", "an export that is writing to it now")
        try:
            if temporary.exists():
                shutil.rmtree(temporary)
            temporary.mkdir()
            versions = [int(p.name) for p in parent.iterdir() if p.name.isdecimal()]
            final = parent / str(max(versions, default=0) + 1)
            yield temporary, final
            for path in [*temporary.rglob("*"), temporary]:
                sync(path)
            temporary.rename(final)
            os.fsync(handle)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if is_new:
                with contextlib.suppress(OSError):
                    parent.rmdir()  # where nothing came of it
    finally:
        os.close(handle)
