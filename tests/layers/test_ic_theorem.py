"""Theorem 1 of the IC paper: what dropout does to the dependence of two units, in numbers."""

import numpy as np
import pytest

from kerasmlp import ICLayer

ROWS = 400_000


def gated(x, rate):
    layer = ICLayer(dropout_rate=rate, epsilon=1e-12, seed=3)  # its batch norm is the identity yet
    return np.array(layer(x, sampling=True))


def mutual_information(a, b):
    """Plug-in estimate in nats."""
    a, b = (np.unique(v, return_inverse=True)[1] for v in (a, b))
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1 / len(a))
    outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    return float((joint * np.log(np.where(joint > 0, joint / outer, 1))).sum())


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5])
def test_correlation_is_scaled_by_p(rate):
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], ROWS).astype("float32")
    found = np.corrcoef(gated(x, rate).T)[0, 1]
    assert abs(found - (1 - rate) * np.corrcoef(x.T)[0, 1]) < 5 / ROWS**0.5


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5])
def test_mutual_information_is_scaled_by_p_squared(rate):
    rng = np.random.default_rng(1)
    first = rng.integers(1, 4, ROWS)  # never 0: a closed gate is seen
    second = np.where(rng.random(ROWS) < 0.7, first, rng.integers(1, 4, ROWS))
    x = np.stack([first, second], axis=1).astype("float32")
    found = mutual_information(*gated(x, rate).T)
    expected = (1 - rate) ** 2 * mutual_information(*x.T)
    assert abs(found - expected) < 5 / ROWS**0.5


def test_entropy_is_scaled_by_p_plus_the_gates():
    """H(gx) = p·H(x) + H(g)."""
    x = np.random.default_rng(2).integers(1, 5, (ROWS, 1)).astype("float32")
    found = mutual_information(*np.repeat(gated(x, 0.3), 2, axis=1).T)
    gate = -(0.7 * np.log(0.7) + 0.3 * np.log(0.3))
    assert abs(found - (0.7 * np.log(4) + gate)) < 5 / ROWS**0.5
