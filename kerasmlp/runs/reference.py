"""What a run keeps of the rows kept back, by which it notices that others have moved."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.targets import Target, in_groups
from kerasmlp.uncertainty.measures import entropy_nats
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.schema import (
    check_object,
    dict_of,
    list_of,
    number,
    one_of,
    optional,
    text,
    whole,
)

FILE = "reference.json"
FORMAT = "kerasmlp.reference"
MOST_NUMBERS = 1 << 15
"""Of all directions: 64 of an embedding of 512."""
MOST_SCORES = 2000
MIN_SCORES = 100
"""With fewer rows kept back little could be noticed, and their mean would be of few people."""
_REPEATED = 0.02
"""Share of rows equal to others from which on that is their nature: nobody has copied them."""
ALONG, ACROSS = "along", "across"

_WORDS = {
    f"{ALONG} directions": "the directions in which rows vary most",
    f"{ACROSS} directions": "the directions in which they vary least",
}
_WHAT = "the reference of a run"
_MOST_WIDTH = 1 << 16
_TEXT = text(MOST_NUMBERS * 8)
_SCORES = list_of(number(-1e300, 1e300), MOST_SCORES)
_SCHEMA = {
    "format": one_of(FORMAT),
    "width": whole(1, _MOST_WIDTH),
    "center": optional(text(_MOST_WIDTH * 8)),
    "directions": optional(_TEXT),
    "number_along": whole(0, MOST_NUMBERS),
    "scores": dict_of(_SCORES),
    "answers": dict_of(_SCORES),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Scores of rows kept back that need no label; `reference.json`.

    A row has up to three: how far it lies from the mean of the rows trained on `along` the
    directions in which they vary most and `across`, in those in which they vary least, both in
    their standard deviations, and how sure the deterministic answer is. What is kept are no
    rows: a mean and some directions of all rows trained on, and sorted scores.

    Attributes:
        width: Of the embeddings.
        center: Mean of the rows trained on, `(width,)`, in float32's steps; None where nothing
            is known of them.
        directions: In which one standard deviation has length 1, `(number, width)`, or None.
        number_along: How many of them, the first, are `along`.
        scores: By `along` and `across`, rising.
        answers: Of each head by its name, rising (see `answer_scores`).

    Example:

    >>> directions = np.eye(2)
    >>> reference = Reference(
    ...     width=2, center=np.ones(2), directions=directions, number_along=1,
    ...     scores={"along": np.arange(100.0), "across": np.arange(100.0)}, answers={}
    ... )
    >>> {k: v.tolist() for k, v in reference.of_rows(np.array([[3.0, 0.0]])).items()}
    {'along': [4.0], 'across': [1.0]}
    >>> again = Reference.from_json("reference.json", reference.to_json())
    >>> bool((again.directions == directions).all())
    True
    """

    width: int
    center: np.ndarray | None
    directions: np.ndarray | None
    number_along: int
    scores: Mapping[str, np.ndarray]
    answers: Mapping[str, np.ndarray]

    def of_rows(self, embeddings: np.ndarray) -> dict[str, np.ndarray]:
        """The scores of rows `along` and `across`, `(rows,)`, as far as directions are known.

        Args:
            embeddings: `(rows, width)`.
        """
        if self.directions is None:
            return {}
        centered = np.asarray(embeddings, np.float64) - self.center
        squares = (centered @ self.directions.T) ** 2
        both = {ALONG: squares[:, : self.number_along], ACROSS: squares[:, self.number_along :]}
        return {name: part.sum(axis=1) for name, part in both.items() if part.shape[1]}

    @property
    def repeats(self) -> bool:
        """Whether different rows are often equal, as those of a table of few values are."""
        columns = [*self.scores.values()] or [*self.answers.values()]
        return all(1 - len(np.unique(v)) / len(v) >= _REPEATED for v in columns)

    def to_json(self) -> dict:
        return {
            "format": FORMAT,
            "width": self.width,
            "center": _packed(self.center),
            "directions": _packed(self.directions),
            "number_along": self.number_along,
            "scores": {name: np.asarray(v).tolist() for name, v in self.scores.items()},
            "answers": {name: np.asarray(v).tolist() for name, v in self.answers.items()},
        }

    @classmethod
    def from_json(cls, path: str | os.PathLike, value: Any, width: int | None = None) -> Reference:
        """What `to_json` gave.

        Args:
            path: Of the file.
            value: In it.
            width: That it must have, or None.

        Raises:
            InputError: naming the file, if it is something else.
        """
        config = check_object(path, value, _SCHEMA, _WHAT)
        if unknown := sorted(set(config) - set(_SCHEMA)):
            reject_file(path, f"must be {_WHAT} by this version", f"one with {unknown[0]!r}"[:100])
        if width not in (None, config["width"]):
            reject_file(path, f"must be {_WHAT} of width {width}", f"{config['width']}")
        width, along = config["width"], config["number_along"]
        center, directions = config.get("center"), config.get("directions")
        if (center is None) != (directions is None):
            reject_file(path, f"must be {_WHAT} with both center and directions", "one of them")
        known: list[str] = []
        if directions is not None:
            center = _unpacked(path, "center", center, width)[0]
            directions = _unpacked(path, "directions", directions, width)
            if len(directions) * width > max(MOST_NUMBERS, width) or along > len(directions):
                came = f"{len(directions)}, {along} of them along"
                reject_file(path, f"must be {_WHAT} with fewer directions", came)
            known = [ALONG] * (along > 0) + [ACROSS] * (along < len(directions))
        scores = {name: np.array(v, np.float64) for name, v in config["scores"].items()}
        answers = {name: np.array(v, np.float64) for name, v in config["answers"].items()}
        if sorted(scores) != sorted(known):
            came = ", ".join(scores)[:80] or "none"
            reject_file(path, f"must be {_WHAT} with scores {', '.join(known) or 'of none'}", came)
        for name, column in [*scores.items(), *answers.items()]:
            if len(column) < MIN_SCORES or (np.diff(column) < 0).any():
                requirement = f"must be {_WHAT} with {MIN_SCORES} rising scores or more"
                reject_file(path, requirement, f"{len(column)} of {name[:40]}")
        return cls(
            width=width, center=center, directions=directions, number_along=along,
            scores=scores, answers=answers,
        )  # fmt: skip


