"""A search spread over processes: this one is Keras Tuner's chief, others run the trials."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmlp.data.joining import StorePaths, absolute, open_stores
from kerasmlp.experiments.tuning.plan import TuningPlan
from kerasmlp.experiments.tuning.search_files import (
    plan_of_search,
    require_keras_tuner,
    settings_of_search,
)
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.precision import default_policy
from kerasmlp.utils.checks import reject, reject_file
from kerasmlp.utils.tensorflow_import import import_keras, keras_backend
from kerasmlp.utils.worker import serve
from kerasmlp.utils.workers import Pool

if TYPE_CHECKING:
    from kerasmlp.experiments.tuning.search import Search

TUNER_ID, IP, PORT = (f"KERASTUNER_{name}" for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT"))
_MOST_DEATHS = 6
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
    with socket.create_server(("127.0.0.1", 0)) as free:
        os.environ.setdefault(PORT, str(free.getsockname()[1]))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class WorkerPool(Pool):
    """Worker processes on this machine, one core each. One that dies is started again under its
    own name: the chief gives it the trial it was at, which goes on from its checkpoint.

    Raises:
        InputError: if a worker was given bad input, or six have died.
    """

    def __init__(self, store_path: StorePaths, run_dir: Path, number: int):
        self._where = {"store": absolute(store_path), "run_dir": str(run_dir)}
        self._logs, started = Path(run_dir) / "search", itertools.count()
        self.names = [f"worker-{os.getpid()}-{number}" for number in range(number)]
        """By which the chief knows them."""

        self.at_work = number
        super().__init__(
            "kerasmlp.experiments.tuning.spread",
            number,
            costly=_MOST_DEATHS,
            most_lost=_MOST_DEATHS,
            open_log=lambda: open(self._logs / f"worker-{next(started)}.log", "w+b"),  # noqa: SIM115
        )

    def __enter__(self) -> WorkerPool:
        self._logs.mkdir(exist_ok=True)
        ip, names = os.environ[IP], list(enumerate(self.names))
        self.begin(lambda worker: names.pop(0) if names else None)
        try:
            self.start(self._where | {"ip": "127.0.0.1" if ip == "0.0.0.0" else ip})
        except BaseException:
            self.stop()
            raise
        return self

    def watch(self, seconds: float) -> None:
        """Starts workers again that died, for so long; notes those that have left."""
        self.at_work -= len(self.step(seconds))


def search_with_workers(
    plan: TuningPlan,
    folder: RunFolder,
    config: dict,
    pool: WorkerPool,
    deadline: float | None,
    on_progress: Callable,
) -> Search:
    """Searches as the chief of workers, and stops them at the end."""
    with as_chief(), pool:  # workers import while this process does
        from kerasmlp.experiments.tuning.search import Search

        search = Search(plan, folder, config, None, deadline=deadline)
        answer_workers(search, pool, on_progress)
    return search


def answer_workers(search: Search, pool: WorkerPool, on_progress: Callable) -> None:
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
        pool.watch(_POLL_SECONDS)
        for name in oracle.silent_for(max(_SILENT_SECONDS, _SILENT_EPOCHS * oracle.longest_epoch)):
            if name not in pool.names:  # those are started again
                oracle.take_back(name)
        on_progress(oracle, oracle.num_epochs)
        if pool.names and not (pool.at_work or oracle.finished or oracle.time_is_up):
            raise RuntimeError("all workers ended before the search did")
    on_progress(oracle, oracle.num_epochs)
    last_epoch = 0 if oracle.finished else oracle.longest_epoch
    leaving = time.monotonic() + last_epoch + _GOODBYE_SECONDS
    while oracle.tuner_ids and time.monotonic() < leaving:
        time.sleep(_POLL_SECONDS)


def work(store_path: StorePaths, run_dir: str | os.PathLike) -> None:
    """Runs trials of the chief that the environment names until there are no more.

    Args:
        store_path: The chief's data, by any path.
        run_dir: The chief's folder, which this machine sees too.

    Raises:
        InputError: if there is no search, it is on other data, or the chief has not
            answered for an hour.
    """
    require_keras_tuner()
    from grpc import RpcError, StatusCode

    from kerasmlp.experiments.tuning.search import Search
    from kerasmlp.experiments.tuning.trial import TrialRunner
    from kerasmlp.training.blocks import bytes_as_told

    folder = RunFolder(run_dir)
    config = settings_of_search(folder)
    if config is None or config["max_epochs"] is None:
        reject_file(folder.path, "must be the folder of a search that its chief has begun", "none")
    store = open_stores(store_path, group=config.get("group"))
    if config["data_digest"] != store.digest():
        digest = config["data_digest"][:12]
        reject_file(store.name, f"must hold the chief's data ({digest})", store.digest()[:12])
    if config.get("precision") != default_policy():
        requirement = f"must be the folder of a search in {default_policy()}, as on this machine"
        reject_file(folder.path, requirement, f"{config.get('precision')}")
    if config.get("backend", "tensorflow") != keras_backend():
        requirement = f"must be the folder of a search on {keras_backend()}, as on this machine"
        reject_file(folder.path, requirement, config.get("backend", "tensorflow"))
    plan = plan_of_search(folder, config)
    runner = TrialRunner(store, plan, bytes_as_told(config.get("in_memory")))
    search = Search(plan, folder, config, runner)
    try:
        search.run()
    except RpcError as error:
        if error.code() not in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED):
            raise RuntimeError(f"the chief could not answer: {error.details()}") from None
        reject(IP, "must be that of a chief at work", os.environ[IP])


def _prepare(settings: dict) -> tuple[bool, Callable[[str], None]]:
    import_keras()
    from kerasmlp.experiments.tuning.trial import trace_faster

    trace_faster()

    def run_trials(name: str) -> None:
        os.environ |= {TUNER_ID: name, IP: settings["ip"]}
        work(settings["store"], settings["run_dir"])

    return True, run_trials


if __name__ == "__main__":
    serve(_prepare)
