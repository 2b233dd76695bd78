"""A training on images in two parts: what the experiments on images share."""

import time
from abc import ABC, abstractmethod
from typing import Any, Protocol

import keras

from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.fit import Course, compile_model
from kerasmlp.training.image_batches import ImageSet, augmented_batches, plain_batches
from kerasmlp.training.precision import computing_in
from kerasmlp.training.train_run import Measured
from kerasmlp.utils.tensorflow_import import require_tensorflow


class Plan(Protocol):
    """Of a plan of runs, what a training of one of them needs to know."""

    epochs: int
    batch_size: int
    learning_rate: float
    precision: str

    def rates(self) -> dict[int, float]: ...

    def to_config(self) -> dict[str, Any]: ...


class EpochSeconds(keras.callbacks.Callback):
    """Times the training of each epoch, without the test."""

    def on_epoch_begin(self, epoch, logs=None):
        self._started = time.perf_counter()

    def on_test_begin(self, logs=None):
        self._seconds = time.perf_counter() - self._started

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = self._seconds


class ImageTraining(ABC):
    """A classifier of images in two parts, as `train_run` takes it; a kind of its own says how.

    Args:
        data: Images; the test part is measured after every epoch.
        plan: Whose run it is.
        config: What tells this run from others: `kind` and `seed`, among other things.
        data_digest: Of the images.
    """

    files = ()
    normalized = True
    """Whether the network takes normalised images or pixels."""

    def __init__(self, data: ImageSet, plan: Plan, config: dict[str, Any], data_digest: str):
        self.data, self.plan = data, plan
        self.steps = len(data.train) // plan.batch_size
        of_many = ("arrangements", "modes", "erasing", "seeds")
        shared = {k: v for k, v in plan.to_config().items() if k not in of_many}
        self.config = {**config, **shared, "data_digest": data_digest}
        self.callbacks: list[keras.callbacks.Callback] = [EpochSeconds()]

    @abstractmethod
    def network(self) -> keras.Model:
        """The network, as it is trained."""

    @abstractmethod
    def optimizer(self) -> keras.optimizers.Optimizer:
        """Of the network."""

    @abstractmethod
    def outcome(self, model: keras.Model, history: list[dict]) -> tuple[keras.Model, dict]:
        """The model to save, which takes pixels, and what the report says of this kind."""

    def make(self) -> keras.Model:
        keras.utils.set_random_seed(self.config["seed"])
        with computing_in(self.plan.precision):
            model, loss = self.network(), "sparse_categorical_crossentropy"
            require_tensorflow()
            compile_model(model, self.optimizer(), loss, metrics=["accuracy"])
        return model

    def course(self, model: keras.Model) -> Course:
        data, plan, test = self.data, self.plan, self.data.test

        def batches(epochs: range):
            return augmented_batches(
                data.train.inputs,
                data.train.targets,
                batch_size=plan.batch_size,
                num_epochs=epochs.stop,
                seed=self.config["seed"],
                first_epoch=epochs.start,
                normalized=self.normalized,
            )

        return Course(
            batches=batches,
            epochs=plan.epochs,
            steps=self.steps,
            learning_rate=plan.learning_rate,
            validation=plain_batches(test.inputs, test.targets, normalized=self.normalized),
            callbacks=self.callbacks,
        )

    def measure(
        self, model: keras.Model, history: list[dict], run: RunFolder, *, progress: bool
    ) -> Measured:
        with computing_in("float32"):
            plain, report = self.outcome(model, history)
        accuracies = [row["val_accuracy"] for row in history]
        seconds = [row["seconds"] for row in history]
        report |= {
            "test_accuracy": accuracies[-1],
            "best_test_accuracy": max(accuracies),
            "seconds": {"fit": sum(seconds), "median_epoch": sorted(seconds)[len(seconds) // 2]},
        }
        return Measured(plain, report)


def scheduled_rate(plan: Plan, steps: int):
    """The learning rate of a plan, for epochs of so many steps."""
    epochs, rates = zip(*sorted(plan.rates().items()), strict=True)
    if len(rates) == 1:
        return rates[0]
    # The rate of a boundary's own step is still the one before.
    boundaries = [epoch * steps - 1 for epoch in epochs[1:]]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, list(rates))
