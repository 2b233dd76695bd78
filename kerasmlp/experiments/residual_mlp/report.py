"""The report of an experiment: one HTML file with its pictures in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.cross_validation.plan import plan_runs
from kerasmlp.experiments.residual_mlp import figures
from kerasmlp.experiments.residual_mlp.design import Experiment, Task
from kerasmlp.experiments.residual_mlp.table import (
    claims_markdown,
    lowest_validation_losses,
    table_markdown,
)
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.runs.predictor import Predictor
from kerasmlp.uncertainty.measures import entropy_nats
from kerasmlp.utils.drawing import drawing
from kerasmlp.utils.files import write_text

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { border: 1px solid #ccc; padding: 3px 8px; text-align: left; }
th { background: #f2f2f2; } img { max-width: 100%; } code { background: #f2f2f2; }
"""


def write_report(
    folder: Path,
    experiment: Experiment,
    pretraining: EmbeddingStore,
    store: EmbeddingStore,
    report: Mapping,
    folders: Mapping[tuple[str, str, str], Path | None],
) -> None:
    """Draws the figures and writes `report.html`, which needs nothing beside it.

    Args:
        folder: Of the experiment.
        experiment: What was done.
        pretraining: Its store to pre-train on.
        store: Its store to cross-validate on.
        report: `rows`, `claims`, `search`, `pretraining`, `seconds` and the versions.
        folders: Cross-validation of each (task, variant, init), None where the
            pre-training diverged.
    """
    names = [task.name for task in experiment.tasks]
    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    stores = {"pre-training": pretraining, "cross-validation": store}
    with drawing(pictures / "distributions.png") as path:
        figures.distributions(stores, path)
    parts = [_h("The data"), _picture(pictures / "distributions.png"), _removals(stores)]
    parts += [_h("The network"), *_networks(pictures, experiment, store.width)]
    if report["search"]:
        rows = [[_short(value) for value in row.values()] for row in report["search"]]
        heads = list(report["search"][0])
        parts += [_h("Search on the store to pre-train on"), _table(heads, rows)]
        for row in report["search"]:
            parts.append(_picture(folder / "search" / row["task"] / "trials.png"))
    parts += [_h("Pre-training"), _pretraining_table(report["pretraining"])]
    parts += [_h("Results"), _tables(table_markdown(report["rows"]))]
    parts += [_h("What the paper claims, on these data"), _claims(report)]
    parts.append(_h("Losses over epochs"))
    for name in names:
        with drawing(pictures / f"losses-{name}.png") as path:
            figures.loss_curves(folders, name, path)
        parts.append(_picture(path))
    parts += _uncertainty(pictures, experiment, store, folders)
    if (pictures / "faces.png").is_file():
        parts += [_h("Surest and least sure faces"), _picture(pictures / "faces.png")]
        parts.append(_p("The full networks as they were pre-trained, 512 passes."))
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
    parts += [_h("How this came about"), f"<p><code>{html.escape(report['command'])}</code></p>"]
    took = f"the last process took {report['seconds'] / 60:.1f} min"
    parts.append(_p(f"{versions}; {report['cpu_count']} cores, {took}."))
    parts.append(_p(f"Data digests: {report['pretraining_digest']}, {report['store_digest']}."))
    title = "Generalizing MLPs with dropouts, batch normalization, and skip connections"
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1>{''.join(parts)}</html>"
    )
    write_text(folder / "report.html", page)


def _networks(pictures: Path, experiment: Experiment, width: int) -> list[str]:
    parts = []
    for task in {task.pretraining: task for task in experiment.pretrainings().values()}.values():
        network = task.recipe.network(width)
        model = ResidualMLP(num_classes=task.target.num_classes, **network)
        with drawing(pictures / f"network-{task.name}.png") as path:
            figures.network(model, path)
        parts += [_p(f"{task.name}:"), _picture(path)]
    return parts


