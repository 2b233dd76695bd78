"""Photos → faces → embeddings → store: the whole way, resumable at any moment."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp import __version__
from kerasmlp.data.datasets.records import READ_FIRST, Record
from kerasmlp.data.datasets.removal import removal_report, removed_keys
from kerasmlp.data.labels import UNKNOWN
from kerasmlp.data.stores.partial_store import PartialStore, partial_folder
from kerasmlp.faces.finder import CHOICES, DEVICES, MIN_DET_SCORE
from kerasmlp.faces.models import find_models
from kerasmlp.faces.pool import FacePool
from kerasmlp.faces.resuming import (
    check_keys,
    finished_store,
    inputs_digest,
    journal_line,
)
from kerasmlp.utils.checks import (
    InputError,
    check_choice,
    check_optional_int,
    check_rate,
    reject,
    reject_file,
)
from kerasmlp.utils.files import write_json
from kerasmlp.utils.processes import num_cores

_COMMIT_SECONDS = 1.0


def extract_embeddings(
    records: Sequence[Record],
    model_dir: str | os.PathLike,
    store_path: str | os.PathLike,
    *,
    workers: int | None = None,
    face: str = "only",
    min_det_score: float = MIN_DET_SCORE,
    device: str = "auto",
    source: str | None = None,
    licence: str | None = None,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Embeds the face of every record and writes an embedding store.

    The work so far lies in `<store>.partial`; a killed run goes on from there
    with `resume`, and gives the same store as one that was never killed.
    `<store>.removal.json` lists the inputs that were removed. Both hold the
    images' relative paths, as does the store in its label `path`.

    Args:
        records: The inputs, as `kerasmlp.data.datasets.read_records` gives them.
        model_dir: Folder with insightface's detector and embedder.
        store_path: The store to write.
        workers: Processes, each on one core; None takes all cores.
        face: `"only"`, `"centre"` or `"biggest"`.
        min_det_score: Faces below it do not count. It belongs to the detector.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        source: Name of the data set.
        licence: Of the data.
        resume: Go on with a killed run; a finished store is left as it is.
        force: Begin anew and replace a store that exists.
        progress: Show a bar on standard error.

    Returns:
        A report: `inputs`, `kept`, `removed` (reason to number), `store`,
        `removal_list`, `provider`, `seconds`, `resumed_at`. Of a store that was
        finished before: no `provider` and `seconds`, and in `doubt` a sentence
        or None on what it does not tell.

    Raises:
        InputError: on bad arguments, models or paths, if no face is kept, and if workers
            are lost nine times in a row; then the work can be resumed.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; the work can be resumed.
    """
    began = time.monotonic()
    store_path = Path(store_path)
    check_choice("face", face, CHOICES)
    check_choice("device", device, DEVICES)
    check_rate("min_det_score", min_det_score)
    workers = check_optional_int("workers", workers, minimum=1)
    workers = min(workers or num_cores(), max(len(records), 1))
    if not records:
        reject("records", "must hold at least one input", records)
    if resume and force:
        reject_file("--resume", "must not be given together with --force", "both")
    exists = store_path.exists() and not force
    if exists and not resume:
        reject_file(store_path, "must not exist yet (or --force)", "an existing file")
    models = find_models(model_dir)
    settings = {
        "inputs": inputs_digest(records),
        "face": face,
        "min_det_score": float(min_det_score),
        "embedder": models.embedder_sha256,
        "detector": models.detector_sha256,
        "kerasmlp": __version__,
    }
    if exists and not partial_folder(store_path).exists():
        return finished_store(store_path, settings, len(records))
    pool = FacePool(
        model_dir, face=face, min_det_score=min_det_score, device=device, workers=workers
    )
    with (
        _terminable(),
        pool,
        PartialStore(
            store_path,
            settings=settings,
            width=pool.width,
            line=journal_line,
            resume=resume,
            force=force,
        ) as partial,
    ):
        check_keys(partial, records)
        resumed_at = len(partial)
        _run(records, pool, partial, progress)
        counts = removal_report(partial.entries)
        removal_list = store_path.with_name(f"{store_path.name}.removal.json")
        write_json(removal_list, {**counts, "keys": removed_keys(partial.entries)})
        if not counts["kept"]:
            partial.remove()
            reject_file(store_path, "must hold at least one face", f"none ({counts['removed']})")
        kept = [i for i, entry in enumerate(partial.entries) if entry["reason"] is None]
        labels = _labels(records, partial.entries, kept)
        info = models.info(min_det_score=min_det_score)
        info = replace(
            info, source=source, licence=licence, removal_report=counts, extraction=settings
        )
        partial.finish(labels, info)
    return {
        **counts,
        "store": str(store_path),
        "removal_list": str(removal_list),
        "provider": pool.provider,
        "resumed_at": resumed_at,
        "seconds": round(time.monotonic() - began, 3),
    }


