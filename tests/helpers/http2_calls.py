"""Calls of gRPC written by hand, from any address of this machine."""

import contextlib
import socket

from kerasmlp.serving.server.grpc_messages import SERVICE

_DATA, _HEADERS, _RESET, _SETTINGS = 0, 1, 3, 4
_ENDS, _HEAD_ENDS = 1, 4  # flags
_NOTHING = (4).to_bytes(2, "big") + bytes(4)  # bytes of an answer may come before more are asked


def _frame(kind, flags, stream, content=b""):
    return (
        len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content
    )


def _field(name, value):
    return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


@contextlib.contextmanager
def calls(port, address, method, count, message=None, *, takes_answers=True):
    """Yields a connection with so many calls, each with a message, or silent for ever."""
    fields = {":method": "POST", ":scheme": "http", ":path": f"/{SERVICE}/{method}"}
    fields |= {":authority": "localhost", "te": "trailers", "content-type": "application/grpc"}
    head = b"".join(_field(*one) for one in fields.items())
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(
        _SETTINGS, 0, 0, b"" if takes_answers else _NOTHING
    )
    for stream in range(1, 2 * count, 2):
        sent += _frame(_HEADERS, _HEAD_ENDS, stream, head)
        if message is not None:
            content = b"\0" + len(message).to_bytes(4, "big") + message
            sent += _frame(_DATA, _ENDS, stream, content)
    where = ("127.0.0.1", port)
    with socket.create_connection(where, timeout=20, source_address=(address, 0)) as connection:
        connection.sendall(sent)
        yield connection


def wait_for_ends(connection, count):
    """Until the server has ended so many of the calls; returns how many were answered."""
    ended, answered = set(), set()
    with connection.makefile("rb") as frames:
        while len(ended) < count:
            head = frames.read(9)
            assert len(head) == 9, "the connection was closed"
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            frames.read(int.from_bytes(head[:3], "big"))
            if kind == _DATA:
                answered.add(stream)
            if kind == _RESET or (kind == _HEADERS and flags & _ENDS):
                ended.add(stream)
    return len(answered)
