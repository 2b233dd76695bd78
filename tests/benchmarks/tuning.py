"""Hyperband over the paper's space: what it finds, what it costs, and whether it survives.

    python tests/benchmarks/tuning.py STORE [--label age_years] [--rows 6000] [--max-epochs 10]

On some rows of a store, all with the same rows kept back for validation:

- `bin/tune` in one process, and the validation NLL of its best against those of
  the paper's preset, of our default, and of a training with `--preset best.json`
  (without the temperature that ours is fitted afterwards);
- the same search by a chief and two workers;
- the same search killed at random moments and resumed: same trials, same best;
- seconds per trial of a shorter search with and without shared tracing.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.utils.tensorflow_import import import_tensorflow


def tune_command(store: Path, run_dir: Path, args, *options) -> list[str]:
    command = [
        sys.executable, ROOT / "bin" / "tune", "--store", store, "--label", args.label,
        "--space", args.space, "--max-epochs", args.max_epochs, "--seed", args.seed,
        "--run-dir", run_dir, "--resume", *options,
    ]  # fmt: skip
    if args.label == "age_years":
        command += ["--classes", args.classes]
    return [str(c) for c in command]


def search(store: Path, run_dir: Path, args, *options) -> dict:
    started = time.perf_counter()
    subprocess.run(tune_command(store, run_dir, args, *options), check=True, stdout=sys.stderr)
    seconds = time.perf_counter() - started
    report = json.loads((run_dir / "report.json").read_text())
    trials = report["trials"]["run"]
    return {"seconds": seconds, "trials": trials, "best": report["best"]}


def killed_search(store: Path, run_dir: Path, args, seconds: float) -> int:
    """Kills and resumes a search until it is through; returns how often it was killed."""
    rng, kills = random.Random(args.seed), 0
    while True:
        process = subprocess.Popen(tune_command(store, run_dir, args), stdout=sys.stderr)
        last = kills >= args.kills
        try:
            if process.wait(None if last else rng.uniform(0.2, 1) * seconds / args.kills):
                sys.exit("a resumed search failed")
            return kills
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1


def trials_of(run_dir: Path) -> list[dict]:
    with open(run_dir / "trials.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def trained(store: Path, run_dir: Path, args, *options) -> float:
    """Validation NLL of a training, before its temperature."""
    task = "train-age" if args.label.startswith("age") else "train-gender"
    command = [
        sys.executable, ROOT / "bin" / task, "--store", store, "--label", args.label,
        "--seed", args.seed, "--run-dir", run_dir, *options,
    ]  # fmt: skip
    if args.label == "age_years":
        command += ["--classes", args.classes]
    subprocess.run([str(c) for c in command], check=True, stdout=sys.stderr)
    return json.loads((run_dir / "report.json").read_text())["before_temperature"]["nll"]


def tracing(store: Path, folder: Path, args, found: Path) -> dict:
    """Seconds per trial of a short search with and without shared tracing, in this process."""
    from dataclasses import replace

    import_tensorflow()
    from kerasmlp.experiments.tuning.plan import TuningPlan
    from kerasmlp.experiments.tuning.trial import TrialRunner
    from kerasmlp.experiments.tuning.tune import tune

    run = TrialRunner.run

    def run_traced(runner, *arguments, **settings):
        runner.use_compiler(xla=runner.workbench.xla)  # with no model yet
        return run(runner, *arguments, **settings)

    plan = TuningPlan.from_config(json.loads((found / "config.json").read_text()))
    plan = replace(plan, max_epochs=args.tracing_epochs)
    result = {"max_epochs": args.tracing_epochs}
    for name, method in (("shared", run), ("each_traced", run_traced)):
        with mock.patch.object(TrialRunner, "run", method):
            report = tune(store, plan, folder / name)
        result["trials"] = report["trials"]["run"]
        result[name] = report["seconds"]["trials"] / report["trials"]["run"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--label", default="age_years")
    parser.add_argument("--classes", default="adience", help="of ages in years")
    parser.add_argument("--space", default="paper")
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--max-epochs", type=int, default=10)
    parser.add_argument("--tracing-epochs", type=int, default=4)
    parser.add_argument("--kills", type=int, default=3, help="0: leave that part out")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    whole = EmbeddingStore.open(args.store)
    rows = np.random.default_rng(args.seed).permutation(len(whole))[: args.rows]
    paper = "paper-age" if args.label.startswith("age") else "paper-gender"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "rows.h5"
        whole.subset(np.sort(rows)).save(store)
        one = search(store, folder / "one", args)
        result = {"rows": len(rows), "space": args.space, "one_process": one}
        result["chief_and_2_workers"] = search(store, folder / "two", args, "--workers", "2")
        result["speedup"] = one["seconds"] / result["chief_and_2_workers"]["seconds"]
        result["val_nll"] = {
            "search": one["best"]["val_loss"],
            "best.json": trained(
                store, folder / "best", args, "--preset", folder / "one" / "best.json"
            ),
            paper: trained(store, folder / "paper", args, "--preset", paper),
            "default": trained(store, folder / "default", args),
        }
        others = (result["val_nll"][paper], result["val_nll"]["default"])
        result["beats_both"] = result["val_nll"]["search"] < min(others)
        result["seconds_per_trial"] = tracing(store, folder, args, folder / "one")
        if args.kills:
            result["kills"] = killed_search(store, folder / "killed", args, one["seconds"])
            result["killed_is_equal"] = trials_of(folder / "one") == trials_of(folder / "killed")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
