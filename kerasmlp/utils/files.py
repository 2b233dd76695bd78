"""Files that appear whole or not at all, and their hashes."""

import contextlib
import errno
import functools
import hashlib
import operator
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerasmlp.utils import strict_json
from kerasmlp.utils.checks import reject_file

MOST_JSON_BYTES = 1 << 26
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_path(
    path: str | os.PathLike, *, replace: bool = True, private: bool = True
) -> Iterator[Path]:
    """Yields a temporary path; moves it to `path` if the block succeeds, removes it if not.

    The content is on disk before the name appears, so a killed process or a
    full disk leaves either the old file or the new one. A file that is
    replaced keeps its permissions; a link keeps pointing to it.

    Args:
        path: The file.
        replace: Whether one that is there, or that came meanwhile, is replaced.
        private: A new file is for its owner only, as most of them tell of faces;
            False for what others are to read, such as a server.

    Raises:
        InputError: if the folder is not there, or a file is that is not replaced.
        OSError: if the file cannot be written.

    Example:

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(f"{folder}/a.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     os.listdir(folder)
    ['a.txt']
    """
    require_file_place(path)
    named, path = path, Path(os.path.realpath(path))
    prefix, suffix = f".{path.stem[:60]}.", path.suffix[:20]
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        with full_disk_names(named):
            yield temporary
        temporary.chmod(_mode(path, private))
        sync(temporary)
        if replace:
            os.replace(temporary, path)
        else:
            _move_to_free(temporary, path, named)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary folder; moves it to `path` if the block succeeds, removes it if not.

    Raises:
        InputError: if something is at the path, but for an empty folder.

    Example:

    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with new_folder(f"{parent}/found") as folder:
    ...         _ = (folder / "a.txt").write_text("whole")
    ...     os.listdir(parent)
    ['found']
    """
    path = Path(path)
    require_new_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.rename(path)  # also onto an empty folder
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def replaced_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary folder; puts it in the place of that at `path` if the block succeeds.

    The old one is deleted once the new one is on disk under its name; it and
    its files keep their permissions, and a link keeps pointing to it.

    Example:

    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = Path(parent, "found")
    ...     folder.mkdir()
    ...     _ = (folder / "old.txt").write_text("old")
    ...     with replaced_folder(folder) as temporary:
    ...         _ = (temporary / "new.txt").write_text("new")
    ...     os.listdir(folder), os.listdir(parent)
    (['new.txt'], ['found'])
    """
    path = Path(os.path.realpath(path))
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    new, old = aside / "new", aside / "old"
    new.mkdir()
    try:
        yield new
        _take_modes(new, path)
        path.rename(old)
        new.rename(path)
        sync(path.parent)
        shutil.rmtree(old)
    except BaseException:
        with contextlib.suppress(OSError):  # it was never moved, or the new one is there
            old.rename(path)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        with contextlib.suppress(OSError):  # an old one that could not go back stays
            aside.rmdir()


def _take_modes(new: Path, old: Path) -> None:
    """Gives a folder the permissions of another, and its files those that all files there have."""
    modes = [_mode(inner, private=True) for inner in old.iterdir() if not inner.is_symlink()]
    shared = functools.reduce(operator.and_, modes or [0o600])
    for inner in new.iterdir():
        inner.chmod(shared)
    new.chmod(_mode(old, private=True))
    for made in (*new.iterdir(), new):
        sync(made)


def require_new_folder(path: str | os.PathLike) -> None:
    """Rejects a path at which something is, but for an empty folder."""
    path = Path(path)
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        reject_file(path, "must not exist yet, or be an empty folder", what_is(path))


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that there is no room on a disk, be it in the words of a library."""
    said = any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))
    return getattr(error, "errno", None) in _FULL or said


@contextlib.contextmanager
def full_disk_names(path: str | os.PathLike) -> Iterator[None]:
    """Puts the file that a block writes into the error of a full disk, which names none.

    Example:

    >>> with full_disk_names("runs/a/model.keras"):
    ...     raise OSError(errno.ENOSPC, "No space left on device")
    Traceback (most recent call last):
        ...
    OSError: [Errno 28] No space left on device: 'runs/a/model.keras'
    """
    try:
        yield
    except Exception as error:
        if getattr(error, "filename", None) is not None or not is_full_disk(error):
            raise
        number = getattr(error, "errno", None) or errno.ENOSPC
        raise OSError(number, os.strerror(number), os.fspath(path)) from error


def _mode(path: Path, private: bool) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mode & 0o777
    return 0o600 if private else 0o666 & ~_umask()


def _move_to_free(temporary: Path, path: Path, named: str | os.PathLike) -> None:
    """Moves a file to where none is: of two processes that look and then move, one would lose."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        require_free(named)
    except OSError:  # a file system without links: the name is taken by an empty file
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            require_free(named)
        os.replace(temporary, path)


def require_free(path: str | os.PathLike) -> None:
    """Rejects a path at which something is."""
    if os.path.lexists(os.path.realpath(path)):
        reject_file(path, "must not exist yet", f"an existing {_kind(path) or 'file'}")


def require_file_place(path: str | os.PathLike) -> None:
    """Rejects a path at which no file can be written."""
    folder = Path(path).parent
    if not folder.is_dir():
        reject_file(path, "must lie in an existing folder", f"no folder {str(folder)!r}")
    if Path(path).is_dir():
        reject_file(path, "must be a file", "a folder")


def what_is(path: str | os.PathLike) -> str:
    """What lies at a path, for the end of an error: "a folder", "a file" or that there is none."""
    kind = _kind(path)
    return f"a {kind}" if kind else "no such file or folder"


def _kind(path: str | os.PathLike) -> str | None:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # nothing, a ring of links, a zero byte in the name
        return None
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "pipe, socket or device"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike, text: str) -> None:
    r"""Writes UTF-8.

    Bytes of a file name that are not UTF-8 become `\udc80` to `\udcff`, as Python
    has them: in JSON that is the very name, which `os.fsencode` turns into its bytes.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike, value: Any) -> None:
    write_text(path, strict_json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike, *, infinite: bool = False) -> Any:
    """Reads a JSON file of up to 64 MiB, or says in one sentence why it cannot be read.

    Args:
        path: Of the file.
        infinite: Take `NaN` and `Infinity`, as older versions wrote them in the state of a search.

    Raises:
        InputError: naming the file.
    """
    path = Path(path)
    if not path.is_file():
        reject_file(path, "must be a JSON file", what_is(path))
    with open(path, "rb") as file:
        return parse_json(path, file.read(MOST_JSON_BYTES + 1), infinite=infinite)


def parse_json(path: str | os.PathLike, content: bytes, *, infinite: bool = False) -> Any:
    """As `read_json`, of what was read already."""
    if len(content) > MOST_JSON_BYTES:
        reject_file(path, f"must be a JSON file of at most {MOST_JSON_BYTES} bytes", "a longer one")
    try:
        return strict_json.loads(content.decode("utf-8-sig"), infinite=infinite)
    except UnicodeDecodeError:
        reject_file(path, "must be a JSON file", "a file that is no text")
    except ValueError as error:
        reject_file(path, "must be a JSON file", f"{error}")


def sha256_file(path: str | os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
