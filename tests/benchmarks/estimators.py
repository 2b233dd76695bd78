"""`KerasMLPClassifier` against scikit-learn's `MLPClassifier`, by one `cross_validate` each.

    python tests/benchmarks/estimators.py [STORE] [--label gender] [--rows 3000] [--folds 5]

STORE is an embedding store, by default the sample; its first rows with the label count.
Accuracy and NLL are means and standard deviations over the folds, seconds those of a fit. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerasmlp import SAMPLE, EmbeddingStore, KerasMLPClassifier
from kerasmlp.data.labels import is_unknown

ESTIMATORS = {
    "KerasMLPClassifier()": KerasMLPClassifier(random_state=0),
    "MLPClassifier()": MLPClassifier(random_state=0),
    "MLPClassifier(), standardised": make_pipeline(StandardScaler(), MLPClassifier(random_state=0)),
    "MLPClassifier((256,), alpha=1, early_stopping), standardised": make_pipeline(
        StandardScaler(), MLPClassifier((256,), alpha=1.0, early_stopping=True, random_state=0)
    ),
}


def main(store: Path, label: str, rows: int, folds: int) -> None:
    opened = EmbeddingStore.open(store)
    known = np.flatnonzero(~is_unknown(opened.labels[label]))[:rows]
    X, y = opened.embeddings[known], opened.labels[label][known]
    print(f"{len(X)} rows of {Path(store).name}, {label}, {folds} folds\n")
    print("| | accuracy | NLL | seconds per fit |\n| --- | --- | --- | --- |")
    results = {}
    for name, estimator in ESTIMATORS.items():
        split = StratifiedKFold(folds, shuffle=True, random_state=0)
        how = {"cv": split, "scoring": ("accuracy", "neg_log_loss")}
        found = cross_validate(estimator, X, y, **how)
        accuracy, nll = found["test_accuracy"], -found["test_neg_log_loss"]
        seconds = float(np.mean(found["fit_time"]))
        told = (f"{v.mean():.4f} ± {v.std():.4f}" for v in (accuracy, nll))
        print(f"| {name} | {' | '.join(told)} | {seconds:.1f} |", flush=True)
        results[name] = {"accuracy": accuracy.mean(), "nll": nll.mean(), "seconds": seconds}
    print(json.dumps(results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--label", default="gender")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--folds", type=int, default=5)
    main(**vars(parser.parse_args()))
