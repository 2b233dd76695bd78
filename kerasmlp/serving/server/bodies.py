import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from aiohttp import web

from kerasmlp.serving.server.fair_queue import Client
from kerasmlp.serving.server.json_process import JsonProcess, decode_by_form
from kerasmlp.serving.server.questions import Form, Question
from kerasmlp.serving.server.rest_answers import Busy
from kerasmlp.serving.server.turns import Turns

T = TypeVar("T")
_LARGE = 1 << 16  # bytes; smaller ones cost about as much as what else a request needs
_BODIES = 4  # of the largest size that may be in memory at one time
_MOST = 0.25  # of that memory for one address
_FIRST_S, _BYTES_PER_S = 5.0, 1 << 16  # the slowest that a body may come
_FULL_S, _FULL_BYTES_PER_S = 1.0, 1 << 19  # where others wait for that memory, the slowest


@dataclass(eq=False)
class _Coming:
    """A large body on its way."""

    size: int
    since: float
    patience: asyncio.Timeout
    came: int = 0

    def left_s(self, now: float) -> float:
        """Until it is there, at its pace so far; 0 of one that is young or not slow."""
        waited_s = now - self.since
        if waited_s <= _FULL_S or self.came > waited_s * _FULL_BYTES_PER_S:
            return 0.0
        return (self.size - self.came) / max(self.came, 1) * waited_s


class Bodies:
    """Reads and decodes bodies: small ones at once, large ones in turns.

    A large one lies at its sender until it is let in, and is decoded in a
    process of its own: small ones wait for none of that. While others wait to
    be let in, whoever sends slowest is refused.

    Args:
        max_body_bytes: Of one; of all large ones, four times that.
        timeout_s: For one to arrive, less where it is small, and for its turns.
    """

    def __init__(self, max_body_bytes: int, timeout_s: float):
        self._room = _BODIES * max_body_bytes
        self._timeout_s = timeout_s
        self._in_memory, self._decoded = Turns(_MOST), Turns()
        self._coming: set[_Coming] = set()
        self._looks = False
        self._process = JsonProcess()

    async def question(self, request: web.Request, size: int, form: Form) -> Question:
        """Reads and decodes a body; see `decode_by_form`.

        Raises:
            InputError: if it cannot be understood.
            TimeoutError: if it does not come in time.
            Busy: if its turn does not.
        """
        if size <= _LARGE:
            return decode_by_form(await self._read(request, size), form)
        if form.json_bytes is not None and form.json_bytes <= _LARGE:
            return await self.work(request, size, None, partial(decode_by_form, form=form))
        return await self.work(
            request, size, self._decoded, partial(self._process.decode, form=form)
        )

    async def decoded(
        self, client: Client, body: bytes, form: Form, begins: Callable[[], None]
    ) -> Question:
        """Decodes a body that is there.

        Args:
            client: To take turns by.
            body: What it sent.
            form: That the body has.
            begins: Called when it has its turn, where it must wait for one.

        Raises:
            InputError: if it cannot be understood.
            Busy: if its turn does not come.
        """
        size = len(body)
        if size <= _LARGE or (form.json_bytes is not None and form.json_bytes <= _LARGE):
            return decode_by_form(body, form)
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._decoded.turn(client, share=1.0, cost=size):
                    begins()
                    return await _to_its_end(partial(self._process.decode, body, form))
        except TimeoutError:
            raise Busy from None

    async def work(
        self, request: web.Request, size: int, turns: Turns | None, work: Callable[[bytes], T]
    ) -> T:
        """Reads a large body when it is let in, and returns what is made of it.

        Args:
            request: Whose body it is.
            size: Of the body, in bytes.
            turns: Of those who wait for the same work, done in a thread; None where it takes no
                time.
            work: What is done with the body.

        Raises:
            TimeoutError: if it does not come in time.
            Busy: if its turn does not.
        """
        client, loop = request.protocol.client, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s) as waiting:
                async with self._in_memory.turn(client, share=size / self._room, cost=size):
                    waiting.reschedule(None)
                    body = await self._read(request, size)
                    if turns is None:
                        return work(body)
                    waiting.reschedule(loop.time() + self._timeout_s)
                    async with turns.turn(client, share=1.0, cost=size):
                        return await _to_its_end(partial(work, body))
        except TimeoutError:
            if waiting.expired():
                raise Busy from None
            raise

    async def _read(self, request: web.Request, size: int) -> bytes:
        loop, parts = asyncio.get_running_loop(), []
        async with asyncio.timeout(
            min(self._timeout_s, _FIRST_S + size / _BYTES_PER_S)
        ) as patience:
            one = _Coming(size, loop.time(), patience)
            if size > _LARGE:
                self._coming.add(one)
                if not self._looks:
                    self._look()
            try:
                async for part in request.content.iter_any():  # `read` would keep it for long
                    one.came += len(part)
                    parts.append(part)
            finally:
                self._coming.discard(one)
        return b"".join(parts)

    def _look(self) -> None:
        """Whoever would fill a full room for longest gives way."""
        self._looks = bool(self._coming)
        if not self._looks:
            return
        loop = asyncio.get_running_loop()
        loop.call_later(_FULL_S, self._look)
        slowest = max(self._coming, key=lambda one: one.left_s(loop.time()))
        gives_way = self._in_memory.is_full and slowest.left_s(loop.time()) > _FULL_S
        if gives_way and not slowest.patience.expired():
            slowest.patience.reschedule(loop.time())

    def stop(self) -> None:
        self._process.stop()


async def _to_its_end(work: Callable[[], T]) -> T:
    """What a thread makes; whoever is cancelled waits for it, as it keeps its memory till then."""
    made = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(made)
    except asyncio.CancelledError:
        while not made.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([made])
        made.exception()  # else it is said that nobody looked at it
        raise
