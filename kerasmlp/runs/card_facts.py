"""What there is to say of a finished run, gathered from its files: for cards and exports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasmlp.data.other_targets import AnyTarget
from kerasmlp.runs.conformal_groups import share_of_draws
from kerasmlp.runs.evaluation_folder import FORMAT
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import read_settings
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.files import read_json, sha256_file
from kerasmlp.utils.schema import check_object, dict_of, kind, one_of, optional

_EMBEDDER = ("embedder", "embedder_sha256", "normalized", "preprocessing")
_MORE_OF_EMBEDDER = ("embedder_licence", "embedder_source", "detector", "min_det_score")
_OBJECT = kind("an object", lambda value: isinstance(value, dict))
_FEWEST = 30
"""Rows of a group of which the worst is named: of fewer chance alone makes it so."""


def card_facts(run: RunFolder, *, travelling: bool = False) -> dict[str, Any]:
    """What a card says of a run, as JSON has it.

    Args:
        run: Finished.
        travelling: Without what is of this machine: evaluations in the folder, which anybody
            may have put there, and the command with its paths.

    Returns:
        `predicts` (per label what it is, its classes or unit), `data` (source, licence,
        digest, rows), `embedder`, `network`, `recipe`, `measures` of the parts, `groups` of
        those kept back with 95% intervals of the accuracy, `recalibrated` (None, or digest,
        source and licence of the rows, and the heads fitted and measured on them),
        `evaluations` in the folder,
        `calibration`, `limits` (sentences) and `made` (seed, versions, command).

    Raises:
        InputError: if there is no finished run, or one of its files is damaged.
    """
    config, target = read_settings(run)
    report = run.report()
    try:
        facts = _facts(run, config, target, report)
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # of crafted files
        reject_file(run / "report.json", "must be that of a training", f"{error!r}"[:200])
    if travelling:
        facts["made"].pop("command")
        return facts
    return facts | {"evaluations": _evaluations(run)}


def _facts(run: RunFolder, config: dict, target: AnyTarget, report: dict) -> dict[str, Any]:
    data = report.get("data") or {}
    heads = report.get("heads") or {target.heads[0].name: report}
    calibration = _calibration(run, target)
    shares = {}
    for one in target.heads:
        counts = calibration.get(one.label, {})
        shares[one.name] = share_of_draws(counts.get("rows"), counts.get("clusters"))
    facts = {
        "predicts": [_predicted(head) for head in target.heads],
        "data": {k: v for k, v in data.items() if k not in _MORE_OF_EMBEDDER}
        | {"digest": config.get("data_digest"), "stores": config.get("stores")}
        | {"rows": report.get("rows"), "notes": report.get("notes", [])},
        "embedder": {k: config.get(k) for k in ("width", *_EMBEDDER)}
        | {k: data.get(k) for k in _MORE_OF_EMBEDDER},
        "network": {
            "trainable_parameters": report.get("trainable_parameters"),
            "model_sha256": sha256_file(run / "model.keras"),
        },
        "recipe": config.get("recipe"),
        "measures": {
            name: {part: head[part] for part in ("validation", "test", "training") if part in head}
            for name, head in heads.items()
        },
        "groups": {
            name: [_with_interval(one, shares[name]) for one in head.get("validation_groups", ())]
            for name, head in heads.items()
        },
        "recalibrated": _recalibrated(config, report, heads),
        "calibration": calibration,
        "made": {k: report.get(k) for k in ("seed", "command", "versions", "backend", "precision")},
    }
    return facts | {"limits": _limits(facts)}


def _predicted(head: Any) -> dict[str, Any]:
    if head.is_number:
        return {"label": head.label, "kind": "number", "unit": head.unit}
    kind = "age" if head.is_age else "classes"
    return {"label": head.label, "kind": kind, "classes": list(head.measured_names)}


def _recalibrated(config: dict, report: dict, heads: Mapping[str, dict]) -> dict | None:
    if (settings := config.get("recalibrated")) is None:
        return None
    names = ("source", "licence")
    return {k: (report.get("recalibrated_on") or {}).get(k) for k in names} | {
        "digest": settings["data_digest"],
        "batch_norm": settings["batch_norm"],
        "heads": [name for name, head in heads.items() if "before" in head],
    }


def _with_interval(group: Mapping[str, Any], share: float) -> dict[str, Any]:
    """A group of people with the 95% interval of its accuracy (Wilson, 1927), of as many rows as
    a share of them are draws of their own."""
    rows, accuracy = group["rows"] * share, group.get("accuracy")
    if accuracy is None:
        return dict(group)
    z = 1.959964
    middle = (accuracy + z * z / (2 * rows)) / (1 + z * z / rows)
    spread = accuracy * (1 - accuracy) / rows + z * z / (4 * rows * rows)
    half = z * math.sqrt(spread) / (1 + z * z / rows)
    ends = [max(middle - half, 0.0), min(middle + half, 1.0)]
    return dict(group) | {"intervals": {"accuracy": ends}}


def _evaluations(run: RunFolder) -> dict[str, dict]:
    """Of the evaluations in the folder of a run what a card says, by their names."""
    found = {}
    for folder in sorted(Path(run.path).glob("evaluation-*")):
        path = folder / "report.json"
        if not path.exists():  # killed before the end
            continue
        report = read_json(path)
        check_object(path, report, {"format": one_of(FORMAT)}, "the report of an evaluation")
        check_object(path, report, {"heads": optional(dict_of(_OBJECT))}, "that of an evaluation")
        heads = report.get("heads") or {"": report}
        names = ("deterministic", "mc_mean", "by", "gaps", "store_digest")
        names += ("rows_without_label", "rows_learned_from", "num_samples")
        of_heads = {n: {k: h[k] for k in names if k in h} for n, h in heads.items()}
        found[folder.name.removeprefix("evaluation-")] = of_heads
    return found


def _calibration(run: RunFolder, target: AnyTarget) -> dict[str, dict]:
    value = run.read_optional_json("calibration.json")
    if value is None:
        return {}
    heads = value.get("heads") or {target.heads[0].label: value}
    names = ("rows", "clusters", "num_samples", "mc_temperature", "offsets_years", "quantiles")
    return {
        label: {k: head[k] for k in (*names, "set_thresholds", "groups") if head.get(k)}
        | {"abstains": bool(head.get("abstention"))}
        for label, head in heads.items()
    }


def _limits(facts: Mapping[str, Any]) -> list[str]:
    """What the model does not know, and must not be taken for, in sentences."""
    embedder, data = facts["embedder"], facts["data"]
    said = []
    if embedder["embedder"]:
        said.append(
            f"It answers embeddings of {embedder['embedder']} alone: those of another embedder "
            "mean nothing to it, and are refused where a store names it."
        )
    else:
        said.append("Its embedder is not known: embeddings of another one mean nothing to it.")
    if facts["calibration"]:
        said.append(
            "Intervals, sets and risks hold for rows drawn like those it was calibrated on; "
            "of people or photos of another kind they promise nothing."
        )
    else:
        said.append("It is not calibrated: its probabilities promise nothing.")
    for head, groups in facts["groups"].items():
        large = [g for g in groups if g["rows"] >= _FEWEST and "accuracy" in g]
        if len(large) > 1:
            worst = min(large, key=lambda g: g["accuracy"])
            whole = facts["measures"][head]["validation"].get("accuracy")
            name = ", ".join(str(v) for k, v in worst.items() if k in ("age_group", "gender"))
            again = head in ((facts["recalibrated"] or {}).get("heads") or ())
            rows = "rows that it was recalibrated on" if again else "rows kept back"
            said.append(
                f"{head}: of the groups of {_FEWEST} or more {rows}, {name} has the lowest "
                f"accuracy: {worst['accuracy']:.3f} of {worst['rows']} rows; all have {whole:.3f}."
            )
    if any(p["label"] in ("gender", "race") or p["kind"] == "age" for p in facts["predicts"]):
        said.append(
            "It repeats what annotators saw in pictures: apparent age, gender and race are no "
            "facts about a person, and no ground for a decision on one."
        )
    if embedder["detector"] or embedder["embedder"]:
        said.append(
            "Embeddings of faces are biometric templates, and personal data: "
            "see the law on those where they are used."
        )
    if not data.get("licence"):
        said.append("The licence of the data is not recorded: who passes this on must know it.")
    return said
