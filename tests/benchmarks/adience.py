"""Adience's complete layout, 19,370 images, through the detector: does the paper's table come out?

    python tests/benchmarks/adience.py [--shared ../shared/data] [--one-of 1]

The images are photos of FairFace under Adience's names, with its fold files,
its spellings of ages, and as many without age, without gender, without a face
and with a faint one as the paper removed. Printed is `bin/extract-embeddings`'
own removal report beside the paper's, and the kept rows per age group and
gender. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from adience_layout import KEPT, REMOVED, WOMEN, faces_to_spread, write_adience

from kerasmlp.data.labels import Gender
from kerasmlp.data.stores.embedding_store import EmbeddingStore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--one-of", type=int, default=1, help="every n-th input only")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = faces_to_spread(args.shared, folder)
        print({kind: len(paths) for kind, paths in images.items()}, flush=True)
        written = write_adience(folder / "adience", **images, one_of=args.one_of)
        started = time.perf_counter()
        command = [
            sys.executable, ROOT / "bin" / "extract-embeddings", folder / "adience",
            "--layout", "adience", "--model-dir", args.shared / "models", "-o", folder / "a.h5",
            "--workers", "2",
        ]  # fmt: skip
        subprocess.run([str(c) for c in command], check=True)
        seconds = time.perf_counter() - started
        store = EmbeddingStore.open(folder / "a.h5")
    report = store.info.removal_report
    groups = Counter(store.labels["age_group"].tolist())
    women = int(np.sum(store.labels["gender"] == Gender.FEMALE))
    folds = {*zip(store.labels["group"].tolist(), store.labels["fold"].tolist(), strict=True)}
    result = {
        "inputs": report["inputs"],
        "kept": report["kept"],
        "removed": report["removed"],
        "age_groups": {group: groups[group] for group in KEPT},
        "women": women,
        "images_per_second": round(report["inputs"] / seconds, 1),
        "as_written": report["removed"] == {k: written[k] for k in REMOVED},
        "as_the_paper": report["removed"] == REMOVED and dict(groups) == KEPT and women == WOMEN,
        "no_user_in_two_folds": len(folds) == len({group for group, _ in folds}),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
