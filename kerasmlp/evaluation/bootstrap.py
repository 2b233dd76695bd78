"""How far measures of groups may be off by chance: rows that belong together are drawn together."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from statistics import NormalDist

import numpy as np
from tqdm import tqdm

from kerasmlp.evaluation.ranked_rows import RankedRows
from kerasmlp.evaluation.row_scores import MeanScore, RankScore, Score, distance

DRAWS = 1000
"""How often rows are drawn anew."""
RANK_DRAWS = 200
"""Of them, those by which measures of a ranking are computed, which take longer."""
FEWEST = 20
"""Clusters of rows below which a group is too small to be compared."""
CONFIDENCE = 0.95

_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
_MOST_WEIGHTS = 1 << 22

Interval = tuple[float, float]


def group_intervals(
    scores: Mapping[Hashable, Score],
    codes: np.ndarray,
    clusters: np.ndarray,
    num_groups: int,
    *,
    seed: int = 0,
    progress: bool = False,
) -> list[dict[Hashable, Interval]]:
    """Bootstrap intervals of 95% of measures in groups of rows.

    Clusters are drawn with replacement from all rows of all groups at once. The ends are
    percentiles, corrected for bias and skewness (Efron's BCa) and a little further out in
    groups of few clusters (Hesterberg), but of two kinds of measures. A share, or an area of
    shares, has Wilson's interval of as many rows as have the variance of the draws, so that
    a group without an error is not sure to have none. Noise makes the `ece` of a group
    larger than the true one, and that of its draws larger still: the lower end is what is
    left of it when all that may be noise is taken off, the upper one half the width of the
    percentiles above it.

    Args:
        scores: Of all rows, by whatever name.
        codes: Group of each row from 0 on, `(rows,)`, -1 of those in none.
        clusters: What each row belongs to, from 0 on, `(rows,)`.
        num_groups: How many there are, be it that some have no rows.
        seed: Of the 1,000 draws, 200 of measures of a ranking.
        progress: Show a bar.

    Returns:
        For each group the ends by name. Without one are measures that do not vary, and those
        other than shares in fewer than 20 clusters.

    Example:

    >>> right = MeanScore(np.repeat([[1.0], [0.0]], [90, 10], axis=0), is_share=True)
    >>> (found,) = group_intervals({"accuracy": right}, np.zeros(100, int), np.arange(100), 1)
    >>> [round(end, 2) for end in found["accuracy"]]
    [0.83, 0.94]

    Reference: Efron, "Better Bootstrap Confidence Intervals", 1987; Hesterberg, "What
    Teachers Should Know About the Bootstrap", 2015; of shares Korn and Graubard, "Confidence
    Intervals for Proportions with Small Expected Number of Positive Counts", 1998.
    """
    inside = np.flatnonzero(codes >= 0)
    there, drawn = np.unique(clusters[inside], return_inverse=True)
    groups = {
        g: _Group(scores, inside[codes[inside] == g], drawn[codes[inside] == g])
        for g in np.unique(codes[inside]).tolist()
    }
    with tqdm(total=DRAWS, unit="draw", disable=not progress) as bar:
        for weights in _weights(len(there), seed):
            for group in groups.values():
                group.draw(weights)
            bar.update(len(weights))
    return [groups[g].intervals() if g in groups else {} for g in range(num_groups)]


def _weights(clusters: int, seed: int) -> Iterator[np.ndarray]:
    """How often each cluster is drawn, `(some draws, clusters)`."""
    rng, at_once = np.random.default_rng(seed), max(1, _MOST_WEIGHTS // max(clusters, 1))
    for start in range(0, DRAWS, at_once) if clusters else ():
        drawn = (rng.integers(clusters, size=clusters) for _ in range(DRAWS)[start:][:at_once])
        counts = [np.bincount(one, minlength=clusters) for one in drawn]
        yield np.array(counts, np.float64)


class _Group:
    """Sums of one group by cluster, and what they come to in each draw."""

    def __init__(self, scores: Mapping[Hashable, Score], rows: np.ndarray, drawn: np.ndarray):
        self.scores, self.rows = scores, rows
        self.present, self.cluster = np.unique(drawn, return_inverse=True)
        self.places: dict[Hashable, slice] = {}
        columns: list[np.ndarray] = []
        for name, score in scores.items():
            if isinstance(score, MeanScore):
                values = score.columns[rows]
                known = ~np.isnan(values[:, :1])
                values = np.where(known, values, 0.0)
                self.places[name] = slice(len(columns), len(columns) + values.shape[1] + 1)
                columns += [*values.T, known[:, 0]]
        sums = [np.bincount(self.cluster, column, len(self.present)) for column in columns]
        self.sums = np.array(sums).T.reshape(len(self.present), len(sums))
        self.order = {
            name: RankedRows(score.errors[rows], score.uncertainty[rows], score.share)
            for name, score in scores.items()
            if isinstance(score, RankScore)
        }
        self.drawn: list[np.ndarray] = []
        self.ranked: dict[Hashable, list[np.ndarray]] = {name: [] for name in self.order}

    def draw(self, weights: np.ndarray) -> None:
        left = RANK_DRAWS - sum(map(len, self.drawn))
        weights = weights[:, self.present]
        self.drawn.append(weights @ self.sums)
        if left > 0:
            of_rows = weights[:left, self.cluster]
            for name, order in self.order.items():
                self.ranked[name].append(order.values(of_rows))

    def intervals(self) -> dict[Hashable, Interval]:
        found, drawn = {}, np.concatenate(self.drawn)
        for name, score in self.scores.items():
            if isinstance(score, MeanScore):
                place = self.places[name]
                found[name] = _of_means(score, self.sums[:, place], drawn[:, place])
                continue
            value, values = score.value(self.rows), np.concatenate(self.ranked[name])
            if score.is_share:
                counted = (score.share or 1.0) * np.array([len(self.present), len(self.rows)])
                found[name] = _of_share(value, values, *counted)
            else:
                found[name] = _percentiles(value, values, len(self.present), None)
        return {name: ends for name, ends in found.items() if ends is not None}


def _of_means(score: MeanScore, sums: np.ndarray, drawn: np.ndarray) -> Interval | None:
    """The interval of a function of means; the last column counts rows."""
    sums, drawn = (columns[columns[:, -1] > 0] for columns in (sums, drawn))
    total, clusters = sums.sum(axis=0), len(sums)
    if not clusters or not len(drawn):
        return None
    means, of_draws = total[:-1] / total[-1], drawn[:, :-1] / drawn[:, -1:]
    value, values = float(score.of(means)), score.of(of_draws)
    if score.is_share:
        return _of_share(value, values, clusters, total[-1])
    if score.of is distance:
        ends = _percentiles(value, values, clusters, None)
        noise = np.quantile(distance(of_draws - means), (1 + CONFIDENCE) / 2)
        return ends and (max(0.0, float(value - noise)), value + (ends[1] - ends[0]) / 2)
    without = total - sums  # each cluster in turn
    without = without[without[:, -1] > 0]
    return _percentiles(value, values, clusters, score.of(without[:, :-1] / without[:, -1:]))


def _percentiles(
    value: float, values: np.ndarray, clusters: int, jackknife: np.ndarray | None
) -> Interval | None:
    """Percentiles of draws, further out for few clusters; moved by `jackknife` as in BCa."""
    values, tiny = values[np.isfinite(values)], 1e-12 * abs(value)
    if clusters < FEWEST or not len(values) or np.isnan(value) or np.ptp(values) <= tiny:
        return None
    normal, bias, skew = NormalDist(), 0.0, 0.0
    if jackknife is not None:
        below, least = (values < value).mean() + (values == value).mean() / 2, 0.5 / len(values)
        jackknife = jackknife[np.isfinite(jackknife)]
        off = jackknife.mean() - jackknife
        bias = normal.inv_cdf(min(max(below, least), 1 - least))
        skew = (off**3).sum() / (6 * (off**2).sum() ** 1.5)
    reach = np.sqrt(clusters / (clusters - 1)) * _t_quantile(clusters - 1)
    moved = np.array([bias - reach, bias + reach])
    moved = bias + moved / np.maximum(1 - skew * moved, 0.1)
    low, high = np.quantile(values, [normal.cdf(end) for end in moved])
    return float(low), float(high)


def _of_share(value: float, values: np.ndarray, clusters: float, rows: float) -> Interval | None:
    """Wilson's interval of as many independent rows as have the variance of the draws.

    A share of 0 or 1 has none: there each cluster counts as one row.
    """
    values = values[np.isfinite(values)]
    if np.isnan(value) or not len(values):
        return None
    spread, varied = value * (1 - value), values.var()
    number = max(1.0, min(spread / varied, rows) if spread > 0 and varied > 0 else clusters)
    middle = (value + _Z**2 / (2 * number)) / (1 + _Z**2 / number)
    reach = np.sqrt(spread / number + _Z**2 / (4 * number**2)) * _Z / (1 + _Z**2 / number)
    return float(max(0.0, middle - reach)), float(min(1.0, middle + reach))


def _t_quantile(degrees_of_freedom: int) -> float:
    """Of Student's t at the confidence, by the expansion of Cornish and Fisher."""
    z, n = _Z, degrees_of_freedom
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + terms[0] / n + terms[1] / n**2
