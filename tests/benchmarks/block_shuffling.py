"""What it does to a network that its rows are drawn from shuffled blocks of a file.

    python tests/benchmarks/block_shuffling.py [--epochs 15] [--window 1024]

Five grouped folds of UTKFace (`../shared/data`, whose rows are in random order; gender and the
eight age groups of Adience, two heads, the default recipe without what is fitted afterwards):
tested on each fold are networks that learned from rows shuffled all at once, and from blocks
(`kerasmlp.training.blocks`) of the store as it is, and of one sorted by age group and gender,
the worst case. A window of 1,024 rows stands for one of 131,072 of a store that is 13 times as
large; 512 blocks make it, as by default, or fewer, larger ones. Beside them full shuffling by
another seed says what chance does. Paired differences are of folds, from full shuffling.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

from kerasmlp import EmbeddingStore, Recipe, choose_target, import_embeddings, train
from kerasmlp.data.other_targets import SeveralTargets
from kerasmlp.data.splits import grouped_folds
from kerasmlp.data.targets import age_target
from kerasmlp.training import blocks
from kerasmlp.training.compiled_models import Workbench

UTKFACE = ROOT.parent / "shared" / "data" / "utkface_arcface.h5"
MEASURES = ("age_accuracy", "age_nll", "gender_accuracy", "gender_nll")


def ordered(store: EmbeddingStore, target: SeveralTargets) -> np.ndarray:
    """Rows by age group, and by gender in each."""
    age, gender = (head.encode(store) for head in target.heads)
    return np.lexsort([gender, age])


def results(
    store: EmbeddingStore, order: np.ndarray, folds: list, recipe: Recipe, folder: Path,
    bench: Workbench, *, block: int | None, window: int, seed: int = 0,
) -> list[dict[str, float]]:  # fmt: skip
    """Measures of each fold; `block` None shuffles all rows at once."""
    path = folder / "rows.h5"
    store.subset(order).save(path, overwrite=True)
    rows = EmbeddingStore.open(path, streamed=True)
    places = np.argsort(order)
    target = target_of(store)
    if block is not None:
        blocks.BLOCK_BYTES = 4 * store.width * block
        blocks.WINDOW_BYTES = 4 * store.width * window
    found = []
    for fold in folds:
        test = np.sort(places[fold])
        report = train(
            rows.subset(np.setdiff1d(np.arange(len(rows)), test)), target, recipe,
            folder / "run", seed=seed, test=rows.subset(test), workbench=bench, pictures=False,
            near_copies=False, most_bytes=None if block is None else 0, force=True,
        )  # fmt: skip
        assert (block is not None) == any("shuffled blocks" in n for n in report["notes"])
        found.append({name: report["test"][name] for name in MEASURES})
    return found


def target_of(store: EmbeddingStore) -> SeveralTargets:
    age = age_target("age_years", "adience", by_years=False)
    return SeveralTargets((age, choose_target(store, "gender")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--window", type=int, default=1024, help="rows shuffled at once")
    parser.add_argument("--blocks", type=int, nargs="+", default=[512, 64, 8], help="in a window")
    args = parser.parse_args()
    store = import_embeddings(UTKFACE)
    recipe = Recipe(epochs=args.epochs, patience=None, calibrate=False)
    folds = grouped_folds(store.labels["group"], 5, seed=0)
    as_it_is, by_label = np.arange(len(store)), ordered(store, target_of(store))
    variants: dict[str, dict] = {
        "full": {"order": as_it_is, "block": None},
        "full, another seed": {"order": as_it_is, "block": None, "seed": 1},
    }
    for number in args.blocks:
        variants[f"sorted, {number} blocks"] = {"order": by_label, "block": args.window // number}
    few = min(args.blocks)
    variants[f"as it is, {few} blocks"] = {"order": as_it_is, "block": args.window // few}
    summary, measured, bench = {}, {}, Workbench()
    with tempfile.TemporaryDirectory() as folder:
        for name, how in variants.items():
            what = (store, how.pop("order"), folds, recipe, Path(folder), bench)
            found = results(*what, window=args.window, **how)
            values = np.array([[one[m] for m in MEASURES] for one in found])
            measured[name] = values
            off = values - measured["full"]
            summary[name] = {
                measure: {
                    "folds": values[:, k].round(4).tolist(),
                    "mean": round(float(values[:, k].mean()), 4),
                    "difference": round(float(off[:, k].mean()), 4),
                    "of_folds": round(float(off[:, k].std(ddof=1) / len(folds) ** 0.5), 4),
                }
                for k, measure in enumerate(MEASURES)
            }
            for measure, one in summary[name].items():
                print(
                    f"{name:>20} {measure:>16} {one['mean']:.4f} "
                    f"({one['difference']:+.4f} ± {one['of_folds']:.4f}) {one['folds']}",
                    flush=True,
                )
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
