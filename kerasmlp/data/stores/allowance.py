"""How much memory a file may ask for: what it says about sizes is not believed."""

from typing import Any

from kerasmlp.utils.checks import reject_file

_TIMES = 8
_MORE_BYTES = 1 << 29


class Allowance:
    """The memory that all parts of a file may take together, eight times its size and 512 MiB.

    A few bytes can claim to unpack to any size, a text can be pointed at by
    all rows, and one piece of a file can have a thousand names.

    Attributes:
        left: What they may still take.

    Example:

    >>> allowance = Allowance("a.h5", 6_000)
    >>> allowance.take(1_000_000, "embedding")
    >>> allowance.take(4_300_000_000, "embedding")
    Traceback (most recent call last):
        ...
    kerasmlp.utils.checks.InputError: `a.h5` must take at most 536,918,912 bytes of memory, as it \
has 6,000. Received: 4,300,000,000 bytes for `embedding`
    """

    def __init__(self, path: Any, file_bytes: int, most_bytes: int | None = None):
        self.path, self.file_bytes = path, file_bytes
        self._most = _TIMES * file_bytes + _MORE_BYTES
        self._why = f", as it has {file_bytes:,}"
        if most_bytes is not None and most_bytes < self._most:
            self._most, self._why = most_bytes, ""
        self.left = self._most

    def take(self, bytes_: int, what: str) -> None:
        """Rejects the file if it wants more than is left."""
        if bytes_ > self.left:
            requirement = f"must take at most {self._most:,} bytes of memory{self._why}"
            reject_file(self.path, requirement, f"{bytes_:,} bytes for `{what}`")
        self.left -= bytes_
