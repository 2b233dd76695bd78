"""Reading a store against reading bare bytes, and against one .npy file per face.

    python tests/benchmarks/store.py

The store is read whole with all checks (schema, sizes, NaN, norms, labels):
once with nothing in it but the bytes that `numpy.fromfile` reads, once with
its label columns too. Rounds alternate, results are medians, files are in the
page cache. The last line is one JSON object of relative speeds.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from kerasmlp.data.importing.embedding_files import import_embeddings
from kerasmlp.data.stores.embedding_store import EmbeddingStore

UTKFACE = ROOT.parent / "shared" / "data" / "utkface_arcface.h5"
ROUNDS = 41


def faces() -> EmbeddingStore:
    if UTKFACE.is_file():
        return import_embeddings(UTKFACE)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((18_976, 512), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    numbers = rng.integers(0, 100, (4, len(rows)))
    labels = dict(zip(("age_years", "race", "group", "fold"), numbers, strict=True))
    paths = [f"{n:06}_some_long_file_name.jpg.chip.jpg" for n in range(len(rows))]
    return EmbeddingStore(rows, {**labels, "path": paths})


def alternating(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each way."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            result = way()
            times[name].append((time.perf_counter() - start) * 1e3)
            del result
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    store = faces()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        single, half = folder / "single.h5", folder / "half.h5"
        EmbeddingStore(store.embeddings, store.labels, store.info).save(single)
        EmbeddingStore(store.embeddings.astype(np.float16), store.labels, store.info).save(half)
        bare = folder / "bare.h5"
        EmbeddingStore(store.embeddings).save(bare)
        raw = folder / "rows.bin"
        store.embeddings.tofile(raw)
        (folder / "faces").mkdir()
        paths = [folder / "faces" / f"{row}.npy" for row in range(len(store))]
        for path, row in zip(paths, store.embeddings, strict=True):
            np.save(path, row)

        ways = {
            "numpy.fromfile, float32": lambda: np.fromfile(raw, np.float32),
            "store, float32": lambda: EmbeddingStore.open(single),
            "store, float32, no labels": lambda: EmbeddingStore.open(bare),
            "store, float16": lambda: EmbeddingStore.open(half),
        }
        took = alternating(ways, ROUNDS)
        took |= alternating({"one .npy per face": lambda: np.stack([*map(np.load, paths)])}, 3)
    print(f"{len(store):,} faces, {store.width} wide, {len(store.labels)} label columns")
    for name, milliseconds in took.items():
        print(f"{name:28} {milliseconds:9.2f} ms")
    ours = took["store, float32"]
    ratios = {
        "fromfile_ratio": round(
            took["numpy.fromfile, float32"] / took["store, float32, no labels"], 3
        ),
        "fromfile_ratio_with_labels": round(took["numpy.fromfile, float32"] / ours, 3),
        "npy_files_ratio": round(took["one .npy per face"] / ours, 1),
    }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
