"""Writes an embedding store in another form: one file, a folder of shards, or Parquet.

A store is one HDF5 file (.h5), a folder of such shards (a name without a suffix), or one
Parquet file (.parquet) with the embeddings as a column of fixed-size lists. All commands
take each of them; rows, labels, digest and what a store says of itself stay the same. Memory
does not grow with the rows. Embeddings are biometric data in each form.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from kerasmlp.utils.checks import reject_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path, help="in any form")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="STORE",
        help="ends in .h5, .parquet, or in no suffix: a folder of shards",
    )  # fmt: skip
    parser.add_argument(
        "--rows-per-shard", type=int, metavar="N", help="of a folder; default: 1,000,000"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing STORE")


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.stores.embedding_store import EmbeddingStore
    from kerasmlp.data.stores.store_paths import check_store_path, save_store

    if os.path.realpath(args.store) == os.path.realpath(args.output):
        reject_file(args.output, "must not be the store that is read", "the same")
    check_store_path(args.output, force=args.force, rows_per_shard=args.rows_per_shard)
    store = EmbeddingStore.open(args.store, verify=True, streamed=True)
    save_store(store, args.output, rows_per_shard=args.rows_per_shard, overwrite=args.force)
    print(f"{'rows':12} {len(store):,}, {store.width} wide, {store.storage_dtype}")
    print(f"{'store':12} {args.output}")
