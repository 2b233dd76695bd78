"""Calls of gRPC written by hand, from any address of this machine."""

import contextlib
import socket

from kerasmlp.serving.server.grpc_messages import SERVICE

_DATA, _HEADERS, _RESET, _SETTINGS, _PING = 0, 1, 3, 4, 6
_ENDS, _HEAD_ENDS = 1, 4  # flags
_NOTHING = (4).to_bytes(2, "big") + bytes(4)  # bytes of an answer may come before more are asked


def _frame(kind, flags, stream, content=b""):
    return (
        len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content
    )


def _field(name, value):
    return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


class Calls:
    """What the server says on one connection."""

    def __init__(self, frames):
        self._frames = frames
        self.ended, self.answered, self.seen = set(), set(), set()

    def _read(self):
        head = self._frames.read(9)
        if not head:
            return False
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        self._frames.read(int.from_bytes(head[:3], "big"))
        self.seen.add((kind, flags))
        if kind == _DATA:
            self.answered.add(stream)
        if kind == _RESET or (kind == _HEADERS and flags & _ENDS):
            self.ended.add(stream)
        return True

    def wait_for_pong(self):
        while (_PING, 1) not in self.seen:
            assert self._read(), "the connection was closed"

    def wait_for_ends(self, count):
        """Until the server has ended so many of the calls; returns how many were answered."""
        while len(self.ended) < count:
            assert self._read(), "the connection was closed"
        return len(self.answered)

    def wait_for_close(self):
        while self._read():
            pass


@contextlib.contextmanager
def calls(port, address, method, count, message=None, *, takes_answers=True):
    """So many on one connection, each with a message, or silent for ever, once all are there."""
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
        connection.sendall(sent + _frame(_PING, 0, 0, bytes(8)))
        with connection.makefile("rb") as frames:
            made = Calls(frames)
            made.wait_for_pong()
            yield made
