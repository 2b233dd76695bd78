"""Everything that `evaluate` measures, and the folder's worth of files it writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kerasmlp.data.examples import Examples
from kerasmlp.data.labels import NUM_YEARS
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.evaluation import metrics
from kerasmlp.evaluation.by_column import by_columns, of_heads, write_by
from kerasmlp.evaluation.evaluation_pictures import LEVELS, draw_evaluation, measures_of
from kerasmlp.evaluation.grouping import groupings
from kerasmlp.evaluation.measured_answers import Answers, measure_answers
from kerasmlp.evaluation.measuring import (
    named_groups,
    people_and_races,
    require_known,
)
from kerasmlp.evaluation.number_measuring import normal_coverages
from kerasmlp.evaluation.promises import moved_and_promises
from kerasmlp.models.residual_mlp import head_layer
from kerasmlp.runs.conformal_groups import count_in_none
from kerasmlp.runs.environment import environment
from kerasmlp.runs.evaluation_folder import BY, FORMAT, HEAD
from kerasmlp.runs.predictor import Predictor
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import count_seen
from kerasmlp.uncertainty.measures import age_interval_years, entropy_nats
from kerasmlp.uncertainty.selective import auroc
from kerasmlp.utils.checks import reject
from kerasmlp.utils.files import write_json
from kerasmlp.utils.tables import row_writer

_DOUBLE_ROWS = 1_000_000  # of more, measures of uncertainty are kept in single precision
OOD_ROWS = 2000
"""Most rows of another source: enough for an AUROC to about 0.01."""

BINNING = f"{metrics.NUM_BINS} bins of equal width by top probability, bin k holding (k/n, (k+1)/n]"
RANDOM = "random_unit_vectors"


def write_evaluation(
    folder: Path,
    predictor: Predictor,
    rows: Examples,
    *,
    num_samples: int,
    seed: int = 0,
    others: Mapping[str, EmbeddingStore] | None = None,
    by: Sequence[str] = (),
    progress: bool = False,
) -> dict:
    """Measures a run on rows and writes report, groups and figures.

    Args:
        rows: With its target, perhaps in other age classes; those without the label
            are left out.
        num_samples: Stochastic passes; 0 measures the deterministic model only.
        seed: Of the passes, and of the random vectors.
        others: Stores of another source, by name, which the model should be
            unsure about; at most 2,000 evenly spaced rows of each.
        by: Columns of the store, by whose values all is measured, too.

    Returns:
        The report, as in `report.json`.

    Raises:
        InputError: if no row holds the label.
    """
    target, total, known = require_known(rows), len(rows), rows.known
    parts = [one.subset(known) for one in groupings(rows, by, target)]
    rows, group = rows if known.all() else rows.subset(known), predictor.config.get("group")
    group = group if group in rows.labels else None
    sources = _sources(rows.inputs, others or {}, seed) if num_samples else {"store": rows.inputs}
    drawn = _draw_all(predictor, sources, num_samples, seed, progress)
    models = {"deterministic": drawn["store"]["deterministic"]}
    if num_samples:
        models["mc_mean"] = drawn["store"]["mean"]
    answers = {name: Answers.of(predictor, rows, name, p) for name, p in models.items()}
    bins: dict = {}
    if not target.is_number:
        measured = {name: target.measured(p) for name, p in models.items()}
        bins = {name: metrics.reliability_bins(rows.targets, p) for name, p in measured.items()}
    report = {
        "format": FORMAT,
        "run": str(predictor.path),
        "classes": target.classes or target.label,
        "num_samples": num_samples,
        "seed": seed,
        "rows_without_label": total - len(rows),
        "rows_learned_from": count_seen(RunFolder(predictor.path), rows.inputs),
        "ece_binning": BINNING,
        "conformal": _is_conformal(predictor),
        "rows_in_no_group": count_in_none(predictor.calibration, rows.labels, len(rows)),
        **_measured(rows, answers),
        **by_columns(rows, answers, parts, group=group, seed=seed, progress=progress),
        "reliability": {name: _plain(columns) for name, columns in bins.items()},
        **_central_intervals(rows, models),
        **_ood_auroc(drawn),
        "moved": moved_and_promises(predictor, rows, models, num_samples, seed),
        "store_digest": rows.digest(),
        **environment(),
    }
    write_json(folder / "report.json", report)
    _write_groups(folder / "groups.csv", report["groups"])
    if by:
        write_by(folder / BY, report["by"])
    draw_evaluation(folder, rows, models, bins, report, drawn)
    return report


def write_evaluations(
    folder: Path, heads: Sequence[tuple[Predictor, Examples]], **how: Any
) -> dict:
    """Writes the evaluation of each head of a run into a folder of its own.

    Args:
        folder: Of them all, which gets a report too.
        heads: Each with its rows.
        how: Arguments of `write_evaluation`.

    Returns:
        `heads`, from their names to their reports, and their measures under `deterministic`
        and `mc_mean`, named `<name>_<measure>`.
    """
    found = {}
    for predictor, rows in heads:
        inner = folder / head_layer(HEAD, predictor.name)
        inner.mkdir()
        found[predictor.name] = write_evaluation(inner, predictor, rows, **how)
    report = {"format": FORMAT, "heads": found, "num_samples": how["num_samples"]}
    for model in ("deterministic", "mc_mean"):
        each = {name: one[model] for name, one in found.items() if model in one}
        flat = {f"{name}_{k}": v for name, one in each.items() for k, v in one.items()}
        report |= {model: flat} if flat else {}
    report |= of_heads(found)
    write_json(folder / "report.json", report)
    return report


def _is_conformal(predictor: Predictor) -> bool:
    calibration = predictor.calibration
    if calibration is None:
        return False
    return bool(calibration.quantiles if predictor.target.is_number else calibration.offsets_years)


def _write_groups(path: Path, groups: list[dict]) -> None:
    unnamed = {"age_group", "gender", "race"} - set(named_groups(groups))
    with row_writer(path, "csv") as write:
        for row in groups:
            write({k: v for k, v in row.items() if k not in unnamed})


def _measured(rows: Examples, answers: Mapping[str, Answers]) -> dict:
    """The measures of each model, on all rows and in `groups` of people."""
    people, report = list(people_and_races(rows)), {}
    groups: list[dict] = []
    for name, one in answers.items():
        report[name] = measure_answers(rows, one)
        for group, chosen in people:
            measured = measure_answers(rows.subset(chosen), one.subset(chosen))
            groups.append({"model": name, **group, **measured})
    return report | {"groups": groups}


def _sources(
    embeddings: np.ndarray, others: Mapping[str, EmbeddingStore], seed: int
) -> dict[str, np.ndarray]:
    """The rows that are measured, and those that a model should be unsure about."""
    sources = {"store": embeddings, RANDOM: random_vectors(embeddings[:OOD_ROWS], seed)}
    for name, other in others.items():
        if name in sources:
            reject("others", "must have other names than `store` and the random vectors", name)
        rows = np.unique(np.linspace(0, len(other) - 1, OOD_ROWS).round().astype(int))
        sources[name] = other.embeddings[rows]
    return sources


def random_vectors(embeddings: np.ndarray, seed: int) -> np.ndarray:
    """Random directions with the norms of embeddings, `(rows, width)`: nothing that is a face."""
    directions = np.random.default_rng(seed).normal(size=embeddings.shape)
    norms = np.linalg.norm(embeddings, axis=1) / np.linalg.norm(directions, axis=1)
    return (directions * norms[:, None]).astype(np.float32)


def _draw_all(
    predictor: Predictor,
    sources: Mapping[str, np.ndarray],
    num_samples: int,
    seed: int,
    progress: bool,
) -> dict[str, dict[str, np.ndarray]]:
    """Mean prediction and measures of every source, and the deterministic outputs."""
    total = sum(len(x) for x in sources.values()) if num_samples else 0
    drawn = {}
    with tqdm(total=total, unit="row", disable=not (progress and num_samples)) as bar:
        for name, x in sources.items():
            deterministic, columns, start = predictor.probabilities(x), {}, 0
            if num_samples:
                for chunk in predictor.uncertainty(x, num_samples=num_samples, seed=seed):
                    for k in ("mean", *measures_of(chunk)):
                        values = chunk[k]
                        if k not in columns:
                            of_means = k == "mean" or len(x) <= _DOUBLE_ROWS
                            dtype = values.dtype if of_means else np.float32
                            columns[k] = np.empty((len(x), *values.shape[1:]), dtype)
                        columns[k][start : start + len(values)] = values
                    start += len(values)
                    bar.update(len(values))
            drawn[name] = columns
            drawn[name]["deterministic"] = deterministic
            if predictor.target.is_number:
                drawn[name]["deterministic_std"] = deterministic[:, 1].astype(float)
            else:
                drawn[name]["deterministic_entropy_nats"] = entropy_nats(deterministic)
    return drawn


def _ood_auroc(drawn: Mapping[str, Mapping[str, np.ndarray]]) -> dict:
    """How well each measure of uncertainty tells the rows from those of other sources."""
    rows, *others = drawn
    auroc_of = {
        name: {key: auroc(drawn[rows][key], drawn[name][key]) for key in measures_of(drawn[name])}
        for name in others
    }
    return {"ood_auroc": auroc_of} if auroc_of else {}


def _central_intervals(rows: Examples, models: Mapping[str, np.ndarray]) -> dict:
    """Coverage of the predictive distribution's own central intervals, level by level."""
    if rows.target.is_number:
        coverages = {k: normal_coverages(rows.targets, p, LEVELS) for k, p in models.items()}
        return {"central_intervals": {"nominal_percent": list(LEVELS), **coverages}}
    known = np.isfinite(rows.years)
    if not rows.target.is_age or not known.any():
        return {}
    ages = np.minimum(rows.years[known], NUM_YEARS - 1)
    year_to_class = np.asarray(rows.target.head_ages.year_to_class)

    def observed(probabilities: np.ndarray) -> list[float]:
        ends = (age_interval_years(probabilities, year_to_class, c / 100) for c in LEVELS)
        return [metrics.interval_coverage(ages, both) for both in ends]

    coverages = {name: observed(p[known]) for name, p in models.items()}
    return {"central_intervals": {"nominal_percent": list(LEVELS), **coverages}}


def _plain(columns: Mapping[str, np.ndarray]) -> dict[str, list]:
    """JSON knows no NaN."""
    return {k: [None if x != x else x for x in v.tolist()] for k, v in columns.items()}
