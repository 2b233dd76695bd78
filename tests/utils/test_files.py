import errno
import os
import subprocess
import sys

import pytest

from kerasmlp.utils.checks import InputError
from kerasmlp.utils.files import (
    atomic_path,
    read_json,
    replaced_folder,
    sha256_file,
    write_json,
    write_text,
)


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"ä": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, float("nan"))
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert read_json(path) == {"ä": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_permissions_and_links_stay(tmp_path):
    path, link = tmp_path / "private.txt", tmp_path / "link.txt"
    write_text(path, "old")
    assert path.stat().st_mode & 0o777 == 0o600  # files tell of faces, whatever the umask
    path.chmod(0o640)
    link.symlink_to(path)
    write_text(link, "new")
    assert link.is_symlink() and path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    with atomic_path(tmp_path / "model.onnx", private=False) as temporary:
        temporary.write_text("for a server")
    assert (tmp_path / "model.onnx").stat().st_mode & 0o777 == 0o666 & ~_umask()


@pytest.mark.parametrize("linkable", [True, False])
def test_of_two_that_save_to_a_free_place_one_is_told(tmp_path, monkeypatch, linkable):
    if not linkable:
        monkeypatch.setattr(os, "link", _no_links)
    path = tmp_path / "a.txt"
    message = r"a.txt` must not exist yet\. Received: an existing file"
    with pytest.raises(InputError, match=message), atomic_path(path, replace=False) as mine:
        mine.write_text("mine")
        with atomic_path(path, replace=False) as other:
            other.write_text("theirs")
    assert path.read_text() == "theirs" and os.listdir(tmp_path) == ["a.txt"]
    assert path.stat().st_nlink == 1


def _no_links(*_):
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_a_pipe_is_named(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match="Received: a pipe, socket or device"):
        read_json(tmp_path / "a.json")


def test_long_names(tmp_path):
    path = tmp_path / ("n" * 250 + ".txt")
    write_text(path, "x")
    assert path.read_text() == "x"


def test_missing_folder(tmp_path):
    path = tmp_path / "none" / "a.txt"
    with pytest.raises(InputError, match=r"must lie in an existing folder\. Received: no folder"):
        write_text(path, "x")


def test_killed_while_writing(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    code = (
        "import os, sys\nfrom kerasmlp.utils.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as t:\n t.write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert path.read_text() == "old"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 200_000])
def test_bad_json(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a.json` must be a JSON file. Received: "):
        read_json(path)
    with pytest.raises(InputError, match="Received: no such file"):
        read_json(tmp_path / "b.json")


def test_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256_file(path).startswith("ba7816bf8f01cfea")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


_BETWEEN = """
import os, sys
from kerasmlp.utils.files import replaced_folder

target, action = sys.argv[1:]

def before(event, arguments):
    if event == "os.rename" and os.fspath(arguments[0]).endswith("new"):
        if action == "stop":
            raise KeyboardInterrupt
        os.makedirs(target + "/of another")

sys.addaudithook(before)
with replaced_folder(target) as folder:
    (folder / "new.txt").write_text("new")
"""


@pytest.mark.parametrize("action", ["stop", "take"])
def test_an_old_folder_outlives_what_fails_between_two_moves(tmp_path, action):
    target = tmp_path / "store"
    target.mkdir()
    (target / "old.txt").write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", _BETWEEN, target, action], capture_output=True, text=True
    )
    assert done.returncode != 0
    if action == "stop":
        assert "KeyboardInterrupt" in done.stderr
        assert os.listdir(tmp_path) == ["store"] and os.listdir(target) == ["old.txt"]
    else:
        assert "not empty" in done.stderr
        (found,) = tmp_path.rglob("old.txt")
        assert found.read_text() == "old" and os.listdir(target) == ["of another"]


def test_a_replaced_folder_keeps_permissions_and_links(tmp_path):
    target, link = tmp_path / "real", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    (target / "old.txt").write_text("old")
    (target / "old.txt").chmod(0o640)
    (target / "open.txt").write_text("what one file lets others read, the rest does not")
    target.chmod(0o750)
    with replaced_folder(link) as folder:
        (folder / "new.txt").write_text("new")
    assert link.is_symlink() and sorted(os.listdir(tmp_path)) == ["link", "real"]
    assert os.listdir(target) == ["new.txt"]
    assert target.stat().st_mode & 0o777 == 0o750
    assert (target / "new.txt").stat().st_mode & 0o777 == 0o640
