"""Every code block of the README runs, in order, in one checkout; commands as a user types them."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from data_sets import ROOT, SHARED

from kerasmlp import EmbeddingStore

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
INSTALLS = [code for kind, code in BLOCKS if kind == "bash" and "pip install" in code]
CODE = [(k, c) for k, c in BLOCKS if k in ("bash", "python") and c not in INSTALLS]


def test_every_block_is_code_that_runs_or_output():
    assert {kind for kind, _ in BLOCKS} == {"bash", "python", "text"}
    assert len(INSTALLS) == 2  # .ci/run executes these
    assert "@@" not in (ROOT / "README.md").read_text()


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
    sample.subset(range(6000)).save(path / "data" / "fairface_sample.h5")
    if SHARED.is_dir():
        (path / "photos").symlink_to(SHARED / "faces" / "utkface")
        (path / "models").symlink_to(SHARED / "models")
        import cv2
        from insightface.data import get_image

        cv2.imwrite(str(path / "party.jpg"), get_image("t1"))
    return path


ENVIRONMENT = os.environ | {
    "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTRAOP_THREADS": "1",  # the tests of other files keep the other core busy
}


@pytest.fixture(scope="module")
def run_python(folder, tmp_path_factory):
    """Runs code in a process of its own; returns exit code and standard error."""
    errors = tmp_path_factory.mktemp("errors") / "errors.txt"
    command = [sys.executable, ROOT / "tests" / "forked.py"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, **pipes) as process:

        def run(code):
            print(json.dumps([code, str(errors)]), file=process.stdin, flush=True)
            return int(process.stdout.readline()), errors.read_text()

        yield run
        process.stdin.close()


def run_bash(code, folder):
    command = ["bash", "-ec", code]
    run = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    return run.returncode, run.stderr


@pytest.mark.parametrize("number", range(len(CODE)))
def test_block(number, folder, run_python):
    kind, code = CODE[number]
    if needs_photos(code) and not SHARED.is_dir():
        pytest.skip("needs the photos and models")
    exit_code, errors = run_python(code) if kind == "python" else run_bash(code, folder)
    assert exit_code == 0, errors[-3000:]
    assert "Traceback" not in errors
