"""Finds labels that were flipped: `doctor` on FairFace, beside cleanlab; and UTKFace as it is.

    python tests/benchmarks/doctor.py [--epochs 12] [--share 0.03] [--pictures DIR]

Of FairFace's genders, and of its age groups, a share is flipped at random; one seed and five
folds of our recipe, cut to a few epochs, answer out of fold. Told are the precision among as
many suspects as were flipped, and the AUROC of flipped against all others; of the mean of the
passes and of the deterministic model. A suspect that was not flipped may be wrong in the data
set itself: told is how often a model of UTKFace alone, which knows none of these labels, says so
too (a gender with more than 0.9 against the label; less than 0.05 for the age group).

With --pictures the most suspicious genders of UTKFace are drawn there: of the photos that are
called as its rows, and of those grey ones that are the same picture by their embeddings.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kerasmlp import EmbeddingStore, FaceEmbedder, Predictor, doctor, import_embeddings
from kerasmlp.cli import run_command
from kerasmlp.evaluation.confident_learning import normalized_margin, self_confidence
from kerasmlp.evaluation.predictions_file import Predictions
from kerasmlp.evaluation.seed_means import mean_over_seeds
from kerasmlp.evaluation.suspects import rank_suspects
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, plan_runs
from kerasmlp.uncertainty.selective import auroc
from kerasmlp.utils.tables import read_csv

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SAME_PICTURE = 0.7  # cosine; of two persons it is below 0.5
LOOKED_FOR = 60


def flipped(store: EmbeddingStore, label: str, share: float) -> tuple[EmbeddingStore, np.ndarray]:
    """The store with a share of its labels another class each, and which these are."""
    rng, column = np.random.default_rng(0), store.labels[label].copy()
    rows = rng.choice(len(store), round(share * len(store)), replace=False)
    classes = np.unique(column)
    for row in rows:
        column[row] = rng.choice(classes[classes != column[row]])
    return store.with_labels(store.labels | {label: column}), np.isin(np.arange(len(store)), rows)


def command(name: str, *words: object) -> float:
    started = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        if run_command(name, [str(word) for word in words]):
            sys.exit(f"{name} failed")
    return time.perf_counter() - started


def answers_of(store: EmbeddingStore, folder: Path) -> dict[str, np.ndarray]:
    """Labels, and what each model answers in their classes: the mean of passes, and one pass."""
    path = folder / "predictions.parquet"
    predictions = Predictions.read(path, path.read_bytes())
    means, config = mean_over_seeds(predictions), json.loads((folder / "config.json").read_text())
    plan = CrossValidationPlan.from_config(
        {field.name: config[field.name] for field in fields(CrossValidationPlan)}
    )
    plain = np.empty((len(store), plan.target.num_classes))
    for run in plan_runs(store, plan):
        found = Predictor(folder / run.name).probabilities(store.embeddings[run.test])
        plain[run.test] = found
    assert np.array_equal(means.rows, np.arange(len(store)))
    measured = plan.target.measured(plain)
    suspects = rank_suspects(predictions)
    return {
        "labels": means.labels,
        "mc_mean": means.answers,
        "deterministic": measured,
        "ranked": suspects.rows,
        "wrong": suspects.wrong,
    }


def told(scores: np.ndarray, was: np.ndarray) -> dict[str, float]:
    """Of scores that are low where a label is suspicious."""
    first = np.argsort(scores, kind="stable")[: was.sum()]
    return {
        "precision": round(float(was[first].mean()), 4),
        "auroc": round(auroc(-scores[~was], -scores[was]), 4),
    }


def of_cleanlab(labels: np.ndarray, answers: np.ndarray, was: np.ndarray) -> dict | None:
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return None
    return {
        method: told(get_label_quality_scores(labels, answers, method=method), was)
        for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
    }


def ordinary(store: EmbeddingStore, label: str, run: Path, found: dict, was: np.ndarray) -> dict:
    """How often a model of another data set doubts suspects that were not flipped."""
    predictor, labels = Predictor(run), found["labels"]
    p = predictor.probabilities(store.embeddings)
    if label == "age_group":
        from kerasmlp.data.labels import age_classes

        doubted = age_classes("fairface").from_years(p)
        doubted = self_confidence(labels, doubted) < 0.05
    else:
        doubted = self_confidence(labels, p) < 0.1
    suspects = found["ranked"][: was.sum()]
    kept = suspects[~was[suspects]]
    return {
        "suspects_not_flipped": len(kept),
        "doubted_by_utkface_too": round(float(doubted[kept].mean()), 4),
        "doubted_of_all_not_flipped": round(float(doubted[~was].mean()), 4),
        "doubted_of_flipped": round(float(doubted[was].mean()), 4),
    }


def same_pictures(store: EmbeddingStore, rows: list[int], folder: Path) -> int:
    """Writes the grey pictures that show rows, under their names; returns how many."""
    embedder, found = FaceEmbedder(SHARED / "models"), 0
    with zipfile.ZipFile(SHARED / "utkface91.zip") as archive:
        by_label: dict[str, list[str]] = {}
        for name in archive.namelist():
            if name.endswith(".jpg"):
                by_label.setdefault(Path(name).name.rpartition("_")[0], []).append(name)
        for row in rows:
            path, best = str(store.labels["path"][row]), (SAME_PICTURE, None)
            for name in by_label.get(path.rpartition("_")[0], ()):
                (folder / "tried.jpg").write_bytes(archive.read(name))
                with contextlib.suppress(ValueError):  # no face was found
                    seen = embedder.embed(folder / "tried.jpg").embeddings[0]
                    best = max(best, (float(seen @ store.embeddings[row]), name))
            if best[1] is not None:
                (folder / path).write_bytes(archive.read(best[1]))
                found += 1
    (folder / "tried.jpg").unlink(missing_ok=True)
    return found


def drawn(store: EmbeddingStore, path: Path, folder: Path, cv: Path) -> dict:
    """Contact sheets of the most suspicious genders of UTKFace."""
    named = doctor(
        cv, path, folder / "by_name", most=len(store), photos=SHARED / "faces" / "utkface"
    )
    rows = [int(line["row"]) for line in read_csv(folder / "by_name" / "suspects.csv")]
    (photos := folder / "photos").mkdir()
    same = same_pictures(store, rows[:LOOKED_FOR], photos)
    doctor(cv, path, folder / "by_embedding", most=LOOKED_FOR, photos=photos)
    told = named["labels"]["gender"]
    return {
        "wrong": told["wrong"],
        "named": told["photos"]["found"],
        "same_picture": same,
        "looked_for": LOOKED_FOR,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--share", type=float, default=0.03)
    parser.add_argument("--pictures", type=Path, help="a new folder")
    args = parser.parse_args()
    if args.pictures:
        args.pictures.mkdir(parents=True)
    result: dict = {"epochs": args.epochs, "share": args.share}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        short = ("--epochs", args.epochs)
        folds = (*short, "--seeds", 1, "--folds", 5, "--save-predictions")
        fairface = import_embeddings(SHARED / "fairface_arcface.h5")
        utkface = import_embeddings(SHARED / "utkface_arcface.h5")
        utkface.save(ut := work / "utkface.h5")
        runs = {"gender": work / "ut_gender", "age_group": work / "ut_age"}
        command("train-gender", "--store", ut, *short, "--run-dir", runs["gender"])
        command("train-age", "--store", ut, *short, "--run-dir", runs["age_group"])
        for label, run in runs.items():
            store, was = flipped(fairface, label, args.share)
            store.save(path := work / f"{label}.h5")
            cv = work / f"cv_{label}"
            words = ("--store", path, "--label", label, *folds, "--run-dir", cv)
            seconds = command("cross-validate", *words)
            found = answers_of(store, cv)
            labels, p = found["labels"], found["mc_mean"]
            order = np.empty(len(store))
            order[found["ranked"]] = np.arange(len(store))
            result[label] = {
                "rows": len(store),
                "flipped": int(was.sum()),
                "seconds": round(seconds, 1),
                "wrong": found["wrong"],
                "doctor": told(order, was),
                "normalized_margin": told(normalized_margin(labels, p), was),
                "deterministic": told(self_confidence(labels, found["deterministic"]), was),
                "cleanlab": of_cleanlab(labels, p, was),
                **ordinary(store, label, run, found, was),
            }
            print(label, json.dumps(result[label]), flush=True)
        if args.pictures:
            cv = work / "cv_utkface"
            command("cross-validate", "--store", ut, "--label", "gender", *folds, "--run-dir", cv)
            result["utkface"] = drawn(utkface, ut, args.pictures, cv)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
