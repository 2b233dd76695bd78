"""What is installed with the package, and where the sample lies."""

from data_sets import ROOT
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
