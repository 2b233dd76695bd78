"""The report of an experiment: one HTML file with its pictures in it."""

import base64
import html
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.cross_validation.plan import plan_runs
from kerasmlp.experiments.residual_mlp import figures
from kerasmlp.experiments.residual_mlp.design import Experiment, Folders, Task
from kerasmlp.experiments.residual_mlp.table import (
    claims_table,
    lowest_validation_losses,
    tables_of,
)
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.runs.predictor import Predictor
from kerasmlp.uncertainty.measures import entropy_nats
from kerasmlp.utils.drawing import drawing
from kerasmlp.utils.files import write_text
from kerasmlp.utils.pages import html_heading, html_page, html_table, html_text


def write_report(folder: Path, experiment: Experiment, report: Mapping, folders: Folders) -> None:
    """Draws the figures and writes `report.html`, which needs nothing beside it."""
    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    stores = {"pre-training": experiment.pretraining_store, "cross-validation": experiment.store}
    parts = [
        html_heading("The data"),
        _drawn(pictures / "distributions.png", figures.distributions, stores),
    ]
    parts += [*_removals(stores), html_heading("The network"), *_networks(pictures, experiment)]
    if searched := report["search"]:
        rows = [[_short(value) for value in row.values()] for row in searched]
        parts += [
            html_heading("Search on the store to pre-train on"),
            html_table(list(searched[0]), rows),
        ]
        parts += [_picture(folder / "search" / row["task"] / "trials.png") for row in searched]
    parts += [
        html_heading("Pre-training"),
        _pretraining_table(report["pretraining"]),
        html_heading("Results"),
    ]
    for task, caption, table in tables_of(report["rows"]):
        parts += [f"<h3>{html.escape(task)}</h3>", html_text(caption), html_table(*table)]
    parts += [html_heading("What the paper claims, on these data"), *_claims(report)]
    parts.append(html_heading("Losses over epochs"))
    for task in experiment.tasks:
        path = pictures / f"losses-{task.name}.png"
        parts.append(_drawn(path, figures.loss_curves, folders, task.name))
    parts += _uncertainty(pictures, experiment, folders)
    if (pictures / "faces.png").is_file():
        parts += [html_heading("Surest and least sure faces"), _picture(pictures / "faces.png")]
        parts.append(html_text("The full networks as they were pre-trained, 512 passes."))
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
    parts += [
        html_heading("How this came about"),
        f"<p><code>{html.escape(report['command'])}</code></p>",
    ]
    took = f"the last process took {report['seconds'] / 60:.1f} min"
    parts.append(html_text(f"{versions}; {report['cpu_count']} cores, {took}."))
    parts.append(
        html_text(f"Data digests: {report['pretraining_digest']}, {report['store_digest']}.")
    )
    title = "Generalizing MLPs with dropouts, batch normalization, and skip connections"
    write_text(folder / "report.html", html_page(title, parts))


def _networks(pictures: Path, experiment: Experiment) -> list[str]:
    parts = []
    for task in {task.pretraining: task for task in experiment.pretrainings().values()}.values():
        store = experiment.store
        network = task.recipe.network(store.width, normalized=store.info.normalized)
        model = ResidualMLP(num_classes=task.target.num_classes, **network)
        path = pictures / f"network-{task.name}.png"
        parts += [html_text(f"{task.name}:"), _drawn(path, figures.network, model)]
    return parts


def _removals(stores: Mapping[str, EmbeddingStore]) -> Iterator[str]:
    for name, store in stores.items():
        if counts := store.info.removal_report:
            whole = ("inputs", counts["inputs"]), ("kept", counts["kept"])
            yield html_table([name, "images"], [whole[0], *counts["removed"].items(), whole[1]])
        else:
            yield html_text(f"{name}: the store holds no removal report.")


def _pretraining_table(reports: Mapping[str, Mapping]) -> str:
    """Of a pre-training on years, the accuracy is that of the exact year, as in the paper."""
    rows = []
    for name, report in reports.items():
        if "diverged" in report:
            rows.append([name, "diverged", "", ""])
            continue
        measured = report["validation"]
        accuracy = measured.get("exact_year_accuracy", measured.get("accuracy"))
        cells = [f"{value:.4f}" for value in (measured["nll"], accuracy)]
        rows.append([name, *cells, report["rows"]["training"]])
    return html_table(["model", "validation loss", "validation accuracy", "rows"], rows)


def _claims(report: Mapping) -> list[str]:
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
    return [html_text(text), html_table(*claims_table(report["claims"])), html_text(main)]


def _uncertainty(pictures: Path, experiment: Experiment, folders: Folders) -> list[str]:
    values, names, store = {}, [], experiment.store
    for task in experiment.tasks:
        folder = folders[task.name, "full", "pretrained"]
        for run in plan_runs(store, experiment.plan(task)) if folder else ():
            if (folder / run.name / "model.keras").is_file():  # else it diverged
                test = store.subset(run.test)
                values[task.name] = _entropies(experiment.seed, task, test, folder / run.name)
                names.append(run.name)
                break
    if not values:
        return []
    picture = _drawn(pictures / "entropies.png", figures.entropies, values)
    which = f"The full network from pre-trained weights ({', '.join(names)}), 512 passes."
    return [html_heading("Uncertainty on a test fold"), picture, html_text(which)]


def _entropies(seed: int, task: Task, test: EmbeddingStore, run: Path):
    """Entropies of a test fold and whether the answers are right."""
    predictor = Predictor(run)
    chunks = predictor.uncertainty(test.embeddings, num_samples=512, seed=seed)
    mean = np.concatenate([chunk["mean"] for chunk in chunks])
    right = ~Examples.of(test, task.target).wrong(mean)
    return entropy_nats(task.target.measured(mean)), right


def _drawn(path: Path, draw: Callable, *what: object) -> str:
    with drawing(path):
        draw(*what, path)
    return _picture(path)


def _picture(path: Path) -> str:
    if not path.is_file():
        return html_text(f"{path.name} could not be drawn.")
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}"></p>'


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
