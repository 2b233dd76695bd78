"""One network with a head per label against one network per label.

    python tests/benchmarks/heads.py STORE RUNS [--labels age_years gender race]
        [--folds 5] [--seeds 1] [--workers 2]

Cross-validates every label alone and all of them together by the default recipe on
the same grouped folds, in RUNS/LABEL and RUNS/together; what is there already is not
computed again. Prints a table: measures on the test folds (mean ± standard deviation),
seconds of a training, and seconds that 64 samples of 2,000 rows take after the first call,
all single models together against the one with several heads, alternating. The last line
is one JSON object: seconds of the single models over those of the one, to train and to
answer.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from kerasmlp import EmbeddingStore, Predictor, Recipe, choose_target, cross_validate
from kerasmlp.data.other_targets import SeveralTargets
from kerasmlp.data.targets import choose_age_target
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan
from kerasmlp.experiments.summary import mean_and_std

MEASURES = ("mae_years", "accuracy", "nll")
ROWS, ROUNDS = 2000, 5


def targets_of(store: EmbeddingStore, labels: list[str]) -> dict:
    def of(label: str):
        if label in ("age_years", "age_group"):
            return choose_age_target(store, label, None, by_years=True)
        return choose_target(store, label)

    single = {label: of(label) for label in labels}
    return single | {"together": SeveralTargets(tuple(single.values()))}


def seconds_to_answer(answering: dict[str, list[Predictor]], x) -> dict[str, float]:
    """Median seconds of each, alternating."""
    times = collections.defaultdict(list)
    for number in range(ROUNDS + 1):
        for name in answering if number % 2 else reversed(answering):
            started = time.perf_counter()
            for predictor in answering[name]:
                for _ in predictor.uncertainty(x, num_samples=64, seed=number):
                    pass
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(each[1:]) for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--labels", nargs="+", default=["age_years", "gender", "race"])
    for name, default in (("folds", 5), ("seeds", 1), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    store = EmbeddingStore.open(args.store)
    print("| label | network | MAE (years) | accuracy | NLL | seconds to train |")
    print("| --- | --- | --- | --- | --- | --- |")
    trained, opened = {}, {}
    for name, target in targets_of(store, args.labels).items():
        plan = CrossValidationPlan(
            target=target, recipe=Recipe(), seeds=tuple(range(args.seeds)), num_folds=args.folds
        )
        how = {"workers": args.workers, "resume": True, "progress": True}
        report = cross_validate(args.store, plan, args.runs / name, **how)
        trained[name] = report["seconds"]["runs"] / len(report["runs"])
        opened[name] = Predictor.heads(args.runs / name / "seed0_fold0")
        for head in target.heads:
            prefix = f"{head.name}_" if name == "together" else ""
            found = [report["summary"].get(f"test_{prefix}{measure}") for measure in MEASURES]
            cells = [mean_and_std(one) if one else "" for one in found]
            print(
                f"| {head.label} | {name} |", *(f"{c} |" for c in cells), f"{trained[name]:.1f} |"
            )
    alone = {
        "alone": [head for name in args.labels for head in opened[name]],
        "together": opened["together"],
    }
    answering = seconds_to_answer(alone, store.embeddings[:ROWS])
    singles = sum(trained[name] for name in args.labels)
    print(f"to answer {ROWS} rows: {answering['alone']:.3f} s and {answering['together']:.3f} s")
    ratios = {
        "train": singles / trained["together"],
        "answer": answering["alone"] / answering["together"],
    }
    print(json.dumps({name: round(ratio, 3) for name, ratio in ratios.items()}))


if __name__ == "__main__":
    main()
