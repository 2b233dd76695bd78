"""Which runs of a cross-validation are trained in one program."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan
from kerasmlp.models.presets import MAX_MEMBERS
from kerasmlp.utils.checks import check_int, reject

_ON_GPU = 32
"""Runs in a program there, which one network leaves idle."""

_BYTES = 4 << 30
"""That the rows of runs in one program take: each holds its own, three times over in float32."""

_GPUS = Path("/proc/driver/nvidia/gpus")


def runs_abreast(plan: CrossValidationPlan, store: EmbeddingStore, asked: int | None = None) -> int:
    """How many runs are trained in one program at most, if there is a GPU.

    On a GPU many are: the products of one small network leave it idle. On CPUs none are: one
    process per core is faster, by `tests/benchmarks/side_by_side.py`. An ensemble is many
    networks already, and several labels are weighed by what each fold holds: such runs are
    trained one after the other.

    Args:
        plan: Of the runs.
        store: That they learn from.
        asked: By the user, or None.

    Raises:
        InputError: if so many are no program.
    """
    recipe, normalized = plan.recipe, store.info.normalized
    several = recipe.members > 1 or len(plan.target.heads) > 1
    if asked is not None:
        check_int("side_by_side", asked, minimum=1, maximum=MAX_MEMBERS)
        if asked > 1 and several:
            requirement = "must be 1 where a run has several members or several labels"
            reject("side_by_side", requirement, asked)
        if asked > 1:
            recipe = recipe.replace(members=asked)
            recipe.check_width(store.width, normalized=normalized)
        return asked
    if several or not _may_have_gpu():
        return 1
    fit = _BYTES // (3 * 4 * len(store) * store.width)
    return max(1, min(recipe.most_members(store.width, normalized=normalized), fit, _ON_GPU))


def groups_of(pending: Sequence[int], steps: Sequence[int], most: int) -> list[list[int]]:
    """Runs that are trained together: of equal steps, at most so many, in groups of even sizes.

    Args:
        pending: Numbers of the runs.
        steps: Per epoch, of every run.
        most: Of a group.

    Example:

    >>> groups_of([0, 1, 2, 4, 5, 6], [9, 9, 9, 9, 9, 9, 8], 4)
    [[0, 1, 2], [4, 5], [6]]
    """
    found = []
    for number in dict.fromkeys(steps[n] for n in pending):
        alike = [n for n in pending if steps[n] == number]
        found += np.array_split(alike, math.ceil(len(alike) / most))
    return [group.tolist() for group in found]


def _may_have_gpu() -> bool:
    """Whether a driver is there; whether a worker sees a GPU is asked where this is so."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not hidden and _GPUS.is_dir() and any(_GPUS.iterdir())
