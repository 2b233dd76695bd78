import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from kerasmlp.serving.server.rest_answers import Busy


@dataclass(eq=False)
class Place:
    """Of one message: it comes, waits to be worked on, or is worked on."""

    patience: asyncio.Timeout
    comes: bool
    begun: bool = False
    given_away: bool = False

    def begin(self) -> None:
        """From now on it is given to nobody else.

        Raises:
            Busy: if it was.
        """
        if self.given_away:
            raise Busy
        self.begun = True


class Places:
    """For messages; where all are taken, one more has that of one of the address that has most.

    Of those that still come the oldest leaves. If all are there, the newest
    leaves that is not worked on, if the one more is of another address: so
    whoever asks too much does not lose what waits longest.

    Args:
        most: That are there at one time.

    Example:

    >>> async def wait(places, address, seconds, comes=True):
    ...     try:
    ...         async with places.place(address, comes=comes):
    ...             await asyncio.sleep(seconds)
    ...             return f"{address} came"
    ...     except Busy:
    ...         return f"{address} left"
    >>> async def all_of(*asked):
    ...     places = Places(2)
    ...     return await asyncio.gather(*(wait(places, *one) for one in asked))
    >>> asyncio.run(all_of(("many", 60), ("many", 0.02), ("few", 0.01)))
    ['many left', 'many came', 'few came']
    >>> asyncio.run(all_of(("many", 0.02, False), ("many", 60, False), ("many", 60), ("few", 0.01)))
    ['many came', 'many left', 'many left', 'few came']
    """

    def __init__(self, most: int):
        self._most = most
        self._there: dict[str, list[Place]] = {}

    @contextlib.asynccontextmanager
    async def place(self, address: str, *, comes: bool = True) -> AsyncIterator[Place]:
        """Has a place, which ends with the block.

        Args:
            address: Whose message it is.
            comes: Whether it still does.

        Raises:
            Busy: in the block, if another is given the place, or there is none.
        """
        try:
            async with asyncio.timeout(None) as patience:
                place = Place(patience, comes)
                self._there.setdefault(address, []).append(place)
                try:
                    self._make_room(place)
                    yield place
                finally:
                    self._leave(address, place)
        except TimeoutError:
            if patience.expired():
                raise Busy from None
            raise

    def _make_room(self, newest: Place) -> None:
        if sum(map(len, self._there.values())) <= self._most:
            return

        def has(address: str) -> tuple[int, bool]:
            there = self._there[address]
            return len(there), any(one.comes for one in there)

        largest = max(self._there, key=has)
        there = self._there[largest]
        coming = (one for one in there if one.comes)
        waiting = (one for one in reversed(there) if not one.begun)
        gives_way = next(coming, None) or next(waiting, newest)
        if gives_way is newest:
            raise Busy
        self._leave(largest, gives_way)
        gives_way.given_away = True
        gives_way.patience.reschedule(asyncio.get_running_loop().time())

    def _leave(self, address: str, place: Place) -> None:
        there = self._there.get(address, [])
        if place in there:
            there.remove(place)
            if not there:
                del self._there[address]


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

    def check(self, address: str) -> None:
        """Raises `Busy` if the room is full, and the address has its share."""
        held = self._held
        if held.total() >= self._most and held[address] * len(held) >= self._most:
            raise Busy

    @contextlib.contextmanager
    def share(self, address: str) -> Iterator[None]:
        """Holds one until the block ends.

        Raises:
            Busy: if the room is full, and the address has its share.
        """
        self.check(address)
        held = self._held
        held[address] += 1
        try:
            yield
        finally:
            held[address] -= 1
            if not held[address]:
                del held[address]
