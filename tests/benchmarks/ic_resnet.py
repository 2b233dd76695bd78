"""What a training step of an IC ResNet costs, and its parts on one feature map.

    python tests/benchmarks/ic_resnet.py [--depth 20] [--steps 8] [--xla]

1. Forward and backward on a map of 64 × 32 × 32 × 16: a 3×3 convolution, batch norm as
   Keras computes it and by our one kernel, dropout by the hash of `kerasmlp.masks` and
   by Keras' generator, which `dropout` takes on maps.
2. Whole steps of 64 images, each precision with and without IC layers.

Milliseconds of processor time, all cores together, the least of three rounds: other
programs on the machine disturb it less than the clock. The last line is one JSON object.
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

import keras
import numpy as np
import tensorflow as tf

from kerasmlp import ICResNet
from kerasmlp.layers.batch_norm import BatchNorm
from kerasmlp.masks import dropout, keep_mask
from kerasmlp.precision import computing_in

SHAPE = (64, 32, 32, 16)
PRECISIONS = ("float32", "mixed_bfloat16")


def processor_ms(step, steps: int) -> float:
    step()
    step()
    rounds = []
    for _ in range(3):
        started = time.process_time()
        for _ in range(steps):
            step()
        rounds.append(1000 * (time.process_time() - started) / steps)
    return round(min(rounds), 1)


def parts(precision: str, steps: int) -> dict[str, float]:
    with computing_in(precision):
        layers = {
            "convolution": keras.layers.Conv2D(16, 3, padding="same", use_bias=False),
            "keras_batch_norm": keras.layers.BatchNormalization(),
            "batch_norm": BatchNorm(),
        }
    seeds = keras.random.SeedGenerator(0)
    calls = {name: lambda x, layer=layer: layer(x, training=True) for name, layer in layers.items()}
    calls["convolution"] = layers["convolution"]
    calls["hashed_dropout"] = lambda x: tf.where(
        keep_mask(tf.shape(x), 0.05, seeds.next()), x * tf.cast(1 / 0.95, x.dtype), 0
    )
    calls["dropout"] = lambda x: dropout(x, 0.05, seeds)
    x = tf.cast(tf.random.normal(SHAPE), precision.removeprefix("mixed_"))
    found = {}
    for name, call in calls.items():
        call(x)  # builds it

        @tf.function
        def step(call=call, name=name):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = call(x)
            weights = [w.value for w in getattr(layers.get(name), "trainable_weights", [])]
            return tape.gradient(y, [x, *weights], output_gradients=x)

        found[name] = processor_ms(step, steps)
        print(f"{precision:16}{name:20}{found[name]:8.1f} ms", flush=True)
    return found


def whole_step(precision: str, arrangement: str, args: argparse.Namespace) -> float:
    with computing_in(precision):
        model = ICResNet(depth=args.depth, arrangement=arrangement, seed=0)
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=args.xla)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 32, 32, 3)).astype("float32")
    batches = iter(tf.data.Dataset.from_tensors((x, rng.integers(0, 10, 64))).repeat())
    model.make_train_function()
    ms = processor_ms(lambda: model.train_function(batches), args.steps)
    print(f"{precision:16}{arrangement:20}{ms:8.1f} ms a step", flush=True)
    return ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--xla", action="store_true", help="compile whole steps")
    args = parser.parse_args()
    found = {}
    for precision in PRECISIONS:
        steps = {a: whole_step(precision, a, args) for a in ("baseline", "relu-ic-conv")}
        found[precision] = {"parts_ms": parts(precision, 2 * args.steps), "step_ms": steps}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
