"""A process that answers tasks, with a line of JSON for each: both ends of the line."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from kerasmlp.utils.checks import InputError
from kerasmlp.utils.processes import start_worker

_STARTING = 5  # times as patient with one that loads what it works with
_SHORTEST_STEP = 0.5  # seconds, in which a process that computes is seen to do so
_LONGEST_STEP = 2.0  # while this process itself was stopped, its workers are not to blame
_STOP_SECONDS = 5
_PATIENCE = 0.1  # seconds for which tasks that are answered together wait for others

Task = tuple[int, Any]
"""Its number, and the message that a worker is sent."""


class Worker:
    """A process that runs `serve`, as its parent sees it.

    Attributes:
        ready: What it answered to its settings, or None.
        unanswered: Its tasks, the one in work first.
        alone: Whether its task has cost a worker already: then it gets no other beside it.
        last: Number of the task that it was given last under these settings, or None.
        last_words: How it ended, with the last line that it wrote.
    """

    def __init__(self, module: str, log: IO[bytes] | int):
        self.process = start_worker(module, stdout=subprocess.PIPE, stderr=log)
        self.answers = self.process.stdout
        self.settings: Any = None
        self.ready: Any = None
        self.unanswered: deque[Task] = deque()
        self.alone = False
        self.last: int | None = None
        self.last_words = ""
        self._log, self._preparing, self._begun = log, 0, b""
        self._unsent: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._write, daemon=True).start()
        self._still, self._cpu, self._looked = 0.0, 0, time.monotonic()

    def prepare(self, settings: Any) -> None:
        self.settings, self.ready, self.last = settings, None, None
        self._preparing += 1
        self._send({"settings": settings})

    def give(self, task: Task) -> None:
        self.unanswered.append(task)
        self.last, message = task
        self._send({"task": message})

    def receive(self) -> list[tuple[int, Any]] | None:
        """What it has answered, by numbers of tasks; None if it is dead.

        Raises:
            InputError: if it cannot work with what it was given.
            OSError: if it met one, above all a full disk: no other worker can help.
        """
        content = os.read(self.answers.fileno(), 1 << 16)
        if not content:
            return None
        self._still, answered = 0.0, []
        *lines, self._begun = (self._begun + content).split(b"\n")
        for message in map(json.loads, lines):
            if "error" in message:
                raise InputError(message["error"], message["argument"])
            if "os_error" in message:
                number, text, name = message["os_error"]
                raise OSError(text) if number is None else OSError(number, text, name)
            if not self._preparing:
                answered.append((self.unanswered.popleft()[0], message["answer"]))
                self.alone = False
                continue
            self._preparing -= 1
            if not self._preparing:
                self.ready = message["answer"]
        return answered

    def stands_still(self, still_seconds: float, busy_seconds: float | None) -> bool:
        """Whether it has said nothing and done nothing for too long; to be asked often."""
        step = min(time.monotonic() - self._looked, _LONGEST_STEP)
        if step < _SHORTEST_STEP:
            return False
        cpu = cpu_ticks(self.process.pid)
        computes = cpu is None or cpu > self._cpu
        self._looked, self._cpu = time.monotonic(), cpu or 0
        idle = self.ready is not None and not self.unanswered
        if idle or (computes and busy_seconds is None):
            self._still = 0.0
        else:
            self._still += step * still_seconds / busy_seconds if computes else step
        return self._still > self.patience(still_seconds)

    def patience(self, still_seconds: float) -> float:
        return still_seconds * (1 if self.ready is not None else _STARTING)

    def takes_more(self, ahead: int) -> bool:
        return self.ready is not None and not self.alone and len(self.unanswered) < ahead

    def stop(self) -> None:
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a hung disk holds it
            self.process.wait(_STOP_SECONDS)
        self._unsent.put(b"")
        self.answers.close()
        code, lines = self.process.returncode, []
        if self._log != subprocess.DEVNULL:
            with self._log as log:
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines()
        killed = code is not None and code < 0
        how = f"signal {signal.Signals(-code).name}" if killed else f"exit code {code}"
        self.last_words = " ".join([how, *lines[-1:]])

    def _send(self, message: dict) -> None:
        self._unsent.put(json.dumps(message).encode() + b"\n")

    def _write(self) -> None:
        """In a thread: a worker that starts, or stands still, leaves what a pipe cannot hold."""
        with contextlib.suppress(BrokenPipeError), self.process.stdin as pipe:
            while line := self._unsent.get():
                pipe.write(line)
                pipe.flush()


def serve(
    prepare: Callable[[Any], tuple[Any, Callable[[Any], Any]]],
    *,
    read: Callable[[Any], Any] = lambda task: task,
    ahead: int = 0,
    together: bool = False,
) -> None:
    """Makes this process a `Worker`: it answers each message with a line of JSON.

    It ends with its parent, even in the midst of work.

    Args:
        prepare: From settings to an answer, and what answers tasks from then on.
        read: From a task to what it is answered by, in a thread of its own.
        ahead: Tasks that are read before they are asked for; 0 sets no limit.
        together: What answers takes a task, or None when no other came for a while, and
            returns the answers that it has by then, in the order of their tasks.
    """
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not mix with answers

    def say(message: dict) -> None:
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(answers, line) :]

    given: queue.Queue = queue.Queue(ahead)
    threading.Thread(target=_listen, args=(given, read), daemon=True).start()
    work: Callable[[Any], Any] | None = None
    try:
        while True:
            is_task, message = _next(given, _PATIENCE if together and work else None)
            if is_task:
                for answer in work(message) if together else [work(message)]:
                    say({"answer": answer})
            else:
                ready, work = prepare(message)
                say({"answer": ready})
    except (InputError, ImportError) as error:
        say({"error": str(error), "argument": getattr(error, "argument", None)})
    except OSError as error:
        say({"os_error": [error.errno, error.strerror or str(error), error.filename]})


def _next(given: queue.Queue, seconds: float | None) -> tuple[bool, Any]:
    """The next message; after so many seconds a task that is None."""
    try:
        return given.get(timeout=seconds)
    except queue.Empty:
        return True, None


def _listen(given: queue.Queue, read: Callable[[Any], Any]) -> None:
    try:
        for line in sys.stdin:
            message = json.loads(line)
            is_task = "task" in message
            given.put((is_task, read(message["task"]) if is_task else message["settings"]))
    except BaseException:  # it would be this thread's alone, and the worker would stand still
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def cpu_ticks(pid: int) -> int | None:
    """Processor time that a process has used, None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError):
        return None
