"""Trains the runs of a cross-validation on a Ray cluster, whose nodes share its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kerasmlp.experiments.cross_validation.side_by_side import groups_of
from kerasmlp.experiments.cross_validation.trainer import TrainingPool
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.ray_tasks import Work, answers_of, require_shared


class RayTrainers(contextlib.AbstractContextManager):
    """What `TrainingPool` is, on a cluster: each run is a task, and resumes by itself.

    Args:
        workers: Actors of one core each; None takes all cores of the cluster.
    """

    def __init__(self, workers: int | None):
        self._workers = workers

    def __exit__(self, *exception: object) -> None:
        pass

    def train(
        self,
        settings: dict,
        pending: Sequence[int],
        steps: Sequence[int],
        *,
        side_by_side: int = 1,
        on_gpu_alone: bool = False,
    ) -> Iterator[int]:
        """Yields the number of each run as it is done; all arguments are those of the pool.

        Raises:
            InputError: if a run cannot be trained, or a node does not see the folder.
        """
        side_by_side = 1 if on_gpu_alone else side_by_side  # actors have processors alone
        groups = dict(enumerate(groups_of(pending, steps, side_by_side)))
        told = {"settings": settings, "steps": list(steps)}
        for number, _ in answers_of(_prepare, told, groups, workers=self._workers):
            yield from groups[number]


def _prepare(told: dict[str, Any]) -> Work:
    """One process beside the actor, as of a pool: a run that ends it goes on in the next."""
    settings = told["settings"]
    paths = settings["store"]
    for path in (settings["run_dir"], *([paths] if isinstance(paths, str) else paths)):
        require_shared(path)
    if not Path(settings["run_dir"], "config.json").is_file():
        requirement = "must be the same folder on every node of the cluster (a shared file system)"
        reject_file(settings["run_dir"], requirement, "a folder without config.json")
    pool = TrainingPool(1)

    def train(group: Sequence[int]) -> None:
        done = pool.train(settings, group, told["steps"], side_by_side=len(group))
        for _ in done:
            pass

    return train
