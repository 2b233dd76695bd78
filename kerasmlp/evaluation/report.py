"""Everything that `evaluate` measures, and the folder's worth of files it writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kerasmlp.data.labels import NUM_YEARS, UNKNOWN
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import Target, truth_years
from kerasmlp.evaluation import metrics
from kerasmlp.evaluation.measuring import groups_of_people, measure, named_groups
from kerasmlp.runs.calibration import class_entropy_nats
from kerasmlp.runs.environment import environment
from kerasmlp.runs.evaluation_folder import FORMAT
from kerasmlp.runs.predictor import Predictor
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import count_seen
from kerasmlp.uncertainty.measures import UNCERTAINTIES, age_interval_years, entropy_nats
from kerasmlp.uncertainty.selective import aurc, auroc, risk_coverage
from kerasmlp.utils.checks import reject, reject_column
from kerasmlp.utils.drawing import drawing
from kerasmlp.utils.files import write_json
from kerasmlp.utils.tables import row_writer

OOD_ROWS = 2000
"""Most rows of another source: enough for an AUROC to about 0.01."""

BINNING = f"{metrics.NUM_BINS} bins of equal width by top probability, bin k holding (k/n, (k+1)/n]"
RANDOM = "random_unit_vectors"
_LEVELS = tuple(range(10, 100, 10))


def write_evaluation(
    folder: Path,
    predictor: Predictor,
    target: Target,
    store: EmbeddingStore,
    *,
    num_samples: int,
    seed: int = 0,
    others: Mapping[str, EmbeddingStore] | None = None,
    progress: bool = False,
) -> dict:
    """Measures a run on a store and writes report, groups and figures.

    Args:
        folder: Existing, empty.
        predictor: The run.
        target: Of the run, perhaps in other age classes.
        store: Rows without the label are left out.
        num_samples: Stochastic passes; 0 measures the deterministic model only.
        seed: Of the passes, and of the random vectors.
        others: Stores of another source, by name, which the model should be
            unsure about; at most 2,000 evenly spaced rows of each.
        progress: Show a bar.

    Returns:
        The report, as in `report.json`.

    Raises:
        InputError: if no row holds the label.
    """
    total = len(store)
    known = target.encode(store, target.classes) != UNKNOWN
    if not known.any():
        reject_column(target.label, "must be known in at least one row of the store", "none")
    store = store.subset(known)
    sources = {"store": store.embeddings}
    if num_samples:
        sources[RANDOM] = random_vectors(store.embeddings[:OOD_ROWS], seed)
        for name, other in (others or {}).items():
            if name in sources:
                reject("others", "must have other names than `store` and the random vectors", name)
            rows = np.unique(np.linspace(0, len(other) - 1, OOD_ROWS).round().astype(int))
            sources[name] = other.embeddings[rows]
    drawn = _draw_all(predictor, sources, num_samples, seed, progress)
    models = {"deterministic": drawn["store"]["deterministic"]}
    if num_samples:
        models["mc_mean"] = drawn["store"]["mean"]
    intervals = {name: _intervals(predictor, store, name, p) for name, p in models.items()}
    people = list(_all_groups(target, store))
    report: dict[str, Any] = {
        "format": FORMAT,
        "run": str(predictor.path),
        "classes": target.classes or target.label,
        "num_samples": num_samples,
        "seed": seed,
        "rows_without_label": total - len(store),
        "rows_learned_from": count_seen(RunFolder(predictor.path), store.embeddings),
        "ece_binning": BINNING,
        "conformal": bool(predictor.calibration and predictor.calibration.offsets_years),
    }
    everyone = np.ones(len(store), bool)
    for name, p in models.items():
        report[name] = measure_answers(target, p, store, intervals[name], everyone)
    report["groups"] = [
        {"model": name, **group, **measure_answers(target, p, store, intervals[name], chosen)}
        for name, p in models.items()
        for group, chosen in people
    ]
    labels = target.encode(store, target.classes)
    bins = {k: metrics.reliability_bins(labels, target.measured(p)) for k, p in models.items()}
    report["reliability"] = {name: _plain(columns) for name, columns in bins.items()}
    observed = {name: _observed(predictor, store, p) for name, p in models.items()}
    if any(observed.values()):
        report["central_intervals"] = {"nominal_percent": list(_LEVELS), **observed}
    if num_samples:
        report["ood_auroc"] = {
            name: {key: auroc(drawn["store"][key], values[key]) for key in _measures(values)}
            for name, values in drawn.items()
            if name != "store"
        }
    report |= {"store_digest": store.digest(), **environment()}
    write_json(folder / "report.json", report)
    unnamed = {"age_group", "gender", "race"} - set(named_groups(report["groups"]))
    with row_writer(folder / "groups.csv", "csv") as write:
        for row in report["groups"]:
            write({k: v for k, v in row.items() if k not in unnamed})
    _draw_figures(folder, target, store, models, bins, report, drawn)
    return report


def measure_answers(
    target: Target,
    probabilities: np.ndarray,
    store: EmbeddingStore,
    intervals: Mapping[int, np.ndarray],
    chosen: np.ndarray,
) -> dict:
    """Returns `measure` on chosen rows, with abstention by `class_entropy_nats` and age intervals.

    Args:
        target: As in `measure`.
        probabilities: Of the head, `(rows, num_classes)`.
        store: With the same rows, all with the label.
        intervals: By percent, `(rows, 2)`; empty where no years are known.
        chosen: Mask `(rows,)` with at least one row.

    Returns:
        Also `aurc` beside `aurc_random` and `aurc_oracle`, in shares of wrong
        classes, `accuracy_at_80` (of the 80% most certain rows), and per
        interval `interval_90_coverage` and `interval_90_width_years`.
    """
    part, p = store.subset(chosen), probabilities[chosen]
    result = measure(target, p, part)
    wrong = target.measured(p).argmax(axis=1) != target.encode(part, target.classes)
    curve = risk_coverage(wrong, class_entropy_nats(target, p))
    result |= {
        "aurc": float(curve.mean()),
        "aurc_random": float(wrong.mean()),
        "aurc_oracle": aurc(wrong, wrong),
        "accuracy_at_80": float(1 - curve[max(round(0.8 * len(curve)), 1) - 1]),
    }
    years = truth_years(part)
    known = np.isfinite(years) if years is not None else np.zeros(0, bool)
    for percent, ends in intervals.items() if known.any() else ():
        ends = ends[chosen][known]
        ages = np.minimum(years[known], NUM_YEARS - 1)
        result[f"interval_{percent}_coverage"] = metrics.interval_coverage(ages, ends)
        result[f"interval_{percent}_width_years"] = metrics.interval_width(ends)
    return result


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
            deterministic = predictor.probabilities(x)
            chunks = []
            if num_samples:
                for chunk in predictor.uncertainty(x, num_samples=num_samples, seed=seed):
                    chunks.append(chunk)
                    bar.update(len(chunk["mean"]))
            columns = chunks[0] if chunks else {}
            drawn[name] = {k: np.concatenate([c[k] for c in chunks]) for k in columns}
            drawn[name]["deterministic"] = deterministic
            drawn[name]["deterministic_entropy_nats"] = entropy_nats(deterministic)
    return drawn


def _measures(values: Mapping[str, np.ndarray]) -> list[str]:
    return [k for k in (*UNCERTAINTIES, "deterministic_entropy_nats") if k in values]


def _intervals(
    predictor: Predictor, store: EmbeddingStore, model: str, probabilities: np.ndarray
) -> dict[int, np.ndarray]:
    if not predictor.target.is_age or truth_years(store) is None:
        return {}
    return predictor.intervals(probabilities, sampled=model == "mc_mean")


def _observed(
    predictor: Predictor, store: EmbeddingStore, probabilities: np.ndarray
) -> list[float] | None:
    """Coverage of the predictive distribution's own central intervals, level by level."""
    years = truth_years(store) if predictor.target.is_age else None
    if years is None:
        return None
    known = np.isfinite(years)
    ages = np.minimum(years[known], NUM_YEARS - 1)
    year_to_class = np.asarray(predictor.target.head_ages.year_to_class)
    return [
        metrics.interval_coverage(
            ages, age_interval_years(probabilities[known], year_to_class, level / 100)
        )
        for level in _LEVELS
    ]


