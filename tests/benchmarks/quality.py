"""Our defaults against scikit-learn on the same embeddings, grouped folds, same rows.

    python tests/benchmarks/quality.py STORE [--folds 5] [--seed 0] [--output table.md]

STORE is an embedding store, or a file that `import-embeddings` reads without
options. Each baseline is fitted with every setting in `SETTINGS`, on raw or
on standardised embeddings, and the best mean over folds is taken *per metric
and on the test folds*: a choice no user could make so well. Ours is trained
once, with its defaults. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerasmlp.data.examples import Examples
from kerasmlp.data.splits import grouped_folds
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import choose_age_target, choose_target
from kerasmlp.evaluation import metrics
from kerasmlp.evaluation.measuring import measure
from kerasmlp.models.presets import PRESETS
from kerasmlp.runs.predictor import Predictor
from kerasmlp.training.embeddings import train

SETTINGS = {  # on standardised embeddings or raw ones, and how the estimator is made
    "LogisticRegression": [
        (False, lambda: LogisticRegression(C=1.0, max_iter=300)),
        (False, lambda: LogisticRegression(C=10.0, max_iter=300)),
        (True, lambda: LogisticRegression(C=0.001, max_iter=300)),
        (True, lambda: LogisticRegression(C=0.01, max_iter=300)),
    ],
    "MLPClassifier": [
        (False, lambda: MLPClassifier((256,), early_stopping=True, random_state=0)),
        (False, lambda: MLPClassifier((256,), early_stopping=True, alpha=0.1, random_state=0)),
        (True, lambda: MLPClassifier((256,), early_stopping=True, random_state=0)),
        (True, lambda: MLPClassifier((256,), early_stopping=True, alpha=1.0, random_state=0)),
    ],
}


def baseline(make, standardise, x, y, test_x, test_y, num_classes):
    started = time.time()
    model = make_pipeline(StandardScaler(), make()) if standardise else make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y)
    seconds = time.time() - started
    probabilities = np.zeros((len(test_x), num_classes))
    probabilities[:, model.classes_] = model.predict_proba(test_x)
    return {
        "accuracy": metrics.accuracy(test_y, probabilities.argmax(axis=1)),
        "nll": metrics.nll(test_y, probabilities),
        "seconds": seconds,
    }


def ours(store, test, target, preset, seed):
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        train(store, target, PRESETS[preset], Path(folder) / "run", seed=seed)
        seconds = time.time() - started
        predictor = Predictor(Path(folder) / "run")
        result = measure(Examples.of(test, target), predictor.probabilities(test.embeddings))
    kept = ("accuracy", "nll", "mae_years", "ece")
    return {"seconds": seconds, **{k: result[k] for k in kept if k in result}}


def score(result, metric):
    """Lower is better; the seconds shown are those of the setting with the best NLL."""
    return {"accuracy": -result["accuracy"], "seconds": result["nll"]}.get(metric, result[metric])


def compare(store, target, preset, folds, seed):
    """Returns mean and standard deviation over folds per system and metric."""
    results = {}

    def add(name, result):
        results.setdefault(name, []).append(result)
        text = " ".join(f"{k} {v:.4f}" for k, v in result.items())
        print(f"  {name:34} {text}", flush=True)

    for number, fold in enumerate(folds):
        print(f"{target.label}, fold {number}", flush=True)
        rest = np.setdiff1d(np.arange(len(store)), fold)
        part, test = store.subset(rest), store.subset(fold)
        y, test_y = (target.encode(s) for s in (part, test))
        add("kerasmlp", ours(part, test, target, preset, seed))
        for name, settings in SETTINGS.items():
            for i, (standardise, make) in enumerate(settings):
                key = f"{name} {i} {'standardised' if standardise else 'raw'}"
                classes = len(target.measured_names)
                x, test_x = part.embeddings, test.embeddings
                add(key, baseline(make, standardise, x, y, test_x, test_y, classes))
    table = {}
    for name in ("kerasmlp", *SETTINGS):
        rows = {k: v for k, v in results.items() if k.startswith(name)}
        table[name] = {}
        for metric in results["kerasmlp"][0]:
            values = {k: [r[metric] for r in v] for k, v in rows.items() if metric in v[0]}
            if values:
                best = min(values, key=lambda k: np.mean([score(r, metric) for r in rows[k]]))
                table[name][metric] = (float(np.mean(values[best])), float(np.std(values[best])))
    return table


def markdown(tables) -> str:
    lines = []
    for title, table in tables.items():
        columns = list(table["kerasmlp"])
        lines += [f"| {title} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for name, row in table.items():
            cells = (f"{row[c][0]:.4f} ± {row[c][1]:.4f}" if c in row else "" for c in columns)
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def open_any(path: Path) -> EmbeddingStore:
    from kerasmlp.cli import run_command
    from kerasmlp.utils.checks import InputError

    try:
        return EmbeddingStore.open(path)
    except InputError:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "store.h5"
            if run_command("import-embeddings", [str(path), "-o", str(target)]):
                sys.exit(2)
            return EmbeddingStore.open(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--folds", type=int, default=5, help="how many of the five to run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", default="age,gender")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    store = open_any(args.store)
    groups = store.labels.get("group", np.arange(len(store)))
    folds = grouped_folds(groups, 5, 0)[: args.folds]
    years = "age_years" in store.labels
    tasks = {
        "age": (
            choose_age_target(store, None, "adience" if years else None, by_years=True),
            "age" if years else "age-groups",
        ),
        "gender": (choose_target(store, "gender"), "gender"),
    }
    tables = {}
    for task in args.tasks.split(","):
        target, preset = tasks[task]
        title = f"age, {target.classes} groups" if target.is_age else task
        tables[title] = compare(store, target, preset, folds, args.seed)
    text = markdown(tables)
    print("\n" + text)
    if args.output:
        args.output.write_text(text)
    print(json.dumps(tables))


if __name__ == "__main__":
    main()
