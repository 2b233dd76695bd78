"""From the risk a user accepts to the entropy above which a run abstains."""

import os
from dataclasses import replace

import numpy as np

from kerasmlp.data.targets import Target
from kerasmlp.runs.calibration import RunCalibration
from kerasmlp.uncertainty.abstention import Abstention
from kerasmlp.utils.checks import reject, reject_file


def judged_target(target: Target, within_years: float | None) -> Target:
    """The target in the classes whose entropy decides on abstention: those of the head for years.

    Args:
        target: Of the answers.
        within_years: An age counts as right if it is at most so many years
            off; None, or a label that is no age: if the class is right.
    """
    if within_years is None or not target.is_age:
        return target
    return replace(target, classes=target.head)


def threshold_nats(
    path: str | os.PathLike,
    calibration: RunCalibration | None,
    target: Target,
    older_classes: str | None,
    max_risk: float,
    *,
    num_samples: int,
    within_years: float | None = None,
) -> float:
    """As `Predictor.threshold_nats`; older versions counted errors in `older_classes`."""
    abstention, absent = abstention_of(calibration, target, older_classes, within_years)
    if abstention is None:
        reject_file(path, "must hold what abstaining by max_risk needs", absent)
    if num_samples < calibration.num_samples:
        minimum = calibration.num_samples
        reject("num_samples", f"must be at least {minimum} with max_risk", num_samples)
    threshold = abstention.threshold(max_risk)
    if threshold is None:
        lowest = np.ceil(abstention.lowest_risk() * 1e4) / 1e4
        requirement = (
            f"must be at least {lowest:.4f}, the lowest that {path} can promise "
            f"after its {abstention.rows[-1]} rows kept back"
        )
        reject("max_risk", requirement, max_risk)
    return threshold


def abstention_of(
    calibration: RunCalibration | None,
    target: Target,
    older_classes: str | None,
    within_years: float | None,
) -> tuple[Abstention | None, str]:
    """The counts behind thresholds, or None and what is absent; as in `threshold_nats`."""
    if calibration is None:
        return None, "no calibration.json: trained with calibrate=false or by an older version"
    if calibration.abstention is None:
        return None, "a model without dropout or members"
    if within_years is not None and target.is_age:
        if calibration.year_errors is None:
            return None, "no ages in years among the rows kept back, or a run of an older version"
        return calibration.year_errors.within(within_years), ""
    counted = calibration.abstention_classes or older_classes
    if counted != target.classes:
        return None, f"errors counted in {counted} by an older version: train it again"
    return calibration.abstention, ""
