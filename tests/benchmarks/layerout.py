"""LayerOut's saving on MNIST: a step and a whole run with `efreeze` against all layers training.

    python tests/benchmarks/layerout.py MNIST.npz [--rounds 5] [--epochs 30] [--rows 60000]
        [--precision mixed_bfloat16] [--store UTKFACE.h5]

Both sides train the paper's network at batch 128 as `bin/train-layerout` does, on
the same augmented batches, alternating in one process.

1. Steady state: seconds per step over patterns that `efreeze` draws, each with its
   share of epochs; a step of every pattern is traced and warmed up first.
   `step_ratio` is baseline / efreeze: medians over rounds.
2. Whole runs of some epochs without warm-up, `model.fit` from a fresh model on,
   each pattern's tracing included. `run_ratio` likewise.

3. With `--store`: the residual MLP on embeddings, eight age groups, our recipe on the
   paper's two stages, three seeds, each with a fifth of the rows (no group of
   duplicates split) kept back: accuracy and negative log-likelihood there of all
   layers training and of LayerOut after 4 of 20 epochs of warm-up, and
   milliseconds per step, tracing included.

Ratios above 1 are in LayerOut's favour. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
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

from kerasmlp import EmbeddingStore, ResidualMLP
from kerasmlp.callbacks.layer_out import LayerOut
from kerasmlp.callbacks.validation import forward
from kerasmlp.data.examples import Examples
from kerasmlp.data.targets import age_target
from kerasmlp.evaluation.measuring import measure
from kerasmlp.experiments.layer_out.plan import NETWORKS, LayerOutPlan
from kerasmlp.models.mnist_net import MNISTNet
from kerasmlp.models.presets import PRESETS
from kerasmlp.training.batches import training_chunks
from kerasmlp.training.fit import compile_by_recipe, compile_model
from kerasmlp.training.image_batches import augmented_batches, load_images
from kerasmlp.training.images import scheduled_rate
from kerasmlp.training.l2_sgd import L2SGD
from kerasmlp.training.losses import recipe_loss
from kerasmlp.training.precision import PRECISIONS, computing_in

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
    with computing_in(plan.precision):
        model = MNISTNet(seed=0)
        loss = "sparse_categorical_crossentropy"
        rate, l2 = scheduled_rate(plan, steps), NETWORKS[plan.network].l2
        optimizer = L2SGD(rate, momentum=0.9, l2=l2)
        compile_model(model, optimizer, loss, metrics=["accuracy"])
    return model


def train(model, data, plan, epochs, steps, *callbacks) -> None:
    batches = augmented_batches(
        data.train.inputs, data.train.targets, batch_size=plan.batch_size, num_epochs=10**6, seed=0
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
    steps = len(data.train) // plan.batch_size
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


def on_embeddings(path: Path) -> dict:
    """LayerOut on `ResidualMLP`, whose layers are small and whose steps are one call."""
    store = EmbeddingStore.open(path)
    target = age_target("age_years", "adience", by_years=False)
    epochs = 20
    recipe = PRESETS["age-groups"].replace(num_blocks=2, epochs=epochs)
    schedules = {"baseline": None, "efreeze": "efreeze", "random": "random"}
    found = {name: {"accuracy": [], "nll": [], "step_ms": []} for name in schedules}
    for seed in range(3):
        rows, part = Examples.of(store, target).split(0.2, seed, None)
        labels = rows.soft_targets(recipe.label_sigma_years)
        steps = len(rows) // recipe.batch_size
        for name, schedule in schedules.items():
            keras.utils.set_random_seed(seed)
            network = recipe.network(store.width)
            model = ResidualMLP(num_classes=target.num_classes, seed=seed, **network)
            how = {"loss": recipe_loss(recipe, ordered=True), "xla": False}
            model = compile_by_recipe(model, recipe, steps=steps, **how)
            chunks = training_chunks(
                rows.inputs,
                labels,
                batch_size=recipe.batch_size,
                num_epochs=epochs,
                seed=seed,
                mixup_alpha=recipe.mixup_alpha,
                noise_std=recipe.noise_std,
            )
            clock = Clock()
            freezing = [LayerOut(schedule=schedule, warmup_epochs=4, seed=seed)] if schedule else []
            model.fit(
                chunks,
                epochs=epochs,
                steps_per_epoch=model.steps_per_execution,
                shuffle=False,
                verbose=0,
                callbacks=[*freezing, clock],
            )
            result = measure(part, forward(model, part.inputs))
            found[name]["accuracy"].append(result["accuracy"])
            found[name]["nll"].append(result["nll"])
            found[name]["step_ms"].append(1000 * statistics.mean(clock.seconds) / steps)
    for name, values in found.items():
        text = ", ".join(
            f"{k} {statistics.mean(v):.4f} ± {statistics.stdev(v):.4f}" for k, v in values.items()
        )
        print(f"embeddings, {name}: {text}", flush=True)
    mean = {name: {k: statistics.mean(v) for k, v in of.items()} for name, of in found.items()}
    return {"embeddings": mean}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="MNIST as an .npz")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30, help="of a whole run")
    parser.add_argument("--rows", type=int, default=60_000, help="of a whole run")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--store", type=Path, help="embeddings with ages, for the third part")
    args = parser.parse_args()
    data = load_images(args.data)
    plan = LayerOutPlan(network="mnist", modes=("baseline",), precision=args.precision)
    result = steady_state(data, plan, args.rounds)
    result |= whole_run(data.head(args.rows), plan, max(1, args.rounds // 2), args.epochs)
    print(json.dumps(result | (on_embeddings(args.store) if args.store else {})))


if __name__ == "__main__":
    main()
