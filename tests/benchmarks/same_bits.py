"""Whether two checkouts train, sample and export the same, to the bit.

    python tests/benchmarks/same_bits.py OTHER_CHECKOUT [--quick]

Each checkout runs its own commands, in processes of its own, one after the other: an age
and a gender model on the shipped sample, a 2 × 2 cross-validation, IC ResNets, LayerOut and
the UTKFace CNN on tiny images, samples of a seed and `serve_mc` of an export. Then each
reads the runs of the other. Digests are of weights and of outputs; versions, times and
commands in reports are left out. `--quick` trains fewer epochs. The last line is one JSON
object: what is equal.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = """
import hashlib, sys, numpy as np, tensorflow as tf
from kerasmlp import EmbeddingStore, load_model, predict_samples
x = EmbeddingStore.open(sys.argv[3]).embeddings[:100]
samples = predict_samples(load_model(sys.argv[1]), x, num_samples=16, seed=3)
print(hashlib.sha256(np.ascontiguousarray(samples)).hexdigest())
served = tf.saved_model.load(sys.argv[2]).signatures["serve_mc"]
seed = tf.constant(5, tf.int64)
outputs = served(embedding=tf.constant(x[:9]), num_samples=tf.constant(8), seed=seed)
for name in sorted(outputs):
    values = repr(outputs[name].numpy().tolist())  # of texts, an array holds addresses
    print(name, hashlib.sha256(values.encode()).hexdigest())
"""


class Checkout:
    """One of the two, and where it puts its runs."""

    def __init__(self, root: Path, folder: Path, data: Path):
        self.root, self.folder, self.data = root, folder, data
        folder.mkdir()

    def python(self, *args: object) -> str:
        environment = os.environ | {"PYTHONPATH": str(self.root), "TF_CPP_MIN_LOG_LEVEL": "3"}
        run = subprocess.run(
            [sys.executable, *map(str, args)],
            env=environment, cwd=self.folder, capture_output=True, text=True,
        )  # fmt: skip
        if run.returncode:
            raise SystemExit(f"{args}: {run.stderr[-2000:]}")
        return run.stdout

    def command(self, name: str, *args: object) -> None:
        self.python(self.root / "bin" / name, *args)

    def train(self, quick: bool) -> None:
        store, images, faces = (self.data / n for n in ("sample.h5", "images.npz", "faces.h5"))
        epochs = ("--epochs", 2) if quick else ()
        self.command("train-age", "--store", store, "--run-dir", "age", *epochs)
        self.command("train-gender", "--store", store, "--run-dir", "gender", *epochs)
        self.command(
            "cross-validate", "--store", store, "--label", "gender", "--run-dir", "cv",
            "--seeds", 2, "--folds", 2, "--epochs", 2, "--workers", 1,
        )  # fmt: skip
        tiny = ("--epochs", 2, "--batch-size", 16)
        self.command("train-cifar", images, *tiny, "--depth", 8, "--run-dir", "cifar")
        self.command(
            "train-layerout", images, *tiny, "--network", "vgg16", "--warmup-epochs", 1,
            "--run-dir", "layerout",
        )  # fmt: skip
        self.command("train-age-cnn", faces, *tiny, "--run-dir", "age-cnn")
        self.command("export-model", "age", "served/age")

    def digests(self) -> dict[str, str]:
        """Of the weights of every run."""
        found = sorted(self.folder.rglob("model.keras"))
        return {str(p.parent.relative_to(self.folder)): weights_digest(p) for p in found}

    def outputs(self, runs: Path) -> str:
        """Of samples and of `serve_mc`, of the runs in a folder."""
        served = runs / "served" / "age" / "1"
        return self.python("-c", SAMPLES, runs / "age", served, self.data / "sample.h5")

    def answers(self, runs: Path) -> str:
        where = self.folder / f"answers-{runs.name}.csv"
        self.command(
            "predict",
            runs / "gender",
            self.data / "sample.h5",
            "-o",
            where,
            "--force",
            "--format",
            "csv",
        )
        return hashlib.sha256(where.read_bytes()).hexdigest()


def weights_digest(path: Path) -> str:
    content = io.BytesIO(zipfile.ZipFile(path).read("model.weights.h5"))
    hashed = hashlib.sha256()

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            hashed.update(f"{name} {item.shape} {item.dtype}".encode())
            hashed.update(np.ascontiguousarray(item[()]))

    with h5py.File(content) as file:
        file.visititems(add)
    return hashed.hexdigest()


def make_data(folder: Path) -> None:
    """A sample that one process writes, images of noise, faces of noise."""
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir()
    (folder / "sample.h5").write_bytes((ROOT / "data" / "fairface_sample.h5").read_bytes())
    parts = {}
    for part, rows in (("train", 64), ("test", 32)):
        parts[f"x_{part}"] = rng.integers(0, 256, (rows, 32, 32, 3), np.uint8)
        parts[f"y_{part}"] = np.arange(rows) % 4
    np.savez(folder / "images.npz", **parts)
    photos = folder / "photos"
    photos.mkdir()
    for number in range(60):
        pixels = rng.integers(0, 256, (91, 91), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number % 80 + 1}_{number % 2}_0_{number}.png")
    subprocess.run(
        [
            sys.executable, ROOT / "bin" / "build-images", photos, "-o", folder / "faces.h5",
            "--size", "91", "--gray", "--split", "7", "2", "1",
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder / "data")
        ours, theirs = (
            Checkout(root.resolve(), folder / which, folder / "data")
            for which, root in (("ours", ROOT), ("theirs", args.other))
        )
        for checkout in (ours, theirs):
            checkout.train(args.quick)
        equal = {}
        digests, others = ours.digests(), theirs.digests()
        for run in sorted({*digests, *others}):
            equal[run] = digests.get(run) == others.get(run)
            print(f"{run:30} {digests.get(run, 'none')[:16]} {others.get(run, 'none')[:16]}")
        equal["samples and serve_mc"] = ours.outputs(ours.folder) == theirs.outputs(theirs.folder)
        equal["runs of the other"] = ours.outputs(theirs.folder) == ours.outputs(ours.folder)
        equal["answers of predict"] = ours.answers(theirs.folder) == theirs.answers(theirs.folder)
    print(json.dumps({"equal": all(equal.values()), "runs": len(digests), **equal}))


if __name__ == "__main__":
    main()
