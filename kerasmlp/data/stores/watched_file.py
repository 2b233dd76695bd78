"""Files that are read as long as somebody wants rows of them; few of them are open at once."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator

from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import what_is

_MOST_OPEN = 64  # of the 1,024 files, or 256, that a process may have open


class WatchedFile:
    """A file that must stay what it was when it was opened.

    Those that were not read for long are closed, and opened anew when they are asked for.

    Args:
        path: Of the file.
        descriptor: Of the open file; it is duplicated.
        status: Of `os.fstat` when it was opened; None: now.

    Example:

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as made:
    ...     _ = made.write(b"abc"), made.flush()
    ...     file = WatchedFile(made.name, made.fileno())
    ...     with file.opened() as descriptor:
    ...         os.pread(descriptor, 2, 1)
    b'bc'
    """

    def __init__(
        self, path: str | os.PathLike, descriptor: int, status: os.stat_result | None = None
    ):
        self.path, self._place = path, os.path.abspath(path)
        self._was = _state(status or os.fstat(descriptor))
        self._key = object()
        weakref.finalize(self, _open.pop, self._key, None)
        with _lock:
            _keep(self._key, _Descriptor(os.dup(descriptor)))

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Yields a descriptor; the file must be the same after the block.

        Raises:
            InputError: if it was written to, cut or replaced since it was opened first.
        """
        with _lock:
            found = _open.get(self._key)
            _keep(self._key, found := found or self._again())
        try:
            yield found.number
        finally:
            self._require_same(found)

    def _again(self) -> _Descriptor:
        try:
            number = os.open(self._place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            self._reject(what_is(self._place))
        except OSError as error:
            if is_too_many(error):
                raise
            self._reject(f"{error.strerror}")
        return _Descriptor(number)

    def _require_same(self, found: _Descriptor) -> None:
        if (state := _state(os.fstat(found.number))) != self._was:
            was, now = self._was[0], state[0]
            self._reject(
                "a file that was written or replaced meanwhile"
                if was == now
                else f"{now:,} bytes instead of {was:,}"
            )

    def _reject(self, came: str) -> None:
        reject_file(self.path, "must stay as it is while it is read", came)


class _Descriptor:
    """Of an open file, which is closed when nobody has it any more, as a thread that reads has."""

    def __init__(self, number: int):
        self.number = number
        weakref.finalize(self, os.close, number)


_open: OrderedDict[object, _Descriptor] = OrderedDict()
_lock = threading.Lock()


def is_too_many(error: Exception) -> bool:
    """Whether an error says that too many files are open, which is no fault of the last one."""
    return getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)


def _keep(key: object, descriptor: _Descriptor) -> None:
    """Puts a file last among those that are open; the first one goes if they are too many."""
    _open[key] = descriptor
    _open.move_to_end(key)
    while len(_open) > _MOST_OPEN:
        _open.popitem(last=False)


def _state(status: os.stat_result) -> tuple[int, int]:
    """Without the inode, which some file systems count anew when a file is opened again."""
    return status.st_size, status.st_mtime_ns
