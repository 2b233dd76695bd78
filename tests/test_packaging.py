"""What a wheel and a source distribution hold, and that the wheel alone is enough to train."""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from data_sets import ROOT
from forked import fresh_python
from setuptools import Distribution

FILES = {str(p.relative_to(ROOT)) for p in (ROOT / "kerasmlp").rglob("*.*") if p.suffix != ".pyc"}


def test_everything_in_the_package_is_installed(monkeypatch):
    monkeypatch.chdir(ROOT)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files(["setup.cfg"])
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    data = {f"{folder}/{name}" for _, folder, _, names in build.data_files for name in names}
    assert data | set(build.get_source_files()) == FILES


def test_the_sample_of_a_checkout_is_a_link():
    """One copy, at its old place too."""
    link = ROOT / "data" / "fairface_sample.h5"
    assert str(link.readlink()) == "../kerasmlp/data/fairface_sample.h5"


def python(*words, cwd, **values):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | values
    done = subprocess.run(words, cwd=cwd, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution of a checkout, and the wheel made of that."""
    path = tmp_path_factory.mktemp("built")
    checkout, wheels = path / "checkout", path / "wheels"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("kerasmlp", "data", "tests"):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=ignore)
    for name in ("setup.py", "setup.cfg", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout / name)
    python(sys.executable, "setup.py", "-q", "sdist", cwd=checkout)
    (source,) = (checkout / "dist").glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    python(*pip, "-w", wheels, source, cwd=path)
    (wheel,) = wheels.iterdir()
    return source, wheel


@pytest.mark.slow
def test_what_is_built_holds_the_package_and_its_licences(built):
    with tarfile.open(built[0]) as source:
        names = {name.partition("/")[2] for name in source.getnames() if not name.endswith("/")}
    beside = {n for n in names if n and not n.startswith("kerasmlp")}
    files = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "data/README.md", "setup.cfg"}
    assert names >= FILES and beside - {"data"} == files | {"setup.py"}
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        head = email.message_from_bytes(wheel.read(about))
        licences = "".join(wheel.read(n).decode() for n in names if "README.md" in n)
    assert {n for n in names if not n.startswith("kerasmlp-")} == FILES
    assert "FairFace" in licences and "CC BY 4.0" in licences
    assert len(head.get_all("License-File")) == 2
    shown = head.get_payload()
    assert shown.startswith("# kerasmlp\n") and "<img" not in shown
    assert re.findall(r"\]\((?!https:)", shown) == []


@pytest.mark.slow
def test_the_wheel_alone_trains_in_an_empty_folder(built, tmp_path):
    """On the libraries that are here, from where it was installed."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, built[1])
    python(*pip, cwd=tmp_path)
    own = {"cwd": empty, "PYTHONPATH": str(site)}
    where = python(fresh_python(), "-c", "import kerasmlp; print(kerasmlp.SAMPLE)", **own)
    assert where == f"{site}/kerasmlp/data/fairface_sample.h5\n"
    command = (fresh_python(), site / "bin" / "kerasmlp", "train-age", "--epochs", "1", "--json")
    said = python(*command, **own)
    assert "runs/age: 1 epochs" in said and "16650 rows trained on, 1850 kept back" in said
    assert json.loads(said.splitlines()[-1])["accuracy"] > 0.3
    assert [p.name for p in empty.iterdir()] == ["runs"]
