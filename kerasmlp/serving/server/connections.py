"""Who is connected, and who must leave when there is no room or nothing moves."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import struct
import termios
import time
from collections import Counter

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from kerasmlp.serving.server.fair_queue import Client
from kerasmlp.serving.server.rest_answers import JsonAnswer

KEPT_S = 75  # an idle connection
_HEAD_S = 10.0  # from the first byte of a request to the end of its head
_STUCK_S = 10.0  # of an answer of which nothing is taken
_LOOK_S = 0.005
_MANY = 128  # connections
_REFUSALS_PER_S, _HELD_S = 25.0, 8.0
_MAX_UNSENT = 64 << 20  # bytes of answers that nobody has taken yet

_numbers = itertools.count()


def client_address(peer: tuple | None) -> str:
    """The address to take turns by: one person has 2^64 of IPv6.

    Example:

    >>> client_address(("192.0.2.1", 80)), client_address(("2001:db8:1:2:3::4", 80, 0, 0))
    ('192.0.2.1', '2001:db8:1:2')
    """
    address = peer[0] if peer else ""
    return ":".join(address.split(":")[:4]) if ":" in address else address


class Connection(RequestHandler):
    """One connection: aiohttp's, but it can be looked at, and says errors in JSON."""

    def __init__(self, connections: Connections, server: web.Server, **how):
        super().__init__(server, loop=asyncio.get_running_loop(), **how)
        self._connections = connections
        self.wire: asyncio.Transport | None = None
        self.address, self.number = "", next(_numbers)
        self.is_asking = False
        self.idle_since = time.monotonic()
        self.head_since: float | None = None
        self.unsent, self.stuck_since = 0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire = transport
        self.address = client_address(transport.get_extra_info("peername"))
        self._connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if data and not self.is_asking and self.head_since is None:
            self.head_since = time.monotonic()
        super().data_received(data)

    def begins(self) -> None:
        """A request has come whole, but for its body."""
        self.is_asking, self.head_since = True, None

    def ends(self) -> None:
        self.is_asking, self.idle_since = False, time.monotonic()

    @property
    def client(self) -> Client:
        """To take turns by."""
        return self.address, self.number

    def untaken(self) -> int:
        """Bytes of answers that have not arrived at the other side."""
        unsent = self.wire.get_write_buffer_size()
        try:
            number = self.wire.get_extra_info("socket").fileno()
            return unsent + struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))[0]
        except (OSError, ValueError):  # it is closed
            return unsent

    async def taken(self) -> None:
        """Waits until the last answer has arrived: else much is computed for who reads none."""
        pause_s = _LOOK_S
        while self.untaken():
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _STUCK_S / 10)

    def hold_s(self) -> float:
        """How long an answer that refuses is held back."""
        return self._connections.hold_s()

    def handle_error(self, request, status=500, exc=None, message=None) -> web.StreamResponse:
        """Of what is no HTTP; the service tells of the rest."""
        self.logger.warning("what is no HTTP came from %s", self.address)
        text = " ".join(str(message or "").split())[:100] if status < 500 else ""
        sentence = f"the request must be HTTP. Received: {text or 'something else'}"
        answer = JsonAnswer({"error": sentence}, status, held_s=self.hold_s())
        answer.force_close()
        return answer


class Connections:
    """All of them, bounded; of whoever has most, the one that was idle for longest leaves first.

    Args:
        most: That are open at one time.
    """

    def __init__(self, most: int):
        self._most = most
        self._open: set[Connection] = set()
        self._count: Counter[str] = Counter()
        self._refusals, self._refused_at = 0.0, 0.0

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> None:
        self._open.add(connection)
        self._count[connection.address] += 1

    def remove(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)
            self._count[connection.address] -= 1
            if not self._count[connection.address]:
                del self._count[connection.address]

    def has_room(self, address: str) -> bool:
        """Whether one from there may be taken, for which another may have had to leave."""
        if len(self._open) < self._most:
            return True
        largest, count = self._count.most_common(1)[0]
        if self._count[address] >= count:
            largest = address
        return self.drop_idle(largest) or (largest != address and self._drop_oldest(largest))

    def _drop_oldest(self, address: str) -> bool:
        """Ends one that asks, of an address that holds more than half of the room."""
        asking = [one for one in self._open if one.address == address and not one.wire.is_closing()]
        if 2 * len(asking) <= self._most:
            return False
        min(asking, key=lambda one: one.idle_since).wire.abort()
        return True

    def hold_s(self) -> float:
        """Seconds to hold back one more answer that refuses.

        None where few are connected. Else the longer, the more of them there were in the last
        seconds: who asks nonsense again as soon as it is refused has the others' time.
        """
        now = time.monotonic()
        self._refusals = 1 + self._refusals * 0.5 ** (now - self._refused_at)
        self._refused_at = now
        if len(self._open) < _MANY:
            return 0.0
        return min(self._refusals / _REFUSALS_PER_S, _HELD_S)

    def drop_idle(self, address: str | None = None) -> bool:
        """Ends the connection that asked nothing for longest; False if all are asking."""
        idle = [
            one
            for one in self._open
            if not one.is_asking and not one.wire.is_closing() and address in (None, one.address)
        ]
        if idle:
            min(idle, key=lambda one: one.idle_since).wire.abort()
        return bool(idle)

    def sweep(self) -> None:
        """Ends those whose requests do not arrive, or whose answers nobody takes."""
        now, total = time.monotonic(), 0
        for one in self._open:
            unsent = one.untaken()
            if unsent < one.unsent or not (unsent and one.unsent):
                one.stuck_since = now
            one.unsent = unsent
            late = one.head_since is not None and now - one.head_since > _HEAD_S
            if late or (unsent and now - one.stuck_since > _STUCK_S):
                one.wire.abort()
            total += unsent
        for one in sorted(self._open, key=lambda one: one.unsent, reverse=True):
            if total <= _MAX_UNSENT:
                break
            if now > one.stuck_since:
                one.wire.abort()
                total -= one.unsent
