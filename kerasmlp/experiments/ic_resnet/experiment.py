"""The IC paper's experiments on CIFAR: arrangements × seeds, a run folder each, one table."""

from __future__ import annotations

import os
from collections.abc import Callable

import keras
import numpy as np

from kerasmlp.experiments.ic_resnet.plan import CifarPlan, CifarRun
from kerasmlp.experiments.image_runs import (
    Presentation,
    percent_of,
    run_experiment,
    whole_seconds,
)
from kerasmlp.models.arrangements import ARRANGEMENTS
from kerasmlp.models.ic_resnet import ICResNet
from kerasmlp.runs.model import in_float32
from kerasmlp.training.image_batches import ImageSet
from kerasmlp.training.images import ImageTraining, scheduled_rate
from kerasmlp.training.train_run import train_run


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
    how = {"resume": resume, "force": force, "progress": progress}
    shown = presentation(plan.depth, plan.bottleneck, len(plan.seeds))
    return run_experiment(
        data, plan, run_dir, "cifar", train=train_cifar, presentation=shown, **how
    )


def presentation(depth: int, bottleneck: bool, num_seeds: int) -> Presentation:
    """The results as the paper's Table 1 and Figure 4 show them.

    Example:

    >>> row = {"arrangement": "relu-ic-conv", "bottleneck": True, "seed": 0, "seconds": 60.4,
    ...     "test_accuracy": 0.9292, "best_test_accuracy": 0.9301, "mean_test_accuracy": 0.88,
    ...     "mean_fall": 0.0051}
    >>> shown = presentation(164, True, 1)
    >>> print(shown.markdown_of(shown.summarize([row])).splitlines()[-1])
    | ResNet-B | 164 | 3×{ReLU-IC-Conv2D} | 92.92 | 93.01 | 88.00 | 0.51 | 60 |
    """
    seeds = "1 seed" if num_seeds == 1 else f"{num_seeds} seeds"
    return Presentation(
        keys=("arrangement", "bottleneck", "seed"),
        numbers=("test_accuracy", "best_test_accuracy", "mean_test_accuracy", "mean_fall"),
        panels={"val_accuracy": "test accuracy", "loss": "training loss"},
        title_of=_title_of,
        caption=f"Test accuracy at the end of training, mean ± standard deviation of {seeds}.\n"
        "The mean of all epochs tells how fast it learns; the mean fall, the sum of all falls of "
        "test accuracy from an epoch to the next by the number of epochs, how unsteadily.",
        columns={
            "Model": lambda _: "ResNet-B" if bottleneck else "ResNet",
            "Depth": lambda _: str(depth),
            "Layers in residual unit": lambda values: values["title"],
            "Test accuracy (%)": percent_of("test_accuracy"),
            "Best epoch (%)": percent_of("best_test_accuracy"),
            "Mean of all epochs (%)": percent_of("mean_test_accuracy"),
            "Mean fall per epoch (%)": percent_of("mean_fall"),
            "Training (s)": whole_seconds,
        },
    )


def _title_of(row: dict) -> str:
    title = ARRANGEMENTS[row["arrangement"]]
    return title if title == "Baseline" else f"{3 if row['bottleneck'] else 2}×{{{title}}}"


def train_cifar(
    data: ImageSet,
    plan: CifarPlan,
    run: CifarRun,
    run_dir: str | os.PathLike,
    *,
    data_digest: str,
    on_epoch: Callable[[], None] = lambda: None,
) -> dict:
    """Trains one run of a plan, or goes on with it; a finished one is not computed again.

    Args:
        data: Images; the test part is measured after every epoch, as in the paper.
        plan: Hyperparameters.
        run: Arrangement and seed.
        run_dir: Folder of this run.
        data_digest: Of `data`.
        on_epoch: Called after each epoch.

    Returns:
        The report, as in `report.json`. The saved model is float32 and takes pixels,
        0 to 255: it subtracts the mean of each pixel itself.

    Raises:
        InputError: if the folder cannot be used or the weights diverge.

    Reference: Chen et al., "Rethinking the Usage of Batch Normalization and
    Dropout in the Training of Deep Neural Networks", 2019, section 4.2.
    Deviation: what a shift leaves empty is black before the mean image is
    subtracted; He et al. fill up with the mean.
    """
    training = CifarTraining(data, plan, run, data_digest)
    return train_run(training, run_dir, resume=True, on_epoch=lambda done: on_epoch())


class CifarTraining(ImageTraining):
    """One run of a plan, as `train_run` takes it."""

    normalized = False

    def __init__(self, data: ImageSet, plan: CifarPlan, run: CifarRun, data_digest: str):
        self.run = run
        config = {"kind": "cifar-run", "arrangement": run.arrangement, "seed": run.seed}
        super().__init__(data, plan, config, data_digest)

    def network(self) -> keras.Model:
        return build(self.data, self.plan, self.run)

    def optimizer(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(scheduled_rate(self.plan, self.steps))

    def outcome(self, model: keras.Model, history: list[dict]) -> tuple[keras.Model, dict]:
        accuracies = np.array([row["val_accuracy"] for row in history])
        return in_float32(model, self.network), {
            "arrangement": self.run.arrangement,
            "depth": self.plan.depth,
            "bottleneck": self.plan.bottleneck,
            "mean_test_accuracy": float(accuracies.mean()),
            "mean_fall": float(np.maximum(-np.diff(accuracies), 0).sum() / self.plan.epochs),
        }


def build(data: ImageSet, plan: CifarPlan, run: CifarRun) -> keras.Model:
    """The network of a run, with pixels 0 to 255 as its input."""
    classes = {"num_classes": data.num_classes, "channels": data.channels}
    network = ICResNet(**plan.network(run), **classes)
    mean = data.x_train.mean(axis=0, dtype=np.float64) / 255
    inputs = keras.Input(network.input.shape[1:], name="image")
    scaling = {"offset": (-mean).tolist(), "dtype": "float32", "name": "less_the_mean_image"}
    return keras.Model(inputs, network(keras.layers.Rescaling(1 / 255, **scaling)(inputs)))
