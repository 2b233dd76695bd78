"""The IC paper's experiments on CIFAR: arrangements × seeds, a run folder each, one table."""

from __future__ import annotations

import os

from kerasmlp.cifar.plan import CifarPlan
from kerasmlp.cifar.table import presentation
from kerasmlp.cifar.training import train_cifar
from kerasmlp.image_batches import ImageSet
from kerasmlp.image_experiment import run_experiment


def run_cifar(
    data: ImageSet,
    plan: CifarPlan,
    run_dir: str | os.PathLike,
    *,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Trains every arrangement × seed of a plan; arguments and report as of `run_experiment`."""
    return run_experiment(
        data,
        plan,
        run_dir,
        "cifar",
        train=train_cifar,
        presentation=presentation(plan.depth, plan.bottleneck, len(plan.seeds)),
        resume=resume,
        force=force,
        progress=progress,
    )
