"""Groups of rows that each keep the promise of intervals and sets by limits of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasmlp.data.labels import NUM_YEARS
from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.targets import Target
from kerasmlp.data.value_names import value_names
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.schema import fields, list_of, number, optional, text, whole

PREDICTED = "predicted"
"""Instead of a column: the class that the model finds likeliest."""

MIN_GROUP_ROWS = 20
"""Fewer rows of a group, and the limits of all rows count: of 20 the share that a limit holds of
90% has a standard deviation of 6%."""

YEARS = {"50": number(-NUM_YEARS, NUM_YEARS), "90": number(-NUM_YEARS, NUM_YEARS)}
STDS = {"50": number(0, 1e6), "90": number(0, 1e6)}
SET = "set_90"
SET_SCORE = number(0, 1e6)
"""A penalty for each class on top of a probability."""

_TEXTS = list_of(text(10_000), 100)


@dataclass(frozen=True)
class GroupLimits:
    """What intervals and sets of one group reach.

    Attributes:
        group: Its values, in the order of the columns.
        rows: Of those kept back.
        limits: By name: `50` and `90` as those of all rows, `set_90` of sets.
    """

    group: tuple[str, ...]
    rows: int
    limits: Mapping[str, float]


@dataclass(frozen=True)
class ConformalGroups:
    """Limits of groups of rows, in the place of those of all rows (Mondrian conformal).

    Rows of a group that is not there, or is not known, keep the limits of all.

    Attributes:
        by: Columns of labels, or `predicted`.
        models: `deterministic` and `mc_mean` to the limits of their groups.

    Example:

    >>> limits = GroupLimits(("Asian",), 60, {"90": 5.0})
    >>> groups = ConformalGroups(("race",), {"mc_mean": (limits,)})
    >>> groups.of_rows("mc_mean", {"50": 1.0, "90": 3.0}, [np.array(["White", "Asian"])])
    {'50': array([1., 1.]), '90': array([3., 5.])}

    Reference: Vovk et al., "Mondrian Confidence Machine", 2003.
    """

    by: tuple[str, ...]
    models: Mapping[str, Sequence[GroupLimits]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that rows must bring along."""
        return tuple(name for name in self.by if name != PREDICTED)

    def of_rows(
        self, model: str, limits: Mapping[str, float], names: Sequence[np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The limits of each row, `(rows,)` by name.

        Args:
            model: Whose answers they are of.
            limits: Of all rows.
            names: Of the groups of the rows, as of `group_names`.
        """
        found = {name: np.full(len(names[0]), limit) for name, limit in limits.items()}
        for one in self.models.get(model, ()):
            chosen = np.all([a == b for a, b in zip(names, one.group, strict=True)], axis=0)
            for name, limit in one.limits.items():
                if name in found:
                    found[name][chosen] = limit
        return found

    @classmethod
    def from_json(
        cls, path: str | os.PathLike, value: Mapping[str, Any], what: str
    ) -> ConformalGroups:
        """What `asdict` gave, held against `groups_schema` before."""
        by = tuple(value["by"])
        models = {
            model: tuple(GroupLimits(tuple(g["group"]), g["rows"], g["limits"]) for g in groups)
            for model, groups in value["models"].items()
        }
        for groups in models.values():
            wrong = [g.group for g in groups if len(g.group) != len(by)]
            twice = len({g.group for g in groups}) < len(groups)
            if wrong or twice or not by or len(set(by)) < len(by):
                requirement = f"must be {what} whose groups are told apart by each of {list(by)}"
                reject_file(path, requirement, f"{list(wrong[0]) if wrong else 'one twice'}")
        return cls(by, models)


def groups_schema(limits: Mapping[str, Any]):
    """Of the JSON of `ConformalGroups`, or None.

    Args:
        limits: Kinds of the limits by their names.
    """
    each = {
        "group": _TEXTS,
        "rows": whole(0, 10**12),
        "limits": fields({k: optional(kind) for k, kind in limits.items()}),
    }
    groups = list_of(fields(each), 10_000)
    models = {model: optional(groups) for model in ("deterministic", "mc_mean")}
    return optional(fields({"by": _TEXTS, "models": fields(models)}))


def group_names(
    by: Sequence[str],
    target: Target | NumberTarget,
    answers: np.ndarray,
    columns: Mapping[str, np.ndarray] | None,
) -> list[np.ndarray] | None:
    """The names of the group of each row, for each of `by`; None where a column is not there.

    Args:
        by: Columns, or `predicted`.
        target: Of the head, in the classes that it answers in.
        answers: Of the head, `(rows, outputs)`.
        columns: Labels of the rows.
    """
    names = []
    for name in by:
        if name == PREDICTED:
            likeliest = target.measured(answers).argmax(axis=1)
            names.append(np.array(target.measured_names)[likeliest])
        elif columns is None or name not in columns:
            return None
        else:
            names.append(value_names(name, columns[name]))
    return names
