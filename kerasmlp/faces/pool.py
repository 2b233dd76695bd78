from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.datasets.photos import read_photo
from kerasmlp.data.datasets.records import (
    FAILED_TO_READ,
    NO_EMBEDDING,
    WORKER_CRASHED,
    WORKER_STOOD_STILL,
)
from kerasmlp.faces.finder import CHOICES, FaceFinder, decode_photo
from kerasmlp.utils.checks import check_choice, check_int
from kerasmlp.utils.worker import Task, Worker, serve
from kerasmlp.utils.workers import Lost, Pool

_DECODED_AHEAD = 2
_WINDOW = 4  # tasks given ahead to a worker: one in work, two decoded, one being read
_REORDER = 64
_STILL_SECONDS = 60
_BUSY_SECONDS = 600
_SAID = ("provider", "versions", "note")
MOST_VIEWS = 64


class FacePool(Pool):
    """Processes of one core each that turn photos into embeddings, in the order of the tasks.

    A worker that dies or stands still takes nothing with it, see `Pool`: only a
    photo that costs a worker twice is given up. A worker stands still if it neither
    answers nor computes for a minute; one that computes has ten.

    Args:
        model_dir: As for `FaceFinder`, like `embedder`.
        workers: Number of processes.
        face: Which face to take, as for `choose_face`.
        views: Embeddings of each, of slightly different crops, one after another.
        embedder: Folder, or None.
        how: Further arguments of `FaceFinder`, but for its threads.

    Raises:
        InputError: if an argument is no such thing, or workers are lost nine times in a
            row, without any answer.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike | None = None,
        *,
        workers: int,
        face: str = "only",
        views: int = 1,
        embedder: str | os.PathLike | None = None,
        **how: Any,
    ):
        folders = {"model_dir": model_dir, "embedder": embedder}
        how |= {k: os.fspath(folder) for k, folder in folders.items() if folder is not None}
        self.settings = {
            "face": check_choice("face", face, CHOICES),
            "views": check_int("views", views, minimum=1, maximum=MOST_VIEWS),
            "finder": how,
        }
        check_int("workers", workers, minimum=1)
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
        self.width = ready["width"] * self.settings["views"]
        self.provider, self.versions, self.note = (ready[k] for k in _SAID)
        # A batch of faces is in work, of photos some more are at hand.
        self._ahead = _WINDOW + ready["batch_size"] - 1
        self._most_ahead = _REORDER * self.number * max(1, self._ahead // _WINDOW)
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
    finder = FaceFinder(**settings["finder"], threads=1)
    network = finder.network
    ready = {"width": network.width, "batch_size": network.batch_size, "provider": finder.provider}
    ready |= {"versions": finder.info.versions, "note": network.note}
    return ready, _Answers(finder, settings["face"], settings["views"])


def _read(task: dict[str, Any]) -> tuple:
    try:
        content = read_photo(task["path"])
    except (OSError, ValueError, MemoryError):
        return task, "", None, FAILED_TO_READ
    return task, hashlib.sha256(content).hexdigest(), *decode_photo(content)


class _Answers:
    """Answers to photos in their order; their faces are embedded when a batch is full."""

    def __init__(self, finder: FaceFinder, choice: str, views: int):
        self.finder, self.choice, self.views = finder, choice, views
        self._held: list[tuple[dict, list[np.ndarray]]] = []

    def __call__(self, read: tuple | None) -> list[dict[str, Any]]:
        """What is answered now, after this photo or, where it is None, before a pause."""
        if read is not None:
            self._held.append(self._look(*read))
        crops = sum(len(crops) for _, crops in self._held)
        if read is not None and 0 < crops < self.finder.network.batch_size:
            return []
        held, self._held = self._held, []
        embeddings = iter(self.finder.embeddings([c for _, crops in held for c in crops]))
        return [_answer(answer, [next(embeddings) for _ in crops]) for answer, crops in held]

    def _look(
        self, task: dict, sha256: str, image: np.ndarray | None, reason: str | None
    ) -> tuple[dict, list[np.ndarray]]:
        if image is None or task["read_only"]:
            return {"reason": reason}, []
        face, reason = self.finder.choose(image, self.choice)
        if face is None:
            return {"reason": reason}, []
        crops = self.finder.crops(image, face, views=self.views, seed=int(sha256[:16], 16))
        score = {} if face.det_score is None else {"det_score": face.det_score}
        return {"reason": None, "sha256": sha256, **score}, crops or []


def _answer(answer: dict[str, Any], embeddings: list[np.ndarray | None]) -> dict[str, Any]:
    if "sha256" not in answer:
        return answer
    if not embeddings or any(row is None for row in embeddings):
        return {"reason": NO_EMBEDDING}
    rows = np.concatenate(embeddings).astype("<f4")
    return answer | {"embedding": base64.b64encode(rows.tobytes()).decode()}


if __name__ == "__main__":
    serve(_prepare, read=_read, ahead=_DECODED_AHEAD, together=True)
