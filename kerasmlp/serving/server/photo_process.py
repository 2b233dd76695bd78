"""Finds the faces of photos in a process of its own: a photo may take long, or end it."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from typing import Any

import numpy as np

from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.worker import Worker, serve

_NICE = 10  # answers to embeddings go first
_NAME = "body"


class PhotoProcess:
    """Looks at one photo after another; the process starts anew if one ends it.

    Args:
        timeout_s: For one photo; then the process is ended.
        how: Arguments of `FaceFinder`.

    Raises:
        InputError: if a model is missing or damaged.

    Attributes:
        width: Of the embeddings.
        info: Where they come from.
    """

    def __init__(self, timeout_s: float, **how: Any):
        self._timeout_s = timeout_s
        folders = {k: os.fspath(v) for k, v in how.items() if isinstance(v, os.PathLike)}
        self._settings = {**how, **folders}
        self._one_at_a_time = threading.Lock()
        self._worker = self._started()
        ready = self._worker.ready
        self.width, self.info = ready["width"], StoreInfo(**ready["info"])

    def find(self, photo: bytes) -> tuple[list[dict], np.ndarray]:
        """Returns `box` and `det_score` of each face, best first, and the embeddings.

        Raises:
            InputError: if it is no photo, shows no face, or ends the process.
        """
        task = {"photo": base64.b64encode(photo).decode()}
        with self._one_at_a_time:
            if self._worker is not None and self._worker.process.poll() is not None:
                self._end()  # of something else than a photo
            if self._worker is None:
                self._worker = self._started()
            ending = threading.Timer(self._timeout_s, self._worker.process.kill)
            ending.start()
            self._worker.give((0, task))
            answers = _received(self._worker)
            ending.cancel()
            if answers is None:
                self._end()
                reject_file(_NAME, "must be a photo for which time and memory suffice", "another")
        ((_, answer),) = answers
        if "error" in answer:
            raise InputError(answer["error"])
        embeddings = np.frombuffer(base64.b64decode(answer["embeddings"]), "<f4")
        return answer["faces"], embeddings.reshape(len(answer["faces"]), self.width)

    def stop(self) -> None:
        with self._one_at_a_time:
            if self._worker is not None:
                self._end()

    def _started(self) -> Worker:
        worker = Worker(__name__, subprocess.DEVNULL)
        worker.prepare(self._settings)
        try:
            if _received(worker) is not None:
                return worker
        except BaseException:
            worker.stop()
            raise
        worker.stop()
        raise OSError(f"the process for photos ended: {worker.last_words}")

    def _end(self) -> None:
        self._worker.stop()
        self._worker = None


def _received(worker: Worker) -> list | None:
    """What it answers next, once it is whole; None if it ended."""
    while (answers := worker.receive()) == [] and (worker.unanswered or worker.ready is None):
        pass
    return answers


# ---- in the process


def _prepare(settings: dict[str, Any]) -> tuple[dict, Any]:
    import cv2

    from kerasmlp.faces.finder import FaceFinder, image_of

    os.nice(_NICE)
    cv2.setNumThreads(1)
    finder = FaceFinder(**settings, threads=1)

    def answer(task: dict[str, str]) -> dict[str, Any]:
        try:
            faces = finder.find(image_of(base64.b64decode(task["photo"]), _NAME))
            if not faces:
                reject_file(_NAME, "must show a face", "a photo in which none was found")
        except InputError as error:
            return {"error": str(error)}
        rows = np.stack([face.embedding for face in faces]).astype("<f4")
        found = [
            {"box": [round(float(v), 1) for v in face.box], "det_score": face.det_score}
            for face in faces
        ]
        return {"faces": found, "embeddings": base64.b64encode(rows.tobytes()).decode()}

    known = {k: v for k, v in vars(finder.info).items() if k in _KNOWN}
    return {"width": finder.width, "info": known}, answer


_KNOWN = ("embedder", "embedder_sha256", "normalized", "preprocessing")

if __name__ == "__main__":
    serve(_prepare)
