"""Worker processes of cross-validations, each with the next run of a shape it knows."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from kerasmlp.utils.checks import InputError, check_int
from kerasmlp.utils.processes import describe_os_error, os_error, start_worker


class Worker(NamedTuple):
    """A process and the file that its words go to."""

    process: subprocess.Popen
    log: IO[bytes]


@dataclass
class _Work:
    """What the threads of one call share."""

    settings: dict
    left: list[int]
    steps: Sequence[int]
    deaths: Counter = field(default_factory=Counter)
    events: queue.Queue = field(default_factory=queue.Queue)
    over: bool = False


_MAX_DEATHS = 3


class TrainingPool:
    """Processes that train the runs of cross-validations, each on one core.

    Two processes of one thread finish more small trainings than one process of
    two threads. A worker that dies is replaced, and its run goes on from its
    checkpoint, unless it has ended three of them. Workers keep what they have compiled from one
    cross-validation to the next. They end with their parent, however that ends.

    Args:
        workers: Number of processes.

    Raises:
        InputError: if there would be none.
    """

    def __init__(self, workers: int):
        self._number = check_int("workers", workers, minimum=1)
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
        work = _Work(settings, list(pending), steps)
        for _ in range(min(self._number, len(pending))):
            threading.Thread(target=self._serve_or_say, args=(work,), daemon=True).start()
        try:
            for _ in pending:
                kind, value = work.events.get()
                if kind == "error":
                    raise InputError(value)
                if kind == "errno":
                    raise os_error(value)
                if kind == "died":
                    raise RuntimeError(value)
                yield value
        finally:
            with self._lock:
                work.over = True

    def _serve_or_say(self, work: _Work) -> None:
        try:
            self._serve(work)
        except OSError as error:  # no process can be started, say
            work.events.put(("errno", describe_os_error(error)))
        except Exception as error:
            work.events.put(("died", f"{type(error).__name__}: {error}"))

    def _serve(self, work: _Work) -> None:
        worker, known = self._take_worker(work), None
        while worker and (number := self._take(work, known)) is not None:
            with contextlib.suppress(BrokenPipeError):  # a dead worker shows when it is read
                _send(worker.process, number)
            line = worker.process.stdout.readline()
            if not line:
                last = self._bury(worker)
                work.deaths[number] += 1
                if work.deaths[number] == _MAX_DEATHS:
                    work.events.put(("died", f"run {number} ended {_MAX_DEATHS} workers: {last}"))
                    return
                with self._lock:
                    work.left.append(number)
                worker, known = self._take_worker(work), None
                continue
            message = json.loads(line)
            if "error" in message:
                work.events.put(("error", message["error"]))
                return
            if "errno" in message:
                work.events.put(("errno", message))
                return
            known = work.steps[number]
            work.events.put(("done", number))
        with self._lock:
            if worker in self._working:
                self._working.remove(worker)
                self._idle.append(worker)

    def _take_worker(self, work: _Work) -> Worker | None:
        with self._lock:
            if work.over:
                return None
            worker = self._idle.pop() if self._idle else _start()
            self._working.append(worker)
        with contextlib.suppress(BrokenPipeError):
            _send(worker.process, work.settings)
        return worker

    def _bury(self, worker: Worker) -> str:
        """Returns a dead worker's last words."""
        code = worker.process.wait()
        with self._lock:
            if worker in self._working:
                self._working.remove(worker)
                worker.log.seek(0)
                last = worker.log.read().decode(errors="replace").strip().splitlines()[-1:]
                worker.log.close()
                return f"exit code {code} {' '.join(last)}".strip()
        return f"exit code {code}"

    def _take(self, work: _Work, known: int | None) -> int | None:
        with self._lock:
            if work.over or not work.left:
                return None
            alike = [n for n in work.left if work.steps[n] == known]
            number = (alike or work.left)[0]
            work.left.remove(number)
            return number


def _start() -> Worker:
    log = tempfile.TemporaryFile()  # noqa: SIM115, the pool closes it
    process = start_worker(
        "kerasmlp.experiments.cross_validation.worker",
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    return Worker(process, log)


def _send(worker: subprocess.Popen, message) -> None:
    worker.stdin.write(json.dumps(message) + "\n")
    worker.stdin.flush()
