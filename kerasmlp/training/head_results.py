"""What came of one head of a finished training: its measures, and what rows kept back fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from kerasmlp.callbacks.validation import forward
from kerasmlp.data.examples import Examples
from kerasmlp.data.joined_labels import doubts_of_joined
from kerasmlp.data.splits import group_codes
from kerasmlp.evaluation.measuring import measure, measure_files, measure_groups
from kerasmlp.runs.calibration import HEADS
from kerasmlp.training.calibrating import (
    MIN_SPREAD_ROWS,
    MIN_TEMPERATURE_ROWS,
    MOST_CALIBRATION_ROWS,
    calibrate,
    calibrate_answers,
    calibrate_numbers,
)
from kerasmlp.training.heads import Heads, LearningHead
from kerasmlp.training.remarks import majority_of, remarks
from kerasmlp.uncertainty.numbers import fit_floor
from kerasmlp.uncertainty.sampler import Sampler


@dataclass(frozen=True)
class HeadResult:
    """One head of a finished model.

    Attributes:
        report: What `report.json` says of it.
        part: Rows kept back that have its label.
        answers: Of the deterministic model on them.
        calibration: Of the run, or None.
    """

    report: dict[str, Any]
    part: Examples
    answers: np.ndarray
    calibration: Any


def head_result(
    head: LearningHead,
    model: keras.Model,
    sampler: Sampler | None,
    outputs: Callable[[np.ndarray], np.ndarray],
    *,
    calibrated: bool,
    conformal_by: Sequence[str] = (),
    group: str | None = None,
) -> HeadResult:
    """Measures a head of a finished model, and fits what comes after its weights.

    Args:
        head: Of the training.
        model: In float32; the head's layers change.
        sampler: Of the model; None without dropout.
        outputs: From embeddings to what the head answers.
        calibrated: Fit a temperature, intervals and abstention.
        conformal_by: As of a `Recipe`.
        group: Column of rows that are no draws of their own, as of `Examples.groups`.
    """
    rows = head.rows
    part = rows.part.subset(rows.part.known)
    answers = outputs(part.inputs)
    measured = before = measure(part, answers)
    fitted, calibration = {"temperature": 1.0}, None
    if calibrated and (head.target.is_number or len(part) >= MIN_TEMPERATURE_ROWS):
        fitted |= _fit(head, model, part, answers)
        adjust(head, model, fitted)
        answers = outputs(part.inputs)
        measured = measure(part, answers)
    report = {
        "validation": measured,
        "validation_groups": measure_groups(part, answers),
        "majority": majority_of(rows.training, part, answers),
        "before_temperature": {k: before[k] for k in ("nll", "ece") if k in before},
        **fitted,
    }
    report |= _of_files("validation", part, answers)
    if calibrated:
        some = np.arange(len(part))
        if len(part) > MOST_CALIBRATION_ROWS:
            some = some[:: -(-len(part) // MOST_CALIBRATION_ROWS)]
        fitting = part.subset(some)
        what = (sampler, fitting, answers[some], head.name, conformal_by)
        if head.target.is_number:
            calibration = calibrate_numbers(*what)
        else:
            calibration = calibrate_answers(*what, head.mc_temperature, group)
        clusters = len(np.unique(group_codes(fitting.groups(group))))
        calibration = replace(calibration, clusters=clusters)
    return HeadResult(report, part, answers, calibration)


def head_results(
    heads: Heads,
    model: keras.Model,
    joined: keras.Model,
    sampler: Sampler | None,
    *,
    calibrated: bool,
    conformal_by: Sequence[str],
    group: str | None,
    xla: bool,
) -> list[HeadResult]:
    """What came of every head; the model is brought to the units of its labels.

    Args:
        heads: Of the training.
        model: In float32, an output per head.
        joined: The same with its heads side by side.
        sampler: Of the model; None without dropout.
        calibrated: As of `head_result`.
        conformal_by: As of a `Recipe`.
        group: As of `head_result`.
        xla: As of `forward`.
    """
    results = []
    for head, columns in zip(heads.heads, heads.columns, strict=True):
        if head.target.is_number:
            head.finish(model)

        outputs = _outputs(joined, columns, xla=xla)
        how = {"calibrated": calibrated, "conformal_by": conformal_by, "group": group}
        results.append(head_result(head, model, sampler, outputs, **how))
    return results


def tested_heads(heads: Heads, joined: keras.Model, *, xla: bool) -> list[dict[str, dict]]:
    """Measures of each head of the finished model on the rows trained on, and on the test."""
    found = []
    for head, columns in zip(heads.heads, heads.columns, strict=True):
        outputs = _outputs(joined, columns, xla=xla)
        parts = {"training": head.rows.training, "test": head.rows.test}
        measured: dict[str, dict] = {}
        for name, rows in parts.items():
            known = rows.subset(rows.known)
            answers = outputs(known.inputs)
            measured |= {name: measure(known, answers)}
            measured |= _of_files(name, known, answers) if name == "test" else {}
        found.append(measured)
    return found


def _of_files(name: str, rows: Examples, answers: np.ndarray) -> dict[str, dict]:
    """What a report says of a part of the rows by the files of a joined store."""
    measured = measure_files(rows, answers)
    return {f"{name}_by_store": measured} if measured else {}


def _outputs(joined: keras.Model, columns: slice, *, xla: bool) -> Callable:
    return lambda x: forward(joined, x, xla=xla)[:, columns]


def adjust(head: LearningHead, model: keras.Model, fitted: dict[str, Any]) -> None:
    """Has the last layer of a head answer as rows kept back say.

    Args:
        head: Of the training.
        model: In float32, fresh from it.
        fitted: A `temperature`, and the `spread` of a number.
    """
    if head.target.is_number:
        spread = fitted.get("spread", {"factor": 1.0, "floor": 0.0})
        head.finish(model, spread=spread["factor"], floor=spread["floor"] / head.scale)
        return
    logits = head.layer(model, "logits")
    logits.set_weights([w / fitted["temperature"] for w in logits.get_weights()])


def report_of(results: list[HeadResult]) -> dict[str, Any]:
    """What a report says of its heads: of one as it is, of several by their names."""
    if len(results) == 1:
        return results[0].report
    by_name = {result.part.target.name: result.report for result in results}
    report: dict[str, Any] = {"heads": by_name, "validation_groups": []}
    for part in ("validation", "training", "test", "agreement", "teacher"):
        found = {name: one[part] for name, one in by_name.items() if part in one}
        flat = {f"{name}_{k}": v for name, one in found.items() for k, v in one.items()}
        report |= {part: flat} if flat else {}
    return report


def notes_of(wholes: list[Examples], results: list[HeadResult], report: dict) -> list[str]:
    """The sentences of `remarks`, of several heads under their labels."""
    notes = doubts_of_joined(wholes[0], [whole.target for whole in wholes])
    for whole, result in zip(wholes, results, strict=True):
        several = f"{whole.target.label}: " * (len(results) > 1)
        rows = report["rows"] | {"validation": len(result.part)}
        told = result.report | {"rows": rows, "columns": report["columns"]}
        notes += [several + note for note in _notes_of_groups(result.calibration)]
        notes += [several + note for note in remarks(whole, told)]
    return notes


def _notes_of_groups(calibration: Any) -> list[str]:
    """Which groups of columns have limits of their own."""
    groups = calibration.groups if calibration else None
    if groups is None or not groups.columns:
        return []
    each = next(iter(groups.models.values()), ())
    own = [", ".join(one.group) for one in each if one.group]
    others = sum(one.rows for one in each if not one.group)
    named = "; ".join(own[:20]) + "; …" * (len(own) > 20) if own else "none"
    left = f" ({others} rows kept back are in smaller ones)" if others else ""
    return [f"groups of {', '.join(groups.by)} with intervals and sets of their own: {named}{left}"]


def calibrations_of(results: list[HeadResult]) -> dict:
    """What `calibration.json` holds."""
    if len(results) == 1:
        return results[0].calibration.to_json()
    heads = {result.part.target.label: result.calibration.to_json() for result in results}
    return {"format": HEADS, "heads": heads}


def _fit(head: LearningHead, model: keras.Model, part: Examples, answers: np.ndarray) -> dict:
    """What rows kept back say of the head's last layer, as a report has it."""
    if not head.target.is_number:
        return {"temperature": calibrate(model, part, head.layer(model, "logits"))}
    mean = np.asarray(answers, np.float64)[:, 0]
    factor, floor = 1.0, float(np.sqrt(np.mean((part.targets - mean) ** 2)))
    if len(part) >= MIN_SPREAD_ROWS:  # of fewer what they are off by comes on top
        means, stds = _of_members(model, head.layer(model, "gaussian"), part.inputs)
        own, fixed = (stds**2).mean(axis=1), means.var(axis=1)
        factor, floor = fit_floor(part.targets, mean, own, fixed)
    return {"spread": {"factor": factor, "floor": floor}}


def _of_members(model: keras.Model, head: keras.layers.Layer, x: np.ndarray):
    """Means and standard deviations of a head of numbers, `(rows, members)`."""
    raw = forward(keras.Model(model.input, head.input), x)
    each = keras.ops.convert_to_numpy(head(raw, apart=True))
    return np.moveaxis(np.float64(each), 2, 0)
