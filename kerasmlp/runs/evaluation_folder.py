"""The folder that `evaluate` writes: it appears whole or not at all."""

import contextlib
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.files import read_json, what_is

FORMAT = "kerasmlp.evaluation"
FILES = (
    "report.json", "groups.csv", "reliability.png", "risk_coverage.png", "intervals.png",
    "uncertainty.png", "predicted.png",
)  # fmt: skip
BY = "by.csv"
"""Beside them the groups of the columns of `--by`, and a picture of each, see `picture_of`."""
HEAD = "head"
"""How the folder of each head begins, where a run has several."""
_LONGEST = 60
_IN_RUN = re.compile(r"\.?evaluation-.+")
_PICTURE = re.compile(r"by_[\w.-]+\.png", re.ASCII)
_STEMS = [*(n.split(".")[0] for n in (*FILES, BY)), r"by_[\w.-]+"]
_TEMPORARY = re.compile(rf"\.({'|'.join(_STEMS)})\.\w{{8}}(\.\w+)?", re.ASCII)


@contextlib.contextmanager
def evaluation_folder(path: str | os.PathLike, *, force: bool) -> Iterator[Path]:
    """Yields a temporary folder; moves it to `path` if the block succeeds, removes it if not.

    Args:
        path: Must be new or empty, or forced.
        force: Replace an evaluation that is there; any other folder is refused.

    Raises:
        InputError: if the folder cannot be used.

    Example:

    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with evaluation_folder(f"{parent}/evaluation-mine", force=False) as folder:
    ...         _ = (folder / "report.json").write_text("{}")
    ...     os.listdir(parent)
    ['evaluation-mine']
    """
    path = Path(path)
    free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if not free and not (path.is_dir() and force):
        reject_file(path, "must not exist yet (or give --force)", what_is(path))
    if not free and not _holds_evaluation(path):
        reject_file(path, "must hold nothing but an evaluation to be replaced", "other files")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o777)
            aside = temporary.with_name(f"{temporary.name}.old")
            path.rename(aside)
            temporary.rename(path)
            shutil.rmtree(aside)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def picture_of(column: str) -> str:
    """The file of the picture of the groups of a column.

    Example:

    >>> picture_of("race"), picture_of("race*gender")
    ('by_race.png', 'by_race_gender_1341eb1d.png')
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", column)[:_LONGEST]
    same = plain == column
    return f"by_{plain}.png" if same else f"by_{plain}_{zlib.crc32(column.encode()):x}.png"


def is_evaluation_of_run(path: Path) -> bool:
    """Whether `evaluate` made this folder in a run, be it that it was killed before the end."""
    return bool(_IN_RUN.fullmatch(path.name)) and _holds_evaluation(path)


def _holds_evaluation(path: Path) -> bool:
    """Whether a folder is empty, or has a report of ours and beside it only what belongs to it."""
    if path.is_symlink() or not path.is_dir():
        return False
    left = [p for p in path.iterdir() if not _TEMPORARY.fullmatch(p.name)]
    names = {p.name for p in left if not (p.name.startswith(f"{HEAD}_") and _holds_evaluation(p))}
    names = {name for name in names if not _PICTURE.fullmatch(name)}
    if not left:
        return True
    try:
        report = read_json(path / "report.json")
    except InputError:
        return False
    return names <= {*FILES, BY} and isinstance(report, dict) and report.get("format") == FORMAT