def _all_groups(target: Target, store: EmbeddingStore):
    for names, chosen in groups_of_people(target, store):
        yield {**names, "race": "all"}, chosen
    race = store.labels.get("race")
    for value in np.unique(race) if race is not None else ():
        if str(value) not in ("", str(UNKNOWN)):
            yield {"age_group": "all", "gender": "all", "race": str(value)}, race == value


def _plain(columns: Mapping[str, np.ndarray]) -> dict[str, list]:
    """JSON knows no NaN."""
    return {k: [None if x != x else x for x in v.tolist()] for k, v in columns.items()}


def _draw_figures(folder, target, store, models, bins, report, drawn) -> None:
    from kerasmlp.evaluation import figures as plots

    with drawing(folder / "reliability.png") as path:
        plots.reliability(bins, {k: report[k]["ece"] for k in bins}, path)
    labels = target.encode(store, target.classes)
    wrong = {k: target.measured(p).argmax(axis=1) != labels for k, p in models.items()}
    curves = {k: risk_coverage(wrong[k], class_entropy_nats(target, p)) for k, p in models.items()}
    last = list(models)[-1]
    oracle = risk_coverage(wrong[last], wrong[last])
    with drawing(folder / "risk_coverage.png") as path:
        plots.risk_coverage(curves, oracle, path)
    if "central_intervals" in report:
        observed = {k: report["central_intervals"][k] for k in models}
        conformal = {
            k: {c: report[k][f"interval_{c}_coverage"] for c in (50, 90)} for k in models
        } if report["conformal"] else {}  # fmt: skip
        with drawing(folder / "intervals.png") as path:
            plots.intervals(_LEVELS, observed, conformal, path)
    if "ood_auroc" in report:
        values = {k: {s: drawn[s][k] for s in drawn} for k in _measures(drawn["store"])}
        with drawing(folder / "uncertainty.png") as path:
            plots.uncertainty(values, report["ood_auroc"], path)
