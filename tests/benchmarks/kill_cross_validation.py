"""Kills a cross-validation ten times at random moments, resumes it, and compares the table.

    python tests/benchmarks/kill_cross_validation.py STORE [--kills 10] [--seed 0]

The last line is one JSON object: `{"kills": …, "finished": …, "equal": true, "runs_lost": false}`.
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
TABLES = ("runs.csv", "table.md")


def start(store: Path, run_dir: Path) -> subprocess.Popen:
    command = [
        sys.executable, ROOT / "bin" / "cross-validate", "--store", store, "--label", "gender",
        "--seeds", "2", "--folds", "2", "--epochs", "10", "--patience", "8",
        "--run-dir", run_dir, "--resume",
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
            sys.exit("the uninterrupted cross-validation failed")
        seconds = time.time() - started
        kills, finished, equal, lost = 0, 0, True, False
        before: dict[str, int] = {}
        while kills < args.kills or not finished:
            process = start(args.store, broken)
            try:
                # Anywhere from the start of Python to the last picture.
                if process.wait(rng.uniform(0, seconds) if kills < args.kills else None):
                    sys.exit("a resumed cross-validation failed")
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            now = {p.parent.name: p.stat().st_mtime_ns for p in broken.glob("*/DONE")}
            # A finished run stays, and is not written again.
            lost |= any(now.get(name) != written for name, written in before.items())
            before = now
            if (broken / "DONE").exists():
                finished += 1
                equal &= all((whole / n).read_bytes() == (broken / n).read_bytes() for n in TABLES)
                before = {}
                shutil.rmtree(broken)
            else:
                print(f"kill {kills}: {len(now)} runs are safe", flush=True)
    print(json.dumps({"kills": kills, "finished": finished, "equal": equal, "runs_lost": lost}))


if __name__ == "__main__":
    main()
