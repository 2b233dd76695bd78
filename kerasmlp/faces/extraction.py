"""Photos → faces → embeddings → store: the whole way, resumable at any moment."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
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
from kerasmlp.faces.finder import MIN_DET_SCORE
from kerasmlp.faces.models import find_models
from kerasmlp.faces.pool import FacePool
from kerasmlp.faces.resuming import (
    check_keys,
    finished_store,
    inputs_digest,
    journal_line,
)
from kerasmlp.utils.checks import InputError, check_rate, reject, reject_file
from kerasmlp.utils.processes import number_of_workers
from kerasmlp.utils.ray_tasks import check_engine

_COMMIT_SECONDS = 1.0


def extract_embeddings(
    records: Sequence[Record],
    model_dir: str | os.PathLike | None,
    store_path: str | os.PathLike,
    *,
    workers: int | None = None,
    engine: str = "local",
    face: str = "only",
    views: int = 1,
    min_det_score: float = MIN_DET_SCORE,
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
        model_dir: Folder with insightface's detector and embedder, or None.
        store_path: The store to write, of any form; of no suffix a folder of shards.
        workers: Processes, each on one core; None takes all cores.
        engine: `"local"`, or `"ray"`: workers of a Ray cluster, the one of `RAY_ADDRESS` or one
            started here.
        face: Which face to take, as for `choose_face`.
        views: Rows of each face, of slightly different crops, numbered in the label `view`.
        min_det_score: Faces below this score do not count.
        origin: Says `source` and `licence` of the data.
        resume: Go on with a killed run; a finished store is left as it is.
        force: Begin anew and replace a store that exists.
        progress: Show a bar on standard error.
        how: `embedder`, `detector`, `flip`, `device` and `batch_size` of `FaceFinder`.

    Returns:
        `inputs`, `kept`, `removed` (reason to number), `store`, `removal_list`, `resumed_at`,
        `provider`, `seconds` and `note`, a sentence or None on how the embedder is asked; of
        a store that was finished before, see `finished_store`.

    Raises:
        InputError: if an argument is no such thing, no face is kept, or workers are lost
            again and again.
    """
    began, store_path = time.monotonic(), Path(store_path)
    how |= {"min_det_score": check_rate("min_det_score", min_det_score)}
    processes = min(number_of_workers(workers), max(len(records), 1))
    pool = FacePool(model_dir, workers=processes, face=face, views=views, **how)
    check_engine(engine)
    if resume and force:
        reject_file("--resume", "must not be given together with --force", "both")
    exists = store_path.exists() and not force
    if exists and not resume:
        reject_file(store_path, "must not exist yet (or --force)", "an existing file")
    if views > 1 and any("view" in record.extra for record in records):
        reject("views", "must be 1 where a column `view` is there already", views)
    info, settings = _settings(records, pool)
    if exists and not partial_folder(store_path).exists():
        return finished_store(store_path, settings, len(records))
    line = partial(journal_line, detected=info.detector is not None)
    kept = {"settings": settings, "line": line, "resume": resume, "force": force}
    if engine == "ray":
        from kerasmlp.faces.ray_extraction import by_ray

        done = by_ray(records, pool.settings, store_path, progress, workers, **kept)
    else:
        done = _by_pool(records, pool, store_path, progress, **kept)
    with done as (journal, said):
        origin = origin or StoreInfo()
        of_data = {"source": origin.source, "licence": origin.licence}
        info = replace(info, **of_data, extraction=settings, versions=said.pop("versions"))
        report = _finish(records, journal, info, views)
    return report | said | {"seconds": round(time.monotonic() - began, 3)}


@contextlib.contextmanager
def _by_pool(
    records: Sequence[Record], pool: FacePool, store_path: Path, progress: bool, **kept: Any
) -> Iterator[tuple[PartialStore, dict[str, Any]]]:
    """Has the processes of a pool do what is left; yields the journal and what they say."""
    with pool, PartialStore(store_path, width=pool.width, **kept) as journal:
        check_keys(journal, records)
        said = {"provider": pool.provider, "note": pool.note, "versions": pool.versions}
        said["resumed_at"] = len(journal)
        _run(records, pool, journal, progress)
        yield journal, said


def _settings(records: Sequence[Record], pool: FacePool) -> tuple[StoreInfo, dict[str, Any]]:
    """What the store will say of its models, and what decides its rows."""
    how = pool.settings["finder"]
    names = ("model_dir", "embedder", "detector", "flip")
    models = find_models(**{name: how[name] for name in names if name in how})
    info = models.info(min_det_score=how["min_det_score"])
    settings = {
        "inputs": inputs_digest(records),
        "face": pool.settings["face"],
        "min_det_score": how["min_det_score"],
        "embedder": models.embedder_sha256,
        "detector": models.detector_sha256,
        "kerasmlp": __version__,
    }
    # Stores of before there was another way say nothing of theirs.
    if models.source or models.detector is None or models.preprocessing.flip:
        settings |= {"preprocessing": info.preprocessing, "normalize": models.normalize}
    if pool.settings["views"] > 1:
        settings["views"] = pool.settings["views"]
    return info, settings


def _finish(
    records: Sequence[Record], journal: PartialStore, info: StoreInfo, views: int
) -> dict[str, Any]:
    """Writes the list of what was removed, and the store."""
    store_path, counts = journal.target, removal_report(journal.entries)
    removal_list = write_removals(store_path, journal.entries)
    if not counts["kept"]:
        journal.remove()
        reject_file(store_path, "must hold at least one face", f"none ({counts['removed']})")
    both = zip(records, journal.entries, strict=True)
    rows, done = zip(*(row for row in both if row[1]["reason"] is None), strict=True)
    labels: dict[str, Any] = label_columns(rows)
    if info.detector is not None:
        labels["det_score"] = np.array([e["det_score"] for e in done], np.float32)
    labels["group"] = joined_groups([r.group for r in rows], [e["sha256"] for e in done])
    if views > 1:
        labels = {name: np.repeat(column, views) for name, column in labels.items()}
        labels["view"] = np.tile(np.arange(views), len(rows))
    journal.finish(labels, replace(info, removal_report=counts), rows_per_input=views)
    return {**counts, "store": str(store_path), "removal_list": str(removal_list)}


def _run(records: Sequence[Record], pool: FacePool, journal: PartialStore, progress: bool) -> None:
    from tqdm import tqdm

    todo = records[len(journal) :]
    tasks = [(r.image, r.removed in READ_FIRST) for r in todo if needs_image(r)]
    answers = pool.map(tasks)
    bar = tqdm(
        total=len(records), initial=len(journal), unit="img", disable=None if progress else True
    )
    committed = time.monotonic()
    reported = len(journal)
    try:
        with bar:
            for record in todo:
                answer = next(answers) if needs_image(record) else {"reason": None}
                embedding = answer.pop("embedding", None)
                reason = answer["reason"] or record.removed
                journal.append({"key": record.key, **answer, "reason": reason}, embedding)
                if time.monotonic() - committed > _COMMIT_SECONDS:
                    journal.commit()
                    bar.update(len(journal) - reported)
                    reported, committed = len(journal), time.monotonic()
            journal.commit()
            bar.update(len(journal) - reported)
    except KeyboardInterrupt:
        journal.commit()
        raise
    except InputError as error:
        journal.commit()
        error.args = (f"{error}; --resume goes on from here",)
        raise
