import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from kerasmlp.serving.server.rest_answers import Busy


class Places:
    """For whoever waits for a client; of the address that has most, who is there longest leaves.

    Args:
        most: That wait at one time.

    Example:

    >>> async def wait(places, address, seconds):
    ...     try:
    ...         async with places.place(address):
    ...             await asyncio.sleep(seconds)
    ...             return f"{address} came"
    ...     except Busy:
    ...         return f"{address} left"
    >>> async def three(places):
    ...     asked = ("many", 60), ("many", 0.02), ("few", 0.01)
    ...     return await asyncio.gather(*(wait(places, *one) for one in asked))
    >>> asyncio.run(three(Places(2)))
    ['many left', 'many came', 'few came']
    """

    def __init__(self, most: int):
        self._most = most
        self._waiting: dict[str, list[asyncio.Timeout]] = {}

    @contextlib.asynccontextmanager
    async def place(self, address: str) -> AsyncIterator[None]:
        """Waits at a place, which ends with the block.

        Raises:
            Busy: in the block, if another is given the place.
        """
        try:
            async with asyncio.timeout(None) as patience:
                self._waiting.setdefault(address, []).append(patience)
                self._make_room()
                try:
                    yield
                finally:
                    self._leave(address, patience)
        except TimeoutError:
            if patience.expired():
                raise Busy from None
            raise

    def _make_room(self) -> None:
        if sum(map(len, self._waiting.values())) > self._most:
            largest = max(self._waiting, key=lambda address: len(self._waiting[address]))
            patience = self._waiting[largest][0]
            self._leave(largest, patience)
            patience.reschedule(asyncio.get_running_loop().time())

    def _leave(self, address: str, patience: asyncio.Timeout) -> None:
        there = self._waiting.get(address, [])
        if patience in there:
            there.remove(patience)
            if not there:
                del self._waiting[address]


class Shares:
    """Of a room that none can be told to leave; where it is full, each address may have as much.

    Args:
        most: That are there at one time, as long as they come from one address.

    Example:

    >>> shares = Shares(2)
    >>> with shares.share("many"), shares.share("many"), shares.share("few"):
    ...     with shares.share("many"):
    ...         pass
    Traceback (most recent call last):
    kerasmlp.serving.server.rest_answers.Busy: too many requests at one time, try again
    """

    def __init__(self, most: int):
        self._most = most
        self._held: Counter[str] = Counter()

    @contextlib.contextmanager
    def share(self, address: str) -> Iterator[None]:
        """Holds one until the block ends.

        Raises:
            Busy: if the room is full, and the address has its share.
        """
        held = self._held
        if held.total() >= self._most and held[address] * len(held) >= self._most:
            raise Busy
        held[address] += 1
        try:
            yield
        finally:
            held[address] -= 1
            if not held[address]:
                del held[address]
