"""Locks that keep two processes out of one folder, where the file system has locks."""

import contextlib
import errno
import fcntl
import functools
import os
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_TRIES = 100


def lock_file(path: str | os.PathLike) -> BinaryIO | None:
    """Opens a file, locked for this process until it is closed; None if another one holds it.

    The file and its folder are made where they are missing. Who holds it may
    remove both: whoever opened it before finds another there, or none, and
    tries again.

    Example:

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first, second = lock_file(f"{folder}/lock"), lock_file(f"{folder}/lock")
    ...     first.close()
    >>> second is None
    True
    """
    folder = Path(path).parent
    for _ in range(_TRIES):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
            file = stack.enter_context(open(path, "ab", opener=_private))
            if not try_lock(file.fileno(), folder):
                return None
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                stack.pop_all()  # stays open
                return file
    return None


def try_lock(descriptor: int, folder: str | os.PathLike) -> bool:
    """Locks an open file, or a folder itself, without waiting; False if another process holds it.

    Where the file system of `folder` has no locks it says so on standard
    error, once, and returns True: the user has to take care then.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # some file systems without locks say that each is held: nobody holds that of a new file
        if error.errno in _HELD and _has_locks(folder):
            return False
        _say_no_locks(str(folder), error.strerror)
    return True


def _has_locks(folder: str | os.PathLike) -> bool:
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


@functools.cache
def _say_no_locks(folder: str, why: str) -> None:
    print(
        f"note: the file system of `{folder}` has no locks ({why}): "
        "let no two processes work there at once",
        file=sys.stderr,
    )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
