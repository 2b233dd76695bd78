"""The paper's age network on a GPU under Keras' JAX backend, against eager PyTorch.

    KERAS_BACKEND=jax python tests/benchmarks/gpu.py [--rounds 5]

It needs a GPU, JAX and PyTorch, and no TensorFlow. Both sides alternate in this
process, medians:

1. Samples per second of training with batches of 128, 512 and 4,096, in float32
   and in float16 with loss scaling: `model.fit` on arrays, and PyTorch with a
   DataLoader and with its own mixed precision.
2. The same of 25 networks trained side by side: one program of `jax.vmap` over
   networks and `jax.lax.scan` over batches, as 5 seeds × 5 folds would be.
3. Faces per second of 512 passes of MC dropout: `predict_uncertainty`, and
   PyTorch face by face as the original does.

Ratios above 1 are in our favour. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs some of it
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
import torch_mlp
from many_models import values_of

from kerasmlp import ResidualMLP, predict_uncertainty

ROWS, WIDTH, CLASSES, NETWORKS = 16_384, 512, 101, 25
PASSES, FACES = 512, 256


def network(precision: str, seed: int = 0) -> keras.Model:
    return ResidualMLP(num_classes=CLASSES, num_blocks=2, seed=seed, dtype=precision)


def optimizer_of(precision: str):
    optimizer = keras.optimizers.AdamW(0.00116701, weight_decay=0.000123372)
    half = precision == "mixed_float16"
    return keras.optimizers.LossScaleOptimizer(optimizer) if half else optimizer


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, WIDTH)).astype("float32")
    return x / np.linalg.norm(x, axis=1, keepdims=True), rng.integers(0, CLASSES, ROWS)


def our_training(precision: str, batch_size: int):
    x, y = data()
    model = network(precision)
    model.compile(optimizer_of(precision), "sparse_categorical_crossentropy")

    def epochs(number: int) -> None:
        history = model.fit(x, y, batch_size=batch_size, epochs=number, verbose=0).history
        assert np.isfinite(history["loss"]).all()

    return epochs


def peers_training(precision: str, batch_size: int):
    x, y = data()
    model = torch_mlp.make_network().cuda()
    optimizer = torch_mlp.make_optimizer(model)
    loader = torch_mlp.make_loader(x, y, batch_size)
    half = precision == "mixed_float16"
    scaler = torch.amp.GradScaler(enabled=half)

    def epochs(number: int) -> None:
        model.train()
        for _ in range(number):
            for rows, labels in loader:
                optimizer.zero_grad()
                with torch.autocast("cuda", torch.float16, enabled=half):
                    outputs = model(rows.cuda())
                    loss = torch.nn.functional.cross_entropy(outputs, labels.cuda())
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
        torch.cuda.synchronize()

    return epochs


def side_by_side(batch_size: int):
    """Trains `NETWORKS` networks of other seeds, each on rows in its own order."""
    x, y = map(jnp.asarray, data())
    model, optimizer = network("float32"), optimizer_of("float32")
    optimizer.build(model.trainable_variables)
    state = values_of([network("float32", seed) for seed in range(NETWORKS)])
    copies = [jnp.stack([v.value] * NETWORKS) for v in optimizer.variables]
    steps = ROWS // batch_size

    def loss(trainable, other, rows):
        outputs, other = model.stateless_call(trainable, other, x[rows], training=True)
        losses = keras.losses.sparse_categorical_crossentropy(y[rows], outputs)
        return jnp.mean(losses), other

    def step(trainable, other, optimizer_state, rows):
        gradients, other = jax.grad(loss, has_aux=True)(trainable, other, rows)
        trainable, optimizer_state = optimizer.stateless_apply(
            optimizer_state, gradients, trainable
        )
        return trainable, other, optimizer_state

    @jax.jit
    def epoch(carry, rows):
        return jax.lax.scan(lambda c, r: (jax.vmap(step)(*c, r), None), carry, rows)[0]

    rng, carry = np.random.default_rng(0), (*state, copies)

    def epochs(number: int) -> None:
        nonlocal carry
        for _ in range(number):
            orders = rng.permuted(np.tile(np.arange(ROWS), (NETWORKS, 1)), axis=1)
            rows = orders[:, : steps * batch_size].reshape(NETWORKS, steps, batch_size)
            carry = epoch(carry, jnp.asarray(rows.swapaxes(0, 1)))
        jax.block_until_ready(carry)
        assert all(bool(jnp.isfinite(v).all()) for v in carry[0])

    return epochs


def alternating(sides: dict, rounds: int, epochs: int, samples: dict[str, int]) -> dict[str, float]:
    """Median samples per second of each side, whose first call compiles."""
    for side in sides.values():
        side(1)
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            started = time.perf_counter()
            side(epochs)
            rates[name].append(epochs * samples[name] / (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in rates.items()}


def mc_dropout(rounds: int) -> dict[str, float]:
    x, _ = data()
    model, peer = network("float32"), torch_mlp.make_network().cuda().eval()
    for module in peer.modules():
        if isinstance(module, torch.nn.Dropout):
            module.train()
    faces = torch.as_tensor(x[:FACES]).cuda()

    def ours(masks: str):
        def run(number: int) -> None:
            for _ in range(number):
                predict_uncertainty(model, x[:FACES], num_samples=PASSES, seed=0, masks=masks)

        return run

    @torch.no_grad()
    def theirs(number: int) -> None:
        for _ in range(number):
            for row in faces:
                votes = peer(row.repeat(PASSES, 1)).softmax(1).argmax(1)
                shares = votes.bincount(minlength=CLASSES) / PASSES
                float(torch.special.entr(shares).sum()), float(votes.float().mean())

    sides = {"shared": ours("shared"), "independent": ours("independent"), "PyTorch": theirs}
    return alternating(sides, rounds, 1, dict.fromkeys(sides, FACES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 512, 4096])
    args = parser.parse_args()
    device = jax.devices()[0]
    if device.platform != "gpu" or not torch.cuda.is_available():
        sys.exit("must be run where JAX and PyTorch see a GPU")
    result = {"device": device.device_kind, "training": {}}
    for batch_size in args.batch_sizes:
        sides = {
            f"{name} {precision}": make(precision, batch_size)
            for precision in ("float32", "mixed_float16")
            for name, make in (("kerasmlp", our_training), ("PyTorch", peers_training))
        } | {"side by side float32": side_by_side(batch_size)}
        samples = dict.fromkeys(sides, ROWS // batch_size * batch_size)
        samples["side by side float32"] *= NETWORKS
        rates = alternating(sides, args.rounds, 2, samples)
        result["training"][batch_size] = rates
        print(batch_size, {name: round(rate) for name, rate in rates.items()}, flush=True)
    result["mc_dropout"] = mc_dropout(args.rounds)
    result["ratio"] = {
        size: rates["kerasmlp float32"] / rates["PyTorch float32"]
        for size, rates in result["training"].items()
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
