"""Worker processes of a cross-validation, each with the next run of a shape it knows."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from kerasmlp.checks import InputError


class TrainingPool:
    """Processes that train the runs of a cross-validation, each on one core.

    Two processes of one thread finish more small trainings than one process of
    two threads. The run of a worker that dies goes to one that is still at
    work, from its checkpoint on. Workers end with their parent, however that
    ends.

    Args:
        settings: What a worker is told at its start.
        workers: Number of processes.
    """

    def __init__(self, settings: dict, workers: int):
        self._settings, self._number = settings, workers
        self._lock = threading.Lock()
        self._workers: list[subprocess.Popen] = []

    def train(self, pending: Sequence[int], steps: Sequence[int]) -> Iterator[int]:
        """Yields the number of each run as it is done.

        Args:
            pending: Numbers of the runs to train.
            steps: Per epoch, of every run: those of equal steps share a compiled step.
        """
        left, events = list(pending), queue.Queue()
        threads = [
            threading.Thread(target=self._serve, args=(left, steps, events), daemon=True)
            for _ in range(min(self._number, len(left)))
        ]
        try:
            for thread in threads:
                thread.start()
            running, death, missing = len(threads), None, len(pending)
            while missing:
                kind, value = events.get()
                if kind == "done":
                    missing -= 1
                    yield value
                elif kind == "error":
                    raise InputError(value)
                else:
                    running -= 1
                    death = value or death
                    if not running and missing:
                        raise RuntimeError(f"{missing} runs left, all workers died: {death}")
        finally:
            with self._lock:
                left.clear()
                workers = list(self._workers)
            for worker in workers:
                worker.kill()
                worker.wait()

    def _serve(self, left: list[int], steps: Sequence[int], events: queue.Queue) -> None:
        with tempfile.TemporaryFile() as log:
            with self._lock:
                if not left:
                    events.put(("ended", None))
                    return
                worker = _start(log)
                self._workers.append(worker)
            number = known = None
            with contextlib.suppress(BrokenPipeError):  # a dead worker shows when it is read
                _send(worker, self._settings)
            while (number := self._take(left, steps, known)) is not None:
                with contextlib.suppress(BrokenPipeError):
                    _send(worker, number)
                line = worker.stdout.readline()
                if not line:
                    with self._lock:
                        left.append(number)
                    log.seek(0)
                    last = log.read().decode(errors="replace").strip().splitlines()[-1:]
                    events.put(("ended", f"exit code {worker.wait()} {' '.join(last)}".strip()))
                    return
                message = json.loads(line)
                if "error" in message:
                    events.put(("error", message["error"]))
                    return
                known = steps[number]
                events.put(("done", number))
            events.put(("ended", None))

    def _take(self, left: list[int], steps: Sequence[int], known: int | None) -> int | None:
        with self._lock:
            if not left:
                return None
            alike = [n for n in left if steps[n] == known]
            number = (alike or left)[0]
            left.remove(number)
            return number


def _start(log) -> subprocess.Popen:
    path = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path).rstrip(os.pathsep),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # or the first worker takes the whole GPU
    }
    return subprocess.Popen(
        [sys.executable, "-m", "kerasmlp.cross_validation_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment,
        text=True,
        start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
    )


def _send(worker: subprocess.Popen, message) -> None:
    worker.stdin.write(json.dumps(message) + "\n")
    worker.stdin.flush()
