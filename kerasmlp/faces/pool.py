"""Worker processes that turn photos into embeddings, in order."""

from __future__ import annotations

import selectors
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from kerasmlp.data.datasets.records import WORKER_CRASHED, WORKER_STOOD_STILL
from kerasmlp.faces.process import FaceProcess
from kerasmlp.utils.checks import InputError, check_int

_WINDOW = 4  # tasks given ahead to a worker: one in work, two decoded, one being read
_REORDER = 64
_LOST_IN_A_ROW = 9
_LOOK_SECONDS = 1.0


class FacePool:
    """Processes that each use one core, and answer in the order of the tasks.

    They are plain child processes with JSON lines, not `multiprocessing`:
    that would run the caller's script again, and unpickle what it is sent.
    A worker that dies or stands still takes nothing with it: another one
    starts, its unanswered photos are tried again one by one, and only the
    one that costs a worker twice is given up. It stands still if it neither
    answers nor computes for a minute; one that computes has ten.

    Args:
        model_dir: As for `FaceFinder`, like `min_det_score` and `device`.
        face: Which face to take, as for `choose_face`.
        workers: Number of processes.

    Raises:
        InputError: if workers are lost nine times in a row, without any answer.
    """

    def __init__(
        self,
        model_dir: str | Path,
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
        self._workers: list[FaceProcess] = []
        self._selector = selectors.DefaultSelector()
        self._lost = 0
        self._doubtful: dict[int, dict[str, Any]] = {}

    def __enter__(self) -> FacePool:
        try:
            for _ in range(self._number):
                self._start()
            while not any(worker.ready for worker in self._workers):
                self._listen({}, deque(), [])
        except BaseException:
            self.__exit__()
            raise
        ready = next(worker.ready for worker in self._workers if worker.ready)
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
        given = emitted = 0
        while emitted < len(tasks):
            for worker in self._workers:
                if not worker.ready:
                    continue
                if suspects and not worker.unanswered:
                    position = suspects.popleft()
                    worker.give(position, tasks[position])
                    worker.on_trial = True
                while not worker.on_trial and len(worker.unanswered) < _WINDOW:
                    if given >= len(tasks) or given >= emitted + _REORDER * self._number:
                        break
                    worker.give(given, tasks[given])
                    given += 1
            if emitted + len(answers) + len(self._doubtful) == len(tasks):
                self._believe_doubtful(answers)
            else:
                self._listen(answers, suspects, tasks)
            while emitted in answers:
                yield answers.pop(emitted)
                emitted += 1

    def _listen(
        self, answers: dict[int, dict[str, Any]], suspects: deque[int], tasks: Sequence
    ) -> None:
        """Takes in what workers say, and replaces those that are dead or stand still."""
        heard = [key.data for key, _ in self._selector.select(_LOOK_SECONDS)]
        for worker in heard:
            before = len(answers)
            if not worker.receive(answers):
                self._replace(worker, WORKER_CRASHED, suspects, tasks)
            elif len(answers) > before:
                self._lost = 0
                self._believe_doubtful(answers)
        for worker in list(self._workers):
            if worker not in heard and worker.stands_still():
                self._replace(worker, WORKER_STOOD_STILL, suspects, tasks)

    def _believe_doubtful(self, answers: dict[int, dict[str, Any]]) -> None:
        """Where other photos are answered, those that cost a worker twice are to blame."""
        answers.update(self._doubtful)
        self._doubtful.clear()

    def _replace(
        self, worker: FaceProcess, reason: str, suspects: deque[int], tasks: Sequence
    ) -> None:
        self._selector.unregister(worker.answers)
        self._workers.remove(worker)
        worker.stop()
        self._lost += 1
        if self._lost >= _LOST_IN_A_ROW:
            self._give_up(worker, reason, tasks)
        if worker.on_trial:
            self._doubtful[worker.unanswered[0]] = {"reason": reason}
        else:
            suspects.extend(worker.unanswered)
        self._start()

    def _start(self) -> None:
        worker = FaceProcess(self._settings)
        self._workers.append(worker)
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)

    def _give_up(self, worker: FaceProcess, reason: str, tasks: Sequence) -> NoReturn:
        if reason == WORKER_STOOD_STILL:
            how = f"neither answered nor computed for {worker.patience} s"
        else:
            how = f"ended with {_words(worker.process.returncode)}"
        where = "at its start"
        if worker.unanswered:
            where = f"at {str(tasks[worker.unanswered[0]][0])!r}"
        raise InputError(
            f"`workers` must stay alive. Received: {self._lost} lost in a row, the last one {how} "
            f"{where} (is there enough memory, and does the disk answer?)"
        )


def _words(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
