"""Requests that arrive while another is computed are computed together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kerasmlp.serving.limits import Limits
from kerasmlp.serving.rest_json import Question
from kerasmlp.serving.served_version import ServedVersion

_MANY_ROWS = 8
_TURNS = 4  # of the event loop: what lies at the sockets already comes along


@dataclass(frozen=True)
class _Job:
    version: ServedVersion
    question: Question
    passes: int
    answer: asyncio.Future

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
    """Computes questions in one thread, oldest first.

    Nobody waits for company: while one batch is computed, the next gathers.
    Answers do not depend on it: the deterministic ones to the bit (see
    `ServedVersion`), the means of MC dropout to rounding, as the order in
    which passes are summed up depends on how many rows there are.

    Args:
        max_batch_rows: Up to which requests are merged; 0 computes each alone.
        max_passes: Likewise, rows × MC passes.
        seen: Called with the rows of every batch.
    """

    def __init__(
        self,
        *,
        max_batch_rows: int,
        max_passes: int = Limits.max_passes,
        seen: Callable[[int], None] = lambda rows: None,
    ):
        self._max_batch_rows = max_batch_rows
        self._max_passes = max_passes
        self._seen = seen
        self._jobs: deque[_Job] = deque()
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

    @property
    def waiting_rows(self) -> int:
        return sum(job.question.rows for job in self._jobs if not job.answer.cancelled())

    @property
    def waiting_passes(self) -> int:
        """Rows × MC passes that are not computed yet."""
        return sum(job.passes for job in self._jobs if not job.answer.cancelled())

    async def ask(self, version: ServedVersion, question: Question) -> dict[str, np.ndarray]:
        """Answers a question; whoever stops waiting before it is computed leaves the queue."""
        answer = asyncio.get_running_loop().create_future()
        job = _Job(version, question, question.passes, answer)
        self._jobs.append(job)
        self._arrived.set()
        return await job.answer

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            jobs = self._next()
            if not jobs:
                if self._stopping:
                    return
                self._arrived.clear()
                continue
            self._seen(sum(job.question.rows for job in jobs))
            loop = asyncio.get_running_loop()
            for job, answer in zip(
                jobs, await loop.run_in_executor(self._thread, _compute, jobs), strict=True
            ):
                if job.answer.cancelled():
                    continue
                if isinstance(answer, Exception):
                    job.answer.set_exception(answer)
                else:
                    job.answer.set_result(answer)

    def _next(self) -> list[_Job]:
        """Takes the oldest job, and those that can be merged with it."""
        chosen: list[_Job] = []
        rows, passes, others = 0, 0, deque()
        for job in self._jobs:
            if job.answer.cancelled():
                continue
            fits = not chosen or (
                rows + job.question.rows <= self._max_batch_rows
                and passes + job.passes <= self._max_passes
                and job.key == chosen[0].key
            )
            (chosen if fits else others).append(job)
            if fits:
                rows += job.question.rows
                passes += job.passes
        self._jobs = others
        return chosen


def _compute(jobs: list[_Job]) -> list[dict[str, np.ndarray] | Exception]:
    first = jobs[0]
    try:
        inputs = {
            name: np.concatenate([job.question.inputs[name] for job in jobs])
            for name in first.question.inputs
        }
        outputs = first.version.run(first.question.signature, inputs)
    except Exception as error:
        if len(jobs) == 1:
            return [error]
        # Whichever it was takes none of the others along.
        return [answer for job in jobs for answer in _compute([job])]
    ends = np.cumsum([job.question.rows for job in jobs])
    parts = {name: np.split(values, ends[:-1]) for name, values in outputs.items()}
    return [{name: parts[name][i] for name in parts} for i in range(len(jobs))]
