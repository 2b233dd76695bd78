"""Photos → embeddings by the workers of a Ray cluster: the same store, row for row."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp.data.datasets.records import READ_FIRST, Record, needs_image
from kerasmlp.data.part_folder import PartFolder, has_part, part_path, write_part
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.data.stores.store_paths import check_store_path, save_store
from kerasmlp.data.stores.streamed_rows import StreamedRows
from kerasmlp.faces.models import find_models
from kerasmlp.faces.pool import FacePool
from kerasmlp.faces.resuming import size_of
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.files import what_is
from kerasmlp.utils.ray_tasks import Work, answers_of, ray_cluster, require_shared
from kerasmlp.utils.schema import Kind, check_object, dict_of, list_of, optional, text, whole

_FEWEST, _MOST = 16, 512
"""Inputs of a part: some seconds of work, and not more files than a folder takes."""
_PARTS = 1000
_FOLDERS = ("model_dir", "embedder")
_SAYS = {
    "width": whole(1, 1 << 24),
    "provider": text(),
    "note": optional(text()),
    "versions": dict_of(text()),
    "answers": list_of(lambda place, value: None),
}


@contextlib.contextmanager
def by_ray(
    records: Sequence[Record],
    pool: Mapping[str, Any],
    store_path: Path,
    progress: bool,
    workers: int | None,
    *,
    settings: Mapping[str, Any],
    line: Kind,
    resume: bool,
    force: bool,
) -> Iterator[tuple[PartJournal, dict[str, Any]]]:
    """Has a Ray cluster do what is left; yields what a journal would hold, and what is said.

    Args:
        records: The inputs.
        pool: `FacePool.settings`, for each worker's own process.
        store_path: The store to write.
        progress: Show a bar on standard error.
        workers: Actors of one core each; None takes all cores of the cluster.
        settings: Everything that decides the rows.
        line: What a line of a journal must hold.
        resume: Go on with what is there.
        force: Throw it away, and replace a store.
    """
    from tqdm import tqdm

    size = min(_MOST, max(_FEWEST, len(records) // _PARTS))
    ranges = [range(s, min(s + size, len(records))) for s in range(0, len(records), size)]
    finder = dict(pool["finder"])
    finder |= {k: os.path.abspath(finder[k]) for k in _FOLDERS if finder.get(k)}
    check_store_path(store_path, force=force or resume)
    replaces = force or store_path.exists()  # not one that comes meanwhile
    decides = {**settings, "engine": "ray", "views": pool["views"], "part": size}
    with (
        ray_cluster(workers) as workers,  # before there is anything to be resumed
        PartFolder(store_path, settings=decides, resume=resume, force=force) as parts,
    ):
        done = {"parts": str(parts.parts), **pool, "finder": finder}
        done |= {k: settings[k] for k in ("embedder", "detector")}
        missing = parts.missing(len(ranges))
        todo = {n: _task(n, [records[i] for i in ranges[n]]) for n in missing}
        left = sum(len(ranges[n]) for n in missing)
        how = {"workers": workers, "gpus": int(finder.get("device") == "cuda")}
        bar = {"total": len(records), "initial": len(records) - left, "unit": "img"}
        with tqdm(**bar, disable=None if progress else True) as bar:
            try:
                for number, _ in answers_of(_prepare, done, todo, **how):
                    bar.update(len(ranges[number]))
            except InputError as error:
                error.args = (f"{error}; --resume goes on from here",)
                raise
        journal = PartJournal(parts, records, ranges, line, replaces=replaces)
        yield journal, journal.said | {"resumed_at": len(records) - left}


def _task(number: int, records: Sequence[Record]) -> dict[str, Any]:
    photos = [
        [os.path.abspath(r.image), size_of(r.image), r.removed in READ_FIRST]
        for r in records
        if needs_image(r)
    ]
    return {"number": number, "photos": photos}


class PartJournal:
    """All parts of an extraction, as `PartialStore` has its lines and rows.

    Args:
        parts: Of which all are there.
        records: The inputs.
        ranges: Which of them each part holds.
        line: What each line must hold.
        replaces: Whether a store that is there is replaced.

    Attributes:
        target: The store to write.
        entries: A line per input.
        said: `provider`, `note` and `versions` of the workers.

    Raises:
        InputError: if a part is damaged, or workers had different versions.
    """

    def __init__(
        self,
        parts: PartFolder,
        records: Sequence[Record],
        ranges: Sequence[range],
        line: Kind,
        *,
        replaces: bool,
    ):
        self.target, self._parts, self._counts = parts.target, parts, []
        self._replaces = replaces
        self.entries: list[dict[str, Any]] = []
        self._width, versions = 1, []
        said: dict[str, list] = {"provider": [], "note": []}
        for number, of in enumerate(ranges):
            says, rows = self.read(number)
            answers, found = iter(says["answers"]), iter(rows)
            for record in (records[i] for i in of):
                answer = next(answers, None) if needs_image(record) else {"reason": None}
                answer = answer if isinstance(answer, dict) else {}
                entry = {"key": record.key, **answer}
                entry["reason"] = answer.get("reason") or record.removed
                if "sha256" in answer:
                    entry["crc32"] = zlib.crc32(next(found, b""))
                if fault := line("", entry):
                    came = f"{fault.value!r}"[:100]
                    reject_file(parts.path(number), f"must hold {fault.words}", came)
                self.entries.append(entry)
            self._counts.append(len(rows))
            self._width = says["width"]
            for name, several in said.items():
                if says[name] not in (*several, None):
                    several.append(says[name])
            if says["versions"] not in versions:
                versions.append(says["versions"])
        if len(versions) > 1:
            requirement = "must hold parts of the same versions (--force begins anew)"
            reject_file(parts.folder, requirement, f"{versions[0]} and {versions[1]}"[:200])
        self.said = {name: "; ".join(several) or None for name, several in said.items()}
        self.said["versions"] = versions[0] if versions else {}

    def remove(self) -> None:
        self._parts.remove()

    def finish(
        self, labels: Mapping[str, Any], info: StoreInfo, *, rows_per_input: int = 1
    ) -> None:
        """Writes the store, one file or a folder of shards, and removes the parts.

        Args:
            labels: Of all rows.
            info: Where they come from.
            rows_per_input: Into which each row of the parts is cut.
        """
        width = self._width // rows_per_input
        counts = [count * rows_per_input for count in self._counts]
        rows = [_PartRows(self, n, (count, width)) for n, count in enumerate(counts) if count]
        store = EmbeddingStore(StreamedRows(rows), labels, info, name=str(self.target))
        save_store(store, self.target, overwrite=self._replaces)
        self.remove()

    def read(self, number: int) -> tuple[dict[str, Any], np.ndarray]:
        """What a part says, and its rows.

        Args:
            number: Of the part.
        """
        says, body = self._parts.read(number)
        check_object(self._parts.path(number), says, _SAYS, "a part of an extraction")
        return says, np.frombuffer(body, "<f4").reshape(-1, says["width"])


class _PartRows:
    """Rows of a part, read when they are asked for, as `StreamedRows` takes them."""

    dtype = np.dtype(np.float32)

    def __init__(self, journal: PartJournal, number: int, shape: tuple[int, int]):
        self._journal, self._number, self.shape = journal, number, shape

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.take(np.arange(start, stop))

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._journal.read(self._number)[1].reshape(self.shape)[rows]


# ---- in a worker


def _prepare(settings: dict[str, Any]) -> Work:
    """One process beside the actor, as of a pool: a photo that ends it ends no actor."""
    require_shared(settings["parts"])
    finder = settings["finder"]
    for name in _FOLDERS:
        if finder.get(name):
            require_shared(finder[name])
    names = (*_FOLDERS, "detector", "flip")
    models = find_models(**{name: finder[name] for name in names if name in finder})
    came = {"embedder": models.embedder_sha256, "detector": models.detector_sha256}
    for name, sha256 in came.items():
        if sha256 != settings[name]:
            folder = finder.get("embedder") or finder.get("model_dir")
            reject_file(folder, f"must hold the same {name} on every node", f"{sha256}")
    pool = FacePool(workers=1, face=settings["face"], views=settings["views"], **finder)
    pool.__enter__()  # for as long as the actor lives

    def extract(task: dict[str, Any]) -> None:
        part = part_path(settings["parts"], task["number"])
        if not has_part(part):  # of a task that is asked for again as its answer was lost
            answers = list(pool.map([_photo(*photo) for photo in task["photos"]]))
            rows = [answer.pop("embedding").tobytes() for answer in answers if "sha256" in answer]
            says = {"width": pool.width, "provider": pool.provider, "note": pool.note}
            says |= {"versions": pool.versions, "answers": answers}
            write_part(part, says, b"".join(rows))

    return extract


def _photo(path: str, size: int | None, read_only: bool) -> tuple[Path, bool]:
    """A photo that is here what it is where the command runs: else it would count as unreadable."""
    if (came := size_of(Path(path))) != size:
        requirement = "must be the same file on every node of the cluster (a shared file system)"
        reject_file(path, requirement, what_is(path) if came is None else f"{came} bytes")
    return Path(path), read_only
