"""Ray on one machine as a cluster of three nodes: kills that lose nothing, and what it costs.

    python tests/benchmarks/ray_cluster.py [--rows N] [--num-samples N]

The head holds no worker, two nodes one each. The 243 photos are extracted and a million rows
answered, each once by this machine alone, once by the cluster, and once by a cluster that loses a
node in the middle and then the command itself, resumed on what is left of it and a new node.
A cross-validation is trained both ways. The last line is one JSON object: whether all is equal,
seconds, and what was done when it was killed.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_folder import shard_name, write_manifest

SHARED = ROOT.parent / "shared" / "data"
SHARD_ROWS = 100_000


class Nodes:
    """A head without cores, and two nodes with one each."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        how = {"num_cpus": 0, "object_store_memory": 1 << 28, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=how)
        self.nodes: list = []
        self.fill()

    def fill(self) -> None:
        while len(self.nodes) < 2:
            node = self._cluster.add_node(num_cpus=1, object_store_memory=1 << 28)
            self.nodes.append(node)
        self._cluster.wait_for_nodes()

    def kill_one(self) -> None:
        self._cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"RAY_ADDRESS": self._cluster.address}


def start(environment: dict[str, str], command: str, *words: object) -> subprocess.Popen:
    words = [sys.executable, ROOT / "bin" / command, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [str(w) for w in words], env=environment, stdout=pipe, stderr=pipe, text=True
    )


def seconds(environment: dict[str, str], command: str, *words: object) -> float:
    began = time.monotonic()
    process = start(environment, command, *words)
    out, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"{command}: {err[-2000:]}")
    print(f"{command} {time.monotonic() - began:.1f} s {out.splitlines()[-1:]}", flush=True)
    return round(time.monotonic() - began, 1)


def parts_of(output: Path) -> int:
    return len(list(output.with_name(f"{output.name}.partial").glob("parts-*/*.part")))


def killed(nodes: Nodes, parts: int, output: Path, command: str, *words: object) -> dict:
    """Kills a node at a third of the parts, the command at two thirds; resumes it."""
    words, began = (*words, "-o", output, "--engine", "ray", "--workers", 2), time.monotonic()
    process = start(nodes.environment, command, *words)
    at = {}
    for what, share in (("node", 1 / 3), ("driver", 2 / 3)):
        while parts_of(output) < share * parts:
            if process.poll() is not None:
                raise SystemExit(f"{command} ended: {process.communicate()[1][-2000:]}")
            time.sleep(0.05)
        at[what] = parts_of(output)
        print(f"{what} killed at {at[what]} of {parts} parts", flush=True)
        if what == "node":
            nodes.kill_one()
        else:
            process.send_signal(signal.SIGKILL)
    notes = process.communicate()[1]
    print(notes.replace("\r", "\n").strip().splitlines()[-3:], flush=True)
    kept = parts_of(output)
    nodes.fill()
    took = round(time.monotonic() - began, 1)
    resumed = seconds(nodes.environment, command, *words, "--resume")
    return {"parts": parts, "killed_at": at, "kept": kept, "seconds": [took, resumed]}


def extraction(nodes: Nodes, folder: Path) -> dict:
    words = [SHARED / "faces/utkface", "--layout", "utkface", "--model-dir", SHARED / "models"]
    two = [*words, "--workers", 2]
    pool = seconds(dict(os.environ), "extract-embeddings", *two, "-o", folder / "pool.h5")
    local = [*two, "--engine", "ray", "-o", folder / "ray.h5"]
    started = seconds(dict(os.environ), "extract-embeddings", *local)
    running = seconds(nodes.environment, "extract-embeddings", *local, "--force")
    kills = killed(nodes, -(-243 // 16), folder / "killed", "extract-embeddings", *words)
    stores = [EmbeddingStore.open(folder / name) for name in ("pool.h5", "ray.h5", "killed")]
    lists = [(folder / f"{n}.removal.json").read_text() for n in ("pool.h5", "ray.h5", "killed")]
    equal = len({store.digest() for store in stores}) == 1
    equal &= len({str(replace(store.info, created=None)) for store in stores}) == 1
    equal &= len(set(lists)) == 1
    times = {"pool": pool, "ray_started_here": started, "ray_running": running}
    return {"rows": len(stores[0]), "equal": bool(equal), "seconds": times, "killed": kills}


def prediction(nodes: Nodes, folder: Path, rows: int, num_samples: int) -> dict:
    make_rows(folder / "rows", rows)
    seconds(
        dict(os.environ), "train-age", "--store", faces(folder), "--epochs", 3,
        "--run-dir", folder / "run",
    )  # fmt: skip
    words = [folder / "run", folder / "rows", "--num-samples", num_samples]
    alone = seconds(dict(os.environ), "predict", *words, "-o", folder / "alone.jsonl")
    ray = [*words, "--engine", "ray", "--workers", 2, "-o", folder / "ray.jsonl"]
    running = seconds(nodes.environment, "predict", *ray)
    kills = killed(nodes, -(-rows // 16384), folder / "killed.jsonl", "predict", *words)
    equal = all(
        filecmp.cmp(folder / "alone.jsonl", folder / name, shallow=False)
        for name in ("ray.jsonl", "killed.jsonl")
    )
    size = (folder / "alone.jsonl").stat().st_size
    found = {"rows": rows, "bytes": size, "num_samples": num_samples, "equal": equal}
    return found | {"seconds": {"alone": alone, "ray_running": running}, "killed": kills}


def faces(folder: Path) -> Path:
    store = folder / "utkface.h5"
    if not store.exists():
        seconds(dict(os.environ), "import-embeddings", SHARED / "utkface_arcface.h5", "-o", store)
    return store


def make_rows(folder: Path, rows: int) -> None:
    """A store of shards: the faces over and over, each with noise of its own."""
    known, rng = EmbeddingStore.open(faces(folder.parent)), np.random.default_rng(0)
    folder.mkdir()
    shards = {}
    for number, start_row in enumerate(range(0, rows, SHARD_ROWS)):
        count = min(SHARD_ROWS, rows - start_row)
        x = known.embeddings[rng.integers(0, len(known), count)]
        x += rng.normal(0, 0.01, x.shape).astype(np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        shards[shard_name(number)] = count
        store = EmbeddingStore(x.astype(np.float16), {}, known.info)
        store.save(folder / shard_name(number))
    write_manifest(folder, shards, known.info)


def cross_validation(nodes: Nodes, folder: Path) -> dict:
    words = ["--store", faces(folder), "--label", "gender", "--seeds", 2, "--folds", 3]
    words += ["--epochs", 2, "--workers", 2]
    pool = seconds(dict(os.environ), "cross-validate", *words, "--run-dir", folder / "cv-pool")
    ray = [*words, "--engine", "ray", "--run-dir", folder / "cv-ray"]
    running = seconds(nodes.environment, "cross-validate", *ray)
    tables = [(folder / name / "table.md").read_text() for name in ("cv-pool", "cv-ray")]
    return {
        "runs": 6, "equal": tables[0] == tables[1],
        "seconds": {"pool": pool, "ray_running": running},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--num-samples", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes()
        found = {"extraction": extraction(nodes, Path(folder))}
        found["cross_validation"] = cross_validation(nodes, Path(folder))
        found["prediction"] = prediction(nodes, Path(folder), args.rows, args.num_samples)
    print(json.dumps(found))
    sys.exit(not all(part["equal"] for part in found.values()))


if __name__ == "__main__":
    main()
