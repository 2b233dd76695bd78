"""LayerOut's saving on MNIST: a step and a whole run with `efreeze` against all layers training.

    python tests/benchmarks/layerout.py MNIST.npz [--rounds 5] [--epochs 30] [--rows 60000]

Both sides train the paper's network at batch 128 as `bin/train-layerout` does, on
the same augmented batches, alternating in one process.

1. Steady state: seconds per step over patterns that `efreeze` draws, each with its
   share of epochs; a step of every pattern is traced and warmed up first.
   `step_ratio` is baseline / efreeze: medians over rounds.
2. Whole runs of some epochs without warm-up, `model.fit` from a fresh model on,
   each pattern's tracing included. `run_ratio` likewise.

Ratios above 1 are in LayerOut's favour. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import keras

from kerasmlp.callbacks.layer_out import LayerOut
from kerasmlp.image_batches import augmented_batches, load_images
from kerasmlp.layer_out.plan import NETWORKS, LayerOutPlan
from kerasmlp.layer_out.training import compile_model
from kerasmlp.models.mnist_net import MNISTNet

STEPS, PATTERNS = 10, 10


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._started)


def compiled(plan: LayerOutPlan, steps: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = MNISTNet(seed=0)
    compile_model(model, plan, steps)
    return model


def train(model, data, plan, epochs, steps, *callbacks) -> None:
    batches = augmented_batches(
        data.x_train, data.y_train, batch_size=plan.batch_size, num_epochs=10**6, seed=0
    )
    model.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )


class Repeated(LayerOut):
    """The first patterns of LayerOut again and again: the first time around traces them."""

    def pattern(self, epoch):
        return super().pattern(epoch % PATTERNS)


def steady_state(data, plan, rounds: int) -> dict:
    """Both sides' seconds per step; each round of each side is a part of one long fit."""
    schedule = NETWORKS["mnist"].efreeze
    seconds: dict[str, list[float]] = {"baseline": [], "efreeze": []}
    clocks = {name: Clock() for name in seconds}
    models = {name: compiled(plan, STEPS) for name in seconds}
    for _ in range(rounds):
        for name, model in models.items():
            callbacks = [Repeated(schedule=schedule)] if name == "efreeze" else []
            train(model, data, plan, 2 * PATTERNS, STEPS, *callbacks, clocks[name])
            timed = clocks[name].seconds[PATTERNS:]
            seconds[name].append(statistics.mean(timed) / STEPS)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    text = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in medians.items())
    print(f"a step: {text}", flush=True)
    return {"step_ratio": medians["baseline"] / medians["efreeze"]}


def whole_run(data, plan, rounds: int, epochs: int) -> dict:
    steps = len(data.x_train) // plan.batch_size
    seconds: dict[str, list[float]] = {"baseline": [], "efreeze": []}
    for _ in range(rounds):
        for name, values in seconds.items():
            layer_out = LayerOut(schedule=NETWORKS["mnist"].efreeze)
            callbacks = [layer_out] if name == "efreeze" else []
            started = time.perf_counter()
            train(compiled(plan, steps), data, plan, epochs, steps, *callbacks)
            values.append(time.perf_counter() - started)
    patterns = len({layer_out.pattern(epoch) for epoch in range(epochs)})
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    text = ", ".join(f"{name} {value:.1f} s" for name, value in medians.items())
    print(f"{epochs} epochs of {steps} steps, {patterns} patterns traced: {text}", flush=True)
    return {"run_ratio": medians["baseline"] / medians["efreeze"], "patterns": patterns}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="MNIST as an .npz")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30, help="of a whole run")
    parser.add_argument("--rows", type=int, default=60_000, help="of a whole run")
    args = parser.parse_args()
    data = load_images(args.data)
    plan = LayerOutPlan(network="mnist", modes=("baseline",))
    result = steady_state(data, plan, args.rounds)
    some = {"x_train": data.x_train[: args.rows], "y_train": data.y_train[: args.rows]}
    data = dataclasses.replace(data, **some)
    print(json.dumps(result | whole_run(data, plan, max(1, args.rounds // 2), args.epochs)))


if __name__ == "__main__":
    main()
