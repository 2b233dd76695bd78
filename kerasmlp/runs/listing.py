"""Run folders side by side: what they learned, by which settings, and how good they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.checks import InputError, is_number, reject, reject_file
from kerasmlp.utils.files import what_is

MEASURES = ("rmse", "mae_years", "accuracy", "nll")
_NOT_CHIEF = ("exact_year_accuracy", "one_off_accuracy")
_DEPTH = 4
"""Folders below the given one that are looked through: `runs/cv/seed0_fold0` and a search in it."""
_SPLITTING = ("data_digest", "seed", "validation_share", "test_share", "test_digest", "group")
_SPLITTING += ("recalibrated.data_digest",)
"""Settings that decide which rows measure a run."""


def list_runs(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """What every run in a folder is, and how good on the rows kept back.

    Args:
        folder: Of runs, or of folders of them.

    Returns:
        One dict each, by their paths: `run`, `state` (`done`, `diverged`, `unfinished`,
        `recalibrated`, of which the measures are of the rows that it was fitted to, or
        `damaged` with the sentence under `why`), `kind`, `labels`, `rows`, `epochs`,
        `seconds`, `seed` and measures on the rows kept back, of several runs their mean; what
        is not known is left out.

    Raises:
        InputError: if there is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        reject_file(folder, "must be a folder of runs", what_is(folder))
    return [_row(path, str(path.relative_to(folder))) for path in sorted(_runs(folder, _DEPTH))]


def compare_runs(paths: Sequence[str | os.PathLike]) -> dict[str, dict[str, Any]]:
    """The settings in which runs differ, and their measures.

    Args:
        paths: Of two or more finished runs.

    Returns:
        `settings` and `measures`, each from a name to the values of all runs, in their order;
        None where a run has none.

    Raises:
        InputError: if one is no finished run.
    """
    if len(paths) < 2:
        reject("runs", "must be two or more", len(paths))
    settings, measures = [], []
    for path in paths:
        run = RunFolder(path)
        run.require_done()
        settings.append(_leaves(run.config()))
        try:
            measures.append(_measures(run.report()))
        except (AttributeError, KeyError, TypeError) as error:  # of crafted files
            reject_file(run / "report.json", "must be the report of a run", f"{error!r}"[:200])
    return {"settings": _differing(settings), "measures": _beside(measures)}


def measured_apart(settings: Mapping[str, Any]) -> list[str]:
    """Those of the settings in which runs differ by which other rows measured them.

    Args:
        settings: Of `compare_runs`.
    """
    return [k for k in settings if k in _SPLITTING]


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / "config.json").is_file():
        yield folder
    if depth:
        for inner in folder.iterdir():
            if inner.is_dir() and not inner.is_symlink() and inner.name[0] != ".":
                yield from _runs(inner, depth - 1)


def _row(path: Path, name: str) -> dict[str, Any]:
    run = RunFolder(path)
    row: dict[str, Any] = {"run": name}
    try:
        config = run.config()
        row |= {"state": "done" if run.done else "unfinished", "kind": config["kind"]}
        row |= _known({"labels": _labels(config.get("target")), "seed": config.get("seed")})
        if run.done:
            report = run.report()
            if config.get("recalibrated"):
                row["state"] = "recalibrated"
            elif isinstance(report.get("diverged"), str):
                row["state"] = "diverged"
            seconds, rows = (report.get(name) or {} for name in ("seconds", "rows"))
            counts = {"rows": _of(rows, "training"), "epochs": report.get("epochs")}
            row |= _known(counts | {"seconds": _of(seconds, "total")})
            row |= {k: v for k, v in _measures(report).items() if not k.startswith("test_")}
    except InputError as error:
        row |= {"state": "damaged", "why": str(error)}
    except (AttributeError, KeyError, TypeError) as error:  # of crafted files
        row |= {"state": "damaged", "why": f"`{path}` must be a run. Received: {error!r}"[:200]}
    return row


def _of(values: Any, name: str) -> Any:
    return values.get(name) if isinstance(values, dict) else None


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _labels(target: Any) -> str | None:
    if not isinstance(target, dict):
        return None
    heads = target.get("heads", [target])
    return ", ".join(str(head["label"]) for head in heads)


def _measures(report: dict) -> dict[str, float]:
    """Of the rows kept back, and of the test where there was one."""
    found = {}
    for part, prefix in (("validation", ""), ("test", "test_")):
        values = report.get(part)
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, float) and _is_chief(name):
                found[prefix + name] = value
    for name, values in (report.get("summary") or {}).items():  # of a cross-validation
        if isinstance(values, dict) and is_number(values.get("mean")) and _is_chief(name):
            found[name.removeprefix("validation_")] = float(values["mean"])
    return found


def _is_chief(name: str) -> bool:
    return name.endswith(MEASURES) and not name.endswith(_NOT_CHIEF) and name[:9] != "training_"


def _leaves(settings: dict, prefix: str = "") -> dict[str, Any]:
    """Every value under its whole name: `recipe.learning_rate`."""
    leaves: dict[str, Any] = {}
    for name, value in settings.items():
        whole = prefix + name
        leaves |= _leaves(value, f"{whole}.") if isinstance(value, dict) else {whole: value}
    return leaves


def _beside(each: Sequence[dict[str, Any]]) -> dict[str, list]:
    names = dict.fromkeys(name for one in each for name in one)
    return {name: [one.get(name) for one in each] for name in names}


def _differing(settings: Sequence[dict[str, Any]]) -> dict[str, list]:
    found = _beside(settings)
    return {k: v for k, v in found.items() if k != "files" and any(x != v[0] for x in v)}
