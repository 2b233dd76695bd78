"""Runs that answer together."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kerasmlp.runs.predictor import Predictor
from kerasmlp.utils.checks import reject


def open_predictors(
    paths: Sequence[str | os.PathLike],
    *,
    num_samples: int,
    max_risk: float | None = None,
    within_years: float | None = None,
) -> list[Predictor]:
    """Opens runs that answer together.

    Args:
        paths: Run folders, of different labels.
        num_samples: Stochastic passes to answer from.
        max_risk: Share of wrong answers to abstain by, or None to answer all.
        within_years: An age is right if it is at most so many years off, or
            None: if its group is.

    Raises:
        InputError: if a run is not finished, two are of one label, or one
            cannot promise the risk; if nothing is abstained by the years, or
            there is no model of ages.
    """
    predictors = [head for path in paths for head in Predictor.heads(path)]
    names = [p.name for p in predictors]
    if len(set(names)) < len(names):
        reject("--also", "must be runs of different labels", names)
    if within_years is not None and max_risk is None:
        reject("within_years", "must come with max_risk", within_years)
    if within_years is not None and not any(p.target.is_age for p in predictors):
        reject("within_years", "must come with a model of ages", within_years)
    if max_risk is not None:
        how = {"num_samples": num_samples, "within_years": within_years}
        several = not all(p.target.is_number for p in predictors)
        for predictor in predictors:
            if not (several and predictor.target.is_number):
                predictor.threshold_nats(max_risk, **how)
    return predictors
