"""What attributes such as `race_codes` of a file say: which number of a label is which name."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasmlp.data.importing.import_notes import ImportNotes
from kerasmlp.data.labels import UNKNOWN
from kerasmlp.data.sources.source import CODES, SourceArrays, as_text, text_array

_NAME = r"[^\W\d][^\d=:,;]*"
_PAIRS = (rf"(-?\d+)(?:\s*[=:]\s*|\s+)({_NAME})", rf"({_NAME}?)(?:\s*[=:]\s*|\s+)(-?\d+)")


def said_names(said: Any) -> dict[int, str] | None:
    """The name of each code, if a text says it beyond doubt; else None.

    All codes come before their names or all after them, and each once.

    Example:

    >>> said_names("0 White, 1 East Asian"), said_names('{"other": 4, "none": -1}')
    ({0: 'White', 1: 'East Asian'}, {4: 'other', -1: 'none'})
    >>> said_names("0 to 4"), said_names("0 White, 0 Black"), said_names("0 White, Black 1")
    (None, None, None)
    """
    text = as_text(said)
    pairs = _from_json(text) or _from_list(text)
    if pairs is None or not all(re.fullmatch(r"-?\d{1,9}", code) for code, _ in pairs):
        return None
    names = {int(code): name.strip() for code, name in pairs}
    once = len(names) == len(pairs) == len({name.lower() for name in names.values()})
    whole = all(re.search(r"[\w)]$", name) for name in names.values())
    return names if once and whole else None


def _from_json(text: str) -> list[tuple[str, str]] | None:
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, list) or not all(isinstance(p, tuple) for p in pairs):
        return None
    if all(type(v) is int for _, v in pairs) and not any(k.strip("-").isdigit() for k, _ in pairs):
        return [(str(v), k) for k, v in pairs]
    return pairs if all(isinstance(v, str) for _, v in pairs) else None


def _from_list(text: str) -> list[tuple[str, str]] | None:
    parts = [part.strip() for part in re.split(r"[,;\n]", text.strip().rstrip(".,;"))]
    for pattern, order in zip(_PAIRS, (1, -1), strict=True):
        found = [re.fullmatch(pattern, part) for part in parts]
        if len(parts) > 1 and all(found):
            return [m.groups()[::order] for m in found]
    return None


def name_codes(
    source: SourceArrays,
    columns: Mapping[str, np.ndarray],
    meant: Mapping[str, str],
    gender_codes: str,
    notes: ImportNotes,
) -> dict[str, np.ndarray]:
    """Columns with names for the codes that the file's attributes explain.

    Args:
        meant: Labels to columns; `gender_codes` of the column of genders is read with it.
        gender_codes: `"auto"`, or what the user says instead of the file.
    """
    named = dict(columns)
    for attribute, said in source.attributes.items():
        name = attribute.removesuffix(CODES)
        is_gender = name in ("gender", meant.get("gender"))
        if name == attribute or source.store:
            continue
        if is_gender and "gender" in meant and (name == "gender" or gender_codes != "auto"):
            continue
        if name in source.left_out:
            notes.leave_out(attribute, "as its column is", asked=True)
        elif name not in columns:
            notes.leave_out(attribute, f"which is of no label: there is no column {name!r}")
        else:
            texts = _texts(columns[name], said_names(said))
            if isinstance(texts, str):
                notes.leave_out(attribute, texts)
            else:
                named[name] = texts
    return named


def _texts(column: np.ndarray, names: Mapping[int, str] | None) -> np.ndarray | str:
    """The names of codes, "" where none is known; or why there are none."""
    if column.dtype.kind not in "iuf":
        return "as its column holds no numbers"
    if names is None:
        return "which does not say one name for each code (as `0 first, 1 second` does)"
    mask = np.ma.getmaskarray(column)
    if column.dtype.kind == "f":
        mask = mask | np.isnan(np.ma.getdata(column))
    values, codes = np.unique(np.ma.getdata(column), return_inverse=True)
    known = set(np.unique(np.ma.getdata(column)[~mask]).tolist())
    unnamed = sorted(known - set(names) - {UNKNOWN})
    if unnamed:
        return f"which names no code {unnamed[0]:g}"
    texts = text_array([names.get(v, "") for v in values.tolist()], codes.reshape(column.shape))
    return np.where(mask, "", texts)
