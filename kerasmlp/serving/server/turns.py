import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from kerasmlp.serving.server.fair_queue import Client, FairQueue


class Turns:
    """Lets clients in, as many as there is room for; see `FairQueue` for whose turn it is.

    Args:
        most: The share of the room that one address may have; who needs more has it alone.

    Example:

    >>> async def work(turns, client, cost):
    ...     async with turns.turn(client, share=1.0, cost=cost):
    ...         print(client[0], cost)
    ...         await asyncio.sleep(0)
    >>> async def three(turns):
    ...     asked = ("many", 1, 9), ("many", 2, 8), ("few", 3, 1)
    ...     await asyncio.gather(*(work(turns, one[:2], one[2]) for one in asked))
    >>> asyncio.run(three(Turns()))
    many 9
    few 1
    many 8
    """

    def __init__(self, most: float = 1.0):
        self._most = most
        self._queue = FairQueue()
        self._held: Counter[str] = Counter()
        self.is_full = False
        """Whether somebody waits for others to leave."""

    @contextlib.asynccontextmanager
    async def turn(self, client: Client, *, share: float, cost: float) -> AsyncIterator[None]:
        """Waits for a turn with a share of the room, which ends with the block."""
        begun = asyncio.get_running_loop().create_future()
        entry = begun, share, cost
        self._queue.push(client, entry)
        self._let_in()
        try:
            await begun
            yield
        finally:
            self._queue.drop(client, entry)
            if not begun.cancelled():
                self._held[client[0]] -= share
                if self._held[client[0]] < 1e-9:
                    del self._held[client[0]]
            self._let_in()

    def _let_in(self) -> None:
        self.is_full = False
        for client, entry in self._queue.in_turn():
            begun, share, cost = entry
            held = self._held[client[0]]
            if begun.done() or (held and held + share > self._most + 1e-9):
                continue
            if self._held and self._held.total() + share > 1 + 1e-9:
                self.is_full = True
                return
            self._held[client[0]] = held + share
            self._queue.charge(client, cost)
            begun.set_result(None)
