import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from kerasmlp.serving.server.fair_queue import Client, FairQueue
from kerasmlp.serving.server.limits import Limits
from kerasmlp.serving.server.questions import Question
from kerasmlp.serving.server.rest_answers import Busy
from kerasmlp.serving.server.served_version import ServedVersion

_MANY_ROWS = 8
_TURNS = 4  # of the event loop: what lies at the sockets already comes along
_PATIENCE = 32  # times its own passes: for longer nobody waits for a piece of another's request
_PIECE = 1 << 10  # passes; to compute less at one time costs more than it helps
_REST = 6  # times as long as such a piece took, none is computed
_SMALL, _RECENTLY_S = 64, 1.0
_BODIES = 8  # of the largest size may wait
_PASSES_PER_S = 1 << 17  # more wait in vain: they would not be computed within the time limit


@dataclass(eq=False)
class _Job:
    version: ServedVersion
    question: Question
    answer: asyncio.Future
    done: int = 0
    """Rows."""
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)

    def __post_init__(self):
        self.passes_per_row = self.question.passes // self.question.rows
        self.bytes = sum(values.nbytes for values in self.question.inputs.values())

    @property
    def left(self) -> int:
        return self.question.rows - self.done

    @property
    def passes(self) -> int:
        """Not computed yet."""
        return self.left * self.passes_per_row

    @property
    def key(self) -> tuple:
        """Jobs of one key may be merged."""
        same = self.version, self.question.signature
        if "seed" not in self.question.inputs:
            return same
        # All rows of a batch take as many passes as the one that wants most, and many rows of
        # one seed draw their masks once, unless others come between.
        passes, seeds = (self.question.inputs[name] for name in ("num_samples", "seed"))
        alike = len(seeds) >= _MANY_ROWS and (seeds == seeds[0]).all()
        return *same, passes.max(), seeds[0] if alike else None


