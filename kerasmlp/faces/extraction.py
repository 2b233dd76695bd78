"""Photos → faces → embeddings → store: the whole way, resumable at any moment."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kerasmlp import __version__
from kerasmlp.data.datasets.records import (
    READ_FIRST,
    Record,
    joined_groups,
    label_columns,
    needs_image,
)
from kerasmlp.data.datasets.removal import removal_report, write_removals
from kerasmlp.data.stores.partial_store import PartialStore, partial_folder
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.faces.models import find_models
from kerasmlp.faces.pool import FacePool
from kerasmlp.faces.resuming import (
    check_keys,
    finished_store,
    inputs_digest,
    journal_line,
)
from kerasmlp.utils.checks import InputError, reject_file
from kerasmlp.utils.processes import number_of_workers

_COMMIT_SECONDS = 1.0


def extract_embeddings(
    records: Sequence[Record],
    model_dir: str | os.PathLike,
    store_path: str | os.PathLike,
    *,
    workers: int | None = None,
    origin: StoreInfo | None = None,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
    **how: Any,
) -> dict[str, Any]:
    """Embeds the face of every record and writes an embedding store.

    The work so far lies in `<store>.partial`: what ends before it is done is gone on with
    by `resume`, and gives the same store. `<store>.removal.json` lists the inputs that were
    removed. Both hold the images' relative paths, as does the store in its label `path`.

    Args:
        records: The inputs, as `kerasmlp.data.datasets.read_records` gives them.
        model_dir: Folder with insightface's detector and embedder.
        store_path: The store to write.
        workers: Processes, each on one core; None takes all cores.
        origin: Says `source` and `licence` of the data.
        resume: Go on with a killed run; a finished store is left as it is.
        force: Begin anew and replace a store that exists.
        progress: Show a bar on standard error.
        how: `face`, `min_det_score` and `device` of `FacePool`.

    Returns:
        `inputs`, `kept`, `removed` (reason to number), `store`, `removal_list`, `resumed_at`,
        `provider` and `seconds`; of a store that was finished before, see `finished_store`.

    Raises:
        InputError: if an argument is no such thing, no face is kept, or workers are lost
            again and again.
    """
    began, store_path = time.monotonic(), Path(store_path)
    workers = min(number_of_workers(workers), max(len(records), 1))
    pool = FacePool(model_dir, workers=workers, **how)
    if resume and force:
        reject_file("--resume", "must not be given together with --force", "both")
    exists = store_path.exists() and not force
    if exists and not resume:
        reject_file(store_path, "must not exist yet (or --force)", "an existing file")
    info, settings = _settings(records, pool)
    if exists and not partial_folder(store_path).exists():
        return finished_store(store_path, settings, len(records))
    kept = {"settings": settings, "line": journal_line, "resume": resume, "force": force}
    with pool, PartialStore(store_path, width=pool.width, **kept) as partial:
        check_keys(partial, records)
        resumed_at = len(partial)
        _run(records, pool, partial, progress)
        origin = origin or StoreInfo()
        info = replace(info, source=origin.source, licence=origin.licence, extraction=settings)
        report = _finish(records, partial, info)
    seconds = round(time.monotonic() - began, 3)
    return report | {"provider": pool.provider, "resumed_at": resumed_at, "seconds": seconds}


def _settings(records: Sequence[Record], pool: FacePool) -> tuple[StoreInfo, dict[str, Any]]:
    """What the store will say of its models, and what decides its rows."""
    models = find_models(pool.settings["model_dir"])
    face, min_det_score = pool.settings["face"], pool.settings["min_det_score"]
    return models.info(min_det_score=min_det_score), {
        "inputs": inputs_digest(records),
        "face": face,
        "min_det_score": min_det_score,
        "embedder": models.embedder_sha256,
        "detector": models.detector_sha256,
        "kerasmlp": __version__,
    }


def _finish(records: Sequence[Record], partial: PartialStore, info: StoreInfo) -> dict[str, Any]:
    """Writes the list of what was removed, and the store."""
    store_path, counts = partial.target, removal_report(partial.entries)
    removal_list = write_removals(store_path, partial.entries)
    if not counts["kept"]:
        partial.remove()
        reject_file(store_path, "must hold at least one face", f"none ({counts['removed']})")
    both = zip(records, partial.entries, strict=True)
    rows, done = zip(*(row for row in both if row[1]["reason"] is None), strict=True)
    labels = {
        **label_columns(rows),
        "det_score": np.array([entry["det_score"] for entry in done], np.float32),
        "group": joined_groups([r.group for r in rows], [entry["sha256"] for entry in done]),
    }
    partial.finish(labels, replace(info, removal_report=counts))
    return {**counts, "store": str(store_path), "removal_list": str(removal_list)}


def _run(records: Sequence[Record], pool: FacePool, partial: PartialStore, progress: bool) -> None:
    from tqdm import tqdm

    todo = records[len(partial) :]
    tasks = [(r.image, r.removed in READ_FIRST) for r in todo if needs_image(r)]
    answers = pool.map(tasks)
    bar = tqdm(
        total=len(records), initial=len(partial), unit="img", disable=None if progress else True
    )
    committed = time.monotonic()
    reported = len(partial)
    try:
        with bar:
            for record in todo:
                answer = next(answers) if needs_image(record) else {"reason": None}
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
