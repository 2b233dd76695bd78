from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

Client = tuple[str, Hashable]
"""An address and a connection from there."""

_DEBTS = 1024  # that are remembered, of addresses and of each address's connections


@dataclass
class _Lane:
    """Of one connection; `given` is what its items have cost so far."""

    given: float
    items: deque = field(default_factory=deque)


@dataclass
class _Address:
    given: float
    now: float = 0.0  # what the connection that was served last had been given
    lanes: dict[Hashable, _Lane] = field(default_factory=dict)
    owed: dict[Hashable, float] = field(default_factory=dict)


class FairQueue:
    """Items of clients, none of which gets more than others that wait, whatever each item costs.

    Who comes anew begins where the others stand, or behind them with what it
    was given more than they: to have been away earns nothing, nor does it cost.

    Example:

    >>> queue = FairQueue()
    >>> for client, item in (("heavy", 1), "A"), (("heavy", 1), "B"), (("small", 2), "c"):
    ...     queue.push(client, item)
    >>> [item for _, item in queue.in_turn()]
    ['A', 'c']
    >>> queue.charge(("heavy", 1), 1000), queue.drop(("heavy", 1), "A")
    (None, None)
    >>> [item for _, item in queue.in_turn()]
    ['c', 'B']
    """

    def __init__(self):
        self._addresses: dict[str, _Address] = {}
        self._owed: dict[Hashable, float] = {}
        self._now = 0.0

    def push(self, client: Client, item: Any) -> None:
        name, connection = client
        if name not in self._addresses:
            self._addresses[name] = _Address(max(self._now, self._owed.pop(name, 0.0)))
        address = self._addresses[name]
        if connection not in address.lanes:
            given = max(address.now, address.owed.pop(connection, 0.0))
            address.lanes[connection] = _Lane(given)
        address.lanes[connection].items.append(item)

    def in_turn(self) -> list[tuple[Client, Any]]:
        """The oldest item of each connection, in the order of their turns."""
        turns = [
            (address.given, lane.given, (name, connection), lane.items[0])
            for name, address in self._addresses.items()
            for connection, lane in address.lanes.items()
        ]
        turns.sort(key=lambda turn: turn[:2])
        return [turn[2:] for turn in turns]

    def charge(self, client: Client, cost: float) -> None:
        """Of what was computed for an item that waits."""
        name, connection = client
        address = self._addresses[name]
        lane = address.lanes[connection]
        self._now, address.now = max(self._now, address.given), max(address.now, lane.given)
        address.given += cost
        lane.given += cost

    def drop(self, client: Client, item: Any) -> None:
        """Of an item that is done, or that nobody waits for any more."""
        name, connection = client
        address = self._addresses[name]
        lane = address.lanes[connection]
        lane.items.remove(item)
        if not lane.items:
            del address.lanes[connection]
            _remember(address.owed, connection, lane.given, address.now)
        if not address.lanes:
            del self._addresses[name]
            _remember(self._owed, name, address.given, self._now)

    def __iter__(self) -> Iterator[tuple[Client, Any]]:
        for name, address in self._addresses.items():
            for connection, lane in address.lanes.items():
                yield from (((name, connection), item) for item in lane.items)


def _remember(owed: dict[Hashable, float], who: Hashable, given: float, now: float) -> None:
    """What one was given, while it is more than others were; of many, the last ones."""
    if given > now:
        owed[who] = given
        if len(owed) > _DEBTS:
            del owed[next(iter(owed))]
