"""Searches learning rate and regularisation of an age CNN in two stages, into one run folder."""

from __future__ import annotations

import logging
import math
import os
import time

import keras
import numpy as np
from tqdm import tqdm

from kerasmlp.data.examples import Examples
from kerasmlp.data.stores.image_store import ImageStore
from kerasmlp.experiments.age_cnn import pictures
from kerasmlp.experiments.age_cnn.data import faces_of, some_faces
from kerasmlp.experiments.age_cnn.fitting import (
    compile_for_years,
    course_of,
    new_model,
    predict_years,
)
from kerasmlp.experiments.age_cnn.recipe import AgeCNNRecipe
from kerasmlp.experiments.age_cnn.stages import STAGES, StageOracle
from kerasmlp.runs.environment import environment
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.checks import check_int, check_seed, reject
from kerasmlp.utils.drawing import drawing
from kerasmlp.utils.files import write_json, write_text
from kerasmlp.utils.tables import csv_of


def search_age_cnn(
    store: ImageStore,
    recipe: AgeCNNRecipe,
    run_dir: str | os.PathLike,
    *,
    trials: int = 50,
    rows: int = 500,
    epochs: int = 5,
    precision: str = "float32",
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Tries random values, first in wide ranges, then in the narrow ones of the paper.

    Each trial is a short training on the same rows from the same seed, measured once
    on the whole split `validation`. Killed at any moment and started again with
    `resume=True`, trials that have ended are not run again, and the search ends with
    the same ones. The best values on top of the recipe are written as `best.json`.

    Args:
        store: As for `train_age_cnn`.
        recipe: What holds for all that is not searched.
        run_dir: Folder to write.
        trials: Of each stage.
        rows: Of the split `train`, drawn at random.
        epochs: Of a trial.
        precision: Policy to train with.
        seed: Decides the values, the rows, initial weights and orders.
        resume: Go on with a killed search.
        force: Replace what is in the folder.
        progress: Show a bar over trials.

    Returns:
        The report, as in `report.json`; `best` is the row of the best trial.

    Raises:
        InputError: if the data cannot be trained on, the folder not used, or every
            trial diverged.

    Reference: Dalva and Altındış, "Age Estimation" (CS 559, Bilkent University), section IV-A.
    """
    check_seed(check_int("seed", seed, minimum=0))
    check_int("trials", trials, minimum=1)
    check_int("epochs", epochs, minimum=1)
    training = some_faces(faces_of(store, "train"), rows, "rows", seed)
    validation = faces_of(store, "validation")
    recipe.require_batch(len(training))
    new_model(recipe, store.images.shape[1:], seed, precision)  # refused before the folder changes
    config = {
        "kind": "age-cnn-tuning",
        "recipe": recipe.to_config(),
        "trials": trials,
        "rows": rows,
        "trial_epochs": epochs,
        "precision": precision,
        "seed": seed,
        "data_digest": store.digest(),
    }
    folder, started = RunFolder(run_dir), time.time()
    files = ("best.json", "trials.csv", "trials.png", "search/**")
    with folder.working(config, resume=resume, force=force, files=files):
        if folder.done:
            return folder.report()
        # Every trial is a network of its own, which TensorFlow takes for one traced too often.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        found = []
        total = trials * len(STAGES)
        with tqdm(total=total, desc="search", unit="trial", disable=not progress) as bar:
            for number in range(len(STAGES)):
                path = folder / "search" / f"stage-{number + 1}.json"
                oracle = StageOracle(number, trials, seed, path)
                bar.update(len(oracle.completed()))
                while (trial := oracle.create_trial("here")).status == "RUNNING":
                    values = oracle.values_of(trial)
                    mae = _run(recipe.replace(epochs=epochs, **values), training, validation,
                               seed, precision)  # fmt: skip
                    oracle.update_trial(trial.trial_id, {"val_mae_years": mae})
                    trial.status = "COMPLETED"
                    oracle.end_trial(trial)
                    bar.update()
                found += oracle.rows()
        finite = [row for row in found if math.isfinite(row["val_mae_years"])]
        if not finite:
            reject("store", "must hold images on which not every trial diverges", str(store.name))
        best = min(finite, key=lambda row: row["val_mae_years"])
        values = {name: best[name] for name in STAGES[0]}
        write_json(folder / "best.json", recipe.replace(**values).to_config())
        write_text(folder / "trials.csv", csv_of(found))
        report = {
            "best": best,
            "trials": {"run": len(found), "diverged": len(found) - len(finite)},
            "rows": {"train": len(training), "validation": len(validation)},
            "precision": precision,
            "seconds": {"total": time.time() - started},
            "seed": seed,
            "data_digest": config["data_digest"],
            **environment(),
        }
        with drawing(folder / "trials.png") as path:
            pictures.trials(found, best, path)
        folder.finish(report)
        return report


def _run(
    recipe: AgeCNNRecipe, training: Examples, validation: Examples, seed: int, precision: str
) -> float:
    """The validation MAE after a short training; infinite where the weights diverged."""
    keras.backend.clear_session()
    model = new_model(recipe, training.inputs.shape[1:], seed, precision)
    compile_for_years(model, recipe.learning_rate)
    course = course_of(training, validation, recipe, seed=seed)
    how = {"epochs": course.epochs, "steps_per_epoch": course.steps}
    model.fit(course.batches(range(course.epochs)), **how, shuffle=False, verbose=0)
    error = np.abs(validation.targets - predict_years(model, validation.inputs)).mean()
    return float(error) if np.isfinite(error) else math.inf
