"""Whether the best and the worst of several groups differ by more than chance makes them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
from tqdm import tqdm

from kerasmlp.evaluation.bootstrap import FEWEST
from kerasmlp.evaluation.row_scores import MeanScore

PERMUTATIONS = 1000
"""How often the groups are dealt out anew; the smallest p is 1/1001."""


def gap_tests(
    scores: Mapping[Hashable, MeanScore],
    codes: np.ndarray,
    clusters: np.ndarray,
    *,
    seed: int = 0,
    progress: bool = False,
) -> dict[Hashable, tuple[int, int, float]]:
    """Tests the gap between the groups with the highest and the lowest measure.

    A permutation test: the names of the groups are dealt out at random among the clusters
    of rows, and p is the share of such deals, the one that is there included, whose own
    largest gap is at least as large. So the picking of the two extremes among all groups is
    part of what happens by chance. Rows of one cluster that are in two groups are dealt out
    apart, which errs on the side of finding nothing.

    Args:
        scores: Of all rows, by whatever name.
        codes: Group of each row from 0 on, `(rows,)`, -1 of those in none.
        clusters: What each row belongs to, from 0 on, `(rows,)`.
        seed: Of the deals.
        progress: Show a bar.

    Returns:
        By name the groups with the lowest and the highest measure, and p. Groups of fewer
        than 20 clusters are left out, and so is a measure known in less than two groups.

    Example:

    >>> right = np.ones((400, 1))
    >>> right[:30] = 0
    >>> codes = np.repeat([0, 1], 200)
    >>> gap_tests({"accuracy": MeanScore(right)}, codes, np.arange(400))["accuracy"]
    (0, 1, 0.000999000999000999)

    Reference: Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005; of
    the largest gap as the statistic Westfall and Young, "Resampling-Based Multiple Testing",
    1993.
    """
    alike: dict[bytes, list[Hashable]] = {}
    for name, score in scores.items():
        alike.setdefault(score.known.tobytes(), []).append(name)
    found: dict[Hashable, tuple[int, int, float]] = {}
    for names in alike.values():
        rows = np.flatnonzero(scores[names[0]].known & (codes >= 0))
        where = rows, codes[rows], clusters[rows]
        found |= _tested({name: scores[name] for name in names}, *where, seed, progress)
    return {name: found[name] for name in scores if name in found}


def _tested(
    scores: Mapping[Hashable, MeanScore],
    rows: np.ndarray,
    codes: np.ndarray,
    clusters: np.ndarray,
    seed: int,
    progress: bool,
) -> dict[Hashable, tuple[int, int, float]]:
    """The tests of measures that the same rows know."""
    size = clusters.max(initial=0) + 1
    pieces, piece = np.unique(codes * size + clusters, return_inverse=True)
    code_of = pieces // size
    large = np.flatnonzero(np.bincount(code_of) >= FEWEST)
    if len(large) < 2:
        return {}
    dealt = np.isin(code_of, large)
    groups = np.searchsorted(large, code_of[dealt])
    counts = np.bincount(piece)[dealt].astype(float)
    sums = {
        name: [np.bincount(piece, column)[dealt] for column in score.columns[rows].T]
        for name, score in scores.items()
    }

    def measures(groups: np.ndarray) -> dict[Hashable, np.ndarray]:
        number = np.bincount(groups, counts)
        return {
            name: scores[name].of(
                np.stack([np.bincount(groups, c) for c in columns], axis=1) / number[:, None]
            )
            for name, columns in sums.items()
        }

    there, rng = measures(groups), np.random.default_rng(seed)
    rounding = {name: 1e-12 * np.abs(values).max() for name, values in there.items()}
    least = {name: np.ptp(values) - rounding[name] for name, values in there.items()}
    reached = dict.fromkeys(there, 1)
    for _ in tqdm(range(PERMUTATIONS), unit="deal", disable=not progress):
        for name, values in measures(rng.permutation(groups)).items():
            reached[name] += bool(np.ptp(values) >= least[name])
    return {
        name: (int(large[v.argmin()]), int(large[v.argmax()]), reached[name] / (PERMUTATIONS + 1))
        for name, v in there.items()
        if np.isfinite(v).all()
    }
