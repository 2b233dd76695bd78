"""From a run and embeddings to answers a person can use: class, age, interval, uncertainty."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import numpy as np

from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.data.stores.streamed_rows import AnyRows
from kerasmlp.data.targets import Target
from kerasmlp.runs.answering_model import AnsweringModel
from kerasmlp.runs.calibration import age_intervals, class_entropy_nats
from kerasmlp.runs.conformal_groups import SET, group_names
from kerasmlp.runs.head_answers import beside, class_answers, emptied, number_answers
from kerasmlp.runs.risk import judged_target, threshold_nats
from kerasmlp.uncertainty.numbers import number_intervals
from kerasmlp.uncertainty.prediction_sets import prediction_sets
from kerasmlp.uncertainty.sampler import Sampler
from kerasmlp.utils.checks import check_seed, reject

ROWS_PER_CHUNK = 1024


class Predictor:
    """One head of a finished run, ready to answer.

    Beside `model`, the deterministic one, there is `mc_model`, whose samples answers come
    from: on the same weights, with the logits divided by the `mc_temperature` of the run's
    calibration, because a mean of passes is flatter than each of them.

    Args:
        path: Run folder.
        label: Of the head, where the run has several; see `Predictor.heads`.

    Raises:
        InputError: if there is no finished run, or one of its files is damaged or altered.
    """

    def __init__(self, path: str | os.PathLike, label: str | None = None):
        self._of(AnsweringModel(path), label)

    def _of(self, answering: AnsweringModel, label: str | None) -> None:
        labels = list(answering.targets)
        if label is None and len(labels) == 1:
            label = labels[0]
        if label not in labels:
            reject("label", f"must be one of {', '.join(labels)}, which the run answers", label)
        self._answering, self.label = answering, label
        self.path, self.config = answering.path, answering.config
        self.reference = answering.reference
        self.target, self.calibration = answering.targets[label], answering.calibrations[label]
        self.model, self.mc_model = answering.model, answering.mc_model

    @classmethod
    def heads(cls, path: str | os.PathLike) -> list[Predictor]:
        """All heads of a run, in the order of its labels; they share each pass.

        Args:
            path: Run folder.
        """
        answering, found = AnsweringModel(path), []
        for label in answering.targets:
            predictor = cls.__new__(cls)
            predictor._of(answering, label)
            found.append(predictor)
        return found

    @property
    def trained(self) -> Target | NumberTarget:
        """The target it was trained for, whose classes may be others than those it answers in."""
        return self._answering.trained[self.label]

    @property
    def sampler(self) -> Sampler:
        """Of `mc_model`, compiled once for all calls."""
        return self._answering.sampler

    def __repr__(self) -> str:
        calibrated = "calibrated" if self.calibration else "not calibrated"
        target, width = self.target, self.config["width"]
        what = target.measured_in if target.is_number else f"{target.num_classes} classes of "
        what += "" if target.is_number else target.label
        return f"Predictor({str(self.path)!r}: {what}, width {width}, {calibrated})"

    @property
    def name(self) -> str:
        """What it predicts: `age`, `gender` or another label."""
        return self.target.name

    def check(self, name: str | os.PathLike, width: int, info: StoreInfo) -> None:
        """Rejects embeddings that the model was not trained for."""
        self._answering.check(name, width, info)

    def checked(self, embeddings: np.ndarray | EmbeddingStore) -> AnyRows:
        """Rows as float32, if their width and norms are such as the model has learned from.

        Raises:
            InputError: if not, if there is a NaN, or a store is of another embedder.
        """
        return self._answering.checked(embeddings)

    def probabilities(self, embeddings: np.ndarray | EmbeddingStore) -> np.ndarray:
        """Deterministic probabilities of the head, `(rows, num_classes)`; of numbers mean and
        standard deviation, `(rows, 2)`."""
        return self._answering.deterministic(self.checked(embeddings), self.label)

    def threshold_nats(
        self, max_risk: float, *, num_samples: int, within_years: float | None = None
    ) -> float:
        """The `class_entropy_nats` of the mean above which the model abstains to keep a risk.

        Args:
            max_risk: Share of wrong answers, in (0, 1).
            num_samples: Passes to answer from; fewer than calibrated with break the promise.
            within_years: An age counts as right if it is at most so many years off, in
                classes of the head; None, or a label that is no age: if its class is right.

        Raises:
            InputError: if the run holds no such data or cannot keep the risk.
        """
        if self.target.is_number:
            reject("max_risk", f"must be left out for {self.label}, a number", max_risk)
        which = self.calibration, self.target, self.trained.classes
        return threshold_nats(
            self.path, *which, max_risk, num_samples=num_samples, within_years=within_years
        )

    def uncertainty(
        self, embeddings: np.ndarray | EmbeddingStore, *, num_samples: int = 64, seed: int = 0
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields, chunk by chunk, mean and measures of `mc_model`, as `predict_uncertainty`.

        Of numbers the mean is `(rows, 2)`: with the standard deviation of the prediction,
        which `epistemic_std`, `aleatoric_std` and `total_std` take apart.
        With `num_samples=0` the mean is the deterministic model's, without measures.
        """
        self._answering.check_passes(num_samples)
        check_seed(seed)
        return self._chunks(self.checked(embeddings), num_samples, seed, 0)

    def _chunks(self, rows: AnyRows, num_samples: int, seed: int, first: int) -> Iterator[dict]:
        for start in range(0, len(rows), ROWS_PER_CHUNK):
            chunk = rows[start : start + ROWS_PER_CHUNK]
            how = {"num_samples": num_samples, "seed": seed, "first_row": first + start}
            yield dict(self._answering.answers(chunk, **how)[self.label])

    def intervals(
        self,
        probabilities: np.ndarray,
        *,
        sampled: bool,
        columns: Mapping[str, np.ndarray] | None = None,
    ) -> dict[int, np.ndarray]:
        """Intervals of ages or numbers by percent, `(rows, 2)`, conformal where calibrated.

        Args:
            probabilities: Of the head, `(rows, num_classes)`, or `(rows, 2)` of numbers.
            sampled: Whether they are a mean over stochastic passes.
            columns: Labels of the rows, among them those of `unknown_columns`; without these
                the intervals are those of all rows.
        """
        limits = self._limits(probabilities, sampled, columns)
        limits.pop(SET, None)
        if self.target.is_number:
            return number_intervals(*np.asarray(probabilities, float).T, limits)
        return age_intervals(self.target, probabilities, limits)

    def sets(
        self,
        probabilities: np.ndarray,
        *,
        sampled: bool,
        columns: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray | None:
        """Which classes hold the true one in 90% of rows, a mask `(rows, classes)`, or None.

        Args:
            probabilities: Of the head, `(rows, num_classes)`.
            sampled: As of `intervals`.
            columns: As of `intervals`.
        """
        if self.target.is_number:
            return None
        threshold = self._limits(probabilities, sampled, columns).get(SET)
        if threshold is None:
            return None
        return prediction_sets(self.target.measured(probabilities), threshold)

    def unknown_columns(self, columns: Mapping[str, np.ndarray] | None) -> list[str]:
        """Columns by which limits were fitted that rows do not bring along."""
        groups = self.calibration.groups if self.calibration else None
        return [name for name in groups.columns if name not in (columns or {})] if groups else []

    def _limits(
        self, answers: np.ndarray, sampled: bool, columns: Mapping[str, np.ndarray] | None
    ) -> dict[str, np.ndarray | float]:
        model, calibration = "mc_mean" if sampled else "deterministic", self.calibration
        if calibration is None:
            return {}
        limits = calibration.limits(model)
        if calibration.groups is None:
            return limits
        names = group_names(calibration.groups.by, self.target, answers, columns)
        return limits if names is None else calibration.groups.of_rows(model, limits, names)

    def rows(
        self,
        embeddings: np.ndarray | EmbeddingStore,
        *,
        num_samples: int = 64,
        seed: int = 0,
        max_risk: float | None = None,
        within_years: float | None = None,
        columns: Mapping[str, np.ndarray] | None = None,
        first_row: int | None = None,
    ) -> Iterator[dict]:
        """Yields one answer per embedding, from the mean of `num_samples` stochastic passes.

        Every answer holds `<label>` (the likeliest class), `probability` and
        all measures of uncertainty, plain and scaled to 0..1; ages add
        `age_years` (expectation), `age_median_years`, `age_interval_50` and
        `age_interval_90` (years); other classes add `probabilities`. `set_90` are the classes
        that hold the true one in 90% of rows, the likeliest first, where the run has
        calibrated them. With `num_samples=0` the
        deterministic model answers, without measures. `uncertainty` says how sure the answer is:
        the entropy by which the model abstains, as a share of its maximum, 0 to 1. With
        `max_risk` (and `within_years`, as in `threshold_nats`) there are the
        `uncertainty_limit`, `class_entropy_nats` and `abstained`, and where
        that is True all but the measures is None.

        A number is answered with `<label>`, its `unit`, the standard deviations `total_std`,
        `aleatoric_std` and `epistemic_std`, `interval_50` and `interval_90`; `uncertainty` is
        `total_std` as a share of that of the numbers trained on, at most 1. There is no
        abstention from it. `columns` are labels of the rows; None takes a store's. With the
        number of the `first_row` rows are an array, a part of what `checked` has taken.

        Raises:
            InputError: if the rows are not such as the model has learned from (see
                `checked`), or its answers are no numbers.
        """
        if columns is None and isinstance(embeddings, EmbeddingStore):
            columns = embeddings.labels
        columns = None if columns is None else dict(columns.items())
        self._answering.check_passes(num_samples)
        chunks = self._chunks(embeddings, num_samples, seed, first_row or 0)
        if first_row is None:
            chunks = self.uncertainty(embeddings, num_samples=num_samples, seed=seed)
        if self.target.is_number:
            return self._numbers(chunks, num_samples > 0, columns)
        how = {"num_samples": num_samples, "within_years": within_years}
        threshold = None if max_risk is None else self.threshold_nats(max_risk, **how)
        judged = judged_target(self.target, within_years)
        return self._rows(chunks, judged, threshold, num_samples > 0, columns)

    def _rows(
        self,
        chunks: Iterator[dict],
        judged: Target,
        threshold: float | None,
        sampled: bool,
        columns: Mapping[str, np.ndarray] | None,
    ) -> Iterator[dict]:
        largest = np.log(len(judged.measured_names))
        for measures, of_chunk in beside(chunks, columns):
            mean = measures.pop("mean")
            entropies = class_entropy_nats(judged, mean)
            for i, answer in enumerate(self._answers(mean, sampled, of_chunk)):
                sure = {"uncertainty": float(entropies[i] / largest)}
                if threshold is not None:
                    unsure = not entropies[i] <= threshold  # so that a NaN is never sure
                    answer = emptied(answer) if unsure else answer
                    sure |= {
                        "uncertainty_limit": float(threshold / largest),
                        "abstained": unsure,
                        "class_entropy_nats": float(entropies[i]),
                    }
                answer |= sure
                row = {k: float(v[i]) for k, v in measures.items()}
                if answer.get("abstained"):  # the mean of the votes is an answer too
                    row |= {"vote_mean": None, "vote_mean_scaled": None}
                yield answer | row

    def _answers(
        self, mean: np.ndarray, sampled: bool, columns: Mapping[str, np.ndarray] | None
    ) -> list[dict]:
        how = {"sampled": sampled, "columns": columns}
        ends = self.intervals(mean, **how) if self.target.is_age else {}
        return class_answers(self.target, mean, ends, self.sets(mean, **how))

    def _numbers(
        self, chunks: Iterator[dict], sampled: bool, columns: Mapping[str, np.ndarray] | None
    ) -> Iterator[dict]:
        spread = self._answering.spread_of(self.label)
        for measures, known in beside(chunks, columns):
            intervals = self.intervals(mean := measures.pop("mean"), sampled=sampled, columns=known)
            yield from number_answers(self.target, mean, intervals, measures, spread)
