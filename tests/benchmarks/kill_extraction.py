"""Kills an extraction at ten random moments, resumes it each time, and compares the result
with that of an uninterrupted run. Last line: one JSON object."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from kerasmlp.data.stores.embedding_store import EmbeddingStore

SHARED = ROOT.parent / "shared" / "data"
KILLS = 10


def start(store: Path, *options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable, ROOT / "bin/extract-embeddings", SHARED / "faces/utkface", "-o", store,
            "--layout", "utkface", "--model-dir", SHARED / "models", *options,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def main() -> None:
    rng = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole.h5"), Path(folder, "killed.h5")
        began = time.monotonic()
        assert start(whole).wait() == 0
        seconds = time.monotonic() - began
        expected = EmbeddingStore.open(whole).digest()
        lines = Path(folder, "killed.h5.partial", "records.jsonl")
        hits, finished, same = 0, 0, True
        while hits < KILLS or not finished:
            begun = lines.exists()
            process = start(killed, *(["--resume"] if begun else ["--force"]))
            if hits < KILLS:
                time.sleep(rng.uniform(0.3, 0.8) * seconds)
                process.kill()
            if process.wait() == 0:  # faster than the kill, or the last run
                finished += 1
                same &= EmbeddingStore.open(killed).digest() == expected
                killed.unlink()
            else:
                hits += 1
                done = lines.read_bytes().count(b"\n") if lines.exists() else 0
                print(f"kill {hits}: {done} inputs done", flush=True)
    print(json.dumps({"kills": hits, "finished": finished, "equal": same}))
    sys.exit(not same)


if __name__ == "__main__":
    main()
