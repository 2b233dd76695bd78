"""Parts of a result that many processes write, until one joins them."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasmlp.data.stores.partial_store import check_settings, partial_folder
from kerasmlp.utils import strict_json
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.files import atomic_path, read_json, write_json
from kerasmlp.utils.locks import lock_file
from kerasmlp.utils.schema import dict_of, fields, kind, sha256, whole

_MOST_HEADER = 1 << 26
_HEADER = fields(
    {
        "bytes": whole(0, 1 << 60),
        "sha256": sha256,
        "says": dict_of(kind("anything", lambda value: True)),
    }
)


class PartFolder(contextlib.AbstractContextManager):
    """The folder `<target>.partial` of numbered parts, which survives a kill at any moment.

    A part is there whole or not at all, so what is finished is what is there. Those of other
    settings lie apart: a late writer of a run that was thrown away does no harm.

    Args:
        target: What the parts will be joined to.
        settings: Everything that decides the result; parts of other settings are refused.
        resume: Go on with what is there.
        force: Throw it away.

    Raises:
        InputError: if another process works on it, the settings differ, or there are parts
            that are neither to be resumed nor thrown away.

    Example:

    >>> folder = tempfile.TemporaryDirectory()
    >>> parts = PartFolder(Path(folder.name, "a.jsonl"), settings={"seed": 0})
    >>> write_part(parts.path(1), {"rows": 2}, b"two rows")
    >>> parts.missing(3), parts.read(1)
    ([0, 2], ({'rows': 2}, b'two rows'))
    >>> parts.remove()
    >>> os.listdir(folder.name)
    []
    """

    def __init__(
        self,
        target: str | os.PathLike,
        *,
        settings: Mapping[str, Any],
        resume: bool = False,
        force: bool = False,
    ):
        self.target, self.folder = Path(target), partial_folder(target)
        if not self.target.parent.is_dir():
            reject_file(target, "must lie in an existing folder", f"no {str(self.target.parent)!r}")
        existed = self.folder.is_dir()
        if existed and not (resume or force):
            requirement = "must be resumed (--resume) or thrown away (--force)"
            reject_file(self.folder, requirement, "neither")
        self._lock = lock_file(self.folder / "lock")
        if self._lock is None:
            reject_file(self.folder, "must not be in use", "parts of another running process")
        try:
            self._open(settings, fresh=not (existed and resume))
        except BaseException:
            self._lock.close()
            raise

    def _open(self, settings: Mapping[str, Any], *, fresh: bool) -> None:
        meta, text = self.folder / "meta.json", json.dumps(settings, sort_keys=True)
        if fresh or not meta.exists():
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != "lock":
                    path.unlink()
            write_json(meta, json.loads(text))
        else:
            check_settings(self.folder, read_json(meta), json.loads(text))
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.parts = self.folder.absolute() / f"parts-{digest[:16]}"
        self.parts.mkdir(mode=0o700, exist_ok=True)

    def __exit__(self, *exception: object) -> None:
        self._lock.close()

    def path(self, number: int) -> Path:
        """Where a part lies or will lie."""
        return part_path(self.parts, number)

    def missing(self, count: int) -> list[int]:
        """Numbers of the parts, of so many, that are not there."""
        return [number for number in range(count) if not has_part(self.path(number))]

    def read(self, number: int) -> tuple[dict[str, Any], bytes]:
        """What a part says, and its content.

        Raises:
            InputError: if it is damaged; then it is removed, to be done again.
        """
        path = self.path(number)
        with open(path, "rb") as file:
            header, body = _header_of(file), file.read()
        if header is None or hashlib.sha256(body).hexdigest() != header["sha256"]:
            path.unlink()
            reject_file(path, "must be whole (--resume does it again)", "a damaged part")
        return header["says"], body

    def remove(self) -> None:
        """Removes the folder, which is gone before its parts are."""
        away = Path(tempfile.mkdtemp(dir=self.folder.parent, prefix=f".{self.folder.name[:60]}."))
        self.folder.rename(away / "parts")
        shutil.rmtree(away, ignore_errors=True)


def part_path(folder: str | os.PathLike, number: int) -> Path:
    """Where a part of this number lies, among others.

    Example:

    >>> part_path("parts", 12).name
    '000012.part'
    """
    return Path(folder) / f"{number:06}.part"


def write_part(path: Path, says: Mapping[str, Any], body: bytes) -> None:
    """Writes a part, which appears whole or not at all; one that is there is replaced.

    Args:
        path: As `part_path` gives it.
        says: JSON beside the content.
        body: The content.
    """
    header = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "says": says}
    with atomic_path(path) as temporary:
        temporary.write_bytes(strict_json.dumps(header).encode() + b"\n" + body)


def has_part(path: Path) -> bool:
    """Whether a part is there in its whole length; what is in it `PartFolder.read` tells."""
    try:
        with open(path, "rb") as file:
            header = _header_of(file)
            length = os.fstat(file.fileno()).st_size - file.tell()
    except OSError:
        return False
    return header is not None and header["bytes"] == length


def _header_of(file: Any) -> dict[str, Any] | None:
    try:
        header = strict_json.loads(file.readline(_MOST_HEADER).decode())
    except ValueError:
        return None
    return None if _HEADER("", header) else header
