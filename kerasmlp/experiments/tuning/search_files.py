"""The files of a search: what they must hold, and how they are written."""

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from kerasmlp.experiments.tuning.plan import LONGEST_EPOCHS, TuningPlan
from kerasmlp.experiments.tuning.space import SPACES
from kerasmlp.runs.environment import environment
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.checks import reject, reject_file
from kerasmlp.utils.drawing import drawing
from kerasmlp.utils.files import write_json, write_text
from kerasmlp.utils.schema import (
    check_object,
    dict_of,
    fields,
    flag,
    kind,
    made_by,
    number,
    optional,
    text,
    whole,
)
from kerasmlp.utils.tables import csv_of

KIND = "tuning"
FILES = ("best.json", "trials.csv", "trials.png", "search/**")
_WHAT = "that of a search"
_COUNT = whole(0, 10**12)
_SETTINGS = {
    "max_epochs": optional(whole(1, LONGEST_EPOCHS)),
    "data_digest": text(200),
    "precision": optional(text(100)),
    "space": kind(f"one of {list(SPACES)}", lambda v: isinstance(v, str) and v in SPACES),
    "seed": whole(0, (1 << 31) - 1),
    "group": optional(text(1000)),
    "in_memory": optional(flag),
}
_REPORT = {
    "best": dict_of(optional(number())),
    "complete": flag,
    "trials": fields(dict.fromkeys(("run", "planned", "diverged"), _COUNT)),
    "max_epochs": whole(1, LONGEST_EPOCHS),
    "rows": fields(dict.fromkeys(("training", "validation"), _COUNT)),
    "seconds": fields({"total": number(), "trials": number()}),
}


def settings_of_search(folder: RunFolder) -> dict | None:
    """The settings of a search that has begun in a folder, or None where nothing has.

    Raises:
        InputError: if something else has, or they are damaged.
    """
    if not (folder / "config.json").is_file():
        return None
    config = folder.config()
    if config["kind"] != KIND:
        reject_file(folder.path, "must be the folder of a search", "another run folder")
    return check_object(folder / "config.json", config, _SETTINGS, _WHAT)


def plan_of_search(folder: RunFolder, config: dict) -> TuningPlan:
    """The plan that the settings of a search are."""
    whole_plan = made_by(lambda _: TuningPlan.from_config(config), "that of a plan")
    check_object(folder / "config.json", config, {"base": whole_plan}, _WHAT)
    return TuningPlan.from_config(config)


def report_of_search(folder: RunFolder) -> dict:
    """The report of a finished search."""
    return check_object(folder / "report.json", folder.report(), _REPORT, _WHAT)


def project_name(config: dict) -> str:
    """Names a search after what decides its results."""
    digest, seed, fold = config["data_digest"][:12], config["seed"], config.get("leave_out_fold")
    without = "" if fold is None else f"-without-fold{fold}"
    return f"{config['space']}-{config['max_epochs']}-{digest}-seed{seed}{without}"


def require_keras_tuner() -> None:
    if importlib.util.find_spec("keras_tuner") is None:
        reject("keras-tuner", "must be installed: pip install 'kerasmlp[tuner]'", None)


def best_of(plan: TuningPlan, rows: Sequence[dict]) -> dict:
    """The row of least loss among those trained to the end, or among all before there are any.

    Raises:
        InputError: if every trial diverged.
    """
    finite = [row for row in rows if math.isfinite(row["val_loss"])]
    ended = [row for row in finite if row["epochs"] == plan.max_epochs]
    if not finite:
        reject("--space", "must hold recipes that do not diverge on these data", plan.space)
    return min(ended or finite, key=lambda row: row["val_loss"])


def write_search(
    folder: RunFolder,
    recipe: dict,
    rows: Sequence[dict],
    report: dict,
    draw: Callable[[Path], None],
    *,
    complete: bool = True,
) -> dict:
    """Writes all that comes of a search, or of its trials so far; returns the report.

    To the report seed, data and environment are added.
    """
    write_json(folder / "best.json", recipe)
    write_text(folder / "trials.csv", csv_of(rows))
    config = folder.config()
    report = report | {name: config[name] for name in ("seed", "data_digest")} | environment()
    with drawing(folder / "trials.png") as path:
        draw(path)
    if complete:
        folder.finish(report)
    else:
        write_json(folder / "report.json", report)
    return report
