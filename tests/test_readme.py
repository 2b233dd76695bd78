"""Every code block of the README runs, in order, in one folder; commands as a user types them."""

import os
import re
import subprocess
import sys

import pytest
from data_sets import ROOT, SHARED

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
    path = tmp_path_factory.mktemp("readme")
    for name in ("bin", "data"):
        (path / name).symlink_to(ROOT / name)
    if SHARED.is_dir():
        (path / "photos").symlink_to(SHARED / "faces" / "utkface")
        (path / "models").symlink_to(SHARED / "models")
        import cv2
        from insightface.data import get_image

        cv2.imwrite(str(path / "party.jpg"), get_image("t1"))
    return path


@pytest.mark.parametrize("number", range(len(CODE)))
def test_block(number, folder):
    kind, code = CODE[number]
    if needs_photos(code) and not SHARED.is_dir():
        pytest.skip("needs the photos and models")
    environment = os.environ | {
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = ["bash", "-ec", code] if kind == "bash" else [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Traceback" not in run.stderr
