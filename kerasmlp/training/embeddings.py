"""Trains one model on one store into one run folder."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasmlp.callbacks.validation import Validation, forward
from kerasmlp.data.examples import VALIDATION_SHARE
from kerasmlp.data.norms import norm_1_share
from kerasmlp.data.other_targets import AnyTarget
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.models.presets import MAX_STEPS, Recipe
from kerasmlp.runs.head_answers import check_label_names
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import count_common, count_seen, save_seen
from kerasmlp.runs.training_files import FILES, KIND, read_settings
from kerasmlp.training.columns import adapt_columns, describe_columns, noise_units
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.drawings import drawings, picture_names
from kerasmlp.training.fit import Course, answering, course_by_recipe
from kerasmlp.training.head_results import (
    adjust,
    calibrations_of,
    head_results,
    notes_of,
    report_of,
    tested_heads,
)
from kerasmlp.training.heads import Heads
from kerasmlp.training.initial_weights import check_untested, copy_weights, same_head
from kerasmlp.training.precision import default_policy
from kerasmlp.training.refit import refit
from kerasmlp.training.rows import Rows
from kerasmlp.training.train_run import Measured, train_run
from kerasmlp.utils.checks import check_int, check_optional_int, check_seed, reject
from kerasmlp.utils.files import sha256_file, write_json


def train(
    store: EmbeddingStore,
    target: AnyTarget,
    recipe: Recipe,
    run_dir: str | os.PathLike,
    *,
    seed: int = 0,
    validation_share: float = VALIDATION_SHARE,
    group: str | None = None,
    init: str | os.PathLike | None = None,
    test: EmbeddingStore | None = None,
    test_share: float | None = None,
    weight: str | None = None,
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
    temperature, then age intervals and abstention (`RunCalibration`). With the recipe's
    `refit` the network learns once more after that, from all rows.

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
        weight: Column of numbers by which rows count in the loss, those to train on
            brought to a mean of 1; measures and calibration count all rows alike.
        steps_per_epoch: None takes those of the recipe for so many rows.
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
    check_optional_int("steps_per_epoch", steps_per_epoch, minimum=1, maximum=MAX_STEPS)
    if test is not None and test_share is not None:
        reject("test_share", "must be left out where a test is given", test_share)
    settings = {
        "seed": seed,
        "validation_share": validation_share,
        "test_share": test_share,
        "group": group,
        "steps_per_epoch": steps_per_epoch,
    } | ({} if weight is None else {"weight": weight})
    started, rows = time.time(), Rows.of(store, target, test, settings)
    # All that can be refused is refused before anything in the folder changes.
    settings["test_digest"] = rows.test_digest
    settings["data_digest"] = store.digest()
    training = EmbeddingTraining(
        rows, target, recipe, settings, store.info, workbench or Workbench(),
        None if init is None else RunFolder(init), pictures,
    )  # fmt: skip
    how = {"resume": resume, "force": force, "keep_diverged": keep_diverged}
    return train_run(training, run_dir, started=started, progress=progress, **how)


class EmbeddingTraining:
    """A residual MLP on embeddings, as `train_run` takes it.

    Args:
        settings: What else decides the result, `seed` and `steps_per_epoch` among it.
        init: Run whose weights to begin with, or None.

    Raises:
        InputError: if `init` does not fit, or there are too few rows for the steps.
    """

    def __init__(
        self,
        rows: Rows,
        target: AnyTarget,
        recipe: Recipe,
        settings: Mapping[str, Any],
        info: StoreInfo,
        workbench: Workbench,
        init: RunFolder | None,
        pictures: bool,
    ):
        width = rows.inputs.shape[1]
        self.rows, self.target, self.recipe, self.settings = rows, target, recipe, settings
        self.workbench, self.init, self.pictures = workbench, init, pictures
        self.copied = self.before_training = None
        self.heads, self.normalized = Heads(rows, recipe), info.normalized
        self.files = tuple(dict.fromkeys((*FILES, *picture_names(target))))
        weight = settings.get("weight")
        if weight and recipe.rps_weight and any(head.is_age for head in target.heads):
            reject("weight", "must be left out for ages with an rps_weight", weight)
        check_label_names(target)
        self.precision = default_policy()
        self.model, self.steps = self.new_model(rows)
        # A test looks at every row, and at some more than once.
        self.xla = rows.test_inputs is not None and self.model.jit_compile
        self.config = {
            "kind": KIND,
            "target": target.to_config(),
            "recipe": recipe.to_config(),
            "width": width,
            "standardized": recipe.standardizes(info.normalized) or None,  # None in older runs
            **settings,
            "init": None,
            "precision": self.precision,
            **info.of_embedder(),
        }
        if not info.normalized:
            self.config["norm_1_share"] = norm_1_share(rows.heads[0].whole.inputs)
        if init is not None:
            self.copied = copy_weights(init, self.model, self.config)
            self.heads.go_on_from(self.model, read_settings(init)[1])
            if rows.test_inputs is not None:
                check_untested(init, rows.test_inputs)
            self.config["init"] = sha256_file(init / "model.keras")
        self.targets = self._targets(rows, self.heads)
        self.beginning = self.model.get_weights() if init is not None else None

    def new_model(self, rows: Rows) -> tuple[keras.Model, int]:
        """The model as it begins, for such rows, and its steps of an epoch."""
        steps = self.recipe.steps(rows.size)
        if given := self.settings["steps_per_epoch"]:  # of the rows without those kept back
            steps = max(1, round(given * rows.size / self.rows.size))
        model = self.workbench.model(
            self.recipe,
            heads=self.target.network_head,
            width=rows.inputs.shape[1],
            batch_size=min(self.recipe.batch_size, rows.size),
            steps=steps,
            loss=self.heads.loss,
            precision=self.precision,
            seed=self.settings["seed"],
            normalized=self.normalized,
        )
        adapt_columns(model, rows.inputs)
        return model, steps

    def make(self) -> keras.Model:
        if self.init is not None and not self.copied["new"] and same_head(self.init, self.target):
            part = self.rows.part_inputs
            measured = self.heads.measured(forward(answering(self.model), part, xla=self.xla))
            learned_from = count_seen(self.init, part)
            self.before_training = measured | {"rows_learned_from": learned_from}
        if self.pictures:
            # Needed last and slow to import: the compiler leaves Python time for it.
            preloaded = ["kerasmlp.training.figures"]
            threading.Thread(target=importlib.import_module, args=preloaded).start()
        return self.model

    def _targets(self, rows: Rows, heads: Heads) -> np.ndarray:
        targets = heads.targets  # in the unit of the weights it begins with
        if weight := self.settings.get("weight"):  # of the loss, the mass of a target is a factor
            targets *= rows.heads[0].training.weights(weight)[:, None]
        return targets

    def course(self, model: keras.Model) -> Course:
        how = {"xla": self.xla, "of": answering(model)}
        validation = Validation(self.rows.part_inputs, self.heads.validation, **how)
        return self._course(model, self.rows, self.targets, self.steps, [validation])

    def course_of_all(self, model: keras.Model, rows: Rows, heads: Heads, steps: int) -> Course:
        """What the model goes through on all rows, none of which are kept back."""
        return self._course(model, rows, self._targets(rows, heads), steps, [])

    def _course(
        self, model: keras.Model, rows: Rows, targets: np.ndarray, steps: int, callbacks: list
    ) -> Course:
        return course_by_recipe(
            rows.inputs,
            targets,
            self.recipe,
            steps=steps,
            seed=self.settings["seed"],
            noise_units=noise_units(model),
            view_starts=rows.view_starts,
            callbacks=callbacks,
        )

    def measure(
        self, model: keras.Model, history: list[dict], run: RunFolder, *, progress: bool
    ) -> Measured:
        recipe = self.recipe
        learned_from = self.rows.learned_from(refit=recipe.refit)
        plain, joined, sampler = self._in_float32(model)
        how = {"calibrated": recipe.calibrate, "xla": self.xla}
        results = head_results(self.heads, plain, joined, sampler, **how)
        described, heads, more = describe_columns(model), self.heads, {}
        if recipe.refit:
            model, heads, more["refit"] = refit(self, history, run, progress=progress)
            plain, joined, _ = self._in_float32(model)
            for head, result in zip(heads.heads, results, strict=True):
                adjust(head, plain, result.report)
        if self.rows.test_inputs is not None:
            tested = tested_heads(heads, joined, xla=self.xla)
            for result, measured in zip(results, tested, strict=True):
                result.report.update(measured)
        report = (
            report_of(results)
            | more
            | {
                "before_training": self.before_training,
                "rows": {
                    "training": self.rows.size,
                    "validation": len(self.rows.part_inputs),
                    "unlabelled": self.rows.unlabelled,
                },
                "weights_from_init": self.copied,
                "columns": described,
            }
        )
        if self.rows.view_starts is not None:
            report["rows"]["views"] = len(self.rows.inputs)
        if self.rows.test_inputs is not None:
            known = count_common(self.rows.test_inputs, learned_from)
            report["rows"] |= {"test": self.rows.test_labelled, "test_learned_from": known}
        wholes = [head.rows.whole for head in self.heads.heads]
        report["notes"] = notes_of(wholes, results, report)
        save_seen(run, learned_from, self.init)
        if recipe.calibrate:
            write_json(run / "calibration.json", calibrations_of(results))
        drawn = drawings(history, self.target, results) if self.pictures else {}
        return Measured(plain, report, drawn)

    def _in_float32(self, model: keras.Model):
        how = {"normalized": self.normalized}
        return self.workbench.in_float32(model, self.recipe, self.target.network_head, **how)
