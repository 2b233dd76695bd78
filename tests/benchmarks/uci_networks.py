"""The two networks of `uci.py` and the settings in which each is trained and searched."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from many_models import HashDropout

from kerasmlp import ResidualMLP

TRAINING = {"batch_size": 128, "learning_rate": 0.01}
MOST_EPOCHS = 4_000
RESIDUAL_WIDTH = 32


def plain_mlp(
    num_features: int, num_hidden: int, rate: float, seed: int, dropout=keras.layers.Dropout
) -> keras.Model:
    """One hidden layer, dropout before both weight layers."""
    inputs = keras.Input((num_features,))
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(4) >> 1]
    x = dropout(rate, seed=seeds[0])(inputs)
    glorot = keras.initializers.GlorotUniform
    x = keras.layers.Dense(num_hidden, "relu", kernel_initializer=glorot(seeds[1]))(x)
    x = dropout(rate, seed=seeds[2])(x)
    return keras.Model(inputs, keras.layers.Dense(1, kernel_initializer=glorot(seeds[3]))(x))


def residual_mlp(num_features: int, num_hidden: int, rate: float, seed: int) -> keras.Model:
    """A dense projection and a residual IC-MLP of its own width."""
    inputs = keras.Input((num_features,))
    glorot = keras.initializers.GlorotUniform(seed)
    x = keras.layers.Dense(RESIDUAL_WIDTH, kernel_initializer=glorot)(inputs)
    network = ResidualMLP(num_targets=1, width=RESIDUAL_WIDTH, dropout_rate=rate, seed=seed)
    return keras.Model(inputs, network(x))


class Network(NamedTuple):
    as_trained: Callable[[int, int, float, int], keras.Model]
    as_sampled: Callable[[int, int, float, int], keras.Model]
    rates: tuple[float, ...]
    l2: tuple[float, ...]
    updates: int
    """Of a model of a whole training part."""

    def epochs(self, num_rows: int) -> int:
        return min(MOST_EPOCHS, self.updates // -(-num_rows // TRAINING["batch_size"]))


NETWORKS = {
    "plain": Network(
        as_trained=lambda *args: plain_mlp(*args, dropout=HashDropout),
        as_sampled=plain_mlp,
        rates=(0.001, 0.0025, 0.005, 0.01, 0.05, 0.1),
        l2=(1e-5, 1e-4),
        updates=12_000,
    ),
    "residual": Network(
        as_trained=residual_mlp,
        as_sampled=residual_mlp,
        rates=(0.01, 0.03, 0.1, 0.3),
        l2=(1e-5, 1e-3),
        updates=6_000,
    ),
}
