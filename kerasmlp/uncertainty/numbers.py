"""What predicted normal distributions say of numbers: variances, intervals, and how to fit them."""

import math
from collections.abc import Mapping

import numpy as np

from kerasmlp.uncertainty.conformal import conformal_rank

COVERAGES = (50, 90)
"""Of the intervals, in percent."""

_LEAST_FACTOR = 0.2  # on standard deviations, the least that `fit_spread` looks at, too
_SHARES = np.concatenate([[0.0], 1 / (1 + np.exp(-np.linspace(-16, 16, 321))), [1.0]])


def number_measures(answers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The measures of `regression_measures` of a `GaussianHead`, from moments over the passes.

    Args:
        answers: `mean` and `epistemic_variance` of its two outputs, `(batch, 2)`, as
            `predict_uncertainty` gives them.

    Returns:
        Each `(batch,)`, in the unit of the label, or its square.
    """
    (mean, std), (epistemic, of_std) = answers["mean"].T, answers["epistemic_variance"].T
    aleatoric = std**2 + of_std  # the mean of the squares
    return {
        "mean": mean,
        "epistemic_variance": epistemic,
        "aleatoric_variance": aleatoric,
        "total_variance": epistemic + aleatoric,
    }


def number_intervals(
    mean: np.ndarray, std: np.ndarray, quantiles: Mapping[str, float] | None
) -> dict[int, np.ndarray]:
    """Intervals around predicted numbers by percent, each `(rows, 2)`.

    Args:
        mean: `(rows,)`.
        std: Predicted standard deviations.
        quantiles: Of a `NumberCalibration`; None takes those of a normal distribution.
    """
    reach = quantiles or {"50": 0.6744897501960817, "90": 1.6448536269514722}
    return {
        c: np.stack([mean - reach[str(c)] * std, mean + reach[str(c)] * std], axis=1)
        for c in COVERAGES
    }


def conformal_quantiles(
    numbers: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> dict[str, float] | None:
    """How many predicted standard deviations hold a share of rows that were not trained on.

    Returns:
        None with too few rows.

    Reference: Lei et al., "Distribution-Free Predictive Inference for Regression", 2018,
    section 5.2.
    """
    scores = np.sort(np.abs(numbers - mean) / std)
    ranks = {str(c): conformal_rank(len(scores), c / 100) for c in COVERAGES}
    if max(ranks.values()) > len(scores):
        return None
    return {c: float(scores[rank - 1]) for c, rank in ranks.items()}


def fit_spread(numbers: np.ndarray, mean: np.ndarray, own: np.ndarray, fixed: np.ndarray) -> float:
    """The factor on predicted standard deviations that has the lowest Gaussian NLL.

    Args:
        numbers: True ones, `(rows,)`.
        mean: Predicted.
        own: Predicted variances, which it scales.
        fixed: Variances that it does not.
    """
    squares = (numbers - mean) ** 2

    def nll(log: float) -> float:
        variance = math.exp(2 * log) * own + fixed
        return float((np.log(variance) + squares / variance).mean())

    logs = np.linspace(math.log(_LEAST_FACTOR), math.log(5.0), 401)
    return math.exp(min(logs, key=nll))


def fit_floor(
    numbers: np.ndarray, mean: np.ndarray, own: np.ndarray, fixed: np.ndarray | float = 0.0
) -> tuple[float, float]:
    """Factor and floor of predicted standard deviations that have the lowest Gaussian NLL.

    A variance becomes `factor² · own + floor² + fixed`: between what the model says of a row
    and one noise that is common to all, as far as rows that were not trained on agree with it.

    Args:
        numbers: True ones, `(rows,)`.
        mean: Predicted.
        own: Predicted variances.
        fixed: Variances that come on top, such as those of the means of members.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> factor, floor = fit_floor(rng.normal(size=4000), np.zeros(4000), rng.uniform(0, 1, 4000))
    >>> factor < 0.2, round(floor, 1)
    (True, 1.0)
    """
    squares, common = (numbers - mean) ** 2, float(np.median(own))

    def mixed(share: float) -> tuple[float, float, float]:
        variance = (1 - share) * own + share * common
        factor = max(float((squares / variance).mean()), _LEAST_FACTOR**2)
        if np.any(fixed):
            factor = _factor_beside(squares, variance, fixed, most=4 * factor)
        whole = factor * variance + fixed
        return float((np.log(whole) + squares / whole).mean()), factor, share

    _, factor, share = min(map(mixed, _SHARES[:: 8 if np.any(fixed) else 1]))
    return math.sqrt(factor * (1 - share)), math.sqrt(factor * share * common)


def _factor_beside(squares: np.ndarray, variance: np.ndarray, fixed, most: float) -> float:
    """The factor on variances that has the lowest NLL, found as that of `fit_temperature`."""

    def nll(log: float) -> float:
        whole = math.exp(log) * variance + fixed
        return float((np.log(whole) + squares / whole).mean())

    low, high = 2 * math.log(_LEAST_FACTOR), math.log(most)
    for _ in range(24):
        inner = low + (high - low) * 0.381966, low + (high - low) * 0.618034
        low, high = (low, inner[1]) if nll(inner[0]) < nll(inner[1]) else (inner[0], high)
    return math.exp((low + high) / 2)
