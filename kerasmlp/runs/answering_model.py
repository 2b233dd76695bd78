"""The model of a run as it answers: its heads, calibrated, and the passes that they share."""

from __future__ import annotations

import hashlib
import os
import threading
from functools import cached_property

import numpy as np

from kerasmlp.data.norms import are_others
from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_info import StoreInfo, check_same_embedder, made_of_columns
from kerasmlp.data.stores.streamed_rows import AnyRows, StreamedRows
from kerasmlp.data.targets import Target, in_groups
from kerasmlp.layers.gaussian_head import GaussianHead
from kerasmlp.layers.members import members_of
from kerasmlp.models.residual_mlp import head_layer
from kerasmlp.runs.calibration import HEADS, RunCalibration
from kerasmlp.runs.mc_model import with_temperatures
from kerasmlp.runs.model import load_model
from kerasmlp.runs.number_calibration import NumberCalibration
from kerasmlp.runs.reference import FILE, Reference
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import read_settings
from kerasmlp.uncertainty.numbers import number_measures
from kerasmlp.uncertainty.sampler import Sampler
from kerasmlp.uncertainty.samples import MAX_SAMPLES, check_rows, predict_uncertainty
from kerasmlp.utils.checks import check_int, reject, reject_file
from kerasmlp.utils.compiled import answers_to_rows
from kerasmlp.utils.schema import check_object, fields, kind, one_of
from kerasmlp.utils.tensorflow_import import keras_backend

_ROWS_PER_PASS = 1 << 15
_KEPT = 128
"""Calls whose answers are kept for the other heads of a run."""


