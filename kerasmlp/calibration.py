"""Temperature scaling: of logits, folded into the head's weights, and of the mean of passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_GOLDEN = (5**0.5 - 1) / 2


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def scale_mean(mean: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities to the power of `1 / temperature`, normalised; below 1 it sharpens them.

    The mean of stochastic passes is flatter than any of them: a temperature
    that is right for the deterministic model leaves it underconfident.

    Args:
        mean: Shape `(rows, num_classes)`.
        temperature: Above 0.

    Example:

    >>> scale_mean(np.array([[0.8, 0.2]]), 0.5).round(4)
    array([[0.9412, 0.0588]])
    """
    if temperature == 1:
        return mean
    return softmax(log_of_mean(mean) / temperature).astype(mean.dtype)


def log_of_mean(mean: np.ndarray) -> np.ndarray:
    """The logits of which a mean is the softmax, float64."""
    return np.log(np.maximum(np.asarray(mean, np.float64), np.finfo(np.float64).tiny))


def fit_temperature(
    logits: np.ndarray, loss: Callable[[np.ndarray], float], *, bounds=(0.2, 5.0)
) -> float:
    """Returns the temperature T whose `softmax(logits / T)` has the lowest loss.

    Args:
        logits: Shape `(rows, num_classes)`.
        loss: From probabilities to a number, such as the NLL of the classes
            that are measured.
        bounds: Of T.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(2000, 3))
    >>> labels = np.array([rng.choice(3, p=p) for p in softmax(logits / 2)])
    >>> loss = lambda p: -np.log(p[np.arange(2000), labels]).mean()
    >>> bool(abs(fit_temperature(logits, loss) - 2) < 0.3)
    True

    Reference: Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """
    logits = np.asarray(logits, np.float64)
    low, high = np.log(bounds)
    # Golden-section search: the loss has one valley along the temperature.
    inner = [high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)]
    values = [loss(softmax(logits / np.exp(t))) for t in inner]
    while high - low > 1e-3:
        if values[0] < values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - _GOLDEN * (high - low)
            values[0] = loss(softmax(logits / np.exp(inner[0])))
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + _GOLDEN * (high - low)
            values[1] = loss(softmax(logits / np.exp(inner[1])))
    return float(np.exp((low + high) / 2))
