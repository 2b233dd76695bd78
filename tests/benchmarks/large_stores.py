"""Stores of many rows: seconds per million rows, and how much memory a command takes at most.

    python tests/benchmarks/large_stores.py FOLDER [import] [export] [train] [predict] [evaluate]
        [forms] [--rows 100000 1000000 5000000] [--shards 50]

Makes stores of normalised rows, 512 wide in half precision, of which gender and one of eight
age groups can be learned, in a folder (5.2 GB of the largest), runs the command on each in a
process of its own, and deletes them. Parts:

- `import`: `bin/import-embeddings` of the rows as a `.npy` file;
- `export`: `bin/export-embeddings` into shards;
- `predict`, `evaluate`: `--num-samples 8` of a gender model of 20,000 rows and 2 epochs;
- `forms`: one file, `--shards` many (50) and Parquet of the same rows: digests, weights of a
  training of one epoch, and answers of `predict` are compared to the bit;
- `train`: `bin/train --label gender age_group --epochs 1`, everything after the weights included;
  with `--shards` once more on the same rows as a folder of so many files, whose weights are
  compared with those of the one file.

Memory is the largest resident set (VmHWM) of the process, beside that of the largest of its
children. Seconds are given of the whole command, and for each million rows more from one number of
rows to the next, which leaves out what the start takes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import h5py
import numpy as np

from kerasmlp import EmbeddingStore, StoreInfo
from kerasmlp.data.labels import age_classes
from kerasmlp.data.stores.hdf5_writing import write_hdf5
from kerasmlp.data.stores.row_store import SCHEMA_VERSION
from kerasmlp.data.stores.store_folder import shard_name, write_manifest
from kerasmlp.data.stores.streamed_rows import StreamedRows

WIDTH, BLOCK = 512, 8192
INFO = StoreInfo(embedder="made.onnx", embedder_sha256="0" * 64)
GROUPS = np.array(age_classes("adience").class_names)
MEASURED = """
import resource, sys
from kerasmlp.cli import run_command
code = run_command(sys.argv[1], sys.argv[2:])
own = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


