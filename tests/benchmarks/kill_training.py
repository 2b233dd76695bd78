"""Kills a training ten times at random moments, resumes it, and compares every bit.

    python tests/benchmarks/kill_training.py STORE [--kills 10] [--seed 0]

The last line is one JSON object: `{"kills": …, "finished": …, "equal": true}`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

from kerasmlp.runs.model import load_model
from kerasmlp.runs.run_folder import RunFolder


def start(store: Path, run_dir: Path) -> subprocess.Popen:
    command = [
        sys.executable, ROOT / "bin" / "train-gender", "--store", store, "--run-dir", run_dir,
        "--epochs", "25", "--patience", "20", "--resume",
    ]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([str(c) for c in command], **quiet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        started = time.time()
        if start(args.store, whole).wait():
            sys.exit("the uninterrupted run failed")
        seconds = time.time() - started
        kills, finished, equal, lost, before = 0, 0, True, False, 0
        while kills < args.kills or not finished:
            process = start(args.store, broken)
            try:
                # Anywhere from the start of Python to the last picture.
                if process.wait(rng.uniform(0, seconds) if kills < args.kills else None):
                    sys.exit("a resumed run failed")
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                done = epochs_done(broken)
                lost |= done < before
                before = done
                print(f"kill {kills}: {done} epochs are safe", flush=True)
                continue
            finished += 1
            equal &= same(whole, broken)
            before = 0
            shutil.rmtree(broken)
    print(json.dumps({"kills": kills, "finished": finished, "equal": equal, "epochs_lost": lost}))


def epochs_done(run: Path) -> int:
    """Epochs in the checkpoint; a run that is past it has them all."""
    if (run / "model.keras").exists():
        return 25
    if not (run / "checkpoint.npz").exists():
        return 0
    with np.load(run / "checkpoint.npz", allow_pickle=False) as saved:
        return len(json.loads(str(saved["meta"]))["history"])


def same(whole: Path, broken: Path) -> bool:
    weights = zip(load_model(whole).get_weights(), load_model(broken).get_weights(), strict=True)
    reports = [RunFolder(path).report()["validation"] for path in (whole, broken)]
    return all(np.array_equal(a, b) for a, b in weights) and reports[0] == reports[1]


if __name__ == "__main__":
    main()
