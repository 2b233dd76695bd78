"""Worker processes that turn photos into embeddings, in order."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import selectors
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.checks import InputError, check_int
from kerasmlp.datasets.records import WORKER_CRASHED
from kerasmlp.processes import start_worker

_WINDOW = 4  # tasks given ahead to a worker: one in work, two decoded, one being read
_REORDER = 64
_CRASHES_IN_A_ROW = 10


class FacePool:
    """Processes that each use one core, and answer in the order of the tasks.

    They are plain child processes with JSON lines, not `multiprocessing`:
    that would run the caller's script again, and unpickle what it is sent.
    A worker that dies takes nothing with it: its unanswered photos are tried
    again one by one, and only the one that kills a worker twice is given up.

    Args:
        model_dir: As for `FaceFinder`, like `min_det_score` and `device`.
        face: Which face to take, as for `choose_face`.
        workers: Number of processes.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike,
        *,
        face: str,
        min_det_score: float,
        device: str = "auto",
        workers: int = 1,
    ):
        self._settings = {
            "model_dir": str(model_dir),
            "face": face,
            "min_det_score": min_det_score,
            "device": device,
        }
        self._number = check_int("workers", workers, minimum=1)
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> FacePool:
        try:
            self._workers = [_Worker(self._settings) for _ in range(self._number)]
            for worker in self._workers:
                ready = worker.wait_until_ready()
                self._selector.register(worker.answers, selectors.EVENT_READ, worker)
        except BaseException:
            self.__exit__()
            raise
        self.width, self.provider = ready["width"], ready["provider"]
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.stop()
        self._selector.close()

    def map(self, tasks: Sequence[tuple[Path, bool]]) -> Iterator[dict[str, Any]]:
        """Yields one answer per task, in their order.

        Args:
            tasks: Pairs of an image and whether to do no more than read it.

        Returns:
            Dicts with `reason`, or None there and `embedding`, `det_score`, `sha256`.
        """
        answers: dict[int, dict[str, Any]] = {}
        suspects: deque[int] = deque()
        given = emitted = crashes = 0
        while emitted < len(tasks):
            for worker in self._workers:
                if suspects and not worker.unanswered:
                    position = suspects.popleft()
                    worker.give(position, tasks[position])
                    worker.on_trial = True
                while not worker.on_trial and len(worker.unanswered) < _WINDOW:
                    if given >= len(tasks) or given >= emitted + _REORDER * self._number:
                        break
                    worker.give(given, tasks[given])
                    given += 1
            for key, _ in self._selector.select():
                worker = key.data
                if worker.receive(answers):
                    crashes = 0
                    continue
                crashes += 1
                if worker.on_trial:
                    answers[worker.unanswered[0]] = {"reason": WORKER_CRASHED}
                else:
                    suspects.extend(worker.unanswered)
                if crashes > _CRASHES_IN_A_ROW:
                    raise RuntimeError(
                        f"workers crashed {crashes} times in a row, the last one with exit code "
                        f"{worker.process.wait()}"
                    )
                self._replace(worker)
            while emitted in answers:
                yield answers.pop(emitted)
                emitted += 1

    def _replace(self, worker: _Worker) -> None:
        self._selector.unregister(worker.answers)
        worker.stop()
        fresh = _Worker(self._settings)
        self._workers[self._workers.index(worker)] = fresh
        fresh.wait_until_ready()
        self._selector.register(fresh.answers, selectors.EVENT_READ, fresh)


class _Worker:
    def __init__(self, settings: dict[str, Any]):
        self.process = start_worker(
            "kerasmlp.face_worker",
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONWARNINGS": "ignore"},
        )
        self.answers = self.process.stdout
        self.unanswered: deque[int] = deque()
        self.on_trial = False
        self._begun = b""
        self._send(settings)

    def wait_until_ready(self) -> dict[str, Any]:
        line = self.answers.readline()
        if not line:
            raise RuntimeError(f"a worker died at its start, exit code {self.process.wait()}")
        message = json.loads(line)
        if "error" in message:
            raise InputError(message["error"])
        return message

    def give(self, position: int, task: tuple[Path, bool]) -> None:
        self.unanswered.append(position)
        self._send({"path": str(task[0]), "read_only": task[1]})

    def receive(self, answers: dict[int, dict[str, Any]]) -> bool:
        """Takes in what the worker answered; False if it is dead."""
        content = os.read(self.answers.fileno(), 1 << 16)
        *lines, self._begun = (self._begun + content).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if "embedding" in answer:
                answer["embedding"] = np.frombuffer(base64.b64decode(answer["embedding"]), "<f4")
            answers[self.unanswered.popleft()] = answer
            self.on_trial = False
        return bool(content)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.answers.close()

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # a dead worker shows when it is read
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
