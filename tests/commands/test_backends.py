"""Keras on JAX trains and answers where TensorFlow is missing; each opens the other's runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import EmbeddingStore, Predictor
from kerasmlp.cli import run_command

if keras.backend.backend() != "jax":
    pytest.skip("is about JAX", allow_module_level=True)

MISSING = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, *args):
        return None if name.split(".")[0] == "tensorflow" else super().find_spec(name, *args)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
"""A `sitecustomize`, which every process of Python begins with, that of a worker too."""


def python(code: str, *folders: Path, backend: str) -> str:
    path = os.pathsep.join(map(str, (*folders, Path(__file__).parents[2])))
    environment = dict(os.environ, PYTHONPATH=path, KERAS_BACKEND=backend, KERASMLP_TRACEBACK="1")
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("backends")
    make_store(rows=300).save(path / "store.h5")
    (path / "missing").mkdir()
    (path / "missing" / "sitecustomize.py").write_text(MISSING)
    return path


def training(folder: Path, name: str) -> tuple[str, list[str]]:
    words = ["--store", f"{folder}/store.h5", "--epochs", "2", "--run-dir", f"{folder}/{name}"]
    return "train-gender", words


@pytest.fixture(scope="module")
def of_jax(folder):
    """What the commands write where TensorFlow is not installed."""
    store, run, grid = (f"{folder}/{name}" for name in ("store.h5", "jax", "grid"))
    folds = ["--seeds", "1", "--folds", "2", "--workers", "1", "--label", "gender"]
    commands = [
        training(folder, "jax"),
        ("evaluate", [run, store, "--num-samples", "4"]),
        ("predict", [run, store, "-o", f"{folder}/answers.jsonl", "--num-samples", "4"]),
        ("cross-validate", [*folds, "--store", store, "--epochs", "9", "--run-dir", grid]),
    ]
    code = (
        "import contextlib, io, sys\nfrom kerasmlp.cli import run_command\n"
        "with contextlib.redirect_stderr(io.StringIO()) as said:\n"
        f"    assert run_command('serve', [{grid!r}]) == 2\n"
        f"codes = [run_command(*command) for command in {commands!r}]\n"
        "assert codes == [0] * 4, codes\n"
        "assert 'tensorflow' not in sys.modules\n"
        "print(said.getvalue())\n"
    )
    return python(code, folder / "missing", backend="jax")


def test_without_tensorflow(folder, of_jax):
    report = json.loads((folder / "jax" / "report.json").read_text())
    assert report["backend"] == "jax" and "tensorflow" not in report["versions"]
    assert report["versions"]["jax"]
    answers = (folder / "answers.jsonl").read_text().splitlines()
    assert len(answers) == 300 and 0.5 <= json.loads(answers[0])["gender"]["probability"] <= 1
    runs = json.loads((folder / "grid" / "report.json").read_text())["runs"]
    assert [run["fold"] for run in runs] == [0, 1]
    assert all(run["test_accuracy"] > 0.6 for run in runs)


def test_what_needs_tensorflow_says_so(of_jax):
    said = "`tensorflow` must be installed (without it trainings on embeddings and their answers"
    assert said in of_jax


def test_each_opens_the_runs_of_the_other(folder, of_jax, capsys):
    of_keras = training(folder, "tensorflow")
    code = (
        "import numpy as np\nfrom kerasmlp.cli import run_command\n"
        f"assert run_command(*{of_keras!r}) == 0\n"
        "from kerasmlp import EmbeddingStore, Predictor\n"
        f"store = EmbeddingStore.open('{folder}/store.h5')\n"
        "for name in ('jax', 'tensorflow'):\n"
        f"    predictor = Predictor('{folder}/' + name)\n"
        "    (chunk,) = predictor.uncertainty(store, num_samples=8, seed=3)\n"
        "    both = predictor.probabilities(store), chunk['mean']\n"
        f"    np.save('{folder}/' + name, np.stack(both))\n"
    )
    python(code, backend="tensorflow")
    store = EmbeddingStore.open(folder / "store.h5")
    for name in ("jax", "tensorflow"):
        predictor, expected = Predictor(folder / name), np.load(folder / f"{name}.npy")
        np.testing.assert_allclose(predictor.probabilities(store), expected[0], atol=1e-5)
        (chunk,) = predictor.uncertainty(store, num_samples=8, seed=3)
        np.testing.assert_allclose(chunk["mean"], expected[1], atol=1e-5)
    # Finished or not, a run goes on under the backend that began it.
    name, words = training(folder, "tensorflow")
    assert run_command(name, [*words, "--resume"]) == 2
    assert "backend" in capsys.readouterr().err
