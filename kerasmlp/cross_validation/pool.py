"""Worker processes of cross-validations, each with the next run of a shape it knows."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from kerasmlp.checks import InputError
from kerasmlp.processes import start_worker


class Worker(NamedTuple):
    """A process and the file that its words go to."""

    process: subprocess.Popen
    log: IO[bytes]


class TrainingPool:
    """Processes that train the runs of cross-validations, each on one core.

    Two processes of one thread finish more small trainings than one process of
    two threads. The run of a worker that dies goes to one that is still at
    work, from its checkpoint on. Workers keep what they have compiled from one
    cross-validation to the next. They end with their parent, however that ends.

    Args:
        workers: Number of processes.
    """

    def __init__(self, workers: int):
        self._number = workers
        self._lock = threading.Lock()
        self._working: list[Worker] = []
        self._idle: list[Worker] = []

    def __enter__(self) -> TrainingPool:
        return self

    def __exit__(self, *_) -> None:
        with self._lock:
            workers = self._working + self._idle
            self._working, self._idle = [], []
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
            worker.log.close()

    def train(self, settings: dict, pending: Sequence[int], steps: Sequence[int]) -> Iterator[int]:
        """Yields the number of each run as it is done.

        Args:
            settings: The cross-validation, as a worker is told.
            pending: Numbers of the runs to train.
            steps: Per epoch, of every run: those of equal steps share a compiled step.
        """
        left, events = list(pending), queue.Queue()
        threads = [
            threading.Thread(target=self._serve, args=(settings, left, steps, events), daemon=True)
            for _ in range(min(self._number, len(left)))
        ]
        for thread in threads:
            thread.start()
        try:
            running, death, missing = len(threads), None, len(pending)
            while running:
                kind, value = events.get()
                if kind == "done":
                    missing -= 1
                    yield value
                elif kind == "error":
                    raise InputError(value)
                else:
                    running -= 1
                    death = value or death
            if missing:
                raise RuntimeError(f"{missing} runs left, all workers died: {death}")
        finally:
            with self._lock:
                left.clear()

    def _serve(
        self, settings: dict, left: list[int], steps: Sequence[int], events: queue.Queue
    ) -> None:
        worker = self._take_worker()
        known, end = None, None
        with contextlib.suppress(BrokenPipeError):  # a dead worker shows when it is read
            _send(worker.process, settings)
        while (number := self._take(left, steps, known)) is not None:
            with contextlib.suppress(BrokenPipeError):
                _send(worker.process, number)
            line = worker.process.stdout.readline()
            if not line:
                with self._lock:
                    left.append(number)
                worker.log.seek(0)
                last = worker.log.read().decode(errors="replace").strip().splitlines()[-1:]
                end = f"exit code {worker.process.wait()} {' '.join(last)}".strip()
                break
            message = json.loads(line)
            if "error" in message:
                events.put(("error", message["error"]))
                break
            known = steps[number]
            events.put(("done", number))
        else:
            with self._lock:
                if worker in self._working:
                    self._working.remove(worker)
                    self._idle.append(worker)
        events.put(("ended", end))

    def _take_worker(self) -> Worker:
        with self._lock:
            worker = self._idle.pop() if self._idle else _start()
            self._working.append(worker)
            return worker

    def _take(self, left: list[int], steps: Sequence[int], known: int | None) -> int | None:
        with self._lock:
            if not left:
                return None
            alike = [n for n in left if steps[n] == known]
            number = (alike or left)[0]
            left.remove(number)
            return number


def _start() -> Worker:
    log = tempfile.TemporaryFile()  # noqa: SIM115, the pool closes it
    process = start_worker(
        "kerasmlp.cross_validation.worker",
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    return Worker(process, log)


def _send(worker: subprocess.Popen, message) -> None:
    worker.stdin.write(json.dumps(message) + "\n")
    worker.stdin.flush()