class MadeRows:
    """Rows that are made as they are asked for: a direction of gender and one of age, and noise.

    Args:
        count: Of rows.
        first: Number of the first, a multiple of `BLOCK`.
    """

    dtype = np.dtype(np.float16)

    def __init__(self, count: int, first: int = 0):
        self.shape, self.first = (count, WIDTH), first

    def labels(self) -> dict[str, np.ndarray]:
        numbers = range(self.first // BLOCK, -(-(self.first + self.shape[0]) // BLOCK))
        gender, group = np.concatenate([_labels_of(k) for k in numbers], axis=1)
        gender, group = gender[: self.shape[0]], group[: self.shape[0]]
        return {"gender": gender.astype(np.int8), "age_group": GROUPS[group]}

    def read(self, start: int, stop: int) -> np.ndarray:
        found = np.empty((stop - start, WIDTH), np.float16)
        for at in range(start // BLOCK * BLOCK, stop, BLOCK):
            low, high = max(start, at), min(stop, at + BLOCK)
            block = _rows_of((self.first + at) // BLOCK)
            found[low - start : high - start] = block[low - at : high - at]
        return found

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.concatenate([self.read(row, row + 1) for row in rows])


def _labels_of(block: int) -> np.ndarray:
    rng = np.random.default_rng((1, block))
    return np.stack([rng.integers(0, 2, BLOCK), rng.integers(0, len(GROUPS), BLOCK)])


@functools.lru_cache(maxsize=4)
def _rows_of(block: int) -> np.ndarray:
    gender, group = _labels_of(block)
    directions = np.random.default_rng(99).normal(size=(2, WIDTH)).astype(np.float32)
    x = np.random.default_rng((2, block)).standard_normal((BLOCK, WIDTH), np.float32)
    x += np.outer(gender - 0.5, 0.12 * directions[0]).astype(np.float32)
    x += np.outer(group - 3.5, 0.06 * directions[1]).astype(np.float32)
    x *= 1 / np.sqrt(np.vecdot(x, x))[:, None]
    return x.astype(np.float16)


def save(path: Path, made: MadeRows) -> None:
    labels = {f"labels/{name}": column for name, column in made.labels().items()}
    says = {"format": EmbeddingStore.FORMAT, "schema_version": SCHEMA_VERSION}
    says |= INFO.to_attributes()
    write_hdf5(path, "embedding", StreamedRows([made]), made.dtype, labels, says)


def save_shards(folder: Path, rows: int, shards: int) -> None:
    folder.mkdir()
    each, written = -(-rows // (shards * BLOCK)) * BLOCK, {}
    for number, first in enumerate(range(0, rows, each)):
        name, count = shard_name(number), min(each, rows - first)
        save(folder / name, MadeRows(count, first))
        written[name] = count
    write_manifest(folder, written, INFO)


def measured(command: str, *arguments: str | Path) -> dict[str, float]:
    """Seconds, those of the processor, and peak memory of a command in a process of its own."""
    started, before = time.perf_counter(), _processor_seconds()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, command, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr)
    own, children = done.stderr.split()[-2:]
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(_processor_seconds() - before, 1),
        "peak_mb": int(own) >> 10,
        "children_mb": int(children) >> 10,
    }


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def per_million_more(found: dict[str, dict]) -> dict[str, list[float]]:
    """Seconds for each million rows more, between numbers of rows: without the start."""
    counts = sorted(int(rows) for rows in found if rows.isdigit())
    return {
        kind: [
            round((found[str(b)][kind] - found[str(a)][kind]) / (b - a) * 1e6, 1)
            for a, b in itertools.pairwise(counts)
        ]
        for kind in ("seconds", "processor_seconds")
    }


def digest_of(model: Path) -> str:
    """Of all weights in a `.keras` file."""
    digest = hashlib.sha256()

    def add(name: str, found: h5py.Dataset | h5py.Group) -> None:
        if isinstance(found, h5py.Dataset):
            digest.update(name.encode() + np.ascontiguousarray(found[()]).tobytes())

    with zipfile.ZipFile(model) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(add)
    return digest.hexdigest()[:16]


def train(store: Path, folder: Path, rows: int) -> dict[str, float]:
    run = folder / f"run_{store.name}"
    found = measured(
        "train", "--store", store, "--label", "gender", "age_group", "--epochs", "1",
        "--run-dir", run, "--force",
    )  # fmt: skip
    report = json.loads((run / "report.json").read_text())
    stored = 2 * WIDTH * rows
    found |= {
        "fit_seconds": round(report["seconds"]["fit"], 1),
        "seconds_per_million": round(found["seconds"] / rows * 1e6, 1),
        "allowed_mb": int(2.2 * stored + (2 << 30)) >> 20,
        "times_stored": round((found["peak_mb"] << 20) / stored, 2),
        "gender_accuracy": round(report["validation"]["gender_accuracy"], 4),
        "age_accuracy": round(report["validation"]["age_accuracy"], 4),
        "weights": digest_of(run / "model.keras"),
    }
    found["blocks"] = json.loads((run / "config.json").read_text()).get("blocks")
    shutil.rmtree(run)
    return found


def import_(store: Path, folder: Path, rows: int) -> dict[str, float]:
    source, made = folder / "rows.npy", MadeRows(rows)
    with open(source, "wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": made.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, BLOCK):
            file.write(made.read(start, min(start + BLOCK, rows)).tobytes())
    found = measured("import-embeddings", source, "-o", folder / "imported.h5")
    for path in (source, folder / "imported.h5"):
        path.unlink()
    return found | {"seconds_per_million": round(found["seconds"] / rows * 1e6, 1)}


def export(store: Path, folder: Path, rows: int) -> dict[str, float]:
    found = measured("export-embeddings", store, "-o", folder / "exported")
    shutil.rmtree(folder / "exported")
    return found | {"seconds_per_million": round(found["seconds"] / rows * 1e6, 1)}


def gender_model(folder: Path) -> Path:
    """A run that every part asks; trained once."""
    run = folder / "run_of_gender"
    if not (run / "report.json").exists():
        save(folder / "small.h5", MadeRows(20_000))
        where = "--store", folder / "small.h5", "--run-dir", run, "--force"
        measured("train", *where, "--label", "gender", "--epochs", "2")
    return run


def predict(store: Path, folder: Path, rows: int) -> dict[str, float]:
    answers = folder / "answers.jsonl"
    how = "--num-samples", "8", "-o", answers, "--force"
    found = measured("predict", gender_model(folder), store, *how)
    with open(answers) as file:
        if sum(1 for _ in file) != rows:
            sys.exit(f"{answers} has not a line for each of {rows} rows")
    answers.unlink()
    return found | {"seconds_per_million": round(found["seconds"] / rows * 1e6, 1)}


def evaluate(store: Path, folder: Path, rows: int) -> dict[str, float]:
    how = "--num-samples", "8", "--output", folder / "evaluation", "--force"
    found = measured("evaluate", gender_model(folder), store, *how)
    return found | {"seconds_per_million": round(found["seconds"] / rows * 1e6, 1)}


def forms(store: Path, folder: Path, rows: int, shards: int = 50) -> dict[str, object]:
    """Whether the same rows in three forms are the same to everything."""
    there = {"one file": store, "shards": folder / "form", "parquet": folder / "form.parquet"}
    each = -(-rows // shards)
    measured("export-embeddings", store, "-o", there["shards"], "--rows-per-shard", str(each))
    measured("export-embeddings", there["shards"], "-o", there["parquet"])
    found: dict[str, set] = {"digest": set(), "weights": set(), "answers": set()}
    seconds, peaks = {}, {}
    for name, path in there.items():
        found["digest"].add(EmbeddingStore.open(path, verify=True).digest())
        trained = train(path, folder, rows)
        found["weights"].add(trained["weights"])
        seconds[name], peaks[name] = trained["seconds"], trained["peak_mb"]
        answers, digest = folder / "answers.jsonl", hashlib.sha256()
        how = "--num-samples", "8", "-o", answers, "--force"
        measured("predict", gender_model(folder), path, *how)
        with open(answers) as file:
            for line in file:
                row = json.loads(line)
                del row["input"]
                digest.update(json.dumps(row).encode())
        found["answers"].add(digest.hexdigest())
    shutil.rmtree(there["shards"])
    there["parquet"].unlink()
    same = {f"same_{name}": len(values) == 1 for name, values in found.items()}
    return same | {"train_seconds": seconds, "train_peak_mb": peaks}


PARTS: dict[str, Callable] = {
    "import": import_, "export": export, "train": train, "predict": predict,
    "evaluate": evaluate, "forms": forms,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="to make the stores in")
    parser.add_argument("parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 5_000_000])
    parser.add_argument("--shards", type=int, help="as a folder of so many files, too")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict] = {part: {} for part in args.parts}
    for rows in args.rows:
        path, shards = args.folder / f"{rows}.h5", args.folder / f"{rows}_shards"
        started = time.perf_counter()
        save(path, MadeRows(rows))
        print(f"{rows:,} rows made in {time.perf_counter() - started:.0f} s", flush=True)
        try:
            for part in args.parts:
                results[part][str(rows)] = found = PARTS[part](path, args.folder, rows)
                print(part, f"{rows:,}", found, flush=True)
            if args.shards and "train" in args.parts:
                save_shards(shards, rows, args.shards)
                found = train(shards, args.folder, rows)
                found["same_weights"] = found["weights"] == results["train"][str(rows)]["weights"]
                results["train"][f"{rows}_in_{args.shards}_shards"] = found
                print("train", f"{rows:,} in shards", found, flush=True)
        finally:
            path.unlink(missing_ok=True)
            shutil.rmtree(shards, ignore_errors=True)
    for part in set(args.parts) - {"forms"}:
        results[part]["per_million_more"] = more = per_million_more(results[part])
        print(part, "for each million rows more", more)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
