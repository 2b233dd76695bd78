"""Looks through the labels of a store for what a cross-validation cannot believe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.joining import StorePaths, open_each
from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.row_photos import RowPhotos
from kerasmlp.data.targets import Target
from kerasmlp.evaluation.predictions_file import Predictions, label_numbers
from kerasmlp.evaluation.suspects import Suspects, rank_suspects
from kerasmlp.experiments.cross_validation.cross_validate import open_finished
from kerasmlp.experiments.cross_validation.out_of_fold import files_of, read_predictions
from kerasmlp.experiments.suspect_files import StoreRows, draw_suspects
from kerasmlp.runs.environment import environment
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import target_of
from kerasmlp.utils.checks import InputError, check_optional_int, reject, reject_file
from kerasmlp.utils.files import write_text
from kerasmlp.utils.manifest import read_manifest
from kerasmlp.utils.tables import csv_of

KIND = "doctor"
_FILES = ("suspects*.csv", "suspects*.png")


def doctor(
    cross_validation: str | os.PathLike,
    store: StorePaths,
    output: str | os.PathLike,
    *,
    most: int | None = None,
    photos: str | os.PathLike | None = None,
    photo_column: str | None = None,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Ranks the labels of a store by what models that have not learned from them answer.

    Args:
        cross_validation: Folder of a finished one with predictions (`save_predictions`).
        store: What it learned from, unchanged; several as they were joined.
        output: Folder to write: `suspects.csv` (of several labels one each), the most
            suspicious first, with an empty column `corrected` that `relabel` takes back, and
            contact sheets of up to 100 photos.
        most: Suspects to list; None lists as many as seem to be wrong, at least 20.
        photos: Folder of the photos that the store's rows come from, or None.
        photo_column: Of the store, that names them; None takes `path`, or the only one that can.
        force: Replace what is in the folder, unless somebody has changed a table.
        progress: Show a bar over photos.

    Returns:
        The report, as in `report.json`: of each label under `labels` the number of `rows`, how
        many seem to be `wrong`, how many are `listed`, and the `pairs` of classes.

    Raises:
        InputError: if there are no predictions, a file is damaged, or the store is another.
    """
    check_optional_int("most", most, minimum=1)
    config, _ = open_finished(cross_validation)
    folder = RunFolder(cross_validation)
    target = target_of(folder / "config.json", config, "that of a cross-validation")
    how = {"asked": photo_column, "needed": photos is not None}
    rows = StoreRows(open_each(store), config.get("group"), **how)
    if photos is not None and rows.named_by is None:
        reject("photos", "must come with a store whose column names them (`path`)", str(photos))
    found = RowPhotos(photos) if photos is not None else None
    heads = {}
    for head in target.heads:
        predictions = read_predictions(folder, target, head.label)
        _check(folder / files_of(target)[head.label], folder.path, predictions, rows, head)
        heads[head.label] = predictions.about, rank_suspects(predictions)
    run = RunFolder(output)
    if force:
        _require_uncorrected(run)
    settings = {"kind": KIND, "data_digest": config["data_digest"], "target": target.to_config()}
    with run.working(settings, resume=None, force=force, files=_FILES):
        told = {}
        for label, (about, suspects) in heads.items():
            listed = suspects.listed(most)
            stem = files_of(target)[label].removesuffix(".parquet")
            stem = stem.replace("predictions", "suspects", 1)
            write_text(run / f"{stem}.csv", csv_of(rows.lines(suspects, label, listed)))
            told[label] = _told(about, suspects, listed, f"{stem}.csv")
            if found is not None:
                how = {"progress": progress, "listed": listed}
                drawn = draw_suspects(run / stem, rows, suspects, label, found, **how)
                told[label]["photos"] = drawn
        report = {"labels": told, "photo_column": rows.named_by, **environment()}
        run.finish(report)
    return report


def _check(
    path: Path,
    trained: Path,
    predictions: Predictions,
    rows: StoreRows,
    head: Target | NumberTarget,
) -> None:
    """Rejects answers for other rows, or for other labels."""
    about = predictions.about
    if predictions.target != head:
        reject_file(path, f"must be of {head.label}, as config.json says", "answers of another")
    if about["data_digest"] != rows.digest:
        requirement = f"must be what {trained} learned from, unchanged"
        reject_file(
            rows.joined.name, requirement, f"a store with another digest, {rows.digest[:12]}…"
        )
    if about["store_rows"] != len(rows.joined):
        came = f"{about['store_rows']}"
        reject_file(path, f"must be of a store of {len(rows.joined)} rows", came)
    chosen = Examples.of(rows.joined, head).subset(predictions.columns["row"])
    labels, names = label_numbers(chosen)
    if names != about["label_names"] or not np.array_equal(labels, predictions.columns["label"]):
        reject_file(path, "must hold the labels of the store", "others")


def _told(about: dict, suspects: Suspects, listed: int, table: str) -> dict[str, Any]:
    return {
        "rows": len(suspects.rows),
        "rows_without_answer": about["store_rows"] - len(suspects.rows),
        "seeds": suspects.seeds,
        "diverged": about["diverged"],
        "answers": about["answers"],
        "num_samples": about["num_samples"],
        "wrong": suspects.wrong,
        "listed": listed,
        "pairs": [list(pair) for pair in suspects.pairs[:20]],
        "table": table,
    }


def _require_uncorrected(run: RunFolder) -> None:
    """Rejects a folder whose tables somebody has worked on."""
    for name in read_manifest(run / "DONE"):
        if name.endswith(".csv"):
            try:
                run.read_bytes(name)
            except InputError:
                requirement = "must be moved away, to be replaced: it is not as it was written"
                reject_file(run / name, requirement, "a table with corrections, it seems")
