"""Trains an age CNN on an image store into one run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import keras
import numpy as np

from kerasmlp.data.stores.image_store import SPLITS, ImageStore
from kerasmlp.experiments.age_cnn import pictures
from kerasmlp.experiments.age_cnn.data import Faces, faces_of, some_faces
from kerasmlp.experiments.age_cnn.fitting import MEASURE, fit, in_float32, new_model, predict_years
from kerasmlp.experiments.age_cnn.recipe import AgeCNNRecipe
from kerasmlp.runs.run_folder import RunFolder, environment
from kerasmlp.utils.checks import check_int, check_seed
from kerasmlp.utils.drawing import drawing
from kerasmlp.utils.files import atomic_path, write_text
from kerasmlp.utils.tables import csv_of

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
    folder, started, shape = RunFolder(run_dir), time.time(), store.images.shape[1:]
    trained = new_model(recipe, shape, seed, precision)  # refused before the folder changes
    with folder.working(config, resume=resume, force=force):
        if folder.done:
            return folder.report()
        history = fit(
            trained,
            parts["train"],
            parts["validation"],
            recipe,
            seed=seed,
            checkpoint_path=folder / "checkpoint.npz",
            history_path=folder / "history.csv",
            progress=progress,
        )
        model = in_float32(trained, recipe, shape)
        predicted = {split: predict_years(model, part.images) for split, part in parts.items()}
        median = float(np.median(parts["train"].age_years))
        report = {
            "mae_years": {s: _mae(part, predicted[s]) for s, part in parts.items()},
            "median_baseline": {
                "age_years": median,
                "mae_years": {split: _mae(part, median) for split, part in parts.items()},
            },
            "rows": {split: len(part) for split, part in parts.items()},
            **_about(model, history, seed, precision, config, started),
        }
        _save(folder, model, history)
        with drawing(folder / "ages.png") as path:
            pictures.ages({s: part.age_years for s, part in parts.items()}, path)
        with drawing(folder / "faces.png") as path:
            pictures.faces(parts["test"], predicted["test"], path)
        _finish(folder, history, report, pictures.TRAINING)
        return report


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
    folder, started, shape = RunFolder(run_dir), time.time(), store.images.shape[1:]
    trained = new_model(recipe, shape, seed, precision)  # refused before the folder changes
    with folder.working(config, resume=resume, force=force):
        if folder.done:
            return folder.report()
        for layer in trained.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.9
        history = fit(
            trained,
            faces,
            faces,
            recipe,
            seed=seed,
            checkpoint_path=folder / "checkpoint.npz",
            history_path=folder / "history.csv",
            passes=OVERFIT_PASSES,
            learning_rate=keras.optimizers.schedules.CosineDecay(
                recipe.learning_rate, OVERFIT_PASSES * recipe.epochs
            ),
            progress=progress,
        )
        model = in_float32(trained, recipe, shape)
        predicted = predict_years(model, faces.images)
        report = {
            "mae_years": _mae(faces, predicted),
            "rows": {"train": count},
            **_about(model, history, seed, precision, config, started),
        }
        _save(folder, model, history)
        with drawing(folder / "faces.png") as path:
            pictures.faces(faces, predicted, path)
        _finish(folder, history, report, pictures.BY_HEART)
        return report


def _config(kind: str, store: ImageStore, recipe: AgeCNNRecipe, seed: int, precision: str) -> dict:
    return {
        "kind": kind,
        "recipe": recipe.to_config(),
        "precision": precision,
        "seed": seed,
        "data_digest": store.digest(),
    }


def _mae(part: Faces, predicted: np.ndarray | float) -> float:
    return float(np.abs(part.age_years.astype(np.float64) - predicted).mean())


def _about(model, history, seed, precision, config, started) -> dict:
    best = min(range(len(history)), key=lambda k: history[k][MEASURE])
    trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    total = model.count_params()
    return {
        "epochs": len(history),
        "best_epoch": best + 1,
        "parameters": {"total": total, "trainable": trainable, "frozen": total - trainable},
        "precision": precision,
        "seconds": {"total": time.time() - started},
        "seed": seed,
        "data_digest": config["data_digest"],
        **environment(),
    }


def _save(folder: RunFolder, model: keras.Model, history: list[dict]) -> None:
    write_text(folder / "history.csv", csv_of(history))
    with atomic_path(folder / "model.keras") as temporary:
        model.save(temporary)


def _finish(folder: RunFolder, history: list[dict], report: dict, lines: Mapping[str, str]) -> None:
    with drawing(folder / "curves.png") as path:
        pictures.curves(history, path, lines=lines)
    folder.finish(report)
    (folder / "checkpoint.npz").unlink(missing_ok=True)
