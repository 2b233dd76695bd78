"""Tasks spread over a Ray cluster, the one of `RAY_ADDRESS` or one on this machine.

Ray Data hands the tasks to actors, and those of a lost worker or node to others. What it sends
between its processes it packs by its own pickles: who can reach a cluster can run code there.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import json
import logging
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kerasmlp import __version__
from kerasmlp.utils.checks import InputError, check_choice, check_int, reject, reject_file
from kerasmlp.utils.files import what_is
from kerasmlp.utils.processes import num_cores, one_thread

ENGINES = ("local", "ray")
_MOST_TRIES = 5
"""Workers that a task may cost: another one that dies with it says that it is to blame."""
_ANSWER_SECONDS = 10
_LOOK_SECONDS = 1.0
_STORE_BYTES = 1 << 28  # of a cluster on this machine: tasks and answers are small

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would report to its makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}

Work = Callable[[Any], Any]


def check_engine(engine: str) -> str:
    """Returns the name of an engine that is there.

    Example:

    >>> check_engine("local")
    'local'
    """
    if check_choice("engine", engine, ENGINES) == "ray":
        found = [importlib.util.find_spec(name) for name in ("ray", "pyarrow", "pandas")]
        if not all(spec and spec.origin for spec in found):
            reject("engine", "needs Ray Data to be ray (`pip install kerasmlp[ray]`)", engine)
    return engine


@contextlib.contextmanager
def ray_cluster(workers: int | None = None) -> Iterator[int]:
    """Joins the cluster of `RAY_ADDRESS`, or starts one here; yields how many workers there are.

    Args:
        workers: One core each; None takes all cores of the cluster. A cluster that has fewer
            gives what it has.

    Raises:
        InputError: if Ray is not installed, the cluster does not answer, or has no cores.
    """
    check_engine("ray")
    workers = None if workers is None else check_int("workers", workers, minimum=1)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray.data

    with contextlib.ExitStack() as stack:
        if not ray.is_initialized():
            _join(stack, workers)
        cores = int(ray.cluster_resources().get("CPU", 0))
        if cores < 1:
            reject("RAY_ADDRESS", "must be a cluster with cores to work on", _address())
        if workers is not None and workers > cores:
            told = f"the cluster has {cores} cores: {workers} workers would wait for each other"
            print(f"note: {told}", file=sys.stderr)
        yield min(workers or cores, cores)


def answers_of(
    prepare: Callable[[Any], Work],
    settings: Any,
    tasks: Mapping[int, Any],
    *,
    workers: int | None = None,
    gpus: int = 0,
) -> Iterator[tuple[int, Any]]:
    """Yields number and answer of each task as it is done, in any order.

    A task that a lost worker had is done by another one: it must come to the same twice.

    Args:
        prepare: In each worker, once: from settings to what answers a task. A function of a
            module.
        settings: JSON, as tasks and answers are.
        tasks: By their numbers.
        workers: Actors of one core each, at most; None takes all cores of the cluster.
        gpus: Of each.

    Raises:
        InputError: of a worker, or as of `ray_cluster`.
    """
    if tasks:
        with ray_cluster(workers) as workers:
            how = {"workers": min(workers, len(tasks)), "gpus": gpus}
            yield from _answers(prepare, settings, tasks, **how)


def _answers(
    prepare: Callable[[Any], Work],
    settings: Any,
    tasks: Mapping[int, Any],
    *,
    workers: int,
    gpus: int,
) -> Iterator[tuple[int, Any]]:
    import ray.data
    from ray.exceptions import RayError, RayTaskError

    items = [{"task": json.dumps(task)} for task in tasks.items()]
    tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Tries).remote()
    answers = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Actor,
        fn_constructor_args=(prepare, json.dumps(settings), __version__, tries),
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
        batch_size=1,
        num_cpus=1,
        num_gpus=gpus,
        runtime_env={"env_vars": _environment(gpus)},
    )
    alive = _Alive()
    try:
        for row in answers.iter_rows():
            alive.look()
            said = json.loads(row["answer"])
            if "error" in said:
                raise InputError(said["error"], said["argument"])
            if "os_error" in said:
                raise OSError(*said["os_error"])
            yield said["number"], said["answer"]
    except RayTaskError:
        raise
    except RayError as error:
        line = (re.findall(r"^\w+Error: .+", str(error), re.M) or [type(error).__name__])[-1]
        raise InputError(
            f"`engine` must find kerasmlp and what it needs on every node. Received: {line}"
        ) from error


def require_shared(path: str | os.PathLike) -> None:
    """Rejects a file or folder that the driver has and this node has not."""
    if not os.path.exists(path):
        requirement = "must be there on every node of the cluster (a shared file system)"
        reject_file(path, requirement, what_is(path))


def _address() -> str:
    return os.environ.get("RAY_ADDRESS") or "local"


def _join(stack: contextlib.ExitStack, workers: int | None) -> None:
    """Joins a cluster until the stack is left."""
    import ray

    address, how = _address(), {}
    if address == "local":
        temporary = {"prefix": "kerasmlp-ray-", "ignore_cleanup_errors": True}
        folder = stack.enter_context(tempfile.TemporaryDirectory(**temporary))
        how = {"num_cpus": max(num_cores(), workers or 1), "include_dashboard": False}
        how |= {"object_store_memory": _STORE_BYTES, "_temp_dir": folder}
    else:
        _require_answer(address)
    # What Ray prints for itself goes to standard output, where answers are; there is no
    # public switch. What matters of it is said here.
    vars(ray._private.worker)["_worker_logs_enabled"] = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    on_stop = signal.getsignal(signal.SIGTERM)  # Ray takes it for itself
    stack.callback(ray.shutdown)
    try:
        with _unheard():
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **how)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0][:150] if str(error).strip() else ""
        reject("RAY_ADDRESS", f"must be of a running cluster that takes us ({line})", address)
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, on_stop)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keeps what a library of C++ writes from standard error: here, that it will be quiet."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def _require_answer(address: str) -> None:
    """Ray itself asks for minutes, and by `auto` also one that is long gone."""
    host, _, port = address.rpartition(":")
    if "://" in address or not (host and port.isdigit()):
        reject("RAY_ADDRESS", "must be host:port of a cluster's head", address)
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        reject("RAY_ADDRESS", f"must be of a running cluster ({why})", address)


def _environment(gpus: int) -> dict[str, str]:
    kept = {k: os.environ[k] for k in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL") if k in os.environ}
    return one_thread() | kept | ({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})


class _Alive:
    """Says which nodes are lost, in a sentence each."""

    def __init__(self):
        self._lost = self._dead()
        self._looked = time.monotonic()

    def look(self) -> None:
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for node in sorted(self._dead() - self._lost):
            self._lost.add(node)
            told = f"node {node[:8]} of the cluster is lost: others do its tasks"
            print(f"note: {told}", file=sys.stderr)

    @staticmethod
    def _dead() -> set[str]:
        import ray

        return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}


# ---- in a worker


class _Tries:
    """How often each task was begun."""

    def __init__(self):
        self._begun: collections.Counter = collections.Counter()

    def begin(self, number: int) -> int:
        self._begun[number] += 1
        return self._begun[number]


class _Actor:
    """Answers tasks; what is wrong with them it says, as Ray would try them again for ever."""

    def __init__(self, prepare: Callable[[Any], Work], settings: str, version: str, tries: Any):
        self._prepare, self._settings, self._version = prepare, settings, version
        self._tries, self._work = tries, None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        return {"answer": [json.dumps(self._answer(*json.loads(t))) for t in batch["task"]]}

    def _answer(self, number: int, task: Any) -> dict[str, Any]:
        import ray

        if ray.get(self._tries.begin.remote(number)) > _MOST_TRIES:
            came = f"{_MOST_TRIES} lost at task {number}"
            error = f"`workers` must stay alive. Received: {came} (is there enough memory?)"
            return {"error": error, "argument": "workers"}
        try:
            if self._work is None:
                if self._version != __version__:
                    reject("engine", f"must find kerasmlp {self._version} on every node", "ray")
                self._work = self._prepare(json.loads(self._settings))
            return {"number": number, "answer": self._work(task)}
        except (InputError, ImportError) as error:
            where = f"; on node {ray.get_runtime_context().get_node_id()[:8]}"
            return {"error": f"{error}{where}", "argument": getattr(error, "argument", None)}
        except OSError as error:
            known = error.errno is not None
            says = [error.errno, error.strerror, error.filename] if known else [str(error)]
            return {"os_error": says}
