"""Groups of rows that each keep the promise of intervals and sets by limits of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kerasmlp.data.labels import NUM_YEARS
from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.targets import Target
from kerasmlp.data.value_names import value_names
from kerasmlp.utils.checks import reject, reject_file
from kerasmlp.utils.schema import fields, list_of, number, optional, text, whole

PREDICTED = "predicted"
"""Instead of a column: the class that the model finds likeliest."""

MIN_GROUP_ROWS = 20
"""Fewer rows of a group, and it has no limits of its own: of 20 the share that a limit holds of
90% has a standard deviation of 6%."""

YEARS = {"50": number(-NUM_YEARS, NUM_YEARS), "90": number(-NUM_YEARS, NUM_YEARS)}
STDS = {"50": number(0, 1e6), "90": number(0, 1e6)}
SET = "set_90"
SET_SCORE = number(0, 1e6)
"""A penalty for each class on top of a probability."""

CLUSTERS = optional(whole(0, 10**12))
"""Of a calibration: see `share_of_draws`."""

_TEXTS = list_of(text(10_000), 100)


@dataclass(frozen=True)
class GroupLimits:
    """What intervals and sets of one group reach.

    Attributes:
        group: Its values, in the order of the columns; none of the rows of all other groups.
        rows: Of those kept back.
        limits: By name: `50` and `90` as those of all rows, `set_90` of sets.
    """

    group: tuple[str, ...]
    rows: int
    limits: Mapping[str, float]


@dataclass(frozen=True)
class ConformalGroups:
    """Limits of groups of rows, in the place of those of all rows (Mondrian conformal).

    Rows of small groups, of new ones and of unknown values are a group together: the limits of
    all rows would hold too few of them, where the others are the easier ones.

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
        for one in sorted(self.models.get(model, ()), key=lambda one: len(one.group)):
            chosen = self._are(one, names)
            for name, limit in one.limits.items():
                if name in found:
                    found[name][chosen] = limit
        return found

    def in_none(self, model: str, names: Sequence[np.ndarray]) -> np.ndarray:
        """Mask of the rows that are in no group with limits of its own.

        Args:
            model: As of `of_rows`.
            names: As of `of_rows`.
        """
        own = [self._are(one, names) for one in self.models.get(model, ()) if one.group]
        return ~np.any(own, axis=0) if own else np.ones(len(names[0]), bool)

    def by_columns(self) -> ConformalGroups:
        """The same told apart by their columns alone, whatever the model predicts."""
        places = [place for place, name in enumerate(self.by) if name != PREDICTED]
        models = {
            model: [replace(g, group=tuple(g.group[k] for k in places if g.group)) for g in groups]
            for model, groups in self.models.items()
        }
        return ConformalGroups(self.columns, models)

    @staticmethod
    def _are(one: GroupLimits, names: Sequence[np.ndarray]) -> np.ndarray:
        if not one.group:
            return np.ones(len(names[0]), bool)
        return np.all([a == b for a, b in zip(names, one.group, strict=True)], axis=0)

    @classmethod
    def from_json(
        cls, path: str | os.PathLike, value: Mapping[str, Any], what: str, rows: int
    ) -> ConformalGroups:
        """What `asdict` gave, held against `groups_schema` before.

        Args:
            path: Of the file.
            value: In it.
            what: The file, in words.
            rows: Of which no group has more.
        """
        by = tuple(value["by"])
        models = {
            model: tuple(
                GroupLimits(
                    tuple(g["group"]),
                    g["rows"],
                    {k: v for k, v in g["limits"].items() if v is not None},
                )
                for g in groups
            )
            for model, groups in value["models"].items()
            if groups is not None
        }
        for groups in models.values():
            if (most := max((g.rows for g in groups), default=0)) > rows:
                reject_file(path, f"must be {what} with groups of at most {rows} rows", f"{most}")
            wrong = [g.group for g in groups if len(g.group) not in (0, len(by))]
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
            column = np.asarray(columns[name])
            if column.shape != (len(answers),):
                reject("columns", f"must hold {len(answers)} values of {name!r}", column.shape)
            names.append(value_names(name, column))
    return names


def share_of_draws(rows: int | None, clusters: int | None) -> float:
    """Of rows kept back, the share that are draws of their own: of one `group` one.

    Rows of one `group` are alike. What was fitted on them varies as if they were fewer, in the
    worst case one of each.

    Args:
        rows: Kept back.
        clusters: Of them, those of one `group` counted once; None of older versions.

    Example:

    >>> share_of_draws(800, 200), share_of_draws(800, None)
    (0.25, 1.0)
    """
    return min(clusters / rows, 1.0) if clusters and rows else 1.0


def count_in_none(calibration: Any, columns: Mapping[str, np.ndarray] | None, rows: int) -> int:
    """How many rows have known columns whose values are none that limits were fitted for.

    Args:
        calibration: Of a head, or None; what it predicts counts for nothing.
        columns: Labels of the rows.
        rows: Their number.
    """
    if calibration is None or calibration.groups is None or not calibration.groups.columns:
        return 0
    groups = calibration.groups.by_columns()
    if any(name not in (columns or {}) for name in groups.by):
        return rows
    names = [value_names(name, columns[name]) for name in groups.by]
    return int(groups.in_none(next(iter(groups.models), ""), names).sum()) if rows else 0
