"""Run folders: one per command that works, complete when `DONE` is there."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kerasmlp import __version__
from kerasmlp.runs.evaluation_folder import is_evaluation_of_run
from kerasmlp.utils import schema
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.files import MOST_JSON_BYTES, parse_json, read_json, what_is, write_json
from kerasmlp.utils.locks import lock_file
from kerasmlp.utils.manifest import check_against_manifest, read_manifest, write_manifest

FORMAT = "kerasmlp.run"
FILES = (
    "config.json", "report.json", "history.csv", "model.keras", "checkpoint.npz",
    "calibration.json", "curves.png", "confusion_matrix.png", "runs.csv", "table.md",
    "seen.npy", "best.json", "trials.csv", "trials.png", "ages.png", "faces.png", "DONE",
)  # fmt: skip
_UNHASHED = ("DONE", "checkpoint.npz")  # the one holds the hashes, the other goes when all is done
_FACTS = {"hashes": "sha256"}
_OTHER = (*_FACTS, "norm_1_share")
"""What follows from the settings and the data: runs of older versions are without."""
_CONFIG = {"format": schema.one_of(FORMAT)}
_REPORT = {"temperature": schema.optional(schema.TEMPERATURE)}
_INNER = re.compile(r"seed\d+_fold\d+|[a-z-]+_seed\d+")
_TEMPORARY = re.compile(rf"\.({'|'.join(n.split('.')[0] for n in FILES)})\.\w{{8}}(\.\w+)?")
_SEARCH = "search"  # state and checkpoints of Keras Tuner, ours where the run is a search
_SEARCH_KINDS = ("tuning", "age-cnn-tuning")
_VERSIONS_OF = ("tensorflow", "keras", "keras-tuner", "numpy", "h5py")


class RunFolder:
    """One run: `config.json`, `report.json`, `history.csv`, `model.keras`, pictures, `DONE` last.

    `DONE` holds the SHA-256 of every other file, as `sha256sum -c DONE` takes it; whoever
    reads a file of a finished run holds it against that, and takes what was read then. In
    runs of older versions, whose `config.json` names no `hashes`, it is empty, and their
    files are taken as they are.

    Args:
        path: The folder.

    Example:

    >>> import tempfile
    >>> run = RunFolder(tempfile.mkdtemp())
    >>> with run.working({"seed": 0}, resume=False, force=False):
    ...     run.finish({"accuracy": 0.5})
    >>> run.done, run.report()["accuracy"]
    (True, 0.5)
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def done(self) -> bool:
        return (self / "DONE").is_file()

    def __repr__(self) -> str:
        state = "finished" if self.done else "not finished" if self.path.is_dir() else "not there"
        return f"RunFolder({str(self.path)!r}, {state})"

    def config(self) -> dict:
        return self.read_json("config.json", _CONFIG, "that of a run")

    def report(self) -> dict:
        return self.read_json("report.json", _REPORT, "that of a run")

    def read_json(self, name: str, kinds: schema.Schema, what: str) -> dict:
        """Reads an object that is as it was written, and as the schema says.

        Raises:
            InputError: naming the file.
        """
        content = self.read_bytes(name, MOST_JSON_BYTES + 1)
        if content is None:
            reject_file(self / name, "must be a JSON file", what_is(self / name))
        value = parse_json(self / name, content)
        if name == "config.json" and isinstance(value, dict) and "hashes" in value:
            self._require_hashes()
        return schema.check_object(self / name, value, kinds, what)

    def read_optional_json(self, name: str) -> Any:
        """As `read_json`, of any value; None where there is no such file and was none."""
        if not os.path.lexists(self / name):
            self.read_bytes(name)  # which says so, if there was one
            return None
        return self.read_json(name, {}, "an object")

    def read_bytes(self, name: str, most_bytes: int = -1) -> bytes | None:
        """A file that is what it was when the run was finished; None where none is there.

        Raises:
            InputError: naming the file, if it is another, is gone or came later.
        """
        content = None
        if (self / name).is_file():
            with open(self / name, "rb") as file:
                content = file.read(most_bytes)
        check_against_manifest(self / "DONE", name, content)
        return content

    def check_files(self) -> None:
        """As `read_bytes`, of all that the run has written but pictures: nothing comes of them."""
        self.config()
        for name in sorted({*FILES, *read_manifest(self / "DONE")} - {*_UNHASHED}):
            if not name.endswith(".png"):
                self.read_bytes(name)

    def _require_hashes(self) -> None:
        if self.done and not read_manifest(self / "DONE"):
            requirement = "must hold a hash for each file of the run"
            reject_file(self / "DONE", requirement, "an empty file")

    def require_done(self) -> None:
        """Rejects what is no finished run, or one that has lost its hashes."""
        if not self.path.is_dir():
            reject_file(self.path, "must be a run folder", what_is(self.path))
        if not self.done:
            reject_file(self.path, "must be a finished run", "a folder without DONE")
        self.config()

    def require_model(self) -> None:
        """Rejects what is no finished training, such as a search or a cross-validation."""
        self.require_done()
        if not (self / "model.keras").is_file():
            reject_file(self.path, "must be the folder of one training", "one without model.keras")

    @contextmanager
    def working(self, config: dict, *, resume: bool, force: bool) -> Iterator[None]:
        """Holds the folder for this process while a run works in it.

        Args:
            config: Decides the result; a resumed run must have the same.
            resume: Go on with what is there.
            force: Delete what is there.

        Raises:
            InputError: if the folder is used otherwise, by another run, or
                right now.
        """
        if self.path.exists() and not self.path.is_dir():
            reject_file(self.path, "must be a folder", "a file")
        locked_before = (self / ".lock").exists()
        lock = lock_file(self / ".lock")
        if lock is None:
            reject_file(self.path, "must not be in use", "a run that is working in it now")
        with lock:
            config = {"format": FORMAT, **config}
            try:
                if force:
                    self._clear()
                fresh = self._claim(config, resume)
            except InputError:
                if not locked_before:
                    (self / ".lock").unlink()
                raise
            try:
                yield
            except (InputError, OSError):
                # Nothing came of it: the folder must not stand in the way of the next try.
                inner = any(p.is_dir() for p in self.path.iterdir())
                if fresh and not (self / "checkpoint.npz").exists() and not inner:
                    self._clear()
                    (self / ".lock").unlink()
                    with suppress(OSError):  # another run has begun in it
                        self.path.rmdir()
                raise

    def _clear(self) -> None:
        """Deletes a run with its evaluations, and refuses where there is anything else."""
        inner, evaluations = self._inner_runs(), self._evaluations()
        names = self._own_names()
        for run in inner:  # all are looked through before the first file goes
            run._own_names()
        # DONE goes first: a half-deleted folder must not look finished. config.json goes
        # last: it says that the folder is ours to delete.
        for name in sorted(names, key=lambda n: (n == "config.json") - (n == "DONE")):
            if name == "config.json":
                for inner_folder in (*evaluations, *([_SEARCH] if self._search() else [])):
                    shutil.rmtree(self / inner_folder)
                for run in inner:
                    run._clear()
                    (run / ".lock").unlink(missing_ok=True)
                    run.path.rmdir()
            (self / name).unlink()

    def _own_names(self) -> list[str]:
        others = {".lock", *self._evaluations(), *(run.path.name for run in self._inner_runs())}
        if self._search():
            others.add(_SEARCH)
        names = sorted({p.name for p in self.path.iterdir()} - others)
        foreign = [n for n in names if n not in FILES and not _TEMPORARY.fullmatch(n)]
        if foreign or ("config.json" in names and not self._is_run()):
            came = f"a folder with {(foreign or names)[0]}"
            reject_file(self.path, "must hold nothing but a run to be replaced", came)
        return names

    def _evaluations(self) -> list[str]:
        return [p.name for p in sorted(self.path.iterdir()) if is_evaluation_of_run(p)]

    def _inner_runs(self) -> list[RunFolder]:
        """The runs of a cross-validation or an experiment, each in a folder of its own."""
        if not (self / "config.json").is_file():
            return []
        paths = [p for p in sorted(self.path.iterdir()) if _INNER.fullmatch(p.name)]
        return [RunFolder(p) for p in paths if p.is_dir() and not p.is_symlink()]

    def _search(self) -> Path | None:
        """The folder of Keras Tuner in that of a search."""
        path = self / _SEARCH
        if not path.is_dir() or path.is_symlink() or not (self / "config.json").is_file():
            return None
        return path if self._plain_config().get("kind") in _SEARCH_KINDS else None

    def _is_run(self) -> bool:
        return self._plain_config().get("format") == FORMAT

    def _plain_config(self) -> dict:
        """Also of a damaged run: it may be replaced."""
        return schema.check_object(self / "config.json", read_json(self / "config.json"), {})

    def _claim(self, config: dict, resume: bool) -> bool:
        """Makes the folder that of this run; returns whether it is a new one."""
        names = sorted(p.name for p in self.path.iterdir() if p.name != ".lock")
        left = [n for n in names if _TEMPORARY.fullmatch(n)]  # by a process that was killed
        there = [n for n in names if n not in left]
        if there and not resume:
            reject_file(
                self.path,
                "must be empty (or give --resume or --force)",
                f"a folder with {there[0]}",
            )
        if there and not ((self / "config.json").is_file() and self._is_run()):
            reject_file(self.path, "must be a run folder to be resumed", f"one with {there[0]}")
        for name in left:
            (self / name).unlink()
        if not there:
            write_json(self / "config.json", config | _FACTS)
            return True
        settings = [
            {k: v for k, v in c.items() if k not in _OTHER} for c in (self.config(), config)
        ]
        schema.check_same(self.path, *settings)
        return False

    def finish(self, report: dict) -> None:
        """Writes the report, then `DONE` with the hashes of all files."""
        (self / "DONE").unlink(missing_ok=True)  # of a report that is written once more
        write_json(self / "report.json", report)
        names = [n for n in FILES if n not in _UNHASHED and (self / n).is_file()]
        write_manifest(self / "DONE", names)


def next_free(stem: str | os.PathLike) -> Path:
    """Returns `stem`, or `stem-2`, `stem-3`, … where that is taken."""
    stem, number = Path(stem), 1
    path = stem
    while path.exists():
        number += 1
        path = stem.with_name(f"{stem.name}-{number}")
    return path


def environment() -> dict[str, Any]:
    """Versions and command line, for a report."""
    installed = {name: _version(name) for name in _VERSIONS_OF}
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {
            "kerasmlp": __version__,
            "python": platform.python_version(),
            **{k: v for k, v in installed.items() if v},
        },
        "cpu_count": os.cpu_count(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
