"""What the experiment consists of: tasks, variants, initialisations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import Target, age_target, choose_age_target, choose_target
from kerasmlp.experiments.cross_validation.plan import MAX_SEEDS, CrossValidationPlan
from kerasmlp.experiments.tuning.plan import LONGEST_EPOCHS
from kerasmlp.models.presets import Recipe, find_recipe
from kerasmlp.utils.checks import check_choice, check_int, check_optional_int, reject, reject_file

VARIANTS = {
    "full": {},
    "no dropout": {"dropout_rate": 0.0},
    "no IC": {"use_ic": False},
    "no skip": {"use_residual": False},
    "no IC, no skip": {"use_ic": False, "use_residual": False},
}
"""Name to the changes of a recipe, in the order of the paper's Table 3."""

INITS = ("random", "pretrained")
TASKS = ("gender", "age", "age-modified")
_GROUPS_SIGMA_YEARS = 1.0


@dataclass(frozen=True)
class Task:
    """One prediction task on both stores.

    Attributes:
        name: Of `TASKS`.
        pretraining_target: On the store to pre-train on.
        target: On the store to cross-validate on.
        preset: Recipe of the pre-training.
        recipe: Of the cross-validation: the same, for the labels there.
    """

    name: str
    pretraining_target: Target
    target: Target
    preset: Recipe
    recipe: Recipe

    @property
    def pretraining(self) -> str:
        """Name of the pre-training, which the two age tasks share."""
        return "gender" if self.name == "gender" else "age"

    def plan(
        self, variant: str, seeds: Sequence[int], num_folds: int | None, init
    ) -> CrossValidationPlan:
        """The cross-validation of one variant, from random weights or those of the run `init`."""
        return CrossValidationPlan(
            target=self.target,
            recipe=self.recipe.replace(**VARIANTS[variant]),
            seeds=tuple(seeds),
            num_folds=num_folds,
            init=None if init is None else os.fspath(init),
        )

    def pretraining_recipe(self, variant: str, epochs: int) -> Recipe:
        return self.preset.replace(epochs=epochs, patience=None, **VARIANTS[variant])


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the result.

    Attributes:
        pretraining_path: Store to pre-train on.
        store_path: Store to cross-validate on.
        tasks: Of `make_tasks`.
        seed: First of the seeds.
        num_seeds: How often each cross-validation is repeated.
        num_folds: None takes those of the store's column `fold`, or 5.
        pretraining_epochs: 5 in the paper.
        search_epochs: Of the longest trials of a search for the recipes on the first
            store, 10 in the paper; None takes the presets as they are.
    """

    pretraining_path: str | os.PathLike
    store_path: str | os.PathLike
    tasks: Sequence[Task]
    seed: int = 0
    num_seeds: int = 5
    num_folds: int | None = None
    pretraining_epochs: int = 5
    search_epochs: int | None = None

    def __post_init__(self):
        check_int("seed", self.seed, minimum=0)
        for name in ("num_seeds", "pretraining_epochs"):
            check_int(name, getattr(self, name), minimum=1)
        if self.num_seeds > MAX_SEEDS:
            reject("num_seeds", f"must be at most {MAX_SEEDS}", self.num_seeds)
        epochs = check_optional_int("search_epochs", self.search_epochs, minimum=1)
        if epochs is not None and epochs > LONGEST_EPOCHS:
            reject("search_epochs", f"must be at most {LONGEST_EPOCHS}", epochs)

    @property
    def seeds(self) -> list[int]:
        return list(range(self.seed, self.seed + self.num_seeds))

    def steps(self) -> list[tuple[str, str, str]]:
        """Task, variant and init of every cross-validation."""
        return [(t.name, v, init) for t in self.tasks for v in VARIANTS for init in INITS]

    def pretrainings(self) -> dict[tuple[str, str], Task]:
        """Pre-training and variant of every model to begin with; age tasks share theirs."""
        shared: dict[str, Task] = {}
        for task in self.tasks:
            shared.setdefault(task.pretraining, task)
        return {(name, v): task for name, task in shared.items() for v in VARIANTS}


def make_tasks(
    names: Sequence[str],
    pretraining: EmbeddingStore,
    store: EmbeddingStore,
    *,
    age_preset: str | os.PathLike = "paper-age",
    gender_preset: str | os.PathLike = "paper-gender",
    classes: str | None = None,
) -> list[Task]:
    """Returns the tasks, on the labels that the two stores hold.

    - `gender`: two classes on both stores.
    - `age`: pre-trained on 101 years; then a new head of age groups.
    - `age-modified`: the same, but the head of 101 years stays, and groups are
      sums of years. Deviation: the original keeps its head of 101 outputs and
      uses the first eight of them for the groups.

    Args:
        names: Of `TASKS`.
        pretraining: Store to pre-train on, with `age_years` for the age tasks.
        store: Store to cross-validate on.
        age_preset: Recipe of the age tasks, see `find_recipe`.
        gender_preset: Recipe of the gender task.
        classes: Age groups to be measured in, see `age_classes`; None takes
            those of the column `age_group`, or `adience` where years are known.

    Raises:
        InputError: if a label is missing.
    """
    if len(set(names)) < len(names) or not names:
        reject("tasks", f"must be one or more of {', '.join(TASKS)}", list(names))
    for name in names:
        check_choice("tasks", name, TASKS)
    tasks = []
    for name in names:
        for which, of in (("pre-train on", pretraining), ("cross-validate on", store)):
            if name == "gender" and "gender" not in of.labels:
                columns = ", ".join(of.labels) or "none"
                reject_file(f"store to {which}", "must have a column `gender`", columns)
        if name == "gender":
            targets = (choose_target(pretraining, "gender"), choose_target(store, "gender"))
            recipe = find_recipe(gender_preset, "gender_preset")
            tasks.append(Task(name, *targets, recipe, recipe))
            continue
        if "age_years" not in pretraining.labels:
            columns = ", ".join(pretraining.labels) or "none"
            reject_file("store to pre-train on", "must have a column `age_years`", columns)
        years = age_target("age_years", "years", by_years=True)
        by_years = name == "age-modified"
        measured = _groups(store, classes, by_years=by_years)
        preset = find_recipe(age_preset, "age_preset")
        # Groups are learned as blurred years, or as the classes that they are.
        sigma = (preset.label_sigma_years or _GROUPS_SIGMA_YEARS) if by_years else 0.0
        recipe = preset.replace(label_sigma_years=sigma)
        tasks.append(Task(name, years, measured, preset, recipe))
    return tasks


def _groups(store: EmbeddingStore, classes: str | None, *, by_years: bool) -> Target:
    if classes == "years":
        reject("classes", "must be age groups, in which this experiment measures", classes)
    target = choose_age_target(store, None, classes, by_years=by_years)
    if target.head == "years" and not by_years:  # chosen for a store of years by itself
        target = choose_age_target(store, None, target.classes, by_years=False)
    return target
