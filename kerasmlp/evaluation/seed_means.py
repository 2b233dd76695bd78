"""Answers of several seeds for the same rows, as one answer."""

from typing import NamedTuple

import numpy as np

from kerasmlp.evaluation.predictions_file import Predictions
from kerasmlp.uncertainty.measures import entropy_nats


class SeedMeans(NamedTuple):
    """What the models of all seeds say together of each row.

    Attributes:
        rows: Of the store, rising, `(rows,)`.
        seeds: How many answered each, `(rows,)`.
        labels: Of each row, `(rows,)`.
        answers: Probabilities of the classes that labels are in, `(rows, num_classes)`; of
            years those of the head; of numbers mean and standard deviation, `(rows, 2)`.
        uncertainty: Measures by their names, `(rows,)`; what the seeds disagree in is in them.
    """

    rows: np.ndarray
    seeds: np.ndarray
    labels: np.ndarray
    answers: np.ndarray
    uncertainty: dict[str, np.ndarray]


def mean_over_seeds(predictions: Predictions) -> SeedMeans:
    """The mixture of what each seed answers: mean probabilities, or moments of numbers.

    Seeds draw other folds, so other rows were missing from the training: their mean is less of
    one training's luck than each of them.
    """
    columns = predictions.columns
    order = np.argsort(columns["row"], kind="stable")
    rows, starts = np.unique(columns["row"][order], return_index=True)
    seeds = np.diff(np.append(starts, len(order)))

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.add.reduceat(values[order].astype(np.float64), starts, axis=0)
        return sums / seeds.reshape(-1, *[1] * (values.ndim - 1))

    labels = columns["label"][order][starts]
    sampled = {"mutual_information_nats", "epistemic_std"} & set(columns)
    several = bool(sampled) or seeds.max() > 1
    if predictions.target.is_number:
        means, own = mean(columns["mean"]), columns["std"] ** 2
        apart = np.empty(len(order))
        apart[order] = columns["mean"][order] - np.repeat(means, seeds)
        between = mean(apart**2)
        answers = np.stack([means, np.sqrt(mean(own) + between)], axis=1)
        epistemic = mean(columns.get("epistemic_std", np.zeros(len(own))) ** 2) + between
        uncertainty = {"epistemic_std": np.sqrt(epistemic)} if several else {}
        return SeedMeans(rows, seeds, labels, answers, uncertainty)
    answers = mean(predictions.in_label_classes)
    whole = entropy_nats(mean(columns["probabilities"]))
    of_each = columns["predictive_entropy_nats"]
    known = columns.get("mutual_information_nats", np.zeros(len(of_each)))
    uncertainty = {"predictive_entropy_nats": whole}
    if several:
        uncertainty["mutual_information_nats"] = np.maximum(whole - mean(of_each - known), 0.0)
    return SeedMeans(rows, seeds, labels, answers, uncertainty)