def _removals(stores: Mapping[str, EmbeddingStore]) -> str:
    lines = []
    for name, store in stores.items():
        counts = store.info.removal_report
        if not counts:
            lines.append(_p(f"{name}: the store holds no removal report."))
            continue
        rows = [["inputs", counts["inputs"]], *counts["removed"].items(), ["kept", counts["kept"]]]
        lines.append(_table([name, "images"], rows))
    return "".join(lines)


def _pretraining_table(reports: Mapping[str, Mapping]) -> str:
    rows = [
        [name, *(f"{value:.4f}" for value in _loss_and_accuracy(r)), r["rows"]["training"]]
        if "diverged" not in r
        else [name, "diverged", "", ""]
        for name, r in reports.items()
    ]
    return _table(["model", "validation loss", "validation accuracy", "rows"], rows)


def _loss_and_accuracy(report: Mapping) -> tuple[float, float]:
    """Of a pre-training on years, the accuracy is that of the exact year, as in the paper."""
    measured = report["validation"]
    return measured["nll"], measured.get("exact_year_accuracy", measured.get("accuracy"))


def _claims(report: Mapping) -> str:
    best = lowest_validation_losses(report["rows"])
    words = "; ".join(f"{task}: {variant}" for task, variant in best.items()) or "None was trained"
    text = (
        "Differences are those of the full network minus the other on the test folds, p that of "
        "the corrected resampled t-test; a claim holds, or is contradicted, where p is below 0.05. "
        "With so many comparisons, one in twenty would pass by chance."
    )
    main = (
        "Lowest validation loss from pre-trained weights (the paper says: the full network). "
        f"{words}."
    )
    return _p(text) + _tables(claims_markdown(report["claims"])) + _p(main)


def _uncertainty(
    pictures: Path, experiment: Experiment, store: EmbeddingStore, folders
) -> list[str]:
    values, names = {}, []
    for task in experiment.tasks:
        folder = folders[task.name, "full", "pretrained"]
        plan = task.plan("full", experiment.seeds, experiment.num_folds, None)
        for run in plan_runs(store, plan) if folder else ():
            if (folder / run.name / "model.keras").is_file():  # else it diverged
                test = store.subset(run.test)
                values[task.name] = _entropies(experiment.seed, task, test, folder / run.name)
                names.append(run.name)
                break
    if not values:
        return []
    with drawing(pictures / "entropies.png") as path:
        figures.entropies(values, path)
    which = f"The full network from pre-trained weights ({', '.join(names)}), 512 passes."
    parts = [_h("Uncertainty on a test fold"), _picture(pictures / "entropies.png")]
    return [*parts, _p(which)]


def _entropies(seed: int, task: Task, test: EmbeddingStore, run: Path):
    """Entropies of a test fold and whether the answers are right."""
    predictor = Predictor(run)
    chunks = predictor.uncertainty(test.embeddings, num_samples=512, seed=seed)
    mean = np.concatenate([chunk["mean"] for chunk in chunks])
    right = ~Examples.of(test, task.target).wrong(mean)
    return entropy_nats(task.target.measured(mean)), right


def _tables(markdown: str) -> str:
    """Headings, paragraphs and tables of our own Markdown as HTML."""
    parts, rows = [], []
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not set("".join(cells)) <= set("- "):
                rows.append(cells)
            continue
        if rows:
            parts.append(_table(rows[0], rows[1:]))
            rows = []
        if line.startswith("### "):
            parts.append(f"<h3>{html.escape(line[4:])}</h3>")
        elif line:
            parts.append(_p(line))
    return "".join(parts)


def _table(heads: Sequence, rows: Sequence[Sequence]) -> str:
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(heads, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _picture(path: Path) -> str:
    if not path.is_file():
        return _p(f"{path.name} could not be drawn.")
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}"></p>'


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _h(text: str) -> str:
    return f"<h2>{html.escape(text)}</h2>"


def _p(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"
