"""From Monte-Carlo samples of probabilities to measures of uncertainty.

All functions take samples of fixed shape `(num_samples, batch, num_classes)`
and return one value per row; entropies are in nats.
"""

from __future__ import annotations

import numpy as np

from kerasmlp.checks import reject


def _entropy(probabilities: np.ndarray) -> np.ndarray:
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

    Reference: RECIPES of the paper, "MC dropout"; Gal, "Uncertainty in Deep
    Learning", 2016, section 3.3.
    """
    samples = np.asarray(samples)
    if samples.ndim != 3 or 0 in samples.shape:
        reject("samples", "must have shape (num_samples, batch, num_classes)", samples.shape)
    expected = np.mean([_entropy(s.astype(np.float64)) for s in samples], axis=0)
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
    total = _entropy(mean)
    return {
        "predictive_entropy_nats": total,
        "expected_entropy_nats": expected_entropy,
        "mutual_information_nats": np.maximum(total - expected_entropy, 0.0),
        "variation_ratio": 1.0 - votes.max(axis=-1),
        "vote_mean": votes @ np.arange(votes.shape[-1]),
        "vote_entropy_nats": _entropy(votes),
    }


def expected_age_years(probabilities: np.ndarray, age_years: np.ndarray) -> np.ndarray:
    """Expectation of the age under class probabilities, shape `(batch,)`.

    Args:
        probabilities: Shape `(batch, num_classes)`.
        age_years: Age that each class stands for, shape `(num_classes,)`.
    """
    return probabilities @ np.asarray(age_years, np.float64)


def age_interval_years(
    probabilities: np.ndarray, year_to_class: np.ndarray, coverage: float = 0.9
) -> np.ndarray:
    """Central interval of the predictive distribution of age, shape `(batch, 2)`, whole years.

    The probability of a class is spread evenly over its years.

    Example:

    >>> p = np.full((1, 101), 1 / 101)
    >>> age_interval_years(p, np.arange(101))
    array([[ 5, 95]])
    """
    year_to_class = np.asarray(year_to_class)
    spread = probabilities[:, year_to_class] / np.bincount(year_to_class)[year_to_class]
    cumulative = np.cumsum(spread, axis=1)
    tail = (1 - coverage) / 2
    low = (cumulative < tail).sum(axis=1)
    high = (cumulative < 1 - tail).sum(axis=1)
    return np.minimum(np.stack([low, high], axis=1), len(year_to_class) - 1)
