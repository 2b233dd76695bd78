"""Makes an embedding store of embeddings that another program computed.

SOURCE is .npz, .npy, .csv, .tsv, .parquet, plain HDF5, or an existing store;
several are put together. Columns with usual names are found by themselves:
embedding, features, x, or e0, e1, …; age, age_group, gender, sex, fold, group.
Every other column of one value per row is carried along.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kerasmlp.commands.origin import add_origin_arguments, origin_of

_LABELS = {"age": "age_years", "gender": "gender", "age_group": "age_group"}
_LABELS |= {"group": "group", "fold": "fold"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("-o", "--output", required=True, metavar="STORE")
    parser.add_argument("--force", action="store_true", help="replace an existing STORE")
    columns = parser.add_argument_group("columns that are not found by themselves")
    columns.add_argument("--embedding", metavar="NAME", help="2-D array, or `e` for e0, e1, …")
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
    values = parser.add_argument_group("values")
    values.add_argument("--normalize", action="store_true", help="divide by the Euclidean norm")
    values.add_argument("--float16", action="store_true", help="half the file")
    origin = parser.add_argument_group("origin, where the source does not say it")
    add_origin_arguments(origin)
    origin.add_argument("--source", metavar="TEXT", help="the data set, in words")
    origin.add_argument("--licence", metavar="TEXT", help="of the data, in words")


def run(args: argparse.Namespace) -> None:
    from kerasmlp.checks import reject, reject_file
    from kerasmlp.files import what_is
    from kerasmlp.stores.embedding_store import EmbeddingStore
    from kerasmlp.stores.importing import ColumnNames, import_embeddings

    output = Path(args.output)
    if output.suffix not in (".h5", ".hdf5"):
        reject_file(output, "must end in .h5 or .hdf5", f"suffix {output.suffix!r}")
    if any(output.resolve() == Path(source).resolve() for source in args.sources):
        reject_file(output, "must not be the source too", "the source")
    if output.exists() and not args.force:
        reject_file(output, "must not exist yet (--force replaces it)", what_is(output))
    labels = {new: getattr(args, option) for option, new in _LABELS.items()}
    for pair in args.label:
        new, equals, old = pair.partition("=")
        if not (new and equals and old):
            reject("--label", "must be NEW=OLD", pair)
        labels[new] = old
    columns = ColumnNames(
        args.embedding, {new: old for new, old in labels.items() if old}, args.drop
    )
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
            say=lambda text: print(text, file=sys.stderr),
        )
        for path in args.sources
    ]
    store = EmbeddingStore.concatenate(stores, names=args.sources) if stores[1:] else stores[0]
    store.save(output, overwrite=args.force)
    for name, text in _summary(store):
        print(f"{name:12} {text}")
    print(f"{'store':12} {output}")


def _summary(store) -> list[tuple[str, str]]:
    import numpy as np

    norm = "norm 1" if store.info.normalized else "not normalised"
    rows = [
        ("rows", f"{len(store):,}"),
        ("embedding", f"{store.width} wide, {store.storage_dtype}, {norm}"),
        ("embedder", store.info.embedder or "unknown: models cannot check that it is theirs"),
    ]
    for name, column in sorted(store.labels.items()):
        kind = column.dtype.kind
        unknown = {"f": np.isnan, "U": lambda c: c == ""}.get(kind, lambda c: c == -1)(column)
        text = f"{len(np.unique(column[~unknown])):,} values"
        rows.append((name, f"{text}, {int(unknown.sum()):,} unknown"))
    return rows
