"""Trains one model on one store into one run folder."""

from __future__ import annotations

import importlib
import os
import threading
import time
from dataclasses import asdict

import numpy as np

from kerasmlp.callbacks.validation import Validation, forward
from kerasmlp.data.kept_back import VALIDATION_SHARE, hold_out, split_rows
from kerasmlp.data.norms import norm_1_share
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import Target
from kerasmlp.evaluation.measuring import measure, measure_groups
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.run_folder import RunFolder, environment
from kerasmlp.runs.seen import count_common, count_seen, save_seen
from kerasmlp.runs.training_files import report_of_finished
from kerasmlp.training.calibrating import MIN_TEMPERATURE_ROWS, calibrate, calibrate_answers
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.fit import copy_weights, fit, steps_of
from kerasmlp.training.initial_weights import check_untested, same_head
from kerasmlp.training.precision import default_policy
from kerasmlp.training.remarks import majority_of, remarks
from kerasmlp.utils.checks import DivergedError, check_int, check_seed, reject
from kerasmlp.utils.drawing import drawing
from kerasmlp.utils.files import atomic_path, sha256_file, write_text
from kerasmlp.utils.tables import csv_of


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
    weights of an uninterrupted run; a finished run is not computed again.

    The rows kept back measure, and fit what comes after the weights: the
    temperature, then age intervals and abstention (`RunCalibration`). What is
    measured on them is a little better than on rows of nobody.

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
    check_int("seed", seed, minimum=0)
    check_seed(seed)
    if not 0 < validation_share < 1:
        reject("validation_share", "must be in (0, 1)", validation_share)
    if test is not None and test_share is not None:
        reject("test_share", "must be left out where a test is given", test_share)
    started, data_digest = time.time(), store.digest()
    if test_share is not None:
        if not 0 < test_share < 1:
            reject("test_share", "must be in (0, 1)", test_share)
        store, test = hold_out(store, target, group, test_share, seed)
    # All that can be refused is refused before anything in the folder changes.
    rest, validation, unlabelled = split_rows(store, target, group, validation_share, seed)
    workbench, dtype = workbench or Workbench(), default_policy()
    model = workbench.model(
        recipe,
        num_classes=target.num_classes,
        width=store.width,
        batch_size=min(recipe.batch_size, len(rest)),
        steps=steps_of(len(rest), recipe.batch_size, steps_per_epoch),
        rps_weight=recipe.rps_weight if target.is_age else 0.0,
        dtype=dtype,
        seed=seed,
    )
    xla = test is not None and model.jit_compile  # looks at every row, and some more than once
    config = {
        "target": asdict(target) | {"class_names": list(target.class_names)},
        "recipe": recipe.to_config(),
        "width": store.width,
        "seed": seed,
        "validation_share": validation_share,
        "test_share": test_share,
        "group": group,
        "init": None,
        "dtype": dtype,
        "steps_per_epoch": steps_per_epoch,
        "test_digest": None if test is None else test.digest(),
        "data_digest": data_digest,
        "embedder": store.info.embedder,
        "embedder_sha256": store.info.embedder_sha256,
        "normalized": store.info.normalized,
    }
    if not store.info.normalized:
        config["norm_1_share"] = norm_1_share(store.embeddings)
    copied = None
    if init is not None:
        copied = copy_weights(RunFolder(init), model, config)
        if test is not None:
            check_untested(RunFolder(init), test.embeddings)
        config["init"] = sha256_file(RunFolder(init) / "model.keras")
    run = RunFolder(run_dir)
    with run.working(config, resume=resume, force=force):
        if run.done:
            return report_of_finished(run, keep_diverged=keep_diverged)
        part = store.subset(validation)
        before_training = None
        if init is not None and not copied["new"] and same_head(RunFolder(init), target):
            outputs = forward(model, part.embeddings, xla=xla)
            before_training = measure(target, outputs, part)
            learned_from = count_seen(RunFolder(init), part.embeddings)
            before_training["rows_learned_from"] = learned_from
        # Needed last and slow to import: the compiler leaves Python time for it.
        if pictures:
            threading.Thread(
                target=importlib.import_module, args=["kerasmlp.training.figures"]
            ).start()

        def measure_part(probabilities: np.ndarray) -> dict:
            if not np.isfinite(probabilities).all():
                raise DivergedError(recipe.learning_rate)
            result = measure(target, probabilities, part)
            kept = ("nll", "accuracy", "exact_year_accuracy", "mae_years")
            return {"loss" if k == "nll" else k: result[k] for k in kept if k in result}

        rows = store.subset(rest)
        try:
            model, history, stopped = fit(
                model,
                rows.embeddings,
                target.soft_labels(rows, recipe.label_sigma_years),
                recipe,
                seed=seed,
                validation=Validation(part.embeddings, measure_part, xla=xla),
                checkpoint_path=run / "checkpoint.npz",
                history_path=run / "history.csv",
                progress=progress,
            )
        except DivergedError as error:
            if not keep_diverged:
                raise
            for name in ("checkpoint.npz", "history.csv"):
                (run / name).unlink(missing_ok=True)
            report = {"diverged": str(error), "seed": seed, **environment()}
            run.finish(report)
            return report
        fitted = time.time()
        model = workbench.in_float32(model, recipe)
        probabilities = forward(model, part.embeddings, xla=xla)
        before = measured = measure(target, probabilities, part)
        temperature = 1.0
        if recipe.calibrate and len(part) >= MIN_TEMPERATURE_ROWS:
            temperature = calibrate(model, target, part)
            probabilities = forward(model, part.embeddings, xla=xla)
            measured = measure(target, probabilities, part)
        report = {
            "validation": measured,
            "validation_groups": measure_groups(target, probabilities, part),
            "majority": majority_of(target, rows, part, probabilities),
            "before_training": before_training,
            "before_temperature": {k: before[k] for k in ("nll", "ece")},
            "epochs": len(history),
            "stopped_early": stopped,
            "temperature": temperature,
            "rows": {"training": len(rest), "validation": len(part), "unlabelled": unlabelled},
            "trainable_parameters": sum(int(np.prod(w.shape)) for w in model.trainable_weights),
            "weights_from_init": copied,
            "seconds": {"fit": fitted - started},
            "seed": seed,
            "data_digest": data_digest,
            **environment(),
        }
        learned_from = store.embeddings[np.concatenate([rest, validation])]
        if test is not None:
            for name, part_store in (("training", rows), ("test", test)):
                outputs = forward(model, part_store.embeddings, xla=xla)
                report[name] = measure(target, outputs, part_store)
            report["rows"]["test_learned_from"] = count_common(test.embeddings, learned_from)
        report["notes"] = remarks(target, store, report)
        write_text(run / "history.csv", csv_of(history))
        save_seen(run, learned_from, None if init is None else RunFolder(init))
        with atomic_path(run / "model.keras") as temporary:
            model.save(temporary)
        if recipe.calibrate:
            calibrate_answers(model, target, part, probabilities).save(run / "calibration.json")
        if pictures:
            draw(run, target, history, probabilities, part)
        report["seconds"]["total"] = time.time() - started
        run.finish(report)
        (run / "checkpoint.npz").unlink(missing_ok=True)
        return report


def draw(
    run: RunFolder,
    target: Target,
    history: list[dict],
    probabilities: np.ndarray,
    part: EmbeddingStore,
) -> None:
    with drawing(run / "curves.png") as path:
        from kerasmlp.training.figures import curves

        curves(history, path)
    labels = target.encode(part, target.classes)
    predicted = target.measured(probabilities).argmax(axis=1)
    with drawing(run / "confusion_matrix.png") as path:
        from kerasmlp.evaluation.figures import confusion

        confusion(labels, predicted, target.measured_names, path)
