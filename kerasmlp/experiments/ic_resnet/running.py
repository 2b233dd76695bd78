"""The IC paper's experiments on CIFAR: arrangements × seeds, a run folder each, one table."""

from __future__ import annotations

import os

from kerasmlp.experiments.ic_resnet.plan import CifarPlan
from kerasmlp.experiments.ic_resnet.table import presentation
from kerasmlp.experiments.ic_resnet.training import train_cifar
from kerasmlp.experiments.image_runs import run_experiment
from kerasmlp.training.image_batches import ImageSet


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
