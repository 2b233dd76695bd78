"""What an import took and why, what it left out, and what it was not sure of."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.labels import GENDER_NAMES, is_unknown
from kerasmlp.utils.checks import reject_file

Say = Callable[[str], None]
_MOST_LISTED = 50
_LONGEST = 200
_TRIED = 1000


class ImportNotes:
    """Collects the sentences of one import; what is a doubt is said at once.

    Args:
        say: Receives each doubt as one sentence.
        strict: Whether a doubt is a refusal.

    Example:

    >>> notes = ImportNotes("a.npz", print)
    >>> notes.leave_out("image", "an array of shape (9, 8, 8)")
    a.npz: left out 'image', an array of shape (9, 8, 8)
    >>> notes.left_out
    {'image': 'an array of shape (9, 8, 8)'}
    """

    def __init__(self, path: Any, say: Say = lambda text: None, *, strict: bool = False):
        self.path = path
        self.strict = strict
        self.say = say
        self.embedding: dict[str, Any] = {}
        self.columns: dict[str, str] = {}
        self.inputs: tuple[str, ...] = ()
        self.words: dict[str, list[str]] = {}
        self.left_out: dict[str, str] = {}
        self.doubts: list[str] = []

    def doubt(self, text: str) -> None:
        """Says what was taken where something else could have been meant.

        Raises:
            InputError: if doubts are refused.
        """
        self._tell(text)
        self.doubts.append(text[:_LONGEST])

    def leave_out(self, name: str, why: str, *, asked: bool = False) -> None:
        """Names what is not in the store; it is a doubt unless somebody asked for it."""
        if not asked:
            self._tell(f"left out {name!r}, {why}")
        self.left_out[name] = why

    def _tell(self, text: str) -> None:
        if self.strict:
            reject_file(self.path, "must leave no doubt (--strict)", text[:_LONGEST])
        self.say(f"{self.path}: {text}")

    def report(self, rows: int, labels: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """All of it as JSON, cut where a file has hundreds of columns."""
        listed = dict(list(self.left_out.items())[:_MOST_LISTED])
        if len(self.left_out) > _MOST_LISTED:
            listed["…"] = f"{len(self.left_out) - _MOST_LISTED:,} more"
        kinds = {
            name[:_LONGEST]: {
                "from": self.columns.get(name, name)[:_LONGEST],
                **_kind(name, column),
            }
            | ({"unknown_words": self.words[name]} if name in self.words else {})
            for name, column in list(labels.items())[:_MOST_LISTED]
        }
        return {
            "file": Path(self.path).name,
            "rows": rows,
            "embedding": self.embedding,
            "labels": kinds,
            "left_out": {name[:_LONGEST]: why[:_LONGEST] for name, why in listed.items()},
            "doubts": self.doubts[:_MOST_LISTED],
        }


def _kind(name: str, column: np.ndarray) -> dict[str, Any]:
    """What a label holds: years, classes, numbers or text, and how many are unknown."""
    kind = column.dtype.kind
    missing = is_unknown(column)
    known = column[~missing]
    found = {"unknown": int(missing.sum())}
    examples = {"kind": "text", "names": [str(v)[:_LONGEST] for v in known[:3].tolist()], **found}
    if kind == "U" and len(known) > len(set(known[:_TRIED].tolist())) == _TRIED:
        return examples  # paths, say: not counted, which would take as long as all else
    values = np.unique(known) if kind != "f" else known
    shared = len(values) < len(known) or len(known) <= 2
    if kind == "U" and not shared:
        return examples
    if kind == "U" or (kind != "f" and shared and len(values) <= _MOST_LISTED):
        listed = [str(v)[:_LONGEST] for v in values[:_MOST_LISTED].tolist()]
        if name == "gender":
            listed = [GENDER_NAMES[int(v)] for v in listed]
        return {"kind": "classes", "number": len(values), "names": listed, **found}
    limits = [known.min().item(), known.max().item()] if known.size else []
    limits = [v if abs(v) < float("inf") else str(v) for v in limits]
    return {"kind": "years" if name == "age_years" else "numbers", "range": limits, **found}


def label_sentence(label: Mapping[str, Any]) -> str:
    """One label of a report, for people.

    Example:

    >>> report = ImportNotes("a.npz").report(2, {"age_years": np.array([3.0, np.nan])})
    >>> label_sentence(report["labels"]["age_years"])
    'years from 3 to 3, 1 unknown'
    """
    if "range" in label:
        limits = [f"{v:g}" if isinstance(v, float) else str(v) for v in label["range"]]
        what = f"{label['kind']} from {limits[0]} to {limits[1]}" if limits else label["kind"]
    else:
        number = label.get("number", _TRIED + 1)
        what = f"{number:,} classes" if label["kind"] == "classes" else "text"
        more = ", …" if number > len(label["names"][:10]) else ""
        what = f"{what}: {', '.join(label['names'][:10])}{more}"
    words = ", ".join(map(repr, label.get("unknown_words", [])))
    return f"{what}, {label['unknown']:,} unknown" + (f" ({words})" if words else "")
