"""`fit` against the same network in eager PyTorch with a DataLoader.

    python tests/benchmarks/training.py STORE [--rounds 7]

Two questions, each with both sides alternating in the same run, medians:

1. Steady state: samples per second of the paper's age network (837,733
   parameters) at batch 128 and 512, tracing and first epoch left out. Ours is
   `compile_by_recipe` and `model.fit` on `training_chunks`, as the commands do it;
   float32 on both sides, each in its own process.
2. From process start to a finished run: `bin/train-age --preset paper-age`
   for 10 epochs at batch 128, its run folder with report and pictures
   included, against `torch_mlp.py` as a script.

Ratios above 1 are in our favour. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch_mlp

from kerasmlp.models.presets import PRESETS
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.training.batches import training_chunks
from kerasmlp.training.fit import compile_by_recipe
from kerasmlp.training.losses import recipe_loss

ROWS, EPOCHS_PER_ROUND = 16_384, 3


def our_round(batch_size: int):
    """Returns a function that trains some epochs and gives samples per second."""
    import keras

    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 512)).astype("float32") / 512**0.5
    y = np.eye(101, dtype="float32")[rng.integers(0, 101, ROWS)]
    model = ResidualMLP(num_classes=101, seed=0, **PRESETS["paper-age"].network(512))
    steps = ROWS // batch_size
    recipe = PRESETS["paper-age"].replace(epochs=EPOCHS_PER_ROUND + 1, batch_size=batch_size)
    model = compile_by_recipe(model, recipe, steps=steps, loss=recipe_loss(recipe, ordered=False))
    ends = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: ends.append(time.perf_counter()),
        on_epoch_end=lambda *_: ends.append(time.perf_counter()),
    )

    def run() -> float:
        ends.clear()
        chunks = training_chunks(
            x, y, batch_size=batch_size, num_epochs=EPOCHS_PER_ROUND + 1, seed=0
        )
        model.fit(
            chunks,
            epochs=EPOCHS_PER_ROUND + 1,
            steps_per_epoch=model.steps_per_execution,
            shuffle=False,
            verbose=0,
            callbacks=[clock],
        )
        return EPOCHS_PER_ROUND * steps * batch_size / (ends[-1] - ends[2])

    return run


class TorchRound:
    """The peer, in a process of its own: the LLVMs of TensorFlow and Triton do not share one."""

    def __init__(self, batch_size: int):
        sizes = (str(n) for n in (batch_size, ROWS, EPOCHS_PER_ROUND))
        self._process = subprocess.Popen(
            [sys.executable, torch_mlp.__file__, "--rounds", *sizes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self) -> float:
        """Trains some epochs and gives samples per second."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def steady_state(rounds: int) -> dict[str, float]:
    ratios = {}
    for batch_size in (128, 512):
        peer = TorchRound(batch_size)
        sides = {"kerasmlp": our_round(batch_size), "PyTorch": peer}
        for run in sides.values():  # compiles, warms up
            run()
        rates = {name: [] for name in sides}
        for _ in range(rounds):
            for name, run in sides.items():
                rates[name].append(run())
        peer.close()
        medians = {name: statistics.median(values) for name, values in rates.items()}
        text = ", ".join(f"{name} {rate:,.0f}" for name, rate in medians.items())
        ratios[f"steady_{batch_size}_ratio"] = medians["kerasmlp"] / medians["PyTorch"]
        print(f"batch {batch_size}, samples/s: {text}", flush=True)
    return ratios


def whole_run(store: Path, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        ours = [
            sys.executable, ROOT / "bin" / "train-age", "--store", store, "--preset", "paper-age",
            "--classes", "years", "--epochs", "10", "--patience", "10",
            "--run-dir", f"{folder}/run", "--force",
        ]  # fmt: skip
        peer = [sys.executable, torch_mlp.__file__, store, "10", "128", f"{folder}/model.pt"]
        seconds = {"kerasmlp": [], "PyTorch": []}
        for _ in range(rounds):
            for name, command in (("kerasmlp", ours), ("PyTorch", peer)):
                started = time.perf_counter()
                subprocess.run([str(c) for c in command], check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    text = ", ".join(f"{name} {value:.1f} s" for name, value in medians.items())
    print(f"10 epochs from process start: {text}", flush=True)
    return {"whole_run_ratio": medians["PyTorch"] / medians["kerasmlp"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", type=Path, help="embedding store with age_years")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    whole = whole_run(args.store, max(3, args.rounds // 2))
    print(json.dumps(steady_state(args.rounds) | whole))


if __name__ == "__main__":
    main()
