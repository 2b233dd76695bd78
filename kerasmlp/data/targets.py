"""What a head predicts, and how it is measured: the bridge from label columns to arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kerasmlp.data.age_columns import check_age_years
from kerasmlp.data.joined_labels import check_same_classes
from kerasmlp.data.labelled import Labelled, column_of, has_label, known_parts
from kerasmlp.data.labels import (
    GENDER_NAMES,
    NUM_YEARS,
    UNKNOWN,
    AgeClasses,
    age_classes,
    is_unknown,
    repair_age_group,
)
from kerasmlp.data.value_names import class_names_of
from kerasmlp.utils.checks import InputError, reject, reject_column

_AGE_LABELS = ("age_years", "age_group")
_KNOWN_GROUPS = ("fairface", "adience")
ANSWER_GROUPS = "adience"
"""In which a model of years is measured, answers and abstains where nobody says otherwise."""
_LAST_GROUP_FADES_YEARS = 12.0
"""An open group such as 70+ holds ever fewer people: its weight falls by e in this time."""


@dataclass(frozen=True)
class Target:
    """The outputs of a head.

    Attributes:
        label: Column of the store.
        class_names: One name per output.
        head: `"years"`, the name of age groups, or None for other classes.
        classes: The age classes that accuracy is measured in: a head of
            years is measured in groups by summing probabilities.

    Example:

    >>> target = age_target("age_years", "adience", by_years=True)
    >>> len(target.class_names), target.measured_names[:2]
    (101, ('0-2', '4-6'))
    """

    label: str
    class_names: tuple[str, ...]
    head: str | None = None
    classes: str | None = None

    is_number = False

    def to_config(self) -> dict:
        """As JSON gives it back."""
        return vars(self) | {"class_names": list(self.class_names)}

    @classmethod
    def from_config(cls, config: dict) -> Target:
        return cls(**{**config, "class_names": tuple(config["class_names"])})

    @property
    def heads(self) -> tuple[Target, ...]:
        """Itself alone; see `SeveralTargets`."""
        return (self,)

    @property
    def name(self) -> str:
        """What is predicted: `age`, `gender` or another label."""
        return "age" if self.is_age else self.label

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    network_head = num_outputs = num_classes

    @property
    def is_age(self) -> bool:
        return self.head is not None

    @property
    def head_ages(self) -> AgeClasses:
        return age_classes(self.head)

    @property
    def measured_ages(self) -> AgeClasses:
        return age_classes(self.classes)

    @property
    def measured_names(self) -> tuple[str, ...]:
        return self.measured_ages.class_names if self.is_age else self.class_names

    @property
    def measured_in(self) -> str:
        """The classes that accuracy, NLL and the like are of, for the heading of a table."""
        if self.classes == "years":
            return "single years"
        of = f"age groups of {self.classes}" if self.is_age else f"classes of {self.label}"
        return f"the {len(self.measured_names)} {of}"

    def measured(self, probabilities: np.ndarray) -> np.ndarray:
        """Turns probabilities of the head into those of the measured classes."""
        if self.head == "years" and self.classes != "years":
            return self.measured_ages.from_years(probabilities)
        return probabilities

    def encode(self, store: Labelled) -> np.ndarray:
        """Returns the measured class of each row, -1 where it is not known.

        Args:
            store: Must hold the label, or another one that says the same.
        """
        if self.is_age:
            return _encode_ages(store, self.label, self.classes)
        column = column_of(store, self.label)
        if self.label == "gender":
            return column.astype(int)
        values, codes = np.unique(column, return_inverse=True)
        known = {name: k for k, name in enumerate(self.class_names)}
        names = class_names_of(values)
        foreign = [n for n in names if n not in known and n not in ("", str(UNKNOWN), "nan")]
        if foreign:
            expected = ", ".join(self.class_names)
            reject_column(self.label, f"must hold the classes {expected}", foreign[0])
        return np.array([known.get(name, UNKNOWN) for name in names])[codes]


def around_years(age_years: np.ndarray, sigma_years: float) -> np.ndarray:
    """Normal distributions over the years 0..100, `(rows, 101)`."""
    distance = (np.arange(NUM_YEARS) - np.asarray(age_years)[:, None]) / sigma_years
    density = np.exp(-0.5 * distance**2)
    return density / density.sum(axis=1, keepdims=True)


def blurred_groups(ages: AgeClasses, sigma_years: float) -> np.ndarray:
    """What is known of the year by each group, `(groups, 101)`, float32."""
    years = np.arange(NUM_YEARS)
    table = np.equal.outer(np.arange(ages.num_classes), ages.year_to_class).astype(np.float64)
    table[-1] *= np.exp(-(years - years[table[-1] > 0].min()) / _LAST_GROUP_FADES_YEARS)
    blurred = table / table.sum(axis=1, keepdims=True) @ around_years(years, sigma_years)
    return (blurred / blurred.sum(axis=1, keepdims=True)).astype(np.float32)


def age_target(label: str, classes: str, *, by_years: bool) -> Target:
    """A head of years or of groups, measured in `classes`."""
    head = "years" if by_years else classes
    return Target(label, age_classes(head).class_names, head, classes)


def in_groups(target: Target) -> Target:
    """The target by which answers are right or wrong: groups, where it is measured in years.

    A model that tells 31 for 32 is good and wrong at once. Runs of older
    versions, and those with `--classes years`, answer in Adience's groups.

    Example:

    >>> in_groups(age_target("age_years", "years", by_years=True)).measured_names[4]
    '25-32'
    """
    return replace(target, classes=ANSWER_GROUPS) if target.classes == "years" else target


def choose_age_target(
    store: Labelled,
    label: str | None,
    classes: str | None,
    *,
    by_years: bool,
    are_years: bool = False,
) -> Target:
    """Picks the age label of a store and the classes it allows.

    Args:
        store: To train on.
        label: Column of years or of group names; None takes `age_years` where
            present, else `age_group`.
        classes: As in `age_classes`; None learns years and measures in
            Adience's groups, or takes the groups that the column names.
        by_years: Learn years, whatever is measured; groups are sums of them.
        are_years: The numbers are ages, whatever they look like.

    Raises:
        InputError: if there is no such column, its numbers are hardly ages
            (see `check_age_years`), or the classes are not its own.
    """
    label = age_label_of(store) if label is None else label
    column = column_of(store, label)
    if column.dtype.kind == "U":
        groups = _groups_of(label, column)
        if classes not in (None, groups):
            reject("classes", f"must be {groups!r}, which column {label!r} holds", classes)
        return age_target(label, groups, by_years=by_years)
    for file, known in known_parts(store, label).items() if not are_years else ():
        check_age_years(label, known, file)
    if classes is None:
        return replace(age_target(label, "years", by_years=True), classes=ANSWER_GROUPS)
    return age_target(label, classes, by_years=by_years)


def age_label_of(store: Labelled) -> str:
    """The column of a store that holds ages, in years where there are two."""
    label = next((k for k in _AGE_LABELS if has_label(store, k)), None)
    if label is None:
        known = ", ".join(store.labels) or "no labels"
        reject("label", f"must be an age column; the store holds {known}", label)
    return label


def choose_target(store: Labelled, label: str) -> Target:
    """The classes that a column holds: gender, or whatever its values are."""
    column = column_of(store, label)
    if label == "gender":
        return Target(label, GENDER_NAMES)
    check_same_classes(store, label)
    known = column[~is_unknown(column)]
    values = np.unique(known)
    of_floats = column.dtype.kind == "f"
    if of_floats and (label in _AGE_LABELS or (values != np.rint(values)).any()):
        reject("label", "must be a column of integers or text", f"{label} ({column.dtype})")
    if len(values) == len(known) > 2:
        came = f"{len(values)} different values in as many rows"
        reject_column(label, "must hold classes, which rows share", came)
    return Target(label, tuple(class_names_of(values)))


def truth_years(store: Labelled) -> np.ndarray | None:
    """The ages of a store in years, or None where it holds none."""
    return store.labels["age_years"] if has_label(store, "age_years") else None


def _groups_of(label: str, column: np.ndarray) -> str:
    names = {repair_age_group(v) for v in np.unique(column) if v != ""}
    for spec in _KNOWN_GROUPS:
        if names <= set(age_classes(spec).class_names):
            return spec
    ordered = sorted(names, key=lambda name: (len(name.split("-")[0]), name))
    groups = ",".join(ordered)
    try:
        age_classes(groups)
    except InputError:
        expected = "must hold the age groups of FairFace or Adience, or ones from 0 on without gaps"
        reject_column(label, expected, groups)
    return groups


def _encode_ages(store: Labelled, label: str, classes: str) -> np.ndarray:
    """Classes of ages from the column the model was trained on, or the store's other one."""
    keys = [k for k in dict.fromkeys((label, *_AGE_LABELS)) if has_label(store, k)]
    if not keys:
        known = ", ".join(store.labels) or "no labels"
        reject("label", f"must be a known age; the store holds {known}", label)
    ages = age_classes(classes)
    for key in keys:
        column = store.labels[key]
        if column.dtype.kind != "U":
            return ages.encode(column)
        known = {name: k for k, name in enumerate(ages.class_names)}
        column = column.tolist()
        names = {value: repair_age_group(value) for value in set(column)}
        if {name for name in names.values() if name} <= set(known):
            return np.array([known.get(names[value], UNKNOWN) for value in column])
    came = sorted({v for k in keys if k != "age_years" for v in store.labels[k].tolist()})
    reject("classes", f"must be those of the store's ages ({', '.join(came) or 'none'})", classes)
