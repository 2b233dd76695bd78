"""From Monte-Carlo samples of probabilities, or of regression targets, to measures of uncertainty.

All functions take samples of fixed shape `(num_samples, batch, num_classes)`
or `(num_samples, batch, num_targets)` and return one value per row (of
`regression_measures`: per row and target); entropies and log-likelihoods are
in nats.
"""

import numpy as np

from kerasmlp.utils.checks import is_number, reject

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
        InputError: if `samples` has another rank or is no probabilities.

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
    if not ((samples >= 0).all() and np.allclose(samples.sum(axis=-1), 1, atol=1e-3)):
        reject("samples", "must be probabilities that sum to 1", "other numbers")
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


def regression_measures(
    samples: np.ndarray, noise_variance: float | np.ndarray
) -> dict[str, np.ndarray]:
    """Mean and variances of the mixture of normals `N(sample, noise_variance)`.

    | name | what it is |
    | --- | --- |
    | `mean` | mean of the samples |
    | `epistemic_variance` | variance of the samples: what the model does not know |
    | `aleatoric_variance` | mean of the noise variances: what the data cannot tell |
    | `total_variance` | their sum, the variance of the mixture |

    Args:
        samples: Outputs, shape `(num_samples, batch, num_targets)`, in the
            units of the target.
        noise_variance: Above 0, in these units squared: `1/τ` of the
            original. One number, or an array that broadcasts to `samples`,
            such as a second output of the model.

    Returns:
        Name to array `(batch, num_targets)`, float64.

    Raises:
        InputError: if a shape does not fit or a noise variance is not above 0.

    Example:

    >>> measures = regression_measures(np.array([[[1.0]], [[3.0]]]), noise_variance=0.25)
    >>> {name: float(value[0, 0]) for name, value in measures.items()}
    {'mean': 2.0, 'epistemic_variance': 1.0, 'aleatoric_variance': 0.25, 'total_variance': 1.25}

    Reference: Gal and Ghahramani, "Dropout as a Bayesian Approximation",
    2016, equation 10 of the appendix; Kendall and Gal, "What Uncertainties
    Do We Need in Bayesian Deep Learning for Computer Vision?", 2017, section 3.
    """
    samples, noise_variance = _check_regression(samples, noise_variance)
    epistemic = samples.var(axis=0)
    aleatoric = np.broadcast_to(noise_variance, samples.shape).mean(axis=0)
    return {
        "mean": samples.mean(axis=0),
        "epistemic_variance": epistemic,
        "aleatoric_variance": aleatoric,
        "total_variance": epistemic + aleatoric,
    }


def gaussian_log_likelihood(
    y: np.ndarray, samples: np.ndarray, noise_variance: float | np.ndarray
) -> np.ndarray:
    """Log-density of the targets under the mixture of normals around the samples, `(batch,)`.

    `log 1/S Σ_s N(y; sample_s, noise_variance)`, jointly over the targets of
    a row. It is a density: in another unit of the target it has another value.

    Args:
        y: True targets, shape `(batch, num_targets)`.
        samples: As in `regression_measures`.
        noise_variance: As in `regression_measures`.

    Returns:
        Nats per row, float64.

    Raises:
        InputError: as `regression_measures`, or if `y` does not fit `samples`.

    Example:

    >>> samples = np.array([[[-1.0]], [[1.0]]])  # N(0; ±1, 1) is 0.242
    >>> np.exp(gaussian_log_likelihood(np.array([[0.0]]), samples, noise_variance=1.0)).round(3)
    array([0.242])

    Reference: Gal and Ghahramani, "Dropout as a Bayesian Approximation",
    2016, section 4.2 and equation 8.
    """
    samples, noise_variance = _check_regression(samples, noise_variance)
    y = np.asarray(y, np.float64)
    if y.shape != samples.shape[1:]:
        reject("y", f"must have shape {samples.shape[1:]}, that of one sample", y.shape)
    logs = -0.5 * ((y - samples) ** 2 / noise_variance + np.log(2 * np.pi * noise_variance))
    logs = logs.sum(axis=-1)
    # The largest term is taken out, or far targets would underflow to log 0.
    largest = logs.max(axis=0)
    return largest + np.log(np.exp(logs - largest).mean(axis=0))


def _check_regression(samples, noise_variance) -> tuple[np.ndarray, np.ndarray]:
    samples = np.asarray(samples, np.float64)
    if samples.ndim != 3 or 0 in samples.shape:
        reject("samples", "must have shape (num_samples, batch, num_targets)", samples.shape)
    noise_variance = np.asarray(noise_variance, np.float64)
    try:
        fits = np.broadcast_shapes(noise_variance.shape, samples.shape) == samples.shape
    except ValueError:
        fits = False
    if not fits:
        reject("noise_variance", f"must broadcast to {samples.shape}", noise_variance.shape)
    if not (noise_variance > 0).all():
        reject("noise_variance", "must be above 0", float(noise_variance.min()))
    return samples, noise_variance
