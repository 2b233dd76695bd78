"""Whether what a run promises holds in rows with labels, and what moved rows mean for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.labels import NUM_YEARS
from kerasmlp.runs.calibration import class_entropy_nats
from kerasmlp.runs.conformal_groups import SET, group_names, share_of_draws
from kerasmlp.runs.moved import FALSE_ALARMS, MIN_ROWS, NO_PROMISE, Moved, look_for_move, shown_p
from kerasmlp.runs.predictor import Predictor
from kerasmlp.runs.risk import abstention_of
from kerasmlp.uncertainty.kept_promises import chance_of_coverage, chance_of_risk
from kerasmlp.uncertainty.year_errors import MAX_ROWS

_COVERAGE = 0.9
_INTERVAL = "interval_90"
_RISKS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""The lowest that a run can promise is looked at."""


@dataclass(frozen=True)
class Kept:
    """One promise, and what rows with labels say of it.

    Attributes:
        name: `interval_90`, `set_90` or `risk`.
        promised: Share of rows, at least; of a risk at most.
        observed: Share of rows.
        rows: To which it was made.
        p: How likely what was observed, or worse, is where the promise is kept.
    """

    name: str
    promised: float
    observed: float
    rows: int
    p: float

    @property
    def said(self) -> str:
        if self.name == "risk":
            return f"of answers at a risk of {self.promised:.0%} {self.observed:.1%} are wrong"
        what = "intervals" if self.name == _INTERVAL else "sets"
        return f"{self.promised:.0%} {what} hold {self.observed:.1%}"


def moved_and_promises(
    predictor: Predictor, rows: Examples, models: Mapping[str, np.ndarray], passes: int, seed: int
) -> dict:
    """What a report says of moved rows and of promises, with the sentence for people.

    Args:
        predictor: Of the head.
        rows: With the label.
        models: `deterministic` and perhaps `mc_mean` to answers.
        passes: Of the mean.
        seed: Draws the rows.
    """
    given = {predictor.label: models["deterministic"]}
    moved = look_for_move([predictor], rows.inputs, rows.labels, seed=seed, deterministic=given)
    name = "mc_mean" if "mc_mean" in models else "deterministic"
    kept: list[Kept] = []
    if len(moved.rows) and predictor.calibration is not None:
        kept = list(_kept(predictor, rows.subset(moved.rows), models[name][moved.rows], passes))
    broken = [one for one in kept if one.p < FALSE_ALARMS / len(kept)]
    return moved.to_json() | {
        "promises": {one.name: vars(one) for one in kept},
        "promises_kept": not broken if broken or (kept and not _few(moved)) else None,
        "sentence": _sentence(moved, kept, broken),
    }


def _sentence(moved: Moved, kept: Sequence[Kept], broken: Sequence[Kept]) -> str:
    if not kept:
        return f"{moved.sentence}; {NO_PROMISE}" if moved.noticed else moved.sentence
    if broken:
        said = ", ".join(f"{one.said} ({shown_p(one.p)})" for one in broken)
        return f"{moved.sentence}; what the run promises does not hold: {said}"
    said = ", ".join(one.said for one in kept)
    if moved.noticed:
        return f"{moved.sentence}; {NO_PROMISE}; here {said}"
    if _few(moved):
        return f"{moved.sentence}; so few say little of what it promises: {said}"
    return f"{moved.sentence}, and what it promises holds: {said}"


def _few(moved: Moved) -> bool:
    return len(moved.rows) < MIN_ROWS


def _kept(predictor: Predictor, rows: Examples, answers: np.ndarray, passes: int) -> Iterator[Kept]:
    how = {"sampled": passes > 0, "columns": rows.labels}
    hits, known = _in_intervals(predictor, rows, answers, how)
    yield from _coverage(predictor, rows, answers, passes, "90", hits, known)
    if not rows.target.is_number and rows.target.classes == predictor.target.classes:
        sets = predictor.sets(answers, **how)
        if sets is not None:
            inside = sets[np.arange(len(rows)), rows.targets]
            every = np.ones(len(rows), bool)
            yield from _coverage(predictor, rows, answers, passes, SET, inside, every)
        yield from _risk(predictor, rows, answers, passes)


def _in_intervals(predictor: Predictor, rows: Examples, answers: np.ndarray, how: dict):
    """Which rows lie in their 90% interval, and of which that is known and promised."""
    calibration, nobody = predictor.calibration, np.zeros(len(rows), bool)
    if rows.target.is_number:
        truth, known = rows.targets, rows.known
    elif rows.target.is_age and calibration.offsets_years:
        truth = np.minimum(rows.years, NUM_YEARS - 1)
        known, errors = np.isfinite(truth), calibration.year_errors
        counted = None if errors is None else len(errors.error_years)
        if counted is not None and counted < min(
            calibration.clusters or calibration.rows, MAX_ROWS
        ):
            known = nobody  # fitted on some of the rows kept back: nobody knows on how many
    else:
        return nobody, nobody
    low, high = predictor.intervals(answers, **how)[90].T
    return (truth >= low) & (truth <= high), known


def _coverage(
    predictor: Predictor,
    rows: Examples,
    answers: np.ndarray,
    passes: int,
    limit: str,
    hits: np.ndarray,
    known: np.ndarray,
) -> Iterator[Kept]:
    """What the rows say to whose group, or to all of which, a limit promises its coverage."""
    calibration, model = predictor.calibration, "mc_mean" if passes else "deterministic"
    if limit not in calibration.limits(model):
        return
    parts = [(known, calibration.rows)]
    groups = calibration.groups
    if groups is not None:
        names = group_names(groups.by, predictor.target, answers, rows.labels)
        if names is not None:
            parts = [
                (known & np.all([a == b for a, b in zip(names, g.group, strict=True)], 0), g.rows)
                for g in groups.models.get(model) or ()
                if limit in g.limits and g.group  # rows of no group are promised it together
            ]
    share = share_of_draws(calibration.rows, calibration.clusters)
    counts = [(int(chosen.sum()), round(n * share)) for chosen, n in parts]
    promised = np.any([chosen for chosen, _ in parts], axis=0) if parts else np.zeros(0, bool)
    p = chance_of_coverage(int(hits[promised].sum()) if parts else 0, counts, _COVERAGE)
    if p is not None:
        name = _INTERVAL if limit == "90" else limit
        observed = float(hits[promised].mean())
        yield Kept(name, _COVERAGE, observed, int(promised.sum()), p)


def _risk(predictor: Predictor, rows: Examples, answers: np.ndarray, passes: int) -> Iterator[Kept]:
    """What the answers say that a threshold lets through."""
    calibration, older = predictor.calibration, predictor.trained.classes
    abstention, _ = abstention_of(calibration, predictor.target, older, None)
    if abstention is None or passes < calibration.num_samples:
        return
    found = ((risk, abstention.threshold(risk)) for risk in _RISKS)
    risk, threshold = next(((r, t) for r, t in found if t is not None), (None, None))
    if threshold is None:
        return
    answered = class_entropy_nats(predictor.target, answers) <= threshold
    if count := int(answered.sum()):
        errors = int(rows.wrong(answers)[answered].sum())
        yield Kept("risk", risk, errors / count, count, chance_of_risk(errors, count, risk))
