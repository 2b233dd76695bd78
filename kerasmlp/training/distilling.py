"""One network out of many: a student that learns what a finished run answers."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasmlp.callbacks.validation import Validation, forward
from kerasmlp.data.examples import VALIDATION_SHARE
from kerasmlp.data.row_hashes import row_hashes
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.streamed_rows import joined_rows
from kerasmlp.evaluation.agreement import agreement
from kerasmlp.evaluation.measuring import measure
from kerasmlp.models.presets import Recipe
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.runs.environment import of_backend
from kerasmlp.runs.reference import Reference
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import save_seen
from kerasmlp.runs.training_files import KIND
from kerasmlp.training.blocks import at_hand, blocks_in_config, bytes_as_begun, notes_of_blocks
from kerasmlp.training.columns import adapt_columns, describe_columns, noise_units
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.fit import Course, compile_by_recipe, course_by_recipe
from kerasmlp.training.head_results import (
    HeadResult,
    calibrations_of,
    head_result,
    notes_of,
    report_of,
    tested_heads,
)
from kerasmlp.training.heads import side_by_side
from kerasmlp.training.precision import default_policy
from kerasmlp.training.reference_fitting import (
    answers_of,
    directions_of,
    fit_reference,
    save_reference,
)
from kerasmlp.training.student_heads import StudentHead, StudentHeads, taken_over
from kerasmlp.training.student_recipe import student_recipe
from kerasmlp.training.student_rows import StudentRows
from kerasmlp.training.teacher import StudentModel, Teacher
from kerasmlp.training.train_run import Measured, train_run
from kerasmlp.training.xla import xla_pays
from kerasmlp.uncertainty.sampler import Sampler
from kerasmlp.utils.checks import check_int, check_seed, reject
from kerasmlp.utils.files import write_json
from kerasmlp.utils.tensorflow_import import require_tensorflow

_CONTRACT = (
    "width", "embedder", "embedder_sha256", "normalized", "preprocessing", "norm_1_share",
)  # fmt: skip
"""Of the teacher's settings, what it takes."""


