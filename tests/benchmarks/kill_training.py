"""Kills a training ten times at random moments, resumes it, and compares every bit.

    python tests/benchmarks/kill_training.py STORE [--kills 10] [--seed 0]

The last line is one JSON object: `{"kills": …, "equal": true}`.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

from kerasmlp.runs import RunFolder, load_model


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
        kills, epochs = 0, []
        while True:
            process = start(args.store, broken)
            try:
                # Anywhere from the start of Python to the last picture.
                limit = rng.uniform(0, 1.05 * seconds) if kills < args.kills else None
                if process.wait(limit):
                    sys.exit("a resumed run failed")
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                checkpoint = broken / "checkpoint.npz"
                done = 0
                if checkpoint.exists():
                    with np.load(checkpoint, allow_pickle=False) as saved:
                        done = len(json.loads(str(saved["meta"]))["history"])
                epochs.append(done)
                print(f"kill {kills}: {done} epochs are safe", flush=True)
        equal = all(
            np.array_equal(a, b)
            for a, b in zip(
                load_model(whole).get_weights(), load_model(broken).get_weights(), strict=True
            )
        )
        reports = [RunFolder(path).report()["validation"] for path in (whole, broken)]
        lost = any(b < a for a, b in zip(epochs, epochs[1:], strict=False) if b)
        result = {"kills": kills, "equal": equal and reports[0] == reports[1], "epochs_lost": lost}
        print(json.dumps(result))


if __name__ == "__main__":
    main()