class AnsweringModel:
    """A finished run, loaded once for all its heads.

    Attributes:
        config: Settings of the run.
        trained: Targets of its heads, by label.
        targets: In which they answer, by label.
        calibrations: Of its heads, by label; None of a run without.
        reference: By which moved rows are noticed; None of older versions, or of few rows.
        model: The deterministic one.
        mc_model: The one whose passes are averaged: with the temperatures for passes.

    Args:
        path: Run folder.

    Raises:
        InputError: if there is no finished run, or one of its files is damaged or altered.
    """

    def __init__(self, path: str | os.PathLike):
        run = RunFolder(path)
        self.path = run.path
        self.config, target = read_settings(run)
        heads = target.heads
        self._names = {head.label: head.label if len(heads) > 1 else None for head in heads}
        self.targets: dict[str, Target | NumberTarget] = {
            head.label: head if head.is_number else in_groups(head) for head in heads
        }
        self.trained = {head.label: head for head in heads}
        self.calibrations = _calibrations(run, heads)
        self.reference = _reference(run, self.config["width"])
        self.model = load_model(run.path)
        self._check_shapes(run)
        temperatures = {
            self._names[label]: calibration.mc_temperature if calibration else 1.0
            for label, calibration in self.calibrations.items()
        }
        self.mc_model = with_temperatures(self.model, temperatures)
        self._answered: dict[tuple, dict[str, dict]] = {}
        self._keeping = threading.Lock()

    def _check_shapes(self, run: RunFolder) -> None:
        ends = dict.fromkeys(sorted(self.targets)), [o.shape for o in self.model.outputs]
        came = self.model.input_shape, dict(zip(*ends, strict=False))
        outputs = {label: (None, self.targets[label].num_outputs) for label in sorted(self.targets)}
        expected = (None, self.config["width"]), outputs
        named = isinstance(self.model.output, dict)
        if named != (len(outputs) > 1) or (named and sorted(self.model.output) != list(outputs)):
            came = self.model.input_shape, self.model.output
        if len(self.targets) == 1:
            (expected_of,), shapes = outputs.values(), [o.shape for o in self.model.outputs]
            expected = expected[0], expected_of
            came = came[0], shapes[0] if len(shapes) == 1 else shapes
        if came != expected:
            requirement = "must hold a model from {} to {}, as config.json says".format(*expected)
            reject_file(run / "model.keras", requirement, "one from {} to {}".format(*came)[:300])

    @cached_property
    def sampler(self) -> Sampler:
        """Of `mc_model`, compiled once for all calls."""
        return Sampler(self.mc_model)

    def spread_of(self, label: str) -> float:
        """Standard deviation of a number among the rows trained on, in its unit."""
        return float(self.gaussian_of(label).get_weights()[1])

    def gaussian_of(self, label: str) -> GaussianHead:
        """The last layer of a head of numbers."""
        return self.model.get_layer(head_layer("gaussian", self._names[label]))

    def check(self, name: str | os.PathLike, width: int, info: StoreInfo) -> None:
        """Rejects embeddings that the model was not trained for."""
        names = ("embedder", "embedder_sha256", "normalized", "preprocessing")
        known = {k: self.config[k] for k in names}
        check_same_embedder(name, info, StoreInfo(**known))
        if width != self.config["width"]:
            reject_file(name, f"must hold embeddings of width {self.config['width']}", f"{width}")
        if info.normalized != known["normalized"]:
            words = {n: f"embeddings that are {'not ' * (not n)}normalised" for n in (True, False)}
            reject_file(name, f"must hold {words[known['normalized']]}", words[info.normalized])

    def checked(self, embeddings: np.ndarray | EmbeddingStore) -> AnyRows:
        """Rows as float32, if their width and norms are such as the model has learned from.

        Streamed rows stay so.

        Raises:
            InputError: if not, if there is a NaN, or a store is of another embedder.
        """
        if isinstance(embeddings, EmbeddingStore):
            self.check("the store", embeddings.width, embeddings.info)
            embeddings = embeddings.embeddings  # that a store has checked
        elif columns := made_of_columns(getattr(embeddings, "columns", ())):  # a table of pandas
            known = StoreInfo(preprocessing=self.config["preprocessing"])
            check_same_embedder("X", StoreInfo(preprocessing=columns), known)
        if not isinstance(embeddings, StreamedRows):
            embeddings = check_rows(self.model, embeddings)
            if len(embeddings):
                info = StoreInfo(normalized=self.config["normalized"])
                embeddings = EmbeddingStore(embeddings, info=info).embeddings
        share = self.config.get("norm_1_share")  # of a run of an older version it is not known
        if share is not None and are_others(embeddings, share):
            requirement = "must hold rows that are not normalised, as the model has learned from"
            reject_file("embeddings", requirement, f"{len(embeddings)} rows of norm 1")
        return embeddings

    def answers(
        self, rows: np.ndarray, *, num_samples: int = 0, seed: int = 0, first_row: int = 0
    ) -> dict[str, dict[str, np.ndarray]]:
        """Of each head by its label, the `mean` of so many passes and its measures.

        With `num_samples=0` the mean is the deterministic model's, without measures. Of
        numbers the mean is `(rows, 2)`: with the standard deviation of the prediction. Of
        several heads the last answers are kept: they are asked one after the other.

        Args:
            rows: As `checked` gives them.
            num_samples: Stochastic passes.
            seed: Of the passes.
            first_row: Number of the first row.
        """
        if len(self.targets) == 1:
            return self._computed(rows, num_samples, seed, first_row)
        asked = (hashlib.sha256(np.ascontiguousarray(rows)).digest(), num_samples, seed, first_row)
        found = self._answered.get(asked)
        if found is None:
            found = self._computed(rows, num_samples, seed, first_row)
            with self._keeping:
                if len(self._answered) >= _KEPT:
                    self._answered.pop(next(iter(self._answered)))
                self._answered[asked] = found
        return {label: {k: v.copy() for k, v in each.items()} for label, each in found.items()}

    def check_passes(self, num_samples: int) -> None:
        """Rejects a number of passes in which not every member has one.

        Args:
            num_samples: Stochastic passes.
        """
        check_int("num_samples", num_samples, minimum=0, maximum=MAX_SAMPLES)
        if 0 < num_samples < (members := members_of(self.model)):
            requirement = f"must be 0 or >= {members}: a pass of each member"
            reject("num_samples", requirement, num_samples)

    def deterministic(self, rows: AnyRows, label: str) -> np.ndarray:
        """Answers of a head to rows, without passes.

        Args:
            rows: As `checked` gives them.
            label: Of the head.
        """
        starts = range(0, max(len(rows), 1), _ROWS_PER_PASS)
        answers = (self.answers(rows[start : start + _ROWS_PER_PASS]) for start in starts)
        return np.concatenate([each[label]["mean"] for each in answers])

    def _computed(
        self, rows: np.ndarray, num_samples: int, seed: int, first_row: int
    ) -> dict[str, dict[str, np.ndarray]]:
        if num_samples:
            how = {"num_samples": num_samples, "seed": seed, "first_row": first_row}
            found = predict_uncertainty(self.sampler, rows, **how)
        elif len(rows) and keras_backend() == "jax":
            found = answers_to_rows(self.model, rows)
        elif len(rows):
            found = self.model.predict(rows, batch_size=8192, verbose=0)
        else:
            found = {k: np.empty((0, t.num_outputs), np.float32) for k, t in self.targets.items()}
            found = found if len(found) > 1 else next(iter(found.values()))
        by_label = found if len(self.targets) > 1 else dict.fromkeys(self.targets, found)
        answers = {}
        for label, target in self.targets.items():
            measures = by_label[label] if num_samples else {"mean": by_label[label]}
            for values in measures.values():
                self._sound(values)
            of_number = target.is_number and num_samples
            answers[label] = _of_number(measures) if of_number else measures
        return answers

    def _sound(self, answers: np.ndarray) -> None:
        """NaN passes every comparison with a threshold: nothing is answered from it."""
        if not np.isfinite(answers).all():
            requirement = "must hold a model whose answers are numbers"
            reject_file(self.path / "model.keras", requirement, "NaN or infinity for some rows")


def _of_number(measures: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    moments = number_measures(measures)
    stds = {
        f"{kind}_std": np.sqrt(moments[f"{kind}_variance"])
        for kind in ("epistemic", "aleatoric", "total")
    }
    return {"mean": np.stack([moments["mean"], stds["total_std"]], axis=1), **stds}


def _calibrations(
    run: RunFolder, heads: tuple[Target | NumberTarget, ...]
) -> dict[str, RunCalibration | NumberCalibration | None]:
    path, value = run / "calibration.json", run.read_optional_json("calibration.json")
    if value is None:
        return dict.fromkeys(head.label for head in heads)
    by_label = {heads[0].label: value}
    if len(heads) > 1:
        anything = kind("a JSON object", lambda v: isinstance(v, dict))
        each = fields({head.label: anything for head in heads})
        what = "the calibrations of this run"
        by_label = check_object(path, value, {"format": one_of(HEADS), "heads": each}, what)[
            "heads"
        ]
    return {
        head.label: NumberCalibration.from_json(path, by_label[head.label])
        if head.is_number
        else RunCalibration.from_json(path, by_label[head.label], head)
        for head in heads
    }


def _reference(run: RunFolder, width: int) -> Reference | None:
    value = run.read_optional_json(FILE)
    return None if value is None else Reference.from_json(run / FILE, value, width)
