"""What heads of numbers predict, and several heads at once; see `Target` for classes and ages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerasmlp.data.labelled import Labelled, column_of
from kerasmlp.data.labels import unknown_of
from kerasmlp.data.targets import Target
from kerasmlp.utils.checks import reject, reject_column


@dataclass(frozen=True)
class NumberTarget:
    """A number with its uncertainty: regression.

    Attributes:
        label: Column of the store.
        unit: Of its numbers, to be printed, or None.

    Example:

    >>> NumberTarget("bmi", unit="kg/m²").measured_in
    'bmi in kg/m²'
    """

    label: str
    unit: str | None = None

    is_age, is_number, classes = False, True, None

    def to_config(self) -> dict:
        """As JSON gives it back."""
        return vars(self) | {"kind": "number"}

    @property
    def heads(self) -> tuple[NumberTarget, ...]:
        return (self,)

    @property
    def name(self) -> str:
        return self.label

    @property
    def network_head(self) -> str:
        """What `ResidualMLP` calls such a head."""
        return "gaussian"

    @property
    def num_outputs(self) -> int:
        """Mean and standard deviation."""
        return 2

    @property
    def measured_in(self) -> str:
        return f"{self.label} in {self.unit}" if self.unit else self.label

    def measured(self, answers: np.ndarray) -> np.ndarray:
        return answers

    def encode(self, store: Labelled) -> np.ndarray:
        """Returns the number of each row, float64, NaN where it is not known."""
        column = column_of(store, self.label)
        if column.dtype.kind == "U":
            reject_column(self.label, "must hold numbers", f"text, {str(column[0])!r} first")
        numbers = column.astype(np.float64)
        if column.dtype.kind in "iu":
            numbers[column == unknown_of(column.dtype.kind)] = np.nan
        if np.isinf(numbers).any():
            reject_column(self.label, "must hold finite numbers", "infinity")
        return numbers


@dataclass(frozen=True)
class SeveralTargets:
    """Several labels at once: one trunk, a head for each.

    Attributes:
        heads: Their targets, of different labels.

    Example:

    >>> both = SeveralTargets((Target("gender", ("male", "female")), NumberTarget("bmi")))
    >>> both.label, both.network_head
    ('gender, bmi', {'gender': 2, 'bmi': 'gaussian'})
    """

    heads: tuple[Target | NumberTarget, ...]

    is_age, is_number, classes = False, False, None

    def __post_init__(self):
        names = [head.name for head in self.heads]
        if len(set(names)) < len(names) or len(names) < 2:
            reject("label", "must be two or more labels, of ages at most one", self.label)

    def to_config(self) -> dict:
        """As JSON gives it back."""
        return {"kind": "several", "heads": [head.to_config() for head in self.heads]}

    @property
    def label(self) -> str:
        return ", ".join(head.label for head in self.heads)

    @property
    def name(self) -> str:
        return "-".join(head.name for head in self.heads)

    @property
    def network_head(self) -> dict[str, int | str]:
        """What `ResidualMLP` calls such heads."""
        return {head.label: head.network_head for head in self.heads}

    @property
    def measured_in(self) -> str:
        return "; ".join(head.measured_in for head in self.heads)


AnyTarget = Target | NumberTarget | SeveralTargets


def target_from_config(config: dict) -> AnyTarget:
    """The target that `to_config` wrote."""
    kind, rest = config.get("kind"), {k: v for k, v in config.items() if k != "kind"}
    if kind == "several":
        return SeveralTargets(tuple(target_from_config(head) for head in rest["heads"]))
    return NumberTarget(**rest) if kind == "number" else Target.from_config(config)
