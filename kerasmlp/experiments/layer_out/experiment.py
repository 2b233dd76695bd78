"""The LayerOut paper's experiments: modes × seeds, a run folder each, one table."""

from __future__ import annotations

import os
from collections.abc import Callable

import keras

from kerasmlp.callbacks.layer_out import LayerOut
from kerasmlp.experiments.image_runs import (
    Presentation,
    percent_of,
    run_experiment,
    whole_seconds,
)
from kerasmlp.experiments.layer_out.plan import MODES, NETWORKS, LayerOutPlan, LayerOutRun
from kerasmlp.layers.random_erasing import RandomErasing
from kerasmlp.models.ic_resnet import ICResNet
from kerasmlp.models.mnist_net import MNISTNet
from kerasmlp.models.vgg16 import VGG16
from kerasmlp.runs.model import in_float32
from kerasmlp.training.image_batches import ImageSet, normalization
from kerasmlp.training.images import ImageTraining, scheduled_rate
from kerasmlp.training.l2_sgd import L2SGD
from kerasmlp.training.train_run import train_run
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
    how = {"resume": resume, "force": force, "progress": progress}
    shown = presentation(len(plan.seeds))
    return run_experiment(
        data, plan, run_dir, "layerout", train=train_layer_out, presentation=shown, **how
    )


def presentation(num_seeds: int) -> Presentation:
    """The results as the paper's tables show them.

    Example:

    >>> row = {"mode": "efreeze", "random_erasing": False, "seed": 0, "test_accuracy": 0.99,
    ...     "best_test_accuracy": 0.9908, "frozen_share": 0.223, "expected_frozen_share": 0.2,
    ...     "seconds": 61.2}
    >>> shown = presentation(1)
    >>> print(shown.markdown_of(shown.summarize([row])).splitlines()[-1])
    | 1 | LayerOut-efreeze | 99.00 | 99.08 | 22.3 (20.0) | 61 |
    """
    seeds = f"{num_seeds} seed{'s' * (num_seeds > 1)}"
    return Presentation(
        keys=("mode", "random_erasing", "seed"),
        numbers=("test_accuracy", "best_test_accuracy", "frozen_share", "expected_frozen_share"),
        panels={
            "loss": "training loss",
            "val_accuracy": "test accuracy",
            "frozen_share": "share of parameters frozen",
        },
        title_of=lambda row: MODES[row["mode"]] + ", random erasing" * row["random_erasing"],
        caption=f"Test accuracy, mean ± standard deviation of {seeds}.",
        columns={
            "S.No": lambda values: str(values["place"]),
            "Architecture": lambda values: values["title"],
            "Accuracy (%)": percent_of("test_accuracy"),
            "Best epoch (%)": percent_of("best_test_accuracy"),
            "Parameters frozen (expected) (%)": _frozen,
            "Training (s)": whole_seconds,
        },
    )


def _frozen(values: dict) -> str:
    observed, expected = values["frozen_share"]["mean"], values["expected_frozen_share"]["mean"]
    return f"{100 * observed:.1f} ({100 * expected:.1f})" if expected else "-"


def _resnet_110(**settings) -> keras.Model:
    return ICResNet(depth=110, arrangement="baseline", **settings)


_BUILDERS = {"mnist": MNISTNet, "vgg16": VGG16, "resnet-110": _resnet_110}


def train_layer_out(
    data: ImageSet,
    plan: LayerOutPlan,
    run: LayerOutRun,
    run_dir: str | os.PathLike,
    *,
    data_digest: str,
    on_epoch: Callable[[], None] = lambda: None,
) -> dict:
    """Trains one run of a plan, or goes on with it; a finished one is not computed again.

    Args:
        data: Images; the test part is measured after every epoch, as in the paper.
        plan: Hyperparameters.
        run: Mode, seed, random erasing.
        run_dir: Folder of this run.
        data_digest: Of `data`.
        on_epoch: Called after each epoch.

    Returns:
        The report, as in `report.json`. The saved model is float32 and takes pixels,
        0 to 255: it normalises them itself.

    Raises:
        InputError: if the folder cannot be used or the weights diverge.
    """
    training = LayerOutTraining(data, plan, run, data_digest)
    return train_run(training, run_dir, resume=True, on_epoch=lambda done: on_epoch())


class LayerOutTraining(ImageTraining):
    """One run of a plan, as `train_run` takes it."""

    def __init__(self, data: ImageSet, plan: LayerOutPlan, run: LayerOutRun, data_digest: str):
        config = {"kind": "layerout-run", "mode": run.mode, "seed": run.seed}
        super().__init__(data, plan, config | {"random_erasing": run.erasing}, data_digest)
        self.run, freezing = run, plan.layer_out(run)
        self.layer_out = None if freezing is None else LayerOut(**freezing)
        if self.layer_out:
            self.callbacks.append(self.layer_out)

    def network(self) -> keras.Model:
        network = build(self.data, self.plan, self.run)
        return with_random_erasing(network, self.run.seed) if self.run.erasing else network

    def optimizer(self) -> keras.optimizers.Optimizer:
        return optimizer_of(self.plan, self.steps)

    def outcome(self, model: keras.Model, history: list[dict]) -> tuple[keras.Model, dict]:
        epochs, layer_out = self.plan.epochs, self.layer_out
        free, expected = epochs, 0.0
        if layer_out:
            layer_out.follow(model)
            free, expected = layer_out.warmup_epochs, layer_out.expected_share
            for row in history:
                row["frozen"] = " ".join(layer_out.names(int(row["epoch"])))
        network = model.layers[-1] if self.run.erasing else model
        return taking_pixels(self.data, self.plan, self.run, network), {
            "mode": self.run.mode,
            "random_erasing": self.run.erasing,
            "frozen_share": sum(row.get("frozen_share", 0.0) for row in history) / epochs,
            "expected_frozen_share": expected * (epochs - free) / epochs,
            "probabilities": layer_out.probabilities.tolist() if layer_out else [],
        }


def build(data: ImageSet, plan: LayerOutPlan, run: LayerOutRun) -> keras.Model:
    return _BUILDERS[plan.network](num_classes=data.num_classes, seed=run.seed)


def taking_pixels(
    data: ImageSet, plan: LayerOutPlan, run: LayerOutRun, network: keras.Model
) -> keras.Model:
    """The trained network in float32, behind the normalisation that it was trained with."""
    plain = in_float32(network, lambda: build(data, plan, run))
    inputs = keras.Input(network.input.shape[1:], name="image")
    return keras.Model(inputs, plain(normalization(data.channels)(inputs)))


def with_random_erasing(model: keras.Model, seed: int) -> keras.Model:
    """The same model, its images robbed of random rectangles in training."""
    inputs = keras.Input(model.input.shape[1:], name="image")
    return keras.Model(inputs, model(RandomErasing(seed=seed, name="random_erasing")(inputs)))


def optimizer_of(plan: LayerOutPlan, steps: int) -> keras.optimizers.Optimizer:
    """The plan's SGD, for epochs of so many steps."""
    return L2SGD(scheduled_rate(plan, steps), momentum=0.9, l2=NETWORKS[plan.network].l2)
