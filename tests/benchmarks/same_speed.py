"""Whether two checkouts train, sample, cross-validate and open stores equally fast.

    python tests/benchmarks/same_speed.py OTHER_CHECKOUT [--rounds 5]

Each checkout runs its own commands, in processes of its own, the two alternating and
each first in every second round; results are medians. Times are of the sample: an epoch
of the paper's age network (the difference of a long and a short `train-age`), a short
`train-age` from start to end, a 1 × 2 `cross-validate`, 256 samples of 64 rows by
`predict_samples` after the first call, and `EmbeddingStore.open`. The last line is one
JSON object: times of the other checkout over times of this one, above 1 is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from same_bits import ROOT, Checkout

SAMPLE = ROOT / "data" / "fairface_sample.h5"
MANY_EPOCHS = 25
LOOP = """
import statistics, sys, time
import kerasmlp
from kerasmlp import EmbeddingStore, load_model, predict_samples

def median(call, rounds):
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])

x = EmbeddingStore.open(sys.argv[2]).embeddings[:64]
print(median(lambda: EmbeddingStore.open(sys.argv[2]), 40))
model = getattr(kerasmlp, "Sampler", lambda model: model)(load_model(sys.argv[1]))
print(median(lambda: predict_samples(model, x, num_samples=256, seed=3), 12))
"""


def times_of(checkout: Checkout, number: int) -> dict[str, float]:
    """Seconds of each task, once."""

    def seconds(command: str, name: str, *args: object) -> float:
        started = time.perf_counter()
        checkout.command(command, "--run-dir", f"{name}{number}", *args)
        return time.perf_counter() - started

    paper = ("--store", SAMPLE, "--preset", "paper-age", "--patience", 1000, "--epochs")
    short = seconds("train-age", "short", *paper, 1)
    long = seconds("train-age", "long", *paper, 1 + MANY_EPOCHS)
    folds = ("--seeds", 1, "--folds", 2, "--workers", 1)
    cross = seconds("cross-validate", "cv", *paper, 2, *folds)
    opened, sampled = map(float, checkout.python("-c", LOOP, f"short{number}", SAMPLE).split())
    return {
        "epoch": (long - short) / MANY_EPOCHS, "train_age": short, "cross_validate": cross,
        "samples": sampled, "open": opened,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        two = [Checkout(args.other.resolve(), folder / "other", folder)]
        two.append(Checkout(ROOT, folder / "this", folder))
        times = {checkout: [] for checkout in two}
        for number in range(args.rounds):
            for checkout in two if number % 2 else reversed(two):
                times[checkout].append(times_of(checkout, number))
    ratios = {}
    for task in times[two[0]][0]:
        other, this = (statistics.median(t[task] for t in times[c]) for c in two)
        ratios[task] = round(other / this, 3)
        print(f"{task:15} {other:9.4f} s  {this:9.4f} s  {ratios[task]:6.3f}")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
