"""One worker process of `FacePool`: reads tasks as JSON lines, answers each with one line."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

from kerasmlp.data.datasets.photos import read_photo
from kerasmlp.data.datasets.records import FAILED_TO_READ
from kerasmlp.utils.checks import InputError

_DECODED_AHEAD = 2


def main() -> None:
    """Serves tasks from standard input until it ends."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not mix with answers

    def answer(message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(answers, line) :]

    settings = json.loads(sys.stdin.readline())
    try:
        import cv2

        from kerasmlp.faces.finder import FaceFinder, decode_photo

        cv2.setNumThreads(1)
        finder = FaceFinder(
            settings["model_dir"],
            min_det_score=settings["min_det_score"],
            device=settings["device"],
            threads=1,
        )
    except (InputError, ImportError) as error:
        answer({"error": str(error)})
        return
    answer({"width": finder.width, "provider": finder.provider})

    decoded: queue.Queue = queue.Queue(_DECODED_AHEAD)
    threading.Thread(target=_read_ahead, args=(decoded, decode_photo), daemon=True).start()
    while (item := decoded.get()) is not None:
        answer(_work(finder, settings["face"], *item))


def _read_ahead(decoded: queue.Queue, decode: Callable) -> None:
    for line in sys.stdin:
        task = json.loads(line)
        try:
            content = read_photo(task["path"])
        except (OSError, ValueError, MemoryError):
            decoded.put((task, "", None, FAILED_TO_READ))
            continue
        decoded.put((task, hashlib.sha256(content).hexdigest(), *decode(content)))
    decoded.put(None)


def _work(
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
    main()
