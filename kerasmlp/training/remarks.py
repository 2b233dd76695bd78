"""What a finished training should say of itself: sentences for people, from its report."""

from collections.abc import Mapping

import numpy as np

from kerasmlp.data.age_columns import count_clipped
from kerasmlp.data.duplicates.near_copies import NEAR_COSINE, REMEDY, NearCopies
from kerasmlp.data.examples import Examples
from kerasmlp.data.targets import in_groups
from kerasmlp.uncertainty.selective import binomial_cdf, upper_risk

FEW_ROWS = 100
"""With fewer rows kept back, a measure is told with what it may be off by."""

_LARGE_COLUMNS = 16
_ROWS_TRIED = 1000
_FEW_STEPS = 30
_CHANCE = 0.05


def majority_of(rows: Examples, part: Examples, probabilities: np.ndarray) -> dict:
    """Compares answers with the class that most of the rows trained on have.

    Returns:
        `class`, its `accuracy` on the rows kept back, `right` and `wrong` (the
        rows where only the model is right, and where only the majority is),
        and `beaten`: whether so many against so few are more than chance.
    """
    if rows.target.is_number:
        return _mean_of(rows, part, probabilities)
    rows, part = (some.by(in_groups(some.target)) for some in (rows, part))
    winner = int(np.bincount(rows.targets[rows.known]).argmax())
    model, always = ~part.wrong(probabilities), part.targets == winner
    right, wrong = int((model & ~always).sum()), int((always & ~model).sum())
    # as often right as wrong where they differ: how likely are so many right ones?
    chance = binomial_cdf(wrong, right + wrong, 0.5) if right + wrong else 1.0
    return {
        "class": part.target.measured_names[winner],
        "accuracy": float(always[part.known].mean()),
        "right": right,
        "wrong": wrong,
        "beaten": bool(right > wrong and chance <= _CHANCE),
    }


def _mean_of(rows: Examples, part: Examples, answers: np.ndarray) -> dict:
    """As `majority_of`, of a number: always answering the mean of the rows trained on."""
    mean = float(rows.targets[rows.known].mean())
    model, always = np.abs(part.targets - answers[:, 0]), np.abs(part.targets - mean)
    right, wrong = int((model < always).sum()), int((always < model).sum())
    chance = binomial_cdf(wrong, right + wrong, 0.5) if right + wrong else 1.0
    beaten = bool(right > wrong and chance <= _CHANCE)
    rmse = float(np.sqrt(np.mean(always**2)))
    return {"mean": mean, "rmse": rmse, "right": right, "wrong": wrong, "beaten": beaten}


def remarks(whole: Examples, report: dict) -> list[str]:
    """Returns the sentences that a report asks for, the gravest first."""
    found = []
    majority, rows = report["majority"], report["rows"]["validation"]
    accuracy, standardized = report["validation"].get("accuracy"), bool(report.get("columns"))
    if not majority["beaten"] and whole.target.is_number:
        found.append(
            f"not surely better than always answering {majority['mean']:.4g}, the mean of the "
            f"rows trained on, which is off by {majority['rmse']:.4g} (RMSE) in the rows kept "
            f"back: {_what_to_try(whole.inputs, rows, standardized=standardized)}"
        )
    elif not majority["beaten"]:
        found.append(
            f"not surely better than always answering {majority['class']!r}, the commonest class "
            f"trained on, which is right in {majority['accuracy']:.1%} of the rows kept back: "
            f"{_what_to_try(whole.inputs, rows, standardized=standardized)}"
        )
    if again := report["rows"].get("test_learned_from"):
        found.append(
            f"{again} of the {report['test']['rows']} rows held out as a test are among those "
            "learned from too, embedding for embedding, which flatters the test: --group keeps "
            "rows of one face on one side"
        )
    if rows < FEW_ROWS and accuracy is not None:
        low, high = _likely(accuracy, rows)
        found.append(
            f"only {rows} rows are kept back: an accuracy of {accuracy:.2f} on them may be "
            f"anything from {low:.2f} to {high:.2f} on others (95%); "
            "--validation-share keeps back more"
        )
    if rows < FEW_ROWS and whole.target.is_number:
        found.append(
            f"only {rows} rows are kept back: the standard deviations and intervals that they fit "
            "are rough; --validation-share keeps back more"
        )
    if coarse := _coarse_columns(whole.inputs):
        found.append(
            f"column {coarse[0]} of the rows (counted from 0)"
            f"{f' and {len(coarse) - 1} more' * (len(coarse) > 1)}: "
            "numbers so large against their deviation that float32 tells few of them apart: take "
            "what they have in common away before"
        )
    if clipped := whole.target.is_age and count_clipped(whole.years):
        found.append(f"{clipped} ages above 100 count as 100")
    return found


def remarks_on_copies(found: Mapping[str, NearCopies]) -> list[str]:
    """Returns the sentence that near-duplicates of rows held out ask for, if there are any.

    Args:
        found: Among the rows learned from, of the `validation` and perhaps of the `test`.

    Example:

    >>> remarks_on_copies({"validation": NearCopies(3, 90, 90), "test": NearCopies(0, 90, 90)})
    ['3 of the 90 rows kept back have a near-duplicate (cosine 0.95 or more) among those learned \
from, which flatters what is measured on them: `leaks --threshold 0.95 --write-groups` \
gives such rows one group, which no split divides']
    """
    words = {"validation": "kept back", "test": "held out as a test"}
    parts = [f"{copies} {words[name]}" for name, copies in found.items() if copies.rows]
    if not parts:
        return []
    near = f"have a near-duplicate (cosine {NEAR_COSINE:g} or more) among those learned from"
    return [f"{' and '.join(parts)} {near}, which flatters what is measured on them: {REMEDY}"]


def _coarse_columns(inputs: np.ndarray) -> list[int]:
    """Columns of which float32 keeps few steps to a standard deviation."""
    rows = np.linspace(0, len(inputs) - 1, _ROWS_TRIED).round().astype(int)
    some = inputs[rows].astype(np.float64)
    step = np.abs(some).max(axis=0) * np.finfo(np.float32).eps
    deviation = some.std(axis=0)
    return np.flatnonzero((deviation > 0) & (deviation < _FEW_STEPS * step)).tolist()


def _likely(accuracy: float, rows: int) -> tuple[float, float]:
    """The interval of Clopper and Pearson around an accuracy."""
    errors = round((1 - accuracy) * rows)
    return 1 - upper_risk(errors, rows, 0.975), upper_risk(rows - errors, rows, 0.975)


def _what_to_try(embeddings: np.ndarray, rows: int, *, standardized: bool) -> str:
    squares = np.square(embeddings[:_ROWS_TRIED], dtype=np.float64).sum(axis=0)
    largest = np.sort(squares)[::-1][:_LARGE_COLUMNS]
    wide = len(squares) > 4 * _LARGE_COLUMNS and not standardized
    if wide and largest.sum() > 0.9 * squares.sum():
        return (
            f"{_LARGE_COLUMNS} of {len(squares)} columns hold "
            f"{largest.sum() / squares.sum():.0%} of the squared length of the embeddings and "
            "drown the others: leave them out, or import the rows without --normalize, so that "
            "the model brings all columns to one scale"
        )
    more = "" if rows >= FEW_ROWS else "more rows, "
    return (
        f"see that the labels belong to the rows, then try {more}--init with a run on such "
        "embeddings, more --epochs, or --noise-std 0 --mixup-alpha 0"
    )
