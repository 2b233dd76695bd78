"""The card of a model: what it is, what it was made from, how good it is for whom, its limits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kerasmlp.faces.models import LICENCE_NOTICE
from kerasmlp.runs.card_facts import card_facts
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import require_training
from kerasmlp.utils.checks import is_number, reject_file
from kerasmlp.utils.files import what_is, write_text
from kerasmlp.utils.pages import Page

_MEASURES = (
    "rows", "rmse", "mae", "r2", "mae_years", "accuracy", "exact_year_accuracy",
    "one_off_accuracy", "nll", "brier", "ece", "interval_90_coverage", "interval_90_width",
    "interval_90_width_years", "set_90_coverage", "set_90_size",
)  # fmt: skip
_CLASSES = 12
"""More are counted, not named."""
_UNKNOWN_LICENCE = f"not recorded; {LICENCE_NOTICE}"


def write_card(
    run_dir: str | os.PathLike, output: str | os.PathLike | None = None, *, force: bool = False
) -> list[Path]:
    """Writes the card of a finished run, as Markdown and as HTML.

    Args:
        run_dir: The run; evaluations in its folder are told of, too.
        output: Path of both without their ends; None is that of the run, with `-card`.
        force: Replace cards that are there.

    Returns:
        The two files.

    Raises:
        InputError: if there is no finished run, or a file is there already.
    """
    run = RunFolder(run_dir)
    require_training(run)
    stem = Path(f"{os.path.abspath(run_dir)}-card" if output is None else output)
    files = [stem.with_name(f"{stem.name}{end}") for end in (".md", ".html")]
    for file in files:
        if file.exists() and not (force and file.is_file()):
            reject_file(file, "must not exist yet (or give --force)", what_is(file))
    facts = card_facts(run)
    try:
        page = card_of(Path(os.path.abspath(run_dir)).name, facts)
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # of crafted files
        reject_file(run.path, "must hold reports as this package writes them", f"{error!r}"[:200])
    for file, text in zip(files, (page.markdown(), page.html()), strict=True):
        write_text(file, text)
    return files


def card_of(name: str, facts: Mapping[str, Any]) -> Page:
    """The page that tells the facts of a run.

    Args:
        name: Of the run.
        facts: Of `card_facts`.
    """
    page = Page(f"Model card: {name}")
    page.heading("What it predicts").items(_predicted(one) for one in facts["predicts"])
    page.text(
        f"A residual MLP of kerasmlp with {facts['network']['trainable_parameters'] or '?'} "
        f"trainable parameters, on rows of {facts['embedder']['width']} numbers."
    )
    page.heading("What it must not be taken for").items(facts["limits"])
    _of_data(page, facts)
    page.heading("How good it is")
    for head, measures in facts["measures"].items():
        words = {"validation": "kept back", "test": "test", "training": "trained on"}
        if head in _recalibrated(facts):
            words["validation"] = "recalibrated on"
        _measured(page, head, {words[part]: one for part, one in measures.items()})
    _groups(page, facts)
    for evaluation, heads in facts["evaluations"].items():
        _evaluated(page, evaluation, heads)
    _calibrated(page, facts)
    page.heading("How it was trained").table(
        ["setting", "value"], [[k, _short(v)] for k, v in (facts["recipe"] or {}).items()]
    )
    made = facts["made"]
    versions = ", ".join(f"{k} {v}" for k, v in (made["versions"] or {}).items())
    page.text(f"Seed {made['seed']}, {versions}; {made['command'] or 'command not recorded'}.")
    page.text(f"model.keras: SHA-256 {facts['network']['model_sha256']}.")
    return page


def _recalibrated(facts: Mapping[str, Any]) -> list[str]:
    """Heads that were fitted to, and measured on, other rows than training kept back."""
    return (facts["recalibrated"] or {}).get("heads") or []


def _predicted(one: Mapping[str, Any]) -> str:
    if one["kind"] == "number":
        unit = f" in {one['unit']}" if one["unit"] else ""
        return f"{one['label']}: a number{unit}, with its standard deviation"
    classes = one["classes"]
    named = ", ".join(classes[:_CLASSES]) + (", …" if len(classes) > _CLASSES else "")
    what = "age in years, measured in groups" if one["kind"] == "age" else "classes"
    return f"{one['label']}: {what} ({len(classes)}: {named})"


def _of_data(page: Page, facts: Mapping[str, Any]) -> None:
    data, embedder = facts["data"], facts["embedder"]
    page.heading("Data and embedder, with their licences")
    rows = [
        ["data", data.get("source") or "not recorded"],
        ["licence of the data", data.get("licence") or "not recorded"],
        ["digest of the data", data["digest"] or "not recorded"],
        ["embedder", embedder["embedder"] or "not recorded"],
        ["SHA-256 of the embedder", embedder["embedder_sha256"] or "not recorded"],
        ["licence of the embedder", embedder["embedder_licence"] or _UNKNOWN_LICENCE],
        ["embeddings of norm 1", "yes" if embedder["normalized"] else "no"],
    ]
    rows += [[k, embedder[k]] for k in ("embedder_source", "detector") if embedder[k]]
    if (again := facts["recalibrated"]) is not None:
        fitted_to = again["source"] or "not recorded"
        rows.append(["recalibrated on, and measured on the same rows", fitted_to])
        rows.append(["licence of these", again["licence"] or "not recorded"])
        rows.append(["digest of these", again["digest"]])
    if data["rows"]:
        words = {"validation": "recalibrated on"} if again else {}
        counts = [f"{v} {words.get(k, k)}" for k, v in data["rows"].items()]
        rows.append(["rows", ", ".join(counts)])
    rows += [["store", f"{s['file']}: {s['rows']} rows"] for s in data["stores"] or ()]
    page.table(["", ""], rows)
    if data["notes"]:
        page.items(data["notes"])


def _measured(page: Page, head: str, parts: Mapping[str, Mapping]) -> None:
    shown = [k for k in _MEASURES if any(k in one for one in parts.values())]
    rows = [[k, *(_short(one.get(k, "")) for one in parts.values())] for k in shown]
    page.table([head, *parts], rows)


def _groups(page: Page, facts: Mapping[str, Any]) -> None:
    for head, groups in facts["groups"].items():
        if len(groups) > 1:
            names = [n for n in ("age_group", "gender") if any(n in g for g in groups)]
            shown = [k for k in _MEASURES if any(k in g for g in groups)]
            again = head in _recalibrated(facts)
            rows = "rows that it was recalibrated on" if again else "rows kept back"
            ends = ", with 95% intervals of accuracy" * ("accuracy" in shown)
            page.text(f"{head}, by groups of the {rows}{ends}:")
            page.table([*names, *shown], [_cells(g, names, shown) for g in groups])


def _evaluated(page: Page, evaluation: str, heads: Mapping[str, Mapping]) -> None:
    page.heading(f"Evaluated on {evaluation}")
    for head, one in heads.items():
        models = {k: one[k] for k in ("deterministic", "mc_mean") if isinstance(one.get(k), dict)}
        _measured(page, head or "all rows", models)
        if learned := one.get("rows_learned_from"):
            page.text(f"The run has learned from {learned} of these rows, which flatters it.")
        for column, values in (one.get("by") or {}).items():
            rows = [{column: value} | group for value, group in values.items()]
            shown = [k for k in _MEASURES if any(k in g for g in rows)]
            page.text(f"By {column}, with 95% intervals (bootstrap):")
            page.table([column, *shown], [_cells(g, [column], shown) for g in rows])
            page.items(_gaps(column, (one.get("gaps") or {}).get(column) or {}))


def _gaps(column: str, gaps: Mapping[str, Any]) -> Iterator[str]:
    for measure, gap in (gaps.get("deterministic") or {}).items():
        yield (
            f"{measure}: worst {gap['worst']}, best {gap['best']}, apart by "
            f"{_short(gap['gap'])} (p = {_short(gap['p_value'])})"
        )


def _calibrated(page: Page, facts: Mapping[str, Any]) -> None:
    page.heading("Calibration")
    if not facts["calibration"]:
        page.text("None.")
    for label, one in facts["calibration"].items():
        kept = "" if facts["recalibrated"] else " kept back"
        said = [f"fitted on {one.get('rows', 0)} rows{kept}"]
        said.append(f"temperature of passes {_short(one.get('mc_temperature', 1.0))}")
        if "offsets_years" in one or "quantiles" in one:
            said.append("intervals of 50% and 90%, split-conformal")
        if "set_thresholds" in one:
            said.append("sets of classes that hold the true one in 90% of rows")
        if "groups" in one:
            said.append(f"each by {', '.join(one['groups']['by'])}")
        if one["abstains"]:
            said.append("abstention by a promised risk")
        page.text(f"{label}: {'; '.join(said)}.")


def _cells(group: Mapping[str, Any], names: list[str], shown: list[str]) -> list[str]:
    cells = [str(group.get(name, "")) for name in names]
    for name in shown:
        ends = (group.get("intervals") or {}).get(name)
        interval = f" ({_short(ends[0])}–{_short(ends[1])})" if ends else ""
        cells.append(_short(group.get(name, "")) + interval)
    return cells


def _short(value: Any) -> str:
    """A value as people read it."""
    return f"{value:.4g}" if isinstance(value, float) and is_number(value) else str(value)
