"""Rejects what an experiment would fail at hours later. TensorFlow is not needed for it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kerasmlp.data.datasets.photos import photos_of
from kerasmlp.data.examples import VALIDATION_SHARE, Examples
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.store_info import check_same_embedder
from kerasmlp.experiments.cross_validation.plan import plan_runs
from kerasmlp.experiments.residual_mlp.design import Experiment
from kerasmlp.experiments.residual_mlp.search import search_plans
from kerasmlp.faces.finder import MIN_DET_SCORE
from kerasmlp.faces.models import find_models
from kerasmlp.runs.seen import row_hashes
from kerasmlp.utils.checks import reject_file


def check(experiment: Experiment) -> tuple[EmbeddingStore, EmbeddingStore]:
    """Opens both stores and rejects what would fail hours later."""
    pretraining = EmbeddingStore.open(experiment.pretraining_path, verify=True)
    store = EmbeddingStore.open(experiment.store_path, verify=True)
    check_same_embedder(os.fspath(experiment.pretraining_path), pretraining.info, store.info)
    if pretraining.width != store.width:
        reject_file(
            experiment.pretraining_path,
            f"must hold embeddings of width {store.width}, as the other store",
            f"{pretraining.width}",
        )
    hashes = row_hashes(pretraining.embeddings), row_hashes(store.embeddings)
    if both := int(np.isin(hashes[1], hashes[0]).sum()):
        reject_file(
            experiment.pretraining_path,
            "must hold no face of the other store, whose folds are tested on",
            f"{both} embeddings of {os.fspath(experiment.store_path)}",
        )
    for search in search_plans(experiment).values():
        search.check(pretraining.width)
    for task in experiment.tasks:
        plan_runs(store, task.plan("full", experiment.seeds, experiment.num_folds, None))
        rows = Examples.of(pretraining, task.pretraining_target)
        rows.split(VALIDATION_SHARE, experiment.seed, None)
    return pretraining, store


def check_photos(photos: Path, model_dir: str | os.PathLike, store: EmbeddingStore) -> None:
    """Rejects photos or face models that could not be drawn from hours later."""
    photos_of(photos)
    embedder = find_models(model_dir).info(min_det_score=MIN_DET_SCORE)
    check_same_embedder(os.fspath(model_dir), embedder, store.info)
