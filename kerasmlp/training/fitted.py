"""`fit`: from arrays to a model that answers, says how sure it is, and saves itself."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasmlp.data.examples import VALIDATION_SHARE
from kerasmlp.data.label_kinds import MOST_CLASSES
from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.stores.embedding_store import NORM_TOLERANCE, EmbeddingStore, lost_columns
from kerasmlp.data.stores.store_info import StoreInfo, made_of_columns
from kerasmlp.data.targets import Target
from kerasmlp.models.presets import PRESETS, SMALL_STORE, SMALL_STORE_ROWS, Recipe
from kerasmlp.runs.predictor import Predictor
from kerasmlp.runs.run_bytes import read_run, write_run
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.embeddings import train
from kerasmlp.utils.checks import reject

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_WEIGHT = "row_weight"
_NAME = re.compile(r"[^/\s][^/]*")
_WITH_MEANING = ("age_years", "age_group", "gender", "group", "fold", _WEIGHT)
_WORKBENCH = Workbench(max_models=16)
"""Fits of one shape, as those of a cross-validation are, compile once."""
_AT_WORK = threading.Lock()
"""The workbench hands one model to one training."""


class FittedModel(Predictor):
    """What `fit` returns: a `Predictor` that holds its run in memory and knows the classes of `y`.

    It pickles as the bytes of its run, JSON and a `.keras` file, which are looked through as
    those of a folder when it comes back: no code is in them.

    Args:
        run: Finished.
        classes: As they came, in the order of the outputs; None of numbers.
    """

    def __init__(self, run: RunFolder, classes: np.ndarray | None):
        super().__init__(run.path)
        self.report, self.classes = run.report(), classes
        self._files = read_run(run)

    def predict(self, X: ArrayLike | EmbeddingStore) -> np.ndarray:
        """The likeliest class of each row, as `y` had it, or its number.

        Args:
            X: As of `fit`.
        """
        answers = self.probabilities(X)
        return answers[:, 0] if self.classes is None else self.classes[answers.argmax(axis=1)]

    def save(self, path: str | os.PathLike, *, force: bool = False) -> None:
        """Writes the run into a folder, which all commands and `Predictor` take.

        Args:
            path: New or empty.
            force: Replace the run that is there.

        Raises:
            InputError: if the folder cannot be used.
        """
        write_run(self._files, RunFolder(path), force=force)

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self._files, "classes": self.classes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_run(state["files"], run := RunFolder(f"{folder}/run"))
            self.__init__(run, state["classes"])


def fit(
    X: ArrayLike | EmbeddingStore,
    y: ArrayLike,
    *,
    recipe: Recipe | None = None,
    weights: ArrayLike | None = None,
    label: str = "label",
    run_dir: str | os.PathLike | None = None,
    seed: int = 0,
    validation_share: float = VALIDATION_SHARE,
    progress: bool = False,
) -> FittedModel:
    """Trains on arrays, by the one procedure of `train`.

    Args:
        X: Rows of numbers `(rows, width)`, an array, a list or a table of pandas; or a store.
            Rows that all have norm 1 are taken for normalised embeddings.
        y: The class of each row, which text, whole numbers (of at most 100 kinds) and True and
            False are, or floats: numbers to be predicted with their uncertainty (regression).
            All are known: -1 is a class.
        recipe: Hyperparameters; None takes the defaults of `Recipe`, or the preset `number` of
            numbers, and smaller batches for fewer than 2,000 rows. `Recipe()` is for classes:
            for numbers begin with `find_recipe("number")`.
        weights: By which rows count, at least 0; None counts all alike.
        label: What the classes or numbers are called in answers and files; columns that have
            a meaning, such as `age_years`, are for `train`.
        run_dir: Folder to train in, new or empty; None keeps the run in memory, until `save`.
        seed: Decides split, initial weights, shuffling, dropout and mixup.
        validation_share: Of the rows, kept back to measure and to calibrate.
        progress: Show a bar.

    Returns:
        The model. `model.predict(X)` are classes or numbers, `model.probabilities(X)` the
        calibrated probabilities of `model.classes`, or mean and standard deviation;
        `model.rows(X)` are full answers with their uncertainty.

    Raises:
        InputError: if the arrays cannot be trained on or the folder not used.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(60, 8)), np.array(["low", "high"] * 30)
    >>> X[:, 0] += np.where(y == "high", 4, -4)
    >>> model = fit(X, y, recipe=Recipe(epochs=20, learning_rate=0.03))
    >>> model.predict(X[:2]), model.classes
    (array(['low', 'high'], dtype='<U4'), array(['high', 'low'], dtype='<U4'))
    """
    store, y = as_store(X), np.asarray(y)
    if y.shape != (len(store),):
        reject("y", f"must be one label for each of {len(store)} rows", f"shape {y.shape}")
    columns = {}
    if weights is not None:
        weights = checked_weights(weights, len(store))
        kept = weights > 0
        store, y, columns = store.subset(kept), y[kept], {_WEIGHT: weights[kept]}
    target, classes, columns[label] = task_of(label, y)
    store = store.with_labels(store.labels | columns)
    recipe = recipe or for_rows(PRESETS["number" if target.is_number else "gender"], len(store))
    how = {"seed": seed, "validation_share": validation_share, "progress": progress}
    how |= {"weight": None if weights is None else _WEIGHT, "pictures": run_dir is not None}
    with tempfile.TemporaryDirectory() as folder, _AT_WORK:
        run = RunFolder(f"{folder}/run" if run_dir is None else run_dir)
        train(store, target, recipe, run.path, workbench=_WORKBENCH, **how)
        return FittedModel(run, classes)


def as_store(X: ArrayLike | EmbeddingStore) -> EmbeddingStore:
    """Rows as a store; one that is a store already stays what it is."""
    if isinstance(X, EmbeddingStore):
        return X
    try:
        rows = np.asarray(X)
    except ValueError:
        reject("X", "must be rows of numbers of one length", "rows of different lengths")
    if rows.ndim == 2 and len(rows) and rows.dtype.kind in "fiu" and (lost := lost_columns(rows)):
        requirement = "must hold numbers that float32 tells apart: take what they share away"
        reject("X", requirement, f"numbers about {float(rows[0, lost[0]])!r} in column {lost[0]}")
    columns = made_of_columns(getattr(X, "columns", ()))
    info = StoreInfo(normalized=are_normalized(rows), preprocessing=columns)
    return EmbeddingStore(rows, {}, info, name="X")


def checked_weights(weights: ArrayLike, rows: int) -> np.ndarray:
    """Weights of rows as float64: finite, at least 0, and one of them above."""
    weights = np.asarray(weights, np.float64)
    if weights.shape != (rows,):
        reject("weights", f"must be one number for each of {rows} rows", f"shape {weights.shape}")
    if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
        reject("weights", "must be finite numbers >= 0, not all of them zero", weights.tolist())
    return weights


def are_normalized(rows: np.ndarray) -> bool:
    """Whether all rows have norm 1, as embeddings have; codes of zeros and ones are none.

    Example:

    >>> are_normalized(np.array([[0.6, 0.8], [1.0, 0.0]])), are_normalized(np.eye(3))
    (True, False)
    """
    if rows.ndim != 2 or rows.dtype.kind != "f" or (rows == np.rint(rows)).all():
        return False
    norms = np.sqrt(np.vecdot(rows, rows))
    return bool((np.abs(norms - 1) <= NORM_TOLERANCE).all())


def for_rows(recipe: Recipe, rows: int) -> Recipe:
    """A recipe with the smaller batches of few rows, if its epochs would have few steps."""
    few = rows < SMALL_STORE_ROWS and recipe.min_steps == 1
    return recipe.replace(**SMALL_STORE) if few else recipe


def task_of(
    label: str, y: np.ndarray
) -> tuple[Target | NumberTarget, np.ndarray | None, np.ndarray]:
    """What labels ask for: a target, the classes if they are some, and the column of a store.

    Raises:
        InputError: if a label is not known, or two classes have one name.

    Example:

    >>> task_of("side", np.array([1, -1, 1]))[1:]
    (array([-1,  1]), array(['1', '-1', '1'], dtype='<U2'))
    """
    if not _NAME.fullmatch(label):
        reject("label", "must be a name without '/'", label)
    if label in _WITH_MEANING:
        reject("label", "must be a name without a meaning of its own, as these have", label)
    if y.dtype.kind == "O" and all(isinstance(v, float) for v in y.tolist()):
        y = y.astype(np.float64)
    if y.dtype.kind not in "iubUSOf":
        reject("y", "must hold text, numbers, or True and False", f"values of {y.dtype}")
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            reject("y", "must hold finite numbers", "NaN or infinity")
        return NumberTarget(label), None, y
    try:
        classes, codes = np.unique(y, return_inverse=True)
    except TypeError:  # of objects that have no order
        reject("y", "must hold labels of one kind, known in every row", y.tolist())
    if y.dtype.kind in "iu" and len(classes) > MOST_CLASSES:
        requirement = "must be told: `y.astype(float)` are numbers, `y.astype(str)` classes"
        reject("y", requirement, f"{len(classes)} different whole numbers")
    names = [str(c) for c in classes.tolist()]
    if "" in names or len(set(names)) < len(names) or any(c != c or c is None for c in classes):
        reject("y", "must hold labels that are known in every row", names)
    return Target(label, tuple(names)), classes, np.array(names)[codes]
