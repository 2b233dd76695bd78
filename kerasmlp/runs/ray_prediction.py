"""Answers for stores, computed by the workers of a Ray cluster: the same as here, to the bit."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kerasmlp.data.part_folder import PartFolder, has_part, part_path, write_part
from kerasmlp.data.stores.embedding_store import EmbeddingStore, lies_plain
from kerasmlp.data.stores.hdf5 import hdf5_of
from kerasmlp.data.stores.label_columns import as_column
from kerasmlp.data.stores.parquet_rows import is_parquet_store, open_parquet
from kerasmlp.data.stores.raw_file import RawFile
from kerasmlp.data.stores.store_file import StoreFile
from kerasmlp.data.stores.store_folder import is_store_folder, shards_of
from kerasmlp.data.stores.streamed_rows import AnyRows, StreamedRows
from kerasmlp.runs.environment import environment
from kerasmlp.runs.predictor import ROWS_PER_CHUNK, Predictor
from kerasmlp.runs.predictors import open_predictors
from kerasmlp.utils import strict_json
from kerasmlp.utils.checks import reject, reject_file
from kerasmlp.utils.files import atomic_path, sha256_file
from kerasmlp.utils.ray_tasks import Work, answers_of, ray_cluster, require_shared
from kerasmlp.utils.tables import json_line, row_writer
from kerasmlp.utils.tensorflow_import import import_keras

_ROWS_PER_PART = 16 * ROWS_PER_CHUNK
_OPEN_SHARDS = 4
_DECIDE = ("kerasmlp", "keras", "tensorflow", "jax", "numpy")
_FILES = ("config.json", "model.keras", "calibration.json")


def predict_by_ray(
    predictors: Sequence[Predictor],
    stores: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    form: str = "jsonl",
    workers: int | None = None,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
    opened: Callable[[EmbeddingStore], None] = lambda store: None,
    **how: Any,
) -> None:
    """Writes one answer per row of stores, as `predict_store` gives them, by a Ray cluster.

    Each task answers a range of rows into a part of its own in `<output>.partial`; at the end
    they are joined. Runs, stores and output lie on a file system that all nodes share.

    Args:
        predictors: Of one or more runs, all heads of each.
        stores: One or more, files or folders of shards.
        output: The file to write.
        form: `"jsonl"` or `"csv"`.
        workers: Actors of one core each; None takes all cores of the cluster.
        resume: Go on with what a killed one has left.
        force: Throw that away, and replace the output.
        progress: Show a bar on standard error.
        opened: Called with each store before anything is answered.
        how: Arguments of `Predictor.rows`.

    Raises:
        InputError: if a store is not such as the runs have learned from, the cluster does not
            answer, or a node sees other files.
    """
    runs = list(dict.fromkeys(os.path.abspath(p.path) for p in predictors))
    every = (task for path in stores for task in _tasks_of(predictors, path, opened))
    tasks = [task | {"number": number} for number, task in enumerate(every)]
    settings = {"runs": {path: _run_digest(path) for path in runs}, "how": how}
    settings |= {"versions": _versions(), "columns": _columns_of(predictors)}
    decides = {
        "engine": "ray",
        "inputs": [str(path) for path in stores],
        "rows": hashlib.sha256("".join(t["sha256"] for t in tasks).encode()).hexdigest(),
        "runs": list(settings["runs"].values()),
        "versions": settings["versions"],
        **how,
    }
    with (
        ray_cluster(workers) as workers,  # before there is anything to be resumed
        PartFolder(output, settings=decides, resume=resume, force=force) as parts,
    ):
        todo = {n: tasks[n] for n in parts.missing(len(tasks))}
        settings["parts"] = str(parts.parts)
        rows, left = _rows_in(tasks), _rows_in(todo.values())
        bar = {"total": rows, "initial": rows - left, "unit": "row", "disable": not progress}
        with tqdm(**bar) as bar:
            for number, _ in answers_of(_prepare, settings, todo, workers=workers):
                bar.update(_rows_in([todo[number]]))
        _join(parts, len(tasks), output, form)
        parts.remove()


def _rows_in(tasks: Iterable[dict[str, Any]]) -> int:
    return sum(task["stop"] - task["start"] for task in tasks)


def _tasks_of(
    predictors: Sequence[Predictor],
    path: str | os.PathLike,
    opened: Callable[[EmbeddingStore], None],
) -> Iterator[dict[str, Any]]:
    """Ranges of a store's rows, each with a digest of what it holds."""
    store = EmbeddingStore.open(path, verify=True)
    for predictor in predictors:
        predictor.check(path, store.width, store.info)
        predictor.checked(store)
    opened(store)
    names = _columns_of(predictors)
    for start in range(0, len(store), _ROWS_PER_PART):
        of = slice(start, min(start + _ROWS_PER_PART, len(store)))
        columns = {name: store.labels[name][of] for name in names if name in store.labels}
        digest = _digest(store.embeddings[of], columns)
        where = {"input": str(path), "path": os.path.abspath(path)}
        yield where | {"start": of.start, "stop": of.stop, "sha256": digest}


