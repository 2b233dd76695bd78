"""How far MC dropout, temperature, intervals and abstention can be trusted, on folds held out.

    python tests/benchmarks/calibration.py STORE [--ood STORE] [--folds 1] [--runs DIR]

STORE is an embedding store of UTKFace's kind, with `age_years` and `gender`.
Of five folds by whole groups, one is held out and the others train the `age`
and `gender` presets with their defaults. Everything is measured on the fold
held out; temperature, intervals and thresholds come from the rows that
training kept back. Without a temperature means: the head's weights multiplied
by it again, and passes without theirs. `--runs` keeps the trained runs, and
takes those that are there. It prints one markdown table (means over folds) and
one JSON object as the last line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kerasmlp.utils.tensorflow_import import import_tensorflow

import_tensorflow()

import numpy as np

from kerasmlp.data.examples import Examples
from kerasmlp.data.splits import grouped_folds
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import choose_age_target, choose_target
from kerasmlp.evaluation.measuring import measure
from kerasmlp.evaluation.report import write_evaluation
from kerasmlp.models.presets import PRESETS
from kerasmlp.runs.calibration import class_entropy_nats
from kerasmlp.runs.predictor import Predictor
from kerasmlp.training.embeddings import train
from kerasmlp.utils.checks import InputError

NUM_SAMPLES = 64
RISKS = {"age": (0.3, 0.2), "gender": (0.03, 0.02)}
MODELS = {"deterministic": "deterministic model", "mc_mean": f"MC mean of {NUM_SAMPLES}"}


def without_temperature(predictor: Predictor, temperature: float, test: EmbeddingStore) -> dict:
    """NLL and ECE of both models with the head's weights as they were trained."""
    head = predictor.model.get_layer("logits")
    weights, cooled = head.get_weights(), predictor.mc_model
    head.set_weights([w * temperature for w in weights])
    predictor.mc_model = predictor.model
    try:
        how = {"num_samples": NUM_SAMPLES, "seed": 0}
        chunks = predictor.uncertainty(test.embeddings, **how)
        outputs = {
            "deterministic": predictor.probabilities(test.embeddings),
            "mc_mean": np.concatenate([chunk["mean"] for chunk in chunks]),
        }
    finally:
        head.set_weights(weights)
        predictor.mc_model = cooled
    rows = Examples.of(test, predictor.target)
    measured = {k: measure(rows, p) for k, p in outputs.items()}
    return {k: {m: v[m] for m in ("nll", "ece", "accuracy")} for k, v in measured.items()}


def abstentions(predictor: Predictor, test: EmbeddingStore, risks: tuple[float, ...]) -> dict:
    """Share answered and share wrong among the answers, with the thresholds of the run."""
    chunks = predictor.uncertainty(test.embeddings, num_samples=NUM_SAMPLES, seed=0)
    mean = np.concatenate([chunk["mean"] for chunk in chunks])
    target = predictor.target
    wrong = Examples.of(test, target).wrong(mean)
    result = {}
    for risk in risks:
        try:
            threshold = predictor.threshold_nats(risk, num_samples=NUM_SAMPLES)
        except InputError:
            result[str(risk)] = {"coverage": 0.0, "risk": None}
            continue
        answered = class_entropy_nats(target, mean) <= threshold
        result[str(risk)] = {
            "coverage": float(answered.mean()), "risk": float(wrong[answered].mean())
        }  # fmt: skip
    return result


def measure_fold(task, target, part, test, others, run_dir, figures) -> dict:
    report = train(part, target, PRESETS[task], run_dir, resume=True)
    predictor = Predictor(run_dir)
    figures.mkdir(parents=True, exist_ok=True)
    evaluation = write_evaluation(
        figures, predictor, Examples.of(test, target), num_samples=NUM_SAMPLES, others=others
    )
    kept = ("deterministic", "mc_mean", "ood_auroc")
    return {
        "temperature": report["temperature"],
        "without_temperature": without_temperature(predictor, report["temperature"], test),
        **{k: evaluation[k] for k in kept},
        "max_risk": abstentions(predictor, test, RISKS[task]),
    }


