"""The LayerOut paper's experiments: modes × seeds, a run folder each, one table."""

from __future__ import annotations

import contextlib
import csv
import os
import time

from kerasmlp.checks import reject
from kerasmlp.cross_validation.table import csv_of
from kerasmlp.files import write_text
from kerasmlp.image_batches import ImageSet
from kerasmlp.layer_out.plan import NETWORKS, LayerOutPlan
from kerasmlp.layer_out.table import draw, markdown_of, row_of, summarize_modes, title_of
from kerasmlp.layer_out.training import train_layer_out
from kerasmlp.runs import RunFolder, environment


def run_layer_out(
    data: ImageSet,
    plan: LayerOutPlan,
    run_dir: str | os.PathLike,
    *,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Trains every mode × seed of a plan and writes the table, one after the other.

    Killed at any moment and started again with `resume=True`, finished runs are
    not computed again, the others go on from their last epoch, and the
    accuracies are those of an uninterrupted experiment.

    Args:
        data: Images.
        plan: What to compute.
        run_dir: Folder to write, a run folder with one more per run in it.
        resume: Go on with a killed experiment.
        force: Replace what is in the folder.
        progress: Show a bar over epochs.

    Returns:
        The report, as in `report.json`: `summary` holds for each mode mean and
        standard deviation over seeds, `runs` the rows.

    Raises:
        InputError: if the data do not suit the plan or the folder cannot be used.
    """
    started = time.time()
    channels = NETWORKS[plan.network].channels
    if data.channels != channels:
        reject("network", f"must take images of {data.channels} channels", plan.network)
    if plan.batch_size > len(data.x_train):
        requirement = f"must be at most the {len(data.x_train)} images to train on"
        reject("batch_size", requirement, plan.batch_size)
    digest = data.digest()
    config = {"kind": "layerout", **plan.to_config(), "data_digest": digest}
    folder = RunFolder(run_dir)
    with folder.working(config, resume=resume, force=force):
        if folder.done:
            return folder.report()
        runs = plan.runs()
        inner = [RunFolder(folder / run.name) for run in runs]
        reports, histories = [], {}
        with _bar(len(runs) * plan.epochs, progress) as bar:
            for run, run_folder in zip(runs, inner, strict=True):
                shown = bar.n
                bar.set_description(run.name)
                report = train_layer_out(
                    data, plan, run, run_folder.path, data_digest=digest, on_epoch=bar.update
                )
                bar.update(shown + plan.epochs - bar.n)  # what an earlier process did
                reports.append(report)
                with open(run_folder / "history.csv", encoding="utf-8", newline="") as file:
                    histories.setdefault(title_of(report), []).append(list(csv.DictReader(file)))
        rows = [row_of(report) for report in reports]
        summary = summarize_modes(rows)
        write_text(folder / "runs.csv", csv_of(rows))
        write_text(folder / "table.md", markdown_of(summary, len(plan.seeds)))
        draw(histories, folder / "curves.png")
        report = {
            "summary": summary,
            "runs": rows,
            "rows": {"training": len(data.x_train), "test": len(data.x_test)},
            "trainable_parameters": reports[0]["trainable_parameters"],
            "seconds": {"total": time.time() - started},
            "data_digest": digest,
            **environment(),
        }
        folder.finish(report)
        return report


@contextlib.contextmanager
def _bar(total: int, progress: bool):
    from tqdm import tqdm

    with tqdm(total=total, unit="epoch", disable=not progress) as bar:
        yield bar
