"""The pictures of an evaluation."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.evaluation.by_column import chief_measure
from kerasmlp.evaluation.number_measuring import STDS
from kerasmlp.runs.calibration import class_entropy_nats
from kerasmlp.runs.evaluation_folder import picture_of
from kerasmlp.uncertainty.measures import UNCERTAINTIES
from kerasmlp.uncertainty.selective import risk_coverage
from kerasmlp.utils.drawing import drawing

LEVELS = tuple(range(10, 100, 10))
"""Nominal coverages of central intervals, in percent."""


def measures_of(values: Mapping[str, np.ndarray]) -> list[str]:
    """Those of uncertainty that are there, in the order in which they are drawn."""
    of_models = ("deterministic_entropy_nats", "deterministic_std")
    return [k for k in (*UNCERTAINTIES, *STDS, *of_models) if k in values]


def draw_evaluation(
    folder: Path,
    rows: Examples,
    models: Mapping[str, np.ndarray],
    bins: Mapping[str, dict],
    report: dict,
    drawn: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Draws what `evaluate` has measured, a PNG per question.

    Args:
        folder: To write into.
        rows: With labels, all known.
        models: Answers of each model.
        bins: Of the reliability of classes.
        report: What was measured.
        drawn: Measures of uncertainty by source.
    """
    from kerasmlp.evaluation import figures as plots
    from kerasmlp.evaluation.forest import forest

    for column, groups in report.get("by", {}).items():
        if any(group["rows"] for group in groups.values()):
            measure, gaps = chief_measure(groups), report["gaps"][column].get("deterministic", {})
            overall = report["deterministic"][measure]
            with drawing(folder / picture_of(column)) as path:
                forest(column, groups, measure, overall, gaps.get(measure), path)
    if rows.target.is_number:
        last = list(models)[-1]
        with drawing(folder / "predicted.png") as path:
            plots.predicted(rows.targets, models[last], rows.target.measured_in, path)
    else:
        _draw_classes(folder, rows, models, bins, report)
    if "central_intervals" in report:
        observed = {k: report["central_intervals"][k] for k in models}
        conformal = {
            k: {c: report[k][f"interval_{c}_coverage"] for c in (50, 90)} for k in models
        } if report["conformal"] else {}  # fmt: skip
        with drawing(folder / "intervals.png") as path:
            plots.intervals(LEVELS, observed, conformal, rows.target.is_number, path)
    if "ood_auroc" in report:
        values = {k: {s: drawn[s][k] for s in drawn} for k in measures_of(drawn["store"])}
        with drawing(folder / "uncertainty.png") as path:
            plots.uncertainty(values, report["ood_auroc"], path)


def _draw_classes(folder, rows: Examples, models, bins, report) -> None:
    from kerasmlp.evaluation import figures as plots

    with drawing(folder / "reliability.png") as path:
        plots.reliability(bins, {k: report[k]["ece"] for k in bins}, path)
    curves = {
        k: risk_coverage(rows.wrong(p), class_entropy_nats(rows.target, p))
        for k, p in models.items()
    }
    wrong = rows.wrong(models[list(models)[-1]])
    oracle = risk_coverage(wrong, wrong)
    with drawing(folder / "risk_coverage.png") as path:
        plots.risk_coverage(curves, oracle, path)
