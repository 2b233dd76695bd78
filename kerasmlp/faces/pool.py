from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.datasets.photos import read_photo
from kerasmlp.data.datasets.records import FAILED_TO_READ, WORKER_CRASHED, WORKER_STOOD_STILL
from kerasmlp.faces.finder import CHOICES, DEVICES, MIN_DET_SCORE, FaceFinder, decode_photo
from kerasmlp.utils.checks import check_choice, check_int, check_rate
from kerasmlp.utils.worker import Task, Worker, serve
from kerasmlp.utils.workers import Lost, Pool

_DECODED_AHEAD = 2
_WINDOW = 4  # tasks given ahead to a worker: one in work, two decoded, one being read
_REORDER = 64
_STILL_SECONDS = 60
_BUSY_SECONDS = 600


class FacePool(Pool):
    """Processes of one core each that turn photos into embeddings, in the order of the tasks.

    A worker that dies or stands still takes nothing with it, see `Pool`: only a
    photo that costs a worker twice is given up. A worker stands still if it neither
    answers nor computes for a minute; one that computes has ten.

    Args:
        model_dir: As for `FaceFinder`, like `min_det_score` and `device`.
        workers: Number of processes.
        face: Which face to take, as for `choose_face`.

    Raises:
        InputError: if an argument is no such thing, or workers are lost nine times in a
            row, without any answer.
    """

    def __init__(
        self,
        model_dir: str | Path,
        *,
        workers: int,
        face: str = "only",
        min_det_score: float = MIN_DET_SCORE,
        device: str = "auto",
    ):
        self.settings = {
            "model_dir": str(model_dir),
            "face": check_choice("face", face, CHOICES),
            "min_det_score": check_rate("min_det_score", min_det_score),
            "device": check_choice("device", device, DEVICES),
        }
        self._most_ahead = _REORDER * check_int("workers", workers, minimum=1)
        super().__init__(
            "kerasmlp.faces.pool",
            workers,
            costly=2,
            ahead=_WINDOW,
            still_seconds=_STILL_SECONDS,
            busy_seconds=_BUSY_SECONDS,
            open_log=lambda: subprocess.DEVNULL,
            name_of=lambda task: repr(task["path"]),
        )

    def __enter__(self) -> FacePool:
        try:
            self.start(self.settings)
            ready = self.first_ready()
        except BaseException:
            self.__exit__()
            raise
        self.width, self.provider = ready["width"], ready["provider"]
        return self

    def map(self, tasks: Sequence[tuple[Path, bool]]) -> Iterator[dict[str, Any]]:
        """Yields one answer per task, in their order.

        Args:
            tasks: Pairs of an image and whether to do no more than read it.

        Returns:
            Dicts with `reason`, or None there and `embedding`, `det_score`, `sha256`.
        """
        answers: dict[int, dict[str, Any]] = {}
        doubtful: dict[int, dict[str, Any]] = {}
        given = emitted = 0

        def next_task(worker: Worker) -> Task | None:
            nonlocal given
            # What is doubtful waits for the answer to another one.
            if given == len(tasks) or (given - emitted >= self._most_ahead and not doubtful):
                return None
            path, read_only = tasks[given]
            given += 1
            return given - 1, {"path": str(path), "read_only": read_only}

        for position, answer in self.run(next_task, len(tasks)):
            if isinstance(answer, Lost):
                reason = WORKER_STOOD_STILL if answer.still else WORKER_CRASHED
                doubtful[position] = {"reason": reason}
            else:
                answers[position] = _with_array(answer)
            # Where other photos are answered, those that cost a worker twice are to blame.
            all_there = emitted + len(answers) + len(doubtful) == len(tasks)
            if all_there or not isinstance(answer, Lost):
                answers.update(doubtful)
                doubtful.clear()
            while emitted in answers:
                yield answers.pop(emitted)
                emitted += 1


def _with_array(answer: dict[str, Any]) -> dict[str, Any]:
    if "embedding" in answer:
        answer["embedding"] = np.frombuffer(base64.b64decode(answer["embedding"]), "<f4")
    return answer


# ---- in a worker


def _prepare(settings: dict[str, Any]) -> tuple[dict, Any]:
    import cv2

    cv2.setNumThreads(1)
    choice = settings.pop("face")
    finder = FaceFinder(**settings, threads=1)
    ready = {"width": finder.width, "provider": finder.provider}
    return ready, lambda read: _embed(finder, choice, *read)


def _read(task: dict[str, Any]) -> tuple:
    try:
        content = read_photo(task["path"])
    except (OSError, ValueError, MemoryError):
        return task, "", None, FAILED_TO_READ
    return task, hashlib.sha256(content).hexdigest(), *decode_photo(content)


def _embed(
    finder: Any, choice: str, task: dict, sha256: str, image: Any, reason: str | None
) -> dict[str, Any]:
    if image is None:
        return {"reason": reason}
    if task["read_only"]:
        return {"reason": None}
    face, reason = finder.choose(image, choice)
    if face is None:
        return {"reason": reason}
    return {
        "reason": None,
        "sha256": sha256,
        "det_score": face.det_score,
        "embedding": base64.b64encode(face.embedding.astype("<f4").tobytes()).decode(),
    }


if __name__ == "__main__":
    serve(_prepare, read=_read, ahead=_DECODED_AHEAD)
