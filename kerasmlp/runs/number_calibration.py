"""What a run that answers with numbers learned on the rows kept back, beside its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kerasmlp.uncertainty.numbers import COVERAGES, number_intervals
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.schema import TEMPERATURE, check_object, dict_of, fields, number, one_of, whole

FORMAT = "kerasmlp.number-calibration"
_SCHEMA = {
    "format": one_of(FORMAT),
    "rows": whole(0, 10**12),
    "num_samples": whole(0, 100_000),
    "mc_temperature": TEMPERATURE,
    "quantiles": dict_of(fields({str(c): number(0, 1e6) for c in COVERAGES})),
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

    Example:

    >>> whole = NumberCalibration(rows=9, num_samples=0, mc_temperature=1.0, quantiles={})
    >>> whole == NumberCalibration.from_json("calibration.json", whole.to_json())
    True
    """

    rows: int
    num_samples: int
    mc_temperature: float
    quantiles: Mapping[str, Mapping[str, float]]

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
        return cls(**{name: config[name] for name in cls.__dataclass_fields__})

    def intervals(
        self, mean: np.ndarray, std: np.ndarray, *, sampled: bool
    ) -> dict[int, np.ndarray]:
        """Intervals by percent, each `(rows, 2)`; see `number_intervals`."""
        quantiles = self.quantiles.get("mc_mean" if sampled else "deterministic")
        return number_intervals(mean, std, quantiles)
