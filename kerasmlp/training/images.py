"""One training on images in one run folder: what the experiments on images share."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import keras
import tensorflow as tf

from kerasmlp.callbacks.checkpoint import Checkpoint
from kerasmlp.runs.run_folder import RunFolder, environment
from kerasmlp.training.image_batches import ImageSet, augmented_batches, plain_batches
from kerasmlp.training.precision import computing_in
from kerasmlp.utils.checks import DivergedError
from kerasmlp.utils.files import atomic_path, write_text
from kerasmlp.utils.tables import csv_of


class Schedule(Protocol):
    """Of a plan, what a training of its runs needs to know."""

    epochs: int
    batch_size: int
    learning_rate: float
    precision: str

    def rates(self) -> dict[int, float]: ...


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
            raise DivergedError(self.learning_rate)
        logs["seconds"] = self._seconds


def train_on_images(
    data: ImageSet,
    plan: Schedule,
    run_dir: str | os.PathLike,
    config: dict,
    *,
    seed: int,
    make: Callable[[int], keras.Model],
    finish: Callable[[list[dict]], tuple[keras.Model, dict]],
    normalized: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    on_epoch: Callable[[], None] = lambda: None,
) -> dict:
    """Trains one run, or goes on with it; a finished one is not computed again.

    Args:
        data: Images; the test part is measured after every epoch.
        plan: Epochs, batch size, learning rate, precision.
        run_dir: Folder of this run.
        config: Decides the result.
        seed: Of order and augmentation, and of what `make` draws.
        make: From the number of steps of an epoch to the compiled model, in the
            plan's precision.
        finish: From the history, a dict per epoch, to the model to save and
            what the report says about it.
        normalized: Whether the model takes normalised images or pixels.
        callbacks: Of the fit.
        on_epoch: Called after each epoch.

    Returns:
        The report, as in `report.json`.

    Raises:
        InputError: if the folder cannot be used or the weights diverge.
    """
    folder = RunFolder(run_dir)
    with folder.working(config, resume=True, force=False):
        if folder.done:
            return folder.report()
        keras.utils.set_random_seed(seed)
        steps = len(data.x_train) // plan.batch_size
        with computing_in(plan.precision):
            model = make(steps)
        checkpoint = Checkpoint(folder / "checkpoint.npz", history_path=folder / "history.csv")
        first_epoch = checkpoint.restore(model)
        if first_epoch < plan.epochs:
            batches = augmented_batches(
                data.x_train,
                data.y_train,
                batch_size=plan.batch_size,
                num_epochs=plan.epochs,
                seed=seed,
                first_epoch=first_epoch,
                normalized=normalized,
            )
            tick = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: on_epoch())
            model.fit(
                batches,
                epochs=plan.epochs,
                initial_epoch=first_epoch,
                steps_per_epoch=steps,
                shuffle=False,
                validation_data=plain_batches(data.x_test, data.y_test, normalized=normalized),
                verbose=0,
                callbacks=[EpochEnd(plan.learning_rate), *callbacks, checkpoint, tick],
            )
        history = checkpoint.history
        network, report = finish(history)
        accuracies = [row["val_accuracy"] for row in history]
        seconds = [row["seconds"] for row in history]
        report = {
            **report,
            "seed": seed,
            "test_accuracy": accuracies[-1],
            "best_test_accuracy": max(accuracies),
            "epochs": plan.epochs,
            "trainable_parameters": sum(math.prod(w.shape) for w in network.trainable_weights),
            "seconds": {"fit": sum(seconds), "median_epoch": sorted(seconds)[len(seconds) // 2]},
            **environment(),
        }
        write_text(folder / "history.csv", csv_of(history))
        with atomic_path(folder / "model.keras") as temporary:
            network.save(temporary)
        folder.finish(report)
        (folder / "checkpoint.npz").unlink(missing_ok=True)
        return report


def scheduled_rate(plan: Schedule, steps: int):
    """The learning rate of a plan, for epochs of so many steps."""
    epochs, rates = zip(*sorted(plan.rates().items()), strict=True)
    if len(rates) == 1:
        return rates[0]
    # The rate of a boundary's own step is still the one before.
    boundaries = [epoch * steps - 1 for epoch in epochs[1:]]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, list(rates))


def compile_classifier(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Compiles a model that learns classes."""
    model.compile(
        optimizer,
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        # XLA's convolutions are slow on CPUs.
        jit_compile="auto" if tf.config.list_physical_devices("GPU") else False,
    )
    model.optimizer.build(model.trainable_variables)