class Batcher:
    """Computes questions in one thread, several at once, in fair turns between clients.

    Nobody waits for company: while one batch is computed, the next gathers.
    While small questions come, a large one is computed in pieces, between
    which they have their turns (see `FairQueue`; what is charged is rows ×
    passes), and after which large ones rest. Answers do not depend on it: the
    deterministic ones to the bit (see `ServedVersion`), the means of MC dropout
    to rounding, as the order in which passes are summed up depends on how many
    rows there are.

    One more request, or more bytes, than the limits let wait take the place
    of one of the address that has most, or are refused; so is what would
    take longer than their `timeout_s`.

    Args:
        limits: Of requests.
        seen: Called with the rows of every batch.
    """

    def __init__(self, limits: Limits, seen: Callable[[int], None] = lambda rows: None):
        self._limits, self._seen = limits, seen
        self._queue = FairQueue()
        self._passes, self._taken = 0, 0.0  # of all that waits or is computed
        self._least, self._least_until = limits.max_passes, 0.0
        self._rests = False
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tensorflow")
        self._worker: asyncio.Task | None = None
        self._stopping = False

    async def start(self) -> None:
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Ends the thread; answers whatever came before."""
        self._stopping = True
        self._arrived.set()
        await self._worker
        await asyncio.to_thread(self._thread.shutdown)

    def _least_passes(self) -> int:
        """Of the smallest question that waits or came just now."""
        waiting = (job.question.passes for _, job in self._queue if not job.answer.done())
        came = self._least if time.monotonic() < self._least_until else self._limits.max_passes
        return came if came <= _SMALL else min((came, *waiting))

    @property
    def waiting_rows(self) -> int:
        return sum(job.left for _, job in self._queue)

    async def ask(
        self, version: ServedVersion, question: Question, client: Client | None = None
    ) -> dict[str, np.ndarray]:
        """Answers a question; whoever stops waiting before it is computed leaves the queue.

        Raises:
            Busy: if it would wait in vain, or others have a better right to wait.
        """
        job = _Job(version, question, asyncio.get_running_loop().create_future())
        client = client or ("", object())
        self._admit(client[0], job)
        now = time.monotonic()
        if job.passes <= self._least or now > self._least_until:
            self._least, self._least_until = job.passes, now + _RECENTLY_S
        passes, share = job.passes, self._share(job)
        self._queue.push(client, job)
        self._passes, self._taken = self._passes + passes, self._taken + share
        self._arrived.set()
        try:
            return await job.answer
        finally:
            self._queue.drop(client, job)
            self._passes, self._taken = self._passes - passes, self._taken - share

    def _share(self, job: _Job) -> float:
        """Of all that may wait."""
        max_bytes = _BODIES * self._limits.max_body_bytes
        return max(1 / self._limits.max_requests, job.bytes / max_bytes)

    def _admit(self, address: str, job: _Job) -> None:
        most = _PASSES_PER_S * self._limits.timeout_s
        if self._passes and self._passes + job.passes > most:
            # Before it is done, each of the others is given as much as it, if it wants as much.
            ahead = sum(min(other.passes, job.passes) for _, other in self._queue)
            if ahead + job.passes > most:
                raise Busy
        if self._taken + self._share(job) < 1 + 1e-9:
            return
        shares: dict[str, float] = {}
        waiting = [(name, one) for (name, _), one in self._queue if not one.answer.done()]
        for name, one in waiting:
            shares[name] = shares.get(name, 0.0) + self._share(one)
        largest = max(shares, key=shares.get, default=address)
        if shares.get(address, 0.0) + self._share(job) >= shares.get(largest, 0.0):
            raise Busy
        [one for name, one in waiting if name == largest][-1].answer.set_exception(Busy())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            pieces = self._next()
            if not pieces:
                if self._stopping and not self._rests:
                    return
                self._arrived.clear()
                continue
            self._seen(sum(len(rows) for _, rows in pieces))
            began = loop.time()
            try:
                answers = await loop.run_in_executor(self._thread, _compute, pieces)
            except Exception as error:  # such as too little memory for the arrays themselves
                answers = [error] * len(pieces)
            if pieces[0][0].question.passes > _SMALL >= self._least_passes():
                self._rests = True
                loop.call_later(_REST * (loop.time() - began), self._rested)
            for (job, _), answer in zip(pieces, answers, strict=True):
                if job.answer.done():
                    continue
                if isinstance(answer, Exception):
                    job.answer.set_exception(answer)
                    continue
                job.parts.append(answer)
                if job.left:
                    continue
                try:
                    job.answer.set_result(_whole(job.parts))
                except MemoryError as error:
                    job.answer.set_exception(error)

    def _rested(self) -> None:
        self._rests = False
        self._arrived.set()

    def _next(self) -> list[tuple[_Job, range]]:
        """Whose turn it is, and those that can be merged with it."""
        chosen: list[tuple[_Job, range]] = []
        rows, passes = 0, 0
        most = min(max(_PATIENCE * self._least_passes(), _PIECE), self._limits.max_passes)
        for client, job in self._queue.in_turn():
            if job.answer.done() or (self._rests and job.question.passes > _SMALL):
                continue
            count = job.left
            if not chosen:
                count = min(count, max(most // job.passes_per_row, 1))
            elif (
                rows + count > self._limits.max_batch_rows
                or passes + job.passes > most
                or job.key != chosen[0][0].key
            ):
                continue
            chosen.append((job, range(job.done, job.done + count)))
            job.done += count
            rows += count
            passes += count * job.passes_per_row
            self._queue.charge(client, count * job.passes_per_row)
        return chosen


def _whole(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _compute(pieces: list[tuple[_Job, range]]) -> list[dict[str, np.ndarray] | Exception]:
    first = pieces[0][0]
    try:
        inputs = {
            name: np.concatenate(
                [job.question.inputs[name][rows.start : rows.stop] for job, rows in pieces]
            )
            for name in first.question.inputs
        }
        outputs = first.version.run(first.question.signature, inputs)
    except Exception as error:
        if len(pieces) == 1:
            return [error]
        # Whichever it was takes none of the others along.
        return [answer for piece in pieces for answer in _compute([piece])]
    ends = np.cumsum([len(rows) for _, rows in pieces])
    parts = {name: np.split(values, ends[:-1]) for name, values in outputs.items()}
    return [{name: parts[name][i] for name in parts} for i in range(len(pieces))]
