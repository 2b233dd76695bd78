"""MC dropout against the original: each embedding repeated, eager PyTorch, face by face.

    python tests/benchmarks/mc_dropout.py [--rounds 9] [--memory independent|shared]

64 faces, 512 samples, the paper's gender and age networks, float32 on both
sides, alternating in the same run, medians; compilation is left out and
printed. The peer runs in its own process: it repeats an embedding 512 times,
leaves dropout on and batch norm at its moving statistics, and takes softmax,
votes and their entropy, as the paper's code does.

Where the time goes, for independent masks: the same matrix products alone in
one compiled function, the same masks alone in another, and the rest. The
share of the machine's rate is against a square float32 product of NumPy's;
shared masks save products, so theirs may pass 100%.

`--memory` runs 100,000 rows × 512 samples instead and prints by how much the
peak of resident memory rose above that with the model loaded and the rows in
memory (with independent masks half an hour). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

from kerasmlp.layers.bfloat16 import cpu_multiplies_bfloat16
from kerasmlp.layers.masks import SampleMasks, sample_streams
from kerasmlp.models.presets import PRESETS
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.uncertainty.sampler import Sampler
from kerasmlp.uncertainty.samples import predict_samples, predict_uncertainty

FACES, SAMPLES = 64, 512
NETWORKS = {"gender": ("paper-gender", 2), "age": ("paper-age", 101)}
PEER = Path(__file__).with_name("torch_mlp.py")


def make_model(task: str):
    preset, num_classes = NETWORKS[task]
    return ResidualMLP(num_classes=num_classes, seed=0, **PRESETS[preset].network(512))


def embeddings(rows: int) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((rows, 512), np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def ours(model, masks: str, products: str = "float32"):
    sampler, x = Sampler(model, products=products), embeddings(FACES)

    def run() -> float:
        started = time.perf_counter()
        predict_uncertainty(sampler, x, num_samples=SAMPLES, masks=masks)
        return time.perf_counter() - started

    return run


def in_bfloat16(model) -> dict:
    """The same with products in bfloat16, where the processor has units for them."""
    if not cpu_multiplies_bfloat16():
        return {}
    return {f"{k}, bfloat16": ours(model, k, "bfloat16") for k in ("shared", "independent")}


def agree(model) -> dict[str, float]:
    """How far the mean of passes with products in bfloat16 is from that in float32.

    Root mean squares over 2,000 rows and the classes; the Monte Carlo error of one mean is the
    deviation of passes over the root of their number.
    """
    x, how = embeddings(2000), {"num_samples": SAMPLES, "masks": "shared"}
    half, whole = (Sampler(model, products=p) for p in ("bfloat16", "float32"))
    passes = predict_samples(whole, x[:200], **how)
    error = float(np.sqrt(passes.var(axis=0).mean() / SAMPLES))
    means = [predict_uncertainty(s, x, **how)["mean"] for s in (half, whole)]
    off = float(np.sqrt(((means[0] - means[1]) ** 2).mean()))
    print(f"  mean in bfloat16 off by {off:.1e} (rms), Monte Carlo error {error:.1e}")
    return {"bfloat16_off": off, "monte_carlo_error": error}


def products(model, rows: int = 4096):
    """The matrix products behind the first dropout alone; returns a timer and their operations."""
    import tensorflow as tf

    kernels = [w.numpy() for w in model.trainable_weights if len(w.shape) == 2][1:]
    passes = FACES * SAMPLES // rows
    inputs = {k.shape[0]: tf.random.normal((rows, k.shape[0])) for k in kernels}

    @tf.function(jit_compile=True)
    def multiply(inputs):
        return [tf.reduce_max(inputs[k.shape[0]] @ tf.constant(k), axis=1) for k in kernels]

    def run() -> float:
        started = time.perf_counter()
        for _ in range(passes):
            [part.numpy() for part in multiply(inputs)]
        return time.perf_counter() - started

    return run, passes * sum(2 * rows * k.size for k in kernels)


def random_numbers(model, rows: int = 8):
    """All masks of independent passes alone, each reduced to one number per row."""
    import keras
    import tensorflow as tf

    widths = [w.shape[0] for w in model.trainable_weights if w.path.endswith("gamma")]
    streams = tf.constant(sample_streams(0, np.arange(SAMPLES), np.arange(rows)))

    @tf.function(jit_compile=True)
    def draw(streams):
        masks = SampleMasks(streams, rows)
        ones = [keras.ops.ones((rows, width)) for width in widths]
        return [tf.reduce_sum(masks.dropout(one, 0.05), axis=1) for one in ones]

    def run() -> float:
        started = time.perf_counter()
        for _ in range(FACES // rows):
            [part.numpy() for part in draw(streams)]
        return time.perf_counter() - started

    return run


def square_product(size: int = 2048):
    a = np.random.default_rng(0).standard_normal((size, size), np.float32)

    def run() -> float:
        started = time.perf_counter()
        a @ a
        return time.perf_counter() - started

    return run, 2 * size**3


class Peer:
    def __init__(self, task: str):
        num_blocks = PRESETS[NETWORKS[task][0]].num_blocks
        sizes = (NETWORKS[task][1], num_blocks, FACES, SAMPLES)
        self._process = subprocess.Popen(
            [sys.executable, PEER, "--samples", *map(str, sizes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self) -> float:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(task: str, rounds: int) -> dict[str, float]:
    model, peer = make_model(task), Peer(task)
    multiply, operations = products(model)
    square, square_operations = square_product()
    sides = {
        "original": peer,
        "shared": ours(model, "shared"),
        "independent": ours(model, "independent"),
        **in_bfloat16(model),
        "products": multiply,
        "random numbers": random_numbers(model),
        "square": square,
    }
    first = {name: run() for name, run in sides.items()}  # compiles, warms up
    seconds = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            run()  # threads of the side before spin on for a while, and caches are cold
            seconds[name].append(run())
    peer.close()
    took = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{task}: ms per face, {SAMPLES} samples")
    for name in [n for n in took if n.startswith(("original", "shared", "independent"))]:
        line = f"  {name:21} {took[name] / FACES * 1e3:7.2f}"
        if name != "original":
            line += f"   {took['original'] / took[name]:5.1f} times as fast"
            line += f"   (first call {first[name]:.1f} s)"
        print(line)
    whole = took["independent"]
    shares = {
        "matrix products": took["products"],
        "random numbers": took["random numbers"],
    }
    shares["the rest"] = whole - sum(shares.values())
    text = ", ".join(f"{name} {value / whole:.0%}" for name, value in shares.items())
    print(f"  independent masks: {text}")
    rates = {
        masks: operations / took[masks] * took["square"] / square_operations
        for masks in ("shared", "independent")
    }
    text = ", ".join(f"{name} {rate:.0%}" for name, rate in rates.items())
    print(f"  share of the machine's sgemm rate: {text}", flush=True)
    ratios = {k: took["original"] / v for k, v in took.items() if k.endswith("bfloat16")}
    agreement = agree(model) if ratios else {}
    return {
        f"{task}_shared": took["original"] / took["shared"],
        f"{task}_independent": took["original"] / whole,
        **{f"{task}_{name.replace(', ', '_')}": one for name, one in ratios.items()},
        **{f"{task}_{name}": one for name, one in agreement.items()},
        f"{task}_sgemm_share": rates["independent"],
    }


def memory(masks: str) -> dict[str, float]:
    model, x = make_model("gender"), embeddings(100_000)
    model.predict(x[:4096], batch_size=4096, verbose=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    predict_uncertainty(model, x, num_samples=SAMPLES, masks=masks)
    risen = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{len(x):,} rows, {SAMPLES} samples, {masks} masks: {risen:.0f} MiB above the loaded model"
    )
    return {"peak_mib_above_model": round(risen), "masks": masks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", choices=("independent", "shared"), metavar="MASKS")
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(memory(args.memory)))
        return
    found = {}
    for task in NETWORKS:
        found |= compare(task, args.rounds)
    worst = {
        f"{masks}_ratio": min(found[f"{task}_{masks}"] for task in NETWORKS)
        for masks in ("shared", "independent")
    }
    print(json.dumps({k: float(f"{v:.4g}") for k, v in (worst | found).items()}))


if __name__ == "__main__":
    main()
