"""Searches learning rate and regularisation of an age CNN in two stages, into one run folder."""

import functools
import logging
import math
import os
import time
from pathlib import Path

import keras
import numpy as np
from keras_tuner import Objective
from keras_tuner.engine.trial import Trial
from keras_tuner.oracles import RandomSearchOracle
from tqdm import tqdm

from kerasmlp.data.examples import Examples
from kerasmlp.data.stores.image_store import ImageStore
from kerasmlp.experiments.age_cnn import pictures
from kerasmlp.experiments.age_cnn.data import faces_of, some_faces
from kerasmlp.experiments.age_cnn.recipe import AgeCNNRecipe
from kerasmlp.experiments.age_cnn.training import AgeCNNTraining, predict_years
from kerasmlp.experiments.tuning.one_file import OneFileState, hyperparameters, oracle_seed
from kerasmlp.experiments.tuning.search_files import FILES, write_search
from kerasmlp.experiments.tuning.space import LogRange, rounded
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.checks import check_int, check_seed, reject

STAGES = (
    {"learning_rate": LogRange(1e-6, 1e-3), "regularization": LogRange(1e-6, 1e1)},
    {"learning_rate": LogRange(1e-5, 1e-3), "regularization": LogRange(1e-5, 1e-3)},
)
"""The paper's: wide, then around the ten best."""


class StageOracle(OneFileState, RandomSearchOracle):
    """Draws the values of one stage, log-uniform, and remembers in a file what came of them.

    Example:

    >>> import tempfile
    >>> oracle = StageOracle(1, 2, 0, Path(tempfile.mkdtemp(), "stage-2.json"))
    >>> trial = oracle.create_trial("here")
    >>> all(1e-5 <= value <= 1e-3 for value in oracle.values_of(trial).values())
    True
    """

    measures = ("val_mae_years",)

    def __init__(self, number: int, trials: int, seed: int, path: str | os.PathLike):
        self.number, self.path, self.dimensions = number, Path(path), STAGES[number]
        super().__init__(
            Objective("val_mae_years", "min"),
            max_trials=trials,
            hyperparameters=hyperparameters(self.dimensions),
            seed=oracle_seed(len(STAGES) * seed + number),
        )
        self.verbose = 0
        if self.path.exists():
            self.reload()

    def values_of(self, trial: Trial) -> dict[str, float]:
        return {k: rounded(trial.hyperparameters.values[k]) for k in self.dimensions}

    def rows(self) -> list[dict]:
        """Completed trials in their order."""
        return [
            {"stage": self.number + 1, "trial": k, **self.values_of(t), "val_mae_years": t.score}
            for k, t in enumerate(self.in_order())
        ]


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
    `resume=True`, the search ends with the same trials. The best values on top of the
    recipe are written as `best.json`.

    Args:
        recipe: What holds for all that is not searched.
        trials, epochs: How many there are in each stage, and how long one is.
        others: As of `train_age_cnn`; the seed decides the values, too.

    Returns:
        The report, as in `report.json`; `best` is the row of the best trial.

    Raises:
        InputError: as `train_age_cnn`, or if every trial diverged.

    Reference: Dalva and Altındış, "Age Estimation" (CS 559, Bilkent University), section IV-A.
    """
    started, folder = time.time(), RunFolder(run_dir)
    check_seed(check_int("seed", seed, minimum=0))
    check_int("trials", trials, minimum=1)
    check_int("epochs", epochs, minimum=1)
    parts = {split: faces_of(store, split) for split in ("train", "validation")}
    parts["train"] = some_faces(parts["train"], rows, "rows", seed)
    recipe.require_batch(rows)
    config = {"kind": "age-cnn-tuning", "recipe": recipe.to_config(), "precision": precision}
    config |= {"trials": trials, "rows": rows, "trial_epochs": epochs}
    config |= {"seed": seed, "data_digest": store.digest()}
    AgeCNNTraining(parts, recipe, config)  # refused before the folder changes
    with folder.working(config, resume=resume, force=force, files=FILES):
        if folder.done:
            return folder.report()
        found = _search(recipe.replace(epochs=epochs), parts, config, folder, progress)
        finite = [row for row in found if math.isfinite(row["val_mae_years"])]
        if not finite:
            reject("store", "must hold images on which not every trial diverges", str(store.name))
        best = min(finite, key=lambda row: row["val_mae_years"])
        counts = {"run": len(found), "diverged": len(found) - len(finite)}
        report = {"best": best, "trials": counts, "precision": precision}
        report |= {"rows": {split: len(part) for split, part in parts.items()}}
        report |= {"seconds": {"total": time.time() - started}}
        values = recipe.replace(**{name: best[name] for name in STAGES[0]}).to_config()
        draw = functools.partial(pictures.trials, found, best)
        return write_search(folder, values, found, report, draw)


def _search(
    recipe: AgeCNNRecipe,
    parts: dict[str, Examples],
    config: dict,
    folder: RunFolder,
    progress: bool,
) -> list[dict]:
    """Runs the trials that are left of both stages; returns all as rows."""
    # Every trial is a network of its own, which TensorFlow takes for one traced too often.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    found, trials = [], config["trials"]
    total = trials * len(STAGES)
    with tqdm(total=total, desc="search", unit="trial", disable=not progress) as bar:
        for number in range(len(STAGES)):
            path = folder / "search" / f"stage-{number + 1}.json"
            oracle = StageOracle(number, trials, config["seed"], path)
            bar.update(len(oracle.completed()))
            while (trial := oracle.create_trial("here")).status == "RUNNING":
                mae = _run(recipe.replace(**oracle.values_of(trial)), parts, config)
                oracle.update_trial(trial.trial_id, {"val_mae_years": mae})
                trial.status = "COMPLETED"
                oracle.end_trial(trial)
                bar.update()
            found += oracle.rows()
    return found


def _run(recipe: AgeCNNRecipe, parts: dict[str, Examples], config: dict) -> float:
    """The validation MAE after a short training; infinite where the weights diverged."""
    keras.backend.clear_session()
    training = AgeCNNTraining(parts, recipe, config)
    model = training.make()
    course, validation = training.course(model), parts["validation"]
    how = {"epochs": course.epochs, "steps_per_epoch": course.steps}
    model.fit(course.batches(range(course.epochs)), **how, shuffle=False, verbose=0)
    error = np.abs(validation.targets - predict_years(model, validation.inputs)).mean()
    return float(error) if np.isfinite(error) else math.inf
