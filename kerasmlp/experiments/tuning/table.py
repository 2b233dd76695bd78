"""The trials of a search as rows, CSV, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from kerasmlp.experiments.tuning.plan import TuningPlan
from kerasmlp.experiments.tuning.space import rounded
from kerasmlp.utils.checks import reject


def rows_of(plan: TuningPlan, trials: Iterable) -> list[dict]:
    """One row per completed trial: where it stands in the search, its values, its loss.

    Args:
        plan: Of the search.
        trials: Completed ones of Keras Tuner.
    """
    rows = []
    for trial in sorted(trials, key=lambda t: int(t.trial_id)):
        values = trial.hyperparameters.values
        rows.append({
            "trial": int(trial.trial_id),
            "continues": int(values["tuner/trial_id"]) if "tuner/trial_id" in values else None,
            "bracket": values["tuner/bracket"],
            "round": values["tuner/round"],
            "first_epoch": values["tuner/initial_epoch"],
            "epochs": values["tuner/epochs"],
            **{name: rounded(values[name]) for name in plan.dimensions},
            "val_loss": trial.score,
            "seconds": trial.metrics.get_best_value("seconds"),
        })  # fmt: skip
    return rows


def best_of(plan: TuningPlan, rows: Sequence[dict]) -> dict:
    """The row of least loss among those trained to the end, or among all before there are any.

    Raises:
        InputError: if every trial diverged.
    """
    finite = [row for row in rows if math.isfinite(row["val_loss"])]
    whole = [row for row in finite if row["epochs"] == plan.max_epochs]
    if not finite:
        reject("--space", "must hold recipes that do not diverge on these data", plan.space)
    return min(whole or finite, key=lambda row: row["val_loss"])
