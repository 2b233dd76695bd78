"""Run folders: one per command that works, complete when `DONE` is there."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kerasmlp.runs.evaluation_folder import is_evaluation_of_run
from kerasmlp.runs.older_runs import in_new_words
from kerasmlp.runs.own_files import NAMES, is_left, look_through
from kerasmlp.utils import schema
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.files import MOST_JSON_BYTES, parse_json, read_json, what_is, write_json
from kerasmlp.utils.locks import lock_file
from kerasmlp.utils.manifest import check_against_manifest, read_manifest, write_manifest

FORMAT = "kerasmlp.run"
_CHECKPOINTS = ("checkpoint.npz", "refit.npz")  # they go when all is done
_FILES = ("config.json", "report.json", "history.csv", "model.keras", *_CHECKPOINTS, "DONE")
IN_USE = "must not be in use"
EVENTS = "tensorboard"
"""The folder of what every epoch logged."""
_UNHASHED = ("DONE", *_CHECKPOINTS)  # the one holds the hashes
_FACTS = {"hashes": "sha256"}
_OTHER = (*_FACTS, "files", "norm_1_share", "in_memory")
"""What follows from the settings and the data, or was decided as a run began: runs of older
versions are without."""
_CONFIG = {"format": schema.one_of(FORMAT), "kind": schema.text(100)}
_NAMES = {"files": NAMES}
_REPORT = {"temperature": schema.optional(schema.TEMPERATURE)}


class RunFolder:
    """One run: `config.json`, `report.json`, `history.csv`, `model.keras`, pictures, `DONE` last.

    `config.json` says its `kind`, and in `files` what else it may write: nobody needs to know
    who wrote a run to replace it. `checkpoint.npz` is what an unfinished one goes on from.

    `DONE` holds the SHA-256 of every other file, as `sha256sum -c DONE` takes it; whoever
    reads a file of a finished run holds it against that, and takes what was read then. In
    runs of older versions, whose `config.json` names no `hashes`, it is empty, and their
    files are taken as they are.

    Args:
        path: The folder.

    Example:

    >>> import tempfile
    >>> run = RunFolder(tempfile.mkdtemp())
    >>> with run.working({"kind": "mine", "seed": 0}, resume=False, force=False):
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
        config = in_new_words(self.read_json("config.json", {}, "that of a run"))
        return schema.check_object(self / "config.json", config, _CONFIG, "that of a run")

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
        for name in sorted({*self._names(), *read_manifest(self / "DONE")} - {*_UNHASHED}):
            if not (name.endswith(".png") or "/" in name or "*" in name):
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

    def require_kind(self, kind: str, what: str) -> None:
        """Rejects what is no finished run of a kind.

        Args:
            kind: As `config.json` says it.
            what: Such a run in words.
        """
        self.require_done()
        if (came := self.config()["kind"]) != kind:
            reject_file(self.path, f"must be {what}", f"a run of kind {came!r}")

    @contextmanager
    def working(
        self, config: dict, *, resume: bool | None, force: bool, files: Iterable[str] = ()
    ) -> Iterator[None]:
        """Holds the folder for this process while a run works in it.

        Args:
            config: Decides the result; a resumed run must have the same.
            resume: Go on with what is there; None where no run of the kind can.
            force: Delete what is there.
            files: That the run may write, beside those of any run. `*` stands for any part
                of a name; `a/` is the folder of a run in it, `a/**` one with all that is in
                it, `a/b` a file in one.

        Raises:
            InputError: if the folder is used otherwise, by another run, or
                right now.
        """
        schema.check_object(self / "config.json", {"files": (files := list(files))}, _NAMES)
        if self.path.exists() and not self.path.is_dir():
            reject_file(self.path, "must be a folder", "a file")
        locked_before = (self / ".lock").exists()
        if (lock := lock_file(self / ".lock")) is None:
            reject_file(self.path, IN_USE, "a run that is working in it now")
        with lock:
            config = in_new_words({"format": FORMAT, **config})
            try:
                if force:
                    self._clear()
                fresh = self._claim(config, resume, files)
            except InputError:
                if not locked_before:
                    (self / ".lock").unlink()
                raise
            try:
                yield
            except (InputError, OSError):
                # Nothing came of it: the folder must not stand in the way of the next try.
                inner = any(p.is_dir() and p.name != EVENTS for p in self.path.iterdir())
                if fresh and not (self / "checkpoint.npz").exists() and not inner:
                    self._clear()
                    (self / ".lock").unlink()
                    with suppress(OSError):  # another run has begun in it
                        self.path.rmdir()
                raise

    def _clear(self) -> None:
        """Deletes a run with its evaluations, and refuses where there is anything else."""
        found = self._looked_through()
        # DONE goes first: a half-deleted folder must not look finished. config.json goes
        # last: it says that the folder is ours to delete.
        (self / "DONE").unlink(missing_ok=True)
        for what, path in found:
            if what == "run":
                RunFolder(path)._clear()
                (path / ".lock").unlink(missing_ok=True)
                path.rmdir()
            elif what == "tree":
                shutil.rmtree(path)
            elif what == "folder":
                path.rmdir()
            elif path not in (self / "DONE", self / ".lock", self / "config.json"):
                path.unlink()
        (self / "config.json").unlink(missing_ok=True)

    def _looked_through(self) -> list[tuple[str, Path]]:
        """All that is in the folder and in inner runs, which must be theirs."""
        found = list(look_through(self.path, (".lock", *self._names()), is_evaluation_of_run))
        foreign = [path for what, path in found if what == "foreign"]
        if (self / "config.json").is_file() and not self._is_run():
            foreign.append(self / "config.json")
        if foreign:
            came = f"a folder with {foreign[0].relative_to(self.path)}"
            reject_file(self.path, "must hold nothing but a run to be replaced", came)
        for what, path in found:
            if what == "run":
                RunFolder(path)._looked_through()
        return found

    def _names(self) -> tuple[str, ...]:
        """Of what the run may write; see `working`."""
        if not (self / "config.json").is_file():
            return ("config.json",)
        config = self._plain_config()
        if "files" in config:
            schema.check_object(self / "config.json", config, _NAMES)
        return (*_FILES, *in_new_words(config)["files"])

    def _is_run(self) -> bool:
        return self._plain_config().get("format") == FORMAT

    def _plain_config(self) -> dict:
        """Also of a run whose other settings are damaged: it may be replaced."""
        return schema.check_object(self / "config.json", read_json(self / "config.json"), {})

    def _claim(self, config: dict, resume: bool | None, files: list[str]) -> bool:
        """Makes the folder that of this run; returns whether it is a new one."""
        paths = sorted(p for p in self.path.iterdir() if p.name != ".lock")
        names = self._names() if paths else ()
        left = [p for p in paths if is_left(p, names)]  # by a process that was killed
        there = [p.name for p in paths if p not in left]
        if there and not resume:
            ways = "--force" if resume is None else "--resume or --force"
            reject_file(self.path, f"must be empty (or give {ways})", f"a folder with {there[0]}")
        if there and not ((self / "config.json").is_file() and self._is_run()):
            reject_file(self.path, "must be a run folder to be resumed", f"one with {there[0]}")
        if links := [p.name for p in paths if p.is_symlink()]:
            reject_file(self.path, "must hold no links, to be resumed", links[0])
        for path in left:
            path.unlink()
        if not there:
            write_json(self / "config.json", config | _FACTS | {"files": files})
            return True
        settings = [
            {k: v for k, v in c.items() if k not in _OTHER} for c in (self.config(), config)
        ]
        schema.check_same(self.path, *settings)
        return False

    def take_files(self, files: Iterable[str]) -> None:
        """Has the run write files that it did not know of; it is finished no more.

        Args:
            files: As of `working`, in whose block this is called.
        """
        (self / "DONE").unlink(missing_ok=True)
        config = self._plain_config()
        known = in_new_words(config)["files"]
        if more := [name for name in files if name not in known]:
            write_json(self / "config.json", config | {"files": [*known, *more]})

    def finish(self, report: dict) -> None:
        """Writes the report, then `DONE` with the hashes of all files; checkpoints go."""
        (self / "DONE").unlink(missing_ok=True)  # of a report that is written once more
        write_json(self / "report.json", report)
        found = look_through(self.path, self._names(), is_evaluation_of_run)
        names = [path.name for what, path in found if what == "file" and path.parent == self.path]
        names = [n for n in names if n[0] != "." and n not in _UNHASHED]
        write_manifest(self / "DONE", sorted(names, key=lambda n: n not in _FILES))
        for name in _CHECKPOINTS:
            (self / name).unlink(missing_ok=True)


def next_free(stem: str | os.PathLike) -> Path:
    """Returns `stem`, or `stem-2`, `stem-3`, … where that is taken."""
    stem, number = Path(stem), 1
    path = stem
    while path.exists():
        number += 1
        path = stem.with_name(f"{stem.name}-{number}")
    return path
