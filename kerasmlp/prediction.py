"""From a run and embeddings to answers a person can use: class, age, interval, uncertainty."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from kerasmlp.checks import reject_file
from kerasmlp.quantifiers import (
    age_interval_years,
    expected_age_years,
    predictive_mean,
    uncertainty_measures,
)
from kerasmlp.runs import RunFolder, load_model
from kerasmlp.stores.store_info import StoreInfo, check_same_embedder
from kerasmlp.targets import Target
from kerasmlp.uncertainty import predict_samples

_ROWS_PER_CHUNK = 1024


class Predictor:
    """A finished run, ready to answer.

    Args:
        path: Run folder.

    Raises:
        InputError: if there is no finished run.
    """

    def __init__(self, path: str | os.PathLike):
        run = RunFolder(path)
        run.require_done()
        self.path = run.path
        self.config = run.config()
        self.target = Target.from_config(self.config["target"])
        self.model = load_model(run.path)

    @property
    def name(self) -> str:
        """What it predicts: `age`, `gender` or another label."""
        return "age" if self.target.is_age else self.target.label

    def check(self, name: str | os.PathLike, width: int, info: StoreInfo) -> None:
        """Rejects embeddings that the model was not trained for."""
        if width != self.config["width"]:
            reject_file(name, f"must hold embeddings of width {self.config['width']}", f"{width}")
        expected = StoreInfo(
            embedder=self.config["embedder"], embedder_sha256=self.config["embedder_sha256"]
        )
        check_same_embedder(name, info, expected)
        if info.normalized != self.config["normalized"]:
            words = {True: "normalised", False: "not normalised"}
            reject_file(
                name,
                f"must hold embeddings that are {words[self.config['normalized']]}",
                f"embeddings that are {words[info.normalized]}",
            )

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """Deterministic probabilities of the head, shape `(rows, num_classes)`."""
        return self.model.predict(embeddings, batch_size=8192, verbose=0)

    def rows(self, embeddings: np.ndarray, *, num_samples: int, seed: int) -> Iterator[dict]:
        """Yields one answer per embedding, from the mean of `num_samples` stochastic passes.

        Every answer holds `<label>` (the likeliest class), `probability` and
        all measures of uncertainty, the predictive entropy also scaled to
        0..1; ages add `age_years` (expectation) and
        `age_interval_90` (years); other classes add `probabilities`. With
        `num_samples=0` the deterministic model answers, without measures
        of uncertainty.
        """
        for start in range(0, len(embeddings), _ROWS_PER_CHUNK):
            chunk = embeddings[start : start + _ROWS_PER_CHUNK]
            if num_samples:
                samples = predict_samples(
                    self.model, chunk, num_samples=num_samples, seed=seed + start
                )
                mean, measures = predictive_mean(samples), uncertainty_measures(samples)
                entropy = measures["predictive_entropy_nats"]
                measures["predictive_entropy_scaled"] = entropy / np.log(samples.shape[-1])
            else:
                mean, measures = self.probabilities(chunk), {}
            answers = self._answers(mean)
            for i, answer in enumerate(answers):
                yield answer | {k: float(v[i]) for k, v in measures.items()}

    def _answers(self, mean: np.ndarray) -> list[dict]:
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
            years = expected_age_years(mean, ages.centers)
            intervals = age_interval_years(mean, np.asarray(ages.year_to_class))
            for answer, age, interval in zip(answers, years, intervals, strict=True):
                answer |= {"age_years": float(age), "age_interval_90": interval.tolist()}
                if target.classes == "years":
                    del answer["age_group"]
        else:
            for answer, row in zip(answers, mean, strict=True):
                answer["probabilities"] = {
                    name: float(p) for name, p in zip(target.class_names, row, strict=True)
                }
        return answers
