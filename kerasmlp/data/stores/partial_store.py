"""A store in the making, which survives a kill at any moment."""

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.data.stores.store_paths import check_store_path, save_store
from kerasmlp.utils.checks import check_int, reject_file
from kerasmlp.utils.files import full_disk_names, read_json, write_json
from kerasmlp.utils.locks import lock_file
from kerasmlp.utils.schema import Kind, fields, text
from kerasmlp.utils.strict_json import loads

_LINE = fields({"key": text()})


class PartialStore(contextlib.AbstractContextManager):
    """Journal of inputs done so far, in the folder `<store>.partial` beside the store.

    One JSON line per input, in input order, and one raw float32 row per
    embedding. What `commit` returned from is on disk. On resuming, a tail
    that a crash tore off is cut away, line and row together, and so is all
    from the first line on that was altered.

    Args:
        settings: Everything that decides the result; a journal of other
            settings is refused.
        line: What each line must hold.

    Raises:
        InputError: if another process works on it, the settings differ, or a
            journal exists that is neither to be resumed nor thrown away.

    Example:

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> partial = PartialStore(Path(folder.name, "a.h5"), settings={}, width=8)
    >>> partial.append({"key": "a.jpg"}, np.eye(8, dtype=np.float32)[0])
    >>> partial.append({"key": "b.jpg", "reason": "no face"})
    >>> partial.commit()
    >>> len(partial)
    2
    >>> store = partial.finish({"path": ["a.jpg"]}, StoreInfo())
    >>> len(store), Path(folder.name, "a.h5.partial").exists()
    (1, False)
    """

    def __init__(
        self,
        target: str | os.PathLike,
        *,
        settings: Mapping[str, Any],
        width: int,
        line: Kind = _LINE,
        resume: bool = False,
        force: bool = False,
    ):
        self.target = Path(target)
        self.folder = partial_folder(target)
        self.width = check_int("width", width, minimum=1)
        self._line = line
        self.entries: list[dict[str, Any]] = []
        self._rows = 0
        self._files: list[Any] = []
        self._replaces = force or self.target.exists()
        check_store_path(target, force=self._replaces)
        if not self.target.parent.is_dir():
            reject_file(target, "must lie in an existing folder", f"no {str(self.target.parent)!r}")
        existed = self.folder.is_dir()
        if existed and not (resume or force):
            reject_file(
                self.folder, "must be resumed (--resume) or thrown away (--force)", "neither"
            )
        self._lock()
        try:
            self._open({**settings, "width": self.width}, fresh=not (existed and resume))
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self.entries)

    def append(self, entry: Mapping[str, Any], embedding: np.ndarray | None = None) -> None:
        """Adds the next input; `commit` makes it last."""
        entry = dict(entry)
        with full_disk_names(self.folder):
            if embedding is not None:
                row = np.ascontiguousarray(embedding, "<f4").tobytes()
                entry["crc32"] = zlib.crc32(row)
                self._embeddings.write(row)
                self._rows += 1
            self._lines.write(json.dumps(entry).encode() + b"\n")
        self.entries.append(entry)

    def commit(self) -> None:
        """Returns when everything appended so far is on disk."""
        for file in (self._embeddings, self._lines):  # a line vouches for its row
            with full_disk_names(file.name):
                file.flush()
                os.fsync(file.fileno())

    def embeddings(self) -> np.ndarray:
        """The rows of all inputs that have one."""
        self.commit()
        return np.fromfile(self._embeddings.name, "<f4").reshape(-1, self.width)

    def finish(
        self, labels: Mapping[str, Any], info: StoreInfo, *, rows_per_input: int = 1
    ) -> EmbeddingStore:
        """Writes the store, and removes the journal.

        It replaces an older one whole that was there when this journal was opened.

        Args:
            labels: Of all rows.
            info: Where they come from.
            rows_per_input: Into which each row of the journal is cut.

        Raises:
            InputError: if another one came meanwhile; the journal stays.
        """
        rows = self.embeddings().reshape(-1, self.width // rows_per_input)
        store = EmbeddingStore(rows, labels, info, name=str(self.target))
        save_store(store, self.target, overwrite=self._replaces)
        self.remove()
        return store

    def remove(self) -> None:
        # the meta file goes last: whatever is left over without it starts anew
        for name in ("records.jsonl", "embeddings.f32", "meta.json"):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        for file in self._files:
            with contextlib.suppress(OSError):
                file.close()
        self._files = []

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _lock(self) -> None:
        file = lock_file(self.folder / "lock")
        if file is None:
            reject_file(self.folder, "must not be in use", "a journal of another running process")
        self._files.append(file)

    def _open(self, settings: dict[str, Any], *, fresh: bool) -> None:
        meta = self.folder / "meta.json"
        lines, rows = self.folder / "records.jsonl", self.folder / "embeddings.f32"
        settings = json.loads(json.dumps(settings))
        if fresh or not meta.exists():
            for path in (lines, rows, meta):
                path.unlink(missing_ok=True)
            write_json(meta, settings)
        else:
            check_settings(self.folder, read_json(meta), settings)
        self._lines, self._embeddings = open(lines, "ab"), open(rows, "ab")  # noqa: SIM115
        self._files += [self._lines, self._embeddings]
        self._repair(lines, rows)

    def _repair(self, lines: Path, rows: Path) -> None:
        """Keeps the longest beginning in which every line is whole and its row intact."""
        size = self.width * 4
        kept_bytes = 0
        with open(lines, "rb") as line_file, open(rows, "rb") as row_file:
            for line in line_file:
                try:
                    entry = loads(line.decode()) if line.endswith(b"\n") else None
                except ValueError:
                    entry = None
                if self._line("", entry):
                    break
                if "crc32" in entry:
                    row = row_file.read(size)
                    if len(row) < size or zlib.crc32(row) != entry["crc32"]:
                        break
                    self._rows += 1
                self.entries.append(entry)
                kept_bytes += len(line)
        os.truncate(lines, kept_bytes)
        os.truncate(rows, self._rows * size)
        self.commit()


def partial_folder(target: str | os.PathLike) -> Path:
    """The folder of the journal of a store.

    Example:

    >>> partial_folder("faces.h5").name
    'faces.h5.partial'
    """
    target = Path(target)
    return target.with_name(f"{target.name}.partial")


def check_settings(path: Path, began: Any, now: Mapping[str, Any]) -> None:
    """Rejects work that began with other settings, which the sentence names."""
    if not isinstance(began, dict):
        began = {}
    changed = sorted(k for k in {*began, *now} if began.get(k) != now.get(k))
    if changed:
        reject_file(
            path,
            "must have begun with the same inputs and settings (--force begins anew)",
            f"another {', another '.join(changed)}",
        )
