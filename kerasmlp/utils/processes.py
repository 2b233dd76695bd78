"""Worker processes, one core each."""

import os
import subprocess
import sys
from pathlib import Path

from kerasmlp.utils.checks import check_int


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def number_of_workers(workers: int | None) -> int:
    """As many as are asked for, or as there are cores."""
    return num_cores() if workers is None else check_int("workers", workers, minimum=1)


def start_worker(module: str, **options) -> subprocess.Popen:
    """Starts `python -m module` as a process whose libraries take one thread each.

    Args:
        module: Of this package.
        options: Of `subprocess.Popen`; `env` is added to this process's environment.
    """
    environment = os.environ | one_thread() | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,  # its end is how a worker learns that its parent is gone
        env=environment,
        start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
        **options,
    )


def one_thread() -> dict[str, str]:
    """What the environment of a worker has of its own: this package, and one thread."""
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(path).rstrip(os.pathsep),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "PJRT_NPROC": "1",  # of XLA under JAX
        "NPROC": "1",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # or the first worker takes the whole GPU
    }
