"""Commands that are killed in the midst of their work, and finish it when told to resume."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from data_sets import ROOT
from forked import fresh_python

_ALL = """
import json, sys
from kerasmlp.cli import run_command
sys.exit(max(run_command(sys.argv[1], words) for words in json.loads(sys.argv[2])))
"""


def _start(*words: str) -> subprocess.Popen:
    # Convolutions on several threads add up in another order on a busy machine.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_NUM_INTRAOP_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([fresh_python(), *words], env=environment, **pipes)


def finish(command: str, *several: list[str]) -> tuple[str, str]:
    """What the command prints, to stdout and stderr, with one list of words after the other.

    All in one process, on one thread: to start one takes longer than some trainings.
    """
    process = _start("-c", _ALL, command, json.dumps(several))
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out, err


def kill(command: str, words: list[str], folder: Path, checkpoint: Path) -> None:
    """Kills the command, which works in `folder`, as soon as `checkpoint` appears there."""
    for _ in range(5):
        process = _start(str(ROOT / "bin" / command), *words)
        while process.poll() is None and not checkpoint.exists():
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        assert checkpoint.exists(), err
        if not (checkpoint.parent / "DONE").exists():
            return
        shutil.rmtree(folder)  # it was too quick for this busy machine
    raise AssertionError("five times finished before it was killed")