def mean_of(results: list) -> object:
    """The mean over folds of nested dicts of numbers."""
    if isinstance(results[0], dict):
        return {k: mean_of([r[k] for r in results]) for k in results[0]}
    known = [r for r in results if r is not None]
    return float(np.mean(known)) if known else None


def markdown(means: dict) -> str:
    """One table: a row per task, model and quantity would be long; a column per task and model."""
    columns = [(task, model) for task in means for model in MODELS]
    head = " | ".join(f"{task}, {MODELS[model]}" for task, model in columns)
    lines = [f"| held-out fold | {head} |", "|---" * (len(columns) + 1) + "|"]

    def add(title, value):
        cells = (value(means[task], model) for task, model in columns)
        cells = ["" if c is None else f"{c:.4f}" for c in cells]
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")

    for metric, name in (("nll", "NLL"), ("ece", "ECE")):
        add(f"{name} before temperature", lambda r, m, k=metric: r["without_temperature"][m][k])
        add(f"{name}", lambda r, m, k=metric: r[m][k])
    for metric, name in (
        ("accuracy", "accuracy"),
        ("accuracy_at_80", "accuracy of the surest 80%"),
        ("aurc", "AURC, by entropy"),
        ("aurc_random", "AURC at random"),
        ("aurc_oracle", "AURC of an oracle"),
        ("mae_years", "MAE, years"),
        ("interval_50_coverage", "50% interval covers"),
        ("interval_90_coverage", "90% interval covers"),
        ("interval_90_width_years", "its mean width, years"),
    ):
        add(name, lambda r, m, k=metric: r[m].get(k))
    sampled = {"deterministic": "deterministic_entropy_nats"}
    for source in next(iter(means.values()))["ood_auroc"]:
        add(
            f"AUROC of entropy, {source}",
            lambda r, m, s=source: r["ood_auroc"][s][sampled.get(m, "predictive_entropy_nats")],
        )
        for name in ("mutual_information_nats", "variation_ratio", "vote_entropy_nats"):
            add(
                f"AUROC of {name}, {source}",
                lambda r, m, s=source, n=name: r["ood_auroc"][s][n] if m == "mc_mean" else None,
            )
    for result in means.values():
        for risk, came in result["max_risk"].items():
            for key in came:
                add(
                    f"--max-risk {risk}: {key}",
                    lambda r, m, k=key, x=risk, t=result: (
                        r["max_risk"][x][k] if r is t and m == "mc_mean" else None
                    ),
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--ood", type=Path, help="store of another source")
    parser.add_argument("--folds", type=int, default=1, help="how many of the five to hold out")
    parser.add_argument("--tasks", default="age,gender")
    parser.add_argument("--runs", type=Path, help="keep runs and figures here")
    args = parser.parse_args()
    store = EmbeddingStore.open(args.store)
    others = {args.ood.stem: EmbeddingStore.open(args.ood)} if args.ood else {}
    groups = store.labels.get("group", np.arange(len(store)))
    folds = grouped_folds(groups, 5, 0)[: args.folds]
    targets = {
        "age": choose_age_target(store, None, "adience", by_years=True),
        "gender": choose_target(store, "gender"),
    }
    results: dict[str, list[dict]] = {}
    with contextlib.ExitStack() as stack:
        runs = args.runs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for number, fold in enumerate(folds):
            part = store.subset(np.setdiff1d(np.arange(len(store)), fold))
            test = store.subset(fold)
            for task in args.tasks.split(","):
                print(f"{task}, fold {number}", flush=True)
                run_dir, figures = runs / f"{task}-{number}", runs / f"figures-{task}-{number}"
                result = measure_fold(task, targets[task], part, test, others, run_dir, figures)
                results.setdefault(task, []).append(result)
                print(json.dumps(result), flush=True)
    means = {task: mean_of(rows) for task, rows in results.items()}
    print(markdown(means))
    print(json.dumps({"means": means, "folds": results}))


if __name__ == "__main__":
    main()
