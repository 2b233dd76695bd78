"""Watches whether the rows that a served model is asked for are such as its run kept back."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kerasmlp.runs.reference import Reference
from kerasmlp.uncertainty.exchangeability import ConformalStream, JumperMartingale, step_of
from kerasmlp.uncertainty.measures import entropy_nats
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.schema import check_object, list_of, optional, whole

FALSE_ALARMS = 0.01
"""With which probability a model that is never asked for moved rows alarms, ever."""

WINDOW_ROWS = 2000
_ROWS_PER_S = 100
PLAIN = "serving_default"
"""The signature whose answers are those of the reference."""


class Watch:
    """A bet, row by row, against rows being such as the run kept back.

    Each score of a `Reference` has a stream and a martingale of its own. After a window of some
    2,000 rows they begin anew from the reference alone: what came long ago hides nothing that
    comes. Window k of m scores alarms, once, where a martingale exceeds `m · k · (k + 1) / 0.01`:
    so all false alarms of all time together have a probability of at most 1%. A row that is asked
    for again in a window is no draw of its own and counts once, unless rows repeat by their
    nature; of many rows 100 a second are looked at, whatever is in them.

    Args:
        reference: Of the run.
        heads: From the names of its answers to the output that they are, and in which class
            each of its columns is summed up, None of a number.
        clock: Seconds.

    Attributes:
        rows: Watched so far.
        alarms: So far.

    Example:

    >>> scores = {"along": np.arange(100.0)}
    >>> one = np.ones((1, 1), np.float32)
    >>> how = {"center": one[0], "directions": one, "number_along": 1, "answers": {}}
    >>> watch = Watch(Reference(width=1, scores=scores, **how), {})
    >>> for number in range(40):
    ...     _ = watch.see("serving_default", np.array([[50.0 + number]]), {})
    >>> watch.rows, watch.alarms, watch.moved
    (40, 1, True)

    Reference: Vovk, "Testing randomness online", 2021.
    """

    def __init__(
        self,
        reference: Reference,
        heads: Mapping[str, tuple[str, np.ndarray | None]],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._reference, self._heads, self._clock = reference, dict(heads), clock
        self._known = {f"{k} directions": v for k, v in reference.scores.items()}
        self._known |= {f"answers on {k}": reference.answers[k] for k in self._heads}
        self._steps = {k: step_of(v) for k, v in self._known.items()}
        self._repeats = reference.repeats
        self._tokens, self._then = float(_ROWS_PER_S), clock()
        self.rows, self.alarms = 0, 0
        self._window, self._alarmed, self._before = 0, False, False
        self._rng = random.Random(0)
        self._begin()

    def _begin(self) -> None:
        self._window, self._before, self._alarmed = self._window + 1, self._alarmed, False
        self._in_window, self._asked = 0, set()
        known = {k: np.rint(v / self._steps[k]).tolist() for k, v in self._known.items()}
        self._streams = {k: ConformalStream(v, self._rng) for k, v in known.items()}
        self._martingales = {k: JumperMartingale() for k in self._known}

    @property
    def moved(self) -> bool:
        """Whether this window has alarmed, or the one before."""
        return self._alarmed or self._before

    @property
    def log10_limit(self) -> float:
        """Of the capital of each score, where this window alarms."""
        k = self._window
        return math.log10(len(self._known) * k * (k + 1) / FALSE_ALARMS)

    @property
    def log10_evidence(self) -> float:
        """Of this window: the capital of the score that says it most."""
        return max(m.log10_capital for m in self._martingales.values())

    def see(
        self, signature: str, embeddings: np.ndarray, outputs: Mapping[str, np.ndarray]
    ) -> str | None:
        """Bets on rows that were answered.

        Args:
            signature: That answered; only the deterministic answers are known of the reference.
            embeddings: `(rows, width)`.
            outputs: As the signature gave them, all finite.

        Returns:
            The score by which an alarm is raised with these rows, or None.
        """
        if self._in_window >= WINDOW_ROWS:
            self._begin()
        rows = self._chosen(embeddings)
        if not rows:
            return None
        self._in_window += len(rows)
        chosen = embeddings[rows]
        scores = {f"{k} directions": v for k, v in self._reference.of_rows(chosen).items()}
        if signature == PLAIN:
            for name, (output, classes) in self._heads.items():
                scores[f"answers on {name}"] = _answer_scores(outputs[output][rows], classes)
        columns, alarm = {k: np.rint(v / self._steps[k]) for k, v in scores.items()}, None
        for i in np.flatnonzero(np.isfinite([*scores.values()]).all(axis=0)) if scores else ():
            alarm = self._bet({name: float(v[i]) for name, v in columns.items()}) or alarm
        return alarm

    def _chosen(self, embeddings: np.ndarray) -> list[int]:
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._then) * _ROWS_PER_S, _ROWS_PER_S)
        self._then, rows = now, []
        for i, row in enumerate(embeddings):
            if self._tokens < 1:
                break
            if (content := hash(row.tobytes())) not in self._asked:
                if not self._repeats:
                    self._asked.add(content)
                self._tokens -= 1
                rows.append(i)
        return rows

    def _bet(self, scores: Mapping[str, float]) -> str | None:
        self.rows += 1
        for name, score in scores.items() if not self._alarmed else ():
            martingale = self._martingales[name]
            martingale.bet(self._streams[name].next(score))
            if martingale.log10_capital >= self.log10_limit:
                self.alarms, self._alarmed = self.alarms + 1, True
                return name
        return None


def read_watch(
    path: str | os.PathLike, value: Any, description: Mapping, outputs: Mapping
) -> Watch:
    """The watch of a served version.

    Args:
        path: Of its reference.
        value: In that file.
        description: As of `describe`, of any origin.
        outputs: Of its deterministic signature for one row.

    Raises:
        InputError: if they do not fit each other.
    """
    reference = Reference.from_json(path, value, description["width"])
    heads = {}
    for name in reference.answers:
        output, classes = _head(path, description, name)
        values = outputs.get(output)
        good = values is not None and values.dtype.kind == "f"
        good = good and values.ndim == (1 if classes is None else 2)
        if good and classes is not None:
            good = values.shape[1] == len(classes) > classes.max()
        if not good:
            reject_file(path, "must be the reference of this model", f"answers on {name[:80]!r}")
        heads[name] = output, classes
    if not (reference.scores or heads):
        reject_file(path, "must be a reference with scores", "none")
    return Watch(reference, heads)


def _head(
    path: str | os.PathLike, description: Mapping, name: str
) -> tuple[str, np.ndarray | None]:
    """The output from which a head's answers are told, and the class of each that is summed."""
    heads = description.get("heads")
    several = isinstance(heads, dict)
    head = heads.get(name) if several else description
    known = isinstance(head, dict) and (several or description.get("label") == name)
    head = head if known else {}
    kinds = {"class_to_label": optional(list_of(whole(0, 100_000), 100_000))}
    classes = check_object(path, head, kinds, "the reference of a described model").get(
        "class_to_label"
    )
    output = "number" if classes is None else "probabilities"
    named = head.get("outputs") if several else {output: output}
    found = named.get(output) if isinstance(named, dict) else None
    return str(found), None if classes is None else np.array(classes)


def _answer_scores(values: np.ndarray, classes: np.ndarray | None) -> np.ndarray:
    """As `answer_scores`, of what the model gave out."""
    if classes is None:
        return np.asarray(values, np.float64)
    sums = np.zeros((int(classes.max()) + 1, len(values)))
    np.add.at(sums, classes, np.asarray(values, np.float64).T)
    return entropy_nats(sums.T)
