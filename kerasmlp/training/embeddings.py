"""Trains one model on one store into one run folder."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerasmlp.callbacks.validation import Validation, forward
from kerasmlp.data.examples import VALIDATION_SHARE, Examples
from kerasmlp.data.norms import norm_1_share
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.data.targets import Target
from kerasmlp.evaluation.measuring import measure, measure_groups
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import count_common, count_seen, save_seen
from kerasmlp.runs.training_files import FILES, KIND
from kerasmlp.training.calibrating import MIN_TEMPERATURE_ROWS, calibrate, calibrate_answers
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.fit import Course, course_by_recipe, steps_of
from kerasmlp.training.initial_weights import check_untested, copy_weights, same_head
from kerasmlp.training.losses import recipe_loss
from kerasmlp.training.precision import default_policy
from kerasmlp.training.remarks import majority_of, remarks
from kerasmlp.training.train_run import Measured, train_run
from kerasmlp.utils.checks import check_int, check_seed, reject
from kerasmlp.utils.files import sha256_file

_KEPT = {"loss": "nll", **{k: k for k in ("accuracy", "exact_year_accuracy", "mae_years")}}
"""Names in a history, and those of the measures."""


def train(
    store: EmbeddingStore,
    target: Target,
    recipe: Recipe,
    run_dir: str | os.PathLike,
    *,
    seed: int = 0,
    validation_share: float = VALIDATION_SHARE,
    group: str | None = None,
    init: str | os.PathLike | None = None,
    test: EmbeddingStore | None = None,
    test_share: float | None = None,
    steps_per_epoch: int | None = None,
    workbench: Workbench | None = None,
    pictures: bool = True,
    keep_diverged: bool = False,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Trains a residual MLP and writes a run folder.

    Killed at any moment and started again with `resume=True` it ends with the
    weights of an uninterrupted run; a finished run is not computed again. The
    rows kept back measure, and fit what comes after the weights: the
    temperature, then age intervals and abstention (`RunCalibration`).

    Args:
        store: Rows without the label are left out, and counted.
        target: What to predict.
        recipe: Hyperparameters.
        run_dir: Folder to write; must be new, empty, resumed or forced.
        seed: Decides split, initial weights, shuffling, dropout and mixup.
        validation_share: Of the groups of rows, in (0, 1).
        group: Column whose rows are never split; None takes `group` where
            the store has it.
        init: Run whose weights to begin with, as far as shapes agree.
        test: Rows to measure the finished model on, with those it was
            trained on; nothing is decided by them.
        test_share: Instead of `test`: of the groups of labelled rows, in (0, 1),
            held out before anything else.
        steps_per_epoch: At most as many as the rows fill; None takes those.
        workbench: Shared by runs of one shape, which then compile once. The
            result is the same to the bit.
        pictures: Draw the curves and the confusion matrix.
        keep_diverged: Whether weights that diverge are a result: then the report
            holds `diverged`, the sentence that says so, and no measures.
        resume: Go on with a killed run.
        force: Replace what is in the folder.
        progress: Show a bar.

    Returns:
        The report, as in `report.json`.

    Raises:
        InputError: if the data cannot be trained on or the folder not used, or
            `init` has learned from rows of the test; a `DivergedError` if the
            weights ran away.
    """
    check_seed(check_int("seed", seed, minimum=0))
    if test is not None and test_share is not None:
        reject("test_share", "must be left out where a test is given", test_share)
    settings = {
        "seed": seed,
        "validation_share": validation_share,
        "test_share": test_share,
        "group": group,
        "steps_per_epoch": steps_per_epoch,
    }
    started, rows = time.time(), Rows.of(store, target, test, settings)
    # All that can be refused is refused before anything in the folder changes.
    settings["test_digest"] = None if rows.test is None else rows.test.digest()
    settings["data_digest"] = store.digest()
    training = EmbeddingTraining(
        rows, recipe, settings, store.info, workbench or Workbench(),
        None if init is None else RunFolder(init), pictures,
    )  # fmt: skip
    how = {"resume": resume, "force": force, "keep_diverged": keep_diverged}
    return train_run(training, run_dir, started=started, progress=progress, **how)


@dataclass(frozen=True)
class Rows:
    """Rows with their labels, divided.

    Attributes:
        whole: All of them but the test.
        training: To learn from.
        part: Kept back.
        test: Measured on once, or None.
    """

    whole: Examples
    training: Examples
    part: Examples
    test: Examples | None

    @classmethod
    def of(
        cls,
        store: EmbeddingStore,
        target: Target,
        test: EmbeddingStore | None,
        settings: Mapping[str, Any],
    ) -> Rows:
        """Divides a store as the settings of `train` say."""
        for name in ("validation_share", "test_share"):
            if settings[name] is not None and not 0 < settings[name] < 1:
                reject(name, "must be in (0, 1)", settings[name])
        whole = Examples.of(store, target)
        held_out = None if test is None else Examples.of(test, target)
        seed, group = settings["seed"], settings["group"]
        if settings["test_share"] is not None:
            whole, held_out = whole.hold_out(settings["test_share"], seed, group)
        return cls(whole, *whole.split(settings["validation_share"], seed, group), held_out)


