"""Columns of any scale: our defaults against scikit-learn's MLP on standardised inputs.

    python tests/benchmarks/scales.py STORE [--rows 3000] [--seeds 5] [--cases …] [--set NAME=X …]

STORE is what `import-embeddings` reads: rows of norm 1 with `gender` and `group`. Per seed, ROWS
rows are learned from and those of other groups, 4,000 at most, are the test. Cases:

- `normalised`: as they are, for comparison;
- `pixels`: ten columns of pixel coordinates, 0 to 4,000, are put beside them;
- `three`: three columns times 50, and shifted;
- `log-normal`: each column times the exponential of a normal number of deviation 3;
- `heavy`: each column is drawn out to the hyperbolic sine of its triple: a few huge values;
- `sparse`: ten columns that are 1 in one row of 500, else 0, times 1,000.

MLPClassifier stands there with the better, on the test, of its defaults and early stopping.
A case holds if our accuracy, mean over seeds, is at least scikit-learn's minus .01.
`--set` changes our recipe. The last line is one JSON object.
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
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerasmlp import EmbeddingStore, Predictor, StoreInfo, choose_target, import_embeddings, train
from kerasmlp.models.presets import PRESETS
from kerasmlp.training.compiled_models import Workbench

MOST_TEST_ROWS = 4000
SETTINGS = {"defaults": {}, "early stopping": {"early_stopping": True}}


def scaled(case: str, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x = x.astype(np.float64)
    if case == "pixels":
        return np.hstack([x, rng.integers(0, 4000, (len(x), 10))])
    if case == "three":
        x[:, :3] = 50 * x[:, :3] + 30
    if case == "log-normal":
        return x * np.exp(rng.normal(0, 3, x.shape[1]))
    if case == "heavy":
        return np.sinh(3 * x / x.std(axis=0))
    if case == "sparse":
        return np.hstack([x, 1000 * (rng.random((len(x), 10)) < 0.002)])
    return x


CASES = ("normalised", "pixels", "three", "log-normal", "heavy", "sparse")


def divided(store: EmbeddingStore, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, and others of other groups to test on."""
    groups, rng = store.labels["group"], np.random.default_rng(seed)
    order = np.isin(groups, rng.permutation(np.unique(groups))[: len(np.unique(groups)) // 2])
    learned, rest = (rng.permutation(np.flatnonzero(side)) for side in (order, ~order))
    return learned[:rows], rest[:MOST_TEST_ROWS]


def accuracies(case, store, seed, args, bench) -> dict[str, float]:
    rng = np.random.default_rng([seed, 1])
    x = scaled(case, store.embeddings, rng).astype(np.float32)
    info = StoreInfo(embedder="scaled", normalized=case == "normalised")
    part, test = (
        EmbeddingStore(x[rows], {k: store.labels[k][rows] for k in ("gender", "group")}, info)
        for rows in divided(store, args.rows, seed)
    )
    recipe, target = PRESETS["gender"].replace(**args.recipe), choose_target(part, "gender")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train(part, target, recipe, run, seed=seed, workbench=bench, pictures=False)
        answers = Predictor(run).probabilities(test.embeddings).argmax(axis=1)
    found = {"ours": float((answers == test.labels["gender"]).mean())}
    for name, settings in SETTINGS.items() if args.baseline else ():
        model = make_pipeline(StandardScaler(), MLPClassifier(random_state=seed, **settings))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(part.embeddings, part.labels["gender"])
        found[name] = float(model.score(test.embeddings, test.labels["gender"]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=X", dest="recipe")
    parser.add_argument("--no-baseline", action="store_false", dest="baseline")
    args = parser.parse_args()
    pairs = (text.split("=") for text in args.recipe)
    args.recipe = {name: json.loads(value) for name, value in pairs}
    store = import_embeddings(args.store)
    bench, cases = Workbench(), {}
    for case in args.cases:
        started = time.time()
        runs = [accuracies(case, store, seed, args, bench) for seed in range(args.seeds)]
        means = {k: float(np.mean([r[k] for r in runs])) for k in runs[0]}
        shown = "  ".join(
            f"{k} {m:.4f} ± {np.std([r[k] for r in runs]):.4f}" for k, m in means.items()
        )
        print(f"{case:12} {shown}  ({time.time() - started:.0f} s)", flush=True)
        best = max([v for k, v in means.items() if k != "ours"], default=0.0)
        cases[case] = {**means, "holds": means["ours"] >= best - 0.01}
    holds = all(case["holds"] for case in cases.values())
    print(json.dumps({"rows": args.rows, "seeds": args.seeds, "cases": cases, "holds": holds}))


if __name__ == "__main__":
    main()