def _columns_of(predictors: Sequence[Predictor]) -> list[str]:
    """Labels on which answers depend."""
    groups = [p.calibration.groups for p in predictors if p.calibration]
    return sorted({name for each in groups if each for name in each.columns})


def _digest(rows: np.ndarray, columns: Mapping[str, np.ndarray]) -> str:
    """Of values, whatever the types of label columns: a shard may have narrower ones."""
    digest = hashlib.sha256(np.ascontiguousarray(rows))
    for name in sorted(columns):
        digest.update(f"{name}={columns[name].tolist()!r}".encode())
    return digest.hexdigest()


def _run_digest(path: str | os.PathLike) -> str:
    files = [Path(path) / name for name in _FILES]
    return hashlib.sha256(
        "".join(sha256_file(file) if file.is_file() else "-" for file in files).encode()
    ).hexdigest()


def _versions() -> dict[str, str]:
    """Of what computes an answer."""
    return {k: v for k, v in environment()["versions"].items() if k in _DECIDE}


def _join(parts: PartFolder, count: int, output: str | os.PathLike, form: str) -> None:
    bodies = (parts.read(number)[1] for number in range(count))
    if form == "csv":
        with row_writer(Path(output), form) as write:
            for body in bodies:
                for line in body.decode().split("\n")[:-1]:
                    write(strict_json.loads(line))
        return
    with atomic_path(output) as temporary, open(temporary, "wb") as file:
        file.writelines(bodies)


# ---- in a worker


def _prepare(settings: dict[str, Any]) -> Work:
    require_shared(settings["parts"])
    import_keras()
    if (here := _versions()) != (expected := settings["versions"]):
        changed = [k for k in {**expected, **here} if here.get(k) != expected.get(k)]
        wanted = " and ".join(f"{k} {expected.get(k)}" for k in changed)
        came = {k: here.get(k) for k in changed}
        reject("engine", f"must find {wanted} on every node, as on that of the command", came)
    for path, digest in settings["runs"].items():
        require_shared(path)
        if _run_digest(path) != digest:
            reject_file(path, "must be the same run on every node", "another one")
    limits = {k: settings["how"].get(k) for k in ("max_risk", "within_years")}
    num_samples = settings["how"]["num_samples"]
    predictors = open_predictors(list(settings["runs"]), num_samples=num_samples, **limits)

    def answer(task: dict[str, Any]) -> None:
        part = part_path(settings["parts"], task["number"])
        if not has_part(part):  # of a task that is asked for again as its answer was lost
            lines = _lines(predictors, task, settings["columns"], settings["how"])
            write_part(part, {}, "".join(lines).encode("utf-8", "backslashreplace"))

    return answer


def _lines(
    predictors: Sequence[Predictor],
    task: Mapping[str, Any],
    names: Sequence[str],
    how: Mapping[str, Any],
) -> Iterator[str]:
    rows, columns = _rows_of(task["path"], task["start"], task["stop"], names)
    if _digest(rows, columns) != task["sha256"]:
        reject_file(task["path"], "must hold the same rows on every node", "others")
    known = {"columns": columns, "first_row": task["start"], **how}
    answers = [predictor.rows(rows, **known) for predictor in predictors]
    for i, row in enumerate(zip(*answers, strict=True), task["start"]):
        named = {p.name: answer for p, answer in zip(predictors, row, strict=True)}
        yield json_line({"input": task["input"], "row": i, **named})


def _rows_of(
    path: str, start: int, stop: int, names: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A range of a store's rows, and their labels of these names; only its shards are opened."""
    require_shared(path)
    shards = shards_of(path)[0] if is_store_folder(path) else {Path(path): stop}
    rows, columns, first = [], {}, 0
    for shard, count in shards.items():
        of = slice(max(start - first, 0), min(stop - first, count))
        first += count
        if of.start < of.stop:
            values, labels = _opened(shard)
            rows.append(values[of])
            for name in names:
                if name in labels:
                    columns.setdefault(name, []).append(labels[name][of])
    return np.concatenate(rows), {name: np.concatenate(c) for name, c in columns.items()}


@functools.lru_cache(maxsize=_OPEN_SHARDS)
def _opened(path: Path) -> tuple[AnyRows, Mapping[str, np.ndarray]]:
    """Rows and labels of a file, which is not read whole: ranges are held against their digests."""
    if is_parquet_store(path):
        _, part, columns = open_parquet(path)
        labels = {k: as_column(path, k, v, part.shape[0]) for k, v in columns.items()}
        return StreamedRows([part]), labels
    with RawFile(path, "an HDF5 file") as raw, hdf5_of(raw) as opened:
        file = StoreFile(raw, opened, verify=False, most_bytes=None)
        *what, dtype = EmbeddingStore.ROWS
        dataset, checksums = file.rows(*what, np.dtype(dtype).itemsize)
        if lies_plain(dataset):
            return StreamedRows([raw.part(dataset)]), file.labels(len(dataset), checksums.seed)
    store = EmbeddingStore.open(path, streamed=True)
    return store.embeddings, store.labels
