"""The labels of a store, the most suspicious first, with what speaks against each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasmlp.evaluation.confident_learning import (
    confident_classes,
    estimated_joint,
    likeliest_other,
    normalized_margin,
    self_confidence,
)
from kerasmlp.evaluation.predictions_file import Predictions
from kerasmlp.evaluation.seed_means import SeedMeans, mean_over_seeds
from kerasmlp.uncertainty.measures import expected_age_years

FAR = 3.0
"""Predicted standard deviations from which on a number or an age is counted as suspicious."""

LEAST = 20
"""Suspects that are listed, however few seem to be wrong."""


@dataclass(frozen=True, eq=False)
class Suspects:
    """All labels of one head that are known, in the order of suspicion.

    Attributes:
        rows: Of the store, `(rows,)`.
        suggested: What each looks like instead, in words.
        scores: Columns by their names, `(rows,)`.
        seeds: That answered a row, at most.
        wrong: How many labels seem to be.
        pairs: Of classes, `(label, looks like, how many)`, the most frequent first.
    """

    rows: np.ndarray
    suggested: list[str]
    scores: Mapping[str, np.ndarray]
    seeds: int
    wrong: int
    pairs: list[tuple[str, str, int]]

    def listed(self, most: int | None = None) -> int:
        """How many are worth a look: as many as seem to be wrong, or as many as asked for."""
        return min(len(self.rows), max(self.wrong, LEAST) if most is None else most)


def rank_suspects(predictions: Predictions) -> Suspects:
    """Ranks labels by what models that have not learned from them answer.

    Classes by self-confidence, the surest contradiction first; `wrong` is what confident
    learning estimates (see `estimated_joint`), of age groups without neighbours, between which
    models err where labels do not. Ages that are known in years, and numbers, by how many
    predicted standard deviations they are off; `wrong` counts those beyond three.

    Args:
        predictions: Out of fold, of one seed or of several, which are averaged.

    Reference: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
    Dataset Labels", 2021.
    """
    means, target = mean_over_seeds(predictions), predictions.target
    if target.is_number:
        mean, std = means.answers.T
        return _by_distance(means, mean, std, [f"{value:.6g}" for value in mean])
    names: list[str] = predictions.about["label_names"]
    if target.head == "years" and tuple(names) == target.class_names:
        years = np.arange(len(names))
        mean = expected_age_years(means.answers, years)
        squares = expected_age_years(means.answers, years.astype(float) ** 2)
        std = np.sqrt(np.maximum(squares - mean**2, 0) + 1 / 12)  # a year is one year wide
        return _by_distance(means, mean, std, [f"{value:.0f}" for value in mean])
    return _by_confidence(means, names, apart=2 if target.is_age else 1)


def _by_confidence(means: SeedMeans, names: list[str], *, apart: int) -> Suspects:
    labels, answers = means.labels, means.answers
    confident, other = confident_classes(labels, answers), likeliest_other(labels, answers)
    sure = (confident >= 0) & (confident != labels)
    suggested = np.where(sure, confident, other)
    scores = {
        "self_confidence": self_confidence(labels, answers),
        "normalized_margin": normalized_margin(labels, answers),
        "suggested_probability": self_confidence(suggested, answers),
        **means.uncertainty,
    }
    joint = estimated_joint(labels, answers)
    wrong = np.flatnonzero(np.abs(joint.labels - joint.classes) >= apart)
    pairs = [
        (names[joint.labels[k]], names[joint.classes[k]], round(float(joint.rows[k])))
        for k in wrong[np.argsort(-joint.rows[wrong], kind="stable")]
    ]
    order = np.lexsort((means.rows, scores["self_confidence"]))
    words, number = [names[k] for k in suggested], round(float(joint.rows[wrong].sum()))
    return _in_order(order, means, words, scores, number, pairs)


def _by_distance(
    means: SeedMeans, mean: np.ndarray, std: np.ndarray, suggested: list[str]
) -> Suspects:
    residual = means.labels - mean
    scores = {
        "scaled_residual": residual / std,
        "residual": residual,
        "predicted_std": std,
        **means.uncertainty,
    }
    far = np.abs(scores["scaled_residual"])
    order = np.lexsort((means.rows, -far))
    return _in_order(order, means, suggested, scores, int((far > FAR).sum()), [])


def _in_order(order: np.ndarray, means: SeedMeans, suggested: list[str], scores, wrong, pairs):
    in_order: dict[str, Any] = {name: column[order] for name, column in scores.items()}
    pairs = [pair for pair in pairs if pair[2]]
    words, seeds = [suggested[k] for k in order], int(means.seeds.max())
    return Suspects(means.rows[order], words, in_order, seeds, wrong, pairs)
