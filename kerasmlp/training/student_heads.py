"""The heads of a student: what the teacher answers is what they learn, and are measured by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from kerasmlp.evaluation.agreement import agreement
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.calibration import RunCalibration
from kerasmlp.runs.number_calibration import NumberCalibration
from kerasmlp.training.calibrating import (
    CALIBRATION_SAMPLES,
    MIN_TEMPERATURE_ROWS,
    empty_calibration,
)
from kerasmlp.training.heads import Heads, LearningHead
from kerasmlp.training.losses import GaussianCrossentropy, recipe_loss
from kerasmlp.training.rows import HeadRows
from kerasmlp.training.student_rows import StudentRows
from kerasmlp.training.teacher import Teacher
from kerasmlp.uncertainty.numbers import fit_spread, number_measures
from kerasmlp.uncertainty.sampler import Sampler
from kerasmlp.uncertainty.samples import predict_samples, predict_uncertainty
from kerasmlp.uncertainty.temperature import fit_temperature, logits_of

_SOME_ROWS = 1024
"""Of those kept back, to fit a temperature of passes on."""


class StudentHead(LearningHead):
    """One head: it answers in the unit of the teacher's, whose answers are its targets.

    Args:
        rows: As the head sees them.
        recipe: Hyperparameters.
        name: Of several heads, that of this one; else None.
        unit: Center and scale of numbers.
        targets: Answers of the teacher to all rows kept back.
    """

    targets = np.empty(0)
    counted = slice(None)

    def __init__(
        self,
        rows: HeadRows,
        recipe: Recipe,
        name: str | None,
        unit: tuple[float, float],
        targets: np.ndarray,
    ):
        self.rows, self.target, self.name, self.targets = rows, rows.part.target, name, targets
        self.center, self.scale = unit
        self.loss: keras.losses.Loss = GaussianCrossentropy()
        if not self.target.is_number:
            self.loss = recipe_loss(recipe, ordered=self.target.is_age)


class StudentHeads(Heads):
    """All heads of a student; losses are summed by the rule of labels, of the teacher's answers.

    Args:
        rows: Of the training.
        recipe: Hyperparameters.
        teacher: To be learned from.
    """

    def __init__(self, rows: StudentRows, recipe: Recipe, teacher: Teacher):
        outputs = teacher.outputs(rows.kept_back)
        by_label, start = {}, 0
        for label in sorted(teacher.targets):  # as the model has them
            size = teacher.targets[label].num_outputs
            by_label[label] = outputs[:, start : start + size]
            start += size

        def make(head: HeadRows, recipe: Recipe, name: str | None) -> StudentHead:
            label = head.part.target.label
            unit = teacher.units.get(label, (0.0, 1.0))
            return StudentHead(head, recipe, name, unit, by_label[label])

        super().__init__(rows, recipe, make)

    @property
    def targets(self) -> np.ndarray:
        """Answers of the teacher to all rows kept back."""
        return np.concatenate([head.targets for head in self.heads], axis=1)

    def validation(self, outputs: np.ndarray) -> dict[str, float]:
        """How near outputs come to the teacher's, and the weighted divergence."""
        each = self.agreement(outputs)
        weighed = zip(self._weights, each, strict=True)
        loss = sum(w * one["kl_nats"] for w, one in weighed)
        found = [{k: v for k, v in one.items() if k != "rows"} for one in each]
        return {"loss": loss} | self._named(found)

    def agreement(self, outputs: np.ndarray) -> list[dict[str, float]]:
        """Of each head with the teacher, from outputs for all rows kept back."""
        answers = zip(self.heads, self.answers(self.targets), self.answers(outputs), strict=True)
        return [agreement(head.target, expected, own) for head, expected, own in answers]


def taken_over(
    calibration: RunCalibration | NumberCalibration | None, head: StudentHead,
    sampler: Sampler | None, rows: np.ndarray,
) -> RunCalibration | NumberCalibration:  # fmt: skip
    """What a teacher knows beside its weights, for a student that answers as it does.

    The temperature of the student's passes is new: that by which their mean comes nearest to
    the teacher's answers, since it has a dropout of its own.

    Args:
        calibration: Of the teacher, or None.
        head: Of the student.
        sampler: Of the student; None without dropout.
        rows: All that are kept back.
    """
    number = head.target.is_number
    calibration = calibration or empty_calibration(number=number)
    if sampler is not None:
        return replace(calibration, mc_temperature=_mc_temperature(head, sampler, rows))
    name = "quantiles" if number else "offsets_years"
    kept = _deterministic(getattr(calibration, name))
    none = {} if number else dict.fromkeys(("abstention", "abstention_classes", "year_errors"))
    if not number and calibration.set_thresholds:
        none["set_thresholds"] = _deterministic(calibration.set_thresholds)
    if (groups := calibration.groups) is not None:
        none["groups"] = replace(groups, models=_deterministic(groups.models))
    return replace(calibration, num_samples=0, mc_temperature=1.0, **{name: kept}, **none)


def _deterministic(of_models: Mapping[str, Any]) -> dict[str, Any]:
    return {model: value for model, value in of_models.items() if model == "deterministic"}


def _mc_temperature(head: StudentHead, sampler: Sampler, rows: np.ndarray) -> float:
    if len(rows) < MIN_TEMPERATURE_ROWS:
        return 1.0
    chosen = np.unique(np.linspace(0, len(rows) - 1, _SOME_ROWS).round().astype(int))
    expected, how = head.in_unit(head.targets[chosen]), {"num_samples": CALIBRATION_SAMPLES}
    if head.target.is_number:
        found = predict_uncertainty(sampler, rows[chosen], **how)
        moments = number_measures(found if head.name is None else found[head.name])
        mean, std = expected.T
        off = np.sqrt(std**2 + (mean - moments["mean"]) ** 2)  # as far as the label is, expectedly
        variances = moments["aleatoric_variance"], moments["epistemic_variance"]
        return fit_spread(moments["mean"] + off, moments["mean"], *variances)
    samples = predict_samples(sampler, rows[chosen], **how)
    measured = head.target.measured(expected)

    def loss(scaled: np.ndarray) -> float:
        mean = head.target.measured(scaled.mean(axis=0))
        return float(-(measured * np.log(np.maximum(mean, 1e-12))).sum(axis=1).mean())

    samples = samples if head.name is None else samples[head.name]
    return fit_temperature(logits_of(samples), loss, tolerance=1e-2)
