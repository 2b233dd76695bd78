"""What a cross-validation consists of: its settings, and the rows and steps of every run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kerasmlp.data.examples import examples_of, labelled
from kerasmlp.data.labels import is_unknown
from kerasmlp.data.other_targets import AnyTarget, target_from_config
from kerasmlp.data.splits import group_codes, grouped_folds, grouped_split
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.settings import Recorded, check_drawing
from kerasmlp.models.presets import Recipe
from kerasmlp.utils.checks import reject, reject_column

NUM_FOLDS = 5
MAX_SEEDS = 1000
SHARED_LOSS = 0.02
"""Share of an epoch's steps that a run gives up at most, to share its step with others."""


@dataclass(frozen=True, kw_only=True)
class CrossValidationPlan(Recorded):
    """The settings of a cross-validation: seeds × folds of one recipe on one target.

    Attributes:
        target: What to predict.
        recipe: Hyperparameters.
        seeds: Of the runs; without a column of folds also of the folds.
        num_folds: None takes those of the store's `fold` column, or 5.
        validation_share: Of the groups in the training folds.
        group: As for `train`.
        init: Run whose weights to begin with, or None.
    """

    target: AnyTarget
    recipe: Recipe
    seeds: tuple[int, ...]
    num_folds: int | None = None
    validation_share: float = 0.1
    group: str | None = None
    init: str | None = None

    @classmethod
    def from_config(cls, config: dict) -> CrossValidationPlan:
        return cls(
            **config
            | {
                "target": target_from_config(config["target"]),
                "recipe": Recipe(**config["recipe"]),
                "seeds": tuple(config["seeds"]),
            }
        )


@dataclass(frozen=True)
class PlannedRun:
    """One training: what it learns from, what it is tested on (rows of the store)."""

    seed: int
    fold: int
    training: np.ndarray
    test: np.ndarray
    steps_per_epoch: int = 0

    @property
    def name(self) -> str:
        return f"seed{self.seed}_fold{self.fold}"


def settings_of(
    store: EmbeddingStore, plan: CrossValidationPlan, run: PlannedRun, init: str | None
) -> dict:
    """What decides the result of one run: the same under these names in its `config.json`.

    `init` is the SHA-256 of the weights to begin with, or None.
    """
    settings = {
        **plan.to_config(),
        "width": store.width,
        "standardized": plan.recipe.standardizes(store.info.normalized) or None,
        **store.info.of_embedder(),
        "seed": run.seed,
        "init": init,
        "steps_per_epoch": run.steps_per_epoch,
        "data_digest": store.subset(run.training).digest(),
        "test_digest": store.subset(run.test).digest(),
    }
    return {k: v for k, v in settings.items() if k not in ("seeds", "num_folds")}


def has_folds(store: EmbeddingStore) -> bool:
    return "fold" in store.labels


def plan_runs(store: EmbeddingStore, plan: CrossValidationPlan) -> list[PlannedRun]:
    """Returns the runs of a plan, seed by seed.

    Folds come from the store's `fold` column, the same for every seed, or are
    drawn anew by each seed from whole groups. Rows without the label, or
    without a fold where the store has that column, are in no run.

    Raises:
        InputError: if seeds, folds or labels do not allow it.
    """
    if not plan.seeds or len(set(plan.seeds)) < len(plan.seeds):
        reject("seeds", "must be one or more different integers", list(plan.seeds))
    if (np.diff(sorted(plan.seeds)) < plan.recipe.members).any():
        requirement = f"must lie {plan.recipe.members} apart: members have the seeds that follow"
        reject("seeds", requirement, list(plan.seeds))
    plan.recipe.check_width(store.width, normalized=store.info.normalized)
    check_drawing(plan.seeds, plan.validation_share)
    heads = examples_of(store, plan.target)
    rows = labelled(heads)
    if has_folds(store):
        rows = rows[~is_unknown(store.labels["fold"][rows])]
    groups = heads[0].groups(plan.group)[rows]
    views = None if heads[0].view_starts is None else store.labels["view"]
    runs, sizes = [], []
    for seed in plan.seeds:
        for fold, test in _folds(store, plan, groups, rows, seed):
            training = ~np.isin(rows, test)
            rest, _ = grouped_split(groups[training], plan.validation_share, seed)
            for head in heads:
                where = f"where seed {seed} tests fold {fold}"
                head.require_two(rows[training][rest], f"must hold two {{}} to train on {where}")
            runs.append(PlannedRun(seed, fold, rows[training], test))
            learned = rows[training][rest]
            sizes.append(len(learned) if views is None else int((views[learned] == 0).sum()))
    steps = shared_steps([plan.recipe.steps(size) for size in sizes])
    return [replace(run, steps_per_epoch=n) for run, n in zip(runs, steps, strict=True)]


def folds_digest(runs: Sequence[PlannedRun]) -> str:
    """SHA-256 of seeds, folds and rows: equal where two cross-validations tested on the same."""
    digest = hashlib.sha256()
    for run in runs:
        digest.update(f"{run.name} {len(run.training)} {len(run.test)}".encode())
        digest.update(run.training.astype("<i8"))
        digest.update(run.test.astype("<i8"))
    return digest.hexdigest()


def shared_steps(full: Sequence[int]) -> list[int]:
    """Returns the steps per epoch of runs whose rows fill so many.

    A step is compiled for a number of steps, so runs whose numbers are close
    take the smallest of them: the rows that this leaves out are others in
    every epoch. A run gives up at most 2% of its steps.

    Example:

    >>> shared_steps([106, 107, 106, 70])
    [106, 106, 106, 70]
    """
    shared: dict[int, int] = {}
    floor = 0
    for steps in sorted(set(full)):
        if not floor or steps - floor > SHARED_LOSS * steps:
            floor = steps
        shared[steps] = floor
    return [shared[steps] for steps in full]


def _folds(
    store: EmbeddingStore,
    plan: CrossValidationPlan,
    groups: np.ndarray,
    rows: np.ndarray,
    seed: int,
) -> list[tuple[int, np.ndarray]]:
    """Number and rows of each fold; where the store has folds, its own numbers."""
    if not has_folds(store):
        number = NUM_FOLDS if plan.num_folds is None else plan.num_folds
        return [(k, rows[fold]) for k, fold in enumerate(grouped_folds(groups, number, seed))]
    column, codes = store.labels["fold"][rows], group_codes(groups)
    split = len(np.unique(np.stack([codes, column]), axis=1).T) - len(np.unique(codes))
    if split:
        group = plan.group or "group"
        requirement = f"must keep the rows of one group together (column `{group}`)"
        reject_column("fold", requirement, f"{split} times a group in one more fold")
    present = np.unique(column).tolist()
    if min(present, default=0) < 0:
        reject_column("fold", "must hold numbers of folds, or -1 where there is none", present)
    if len(present) < 2:
        reject_column("fold", "must hold at least two folds", present)
    if plan.num_folds not in (None, len(present)):
        requirement = f"must be {len(present)}, as the store's column `fold` has"
        reject("num_folds", requirement, plan.num_folds)
    return [(k, rows[column == k]) for k in present]
