"""Another store first, then one's own: what `--init` gives, by members, over grouped folds.

    python tests/benchmarks/pretraining.py STORE OTHER RUNS [--labels age_years gender race]
        [--first age_group gender race] [--members 1 3] [--folds 5] [--refit]

One trunk learns the labels `--first` of OTHER, once per number of members; from its weights
the labels of STORE are learned on each of five folds that split no group, by the default recipe.
What is finished in RUNS is not computed again. Prints deterministic measures on the folds held
out, mean ± standard deviation. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from kerasmlp import EmbeddingStore, Predictor, choose_target, train
from kerasmlp.data.examples import Examples
from kerasmlp.data.other_targets import SeveralTargets
from kerasmlp.data.splits import grouped_folds
from kerasmlp.data.targets import choose_age_target
from kerasmlp.evaluation.measuring import measure
from kerasmlp.models.presets import PRESETS

MEASURES = ("accuracy", "nll", "mae_years")


def targets_of(store: EmbeddingStore, labels: list[str]) -> SeveralTargets:
    def of(label: str):
        if label in ("age_years", "age_group"):
            return choose_age_target(store, label, None, by_years=label == "age_years")
        return choose_target(store, label)

    return SeveralTargets(tuple(of(label) for label in labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("store", "other", "runs"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--labels", nargs="+", default=["age_years", "gender", "race"])
    parser.add_argument("--first", nargs="+", default=["age_group", "gender", "race"])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--folds", type=int, default=5, help="how many of the five to run")
    parser.add_argument("--refit", action="store_true")
    args = parser.parse_args()
    store, other = EmbeddingStore.open(args.store), EmbeddingStore.open(args.other)
    groups = store.labels.get("group", np.arange(len(store)))
    folds = grouped_folds(groups, 5, 0)[: args.folds]
    target, how = targets_of(store, args.labels), {"resume": True, "pictures": False}
    found = {}
    for members in args.members:
        recipe = PRESETS["age"].replace(members=members)
        first = args.runs / f"first{members}"
        train(other, targets_of(other, args.first), recipe, first, **how)
        results, seconds = collections.defaultdict(list), []
        for number, fold in enumerate(folds):
            part = store.subset(np.setdiff1d(np.arange(len(store)), fold))
            run = args.runs / f"members{members}{'_refit' * args.refit}_fold{number}"
            started = time.time()
            chosen = recipe.replace(refit=args.refit)
            train(part, target, chosen, run, init=first, **how)
            seconds.append(time.time() - started)
            test = store.subset(fold)
            for head in Predictor.heads(run):
                measured = measure(
                    Examples.of(test, head.target), head.probabilities(test.embeddings)
                )
                for name in MEASURES:
                    if name in measured:
                        results[f"{head.name} {name}"].append(measured[name])
            print(members, number, {k: round(v[-1], 4) for k, v in results.items()}, flush=True)
        found[members] = {
            name: [statistics.fmean(v), float(np.std(v))] for name, v in results.items()
        }
        title = f"{members} members, {args.other.stem} first"
        print(f"\n| {title} | mean ± standard deviation |\n|---|---|")
        for name, (mean, deviation) in found[members].items():
            print(f"| {name} | {mean:.4f} ± {deviation:.4f} |")
        print(f"seconds of a training: {statistics.median(seconds):.0f}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
