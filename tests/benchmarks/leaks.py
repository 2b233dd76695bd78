"""Near-duplicates: what re-encoding does to embeddings, planted copies, and a million rows.

    python tests/benchmarks/leaks.py [noise] [utkface] [million] [--rows 1000000]

It needs the photos, models and stores beside the checkout (`../shared/data`). Parts:

- `noise`: cosines of 403 photos (243 of UTKFace, 160 of FairFace) with themselves as JPEG of
  quality 90 and 75 and, a little smaller, of both; the other parts plant copies that are
  turned by such an angle in such a direction;
- `utkface`: 390 copies of rows of UTKFace among them; recall and precision of `near_duplicates`
  at the threshold that it derives. A pair of a copy with another row than its source counts as
  wrong unless that row is a duplicate of the source without the copies, too;
- `million`: identities of five rows (cosine .5 to .8 within) with the covariance of the sample,
  and 1,000 copies: seconds and peak memory of `bin/leaks`, recall against the plain product of
  2,000 rows (half of them copies) with all, whose time is multiplied for all rows.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
from PIL import Image

from kerasmlp import (
    SAMPLE,
    EmbeddingStore,
    FaceEmbedder,
    InputError,
    import_embeddings,
    near_duplicates,
)
from kerasmlp.utils.tables import read_csv

SHARED = ROOT.parent / "shared" / "data"
WAYS = {  # scale of the photo, quality of the JPEG
    "quality 90": (1.0, 90),
    "quality 75": (1.0, 75),
    "0.95 as large, quality 90": (0.95, 90),
    "0.9 as large, quality 75": (0.9, 75),
}
MEASURED = """
import sys
from kerasmlp.cli import run_command
code = run_command("leaks", sys.argv[1:])
print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""
COPIES, MANY_COPIES, COMPARED = 390, 1000, 2000


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def noise() -> tuple[np.ndarray, np.ndarray, dict]:
    """Angles and directions in which embeddings of photos turn, and the cosines by the way."""
    embedder = FaceEmbedder(SHARED / "models")
    faces = SHARED / "faces"
    photos = [*sorted((faces / "utkface").glob("*.jpg")), *sorted(faces.glob("fairface/**/*.jpg"))]
    angles, directions, told = [], [], {}

    def embedded(path: Path) -> np.ndarray | None:
        try:
            return embedder.embed(path).embeddings[0].astype(np.float64)
        except InputError:
            return None

    before = [embedded(path) for path in photos]
    with tempfile.TemporaryDirectory() as folder:
        for name, (scale, quality) in WAYS.items():
            cosines = []
            for path, row in zip(photos, before, strict=True):
                photo = Image.open(path).convert("RGB")
                photo = photo.resize([round(scale * side) for side in photo.size])
                photo.save(f"{folder}/copy.jpg", quality=quality)
                after = embedded(Path(folder, "copy.jpg"))
                if row is None or after is None:
                    continue
                cosines.append(row @ after)
                angles.append(np.arccos(np.clip(row @ after, -1, 1)))
                directions.append(after - (row @ after) * row)
            quantiles = np.quantile(cosines, [0, 0.01, 0.05, 0.5]).round(4).tolist()
            told[name] = {"photos": len(cosines), "quantiles_0_1_5_50": quantiles}
            print(f"{name:26} {len(cosines)} photos, cosine 0/1/5/50%: {quantiles}", flush=True)
    return np.array(angles), np.array(directions), told


def copies_of(x: np.ndarray, turns: tuple, rng: np.random.Generator) -> np.ndarray:
    """Rows turned as photos were, each as another one."""
    drawn = rng.integers(0, len(turns[0]), len(x))
    angles, towards = turns[0][drawn, None], turns[1][drawn]
    towards = unit(towards - np.vecdot(towards, x)[:, None] * x)
    return np.cos(angles) * x + np.sin(angles) * towards


