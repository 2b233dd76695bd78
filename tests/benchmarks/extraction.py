"""Speed of extraction: one worker, two workers, batches, and a bare insightface loop, in turns.

All three see the same images in every round; starting up is excluded. The
bare loop is what the insightface documentation shows, with the library's own
defaults (all cores, two looks at each image). Last line: one JSON object.
Run alone on the machine: `python tests/benchmarks/extraction.py`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kerasmlp.faces.pool import FacePool

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
ROUNDS = 5
KINDS = {
    "utkface 200 px": ("faces/utkface/*.jpg", 24),
    "fairface 224 px": ("faces/fairface/train/*.jpg", 24),
    "adience 816 px": ("faces/adience/faces/*/*.jpg", 20),
}


def bare_loop(app):
    import cv2

    def run(paths):
        for path in paths:
            for face in app.get(cv2.imread(str(path))):
                _ = face.normed_embedding

    return run


def pool_run(pool):
    def run(paths):
        for _ in pool.map([(path, False) for path in paths]):
            pass

    return run


def compare_batches(models):
    """Batches of 32 against one by one on the 243 photos of UTKFace: speed and likeness."""
    photos = sorted((SHARED / "faces/utkface").glob("*.jpg"))
    options = {"face": "centre", "workers": 1, "device": "cpu"}
    seconds, rows = {1: [], 32: []}, {}
    with (
        FacePool(models, batch_size=1, **options) as one,
        FacePool(models, batch_size=32, **options) as many,
    ):
        for _ in range(3):
            for size, pool in ((1, one), (32, many)):
                began = time.perf_counter()
                answers = list(pool.map([(path, False) for path in photos]))
                seconds[size].append(time.perf_counter() - began)
                rows[size] = np.stack([a["embedding"] for a in answers])
    best = {size: min(times) for size, times in seconds.items()}
    for size, value in best.items():
        print(f"utkface, batches of {size:<12} {len(photos) / value:7.1f} images/s")
    cosine = float(np.vecdot(rows[1], rows[32]).min())
    assert cosine >= 0.9999
    return {"batch_32_ratio": round(best[1] / best[32], 3), "batch_32_cosine": round(cosine, 7)}


def main() -> None:
    if not SHARED.is_dir():
        sys.exit(f"needs the shared data in {SHARED}")
    warnings.simplefilter("ignore")
    from insightface.app import FaceAnalysis

    models = str(SHARED / "models")
    bare, large = (
        FaceAnalysis(
            name=models,
            allowed_modules=["detection", "recognition"],
            providers=["CPUExecutionProvider"],
        )
        for _ in range(2)
    )
    bare.prepare(0)
    large.prepare(0, det_size=(640, 640))
    images = {kind: sorted(SHARED.glob(glob))[:n] for kind, (glob, n) in KINDS.items()}
    options = {"face": "centre", "min_det_score": 0.5, "device": "cpu"}
    with (
        FacePool(models, workers=1, **options) as one,
        FacePool(models, workers=2, **options) as two,
    ):
        ways = {
            "bare": bare_loop(bare),
            "bare, 640 only": bare_loop(large),
            "one worker": pool_run(one),
            "two workers": pool_run(two),
        }
        seconds = {(kind, way): [] for kind in images for way in ways}
        for turn in range(ROUNDS + 1):
            for kind, paths in images.items():
                for way, run in ways.items():
                    began = time.perf_counter()
                    run(paths)
                    if turn:  # the first round warms up
                        seconds[kind, way].append(time.perf_counter() - began)

    medians = {key: statistics.median(values) for key, values in seconds.items()}
    for (kind, way), value in medians.items():
        print(f"{kind:16} {way:15} {len(images[kind]) / value:7.1f} images/s")
    total = {way: sum(medians[kind, way] for kind in images) for way in ways}
    photos = {way: medians["adience 816 px", way] for way in ways}
    print(
        json.dumps(
            {
                "two_workers_ratio": round(total["one worker"] / total["two workers"], 3),
                "one_worker_vs_bare_ratio": round(total["bare"] / total["one worker"], 3),
                "adience_one_worker_vs_bare_ratio": round(photos["bare"] / photos["one worker"], 3),
                "adience_one_worker_vs_bare_640_ratio": round(
                    photos["bare, 640 only"] / photos["one worker"], 3
                ),
                "two_workers_vs_bare_ratio": round(total["bare"] / total["two workers"], 3),
                **compare_batches(models),
            }
        )
    )


if __name__ == "__main__":
    main()