class EmbeddingTraining:
    """A residual MLP on embeddings, as `train_run` takes it.

    Args:
        settings: What else decides the result, `seed` and `steps_per_epoch` among it.
        init: Run whose weights to begin with, or None.

    Raises:
        InputError: if `init` does not fit, or there are too few rows for the steps.
    """

    files = FILES

    def __init__(
        self,
        rows: Rows,
        recipe: Recipe,
        settings: Mapping[str, Any],
        info: StoreInfo,
        workbench: Workbench,
        init: RunFolder | None,
        pictures: bool,
    ):
        target, width = rows.whole.target, rows.whole.inputs.shape[1]
        self.rows, self.target, self.recipe, self.settings = rows, target, recipe, settings
        self.workbench, self.init, self.pictures = workbench, init, pictures
        self.copied = self.before_training = None
        precision = default_policy()
        self.steps = steps_of(len(rows.training), recipe.batch_size, settings["steps_per_epoch"])
        self.model = workbench.model(
            recipe,
            num_classes=target.num_classes,
            width=width,
            batch_size=min(recipe.batch_size, len(rows.training)),
            steps=self.steps,
            loss=recipe_loss(recipe, ordered=target.is_age),
            precision=precision,
            seed=settings["seed"],
        )
        # A test looks at every row, and at some more than once.
        self.xla = rows.test is not None and self.model.jit_compile
        self.config = {
            "kind": KIND,
            "target": target.to_config(),
            "recipe": recipe.to_config(),
            "width": width,
            **settings,
            "init": None,
            "precision": precision,
            **info.of_embedder(),
        }
        if not info.normalized:
            self.config["norm_1_share"] = norm_1_share(rows.whole.inputs)
        if init is not None:
            self.copied = copy_weights(init, self.model, self.config)
            if rows.test is not None:
                check_untested(init, rows.test.inputs)
            self.config["init"] = sha256_file(init / "model.keras")

    def make(self) -> keras.Model:
        if self.init is not None and not self.copied["new"] and same_head(self.init, self.target):
            part = self.rows.part
            _, measured = self._measured(self.model, part)
            learned_from = count_seen(self.init, part.inputs)
            self.before_training = measured | {"rows_learned_from": learned_from}
        if self.pictures:
            # Needed last and slow to import: the compiler leaves Python time for it.
            preloaded = ["kerasmlp.training.figures"]
            threading.Thread(target=importlib.import_module, args=preloaded).start()
        return self.model

    def course(self, model: keras.Model) -> Course:
        def measured(probabilities: np.ndarray) -> dict:
            result = measure(self.rows.part, probabilities)
            return {name: result[of] for name, of in _KEPT.items() if of in result}

        return course_by_recipe(
            self.rows.training.inputs,
            self.rows.training.soft_targets(self.recipe.label_sigma_years),
            self.recipe,
            steps=self.steps,
            seed=self.settings["seed"],
            callbacks=[Validation(self.rows.part.inputs, measured, xla=self.xla)],
        )

    def measure(self, model: keras.Model, history: list[dict], run: RunFolder) -> Measured:
        rows, part = self.rows, self.rows.part
        learned_from = np.concatenate([rows.training.inputs, part.inputs])  # also when to stop
        model, sampler = self.workbench.in_float32(model, self.recipe)
        temperature, (probabilities, before) = 1.0, self._measured(model, part)
        measured = before
        if self.recipe.calibrate and len(part) >= MIN_TEMPERATURE_ROWS:
            temperature = calibrate(model, part)
            probabilities, measured = self._measured(model, part)
        report = {
            "validation": measured,
            "validation_groups": measure_groups(part, probabilities),
            "majority": majority_of(rows.training, part, probabilities),
            "before_training": self.before_training,
            "before_temperature": {k: before[k] for k in ("nll", "ece")},
            "temperature": temperature,
            "rows": {
                "training": len(rows.training),
                "validation": len(part),
                "unlabelled": int((~rows.whole.known).sum()),
            },
            "weights_from_init": self.copied,
        }
        if rows.test is not None:
            for name, some in (("training", rows.training), ("test", rows.test)):
                report[name] = self._measured(model, some)[1]
            known = count_common(rows.test.inputs, learned_from)
            report["rows"]["test_learned_from"] = known
        report["notes"] = remarks(rows.whole, report)
        save_seen(run, learned_from, self.init)
        if self.recipe.calibrate:
            answers = calibrate_answers(sampler, part, probabilities)
            answers.save(run / "calibration.json")
        drawn = self._drawn(history, probabilities) if self.pictures else {}
        return Measured(model, report, drawn)

    def _measured(self, model: keras.Model, rows: Examples) -> tuple[np.ndarray, dict]:
        """Answers on rows, and their measures."""
        probabilities = forward(model, rows.inputs, xla=self.xla)
        return probabilities, measure(rows, probabilities)

    def _drawn(self, history: list[dict], probabilities: np.ndarray) -> dict:
        def draw_curves(path):
            from kerasmlp.training.figures import curves

            curves(history, path)

        def draw_confusion(path):
            from kerasmlp.evaluation.figures import confusion

            predicted = self.target.measured(probabilities).argmax(axis=1)
            confusion(self.rows.part.targets, predicted, self.target.measured_names, path)

        return {"curves.png": draw_curves, "confusion_matrix.png": draw_confusion}
