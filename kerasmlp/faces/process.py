"""One process of `FacePool`, as its parent sees it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.utils.checks import InputError
from kerasmlp.utils.processes import start_worker

STILL_SECONDS = 60
"""Without an answer and without computing, after which a worker counts as lost."""

_STARTING = 5  # times as long for one that loads its models
_COMPUTING = 10  # times as long for one that computes
_SHORTEST_STEP = 0.5  # seconds, in which a process that computes is seen to do so
_LONGEST_STEP = 2.0  # while this process itself was stopped, its workers are not to blame
_STOP_SECONDS = 5


class FaceProcess:
    """Starts a worker; what it says is taken in by `receive`.

    Attributes:
        ready: What it said when its models were loaded, or None.
        unanswered: Positions of its tasks, the one in work first.
        on_trial: Whether it works on a photo that has cost a worker already.
    """

    def __init__(self, settings: dict[str, Any]):
        self.process = start_worker(
            "kerasmlp.faces.worker",
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONWARNINGS": "ignore"},
        )
        self.answers = self.process.stdout
        self.ready: dict[str, Any] | None = None
        self.unanswered: deque[int] = deque()
        self.on_trial = False
        self._begun = b""
        self._still, self._cpu = 0.0, 0
        self._looked = time.monotonic()
        self._send(settings)

    def give(self, position: int, task: tuple[Path, bool]) -> None:
        self.unanswered.append(position)
        self._send({"path": str(task[0]), "read_only": task[1]})

    def receive(self, answers: dict[int, dict[str, Any]]) -> bool:
        """Takes in what the worker answered; False if it is dead.

        Raises:
            InputError: if it cannot work with its settings.
        """
        content = os.read(self.answers.fileno(), 1 << 16)
        self._still = 0.0
        *lines, self._begun = (self._begun + content).split(b"\n")
        for answer in map(json.loads, lines):
            if self.ready is None:
                if "error" in answer:
                    raise InputError(answer["error"])
                self.ready = answer
                continue
            if "embedding" in answer:
                answer["embedding"] = np.frombuffer(base64.b64decode(answer["embedding"]), "<f4")
            answers[self.unanswered.popleft()] = answer
            self.on_trial = False
        return bool(content)

    def stands_still(self) -> bool:
        """Whether it has said nothing and done nothing for too long; to be asked often."""
        step = min(time.monotonic() - self._looked, _LONGEST_STEP)
        if step < _SHORTEST_STEP:
            return False
        cpu = _cpu_ticks(self.process.pid)
        if cpu is None or cpu > self._cpu:
            step /= _COMPUTING
        self._looked, self._cpu = time.monotonic(), cpu or 0
        if self.ready and not self.unanswered:
            self._still = 0.0
            return False
        self._still += step
        return self._still > self.patience

    @property
    def patience(self) -> int:
        """Seconds without an answer and without computing that it is given."""
        return STILL_SECONDS * (1 if self.ready else _STARTING)

    def stop(self) -> None:
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a hung disk holds it
            self.process.wait(_STOP_SECONDS)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.answers.close()

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # a dead worker shows when it is read
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()


def _cpu_ticks(pid: int) -> int | None:
    """Processor time that a process has used, None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError):
        return None
