"""One training of a residual MLP on embeddings, as `train_run` takes it."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kerasmlp.callbacks.validation import Validation, forward
from kerasmlp.data.duplicates.near_copies import can_have_copies
from kerasmlp.data.norms import norm_1_share
from kerasmlp.data.other_targets import AnyTarget
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.environment import of_backend
from kerasmlp.runs.head_answers import check_label_names
from kerasmlp.runs.reference import Reference
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import count_common, count_seen, save_seen
from kerasmlp.runs.training_files import FILES, KIND, read_settings
from kerasmlp.training.blocks import blocks_in_config, notes_of_blocks
from kerasmlp.training.chunks import chunks_of
from kerasmlp.training.columns import (
    adapt_columns,
    describe_columns,
    noise_units,
    standardized_rows,
)
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.conformal_fitting import check_conformal_by
from kerasmlp.training.drawings import drawings, picture_names
from kerasmlp.training.fit import Course, answering, course_by_recipe, drawn_by_recipe
from kerasmlp.training.head_results import (
    HeadResult,
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
from kerasmlp.training.reference_fitting import (
    answers_of,
    directions_of,
    fit_reference,
    save_reference,
)
from kerasmlp.training.refit import refit
from kerasmlp.training.remarks import remarks_on_copies
from kerasmlp.training.rows import Rows
from kerasmlp.training.target_rows import TargetRows
from kerasmlp.training.train_run import Measured
from kerasmlp.utils.checks import reject
from kerasmlp.utils.files import sha256_file, write_json


class EmbeddingTraining:
    """A residual MLP on embeddings, as `train_run` takes it.

    Args:
        settings: What else decides the result, `seed` and `steps_per_epoch` among it.
        init: Run whose weights to begin with, or None.
        pictures: Draw the curves and the confusion matrix.
        callbacks: Of `train`.
        near_copies: Whether they are looked for among the rows held out.

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
        callbacks: Sequence[keras.callbacks.Callback] = (),
        near_copies: bool = True,
    ):
        width = rows.inputs.shape[1]
        self.rows, self.target, self.recipe, self.settings = rows, target, recipe, settings
        self.workbench, self.init, self.pictures = workbench, init, pictures
        self.callbacks = list(callbacks)
        can_have = can_have_copies(width, normalized=info.normalized)
        self.near_copies = near_copies and can_have
        self.copied = self.before_training = None
        self.heads, self.normalized = Heads(rows, recipe), info.normalized
        self.data = info.of_data()
        self.files = tuple(dict.fromkeys((*FILES, *picture_names(target))))
        weight = settings.get("weight")
        if weight and recipe.rps_weight and any(head.is_age for head in target.heads):
            reject("weight", "must be left out for ages with an rps_weight", weight)
        check_label_names(target)
        check_conformal_by(recipe.conformal_by, rows.heads[0].whole, target)
        self.precision = default_policy()
        self.steps = settings["steps_per_epoch"] or recipe.steps(rows.size)
        self.model = self.new_model(rows)
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
            **of_backend(),
            **blocks_in_config(rows.inputs, recipe.members),
        }
        if not info.normalized:
            self.config["norm_1_share"] = norm_1_share(rows.heads[0].whole.inputs)
        if init is not None:
            self.copied = copy_weights(init, self.model, self.config, target)
            self.heads.go_on_from(self.model, read_settings(init)[1])
            if rows.test_inputs is not None:
                check_untested(init, rows.test_inputs)
            self.config["init"] = sha256_file(init / "model.keras")
        self.targets = self._targets(rows, self.heads)
        self.beginning = self.model.get_weights() if init is not None else None

    def new_model(self, rows: Rows) -> keras.Model:
        """The model as it begins, for such rows."""
        model = self.workbench.model(
            self.recipe,
            heads=self.target.network_head,
            width=rows.inputs.shape[1],
            batch_size=self._batch_size(rows),
            steps=self.steps,
            loss=self.heads.loss,
            precision=self.precision,
            seed=self.settings["seed"],
            normalized=self.normalized,
        )
        adapt_columns(model, rows.inputs)
        return model

    def joint_model(self, number: int) -> keras.Model:
        """A compiled model of so many such networks side by side; they log `each_loss`."""
        return self.workbench.model(
            self.recipe.replace(members=number),
            heads=self.target.network_head,
            width=self.rows.inputs.shape[1],
            batch_size=self._batch_size(self.rows),
            steps=self.steps,
            loss=self.heads.loss,
            precision=self.precision,
            seed=0,
            normalized=self.normalized,
            each_loss=True,
        )

    def chunks_of_epoch(self, number: int) -> int:
        """Of a program of so many trainings."""
        return chunks_of(self.steps, number * self._batch_size(self.rows))[0]

    def _batch_size(self, rows: Rows) -> int:
        return min(self.recipe.batch_size, rows.size)

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

    def _targets(self, rows: Rows, heads: Heads) -> TargetRows:
        targets = heads.targets  # in the unit of the weights it begins with
        if weight := self.settings.get("weight"):  # of the loss, the mass of a target is a factor
            return targets.weighted(rows.heads[0].training.weights(weight))
        return targets

    def course(self, model: keras.Model) -> Course:
        how = {"xla": self.xla, "of": answering(model)}
        validation = Validation(self.rows.part_inputs, self.heads.validation, **how)
        callbacks = [validation, *self.callbacks]
        return self._course(model, self.rows, self.targets, callbacks)

    def course_of_all(self, model: keras.Model, rows: Rows, heads: Heads) -> Course:
        """What the model goes through on all rows, none of which are kept back."""
        return self._course(model, rows, self._targets(rows, heads), [])

    def _course(
        self, model: keras.Model, rows: Rows, targets: TargetRows, callbacks: list
    ) -> Course:
        return course_by_recipe(
            rows.inputs,
            targets,
            self.recipe,
            steps=self.steps,
            seed=self.settings["seed"],
            noise_units=noise_units(model),
            view_starts=rows.view_starts,
            callbacks=callbacks,
        )

    def drawn(self) -> Callable[[int], Callable[[range], Any]]:
        """From a number of trainings in one program to what `course` has this one go through.

        The program's network gets columns that are standardised, as the model does it now.
        """
        x, units = standardized_rows(self.model, self.rows.inputs)
        how = {"steps": self.steps, "seed": self.settings["seed"], "noise_units": units}
        how["view_starts"] = self.rows.view_starts
        return lambda n: drawn_by_recipe(x, self.targets, self.recipe, abreast=n, **how)

    def measure(
        self, model: keras.Model, history: list[dict], run: RunFolder, *, progress: bool
    ) -> Measured:
        recipe = self.recipe
        learned_from = self.rows.learned_from(refit=recipe.refit)
        plain, joined, sampler = self._in_float32(model)
        how = {"calibrated": recipe.calibrate, "conformal_by": recipe.conformal_by}
        how |= {"group": self.settings["group"], "xla": self.xla}
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
                "data": self.data,
            }
        )
        if self.rows.view_starts is not None:
            report["rows"]["views"] = len(self.rows.inputs)
        if self.rows.test_inputs is not None:
            known = count_common(self.rows.test_inputs, learned_from)
            report["rows"] |= {"test": self.rows.test_labelled, "test_learned_from": known}
        notes = notes_of_blocks(self.rows.inputs, recipe.members)
        if self.near_copies:
            copies = self.rows.near_copies(learned_from, seed=self.settings["seed"])
            report["near_copies"] = {name: found.to_json() for name, found in copies.items()}
            notes += remarks_on_copies(copies)
        wholes = [head.rows.whole for head in self.heads.heads]
        report["notes"] = notes + notes_of(wholes, results, report)
        save_seen(run, learned_from, self.init)
        if recipe.calibrate:
            write_json(run / "calibration.json", calibrations_of(results))
            save_reference(run, self._reference(results))
        drawn = drawings(history, self.target, results) if self.pictures else {}
        return Measured(plain, report, drawn)

    def _reference(self, results: list[HeadResult]) -> Reference | None:
        group, seed = self.settings["group"], self.settings["seed"]
        kept = self.rows.heads[0].part
        # after a refit another network answers, which has learned from these rows
        answers = {} if self.recipe.refit else answers_of(results, group)
        directions = directions_of(self.rows.inputs, seed)
        return fit_reference(directions, kept.inputs, kept.groups(group), answers, seed)

    def _in_float32(self, model: keras.Model):
        how = {"normalized": self.normalized}
        return self.workbench.in_float32(model, self.recipe, self.target.network_head, **how)