def answer_scores(target: Target | NumberTarget, answers: np.ndarray) -> np.ndarray:
    """By what answers are told from those of other rows: the entropy of classes, or the number.

    Args:
        target: Of the head.
        answers: Of the deterministic model, `(rows, outputs)`.
    """
    if target.is_number:
        return np.asarray(answers, np.float64)[:, 0]
    return entropy_nats(in_groups(target).measured(np.asarray(answers, np.float64)))


def _packed(numbers: np.ndarray | None) -> str | None:
    if numbers is None:
        return None
    return base64.b64encode(np.ascontiguousarray(numbers, "<f4").tobytes()).decode("ascii")


def _unpacked(path: str | os.PathLike, name: str, packed: str, width: int) -> np.ndarray:
    """Rows of float32 numbers."""
    try:
        content = base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    row = 4 * width
    numbers = np.frombuffer(content[: len(content) // row * row], "<f4").reshape(-1, width)
    if not content or len(content) % row or not np.isfinite(numbers).all():
        requirement = f"must be {_WHAT} whose {name} are rows of {width} finite numbers in base64"
        reject_file(path, requirement, "others")
    return numbers.astype(np.float64)


def words_of_score(name: str) -> str:
    """A score by which rows have moved, as people read it.

    Example:

    >>> words_of_score("across directions"), words_of_score("answers on age")
    ('the directions in which they vary least', 'the answers on age')
    """
    return _WORDS.get(name, f"the {name}")
