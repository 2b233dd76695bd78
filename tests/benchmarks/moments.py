"""The closed form against samples: how far `predict_moments` is from 4,096 passes.

    python tests/benchmarks/moments.py STORE RUN [RUN …] [--rows 256]

For every run: the distance of the mean probabilities (total variation, largest
single error) from the mean of 4,096 independent passes, beside the sampling
error of that mean itself and the distance of the deterministic model; and the
ratio of standard deviations, over outputs that vary by 0.001 or more. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from kerasmlp import EmbeddingStore, load_model, predict_moments, predict_samples

SAMPLES = 4096


def compare(run: Path, x: np.ndarray) -> dict[str, float]:
    model = load_model(run)
    predict_moments(model, x), predict_samples(model, x[:1], num_samples=SAMPLES)  # compiles
    started = time.perf_counter()
    moments = predict_moments(model, x)
    halfway = time.perf_counter()
    samples = np.concatenate(
        [
            predict_samples(model, x[i : i + 1], num_samples=SAMPLES, first_row=i)
            for i in range(len(x))
        ],
        axis=1,
    )
    ended = time.perf_counter()
    mean, deviation = samples.mean(axis=0, dtype=np.float64), samples.std(axis=0, dtype=np.float64)
    plain = model.predict(x, verbose=0)
    ratios = (np.sqrt(moments["variance"]) / deviation)[deviation > 1e-3]
    low, middle, high = np.quantile(ratios, [0.05, 0.5, 0.95])
    return {
        "total_variation": _distance(moments["mean"], mean),
        "deterministic_total_variation": _distance(plain, mean),
        "sampling_error": float(np.abs(deviation / SAMPLES**0.5).sum(axis=1).mean() / 2),
        "largest_error": float(np.abs(moments["mean"] - mean).max()),
        "std_ratio_5%": low,
        "std_ratio_median": middle,
        "std_ratio_95%": high,
        "times_faster_than_4096_samples": (ended - halfway) / (halfway - started),
    }


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).sum(axis=1).mean() / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--rows", type=int, default=256)
    args = parser.parse_args()
    x = EmbeddingStore.open(args.store).embeddings[: args.rows]
    found = {}
    for run in args.runs:
        found[run.name] = {k: round(float(v), 5) for k, v in compare(run, x).items()}
        for name, value in found[run.name].items():
            print(f"{run.name:12} {name:32} {value:10.5f}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
