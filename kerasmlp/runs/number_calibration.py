"""What a run that answers with numbers learned on the rows kept back, beside its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kerasmlp.runs.conformal_groups import (
    CLUSTERS,
    PREDICTED,
    STDS,
    ConformalGroups,
    groups_schema,
)
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.schema import TEMPERATURE, check_object, dict_of, fields, one_of, whole

FORMAT = "kerasmlp.number-calibration"
_SCHEMA = {
    "format": one_of(FORMAT),
    "rows": whole(0, 10**12),
    "num_samples": whole(0, 100_000),
    "mc_temperature": TEMPERATURE,
    "quantiles": dict_of(fields(STDS)),
    "groups": groups_schema(STDS),
    "clusters": CLUSTERS,
}


@dataclass(frozen=True, kw_only=True)
class NumberCalibration:
    """Of numbers, as `RunCalibration` of classes and ages.

    Attributes:
        rows: Rows kept back.
        num_samples: Stochastic passes of the mean that was calibrated; 0 without dropout.
        mc_temperature: Factor on the standard deviation that every stochastic pass predicts.
        quantiles: Model (`deterministic`, `mc_mean`) to percent to how many predicted
            standard deviations an interval reaches to each side, split-conformal; empty
            where there are too few rows.
        groups: Of quantiles of groups of rows, or None.
        clusters: As of a `RunCalibration`.

    Example:

    >>> whole = NumberCalibration(rows=9, num_samples=0, mc_temperature=1.0, quantiles={})
    >>> whole == NumberCalibration.from_json("calibration.json", whole.to_json())
    True
    """

    rows: int
    num_samples: int
    mc_temperature: float
    quantiles: Mapping[str, Mapping[str, float]]
    groups: ConformalGroups | None = None
    clusters: int | None = None

    def to_json(self) -> dict:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, path: str | os.PathLike, value: Any) -> NumberCalibration:
        """What `to_json` gave.

        Raises:
            InputError: naming the file, if it is something else.
        """
        what = "the calibration of a run that answers with numbers"
        config = check_object(path, value, _SCHEMA, what)
        if unknown := sorted(set(config) - set(_SCHEMA)):
            reject_file(path, f"must be {what} by this version", f"one with {unknown[0]!r}"[:100])
        known = {name: config.get(name) for name in cls.__dataclass_fields__}
        if known["groups"] is not None:
            groups = ConformalGroups.from_json(path, known["groups"], what, known["rows"])
            if len(groups.columns) < len(groups.by):
                reject_file(path, f"must be {what} by columns alone", f"{PREDICTED!r}")
            known["groups"] = groups
        return cls(**known)

    def limits(self, model: str) -> dict[str, float]:
        """Quantiles of `deterministic` or `mc_mean`, of all rows, by percent."""
        return dict(self.quantiles.get(model, {}))