def distil(
    run: str | os.PathLike,
    stores: EmbeddingStore | Sequence[EmbeddingStore],
    run_dir: str | os.PathLike,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Trains one network to answer as a run does, such as one of several members.

    It is asked at the very rows of each step, mixed with each other and with noise on top, and
    answers with the mean of its members, calibrated: no labels are needed, and rows without
    any help. A tenth of each store is kept back; of the store that the run has learned from
    it is what that has kept back. There the answers of both are compared and, where rows have
    the labels, both are measured.

    Where enough of these are new to the run, they fit temperature, intervals and abstention,
    as in `train`; else those of the run are taken over, and the report says so.

    Args:
        run: Finished training on embeddings, the teacher.
        stores: Embeddings such as it has learned from.
        run_dir: Folder to write; must be new, empty, resumed or forced.
        recipe: Hyperparameters, of one member; None takes the network of the run's own, little
            dropout, and else the defaults.
        seed: Decides split, initial weights, shuffling, dropout and mixup.
        resume: Go on with a killed run.
        force: Replace what is in the folder.
        progress: Show a bar.

    Returns:
        The report, as in `report.json`: `agreement` with the teacher on the rows kept back,
        measures of both on those with a label in `validation` and `teacher`, and `notes`.

    Raises:
        InputError: if the run is none on such embeddings, a store is too small or the folder
            cannot be used; a `DivergedError` if the weights ran away.

    Example:

    >>> import tempfile
    >>> from kerasmlp import choose_target, train
    >>> rng, folder = np.random.default_rng(0), tempfile.mkdtemp()
    >>> x = rng.normal(size=(300, 8)).astype("float32")
    >>> x /= np.linalg.norm(x, axis=1, keepdims=True)
    >>> store = EmbeddingStore(x, {"side": np.where(x[:, 0] > 0, "right", "left")})
    >>> recipe = Recipe(members=2, epochs=60, batch_size=64, learning_rate=0.01)
    >>> _ = train(store, choose_target(store, "side"), recipe, f"{folder}/two")
    >>> one = recipe.replace(members=1)
    >>> report = distil(f"{folder}/two", EmbeddingStore(x), f"{folder}/one", recipe=one)
    >>> report["agreement"]["same_class"] > 0.8
    True
    """
    require_tensorflow()
    check_seed(check_int("seed", seed, minimum=0))
    if Path(run_dir).resolve() == Path(run).resolve():
        reject("run_dir", "must be another folder than that of the run", str(run_dir))
    stores = [stores] if isinstance(stores, EmbeddingStore) else stores
    started, teacher = time.time(), Teacher(run)
    recipe = recipe or student_recipe(run, sum(map(len, stores)))
    if recipe.members > 1:
        reject("recipe.members", "must be 1: a student is one network", recipe.members)
    stores = [at_hand(store, bytes_as_begun(run_dir, resume=resume)) for store in stores]
    recipe = recipe.replace(refit=False)  # the rows kept back compare it with the run
    rows = StudentRows.of_stores(stores, teacher, seed)
    digests = [store.digest() for store in stores]
    joined = hashlib.sha256("".join(digests).encode()).hexdigest()
    digest = digests[0] if len(digests) == 1 else joined
    training = Distillation(teacher, rows, recipe, {"seed": seed, "data_digest": digest})
    how = {"resume": resume, "force": force, "progress": progress}
    return train_run(training, run_dir, started=started, **how)


class Distillation:
    """A student, as `train_run` takes it.

    Args:
        teacher: To learn from.
        rows: Divided.
        recipe: Hyperparameters.
        settings: What else decides the result, `seed` and `data_digest`.
    """

    files = ("calibration.json", "reference.json", "seen.npy")

    def __init__(
        self, teacher: Teacher, rows: StudentRows, recipe: Recipe, settings: dict[str, Any]
    ):
        self.teacher, self.rows, self.recipe = teacher, rows, recipe
        self.heads = StudentHeads(rows, recipe, teacher)
        self.over: list[str] = []  # labels whose calibration is the teacher's
        self.steps, self.precision = recipe.steps(rows.size), default_policy()
        known = teacher.config
        self.normalized: bool = known["normalized"]
        self.config = {
            "kind": KIND,
            "target": teacher.target.to_config(),
            "recipe": recipe.to_config(),
            "standardized": recipe.standardizes(self.normalized) or None,
            "validation_share": VALIDATION_SHARE,
            "test_share": None,
            "group": None,
            "steps_per_epoch": None,
            "test_digest": None,
            "init": None,
            "distilled": teacher.sha256,
            "precision": self.precision,
            **of_backend(),
            **settings,
            **blocks_in_config(rows.inputs),
            **{name: known.get(name) for name in _CONTRACT},
        }

    def make(self) -> keras.Model:
        recipe, rows = self.recipe, self.rows
        network = recipe.network(rows.inputs.shape[1], normalized=self.normalized)
        how = {"seed": self.config["seed"], "dtype": self.precision}
        model = ResidualMLP(heads=self.teacher.target.network_head, **how, **network)
        adapt_columns(model, rows.inputs, like=self.teacher.columns)
        return compile_by_recipe(
            side_by_side(model),
            recipe,
            steps=self.steps,
            loss=self.heads.loss,
            batch_size=min(recipe.batch_size, rows.size),
            xla=xla_pays(recipe, self.steps),
            make=functools.partial(StudentModel, teacher=self.teacher.joined),
        )

    def course(self, model: keras.Model) -> Course:
        return course_by_recipe(
            self.rows.inputs,
            np.zeros((self.rows.size, 1), np.float32),  # the model asks the teacher
            self.recipe,
            steps=self.steps,
            seed=self.config["seed"],
            noise_units=noise_units(model),
            callbacks=[Validation(self.rows.kept_back, self.heads.validation)],
        )

    def measure(
        self, model: keras.Model, history: list[dict], run: RunFolder, *, progress: bool
    ) -> Measured:
        rows, heads, kept = self.rows, self.heads, self.rows.kept_back
        how = {"normalized": self.normalized}
        ends = self.teacher.target.network_head
        plain, joined, sampler = Workbench().in_float32(model, self.recipe, ends, **how)
        pairs = zip(heads.heads, heads.columns, strict=True)
        results = [self._result(head, k, plain, joined, sampler) for head, k in pairs]
        if rows.test_inputs is not None:
            tested = tested_heads(heads, joined, xla=False)
            for result, measured in zip(results, tested, strict=True):
                result.report.update(measured)
        counts = {"training": rows.size, "validation": len(kept), "unlabelled": rows.unlabelled}
        report = {"validation": {}} | report_of(results) | {"rows": counts}
        report["columns"] = describe_columns(plain)
        if rows.test_inputs is not None:
            report["rows"]["test"] = rows.test_labelled
        report["notes"] = self._notes(results, report)
        save_seen(run, joined_rows([rows.inputs, kept]), self.teacher.run)
        if self.recipe.calibrate:
            write_json(run / "calibration.json", calibrations_of(results))
            save_reference(run, self._reference(results))
        return Measured(plain, report)

    def _result(
        self,
        head: StudentHead,
        columns: slice,
        plain: keras.Model,
        joined: keras.Model,
        sampler: Sampler | None,
    ) -> HeadResult:
        """Measures a head of the finished student beside the teacher's, and calibrates it."""
        if head.target.is_number:
            head.finish(plain)

        def outputs(x: np.ndarray) -> np.ndarray:
            return forward(joined, x)[:, columns]

        label, kept = head.target.label, self.rows.kept_back
        if head.rows.part.known.any() and head.rows.training.known.any():
            fits = self.recipe.calibrate and label not in self.rows.learned_from
            how = {"calibrated": fits, "conformal_by": self.recipe.conformal_by}
            result = head_result(head, plain, sampler, outputs, **how)
            answers = self.teacher.outputs(result.part.inputs)[:, columns]
            result.report["teacher"] = measure(result.part, head.in_unit(answers))
        else:
            report = {"validation": {}, "validation_groups": [], "temperature": 1.0}
            result = HeadResult(report, head.rows.part.subset(slice(0)), np.empty(0), None)
        both = head.in_unit(head.targets), outputs(kept)
        result.report["agreement"] = agreement(head.target, *both)
        if result.calibration is not None or not self.recipe.calibrate:
            return result
        if (before := self.teacher.calibrations[label]) is not None:
            self.over.append(label)
        return replace(result, calibration=taken_over(before, head, sampler, kept))

    def _reference(self, results: list[HeadResult]) -> Reference | None:
        seed, kept, before = self.config["seed"], self.rows.kept_back, self.teacher.reference
        if self.over:  # what is promised is of the rows that the teacher kept back
            return replace(before, answers={}) if before and before.scores else None
        answers, directions = answers_of(results, None), directions_of(self.rows.inputs, seed)
        return fit_reference(directions, kept, row_hashes(kept), answers, seed)

    def _notes(self, results: list[HeadResult], report: dict) -> list[str]:
        """Sentences on what the numbers do not say."""
        path, rows = self.teacher.path, self.rows
        known = [result for result in results if len(result.part)]
        wholes = {head.target.label: head.rows.whole for head in self.heads.heads}
        learned = [wholes[result.part.target.label] for result in known]
        notes = notes_of_blocks(rows.inputs) + (notes_of(learned, known, report) if known else [])
        if self.teacher.config["data_digest"] is None:
            notes.append(f"{path} does not tell what it has learned from: it may be these rows")
        for result in results:
            target = result.part.target
            seen = rows.learned_from.get(target.label)
            if not len(result.part):
                notes.append(f"{target.label}: the stores do not say how right the answers are")
            elif seen:
                notes.append(
                    f"{target.label}: {path} has learned from {seen} of the {len(result.part)} "
                    "rows kept back that have it, which flatters both"
                )
            if target.label in self.over:
                what = "temperature, intervals, sets and abstention"
                what = "intervals" if target.is_number else what
                why = "too few rows kept back have it and are new to that run"
                notes.append(f"{target.label}: {what} are taken over from {path}: {why}")
        return notes
