"""From a run and embeddings to answers a person can use: class, age, interval, uncertainty."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from kerasmlp.data.norms import are_others
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_info import StoreInfo, check_same_embedder
from kerasmlp.data.targets import Target, in_groups
from kerasmlp.runs.calibration import RunCalibration, age_intervals, class_entropy_nats
from kerasmlp.runs.mc_model import with_temperature
from kerasmlp.runs.model import load_model
from kerasmlp.runs.risk import judged_target, threshold_nats
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import read_settings
from kerasmlp.uncertainty.measures import expected_age_years, median_age_years
from kerasmlp.uncertainty.sampler import Sampler
from kerasmlp.uncertainty.samples import MAX_SAMPLES, check_rows, predict_uncertainty
from kerasmlp.utils.checks import check_int, check_seed, reject, reject_file

_ROWS_PER_CHUNK = 1024


class Predictor:
    """A finished run, ready to answer.

    Beside `model`, the deterministic one, there is `mc_model`, whose samples answers come
    from: on the same weights, with the logits divided by the `mc_temperature` of the run's
    calibration, because a mean of passes is flatter than each of them.

    Args:
        path: Run folder.

    Raises:
        InputError: if there is no finished run, or one of its files is damaged or altered.
    """

    def __init__(self, path: str | os.PathLike):
        run = RunFolder(path)
        self.path = run.path
        self.config, target = read_settings(run)
        self.target = in_groups(target)
        path, self.calibration = run / "calibration.json", None
        if (value := run.read_optional_json(path.name)) is not None:
            self.calibration = RunCalibration.from_json(path, value, target)
        self.model = load_model(run.path)
        shapes = self.model.input_shape, self.model.output_shape
        expected = (None, self.config["width"]), (None, self.target.num_classes)
        if shapes != expected:
            requirement = "must hold a model from {} to {}, as config.json says".format(*expected)
            reject_file(run / "model.keras", requirement, "one from {} to {}".format(*shapes))
        temperature = self.calibration.mc_temperature if self.calibration else 1.0
        self.mc_model = with_temperature(self.model, temperature)

    @cached_property
    def sampler(self) -> Sampler:
        """Of `mc_model`, compiled once for all calls."""
        return Sampler(self.mc_model)

    def __repr__(self) -> str:
        calibrated = "calibrated" if self.calibration else "not calibrated"
        classes = f"{self.target.num_classes} classes of {self.target.label}"
        width = self.config["width"]
        return f"Predictor({str(self.path)!r}: {classes}, width {width}, {calibrated})"

    @property
    def name(self) -> str:
        """What it predicts: `age`, `gender` or another label."""
        return "age" if self.target.is_age else self.target.label

    def check(self, name: str | os.PathLike, width: int, info: StoreInfo) -> None:
        """Rejects embeddings that the model was not trained for."""
        if width != self.config["width"]:
            reject_file(name, f"must hold embeddings of width {self.config['width']}", f"{width}")
        known = {k: self.config[k] for k in ("embedder", "embedder_sha256", "normalized")}
        check_same_embedder(name, info, StoreInfo(**known))
        if info.normalized != known["normalized"]:
            words = {n: f"embeddings that are {'not ' * (not n)}normalised" for n in (True, False)}
            reject_file(name, f"must hold {words[known['normalized']]}", words[info.normalized])

    def checked(self, embeddings: np.ndarray | EmbeddingStore) -> np.ndarray:
        """Rows as float32, if their width and norms are such as the model has learned from.

        Raises:
            InputError: if not, if there is a NaN, or a store is of another embedder.
        """
        if isinstance(embeddings, EmbeddingStore):
            self.check("the store", embeddings.width, embeddings.info)
            embeddings = embeddings.embeddings
        embeddings = check_rows(self.model, embeddings)
        if len(embeddings):
            info = StoreInfo(normalized=self.config["normalized"])
            embeddings = EmbeddingStore(embeddings, info=info).embeddings
        share = self.config.get("norm_1_share")  # of a run of an older version it is not known
        if share is not None and are_others(embeddings, share):
            requirement = "must hold rows that are not normalised, as the model has learned from"
            reject_file("embeddings", requirement, f"{len(embeddings)} rows of norm 1")
        return embeddings

    def probabilities(self, embeddings: np.ndarray | EmbeddingStore) -> np.ndarray:
        """Deterministic probabilities of the head, shape `(rows, num_classes)`."""
        return self._deterministic(self.checked(embeddings))

    def _deterministic(self, embeddings: np.ndarray) -> np.ndarray:
        if not len(embeddings):
            return np.empty((0, self.target.num_classes), np.float32)
        return self._sound(self.model.predict(embeddings, batch_size=8192, verbose=0))

    def _sound(self, probabilities: np.ndarray) -> np.ndarray:
        """NaN passes every comparison with a threshold: nothing is answered from it."""
        if not np.isfinite(probabilities).all():
            requirement = "must hold a model whose answers are numbers"
            reject_file(self.path / "model.keras", requirement, "NaN or infinity for some rows")
        return probabilities

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
        which = self.calibration, self.target, self.config["target"].get("classes")
        return threshold_nats(
            self.path, *which, max_risk, num_samples=num_samples, within_years=within_years
        )

    def uncertainty(
        self, embeddings: np.ndarray | EmbeddingStore, *, num_samples: int = 64, seed: int = 0
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields, chunk by chunk, mean and measures of `mc_model`, as `predict_uncertainty`.

        With `num_samples=0` the mean is the deterministic model's, without measures.
        """
        check_int("num_samples", num_samples, minimum=0, maximum=MAX_SAMPLES)
        check_seed(seed)
        return self._chunks(self.checked(embeddings), num_samples, seed)

    def _chunks(self, embeddings: np.ndarray, num_samples: int, seed: int) -> Iterator[dict]:
        for start in range(0, len(embeddings), _ROWS_PER_CHUNK):
            chunk = embeddings[start : start + _ROWS_PER_CHUNK]
            if num_samples:
                how = {"num_samples": num_samples, "seed": seed, "first_row": start}
                measures = predict_uncertainty(self.sampler, chunk, **how)
                for values in measures.values():
                    self._sound(values)
                yield measures
            else:
                yield {"mean": self._deterministic(chunk)}

    def intervals(self, probabilities: np.ndarray, *, sampled: bool) -> dict[int, np.ndarray]:
        """Age intervals by percent, `(rows, 2)`, conformal where the run was calibrated on years.

        Args:
            probabilities: Of the head, `(rows, num_classes)`.
            sampled: Whether they are a mean over stochastic passes.
        """
        offsets = self.calibration.offsets_years if self.calibration else {}
        model = "mc_mean" if sampled else "deterministic"
        return age_intervals(self.target, probabilities, offsets.get(model))

    def rows(
        self,
        embeddings: np.ndarray | EmbeddingStore,
        *,
        num_samples: int = 64,
        seed: int = 0,
        max_risk: float | None = None,
        within_years: float | None = None,
    ) -> Iterator[dict]:
        """Yields one answer per embedding, from the mean of `num_samples` stochastic passes.

        Every answer holds `<label>` (the likeliest class), `probability` and
        all measures of uncertainty, plain and scaled to 0..1; ages add
        `age_years` (expectation), `age_median_years`, `age_interval_50` and
        `age_interval_90` (years); other classes add `probabilities`. With `num_samples=0` the
        deterministic model answers, without measures. `uncertainty` says how sure the answer is:
        the entropy by which the model abstains, as a share of its maximum, 0 to 1. With
        `max_risk` (and `within_years`, as in `threshold_nats`) there are the
        `uncertainty_limit`, `class_entropy_nats` and `abstained`, and where
        that is True all but the measures is None.

        Raises:
            InputError: if the rows are not such as the model has learned from (see
                `checked`), or its answers are no numbers.
        """
        threshold = None
        if max_risk is not None:
            how = {"num_samples": num_samples, "within_years": within_years}
            threshold = self.threshold_nats(max_risk, **how)
        chunks = self.uncertainty(embeddings, num_samples=num_samples, seed=seed)
        sampled = num_samples > 0
        return self._rows(chunks, judged_target(self.target, within_years), threshold, sampled)

    def _rows(
        self, chunks: Iterator[dict], judged: Target, threshold: float | None, sampled: bool
    ) -> Iterator[dict]:
        largest = np.log(len(judged.measured_names))
        for measures in chunks:
            mean = measures.pop("mean")
            entropies = class_entropy_nats(judged, mean)
            for i, answer in enumerate(self._answers(mean, sampled=sampled)):
                sure = {"uncertainty": float(entropies[i] / largest)}
                if threshold is not None:
                    unsure = not entropies[i] <= threshold  # so that a NaN is never sure
                    answer = _emptied(answer) if unsure else answer
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

    def _answers(self, mean: np.ndarray, *, sampled: bool) -> list[dict]:
        target = self.target
        measured = target.measured(mean)
        winners = measured.argmax(axis=1)
        answers = [
            {
                "age_group" if target.is_age else target.label: target.measured_names[k],
                "probability": float(measured[i, k]),
            }
            for i, k in enumerate(winners)
        ]
        if target.is_age:
            ages = target.head_ages
            columns = {
                "age_years": expected_age_years(mean, ages.centers),
                "age_median_years": median_age_years(mean, np.asarray(ages.year_to_class)),
            }
            for percent, ends in self.intervals(mean, sampled=sampled).items():
                columns[f"age_interval_{percent}"] = ends
            for i, answer in enumerate(answers):
                answer |= {k: v[i].tolist() for k, v in columns.items()}
        else:
            for answer, row in zip(answers, mean, strict=True):
                named = zip(target.class_names, row.tolist(), strict=True)
                answer["probabilities"] = dict(named)
        return answers


