"""Trains one model on one store into one run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import keras

from kerasmlp.data.examples import VALIDATION_SHARE
from kerasmlp.data.other_targets import AnyTarget
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.models.presets import MAX_STEPS, Recipe
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.blocks import at_hand, bytes_as_begun
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.embedding_training import EmbeddingTraining
from kerasmlp.training.rows import Rows
from kerasmlp.training.train_run import train_run
from kerasmlp.utils.checks import check_int, check_optional_int, check_seed, reject


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
    callbacks: Sequence[keras.callbacks.Callback] = (),
    pictures: bool = True,
    near_copies: bool = True,
    most_bytes: int | None = None,
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
        callbacks: Told of every epoch and what it logs, `val_…` among it, such as those of
            MLflow or Weights & Biases. They decide nothing that a resumed run could know.
        pictures: Draw the curves and the confusion matrix.
        near_copies: Count the rows held out that have a near-duplicate among those learned
            from, and warn of them; the result is the same to the bit.
        most_bytes: That the rows of a large store, which are read from its file, may take in
            memory as they are stored; None: half of what is available. More stay in the file
            and are drawn from shuffled blocks, which the report says. A resumed run goes on
            as it began.
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
    started, begun = time.time(), bytes_as_begun(run_dir, resume=resume)
    training = prepared(
        store,
        target,
        recipe,
        seed=seed,
        validation_share=validation_share,
        group=group,
        init=init,
        test=test,
        test_share=test_share,
        weight=weight,
        steps_per_epoch=steps_per_epoch,
        workbench=workbench,
        callbacks=callbacks,
        pictures=pictures,
        near_copies=near_copies,
        most_bytes=most_bytes if begun is None else begun,
    )
    how = {"resume": resume, "force": force, "keep_diverged": keep_diverged}
    return train_run(training, run_dir, started=started, progress=progress, **how)


def prepared(
    store: EmbeddingStore,
    target: AnyTarget,
    recipe: Recipe,
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
    callbacks: Sequence[keras.callbacks.Callback] = (),
    pictures: bool = True,
    near_copies: bool = True,
    most_bytes: int | None = None,
) -> EmbeddingTraining:
    """What `train` hands to `train_run`: all that can be refused is refused here.

    Raises:
        InputError: as of `train`, but for the folder.
    """
    check_seed(check_int("seed", seed, minimum=0))
    of_keras = isinstance(callbacks, Sequence) and not isinstance(callbacks, str)
    if not of_keras or not all(isinstance(c, keras.callbacks.Callback) for c in callbacks):
        reject("callbacks", "must be a list of Keras callbacks", callbacks)
    check_optional_int("steps_per_epoch", steps_per_epoch, minimum=1, maximum=MAX_STEPS)
    store = at_hand(store, check_optional_int("most_bytes", most_bytes, minimum=0))
    if test is not None and test_share is not None:
        reject("test_share", "must be left out where a test is given", test_share)
    settings = {
        "seed": seed,
        "validation_share": validation_share,
        "test_share": test_share,
        "group": group,
        "steps_per_epoch": steps_per_epoch,
    } | ({} if weight is None else {"weight": weight})
    rows = Rows.of(store, target, test, settings)
    settings["test_digest"] = rows.test_digest
    settings["data_digest"] = store.digest()
    return EmbeddingTraining(
        rows, target, recipe, settings, store.info, workbench or Workbench(),
        None if init is None else RunFolder(init), pictures, callbacks, near_copies,
    )  # fmt: skip
