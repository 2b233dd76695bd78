"""Every code block of README and docs runs, page by page in one checkout, as a user types it."""

import importlib
import os
import re
import shutil
import subprocess

import pytest
from data_sets import ROOT, SHARED
from forked import fresh_python

import kerasmlp
from kerasmlp import SAMPLE, EmbeddingStore

NAV = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
PAGES = [ROOT / "README.md", *(p for name in NAV if (p := ROOT / "docs" / name).is_file())]
BLOCKS = [
    (path.stem, kind, code)
    for path in PAGES
    for kind, code in re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.M | re.S)
]
INSTALL = "python -m venv .venv && .venv/bin/pip install -q -e "


def as_it_runs(code):
    """The block; of one that installs first, what comes then, by the Python that is there."""
    return code.rsplit("&& ", 1)[1].replace(".venv/bin/", "") if code.startswith(INSTALL) else code


CODE = [
    pytest.param(
        kind,
        as_it_runs(code),
        id=f"{page}-{number}",
        marks=[] if page == PAGES[0].stem else pytest.mark.slow,
    )
    for number, (page, kind, code) in enumerate(BLOCKS)
    if kind in ("bash", "python") and not code.endswith("-m pytest\n")
]


def test_every_block_is_code_that_runs_or_output():
    assert {path.name for path in PAGES[1:]} == {p.name for p in (ROOT / "docs").glob("*.md")}
    assert {kind for _, kind, _ in BLOCKS} == {"bash", "python", "text"}
    installs = [code for _, _, code in BLOCKS if INSTALL in code]
    assert len(installs) == 2  # .ci/run executes these two
    assert all("@@" not in path.read_text() for path in PAGES)


def test_the_front_page_stays_short():
    assert len(PAGES[0].read_bytes()) < 8192


def test_pages_import_from_the_front_doors():
    """A name that a page shows is public: of the package or of one room."""
    code = "".join(code for _, kind, code in BLOCKS if kind == "python")
    modules = set(re.findall(r"^\s*(?:from|import) (kerasmlp\S*)", code, re.M))
    assert "kerasmlp" in modules
    assert all(name.count(".") <= 1 for name in modules), modules


def test_the_reference_has_every_public_name():
    listed = re.findall(r"^::: kerasmlp\.(\S+)$", (ROOT / "docs" / "api.md").read_text(), re.M)
    assert sorted(name for name in listed if "." not in name) == kerasmlp.__all__
    shown = {name.split(".")[-1] for name in listed}
    for room in ("callbacks", "layers", "runs", "serving", "training"):
        assert set(importlib.import_module(f"kerasmlp.{room}").__all__) <= shown, room


def test_links_lead_somewhere():
    """MkDocs holds those between pages; these leave them, or start from the front page."""
    others = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    for path in [*PAGES, *others]:
        text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", text):
            target = "".join(link)
            assert "://" in target or (path.parent / target).exists(), f"{path.name}: {target}"


def test_git_leaves_alone_what_the_commands_write():
    outputs = ["faces.h5", "faces.h5.partial/", "faces.h5.removal.json", "answers.jsonl", "served/"]
    outputs += ["runs/", "drawn/", "surest.png", "models/", "photos/", "party.jpg", "gender.keras"]
    ours = [
        "data/fairface_sample.h5",
        "kerasmlp/data/fairface_sample.h5",
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
    return any(name in code for name in ("photos", '"models"', "--model-dir", "faces.h5"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, request):
    """A checkout with some rows of the sample; `.ci/run` trains on all of it."""
    path = tmp_path_factory.mktemp("pages")
    for name in ("bin", "kerasmlp"):
        shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("*.h5"))
    shutil.copytree(ROOT / "data", path / "data", symlinks=True)
    # The other pages promise risks, for which fewer than 6,000 rows are not enough.
    rows = 1500 if request.config.option.markexpr == "not slow" else 6000
    EmbeddingStore.open(SAMPLE).subset(range(rows)).save(path / SAMPLE.relative_to(ROOT))
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


@pytest.mark.parametrize(("kind", "code"), CODE)
def test_block(kind, code, run):
    for tracker in re.findall(r"^import (mlflow|wandb)$", code, re.M):
        pytest.importorskip(tracker)
    if needs_photos(code) and not SHARED.is_dir():
        pytest.skip("needs the photos and models")
    exit_code, errors = run(kind, code)
    assert exit_code == 0, errors[-3000:]
    assert "Traceback" not in errors
