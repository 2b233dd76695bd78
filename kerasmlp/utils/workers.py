"""One pool of worker processes for all that is spread over cores."""

import contextlib
import selectors
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple, NoReturn

from kerasmlp.utils.checks import InputError
from kerasmlp.utils.worker import Task, Worker

LOOK_SECONDS = 1.0


class Lost(NamedTuple):
    """Instead of an answer to a task that cost too many workers: how the last one went."""

    still: bool
    words: str


class Pool(contextlib.AbstractContextManager):
    """Processes that each use one core, and answer tasks as they are done.

    They are plain child processes with JSON lines, not `multiprocessing`: that would
    run the caller's script again, and unpickle what it is sent. A worker that dies or
    stands still takes nothing with it: another one starts, and its unanswered tasks are
    tried again, one by one, when there are no others. Workers stay for the next tasks,
    and end with their parent, however that ends.

    Args:
        module: That ends with `worker.serve`.
        workers: Number of processes.
        costly: Workers that a task may cost before it is given up.
        most_lost: Workers that may be lost in a row, without any answer.
        ahead: Tasks that a worker is given at a time.
        still_seconds: After which one that neither answers nor computes counts as lost;
            it has five times as long for its settings.
        busy_seconds: As much for one that computes; None waits for ever.
        open_log: For what a worker says on standard error; its last line is told.
        name_of: A task in words.

    Attributes:
        number: Of processes.
    """

    def __init__(
        self,
        module: str,
        workers: int,
        *,
        costly: int,
        most_lost: int = 9,
        ahead: int = 1,
        still_seconds: float = 600,
        busy_seconds: float | None = None,
        open_log: Callable[[], IO[bytes] | int] = tempfile.TemporaryFile,
        name_of: Callable[[Any], str] = str,
    ):
        self._module, self._open_log, self._name_of = module, open_log, name_of
        self.number = workers
        self._costly, self._most_lost, self._ahead = costly, most_lost, ahead
        self.still_seconds, self.busy_seconds = still_seconds, busy_seconds
        self.workers: list[Worker] = []
        self._selector = selectors.DefaultSelector()
        self._lost = self._wanted = 0
        self._settings: Any = None
        self.begin(_nothing)

    def __exit__(self, *exception: object) -> None:
        while self.workers:
            self._remove(self.workers[0])
        self._selector.close()

    def start(self, settings: Any, workers: int | None = None) -> None:
        """Has so many workers, or all, prepare for work with these settings."""
        self._settings, self._wanted = settings, min(workers or self.number, self.number)
        self._feed()

    def begin(self, next_task: Callable[[Worker], Task | None]) -> None:
        """From now on workers get what `next_task` returns, until it is None."""
        self._next_task = next_task
        self._again: deque[Task] = deque()
        self._costs: Counter = Counter()

    def run(
        self, next_task: Callable[[Worker], Task | None], total: int
    ) -> Iterator[tuple[int, Any | Lost]]:
        """Yields number and answer of each task as it is done.

        Args:
            next_task: From the worker that could do it to a task, or None if there is
                none for now.
            total: Number of tasks.

        Raises:
            InputError: if workers are lost again and again.
        """
        self.begin(next_task)
        try:
            while total > 0:
                for answered in self.step():
                    total -= 1
                    yield answered
        except BaseException:  # nobody works on for a caller that is gone
            for worker in [w for w in self.workers if w.unanswered or w.ready is None]:
                self._remove(worker)
            raise
        finally:
            self.begin(_nothing)

    def first_ready(self) -> Any:
        """Waits until a worker is ready; returns what it says."""
        while not (ready := [w.ready for w in self.workers if w.ready is not None]):
            self.step()
        return ready[0]

    def step(self, seconds: float | None = None) -> list[tuple[int, Any | Lost]]:
        """Waits for answers, and replaces workers that are dead or stand still."""
        self._feed()
        looked = self._selector.select(LOOK_SECONDS if seconds is None else seconds)
        heard, answered = [key.data for key, _ in looked], []
        for worker in heard:
            answers = worker.receive()
            if answers is None:
                answered += self._replace(worker, still=False)
            elif answers:
                self._lost = 0
                answered += answers
        for worker in [w for w in self.workers if w not in heard]:
            if worker.stands_still(self.still_seconds, self.busy_seconds):
                answered += self._replace(worker, still=True)
        return answered

    def _feed(self) -> None:
        while len(self.workers) < self._wanted:
            worker = Worker(self._module, self._open_log())
            self.workers.append(worker)
            self._selector.register(worker.answers, selectors.EVENT_READ, worker)
        for worker in self.workers:
            if worker.settings is not self._settings:
                worker.prepare(self._settings)
            while worker.takes_more(self._ahead):
                task = self._next_task(worker)
                if task is None and (worker.unanswered or not self._again):
                    break
                worker.alone = task is None
                worker.give(task or self._again.popleft())

    def _replace(self, worker: Worker, *, still: bool) -> list[tuple[int, Lost]]:
        """Takes back the tasks of a worker; returns those that have cost too many."""
        self._remove(worker)
        self._lost += 1
        words = f"ended with {worker.last_words}"
        if still:
            words = f"neither answered nor computed for {worker.patience(self.still_seconds)} s"
        if self._lost >= self._most_lost:
            self._give_up(worker, words)
        given_up = []
        for task in worker.unanswered:
            self._costs[task[0]] += 1
            if self._costs[task[0]] < self._costly:
                self._again.append(task)
            else:
                given_up.append((task[0], Lost(still, words)))
        return given_up

    def _remove(self, worker: Worker) -> None:
        self._selector.unregister(worker.answers)
        self.workers.remove(worker)
        worker.stop()

    def _give_up(self, worker: Worker, words: str) -> NoReturn:
        task = self._name_of(worker.unanswered[0][1]) if worker.unanswered else "its start"
        raise InputError(
            f"`workers` must stay alive. Received: {self._lost} lost in a row, the last one "
            f"{words} at {task} (is there enough memory, and does the disk answer?)",
            "workers",
        )


def _nothing(worker: Worker) -> None:
    """What there is to do before there are tasks, and after them."""
