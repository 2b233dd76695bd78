"""How near the answers of one model are to those of another, whatever is true."""

import numpy as np

from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.targets import Target
from kerasmlp.uncertainty.measures import expected_age_years

AGREEMENT = ("rows", "kl_nats", "same_class", "difference_years", "difference")
"""What is told of it, in this order."""


def agreement(
    target: Target | NumberTarget, expected: np.ndarray, answers: np.ndarray
) -> dict[str, float]:
    """Compares answers with those of a model that they should be like.

    Args:
        target: Of the head.
        expected: Probabilities `(rows, num_classes)`, or means and standard deviations
            `(rows, 2)`.
        answers: Of the same shape.

    Returns:
        `rows`, `kl_nats`, the mean divergence of the answers from what is expected, and
        `difference`, the mean absolute one of probabilities in the measured classes, or of
        numbers in their unit. Of classes also `same_class`, the share of rows with the same
        likeliest one, and of ages `difference_years`.

    Example:

    >>> found = agreement(Target("gender", ("male", "female")), np.eye(2), np.full((2, 2), 0.5))
    >>> round(found["kl_nats"], 4), found["same_class"], found["difference"]
    (0.6931, 0.5, 0.5)
    """
    expected, answers = np.asarray(expected, np.float64), np.asarray(answers, np.float64)
    if target.is_number:
        (mean, std), (own_mean, own_std) = expected.T, answers.T
        squares = (std**2 + (mean - own_mean) ** 2) / own_std**2
        found = {"kl_nats": np.log(own_std / std) + 0.5 * (squares - 1)}
        found["difference"] = np.abs(mean - own_mean)
    else:
        tiny = np.finfo(np.float32).tiny
        logs = np.log(np.maximum(expected, tiny)) - np.log(np.maximum(answers, tiny))
        found = {"kl_nats": (expected * logs).sum(axis=1)}
        both = [target.measured(each) for each in (expected, answers)]
        likeliest = [each.argmax(axis=1) for each in both]
        found["same_class"] = likeliest[0] == likeliest[1]
        if target.is_age:
            centers = target.head_ages.centers
            years = [expected_age_years(each, centers) for each in (expected, answers)]
            found["difference_years"] = np.abs(years[0] - years[1])
        found["difference"] = np.abs(both[0] - both[1])
    return {"rows": len(expected)} | {k: float(v.mean()) for k, v in found.items()}