def open_predictors(
    paths: Sequence[str | os.PathLike],
    *,
    num_samples: int,
    max_risk: float | None = None,
    within_years: float | None = None,
) -> list[Predictor]:
    """Opens runs that answer together.

    Args:
        paths: Run folders, of different labels.
        num_samples: Stochastic passes to answer from.
        max_risk: Share of wrong answers to abstain by, or None to answer all.
        within_years: An age is right if it is at most so many years off, or
            None: if its group is.

    Raises:
        InputError: if a run is not finished, two are of one label, or one
            cannot promise the risk; if nothing is abstained by the years, or
            there is no model of ages.
    """
    predictors = [Predictor(path) for path in paths]
    names = [p.name for p in predictors]
    if len(set(names)) < len(names):
        reject("--also", "must be runs of different labels", names)
    if within_years is not None and max_risk is None:
        reject("within_years", "must come with max_risk", within_years)
    if within_years is not None and not any(p.target.is_age for p in predictors):
        reject("within_years", "must come with a model of ages", within_years)
    if max_risk is not None:
        how = {"num_samples": num_samples, "within_years": within_years}
        for predictor in predictors:
            predictor.threshold_nats(max_risk, **how)
    return predictors


def _emptied(answer: dict) -> dict:
    return {k: _emptied(v) if isinstance(v, dict) else None for k, v in answer.items()}
