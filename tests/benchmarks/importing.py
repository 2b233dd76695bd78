"""Importing a million rows against another checkout, file by file.

    python tests/benchmarks/importing.py OTHER_CHECKOUT [ROWS]

The same .npz, Parquet and CSV (64 numbers per row, an age, a gender and a path) are
read by `import_embeddings` of both checkouts, each in a process of its own; rounds
alternate, results are medians, files are in the page cache, embeddings and labels
are compared. The last line is one JSON object of times of the other checkout over
times of this one: above 1 is faster.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 64
ROUNDS = 3
CODE = """
import hashlib, sys, time
try:
    from kerasmlp.data.importing.embedding_files import import_embeddings
except ImportError:  # where older checkouts have it
    from kerasmlp.stores.importing import import_embeddings
start = time.perf_counter()
store = import_embeddings(sys.argv[1])
seconds = time.perf_counter() - start
digest = hashlib.sha256(store.embeddings.tobytes()).hexdigest()
labels = {key: column[:50].tolist() for key, column in sorted(store.labels.items())}
print(seconds, digest, labels)
"""


def write_files(folder: Path, rows: int) -> list[Path]:
    import pyarrow as pa
    from pyarrow import csv, parquet

    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((rows, WIDTH), np.float32).round(5)
    labels = {
        "age": rng.integers(0, 100, rows),
        "gender": np.array(["male", "female"])[rng.integers(0, 2, rows)],
        "path": np.array([f"photos/{n:07}.jpg" for n in range(rows)]),
    }
    np.savez(folder / "a.npz", embedding=embedding, **labels)
    table = {name: pa.array(column) for name, column in labels.items()}
    lists = pa.FixedSizeListArray.from_arrays(pa.array(embedding.reshape(-1)), WIDTH)
    parquet.write_table(pa.table({"embedding": lists, **table}), folder / "a.parquet")
    columns = {f"e{k}": pa.array(embedding[:, k]) for k in range(WIDTH)}
    csv.write_csv(pa.table({**columns, **table}), folder / "a.csv")
    return sorted(folder.iterdir())


def seconds_of(checkout: Path, path: Path) -> tuple[float, str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", CODE, str(path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds, result = run.stdout.split(" ", 1)
    return float(seconds), result


def main() -> None:
    other, rows = Path(sys.argv[1]).resolve(), int([*sys.argv, "1000000"][2])
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in write_files(Path(folder), rows):
            times: dict[Path, list[float]] = {ROOT: [], other: []}
            results = set()
            for _ in range(ROUNDS):
                for checkout, taken in times.items():
                    seconds, result = seconds_of(checkout, path)
                    taken.append(seconds)
                    results.add(result)
            assert len(results) == 1, f"{path.name}: the checkouts read different values"
            ours, theirs = (statistics.median(times[c]) for c in (ROOT, other))
            size = path.stat().st_size / 1e6
            print(f"{path.name:10} {size:6.0f} MB: {ours:6.2f} s here, {theirs:6.2f} s there")
            ratios[f"{path.suffix[1:]}_ratio"] = round(theirs / ours, 2)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
