"""Runs of a cross-validation side by side in one program, against one after the other per core.

    python tests/benchmarks/side_by_side.py [--cases small paper …] [--numbers 1 5 10]
        [--workers 2] [--rounds 2] [--epochs 6]

Synthetic rows, 5 × 5 runs (`--runs` takes fewer), the numbers of runs per program alternating in
one pool of workers each, whose first cross-validation compiles and is left out. Prints medians
and ratios; the last line is one JSON object: how many times as fast as one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from kerasmlp import EmbeddingStore, NumberTarget, Recipe, StoreInfo, choose_target
from kerasmlp.experiments.cross_validation.cross_validate import cross_validate
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan
from kerasmlp.experiments.cross_validation.trainer import TrainingPool
from kerasmlp.models.presets import PRESETS

CASES = {  # rows, width, classes (0: a number), recipe
    "number": (1000, 8, 0, PRESETS["number"].replace(refit=False)),
    "32": (2000, 32, 2, Recipe(batch_size=64)),
    "64": (4000, 64, 2, Recipe(batch_size=128)),
    "128": (4000, 128, 2, Recipe(batch_size=128)),
    "256": (4000, 256, 2, Recipe(batch_size=128)),
    "paper": (8000, 512, 2, PRESETS["paper-age"].replace(patience=None)),
}


def make_store(rows: int, width: int, classes: int, path: Path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, width)).astype(np.float32)
    if classes:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        store = EmbeddingStore(x, {"gender": (x[:, 0] > 0).astype(int)})
    else:
        labels = {"y": x[:, 0] + 0.1 * rng.standard_normal(rows)}
        store = EmbeddingStore(x, labels, StoreInfo(normalized=False))
    store.save(path)
    return choose_target(store, "gender") if classes else NumberTarget("y")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--numbers", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--runs", type=int, nargs=2, default=(4, 5), help="seeds and folds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    ratios = {}
    for case in args.cases:
        *sizes, recipe = CASES[case]
        with tempfile.TemporaryDirectory() as folder:
            target = make_store(*sizes, Path(folder) / "store.h5")
            seeds = tuple(range(args.runs[0]))
            recipe = recipe.replace(epochs=args.epochs)
            how = {"target": target, "seeds": seeds, "num_folds": args.runs[1]}
            plan, seconds = CrossValidationPlan(recipe=recipe, **how), {n: [] for n in args.numbers}
            pools = {n: TrainingPool(args.workers) for n in args.numbers}
            for turn in range(args.rounds + 1):
                for number, pool in pools.items():
                    started, run_dir = time.perf_counter(), Path(folder) / f"{number}_{turn}"
                    how = {"pool": pool, "side_by_side": number}
                    cross_validate(Path(folder) / "store.h5", plan, run_dir, **how)
                    seconds[number].append(time.perf_counter() - started)
            for pool in pools.values():
                pool.__exit__()
        medians = {n: statistics.median(times[1:]) for n, times in seconds.items()}
        ratios[case] = {n: round(medians[args.numbers[0]] / t, 3) for n, t in medians.items()}
        first = {n: round(times[0], 1) for n, times in seconds.items()}
        shown = {n: round(t, 1) for n, t in medians.items()}
        print(f"{case}: {shown} s, ratios {ratios[case]}, with compilation {first} s", flush=True)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