def _run(records: Sequence[Record], pool: FacePool, partial: PartialStore, progress: bool) -> None:
    from tqdm import tqdm

    todo = records[len(partial) :]
    tasks = [(r.image, r.removed in READ_FIRST) for r in todo if _needs_image(r)]
    answers = pool.map(tasks)
    bar = tqdm(
        total=len(records), initial=len(partial), unit="img", disable=None if progress else True
    )
    committed = time.monotonic()
    reported = len(partial)
    try:
        with bar:
            for record in todo:
                answer = next(answers) if _needs_image(record) else {"reason": None}
                embedding = answer.pop("embedding", None)
                reason = answer["reason"] or record.removed
                partial.append({"key": record.key, **answer, "reason": reason}, embedding)
                if time.monotonic() - committed > _COMMIT_SECONDS:
                    partial.commit()
                    bar.update(len(partial) - reported)
                    reported, committed = len(partial), time.monotonic()
            partial.commit()
            bar.update(len(partial) - reported)
    except KeyboardInterrupt:
        partial.commit()
        raise
    except InputError as error:
        partial.commit()
        error.args = (f"{error}; --resume goes on from here",)
        raise


def _needs_image(record: Record) -> bool:
    return record.removed is None or record.removed in READ_FIRST


def _labels(
    records: Sequence[Record], entries: Sequence[dict[str, Any]], kept: Sequence[int]
) -> dict[str, Any]:
    rows = [records[i] for i in kept]
    labels: dict[str, Any] = {
        "path": [r.key for r in rows],
        "det_score": np.array([entries[i]["det_score"] for i in kept], np.float32),
        "group": _groups([r.group for r in rows], [entries[i]["sha256"] for i in kept]),
    }
    if any(r.age_years is not None for r in rows):
        ages = [np.nan if r.age_years is None else r.age_years for r in rows]
        labels["age_years"] = np.array(ages, np.float32)
    if any(r.age_group is not None for r in rows):
        labels["age_group"] = [r.age_group or "" for r in rows]
    if any(r.gender is not None for r in rows):
        labels["gender"] = [UNKNOWN if r.gender is None else int(r.gender) for r in rows]
    if any(r.fold is not None for r in rows):
        labels["fold"] = [UNKNOWN if r.fold is None else r.fold for r in rows]
    for name in dict.fromkeys(k for r in rows for k in r.extra):
        values = [r.extra.get(name) for r in rows]
        text = any(isinstance(v, str) for v in values)
        blank = "" if text else np.nan
        labels[name] = [blank if v is None else v for v in values]
    return labels


def _groups(groups: Sequence[str | None], hashes: Sequence[str]) -> np.ndarray:
    """One number per set of rows that share a person or the very bytes of the image."""
    parents: dict[Any, Any] = {}

    def root(node: Any) -> Any:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = node = parents[parents[node]]
        return node

    for group, digest in zip(groups, hashes, strict=True):
        image = root(("image", digest))
        if group is not None:
            parents[image] = root(("group", group))
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(root(("image", h)), len(numbers)) for h in hashes])


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end the work as Ctrl-C does: with all that is done on disk."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
