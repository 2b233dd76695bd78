"""Where a service listens, and what it is called there."""

import contextlib
import errno
import socket
from collections.abc import Iterator

from kerasmlp.utils.checks import reject

LOCAL = {"127.0.0.1", "localhost", "[::1]"}
_PORTS = 1 << 16


@contextlib.contextmanager
def sayable_address(host: str, port: int, name: str = "port") -> Iterator[None]:
    """Around what begins to listen: says which of the two is none to listen at.

    Args:
        host: Where.
        port: At which.
        name: Of the port, as it was given.
    """
    if not 0 <= port < _PORTS:
        reject(name, f"must be from 0 to {_PORTS - 1}", port)
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reject(name, f"must be free on {host}", port)
        if error.errno in (errno.EACCES, errno.EPERM):
            reject(name, "must be one that this user may listen at", port)
        reject("host", f"must be an address of this machine ({error.strerror})", host)


def in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def sockets_at(host: str, port: int) -> list[socket.socket]:
    """Listens at each address of a host, at one port; 0 takes a free one."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listening: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((one[0], one[4]) for one in found):
            where = address[0], port
            listening.append(
                socket.create_server(where, family=family, backlog=1024, reuse_port=False)
            )
            port = listening[-1].getsockname()[1]
    except OSError:
        for one in listening:
            one.close()
        raise
    return listening
