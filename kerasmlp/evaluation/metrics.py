"""How good predictions are: numpy only, computed in float64, unknown labels are the caller's.

`labels` and `predicted` are classes `(rows,)`, `probabilities` `(rows, num_classes)`, each row
summing to 1, `age_years` and `predicted_years` ages `(rows,)`, all known, `intervals` their
lower and upper ends `(rows, 2)`. What is none of these, or holds no rows, is an `InputError`.
"""

from typing import Any

import numpy as np

from kerasmlp.utils.checks import check_int, check_positive, reject

MIN_PROBABILITY = 1e-12
NUM_BINS = 15


def accuracy(labels, predicted) -> float:
    """Share of rows whose predicted class is the label.

    Example:

    >>> accuracy([0, 1, 2, 2], [0, 1, 1, 2])
    0.75
    """
    labels, predicted = _classes(labels, predicted)
    return float(np.mean(labels == predicted))


def one_off_accuracy(labels, predicted) -> float:
    """Share of rows predicted right or as a neighbouring class, for ordered classes.

    Example:

    >>> one_off_accuracy([0, 3, 2], [1, 3, 0])
    0.6666666666666666
    """
    labels, predicted = _classes(labels, predicted)
    return float(np.mean(np.abs(labels - predicted) <= 1))


def nll(labels, probabilities) -> float:
    """Mean negative log of the label's probability, in nats.

    Probabilities below 1e-12 count as 1e-12, so one sure and wrong row costs
    at most 27.6 nats.

    Example:

    >>> round(nll([0, 1], [[0.5, 0.5], [0.25, 0.75]]), 4)
    0.4904
    """
    labels, probabilities = _distributions(labels, probabilities)
    right = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(right, MIN_PROBABILITY)).mean())


def brier(labels, probabilities) -> float:
    """Mean squared distance to the one-hot label, summed over classes: 0 (best) to 2.

    Example:

    >>> brier([0, 1], [[1.0, 0.0], [0.5, 0.5]])
    0.25
    """
    labels, probabilities = _distributions(labels, probabilities)
    one_hot = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - one_hot).sum(axis=1).mean())


