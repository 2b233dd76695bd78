"""A search spread over processes: this one is Keras Tuner's chief, others run the trials."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmlp.utils.checks import InputError, reject
from kerasmlp.utils.processes import start_worker

if TYPE_CHECKING:
    from kerasmlp.experiments.tuning.search import Search

TUNER_ID, IP, PORT = (f"KERASTUNER_{name}" for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT"))
_MAX_DEATHS = 5
_POLL_SECONDS = 0.25
_SILENT_SECONDS, _SILENT_EPOCHS = 600, 20
"""A worker of another machine that says nothing for so long, and so many epochs, is gone."""

_GOODBYE_SECONDS = 5
"""Given to workers to hear that the search is over, on top of an epoch where time is up."""


def role() -> str | None:
    """What the environment makes of this process: `"chief"`, `"worker"`, or neither.

    Raises:
        InputError: if one of the three variables is missing or no port, or a worker
            is named as one that Keras Tuner takes for a chief.
    """
    given = [name for name in (TUNER_ID, IP, PORT) if os.environ.get(name)]
    if not given:
        return None
    for name in (TUNER_ID, IP, PORT):
        if name not in given:
            reject(name, f"must be set where {given[0]} is", os.environ.get(name))
    port = os.environ[PORT]
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        reject(PORT, "must be a port, 1 to 65535", port)
    name = os.environ[TUNER_ID]
    if name != "chief" and "chief" in name:
        reject(TUNER_ID, "must be `chief`, or a name without that word", name)
    return "chief" if name == "chief" else "worker"


@contextmanager
def as_chief() -> Iterator[None]:
    """Makes this process the chief: at the address that the environment gives, else at a free
    port that this machine alone can reach."""
    before = {name: os.environ.get(name) for name in (TUNER_ID, IP, PORT)}
    os.environ[TUNER_ID] = "chief"
    os.environ.setdefault(IP, "127.0.0.1")
    os.environ.setdefault(PORT, str(_free_port()))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class WorkerPool:
    """Worker processes on this machine, one core each. One that dies is started again under its
    own name: the chief gives it the trial it was at, which goes on from its checkpoint.

    Workers end with their parent, however that ends.

    Args:
        store_path: Embedding store.
        run_dir: Of the search.
        number: Of workers.
    """

    def __init__(self, store_path: Path, run_dir: Path, number: int):
        self._store_path, self._run_dir = store_path, Path(run_dir)
        self._workers: list[subprocess.Popen | None] = [None] * number
        self._deaths = 0

    @property
    def names(self) -> list[str]:
        """By which the chief knows them."""
        return [f"worker-{os.getpid()}-{number}" for number in range(len(self._workers))]

    def start(self) -> None:
        (self._run_dir / "search").mkdir(exist_ok=True)
        for number in range(len(self._workers)):
            self._start(number)

    def _start(self, number: int) -> None:
        ip = os.environ[IP]
        environment = {
            TUNER_ID: self.names[number],
            IP: "127.0.0.1" if ip == "0.0.0.0" else ip,
        }
        with open(self._log(number), "wb") as log:
            self._workers[number] = start_worker(
                "kerasmlp.experiments.tuning.worker",
                self._store_path,
                self._run_dir,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def _log(self, number: int) -> Path:
        return self._run_dir / "search" / f"worker-{number}.log"

    def restart_dead(self) -> bool:
        """Starts workers again that died; returns whether any can still be at work.

        Raises:
            InputError: if a worker was given bad input.
            RuntimeError: if workers die again and again.
        """
        for number, worker in enumerate(self._workers):
            code = worker.poll()
            if not code:
                continue
            log = self._log(number).read_text(encoding="utf-8", errors="replace")
            last = (log.strip().splitlines() or [""])[-1]
            if code == 2:
                raise InputError(last)
            self._deaths += 1
            if self._deaths > _MAX_DEATHS:
                raise RuntimeError(f"{self._deaths} workers died, the last: exit {code} {last}")
            self._start(number)
        return not self._workers or any(worker.poll() is None for worker in self._workers)

    def stop(self) -> None:
        for worker in self._workers:
            if worker is not None:
                worker.kill()
                worker.wait()
                worker.stdin.close()


def serve(search: Search, pool: WorkerPool, on_progress: Callable) -> None:
    """Answers workers until all trials are done or time is up, and until they have left.

    A worker that hears too late of the end of a search asks its chief for an hour.
    Keras Tuner's server waits for the last request of every worker it has ever
    seen, for ever where one is gone; it ends with this process instead.
    """
    failed: list[BaseException] = []

    def answer() -> None:
        try:
            search.search()
        except BaseException as error:
            failed.append(error)

    threading.Thread(target=answer, daemon=True).start()
    oracle = search.state
    while not (oracle.finished or oracle.time_is_up):
        if failed or oracle.failure:
            raise oracle.failure or failed[0]
        at_work = pool.restart_dead()
        for name in oracle.silent_for(max(_SILENT_SECONDS, _SILENT_EPOCHS * oracle.longest_epoch)):
            if name not in pool.names:  # those are started again
                oracle.take_back(name)
        on_progress(oracle, oracle.num_epochs)
        if not (at_work or oracle.finished or oracle.time_is_up):
            raise RuntimeError("all workers ended before the search did")
        time.sleep(_POLL_SECONDS)
    on_progress(oracle, oracle.num_epochs)
    last_epoch = 0 if oracle.finished else oracle.longest_epoch
    leaving = time.monotonic() + last_epoch + _GOODBYE_SECONDS
    while oracle.tuner_ids and time.monotonic() < leaving:
        time.sleep(_POLL_SECONDS)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
