"""The report of an experiment: one HTML file with its pictures in it."""

import base64
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
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

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { border: 1px solid #ccc; padding: 3px 8px; text-align: left; }
th { background: #f2f2f2; } img { max-width: 100%; } code { background: #f2f2f2; }
"""


def write_report(folder: Path, experiment: Experiment, report: Mapping, folders: Folders) -> None:
    """Draws the figures and writes `report.html`, which needs nothing beside it."""
    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    stores = {"pre-training": experiment.pretraining_store, "cross-validation": experiment.store}
    parts = [_h("The data"), _drawn(pictures / "distributions.png", figures.distributions, stores)]
    parts += [*_removals(stores), _h("The network"), *_networks(pictures, experiment)]
    if searched := report["search"]:
        rows = [[_short(value) for value in row.values()] for row in searched]
        parts += [_h("Search on the store to pre-train on"), _table(list(searched[0]), rows)]
        parts += [_picture(folder / "search" / row["task"] / "trials.png") for row in searched]
    parts += [_h("Pre-training"), _pretraining_table(report["pretraining"]), _h("Results")]
    for task, caption, table in tables_of(report["rows"]):
        parts += [f"<h3>{html.escape(task)}</h3>", _p(caption), _table(*table)]
    parts += [_h("What the paper claims, on these data"), *_claims(report)]
    parts.append(_h("Losses over epochs"))
    for task in experiment.tasks:
        path = pictures / f"losses-{task.name}.png"
        parts.append(_drawn(path, figures.loss_curves, folders, task.name))
    parts += _uncertainty(pictures, experiment, folders)
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


def _networks(pictures: Path, experiment: Experiment) -> list[str]:
    parts = []
    for task in {task.pretraining: task for task in experiment.pretrainings().values()}.values():
        store = experiment.store
        network = task.recipe.network(store.width, normalized=store.info.normalized)
        model = ResidualMLP(num_classes=task.target.num_classes, **network)
        path = pictures / f"network-{task.name}.png"
        parts += [_p(f"{task.name}:"), _drawn(path, figures.network, model)]
    return parts


def _removals(stores: Mapping[str, EmbeddingStore]) -> Iterator[str]:
    for name, store in stores.items():
        if counts := store.info.removal_report:
            whole = ("inputs", counts["inputs"]), ("kept", counts["kept"])
            yield _table([name, "images"], [whole[0], *counts["removed"].items(), whole[1]])
        else:
            yield _p(f"{name}: the store holds no removal report.")


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
    return _table(["model", "validation loss", "validation accuracy", "rows"], rows)


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
    return [_p(text), _table(*claims_table(report["claims"])), _p(main)]


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
    return [_h("Uncertainty on a test fold"), picture, _p(which)]


def _entropies(seed: int, task: Task, test: EmbeddingStore, run: Path):
    """Entropies of a test fold and whether the answers are right."""
    predictor = Predictor(run)
    chunks = predictor.uncertainty(test.embeddings, num_samples=512, seed=seed)
    mean = np.concatenate([chunk["mean"] for chunk in chunks])
    right = ~Examples.of(test, task.target).wrong(mean)
    return entropy_nats(task.target.measured(mean)), right


def _table(heads: Sequence, rows: Sequence[Sequence]) -> str:
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(heads, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _drawn(path: Path, draw: Callable, *what: object) -> str:
    with drawing(path):
        draw(*what, path)
    return _picture(path)


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
