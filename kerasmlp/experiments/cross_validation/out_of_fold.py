"""What the runs of a cross-validation answer for the folds that they were tested on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerasmlp.data.examples import Examples, examples_of, known_in_any
from kerasmlp.data.other_targets import AnyTarget
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.evaluation.predictions_file import PLAIN, SAMPLED, Predictions, label_numbers
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, PlannedRun
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import read_report
from kerasmlp.uncertainty.measures import entropy_nats
from kerasmlp.utils.checks import InputError, reject_file

NUM_SAMPLES = 64
"""Passes of an answer, as many as of `predict`."""

_PARTS = "predictions"
FILES = ("predictions*.parquet", f"{_PARTS}/*.parquet")
"""That a cross-validation writes for it, as `RunFolder.working` takes them."""


def files_of(target: AnyTarget) -> dict[str, str]:
    """The file of each head, by its label.

    Example:

    >>> from kerasmlp.data.other_targets import NumberTarget, SeveralTargets
    >>> files_of(SeveralTargets((NumberTarget("bmi"), NumberTarget("height"))))
    {'bmi': 'predictions_bmi.parquet', 'height': 'predictions_height.parquet'}
    """
    if len(target.heads) == 1:
        return {target.label: "predictions.parquet"}
    from kerasmlp.models.residual_mlp import head_layer  # loads Keras

    return {h.label: f"{head_layer('predictions', h.label)}.parquet" for h in target.heads}


def read_predictions(folder: RunFolder, target: AnyTarget, label: str) -> Predictions:
    """The answers of one head in a finished cross-validation.

    Args:
        folder: Of the cross-validation.
        target: Of it.
        label: Of the head.

    Raises:
        InputError: naming the file, if there is none, or a damaged or altered one.
    """
    name = files_of(target)[label]
    content = folder.read_bytes(name)
    if content is None:
        requirement = "must be there (`cross-validate --save-predictions --resume` writes it)"
        reject_file(folder / name, requirement, "no such file")
    return Predictions.read(folder / name, content)


def has_predictions(folder: RunFolder, target: AnyTarget) -> bool:
    """Whether the answers of all heads are there, as they were written."""
    try:
        return all(folder.read_bytes(name) is not None for name in files_of(target).values())
    except InputError:
        return False


def without_part(runs: Sequence[RunFolder], target: AnyTarget) -> list[int]:
    """Numbers of the runs whose answers are not kept yet, of all that are finished."""
    names = files_of(target).values()
    return [
        number
        for number, run in enumerate(runs)
        if "diverged" not in read_report(run)
        and not all(_part(run.path.parent, run.path.name, name).is_file() for name in names)
    ]


def predict_planned(
    store: EmbeddingStore,
    plan: CrossValidationPlan,
    run: PlannedRun,
    run_dir: str | os.PathLike,
    *,
    num_samples: int = NUM_SAMPLES,
) -> None:
    """Keeps the answers of a finished run for its test, in a file per head in the folder of all.

    They are those of `predict`: means over the passes of the model, or of one without dropout
    what it says. Of a face with several views the first is asked.

    Args:
        store: Of the plan.
        plan: Of all runs.
        run: Whose fold it is.
        run_dir: Folder of all runs.
        num_samples: Passes; 0 asks the deterministic model.
    """
    names = files_of(plan.target)
    for label, found in _answers(store, plan, run, run_dir, num_samples).items():
        path = _part(run_dir, run.name, names[label])
        path.parent.mkdir(mode=0o700, exist_ok=True)
        found.save(path)


def join_parts(runs: Sequence[PlannedRun], target: AnyTarget, folder: RunFolder) -> None:
    """Puts the answers of all runs together, a file per head; what was kept of each goes.

    The folder is not finished then.

    Args:
        runs: Of the plan.
        target: Of it.
        folder: Of the cross-validation.
    """
    folder.take_files(FILES)
    reports = {run.name: read_report(RunFolder(folder / run.name)) for run in runs}
    diverged = [name for name, report in reports.items() if "diverged" in report]
    sound = [name for name in reports if name not in diverged]
    for name in files_of(target).values() if sound else ():
        paths = [_part(folder.path, run, name) for run in sound]
        parts = [Predictions.read(path, path.read_bytes()) for path in paths]
        Predictions.joined(parts, diverged=diverged).save(folder / name)
    shutil.rmtree(folder / _PARTS, ignore_errors=True)


def _part(folder: str | os.PathLike, run: str, name: str) -> Path:
    return Path(folder) / _PARTS / name.replace("predictions", run, 1)


def _answers(
    store: EmbeddingStore,
    plan: CrossValidationPlan,
    run: PlannedRun,
    run_dir: str | os.PathLike,
    num_samples: int,
) -> dict[str, Predictions]:
    from kerasmlp.runs.mc_model import can_be_sampled
    from kerasmlp.runs.predictor import Predictor

    heads = [head.subset(run.test) for head in examples_of(store, plan.target)]
    starts = heads[0].view_starts
    first = np.arange(len(run.test)) if starts is None else starts
    first = first[known_in_any([head.subset(first) for head in heads])]
    predictors = Predictor.heads(Path(run_dir) / run.name)
    sampled = num_samples if can_be_sampled(predictors[0].model) else 0
    about = {
        "data_digest": store.digest(),
        "store_rows": len(store),
        "answers": SAMPLED if sampled else PLAIN,
        "num_samples": sampled,
        "diverged": [],
    }
    found = {}
    for head, predictor in zip(heads, predictors, strict=True):
        x = head.inputs[first]
        chunks = list(predictor.uncertainty(x, num_samples=sampled, seed=run.seed))
        measures = {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]}
        known = head.subset(first).known
        labels, names = label_numbers(head.subset(first[known]))
        columns = {
            "row": run.test[first[known]].astype(np.int64),
            "seed": np.full(known.sum(), run.seed, np.int64),
            "fold": np.full(known.sum(), run.fold, np.int64),
            "label": labels,
            **_columns(head, {name: column[known] for name, column in measures.items()}),
        }
        said = about | {"label_names": names, "rows_without_label": int((~known).sum())}
        found[head.target.label] = Predictions(head.target, said, columns)
    return found


def _columns(head: Examples, measures: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Answers and measures as `Predictions` has them."""
    mean = measures.pop("mean")
    if head.target.is_number:
        mean = mean.astype(np.float64)
        columns = {"mean": mean[:, 0], "std": mean[:, 1]}
        return columns | {k: v for k, v in measures.items() if k == "epistemic_std"}
    columns = {
        "probabilities": np.clip(mean, 0, 1).astype(np.float32),
        "predictive_entropy_nats": np.maximum(entropy_nats(mean.astype(np.float64)), 0),
    }
    return columns | {k: v for k, v in measures.items() if k == "mutual_information_nats"}