def ece(labels, probabilities, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error of the top class.

    Rows fall into `num_bins` bins of equal width by their top probability,
    bin k holding (k/n, (k+1)/n]; the result is the mean over rows of their
    bin's |accuracy - mean confidence|.

    Example:

    >>> round(ece([0, 1], [[0.9, 0.1], [0.9, 0.1]]), 6)
    0.4
    """
    bins = reliability_bins(labels, probabilities, num_bins)
    gaps = bins["rows"] * np.abs(bins["accuracy"] - bins["confidence"])
    return float(np.nansum(gaps) / bins["rows"].sum())


def reliability_bins(labels, probabilities, num_bins: int = NUM_BINS) -> dict[str, np.ndarray]:
    """What a reliability diagram shows, in the bins of `ece`.

    Returns:
        `rows`, `confidence` and `accuracy`, each `(num_bins,)`; NaN in the
        last two where a bin is empty.

    Example:

    >>> bins = reliability_bins([0, 1], [[0.9, 0.1], [0.9, 0.1]], num_bins=2)
    >>> bins["rows"], bins["accuracy"]
    (array([0, 2]), array([nan, 0.5]))
    """
    check_int("num_bins", num_bins, minimum=1)
    labels, probabilities = _distributions(labels, probabilities)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = confidence_bins(confidence, num_bins)
    rows = np.bincount(bins, minlength=num_bins)
    sums = (np.bincount(bins, v, minlength=num_bins) for v in (confidence, right))
    means = [np.divide(s, rows, np.full(num_bins, np.nan), where=rows > 0) for s in sums]
    return {"rows": rows, "confidence": means[0], "accuracy": means[1]}


def confidence_bins(confidence: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """The bin of `ece` into which each top probability falls, from 0 on, `(rows,)`."""
    edges = np.linspace(0, 1, num_bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)


def interval_coverage(age_years, intervals) -> float:
    """Share of rows whose age lies in its interval, ends included.

    Example:

    >>> interval_coverage([30, 40], [[28, 33], [20.5, 39.5]])
    0.5
    """
    ends = _intervals(intervals)
    low, high = ends.T
    age_years = _finite("age_years", age_years, len(ends))
    return float(np.mean((low <= age_years) & (age_years <= high)))


def interval_width(intervals) -> float:
    """Mean width of intervals.

    Example:

    >>> interval_width([[28, 33], [20, 40]])
    12.5
    """
    return float(np.diff(_intervals(intervals), axis=1).mean())


def mae_years(age_years, predicted_years) -> float:
    """Mean absolute error of ages.

    Example:

    >>> mae_years([30, 40], [31.0, 37.0])
    2.0
    """
    return float(_errors(age_years, predicted_years).mean())


def cumulative_score(age_years, predicted_years, k: float) -> float:
    """CS@k: share of rows with an error of at most `k` years.

    Example:

    >>> cumulative_score([30, 40, 50], [31, 37, 50], k=1)
    0.6666666666666666
    """
    check_positive("k", k, zero=True)
    return float(np.mean(_errors(age_years, predicted_years) <= k))


def confusion_matrix(labels, predicted, num_classes: int) -> np.ndarray:
    """Counts `(num_classes, num_classes)`: row is the label, column the prediction.

    Example:

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], num_classes=2)
    array([[1, 1],
           [0, 1]])
    """
    check_int("num_classes", num_classes, minimum=1)
    labels, predicted = _classes(labels, predicted)
    for name, values in (("labels", labels), ("predicted", predicted)):
        _check_range(name, values, num_classes)
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def _column(name: str, values: Any, kinds: str, rows: int | None = None) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in kinds or len(values) == 0:
        what = "integers" if "f" not in kinds else "numbers"
        came = f"shape {values.shape}, dtype {values.dtype}"
        reject(name, f"must hold one or more {what}, one per row", came)
    if rows is not None and len(values) != rows:
        reject(name, f"must hold {rows} rows", len(values))
    return values.astype(np.int64 if "f" not in kinds else np.float64)


def _check_range(name: str, values: np.ndarray, num_classes: int | None) -> None:
    bad = values[(values < 0) | (values >= (num_classes or np.inf))]
    if len(bad):
        limit = f"in [0, {num_classes})" if num_classes else ">= 0"
        reject(name, f"must hold classes {limit}", int(bad[0]))


def _classes(labels: Any, predicted: Any) -> tuple[np.ndarray, np.ndarray]:
    labels = _column("labels", labels, "iu")
    predicted = _column("predicted", predicted, "iu", len(labels))
    _check_range("labels", labels, None)
    _check_range("predicted", predicted, None)
    return labels, predicted


def _distributions(labels: Any, probabilities: Any) -> tuple[np.ndarray, np.ndarray]:
    labels = _column("labels", labels, "iu")
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or probabilities.dtype.kind not in "fiu":
        came = f"shape {probabilities.shape}, dtype {probabilities.dtype}"
        reject("probabilities", "must be numbers (rows, num_classes)", came)
    if len(probabilities) != len(labels):
        reject("probabilities", f"must hold {len(labels)} rows", len(probabilities))
    _check_range("labels", labels, probabilities.shape[1])
    probabilities = probabilities.astype(np.float64)
    # float16 rows of many classes miss 1 by some thousandths
    good = (probabilities >= 0).all(axis=1) & (np.abs(probabilities.sum(axis=1) - 1) < 0.01)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        total = float(probabilities[row].sum())
        reject("probabilities", "must be >= 0 and sum to 1", f"sum {total:.6g} in row {row}")
    return labels, probabilities


def _errors(age_years: Any, predicted_years: Any) -> np.ndarray:
    age_years = _finite("age_years", age_years)
    predicted_years = _finite("predicted_years", predicted_years, len(age_years))
    return np.abs(predicted_years - age_years)


def _finite(name: str, values: Any, rows: int | None = None) -> np.ndarray:
    values = _column(name, values, "iuf", rows)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        reject(name, "must hold finite numbers", f"{values[row]} in row {row}")
    return values


def _intervals(intervals: Any) -> np.ndarray:
    intervals = np.asarray(intervals)
    if intervals.ndim != 2 or intervals.shape[1] != 2 or intervals.dtype.kind not in "iuf":
        came = f"shape {intervals.shape}, dtype {intervals.dtype}"
        reject("intervals", "must be numbers (rows, 2)", came)
    ends = np.stack([_finite("intervals", end) for end in intervals.T], axis=1)
    bad = np.flatnonzero(ends[:, 0] > ends[:, 1])
    if len(bad):
        reject("intervals", "must not end before they begin", f"{ends[bad[0]]} in row {bad[0]}")
    return ends
