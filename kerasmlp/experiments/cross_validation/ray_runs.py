"""Trains the runs of a cross-validation on a Ray cluster, whose nodes share its folder."""

from __future__ import annotations

import collections
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kerasmlp.experiments.cross_validation.side_by_side import groups_of
from kerasmlp.experiments.cross_validation.trainer import TrainingPool
from kerasmlp.runs.run_folder import IN_USE
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.processes import num_cores, number_of_workers
from kerasmlp.utils.ray_tasks import Work, answers_of, check_engine, require_shared

_BUSY_SECONDS, _AGAIN_SECONDS = 120.0, 5.0
"""For so long a run of a lost node may be locked: by a lease, or as it is lost to Ray alone."""


def trainers_of(
    engine: str, workers: int | None
) -> tuple[Callable[[], TrainingPool | RayTrainers], int]:
    """What makes the trainers of an engine, and how many processes of theirs share a memory."""
    number = number_of_workers(workers)
    if check_engine(engine) != "ray":
        return partial(TrainingPool, number), number
    if os.environ.get("RAY_ADDRESS", "local") != "local":
        number = min(number, num_cores())  # of a node like this one
    return partial(RayTrainers, workers), number


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
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            done = pool.train(settings, group, told["steps"], side_by_side=len(group))
            try:
                collections.deque(done, maxlen=0)
                return
            except InputError as error:
                if IN_USE not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(_AGAIN_SECONDS)

    return train
