#!/usr/bin/env python3
"""Draws `fairface_sample.h5` from a store or plain HDF5 file of FairFace embeddings.

    python data/make_fairface_sample.py ../shared/data/fairface_arcface.h5

Balanced over age group and gender first: cells smaller than the common quota
are taken whole. Within a cell balanced over race in the same way. The same
source and seed give the same rows.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kerasmlp.stores.embedding_store import EmbeddingStore
from kerasmlp.stores.importing import ColumnNames, import_embeddings

ROWS = 12_000
SEED = 20210105
OUTPUT = Path(__file__).with_name("fairface_sample.h5")
SOURCE = (
    'Sample of FairFace: Kärkkäinen and Joo, "FairFace: Face Attribute Dataset for Balanced '
    'Race, Gender, and Age for Bias Measurement and Mitigation", WACV 2021'
)


def quotas(sizes: np.ndarray, total: int) -> np.ndarray:
    """As equal as the sizes allow, with sum `total`: small cells whole, the rest shared."""
    quota = np.zeros(len(sizes), int)
    for rank, cell in enumerate(order := np.argsort(sizes, kind="stable")):
        quota[cell] = min(sizes[cell], (total - quota.sum()) // (len(order) - rank))
    return quota


def balanced(rows: np.ndarray, keys: list[np.ndarray], total: int, rng) -> np.ndarray:
    """Draws `total` of `rows`, balanced over the first key, and within it over the next."""
    if not keys:
        return rng.choice(rows, total, replace=False)
    values = np.unique(keys[0][rows])
    cells = [rows[keys[0][rows] == value] for value in values]
    shares = quotas(np.array([len(cell) for cell in cells]), total)
    drawn = (balanced(c, keys[1:], n, rng) for c, n in zip(cells, shares, strict=True))
    return np.concatenate(list(drawn))


def main(path: str) -> None:
    store = import_embeddings(path, columns=ColumnNames(drop=("path", "det_score")), float16=True)
    cell = np.char.add(store.labels["age_group"], store.labels["gender"].astype(str))
    rng = np.random.default_rng(SEED)
    rows = balanced(np.arange(len(store)), [cell, store.labels["race"]], ROWS, rng)
    sample = store.subset(rng.permutation(rows))
    info = replace(sample.info, source=SOURCE, licence="CC BY 4.0")
    sample = EmbeddingStore(sample.embeddings.astype(np.float16), sample.labels, info)
    sample.save(OUTPUT, overwrite=True)
    print(OUTPUT, len(sample), sample.digest())
    for group in sorted(set(sample.labels["age_group"].tolist())):
        of_group = sample.labels["age_group"] == group
        print(group, *np.bincount(sample.labels["gender"][of_group], minlength=2), of_group.sum())
    print(*np.unique(sample.labels["race"], return_counts=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
