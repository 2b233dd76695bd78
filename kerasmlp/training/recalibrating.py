"""A run whose answers are calibrated anew, on rows of where it is to answer, without training."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from kerasmlp.callbacks.validation import forward
from kerasmlp.data.examples import Examples
from kerasmlp.data.other_targets import AnyTarget, SeveralTargets
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.streamed_rows import some_rows
from kerasmlp.evaluation.measuring import measure
from kerasmlp.models.recipe_files import recipe_of
from kerasmlp.runs.answering_model import AnsweringModel
from kerasmlp.runs.conformal_groups import PREDICTED
from kerasmlp.runs.environment import environment
from kerasmlp.runs.mc_model import can_be_sampled
from kerasmlp.runs.model import save_model
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import save_seen
from kerasmlp.runs.training_files import FILES
from kerasmlp.training.batch_norm_statistics import renew_batch_norm
from kerasmlp.training.calibrating import empty_calibration
from kerasmlp.training.conformal_fitting import check_conformal_by
from kerasmlp.training.head_results import HeadResult, calibrations_of, head_result, report_of
from kerasmlp.training.heads import LearningHead, side_by_side
from kerasmlp.training.recalibrated_rows import NewRows, notes_of_rows
from kerasmlp.training.reference_fitting import answers_of, fit_reference, save_reference
from kerasmlp.training.rows import HeadRows
from kerasmlp.uncertainty.sampler import Sampler
from kerasmlp.utils.checks import check_bool, check_int, check_seed, reject, reject_file
from kerasmlp.utils.files import atomic_path, sha256_file, write_json

_KEPT = ("epochs", "stopped_early", "trainable_parameters", "columns", "data", "refit")
"""Of the report of the run, what is still true."""


def recalibrate(
    run: str | os.PathLike,
    store: EmbeddingStore,
    run_dir: str | os.PathLike,
    *,
    batch_norm: bool = False,
    conformal_by: Sequence[str] | None = None,
    seed: int = 0,
    force: bool = False,
) -> dict:
    """Fits anew what comes after the weights of a run, on labelled rows that are new to it.

    That are temperatures, intervals, sets, the limits of groups, thresholds to abstain, and by
    what moved rows are noticed; the network stays as it is. Promises then hold for rows drawn
    like these. Where a store knows age groups and a run years, all is fitted in these groups
    but the intervals in years, which promise nothing then. A label of several that the store
    lacks stays as it was.

    Args:
        run: Finished training on embeddings.
        store: Rows of where the run is to answer; those that it has learned from are left out.
        run_dir: Folder of the new run; must be new, empty or forced.
        batch_norm: Take the moving statistics of batch norm from these rows before, without
            their labels: from those that have none, if there are 200.
        conformal_by: As of a `Recipe`; None takes that of the run.
        seed: Of the batches of batch norm, and of a row of each group.
        force: Replace the run in the folder.

    Returns:
        The report, as in `report.json`: measures on these rows `before` and after, under
        `validation`, and `notes`.

    Raises:
        InputError: if the run is none on such embeddings, fewer than 30 rows with a label are
            new to it, or the folder cannot be used.

    Example:

    >>> import tempfile
    >>> from kerasmlp import Recipe, choose_target, train
    >>> rng, folder = np.random.default_rng(0), tempfile.mkdtemp()
    >>> x = rng.normal(size=(900, 8)).astype("float32")
    >>> x /= np.linalg.norm(x, axis=1, keepdims=True)
    >>> store = EmbeddingStore(x, {"side": np.where(x[:, 0] > 0, "right", "left")})
    >>> recipe = Recipe(epochs=20, batch_size=64, learning_rate=0.01)
    >>> old, new = store.subset(range(600)), store.subset(range(600, 900))
    >>> _ = train(old, choose_target(old, "side"), recipe, f"{folder}/run")
    >>> report = recalibrate(f"{folder}/run", new, f"{folder}/new")
    >>> report["rows"]["validation"], report["validation"]["nll"] <= report["before"]["nll"]
    (300, True)
    """
    started = time.time()
    check_seed(check_int("seed", seed, minimum=0))
    if Path(run_dir).resolve() == Path(run).resolve():
        reject_file(run_dir, "must be another folder than that of the run", "the same")
    work = Recalibration(AnsweringModel(run), store, conformal_by, seed)
    new = RunFolder(run_dir)
    if check_bool("batch_norm", batch_norm):
        work.renew_batch_norm()
    with new.working(work.config, resume=None, force=force, files=FILES):
        report = work.write(new)
        report["seconds"] = {"fit": 0.0, "total": time.time() - started}
        new.finish(report)
    return report


class FinishedHead(LearningHead):
    """A head of a finished model, whose unit is that of its layer.

    Args:
        rows: With the label.
        name: Of several heads, that of this one; else None.
        model: Its layers.
        mc_temperature: Of its passes, where rows are too few to fit one.
    """

    def __init__(self, rows: Examples, name: str | None, model: keras.Model, mc_temperature: float):
        self.rows, self.target, self.name = HeadRows(rows, rows, rows, None), rows.target, name
        self.mc_temperature = mc_temperature
        if self.target.is_number:
            self.center, self.scale, *_ = map(float, self.layer(model, "gaussian").get_weights())


class Recalibration:
    """A finished run and new rows, on the way to another run.

    Args:
        run: Loaded; its model changes.
        store: With labels.
        conformal_by: As of `recalibrate`.
        seed: As of `recalibrate`.
    """

    def __init__(
        self,
        run: AnsweringModel,
        store: EmbeddingStore,
        conformal_by: Sequence[str] | None,
        seed: int,
    ):
        run.check(store.name, store.width, store.info)
        run.checked(store)
        self.run, self.folder, self.seed = run, RunFolder(run.path), seed
        self.rows, self.joined = NewRows.of(store, run), side_by_side(run.model)
        heads = {label: rows.target for label, rows in self.rows.heads.items()}
        targets = tuple(heads.get(label, old) for label, old in run.trained.items())
        self.target: AnyTarget = targets[0] if len(targets) == 1 else SeveralTargets(targets)
        self.recipe = recipe_of(self.folder / "config.json", run.config["recipe"])
        self.by = self.recipe.conformal_by if conformal_by is None else tuple(conformal_by)
        _check_columns(self.by, store, given=conformal_by is not None)
        check_conformal_by(self.by, next(iter(self.rows.heads.values())), self.target)
        self.report, self.data = self.folder.report(), store.info.of_data()
        self.before = {k: measure(self.rows.part(k), self._answers(k)) for k in heads}
        group = run.config.get("group")
        self.group = group if group in store.labels else None
        self.notes = notes_of_rows(run, self.rows)
        self.config = run.config | {
            "target": self.target.to_config(),
            "recipe": self.recipe.replace(conformal_by=self.by, calibrate=True).to_config(),
            "recalibrated": {
                "model_sha256": sha256_file(self.folder / "model.keras"),
                "data_digest": store.digest(),
                "batch_norm": False,
                "seed": seed,
            },
        }

    def _outputs(self, label: str, x: np.ndarray) -> np.ndarray:
        """The answers of a head, as the model gives them now."""
        sizes = {k: self.run.trained[k].num_outputs for k in sorted(self.run.trained)}
        start = sum(size for k, size in sizes.items() if k < label)
        return forward(self.joined, x)[:, start : start + sizes[label]]

    def _answers(self, label: str) -> np.ndarray:
        return self._outputs(label, self.rows.part(label).inputs)

    def renew_batch_norm(self) -> None:
        """Takes the moving statistics from the new rows."""
        if self.rows.lacking:
            requirement = "must come with rows of every label: the others' answers change too"
            reject("batch_norm", requirement, f"no {next(iter(self.rows.lacking))}")
        rows = self.rows.for_batch_norm
        renew_batch_norm(self.run.model, rows, self.recipe, seed=self.seed)
        self.config["recalibrated"]["batch_norm"] = True
        shared = " (those that calibrate among them)" * (len(rows) == len(self.rows.embeddings))
        self.notes.append(f"batch norm has the statistics of {len(rows)} rows{shared}")

    def write(self, new: RunFolder) -> dict:
        """Fits everything, and writes all files but the report, which it returns."""
        sampler = Sampler(self.run.model) if can_be_sampled(self.run.model) else None
        results = [self._result(label, sampler) for label in sorted(self.run.trained)]
        fitted = [result for result in results if len(result.part)]
        write_json(new / "calibration.json", calibrations_of(results))
        kept, answers = fitted[0].part, answers_of(fitted, self.group)
        how = {"groups": kept.groups(self.group), "answers": answers, "seed": self.seed}
        save_reference(new, fit_reference(self.run.reference, kept.inputs, **how))
        every = self.config["recalibrated"]["batch_norm"]
        used = self.rows.embeddings
        used = used if every else some_rows(used, self.rows.labelled)
        save_seen(new, used, self.folder)
        if (history := self.folder.read_bytes("history.csv")) is not None:
            with atomic_path(new / "history.csv") as temporary:
                temporary.write_bytes(history)
        save_model(new, self.run.model)
        return self._report(results)

    def _result(self, label: str, sampler: Sampler | None) -> HeadResult:
        target, before = self.run.trained[label], self.run.calibrations[label]
        several = len(self.run.trained) > 1
        old = self.report.get("heads", {}).get(target.name, {}) if several else self.report
        if label in self.rows.lacking:
            nobody = Examples(self.rows.embeddings[:0], np.empty(0), {}, target)
            kept = before or empty_calibration(number=target.is_number)
            return HeadResult(old, nobody, np.empty(0), kept)
        mc_temperature = before.mc_temperature if before else 1.0
        name = label if several else None
        head = FinishedHead(self.rows.part(label), name, self.run.model, mc_temperature)
        if target.is_number:
            head.finish(self.run.model)

        def outputs(x: np.ndarray) -> np.ndarray:
            return self._outputs(label, x)

        how = {"calibrated": True, "conformal_by": self.by, "group": self.group}
        result = head_result(head, self.run.model, sampler, outputs, **how)
        result.report["temperature"] *= float(old.get("temperature", 1.0))
        result.report["before"] = self.before[label]
        return result

    def _report(self, results: list[HeadResult]) -> dict:
        old = self.report
        several = len(self.before) > 1 or len(results) > 1
        names = {label: self.run.trained[label].name for label in self.before}
        flat = {f"{names[k]}_{n}": v for k, one in self.before.items() for n, v in one.items()}
        rows = old.get("rows", {})
        return (
            {"epochs": 0, "trainable_parameters": 0}
            | {name: old[name] for name in _KEPT if name in old}
            | report_of(results)
            | {
                "before": flat if several else next(iter(self.before.values())),
                "rows": {
                    "training": rows.get("training", 0),
                    "validation": int(self.rows.labelled.sum()),
                    "unlabelled": int((~self.rows.labelled).sum()),
                    "learned_from": self.rows.learned_from,
                },
                "recalibrated_on": self.data,
                "notes": self.notes,
                "precision": old.get("precision"),
                "seed": self.config.get("seed"),
                "data_digest": self.config["data_digest"],
                **environment(),
            }
        )


def _check_columns(by: Sequence[str], store: EmbeddingStore, *, given: bool) -> None:
    if absent := [name for name in by if name not in (PREDICTED, *store.labels)]:
        if not given:
            requirement = "must hold the columns by which the run has limits, or --conformal-by"
            reject_file(store.name, f"{requirement} name others", f"no {', '.join(absent)}")
        requirement = f"must be columns of the store ({', '.join(store.labels) or 'none'})"
        reject("conformal_by", requirement, absent)
