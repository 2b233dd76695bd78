"""What to say where a service cannot listen."""

from __future__ import annotations

import errno
from typing import NoReturn

from kerasmlp.utils.checks import reject

_PORTS = 1 << 16


def check_port(port: int) -> int:
    """Returns a port that there is, 0 for a free one."""
    if not 0 <= port < _PORTS:
        reject("port", f"must be from 0 to {_PORTS - 1}", port)
    return port


def reject_address(error: OSError, host: str, port: int) -> NoReturn:
    """Says which of the two a service cannot listen at."""
    if error.errno == errno.EADDRINUSE:
        reject("port", f"must be free on {host}", port)
    if error.errno in (errno.EACCES, errno.EPERM):
        reject("port", "must be one that this user may listen at", port)
    reject("host", f"must be an address of this machine ({error.strerror})", host)
