"""Temporary folders that do not outlive a killed process for longer than to the next start."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def own_folder(prefix: str) -> Iterator[Path]:
    """Yields a new folder that only this user can read, and removes it afterwards.

    Those of the same prefix that nobody holds any more are removed first.

    Example:

    >>> left = tempfile.mkdtemp(prefix="kerasmlp-example-")
    >>> with own_folder("kerasmlp-example-") as folder:
    ...     oct(folder.stat().st_mode), os.path.exists(left)
    ('0o40700', False)
    """
    parent = Path(tempfile.gettempdir()).resolve()
    for path in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), _held(path):  # in use, another user's, or gone
            shutil.rmtree(path)
    # Under a name that nobody looks for, until it is held.
    made = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))
    with _held(made):
        folder = made.rename(parent / made.name[1:])
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Nobody else may hold it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
