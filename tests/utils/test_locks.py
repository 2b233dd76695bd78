"""Two processes in one folder: the second is told; without locks, both are told to take care."""

import errno
import fcntl
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kerasmlp.data.stores.partial_store import PartialStore
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.serving.export.version_folder import new_version
from kerasmlp.utils.checks import InputError
from kerasmlp.utils.locks import lock_file


def run(folder):
    with RunFolder(folder / "run").working({"seed": 0}, resume=False, force=False):
        yield


def journal(folder):
    with PartialStore(folder / "a.h5", settings={}, width=8, resume=True):
        yield


def version(folder):
    with new_version(folder / "versions"):
        yield


PLACES = pytest.mark.parametrize("place", [run, journal, version])


@PLACES
def test_the_second_is_told(tmp_path, place, capsys):
    first = place(tmp_path)
    next(first)
    with pytest.raises(InputError, match="must not be in use"):
        next(place(tmp_path))
    first.close()
    assert capsys.readouterr().err == ""


@PLACES
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EAGAIN])
def test_without_locks_the_work_goes_on(tmp_path, place, number, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    work = place(tmp_path)
    next(work)
    work.close()
    said = capsys.readouterr().err
    assert said.startswith("note: the file system of ") and said.count("\n") == 1
    assert f"has no locks ({os.strerror(number)}): let no two processes work there at once" in said


def test_a_lock_that_is_removed_is_held_by_one_at_a_time(tmp_path):
    """As a run that comes to nothing removes its folder while others wait for it."""
    path, inside, most, done = tmp_path / "run" / ".lock", [], [], []

    def work():
        while len(done) < 300:
            lock = lock_file(path)
            if lock is None:
                continue
            with lock:
                inside.append(1)
                most.append(len(inside))
                time.sleep(0)
                inside.pop()
                done.append(1)
                path.unlink()
                try:
                    path.parent.rmdir()
                except OSError as error:
                    # another has begun, or has ended already
                    assert error.errno in (errno.ENOTEMPTY, errno.ENOENT)

    with ThreadPoolExecutor(4) as pool:
        for thread in [pool.submit(work) for _ in range(4)]:
            thread.result()
    assert max(most) == 1 and len(done) >= 300


def test_folders_are_private(tmp_path):
    for place in (run, journal):
        work = place(tmp_path)
        next(work)
        work.close()
    modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    assert modes["run"] == modes["a.h5.partial"] == 0o700
    assert modes[".lock"] == modes["lock"] == modes["config.json"] == 0o600
