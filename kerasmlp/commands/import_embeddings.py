"""Makes an embedding store of embeddings that another program computed.

SOURCE is .npz, .npy, .csv, .tsv (also with .gz), .parquet, HDF5 (plain, of pandas,
or .h5ad), or an existing store; several are put together. Columns with usual names
are found by themselves: embedding, features, x, or e0, e1, …; age, age_group,
gender, sex, fold, group. Every other column of one value per row is carried along.
What was read, what was left out, and every doubt is said at the end, and kept in
the store. With --relabel an existing store comes out as it is, but for the labels
that somebody has corrected in the tables of `doctor`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmlp.commands.origin import add_origin_arguments, origin_of
from kerasmlp.utils.checks import reject, reject_file

if TYPE_CHECKING:
    from kerasmlp.data.stores.embedding_store import EmbeddingStore

_LABELS = {"age": "age_years", "gender": "gender", "age_group": "age_group"}
_LABELS |= {"group": "group", "fold": "fold"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("-o", "--output", required=True, metavar="STORE")
    parser.add_argument("--force", action="store_true", help="replace an existing STORE")
    columns = parser.add_argument_group("columns that are not found by themselves")
    columns.add_argument("--embedding", metavar="NAME", help="array, or `e` for e0, e1, …")
    columns.add_argument(
        "--columns", metavar="NAMES", help="or columns of one number each: `a,b,c` or `e0:e127`"
    )
    for option in _LABELS:
        columns.add_argument(f"--{option.replace('_', '-')}", metavar="NAME")
    columns.add_argument(
        "--label", action="append", default=[], metavar="NEW=OLD", help="carry OLD as NEW"
    )
    columns.add_argument(
        "--drop", action="append", default=[], metavar="NAME", help="leave a column out"
    )
    columns.add_argument(
        "--gender-codes",
        choices=["auto", "male0", "female0", "words"],
        default="auto",
        help="auto: as the file says, else words for text, 0 male and 1 female for numbers",
    )
    columns.add_argument(
        "--strict", action="store_true", help="refuse a file that leaves a doubt what is meant"
    )
    parser.add_argument(
        "--relabel", nargs="+", metavar="CSV", help="tables of `doctor`, with `corrected` filled"
    )
    values = parser.add_argument_group("values")
    values.add_argument("--normalize", action="store_true", help="divide by the Euclidean norm")
    values.add_argument("--float16", action="store_true", help="half the file")
    origin = parser.add_argument_group("origin, where the source does not say it")
    add_origin_arguments(origin)
    origin.add_argument("--source", metavar="TEXT", help="the data set, in words")
    origin.add_argument("--licence", metavar="TEXT", help="of the data, in words")


def run(args: argparse.Namespace) -> None:
    from kerasmlp.data.importing.embedding_files import ColumnNames, import_embeddings
    from kerasmlp.data.stores.embedding_store import EmbeddingStore
    from kerasmlp.data.stores.store_paths import check_store_path, save_store

    output = Path(args.output)
    if any(os.path.realpath(output) == os.path.realpath(source) for source in args.sources):
        reject_file(output, "must not be the source too", "the source")
    check_store_path(output, force=args.force)
    if args.relabel:
        _relabel(args, output)
        return
    labels = {new: getattr(args, option) for option, new in _LABELS.items()}
    for pair in args.label:
        new, equals, old = pair.partition("=")
        if not (new and equals and old):
            reject("--label", "must be NEW=OLD", pair)
        if labels.get(new):
            reject("--label", f"must give label {new!r} one column", f"{labels[new]} and {old}")
        labels[new] = old
    if args.embedding and args.columns:
        reject("--columns", "must not be given with --embedding", args.columns)
    named = {new: old for new, old in labels.items() if old}
    columns = ColumnNames(args.embedding, named, args.drop, args.columns)
    info = origin_of(args)
    info |= {k: v for k in ("source", "licence") if (v := getattr(args, k)) is not None}
    stores = [
        import_embeddings(
            path,
            columns=columns,
            gender_codes=args.gender_codes,
            normalize=args.normalize,
            float16=args.float16,
            info=info,
            strict=args.strict,
            say=lambda text: print(text, file=sys.stderr),
        )
        for path in args.sources
    ]
    store = EmbeddingStore.concatenate(stores, names=args.sources) if stores[1:] else stores[0]
    known = [*_found_before(stores, args.sources)]  # before a source may be replaced
    save_store(store, output, overwrite=args.force)
    for name, text in _summary(store):
        print(f"{name:12} {text}")
    for text in known:
        print(f"{'doubt':12} {text}")
    print(f"{'store':12} {output}")


def _found_before(stores: Sequence[EmbeddingStore], names: Sequence[str]) -> Iterator[str]:
    """Of each source after the first, how many of its rows others have, too."""
    import numpy as np

    from kerasmlp.data.row_hashes import row_hashes

    known = row_hashes(stores[0].values) if stores[1:] else np.empty(0, np.uint64)
    for store, name in zip(stores[1:], names[1:], strict=True):
        own = row_hashes(store.values)
        if common := int(np.isin(own, known).sum()):
            yield f"{common:,} rows of {name} are also in a source before it; `leaks` lists them"
        known = np.union1d(known, own)


def _relabel(args: argparse.Namespace, output: Path) -> None:
    from kerasmlp.data.importing.relabelling import relabel
    from kerasmlp.data.stores.embedding_store import EmbeddingStore
    from kerasmlp.data.stores.store_paths import save_store

    if len(args.sources) > 1:
        reject("--relabel", "must come with one store", args.sources)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for name, value in vars(args).items():
        own = name in ("sources", "output", "force", "relabel")
        if not own and value != parser.get_default(name):
            reject(f"--{name.replace('_', '-')}", "must be left out with --relabel", value)
    store, counts = relabel(EmbeddingStore.open(args.sources[0], verify=True), args.relabel)
    save_store(store, output, overwrite=args.force)
    changed, confirmed, empty, others = counts.values()
    print(f"{'changed':12} {changed:,} labels")
    print(f"{'left':12} {empty:,} without a correction, {confirmed:,} corrected to what they were")
    if others:
        print(f"{'left':12} {others:,} lines of other stores")
    print(f"{'store':12} {output}")


def _summary(store: EmbeddingStore) -> Iterator[tuple[str, str]]:
    from kerasmlp.data.importing.import_notes import label_sentence

    norm = "norm 1" if store.info.normalized else "not normalised"
    yield "rows", f"{len(store):,}"
    yield "embedding", f"{store.width} wide, {store.storage_dtype}, {norm}"
    yield "embedder", store.info.embedder or "unknown: models cannot check that it is theirs"
    for report in store.info.import_report["sources"]:
        yield "read", f"{report['file']}, {report['rows']:,} rows"
        taken = report["embedding"]
        yield "embedding", f"from {taken['from']!r}, {taken['dtype']} of shape {taken['shape']}"
        for name, label in sorted(report["labels"].items()):
            renamed = f" (from {label['from']!r})" if label["from"] != name else ""
            yield name, label_sentence(label) + renamed
        for name, why in report["left_out"].items():
            yield "left out", f"{name!r}, {why}"
        for doubt in report["doubts"]:
            yield "doubt", doubt
