from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kerasmlp.data.labels import NUM_YEARS, age_classes
from kerasmlp.data.targets import Target
from kerasmlp.runs.conformal_groups import (
    CLUSTERS,
    SET,
    SET_SCORE,
    YEARS,
    ConformalGroups,
    groups_schema,
)
from kerasmlp.uncertainty.abstention import MAX_POINTS, Abstention
from kerasmlp.uncertainty.conformal import grown_interval_years
from kerasmlp.uncertainty.measures import age_interval_years, entropy_nats
from kerasmlp.uncertainty.year_errors import MAX_ROWS, YearErrors
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.files import read_json, write_json
from kerasmlp.utils.schema import (
    TEMPERATURE,
    check_object,
    dict_of,
    fields,
    list_of,
    made_by,
    number,
    one_of,
    optional,
    whole,
)

FORMAT = "kerasmlp.calibration"
HEADS = "kerasmlp.calibrations"
"""Of the file where a run has several heads."""
COVERAGES = (50, 90)
"""Of the age intervals, in percent."""
SET_COVERAGE = 90
"""Of the sets of classes."""
_MOST_NATS = 20.0
_MOST_ROWS = 10**12
_COUNTS = list_of(whole(0, _MOST_ROWS), MAX_POINTS)
_SCHEMA = {
    "format": one_of(FORMAT),
    "rows": whole(0, _MOST_ROWS),
    "num_samples": whole(0, 100_000),
    "offsets_years": dict_of(fields(YEARS)),
    "abstention": optional(
        fields({
            "thresholds": list_of(number(-1e-3, _MOST_NATS), MAX_POINTS),
            "rows": _COUNTS,
            "errors": _COUNTS,
        })
    ),
    "mc_temperature": TEMPERATURE,
    "abstention_classes": optional(made_by(age_classes, "the name of age classes")),
    "year_errors": optional(
        fields({
            "entropy_nats": list_of(number(-1e-3, _MOST_NATS), MAX_ROWS),
            "error_years": list_of(number(0, NUM_YEARS), MAX_ROWS),
        })
    ),
    "set_thresholds": optional(dict_of(SET_SCORE)),
    "groups": groups_schema({**YEARS, SET: SET_SCORE}),
    "clusters": CLUSTERS,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunCalibration:
    """What a run learned on the rows kept back, beside its weights; `calibration.json`.

    The same rows chose the temperatures and, with `patience`, the epoch. That is
    a handful of numbers for hundreds of rows, but strictly speaking the rows
    are then no longer unseen: measure on other ones with `evaluate`.

    Attributes:
        rows: Rows kept back.
        num_samples: Stochastic passes of the mean that was calibrated; 0 where
            the model has no dropout.
        offsets_years: By which the central intervals of the predicted age
            grow: model (`deterministic`, `mc_mean`) to percent to years; empty
            where the rows hold no years or too few.
        abstention: Of the entropies of the mean in the measured classes (see
            `class_entropy_nats`), or None.
        mc_temperature: By which the logits of every stochastic pass are
            divided, beside the temperature that is in the head's weights.
        abstention_classes: Age classes in which the errors of `abstention`
            were counted; None of other labels, and of older versions, which
            counted in the classes of the run, single years among them.
        year_errors: Of the mean, where the rows kept back hold years, or None.
        set_thresholds: Of sets that hold the class in 90% of rows, in the classes in which a
            run answers: model to score (see `set_scores`); None of older versions.
        groups: Of offsets and thresholds of groups of rows, or None.
        clusters: Of the rows kept back, those of one `group` counted once: so many of them are
            draws of their own. None of older versions.

    Example:

    >>> import tempfile
    >>> abstention = Abstention([0.1, 0.6], [50, 60], [0, 5])
    >>> whole = RunCalibration(
    ...     rows=60, num_samples=64, offsets_years={}, abstention=abstention, mc_temperature=0.9
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     whole.save(f"{folder}/calibration.json")
    ...     whole == RunCalibration.open(f"{folder}/calibration.json")
    True
    """

    rows: int
    num_samples: int
    offsets_years: Mapping[str, Mapping[str, float]]
    abstention: Abstention | None
    mc_temperature: float
    abstention_classes: str | None = None
    year_errors: YearErrors | None = None
    set_thresholds: Mapping[str, float] | None = None
    groups: ConformalGroups | None = None
    clusters: int | None = None

    def to_json(self) -> dict:
        return {"format": FORMAT, **asdict(self)}

    def save(self, path: str | os.PathLike) -> None:
        write_json(path, self.to_json())

    @classmethod
    def open(cls, path: str | os.PathLike, target: Target | None = None) -> RunCalibration:
        """Reads what `save` wrote.

        Args:
            target: Of the model, whose classes bound the entropies.

        Raises:
            InputError: naming the file, if it is something else.
        """
        return cls.from_json(path, read_json(path), target)

    @classmethod
    def from_json(
        cls, path: str | os.PathLike, value: Any, target: Target | None
    ) -> RunCalibration:
        """As `open`, of what was read already."""
        what = "the calibration of a run"
        config = check_object(path, value, _SCHEMA, what)
        if unknown := sorted(set(config) - set(_SCHEMA)):
            reject_file(path, f"must be {what} by this version", f"one with {unknown[0]!r}"[:100])
        known = {name: config.get(name) for name in cls.__dataclass_fields__}
        if (columns := known["abstention"]) is not None:
            known["abstention"] = _made(Abstention, path, columns, what)
            if known["num_samples"] < 1:
                reject_file(path, f"must be {what}", "thresholds of no passes")
            classes = target and len(target.measured_names)
            if known["abstention_classes"] is not None:
                classes = age_classes(known["abstention_classes"]).num_classes
            highest, rows = columns["thresholds"][-1], columns["rows"][-1]
            _check_limits(path, what, highest, classes, rows, known["rows"])
        if (columns := known["year_errors"]) is not None:
            known["year_errors"] = _made(YearErrors, path, columns, what)
            highest, rows = max(columns["entropy_nats"]), len(columns["error_years"])
            _check_limits(path, what, highest, target and target.num_classes, rows, known["rows"])
        if known["groups"] is not None:
            known["groups"] = ConformalGroups.from_json(path, known["groups"], what, known["rows"])
        return cls(**known)

    def limits(self, model: str) -> dict[str, float]:
        """Offsets and threshold of `deterministic` or `mc_mean`, of all rows, by name."""
        threshold = (self.set_thresholds or {}).get(model)
        found = dict(self.offsets_years.get(model, {}))
        return found | ({} if threshold is None else {SET: threshold})


def _check_limits(
    path: str | os.PathLike, what: str, entropy: float, classes: int | None, counted: int, rows: int
) -> None:
    """Rejects more rows than were kept back, and an entropy above that of so many classes."""
    if counted > rows:
        requirement = f"must be {what} that counts no more rows than it has"
        reject_file(path, requirement, f"{counted} rows of {rows}")
    highest = math.log(classes) if classes else _MOST_NATS
    if entropy > highest + 1e-3:
        requirement = f"must be {what} with entropies up to {highest:.4f}"
        reject_file(path, requirement, f"{entropy:g}")


def _made(kind: type, path: str | os.PathLike, columns: dict, what: str) -> Any:
    try:
        return kind(**{name: columns[name] for name in kind.__dataclass_fields__})
    except InputError as error:
        reject_file(path, f"must be {what}", f"{error}")


def age_intervals(
    target: Target,
    probabilities: np.ndarray,
    offsets_years: Mapping[str, float | np.ndarray] | None,
) -> dict[int, np.ndarray]:
    """Intervals of age by percent, each `(rows, 2)`, in fractional years.

    Args:
        target: With ages.
        probabilities: Of its head.
        offsets_years: By percent, of a `RunCalibration`, or of each row; None leaves
            the central intervals of the predictive distribution as they are.
    """
    years = np.asarray(target.head_ages.year_to_class)
    offsets = offsets_years or dict.fromkeys(map(str, COVERAGES), 0.0)
    intervals = {
        c: grown_interval_years(age_interval_years(probabilities, years, c / 100), offsets[str(c)])
        for c in COVERAGES
    }
    # Each offset was fitted alone: the wider interval must still hold the other.
    inner, outer = (intervals[c] for c in COVERAGES)
    low, high = np.minimum(outer, inner)[:, 0], np.maximum(outer, inner)[:, 1]
    intervals[COVERAGES[1]] = np.stack([low, high], axis=1)
    return intervals


def class_entropy_nats(target: Target, probabilities: np.ndarray) -> np.ndarray:
    """Entropy of the classes in which a model is right or wrong, `(rows,)`.

    A head of years that is measured in groups may waver between two years of
    one group and be sure of the group: to abstain by the entropy of years
    would refuse the wrong rows.
    """
    return entropy_nats(target.measured(probabilities))
