"""Trains one network of LayerOut's experiments into one run folder."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import keras
import tensorflow as tf

from kerasmlp.callbacks.checkpoint import Checkpoint
from kerasmlp.callbacks.layer_out import LayerOut
from kerasmlp.checks import reject
from kerasmlp.files import atomic_path
from kerasmlp.image_batches import ImageSet, augmented_batches, plain_batches
from kerasmlp.layer_out.l2_sgd import L2SGD
from kerasmlp.layer_out.plan import LayerOutPlan, LayerOutRun
from kerasmlp.layers.random_erasing import RandomErasing
from kerasmlp.models.mnist_net import MNISTNet
from kerasmlp.models.vgg16 import VGG16
from kerasmlp.precision import computing_in
from kerasmlp.runs import RunFolder, environment
from kerasmlp.training import save_history

_BUILDERS = {"mnist": MNISTNet, "vgg16": VGG16}


class EpochEnd(keras.callbacks.Callback):
    """Times the training of each epoch, without the test; stops weights that diverge.

    Args:
        learning_rate: To be named where they do.
    """

    def __init__(self, learning_rate: float):
        super().__init__()
        self.learning_rate = learning_rate

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter()

    def on_test_begin(self, logs=None):
        self._seconds = time.perf_counter() - self._started

    def on_epoch_end(self, epoch, logs=None):
        if not all(math.isfinite(value) for value in logs.values()):
            reject("learning_rate", "must be lower: the weights diverged", self.learning_rate)
        logs["seconds"] = self._seconds


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
        The report, as in `report.json`.

    Raises:
        InputError: if the folder cannot be used or the weights diverge.
    """
    folder = RunFolder(run_dir)
    settings = plan.to_config()
    config = {
        "kind": "layerout-run",
        "mode": run.mode,
        "seed": run.seed,
        "random_erasing": run.erasing,
        **{k: v for k, v in settings.items() if k not in ("modes", "seeds", "erasing")},
        "data_digest": data_digest,
    }
    with folder.working(config, resume=True, force=False):
        if folder.done:
            return folder.report()
        keras.utils.set_random_seed(run.seed)
        steps = len(data.x_train) // plan.batch_size
        with computing_in(plan.precision):
            network = _BUILDERS[plan.network](num_classes=data.num_classes, seed=run.seed)
            model = with_random_erasing(network, run.seed) if run.erasing else network
            compile_model(model, plan, steps)
        checkpoint = Checkpoint(folder / "checkpoint.npz")
        first_epoch = checkpoint.restore(model)
        layer_out = None
        if (settings := plan.layer_out(run)) is not None:
            layer_out = LayerOut(**settings)
            layer_out.follow(model)
        if first_epoch < plan.epochs:
            batches = augmented_batches(
                data.x_train,
                data.y_train,
                batch_size=plan.batch_size,
                num_epochs=plan.epochs,
                seed=run.seed,
                first_epoch=first_epoch,
            )
            tick = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: on_epoch())
            ours = [layer_out] if layer_out else []
            model.fit(
                batches,
                epochs=plan.epochs,
                initial_epoch=first_epoch,
                steps_per_epoch=steps,
                shuffle=False,
                validation_data=plain_batches(data.x_test, data.y_test),
                verbose=0,
                callbacks=[EpochEnd(plan.learning_rate), *ours, checkpoint, tick],
            )
        history = checkpoint.history
        if layer_out:
            for row in history:
                row["frozen"] = " ".join(layer_out.names(int(row["epoch"])))
        report = _report(plan, run, network, layer_out, history) | environment()
        save_history(folder / "history.csv", history)
        with atomic_path(folder / "model.keras") as temporary:
            network.save(temporary)
        folder.finish(report)
        (folder / "checkpoint.npz").unlink(missing_ok=True)
        return report


def with_random_erasing(model: keras.Model, seed: int) -> keras.Model:
    """The same model, its images robbed of random rectangles in training."""
    inputs = keras.Input(model.input.shape[1:], name="image")
    return keras.Model(inputs, model(RandomErasing(seed=seed, name="random_erasing")(inputs)))


def compile_model(model: keras.Model, plan: LayerOutPlan, steps: int) -> None:
    """Compiles a model for the plan's SGD, with epochs of so many steps."""
    boundaries = [epoch * steps for epoch in plan.rate_falls_at()]
    rates = [plan.learning_rate * 0.1**k for k in range(len(boundaries) + 1)]
    rate = rates[0]
    if boundaries:
        # The rate of a boundary's own step is still the one before.
        before = [step - 1 for step in boundaries]
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(before, rates)
    model.compile(
        L2SGD(rate, momentum=0.9, l2=5e-4),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        # XLA's convolutions are slow on CPUs, and each pattern of frozen layers compiles anew.
        jit_compile="auto" if tf.config.list_physical_devices("GPU") else False,
    )
    model.optimizer.build(model.trainable_variables)


def _report(plan, run, network, layer_out, history) -> dict:
    accuracies = [row["val_accuracy"] for row in history]
    free = plan.epochs if layer_out is None else layer_out.warmup_epochs
    expected = 0.0 if layer_out is None else layer_out.expected_share
    return {
        "mode": run.mode,
        "random_erasing": run.erasing,
        "seed": run.seed,
        "test_accuracy": accuracies[-1],
        "best_test_accuracy": max(accuracies),
        "frozen_share": sum(row.get("frozen_share", 0.0) for row in history) / plan.epochs,
        "expected_frozen_share": expected * (plan.epochs - free) / plan.epochs,
        "probabilities": [] if layer_out is None else layer_out.probabilities.tolist(),
        "epochs": plan.epochs,
        "trainable_parameters": sum(math.prod(w.shape) for w in network.trainable_weights),
        "seconds": {
            "fit": sum(row["seconds"] for row in history),
            "median_epoch": sorted(row["seconds"] for row in history)[len(history) // 2],
        },
    }
