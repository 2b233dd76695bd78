#!/usr/bin/env python3
"""Draws `fairface_sample.h5` from a store or plain HDF5 file of FairFace embeddings.

    python data/make_fairface_sample.py ../shared/data/fairface_arcface.h5

As FairFace has them, but for the rarest age groups, of which all rows are
taken. The same source and seed give the same rows.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kerasmlp.data.importing.embedding_files import ColumnNames, import_embeddings
from kerasmlp.data.sample import SAMPLE
from kerasmlp.data.stores.embedding_store import EmbeddingStore

ROWS = 18_500
WHOLE = ("0-2", "60-69", "more than 70")
SEED = 20210105
SOURCE = (
    'Sample of FairFace: Kärkkäinen and Joo, "FairFace: Face Attribute Dataset for Balanced '
    'Race, Gender, and Age for Bias Measurement and Mitigation", WACV 2021'
)


def main(path: str) -> None:
    store = import_embeddings(path, columns=ColumnNames(drop=("path", "det_score")), float16=True)
    rng = np.random.default_rng(SEED)
    whole = np.isin(store.labels["age_group"], WHOLE)
    others = rng.choice(np.flatnonzero(~whole), ROWS - whole.sum(), replace=False)
    sample = store.subset(rng.permutation(np.concatenate([np.flatnonzero(whole), others])))
    info = replace(sample.info, source=SOURCE, licence="CC BY 4.0")
    sample = EmbeddingStore(sample.embeddings.astype(np.float16), sample.labels, info)
    sample.save(SAMPLE, overwrite=True)
    print(SAMPLE, len(sample), sample.digest())
    for group in sorted(set(sample.labels["age_group"].tolist())):
        of_group = sample.labels["age_group"] == group
        print(group, *np.bincount(sample.labels["gender"][of_group], minlength=2), of_group.sum())
    print(*np.unique(sample.labels["race"], return_counts=True))
    print(len(np.unique(sample.labels["group"])), "groups")


if __name__ == "__main__":
    main(*sys.argv[1:])
