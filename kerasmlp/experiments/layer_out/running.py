"""The LayerOut paper's experiments: modes × seeds, a run folder each, one table."""

from __future__ import annotations

import os

from kerasmlp.experiments.image_runs import run_experiment
from kerasmlp.experiments.layer_out.plan import NETWORKS, LayerOutPlan
from kerasmlp.experiments.layer_out.table import presentation
from kerasmlp.experiments.layer_out.training import train_layer_out
from kerasmlp.training.image_batches import ImageSet
from kerasmlp.utils.checks import reject


def run_layer_out(
    data: ImageSet,
    plan: LayerOutPlan,
    run_dir: str | os.PathLike,
    *,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Trains every mode × seed of a plan; arguments and report as of `run_experiment`."""
    if data.channels != NETWORKS[plan.network].channels:
        kind = "grey" if data.channels == 1 else "colour"
        reject("network", f"must be one for {kind} images, as the data holds", plan.network)
    return run_experiment(
        data,
        plan,
        run_dir,
        "layerout",
        train=train_layer_out,
        presentation=presentation(len(plan.seeds)),
        resume=resume,
        force=force,
        progress=progress,
    )
