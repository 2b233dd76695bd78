"""Trains an age CNN on an image store into one run folder."""

import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmlp.data.examples import Examples
from kerasmlp.data.stores.image_store import SPLITS, ImageStore
from kerasmlp.experiments.age_cnn import pictures
from kerasmlp.experiments.age_cnn.data import faces_of, shuffled_batches, some_faces
from kerasmlp.experiments.age_cnn.recipe import AgeCNNRecipe
from kerasmlp.models.age_cnn import AgeCNN
from kerasmlp.runs.model import in_float32
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.fit import Course, compile_model
from kerasmlp.training.image_batches import plain_batches
from kerasmlp.training.precision import PRECISIONS
from kerasmlp.training.train_run import Measured, train_run
from kerasmlp.utils.checks import check_choice, check_int, check_seed
from kerasmlp.utils.tensorflow_import import require_tensorflow

_PREDICT_ROWS = 256
_MEASURE = "val_mae_years"


def train_age_cnn(
    store: ImageStore,
    recipe: AgeCNNRecipe,
    run_dir: str | os.PathLike,
    *,
    rows: int | None = None,
    overfit: int | None = None,
    precision: str = "float32",
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Trains on the split `train`, keeps the best weights by `validation`, measures on all three.

    Killed at any moment and started again with `resume=True` it ends with the
    weights of an uninterrupted run; a finished run is not computed again.

    Args:
        store: Grey images with `age_years` and `split`.
        recipe: Network and hyperparameters.
        run_dir: Folder to write.
        rows: Of the split `train`, drawn at random; None takes all.
        overfit: As many images, learned by heart instead: see `LearningByHeart`.
        precision: Policy to train with; the saved model is float32.
        seed: Decides the rows, initial weights and orders.
        resume, force, progress: As of `train`.

    Returns:
        The report, as in `report.json`, with the MAE of the model and of the median
        age of the rows trained on; of images learned by heart `mae_years` is a number.

    Raises:
        InputError: if the data cannot be trained on or the folder not used.
    """
    check_seed(check_int("seed", seed, minimum=0))
    if overfit is not None:
        parts = {"train": some_faces(faces_of(store, "train"), overfit, "overfit", seed)}
        recipe = recipe.replace(batch_size=overfit, regularization=0.0)
        kind, drawn = LearningByHeart, {"count": overfit}
    else:
        parts = {split: faces_of(store, split) for split in SPLITS}
        if rows is not None:
            parts["train"] = some_faces(parts["train"], rows, "rows", seed)
        recipe.require_batch(len(parts["train"]))
        kind, drawn = AgeCNNTraining, {"rows": rows}
    config = {"kind": kind.kind, "recipe": recipe.to_config(), "precision": precision}
    config |= {"seed": seed, "data_digest": store.digest(), **drawn}
    training = kind(parts, recipe, config)
    return train_run(training, run_dir, resume=resume, force=force, progress=progress)


class AgeCNNTraining:
    """A training by MAE and Adam that ends with the best weights, as `train_run` takes it.

    Args:
        parts: Images and ages by split; those to train on fill a batch or more.
        config: Decides the result, among it `seed` and `precision`.

    Raises:
        InputError: if the network does not fit the images.
    """

    kind = "age-cnn"
    files = ("curves.png", "ages.png", "faces.png")
    lines = pictures.TRAINING
    passes = 1
    """Over the images, in an epoch."""

    def __init__(self, parts: Mapping[str, Examples], recipe: AgeCNNRecipe, config: dict[str, Any]):
        self.parts, self.recipe, self.config = parts, recipe, config
        check_choice("precision", config["precision"], PRECISIONS)
        self._model = self._new(config["precision"])  # refused before the folder changes

    def _new(self, precision: str) -> keras.Model:
        """All that is random in this process follows from the seed."""
        seed = self.config["seed"]
        keras.utils.set_random_seed(seed)
        return AgeCNN(
            self.recipe.specification,
            input_shape=self.parts["train"].inputs.shape[1:],
            regularization=self.recipe.regularization,
            seed=seed,
            dtype=precision,
        )

    def rate(self) -> float | keras.optimizers.schedules.LearningRateSchedule:
        return self.recipe.learning_rate

    def make(self) -> keras.Model:
        metrics = [keras.metrics.MeanAbsoluteError(name="mae_years")]
        optimizer = keras.optimizers.Adam(self.rate())
        require_tensorflow()
        compile_model(self._model, optimizer, "mean_absolute_error", metrics=metrics)
        return self._model

    def course(self, model: keras.Model) -> Course:
        recipe, training = self.recipe, self.parts["train"]
        validation = self.parts.get("validation", training)
        steps = len(training) // recipe.batch_size

        def batches(epochs: range) -> tf.data.Dataset:
            numbers = range(self.passes * epochs.start, self.passes * epochs.stop)
            how = {"batch_size": recipe.batch_size, "steps": steps, "seed": self.config["seed"]}
            return shuffled_batches(training, epochs=numbers, **how)

        ages, plain = validation.targets[:, None], {"normalized": False}
        return Course(
            batches=batches,
            epochs=recipe.epochs,
            steps=self.passes * steps,
            learning_rate=recipe.learning_rate,
            monitor=_MEASURE,
            patience=recipe.patience or recipe.epochs,
            validation=plain_batches(validation.inputs, ages, batch_size=_PREDICT_ROWS, **plain),
        )

    def measure(
        self, model: keras.Model, history: list[dict], run: RunFolder, *, progress: bool
    ) -> Measured:
        plain = in_float32(model, lambda: self._new("float32"))
        predicted = {s: predict_years(plain, part.inputs) for s, part in self.parts.items()}
        ages = {split: part.targets for split, part in self.parts.items()}
        split, years = list(predicted.items())[-1]
        drawn = {
            "ages.png": lambda path: pictures.ages(ages, path),
            "faces.png": lambda path: pictures.faces(self.parts[split], years, path),
            "curves.png": lambda path: pictures.curves(history, path, lines=self.lines),
        }
        best = min(range(len(history)), key=lambda k: history[k][_MEASURE])
        trainable = sum(int(np.prod(w.shape)) for w in plain.trainable_weights)
        total = plain.count_params()
        report = {
            **self._errors(predicted),
            "best_epoch": best + 1,
            "parameters": {"total": total, "trainable": trainable, "frozen": total - trainable},
            "rows": {s: len(part) for s, part in self.parts.items()},
        }
        return Measured(plain, report, {name: drawn[name] for name in self.files})

    def _errors(self, predicted: dict[str, np.ndarray]) -> dict[str, Any]:
        """Of the model, and of the median age of the images to train on."""
        median = float(np.median(self.parts["train"].targets))
        of_median = {split: _mae(part, median) for split, part in self.parts.items()}
        return {
            "mae_years": {s: _mae(part, predicted[s]) for s, part in self.parts.items()},
            "median_baseline": {"age_years": median, "mae_years": of_median},
        }


class LearningByHeart(AgeCNNTraining):
    """A training on a few images without penalties: who cannot learn them is too small or broken.

    All images are one batch, an epoch is 20 passes over them, and the learning rate
    falls to zero along half a cosine. The MAE is that of the model as it answers, with
    moving statistics of batch norm, which follow faster here (momentum 0.9) as there
    are few steps.

    Reference: Dalva and Altındış, "Age Estimation" (CS 559, Bilkent University), section III-C.
    """

    kind = "age-cnn-overfit"
    files = ("curves.png", "faces.png")
    lines = pictures.BY_HEART
    passes = 20

    def rate(self) -> keras.optimizers.schedules.LearningRateSchedule:
        steps = self.passes * self.recipe.epochs
        return keras.optimizers.schedules.CosineDecay(self.recipe.learning_rate, steps)

    def make(self) -> keras.Model:
        for layer in self._model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.9
        return super().make()

    def _errors(self, predicted: dict[str, np.ndarray]) -> dict[str, Any]:
        return {"mae_years": _mae(self.parts["train"], predicted["train"])}


def predict_years(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Ages `(rows,)` of images."""
    return model.predict(images, batch_size=_PREDICT_ROWS, verbose=0)[:, 0]


def _mae(part: Examples, predicted: np.ndarray | float) -> float:
    return float(np.abs(part.targets.astype(np.float64) - predicted).mean())
