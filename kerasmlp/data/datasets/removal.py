"""What was kept of a data set and what fell out, with reasons that sum to the inputs."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasmlp.data.datasets.records import REASONS
from kerasmlp.utils.files import write_json


def removal_report(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts why entries fell out.

    Example:

    >>> removal_report([{"key": "a.jpg", "reason": None}, {"key": "b.jpg", "reason": "no age"}])
    {'inputs': 2, 'kept': 1, 'removed': {'no age': 1}}
    """
    counts = Counter(entry["reason"] for entry in entries)
    kept = counts.pop(None, 0)
    removed = {reason: counts[reason] for reason in REASONS if counts[reason]}
    return {"inputs": len(entries), "kept": kept, "removed": removed}


def write_removals(store: str | os.PathLike, entries: Sequence[Mapping[str, Any]]) -> Path:
    """Writes the report and the `key` of each entry that fell out, by reason, beside a store."""
    path, keys = Path(f"{os.fspath(store)}.removal.json"), {}
    for entry in entries:
        if entry["reason"]:
            keys.setdefault(entry["reason"], []).append(entry["key"])
    write_json(path, {**removal_report(entries), "keys": keys})
    return path


def removal_table(report: Mapping[str, Any]) -> str:
    """The removal report as lines of text; the numbers add up to the inputs.

    Example:

    >>> print(removal_table({"inputs": 5, "kept": 3, "removed": {"no age": 2}}))
    kept                            3
    no age                          2
    inputs                          5
    """
    rows = {"kept": report["kept"], **report["removed"], "inputs": report["inputs"]}
    width = max(24, *map(len, rows))
    return "\n".join(f"{name:{width}}{number:>9,}" for name, number in rows.items())
