"""Where a service listens, and what it is called there."""

import contextlib
import errno
from collections.abc import Iterator

from kerasmlp.utils.checks import reject

LOCAL = {"127.0.0.1", "localhost", "[::1]"}
_PORTS = 1 << 16


@contextlib.contextmanager
def sayable_address(host: str, port: int) -> Iterator[None]:
    """Around what begins to listen: says which of the two is none to listen at."""
    if not 0 <= port < _PORTS:
        reject("port", f"must be from 0 to {_PORTS - 1}", port)
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reject("port", f"must be free on {host}", port)
        if error.errno in (errno.EACCES, errno.EPERM):
            reject("port", "must be one that this user may listen at", port)
        reject("host", f"must be an address of this machine ({error.strerror})", host)


def in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address
