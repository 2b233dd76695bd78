"""Bodies that arrive: bounded in size, in time, and all together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from aiohttp import web

from kerasmlp.serving.batching import Busy
from kerasmlp.serving.connections import Connection

_BODIES = 8  # of the largest size that may be in memory at one time
_FIRST_S, _BYTES_PER_S = 5.0, 1 << 16  # the slowest that a body may come


class Bodies:
    """Reads bodies; where they need too much memory, the largest of the address with most leaves.

    Args:
        max_body_bytes: Of one; of all, eight times that.
        timeout_s: For one; less where it is small.
    """

    def __init__(self, max_body_bytes: int, timeout_s: float):
        self._most = _BODIES * max_body_bytes
        self._timeout_s = timeout_s
        self._held: Counter[Connection] = Counter()

    @contextlib.asynccontextmanager
    async def read(self, request: web.Request, size: int) -> AsyncIterator[bytes]:
        """Yields a body, which counts until the block ends.

        Raises:
            TimeoutError: if it does not come in time.
            Busy: if others need the room.
        """
        connection, parts = request.protocol, []
        try:
            async with asyncio.timeout(min(self._timeout_s, _FIRST_S + size / _BYTES_PER_S)):
                async for part in request.content.iter_any():  # `read` would keep it for long
                    parts.append(part)
                    self._held[connection] += len(part)
                    if self._held.total() > self._most:
                        self._make_room(connection)
            yield b"".join(parts)
        finally:
            del self._held[connection]

    def _make_room(self, newest: Connection) -> None:
        by_address: Counter[str] = Counter()
        for connection, size in self._held.items():
            by_address[connection.address] += size
        ((most, _),) = by_address.most_common(1)
        of_most = {c: size for c, size in self._held.items() if c.address == most}
        largest = max(of_most, key=of_most.get)
        if largest is newest:
            raise Busy
        largest.wire.abort()
