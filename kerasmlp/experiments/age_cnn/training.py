"""Trains an age CNN on an image store into one run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.stores.image_store import SPLITS, ImageStore
from kerasmlp.experiments.age_cnn import pictures
from kerasmlp.experiments.age_cnn.data import faces_of, some_faces
from kerasmlp.experiments.age_cnn.fitting import (
    MEASURE,
    compile_for_years,
    course_of,
    new_model,
    predict_years,
)
from kerasmlp.experiments.age_cnn.recipe import AgeCNNRecipe
from kerasmlp.runs.model import in_float32
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.fit import Course
from kerasmlp.training.train_run import Measured, train_run
from kerasmlp.utils.checks import check_int, check_seed

OVERFIT_PASSES = 20
"""Passes over the few images in an epoch of `overfit_age_cnn`."""


def train_age_cnn(
    store: ImageStore,
    recipe: AgeCNNRecipe,
    run_dir: str | os.PathLike,
    *,
    rows: int | None = None,
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
        precision: Policy to train with; the saved model is float32.
        seed: Decides the rows, initial weights and orders.
        resume: Go on with a killed run.
        force: Replace what is in the folder.
        progress: Show a bar.

    Returns:
        The report, as in `report.json`, with the MAE of the model and of the median
        age of the rows trained on.

    Raises:
        InputError: if the data cannot be trained on or the folder not used.
    """
    check_seed(check_int("seed", seed, minimum=0))
    parts = {split: faces_of(store, split) for split in SPLITS}
    if rows is not None:
        parts["train"] = some_faces(parts["train"], rows, "rows", seed)
    recipe.require_batch(len(parts["train"]))
    config = _config("age-cnn", store, recipe, seed, precision) | {"rows": rows}
    training = AgeCNNTraining(parts, recipe, config)
    return train_run(training, run_dir, resume=resume, force=force, progress=progress)


def overfit_age_cnn(
    store: ImageStore,
    recipe: AgeCNNRecipe,
    run_dir: str | os.PathLike,
    *,
    count: int,
    precision: str = "float32",
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Learns a few images by heart, without penalties: who cannot is too small or broken.

    All images are one batch, and the learning rate falls to zero along half a
    cosine. The MAE is that of the model as it answers, with moving statistics of
    batch norm, which follow faster here (momentum 0.9) as there are few steps.

    Args:
        store: As for `train_age_cnn`.
        recipe: Network, learning rate, and epochs of 20 passes each.
        run_dir: Folder to write.
        count: Images of the split `train`, drawn at random.
        precision: As for `train_age_cnn`.
        seed: As for `train_age_cnn`.
        resume: Go on with a killed run.
        force: Replace what is in the folder.
        progress: Show a bar.

    Returns:
        The report, as in `report.json`; `mae_years` is a number.

    Raises:
        InputError: if the data cannot be trained on or the folder not used.

    Reference: Dalva and Altındış, section III-C.
    """
    check_seed(check_int("seed", seed, minimum=0))
    faces = some_faces(faces_of(store, "train"), count, "overfit", seed)
    recipe = recipe.replace(batch_size=count, regularization=0.0)
    config = _config("age-cnn-overfit", store, recipe, seed, precision) | {"count": count}
    training = LearningByHeart({"train": faces}, recipe, config)
    return train_run(training, run_dir, resume=resume, force=force, progress=progress)


def _config(kind: str, store: ImageStore, recipe: AgeCNNRecipe, seed: int, precision: str) -> dict:
    return {
        "kind": kind,
        "recipe": recipe.to_config(),
        "precision": precision,
        "seed": seed,
        "data_digest": store.digest(),
    }


class AgeCNNTraining:
    """A training with a validation and a test, as `train_run` takes it.

    Args:
        parts: Images and ages by split.
        recipe: Network and hyperparameters.
        config: Decides the result, among it `seed` and `precision`.

    Raises:
        InputError: if the network does not fit the images.
    """

    files = ("curves.png", "ages.png", "faces.png")

    def __init__(self, parts: Mapping[str, Examples], recipe: AgeCNNRecipe, config: dict[str, Any]):
        self.parts, self.recipe, self.config = parts, recipe, config
        self._model = self._new(config["precision"])  # refused before the folder changes

    def _new(self, precision: str) -> keras.Model:
        shape = self.parts["train"].inputs.shape[1:]
        return new_model(self.recipe, shape, self.config["seed"], precision)

    def make(self) -> keras.Model:
        compile_for_years(self._model, self.recipe.learning_rate)
        return self._model

    def course(self, model: keras.Model) -> Course:
        parts, seed = self.parts, self.config["seed"]
        return course_of(parts["train"], parts["validation"], self.recipe, seed=seed)

    def measure(self, model: keras.Model, history: list[dict], run: RunFolder) -> Measured:
        plain, about = self._plain(model, history)
        predicted = {s: predict_years(plain, part.inputs) for s, part in self.parts.items()}
        median = float(np.median(self.parts["train"].targets))
        report = {
            "mae_years": {s: _mae(part, predicted[s]) for s, part in self.parts.items()},
            "median_baseline": {
                "age_years": median,
                "mae_years": {split: _mae(part, median) for split, part in self.parts.items()},
            },
            **about,
        }
        ages, test = {s: part.targets for s, part in self.parts.items()}, self.parts["test"]
        return Measured(plain, report, {
            "ages.png": lambda path: pictures.ages(ages, path),
            "faces.png": lambda path: pictures.faces(test, predicted["test"], path),
            "curves.png": lambda path: pictures.curves(history, path),
        })  # fmt: skip

    def _plain(self, model: keras.Model, history: list[dict]) -> tuple[keras.Model, dict]:
        """The model to save, and what any report says."""
        plain = in_float32(model, lambda: self._new("float32"))
        best = min(range(len(history)), key=lambda k: history[k][MEASURE])
        trainable = sum(int(np.prod(w.shape)) for w in plain.trainable_weights)
        total = plain.count_params()
        return plain, {
            "best_epoch": best + 1,
            "parameters": {"total": total, "trainable": trainable, "frozen": total - trainable},
            "rows": {split: len(part) for split, part in self.parts.items()},
        }


class LearningByHeart(AgeCNNTraining):
    """A training on a few images, which are the validation too, as `train_run` takes it."""

    files = ("curves.png", "faces.png")

    def make(self) -> keras.Model:
        for layer in self._model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.9
        rate, steps = self.recipe.learning_rate, OVERFIT_PASSES * self.recipe.epochs
        compile_for_years(self._model, keras.optimizers.schedules.CosineDecay(rate, steps))
        return self._model

    def course(self, model: keras.Model) -> Course:
        faces, how = self.parts["train"], {"seed": self.config["seed"], "passes": OVERFIT_PASSES}
        return course_of(faces, faces, self.recipe, **how)

    def measure(self, model: keras.Model, history: list[dict], run: RunFolder) -> Measured:
        plain, about = self._plain(model, history)
        faces = self.parts["train"]
        predicted = predict_years(plain, faces.inputs)
        lines = pictures.BY_HEART
        return Measured(plain, {"mae_years": _mae(faces, predicted), **about}, {
            "faces.png": lambda path: pictures.faces(faces, predicted, path),
            "curves.png": lambda path: pictures.curves(history, path, lines=lines),
        })  # fmt: skip


def _mae(part: Examples, predicted: np.ndarray | float) -> float:
    return float(np.abs(part.targets.astype(np.float64) - predicted).mean())
