"""From Monte-Carlo samples of probabilities to measures of uncertainty.

All functions take samples of fixed shape `(num_samples, batch, num_classes)`
and return one value per row; entropies are in nats.
"""

from __future__ import annotations

import numpy as np

from kerasmlp.checks import is_number, reject

UNCERTAINTIES = (
    "predictive_entropy_nats", "expected_entropy_nats", "mutual_information_nats",
    "variation_ratio", "vote_entropy_nats",
)  # fmt: skip
"""The measures that grow with uncertainty; `vote_mean` is a class number."""


def entropy_nats(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of distributions along the last axis; a probability of 0 adds nothing."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return 0.0 - (probabilities * logs).sum(axis=-1)


def _votes(samples: np.ndarray) -> np.ndarray:
    """Share of the samples that vote for each class, shape `(batch, num_classes)`."""
    winners = samples.argmax(axis=-1)
    return np.stack([(winners == k).mean(axis=0) for k in range(samples.shape[-1])], axis=-1)


def predictive_mean(samples: np.ndarray) -> np.ndarray:
    """Mean probabilities, shape `(batch, num_classes)`."""
    return samples.mean(axis=0, dtype=np.float64)


def uncertainty_measures(samples: np.ndarray) -> dict[str, np.ndarray]:
    """Returns every measure of uncertainty under its exact name.

    | name | what it is | maximum |
    | --- | --- | --- |
    | `predictive_entropy_nats` | entropy of the mean: all uncertainty | ln C |
    | `expected_entropy_nats` | mean of the samples' entropies: the data's noise | ln C |
    | `mutual_information_nats` | the difference: what the model does not know | ln C |
    | `variation_ratio` | share of samples that vote against the winner | 1 − 1/C |
    | `vote_mean` | mean of the samples' winning class numbers | C − 1 |
    | `vote_entropy_nats` | entropy of the votes, as the original reports it | ln C |

    and each as a share of its maximum, 0 to 1, as `predictive_entropy_scaled`,
    `variation_ratio_scaled` and so on. Fewer samples than classes cannot
    reach the maximum of the votes.

    Args:
        samples: Probabilities, shape `(num_samples, batch, num_classes)`.

    Returns:
        Name to array of shape `(batch,)`, float64.

    Raises:
        InputError: if `samples` has another rank.

    Example:

    >>> sure, torn = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    >>> measures = uncertainty_measures(np.stack([np.stack([sure, torn])] * 4))
    >>> measures["predictive_entropy_nats"].round(4)
    array([0.    , 0.6931])
    >>> measures["mutual_information_nats"].round(4)
    array([0., 0.])
    >>> measures["predictive_entropy_scaled"].round(4)
    array([0., 1.])

    Reference: RECIPES of the paper, "MC dropout"; Gal, "Uncertainty in Deep
    Learning", 2016, section 3.3.
    """
    samples = np.asarray(samples)
    if samples.ndim != 3 or 0 in samples.shape:
        reject("samples", "must have shape (num_samples, batch, num_classes)", samples.shape)
    expected = np.mean([entropy_nats(s.astype(np.float64)) for s in samples], axis=0)
    return class_measures(predictive_mean(samples), expected, _votes(samples))


def class_measures(
    mean: np.ndarray, expected_entropy: np.ndarray, votes: np.ndarray
) -> dict[str, np.ndarray]:
    """The measures of `uncertainty_measures` from sums that a stream of samples gives.

    Args:
        mean: Mean probabilities, shape `(batch, num_classes)`.
        expected_entropy: Mean of the samples' entropies in nats, `(batch,)`.
        votes: Share of the samples that vote for each class, `(batch, num_classes)`.
    """
    total = entropy_nats(mean)
    measures = {
        "predictive_entropy_nats": total,
        "expected_entropy_nats": expected_entropy,
        "mutual_information_nats": np.maximum(total - expected_entropy, 0.0),
        "variation_ratio": 1.0 - votes.max(axis=-1),
        "vote_mean": votes @ np.arange(votes.shape[-1]),
        "vote_entropy_nats": entropy_nats(votes),
    }
    return measures | _scaled(measures, mean.shape[-1])


def _scaled(measures: dict[str, np.ndarray], num_classes: int) -> dict[str, np.ndarray]:
    maxima = dict.fromkeys(measures, np.log(max(num_classes, 2)))
    maxima |= {"variation_ratio": 1 - 1 / max(num_classes, 2), "vote_mean": max(num_classes, 2) - 1}
    return {
        f"{name.removesuffix('_nats')}_scaled": np.clip(values / maxima[name], 0.0, 1.0)
        for name, values in measures.items()
    }


def expected_age_years(probabilities: np.ndarray, age_years: np.ndarray) -> np.ndarray:
    """Expectation of the age under class probabilities, shape `(batch,)`.

    Args:
        probabilities: Shape `(batch, num_classes)`.
        age_years: Age that each class stands for, shape `(num_classes,)`.
    """
    return probabilities @ np.asarray(age_years, np.float64)


def median_age_years(probabilities: np.ndarray, year_to_class: np.ndarray) -> np.ndarray:
    """Median of the predictive distribution of age, shape `(batch,)`, fractional years.

    Args:
        probabilities: Shape `(batch, num_classes)`.
        year_to_class: Class of each year, shape `(num_years,)`. The
            probability of a class is spread evenly over its years, that of
            year 30 from 29.5 to 30.5.

    Example:

    >>> median_age_years(np.full((1, 101), 1 / 101), np.arange(101)).round(6)
    array([50.])
    """
    middle = _age_quantile_years(probabilities, year_to_class, 0.5)
    return np.clip(middle, 0.0, len(year_to_class) - 1.0)


def age_interval_years(
    probabilities: np.ndarray, year_to_class: np.ndarray, coverage: float = 0.9
) -> np.ndarray:
    """Central interval of the predictive distribution of age, shape `(batch, 2)`, fractional years.

    It lies in [-0.5, 100.5], whole years being half a year wide to both sides:
    cut to 0 to 100, the many intervals of children that begin at 0 could not
    be told apart.

    Args:
        probabilities: Shape `(batch, num_classes)`.
        year_to_class: As in `median_age_years`.
        coverage: Share of the probability inside, in (0, 1).

    Raises:
        InputError: if `coverage` is out of range.

    Example:

    >>> p = np.full((1, 101), 1 / 101)
    >>> age_interval_years(p, np.arange(101)).round(2)
    array([[ 4.55, 95.45]])
    >>> age_interval_years(p, np.arange(101), coverage=0.5).round(2)
    array([[24.75, 75.25]])
    """
    if not is_number(coverage) or not 0 < coverage < 1:
        reject("coverage", "must be in (0, 1)", coverage)
    ends = ((1 - coverage) / 2, (1 + coverage) / 2)
    return np.stack([_age_quantile_years(probabilities, year_to_class, q) for q in ends], axis=1)


def _age_quantile_years(
    probabilities: np.ndarray, year_to_class: np.ndarray, share: float
) -> np.ndarray:
    year_to_class = np.asarray(year_to_class)
    spread = probabilities[:, year_to_class] / np.bincount(year_to_class)[year_to_class]
    cumulative = np.cumsum(spread, axis=1, dtype=np.float64)
    year = np.minimum((cumulative < share).sum(axis=1), len(year_to_class) - 1)
    rows = np.arange(len(probabilities))
    # how far back from the year's end; a year of no probability has no inside
    back = (cumulative[rows, year] - share) / np.maximum(spread[rows, year], 1e-300)
    return year + 0.5 - np.clip(back, 0.0, 1.0)