def utkface(turns: tuple) -> dict:
    """Plants copies among the rows of UTKFace and looks for them."""
    store, rng = import_embeddings(SHARED / "utkface_arcface.h5"), np.random.default_rng(0)
    x = unit(store.embeddings.astype(np.float64))
    source = rng.choice(len(x), COPIES, replace=False)
    copies = copies_of(x[source], turns, rng)
    groups = np.concatenate([store.labels["group"], np.arange(COPIES) + 10**6])
    planted = EmbeddingStore(
        np.concatenate([x, copies]).astype(np.float16), {"group": groups}, store.info
    )
    started = time.perf_counter()
    found = near_duplicates(planted)
    seconds = time.perf_counter() - started
    pairs, cosines = found.pairs()
    with_copy = pairs[:, 1] >= len(x)
    of_source = pairs[:, 0] == source[np.maximum(pairs[:, 1] - len(x), 0)]
    hit = with_copy & of_source
    before = near_duplicates(store, threshold=found.threshold)
    group = np.concatenate([before.groups(), before.groups()[source]])
    right = group[pairs[:, 0]] == group[pairs[:, 1]]
    known = found.known[pairs[:, 0]] == found.known[pairs[:, 1]]
    apart = np.vecdot(x[source], copies)
    figures = {
        "seconds": round(seconds, 1),
        "threshold": round(found.threshold, 4),
        "planted": COPIES,
        "found": int(hit.sum()),
        "recall": round(hit.sum() / COPIES, 4),
        "planted_above_threshold": int((apart >= found.threshold).sum()),
        "pairs_with_a_copy": int(with_copy.sum()),
        "precision": round(float(right[with_copy].mean()), 4),
        "other_pairs": int((~with_copy).sum()),
        "other_pairs_in_one_group_already": int((known & ~with_copy).sum()),
        "other_pairs_lowest_cosine": round(float(cosines[~with_copy].min()), 4),
        "threshold_without_copies": round(near_duplicates(store).threshold, 4),
    }
    print("utkface:", json.dumps(figures), flush=True)
    return figures


def made(rows: int, turns: tuple, path: Path) -> np.ndarray:
    """Writes a store of identities and copies; returns the pairs of copies and their sources."""
    rng, sample = np.random.default_rng(1), EmbeddingStore.open(SAMPLE).embeddings
    spread = np.linalg.cholesky(np.cov(sample.T) + 1e-9 * np.eye(512)).astype(np.float32).T
    x = np.empty((rows, 512), np.float16)
    for start in range(0, rows, 50_000):
        count = min(50_000, rows - start)
        people = unit(rng.standard_normal((-(-count // 5), 512), np.float32) @ spread)
        photos = unit(rng.standard_normal((count, 512), np.float32) @ spread)
        likeness = np.repeat(rng.uniform(0.5, 0.8, len(people)), 5)[:count, None]
        same = np.sqrt(likeness) * np.repeat(people, 5, axis=0)[:count]
        x[start : start + count] = unit(same + np.sqrt(1 - likeness) * photos)
    both = rng.choice(rows, 2 * MANY_COPIES, replace=False).reshape(-1, 2)
    x[both[:, 1]] = copies_of(unit(x[both[:, 0]].astype(np.float64)), turns, rng)
    EmbeddingStore(x).save(path)
    return np.sort(both, axis=1)


def million(rows: int, turns: tuple) -> dict:
    """Times `bin/leaks` on many rows, and holds it against the plain product."""
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder) / "many.h5", Path(folder) / "found"
        both = made(rows, turns, path)
        started = time.perf_counter()
        words = [sys.executable, "-c", MEASURED, str(path), "--output", str(output)]
        done = subprocess.run(words, check=True, text=True, capture_output=True, cwd=ROOT)
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        said, _, peak = done.stdout.rpartition("VmHWM:")
        print(said, flush=True)
        report = json.loads((output / "report.json").read_text())
        lines = read_csv(output / "pairs.csv")
        found = {(int(line["row_a"]), int(line["row_b"])) for line in lines}
        x = EmbeddingStore.open(path).embeddings
    copies = np.vecdot(x[both[:, 0]], x[both[:, 1]])
    hit = np.array([tuple(pair) in found for pair in both.tolist()])
    threshold = report["threshold"] or 1.0
    some = np.concatenate([both[:, 0], np.random.default_rng(2).choice(rows, COMPARED - len(both))])
    started, true = time.perf_counter(), set()
    for first in range(0, rows, 4096):
        a, b = np.nonzero(x[some] @ x[first : first + 4096].T >= threshold)
        pairs = np.stack([some[a], b + first], axis=1)
        true |= {(int(p), int(q)) for p, q in np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)}
    product = time.perf_counter() - started
    figures = {
        "rows": rows,
        "seconds": round(seconds, 1),
        "seconds_of_cores": round(after.ru_utime + after.ru_stime, 1),
        "peak_MiB": round(int(peak.split()[0]) / 1024),
        "threshold": threshold,
        "recall_said": report["recall"],
        "pairs": len(found),
        "planted": MANY_COPIES,
        "planted_found": int(hit.sum()),
        "planted_above_threshold": int((copies >= threshold).sum()),
        "planted_above_threshold_found": int((hit & (copies >= threshold)).sum()),
        "pairs_of_the_plain_product": len(true),
        "of_them_found": len(true & found),
        "plain_product_seconds_extrapolated": round(product * rows / 2 / COMPARED),
    }
    print("million:", json.dumps(figures), flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", help="noise, utkface, million; default: all")
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    parts = args.parts or ["noise", "utkface", "million"]
    angles, directions, told = noise()
    figures: dict = {"noise": told}
    if "utkface" in parts:
        figures["utkface"] = utkface((angles, directions))
    if "million" in parts:
        figures["million"] = million(args.rows, (angles, directions))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
