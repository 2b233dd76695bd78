"""Home folders that cannot be written: one sentence, and caches that leave nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kerasmlp.utils.home import require_caches

NAMES = ("MPLCONFIGDIR", "KERAS_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")


def test_no_home(tmp_path):
    code = (
        "import os; from kerasmlp.utils.home import require_caches\n"
        "require_caches(); import matplotlib\n"
        "places = matplotlib.get_configdir(), matplotlib.get_cachedir(), os.environ['KERAS_HOME']\n"
        "assert all(os.access(p, os.W_OK) for p in places); print(*places)"
    )
    home = tmp_path / "none"
    environment = {k: v for k, v in os.environ.items() if k not in NAMES} | {"HOME": str(home)}
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folders = {Path(p).parent for p in done.stdout.split()}
    assert len(folders) == 1 and not folders.pop().exists()  # gone with the process
    assert done.stderr.startswith(f"note: the home folder `{home}` is not there: libraries keep")
    assert done.stderr.count("\n") == 1 and not home.exists()


@pytest.fixture
def read_only(tmp_path):
    if os.geteuid():
        tmp_path.chmod(0o500)
        yield tmp_path
        tmp_path.chmod(0o700)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a small file system")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_home_that_cannot_be_written(read_only, monkeypatch, capsys):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(read_only))
    require_caches()
    said = capsys.readouterr().err
    assert said.startswith(f"note: the home folder `{read_only}` cannot be written: libraries keep")
    assert all(os.access(os.environ[name], os.W_OK) for name in NAMES[:2])
    require_caches()
    assert capsys.readouterr().err == ""  # said once
