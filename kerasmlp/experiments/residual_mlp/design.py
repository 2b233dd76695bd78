"""What the experiment consists of: tasks, variants, initialisations."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from kerasmlp.data.examples import VALIDATION_SHARE
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_info import check_same_embedder
from kerasmlp.data.targets import Target, age_target, choose_age_target, choose_target
from kerasmlp.experiments.cross_validation.plan import (
    MAX_SEEDS,
    CrossValidationPlan,
    plan_runs,
)
from kerasmlp.experiments.tuning.plan import LONGEST_EPOCHS, TuningPlan
from kerasmlp.models.presets import Recipe
from kerasmlp.models.recipe_files import find_recipe
from kerasmlp.runs.seen import row_hashes
from kerasmlp.training.rows import Rows
from kerasmlp.utils.checks import check_choice, check_int, check_optional_int, reject, reject_file

VARIANTS = {
    "full": {},
    "no dropout": {"dropout_rate": 0.0},
    "no IC": {"use_ic": False},
    "no skip": {"use_residual": False},
    "no IC, no skip": {"use_ic": False, "use_residual": False},
}
"""Name to the changes of a recipe, in the order of the paper's Table 3."""

Folders = Mapping[tuple[str, str, str], Path | None]
"""Cross-validation of each (task, variant, init); None where its pre-training diverged."""

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
        check_int("num_seeds", self.num_seeds, minimum=1, maximum=MAX_SEEDS)
        check_int("pretraining_epochs", self.pretraining_epochs, minimum=1)
        check_optional_int("search_epochs", self.search_epochs, minimum=1, maximum=LONGEST_EPOCHS)

    @cached_property
    def pretraining_store(self) -> EmbeddingStore:
        """The store to pre-train on."""
        return EmbeddingStore.open(self.pretraining_path, verify=True)

    @cached_property
    def store(self) -> EmbeddingStore:
        """The store to cross-validate on."""
        return EmbeddingStore.open(self.store_path, verify=True)

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

    def searches(self) -> dict[str, TuningPlan]:
        """The Hyperband search of each pre-training, over the paper's space; or none."""
        if self.search_epochs is None:
            return {}
        how = {"space": "paper", "max_epochs": self.search_epochs, "seed": self.seed}
        return {
            name: TuningPlan(target=task.pretraining_target, base=task.preset, **how)
            for (name, _), task in self.pretrainings().items()
        }

    def plan(
        self, task: Task, variant: str = "full", init: Path | None = None
    ) -> CrossValidationPlan:
        """The cross-validation of one variant, from random weights or those of the run `init`."""
        return CrossValidationPlan(
            target=task.target,
            recipe=task.recipe.replace(**VARIANTS[variant]),
            seeds=tuple(self.seeds),
            num_folds=self.num_folds,
            init=None if init is None else os.fspath(init),
        )

    def check(self) -> None:
        """Rejects what would fail hours later. TensorFlow is not needed for it."""
        pretraining, store, path = self.pretraining_store, self.store, self.pretraining_path
        check_same_embedder(os.fspath(path), pretraining.info, store.info)
        if pretraining.width != store.width:
            requirement = f"must hold embeddings of width {store.width}, as the other store"
            reject_file(path, requirement, f"{pretraining.width}")
        learned = row_hashes(pretraining.embeddings)
        if both := int(np.isin(row_hashes(store.embeddings), learned).sum()):
            requirement = "must hold no face of the other store, whose folds are tested on"
            reject_file(path, requirement, f"{both} embeddings of {os.fspath(self.store_path)}")
        for search in self.searches().values():
            search.check(pretraining.width)
        for task in self.tasks:
            plan_runs(store, self.plan(task))
            how = {"validation_share": VALIDATION_SHARE, "seed": self.seed, "group": None}
            Rows.of(pretraining, task.pretraining_target, None, how)


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
        label = "gender" if name == "gender" else "age_years"
        _require(label, "store to pre-train on", pretraining)
        if name == "gender":
            _require(label, "store to cross-validate on", store)
            targets = (choose_target(of, label) for of in (pretraining, store))
            recipe = find_recipe(gender_preset, "gender_preset")
            tasks.append(Task(name, *targets, recipe, recipe))
            continue
        years = age_target(label, "years", by_years=True)
        by_years = name == "age-modified"
        measured = _groups(store, classes, by_years=by_years)
        preset = find_recipe(age_preset, "age_preset")
        # Groups are learned as blurred years, or as the classes that they are.
        sigma = (preset.label_sigma_years or _GROUPS_SIGMA_YEARS) if by_years else 0.0
        recipe = preset.replace(label_sigma_years=sigma)
        tasks.append(Task(name, years, measured, preset, recipe))
    return tasks


def _require(label: str, name: str, store: EmbeddingStore) -> None:
    if label not in store.labels:
        columns = ", ".join(store.labels) or "none"
        reject_file(name, f"must have a column `{label}`", columns)


def _groups(store: EmbeddingStore, classes: str | None, *, by_years: bool) -> Target:
    if classes == "years":
        reject("classes", "must be age groups, in which this experiment measures", classes)
    target = choose_age_target(store, None, classes, by_years=by_years)
    if target.head == "years" and not by_years:  # chosen for a store of years by itself
        target = choose_age_target(store, None, target.classes, by_years=False)
    return target
