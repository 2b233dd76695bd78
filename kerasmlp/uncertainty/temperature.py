"""Temperature scaling of the deterministic model, and of the stochastic passes."""

from collections.abc import Callable

import numpy as np

_GOLDEN = (5**0.5 - 1) / 2


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def fit_temperature(
    logits: np.ndarray,
    loss: Callable[[np.ndarray], float],
    *,
    bounds: tuple[float, float] = (0.2, 5.0),
    tolerance: float = 1e-3,
) -> float:
    """Returns the temperature T whose `softmax(logits / T)` has the lowest loss.

    Args:
        logits: Shape `(..., num_classes)`.
        loss: From probabilities to a number, such as the NLL of the classes
            that are measured.
        bounds: Of T.
        tolerance: Of its natural logarithm.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(2000, 3))
    >>> labels = np.array([rng.choice(3, p=p) for p in softmax(logits / 2)])
    >>> loss = lambda p: -np.log(p[np.arange(2000), labels]).mean()
    >>> bool(abs(fit_temperature(logits, loss) - 2) < 0.3)
    True

    Reference: Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """
    low, high = np.log(bounds)
    # Golden-section search: the loss has one valley along the temperature.
    inner = [high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)]
    values = [loss(softmax(logits / np.exp(t))) for t in inner]
    while high - low > tolerance:
        if values[0] < values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - _GOLDEN * (high - low)
            values[0] = loss(softmax(logits / np.exp(inner[0])))
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + _GOLDEN * (high - low)
            values[1] = loss(softmax(logits / np.exp(inner[1])))
    return float(np.exp((low + high) / 2))


def mean_of_passes(samples: np.ndarray, temperature: float) -> np.ndarray:
    """The mean over passes whose logits are divided by a temperature.

    A temperature that is right for the deterministic model leaves the mean of
    stochastic passes underconfident, because averaging flattens.

    Args:
        samples: Probabilities `(num_samples, rows, num_classes)`.
        temperature: Above 0; below 1 it sharpens.

    Example:

    >>> samples = np.array([[[0.8, 0.2]], [[0.5, 0.5]]])
    >>> mean_of_passes(samples, 0.5).round(4)
    array([[0.7206, 0.2794]])
    """
    return softmax(logits_of(samples) / temperature).mean(axis=0)


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Numbers of which probabilities are the softmax."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
