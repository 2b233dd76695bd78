"""What in a run folder is the run's own, by the names that its `config.json` gives."""

import re
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from kerasmlp.utils.schema import kind, list_of

# no name stands for all that may be in a folder: whose it is, only its own name tells
_NAME = re.compile(r"\w[\w.-]*/\*\*|(?!.*\*\*)\w[\w.*-]*(/[\w*][\w.*-]*)*/?")
NAMES = list_of(
    kind("the name of a file inside", lambda v: isinstance(v, str) and bool(_NAME.fullmatch(v))),
    10_000,
)
_TEMPORARY = re.compile(r"\.(.+)\.\w{8}(\.\w+)?")


def look_through(
    folder: Path, names: Collection[str], is_tree: Callable[[Path], bool], inside: str = ""
) -> Iterator[tuple[str, Path]]:
    """Yields all that is in a folder, what is in an inner one before that one.

    Args:
        folder: Of the run, or a folder in it.
        names: Of what is its own, as `RunFolder.working` takes them.
        is_tree: Whether a folder without a name is the run's nevertheless.
        inside: The folder's place in that of the run, with a `/` at the end.

    Yields:
        What it is, and its path: a `file` or link of the run, a `tree` that is the run's with
        all in it, the folder of a `run` that knows itself what is its own, a `folder` that
        holds nothing but those, or something `foreign`.
    """
    for path in sorted(folder.iterdir()):
        name = inside + path.name
        if path.is_symlink() or not path.is_dir():
            own = _among(name, names) or is_left(path, names, inside)
            yield "file" if own else "foreign", path
        elif _among(f"{name}/**", names) or is_tree(path):
            yield "tree", path
        elif _among(f"{name}/", names):
            yield "run", path
        elif any(n.startswith(f"{name}/") for n in names):
            yield from look_through(path, names, lambda _: False, f"{name}/")
            yield "folder", path
        else:
            yield "foreign", path


def is_left(path: Path, names: Collection[str], inside: str = "") -> bool:
    """Whether a process that was killed was about to write one of the files."""
    found = _TEMPORARY.fullmatch(path.name)
    return found is not None and _among(f"{inside}{found[1]}{found[2] or ''}", names)


def _among(name: str, names: Collection[str]) -> bool:
    return any(n.count("/") == name.count("/") and fnmatchcase(name, n) for n in names)
