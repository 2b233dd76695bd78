import asyncio
import logging
import socket
from collections.abc import Callable

from kerasmlp.serving.server.address import sockets_at
from kerasmlp.serving.server.connections import Connections, client_address

_AT_ONCE = 16
_SWEEP_S = 1.0
_FULL_S = 0.2  # no further connection is taken where this process can open no file

_log = logging.getLogger("kerasmlp.serving")


class Listener:
    """Takes connections at an address, as many as there is room for.

    asyncio's own server writes a traceback for each connection that it cannot
    take, thousands of them in a second.
    """

    def __init__(self, connections: Connections, made: Callable[[], asyncio.Protocol]):
        self._connections = connections
        self._made = made
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._coming: set[asyncio.Task] = set()
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)

    def open(self, host: str, port: int) -> tuple[str, int]:
        """Returns the address and the port, which is another where 0 was asked for."""
        self._sockets = sockets_at(host, port)
        for listening in self._sockets:
            listening.setblocking(False)
            self._loop.add_reader(listening, self._take, listening)
        return self._sockets[0].getsockname()[:2]

    def _take(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                taken, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.warning("no further connection can be taken: %s", error.strerror)
                self._connections.drop_idle()
                self._loop.remove_reader(listening)
                self._loop.call_later(_FULL_S, self._again, listening)
                return
            if not self._connections.has_room(client_address(peer)):
                _log.warning("there is no room for a connection from %s", peer[0])
                taken.close()
                continue
            taken.setblocking(False)
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._made, taken))
            self._coming.add(task)
            task.add_done_callback(self._came)

    def _came(self, task: asyncio.Task) -> None:
        self._coming.discard(task)
        if not task.cancelled():
            task.exception()  # whoever left in this moment

    def _again(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._take, listening)

    def _sweep(self) -> None:
        self._connections.sweep()
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)

    def close(self) -> None:
        """Takes no further connection."""
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets = []

    def stop(self) -> None:
        self.close()
        self._sweeping.cancel()
