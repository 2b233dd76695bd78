"""Every code block of the README runs, in order, in one checkout; commands as a user types them."""

import os
import re
import shutil
import subprocess

import pytest
from data_sets import ROOT, SHARED
from forked import fresh_python

from kerasmlp import EmbeddingStore

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
INSTALLS = [code for kind, code in BLOCKS if kind == "bash" and "pip install" in code]
CODE = [(k, c) for k, c in BLOCKS if k in ("bash", "python") and c not in INSTALLS]


def test_every_block_is_code_that_runs_or_output():
    assert {kind for kind, _ in BLOCKS} == {"bash", "python", "text"}
    assert len(INSTALLS) == 2  # .ci/run executes these
    assert "@@" not in (ROOT / "README.md").read_text()


def test_git_leaves_alone_what_the_commands_write():
    outputs = ["faces.h5", "faces.h5.partial/", "faces.h5.removal.json", "answers.jsonl", "served/"]
    outputs += ["runs/", "drawn/", "surest.png", "models/", "photos/", "party.jpg", "gender.keras"]
    ours = [
        "data/fairface_sample.h5",
        "docs/reliability.png",
        "docs/mnist_layerout.csv",
        "setup.py",
    ]
    asked = subprocess.run(
        ["git", "check-ignore", "--no-index", *outputs, *ours],
        cwd=ROOT, text=True, capture_output=True, check=False,
    )  # fmt: skip
    if asked.returncode > 1:
        pytest.skip("needs a git checkout")
    assert asked.stdout.split() == outputs


def needs_photos(code):
    return any(name in code for name in ("photos", "models", "faces.h5", "runs/sample", "served/"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkout with 6,000 rows of the sample; `.ci/run` trains on all of it."""
    path = tmp_path_factory.mktemp("readme")
    for name in ("bin", "kerasmlp"):
        shutil.copytree(ROOT / name, path / name)
    (path / "data").mkdir()
    sample = EmbeddingStore.open(ROOT / "data" / "fairface_sample.h5")
    # Fewer could not promise the risks that are asked for.
    sample.subset(range(6000)).save(path / "data" / "fairface_sample.h5")
    if SHARED.is_dir():
        (path / "photos").symlink_to(SHARED / "faces" / "utkface")
        (path / "models").symlink_to(SHARED / "models")
        import cv2
        from insightface.data import get_image

        cv2.imwrite(str(path / "party.jpg"), get_image("t1"))
    return path


@pytest.fixture(scope="module")
def run(folder):
    """Runs a block with `python` and `bash` as a user does; returns exit code and errors."""
    environment = os.environ | {
        "PATH": os.pathsep.join([os.path.dirname(fresh_python()), os.environ["PATH"]]),
        "TF_NUM_INTRAOP_THREADS": "1",  # the tests of other files keep the other core busy
    }

    def run(kind, code):
        words = ["bash", "-ec"] if kind == "bash" else [fresh_python(), "-c"]
        how = {"capture_output": True, "text": True, "cwd": folder, "env": environment}
        done = subprocess.run([*words, code], **how)
        return done.returncode, done.stderr

    return run


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CODE)))
def test_block(number, run):
    kind, code = CODE[number]
    if needs_photos(code) and not SHARED.is_dir():
        pytest.skip("needs the photos and models")
    exit_code, errors = run(kind, code)
    assert exit_code == 0, errors[-3000:]
    assert "Traceback" not in errors
