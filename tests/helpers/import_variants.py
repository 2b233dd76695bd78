"""Tables with a known truth, in every layout that people were seen to save them in."""

import csv
import gzip
import io
import json
from dataclasses import dataclass, field

import h5py
import numpy as np

UNKNOWN_WORDS = ["", "NA", "None", "nan", "null", "N/A"]
WORDS = ["cat", "dog", "New York", "été", 'say "x"', "semi;colon", "a, b", "=1+1", "x$_%"]


@dataclass
class Truth:
    """What a file must give: rows, and labels as the text of each value, "" where unknown."""

    rows: np.ndarray
    labels: dict = field(default_factory=dict)  # name → values as they are written
    expected: dict = field(default_factory=dict)  # name in the store → texts


def as_text(column):
    """A label of a store in one form for all kinds."""
    if column.dtype.kind == "f":
        return ["" if v != v else str(v).removesuffix(".0") for v in column]  # every digit
    gap = "" if column.dtype.kind == "U" else -1
    return ["" if v == gap else str(v) for v in column.tolist()]


def plain(values):
    """A list as NumPy arrays have it: gaps make floats of numbers, and text of bools."""
    known = [v for v in values if v is not None]
    if any(isinstance(v, str) for v in known) or not known:
        return np.array(["" if v is None else v for v in values], dtype=str)
    if len(known) == len(values):
        return np.array(values)
    if isinstance(known[0], bool):
        return np.array(["" if v is None else str(v) for v in values])
    return np.array([np.nan if v is None else v for v in values], np.float64)


def columns(truth):
    return {name: plain(values) for name, values in truth.labels.items()}


def wide(truth, prefix="e", first=0):
    rows = truth.rows
    return {f"{prefix}{k + first}": rows[:, k] for k in range(rows.shape[1])}


# ---- how a row is written into one cell


def json_cells(truth):
    return [json.dumps(row) for row in truth.rows.tolist()]


def numpy_cells(truth):
    return [
        np.array2string(row, max_line_width=40, threshold=10**6, precision=8) for row in truth.rows
    ]


def repr_cells(truth):
    with np.printoptions(threshold=10**6, precision=8):
        return [repr(row) for row in truth.rows]


def spaced_cells(truth):
    return [" ".join(map(str, row)) for row in truth.rows.tolist()]


def buffers(truth):
    return [row.astype("<f4").tobytes() for row in truth.rows]


# ---- NumPy


def npz(name="embedding", change=lambda rows: rows, **more):
    def write(path, truth):
        arrays = {name: change(truth.rows)} if name else {}
        extra = {k: f(truth) for k, f in more.items()}
        np.savez(path.with_suffix(".npz"), **arrays, **extra, **columns(truth))
        return path.with_suffix(".npz")

    return write


def npz_cells(cells, name="embedding"):
    def write(path, truth):
        np.savez(path.with_suffix(".npz"), **{name: np.array(cells(truth))}, **columns(truth))
        return path.with_suffix(".npz")

    return write


def npz_void(path, truth):
    cells = np.ascontiguousarray(truth.rows).view(f"V{truth.rows.shape[1] * 4}")[:, 0]
    np.savez(path.with_suffix(".npz"), embedding=cells, **columns(truth))
    return path.with_suffix(".npz")


def npz_columns(path, truth):
    np.savez(path.with_suffix(".npz"), **wide(truth), **columns(truth))
    return path.with_suffix(".npz")


def npz_rows(path, truth):
    np.savez(path.with_suffix(".npz"), *truth.rows, **columns(truth))
    return path.with_suffix(".npz")


def npz_column_labels(path, truth):
    arrays = {name: values[:, None] for name, values in columns(truth).items()}
    np.savez(path.with_suffix(".npz"), embedding=truth.rows, **arrays)
    return path.with_suffix(".npz")


def structured(truth):
    fields = {"embedding": truth.rows, **columns(truth)}
    kinds = [(name, v.dtype, v.shape[1:]) for name, v in fields.items()]
    table = np.empty(len(truth.rows), kinds)
    for name, values in fields.items():
        table[name] = values
    return table


def npy_structured(path, truth):
    np.save(path.with_suffix(".npy"), structured(truth))
    return path.with_suffix(".npy")


def npz_structured(path, truth):
    np.savez(path.with_suffix(".npz"), table=structured(truth))
    return path.with_suffix(".npz")


# ---- text tables


def table_of(named, suffix=".csv", encoding="utf-8", decimal=".", start="", index=False, **dialect):
    def write(path, truth):
        text = io.StringIO()
        text.write(start)
        writer = csv.writer(text, **{"lineterminator": "\n", **dialect})
        both = {**named(truth), **truth.labels}
        writer.writerow([""] * index + list(both))
        for place, row in enumerate(zip(*both.values(), strict=True)):
            cells = ["" if v is None else str(v) for v in row]
            if decimal == ",":
                cells = [
                    c.replace(".", ",") if isinstance(v, float | np.floating) else c
                    for c, v in zip(cells, row, strict=True)
                ]
            writer.writerow([place] * index + cells)
        data = text.getvalue().encode(encoding)
        whole = path.with_name(path.name + suffix)
        whole.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
        return whole

    return write


def cell(cells, name="embedding"):
    return lambda truth: {name: cells(truth)}


def boxes(truth):
    numbers = range(len(truth.rows))
    return {
        "embedding": json_cells(truth),
        **{f"bbox_{k}": [n * 4 + k for n in numbers] for k in range(4)},
    }


# ---- Parquet


def parquet(make, *, labels=None, metadata=None, more=lambda pa, truth: {}):
    def write(path, truth):
        import pyarrow as pa
        from pyarrow import parquet as pq

        made = make(pa, truth)
        made = made if isinstance(made, dict) else {"embedding": made}
        told = (labels or arrow_labels)(pa, truth)
        table = pa.table({**made, **told, **more(pa, truth)})
        if metadata:
            table = table.replace_schema_metadata(metadata(truth))
        pq.write_table(table, path.with_suffix(".parquet"), row_group_size=3)
        return path.with_suffix(".parquet")

    return write


def arrow_labels(pa, truth):
    return {name: pa.array(values) for name, values in truth.labels.items()}


def arrow_categories(pa, truth):
    return {
        name: pa.array(v).dictionary_encode() if any(isinstance(x, str) for x in v) else pa.array(v)
        for name, v in truth.labels.items()
    }


def class_label_names(values):
    return sorted({v for v in values if v})


def arrow_codes(pa, truth):
    told = {}
    for name, values in truth.labels.items():
        if any(isinstance(v, str) for v in values):
            names = class_label_names(values)
            values = [names.index(v) if v else -1 for v in values]
        told[name] = pa.array(values, pa.int64()) if name in ("mood",) else pa.array(values)
    return told


def huggingface(truth):
    features = {
        name: {"names": class_label_names(values), "_type": "ClassLabel"}
        for name, values in truth.labels.items()
        if any(isinstance(v, str) for v in values)
    }
    return {"huggingface": json.dumps({"info": {"features": features}})}


def tensors(pa, truth):
    rows = truth.rows
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(rows[:, None, :]))


def structs(pa, truth):
    return {"image": pa.array([{"bytes": b"x", "path": "p"}] * len(truth.rows))}


def fixed(pa, truth):
    flat = pa.array(truth.rows.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, truth.rows.shape[1])


# ---- HDF5


def hdf5(write_rows, write_labels=None, suffix=".h5"):
    def write(path, truth):
        whole = path.with_suffix(suffix)
        with h5py.File(whole, "w") as file:
            write_rows(file, truth)
            (write_labels or plain_labels)(file, truth)
        return whole

    return write


def stored(values):
    """Text as HDF5 has it."""
    if values.dtype.kind != "U":
        return values
    return np.array([v.encode() for v in values.tolist()], dtype=object)


def put(file, name, values, place="/"):
    values = stored(values)
    kind = h5py.string_dtype() if values.dtype.kind == "O" else None
    return file.require_group(place).create_dataset(name, data=values, dtype=kind)


def plain_labels(file, truth):
    for name, values in columns(truth).items():
        put(file, name, values)


def fixed_text_labels(file, truth):
    for name, values in columns(truth).items():
        file[name] = np.strings.encode(values, "utf-8") if values.dtype.kind == "U" else values


def linked_labels(file, truth):
    for place, (name, values) in enumerate(columns(truth).items()):
        put(file, f"column{place}", values, "/raw")
        file[name] = h5py.SoftLink(f"/raw/column{place}")


def compound_labels(file, truth):
    table = structured(Truth(truth.rows, truth.labels))
    text = [
        (n, h5py.string_dtype() if table.dtype[n].kind == "U" else table.dtype[n])
        for n in truth.labels
    ]
    told = np.empty(len(table), text)
    for name in truth.labels:
        told[name] = stored(table[name])
    if truth.labels:
        file["meta"] = told


def enum_labels(file, truth):
    for name, values in columns(truth).items():
        if values.dtype.kind != "U" or name == "age":
            put(file, name, values)
            continue
        names = {v or "unknown": k + 3 for k, v in enumerate(sorted(set(values.tolist())))}
        codes = [names[v or "unknown"] for v in values.tolist()]
        file.create_dataset(name, data=np.array(codes, "i1"), dtype=h5py.enum_dtype(names, "i1"))


def rows_named(name, change=lambda rows: rows, **options):
    return lambda file, truth: file.create_dataset(name, data=change(truth.rows), **options)


def vlen_rows(file, truth):
    dataset = file.create_dataset("embedding", (len(truth.rows),), h5py.vlen_dtype(np.float32))
    for place, row in enumerate(truth.rows):
        dataset[place] = row


def item_rows(file, truth):
    for place, row in enumerate(truth.rows):
        file[f"faces/item_{place}"] = row


def frame_fixed(path, truth):
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file.attrs["PYTABLES_FORMAT_VERSION"] = np.bytes_(b"2.1")
        group = file.create_group("df")
        numbers = {k: v for k, v in columns(truth).items() if v.dtype.kind in "if"}
        blocks = [wide(truth), numbers]
        blocks = [b for b in blocks if b]
        group.attrs.update(pandas_type=np.bytes_(b"frame"), nblocks=len(blocks), ndim=2)
        group["axis0"] = np.array([k.encode() for b in blocks for k in b])
        group["axis1"] = np.arange(len(truth.rows))
        for place, block in enumerate(blocks):
            group[f"block{place}_items"] = np.array([k.encode() for k in block])
            transposed = place == 0
            values = np.stack(list(block.values()), axis=1).astype(np.float64)
            group[f"block{place}_values"] = values if transposed else values.T
            group[f"block{place}_values"].attrs["transposed"] = np.uint8(transposed)
    truth.expected = {k: v for k, v in truth.expected.items() if k in stored_names(numbers)}
    return path.with_suffix(".h5")


def stored_names(names):
    meant = {"age": "age_years", "sex": "gender"}
    return {meant.get(name.lower(), name) for name in names}


def frame_table(path, truth):
    fields = {**wide(truth)}
    categories = {}
    for name, values in columns(truth).items():
        if values.dtype.kind == "U" and name != "age":
            categories[name] = sorted(set(values.tolist()) - {""})
            values = np.array(
                [categories[name].index(v) if v else -1 for v in values.tolist()], "i1"
            )
        elif values.dtype.kind == "U":
            values = np.strings.encode(values, "utf-8")
        fields[name] = values
    table = np.empty(len(truth.rows), [("index", "i8"), *((k, v.dtype) for k, v in fields.items())])
    table["index"] = np.arange(len(truth.rows))
    for name, values in fields.items():
        table[name] = values
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file.attrs["PYTABLES_FORMAT_VERSION"] = np.bytes_(b"2.1")
        group = file.create_group("df")
        group.attrs["pandas_type"] = np.bytes_(b"frame_table")
        group["table"] = table
        for name, names in categories.items():
            group["table"].attrs[f"{name}_meta"] = np.bytes_(b"category")
            kinds = [("index", "i8"), ("values", f"S{max([1, *(len(n.encode()) for n in names)])}")]
            meta = np.empty(len(names), kinds)
            meta["values"] = [n.encode() for n in names]
            group[f"meta/{name}/meta/table"] = meta
    return path.with_suffix(".h5")


def anndata(place):
    def write(path, truth):
        with h5py.File(path.with_suffix(".h5ad"), "w") as file:
            file.attrs["encoding-type"] = "anndata"
            file[place] = truth.rows
            file.create_group("var")
            obs = file.create_group("obs")
            obs.attrs["_index"] = "_index"
            put(file, "_index", np.array([f"c{k}" for k in range(len(truth.rows))]), "obs")
            for name, values in truth.labels.items():
                annotated(file, name, values)
        return path.with_suffix(".h5ad")

    return write


def annotated(file, name, values):
    """A column of `obs`: text as categories, numbers with gaps as nullable."""
    known = [v for v in values if v is not None]
    group = f"obs/{name}"
    if any(isinstance(v, str) for v in known) or not known:
        names = sorted({v for v in known if v})
        put(file, "categories", np.array(names, dtype=str), group)
        codes = [names.index(v) if v else -1 for v in values]
        put(file, "codes", np.array(codes, "i1"), group)
        file[group].attrs["encoding-type"] = "categorical"
    elif len(known) < len(values):
        put(file, "values", np.array([known[0] if v is None else v for v in values]), group)
        put(file, "mask", np.array([v is None for v in values]), group)
        kind = "boolean" if isinstance(known[0], bool) else "integer"
        file[group].attrs["encoding-type"] = f"nullable-{kind}"
    else:
        put(file, name, np.array(values), "obs")


def to_half(rows):
    return rows.astype(np.float16)


def to_double(rows):
    return rows.astype(np.float64)


def narrow(rows):
    return rows[:, None, :]


def deep(rows):
    return rows[:, :, None, None]


def big_endian(rows):
    return rows.astype(">f4")


VARIANTS = {
    "npz": npz(),
    "npz X float64": npz("X", to_double),
    "npz features float16": npz("features", to_half),
    "npz emb (N, 1, d)": npz("emb", narrow),
    "npz embeddings (N, d, 1, 1)": npz("embeddings", deep),
    "npz big-endian": npz("Embedding", big_endian),
    "npz Fortran order": npz("embedding", np.asfortranarray),
    "npz one unnamed array": npz("vectors"),
    "npz face_embedding": npz("face_embedding"),
    "npz beside boxes": npz("embedding", bbox=lambda t: np.ones((len(t.rows), 4))),
    "npz beside images": npz("embedding", images=lambda t: np.zeros((len(t.rows), 4, 4, 3), "u1")),
    "npz unnamed beside one-hot": npz("vectors", y=lambda t: np.eye(3)[np.arange(len(t.rows)) % 3]),
    "npz JSON": npz_cells(json_cells),
    "npz NumPy text": npz_cells(numpy_cells, "X"),
    "npz repr": npz_cells(repr_cells),
    "npz buffers": npz_void,
    "npz column per dimension": npz_columns,
    "npz array per row": npz_rows,
    "npz labels (N, 1)": npz_column_labels,
    "npz structured": npz_structured,
    "npy structured": npy_structured,
    "csv": table_of(wide),
    "csv feat_0": table_of(lambda t: wide(t, "feat_")),
    "csv Emb.1": table_of(lambda t: wide(t, "Emb.", 1)),
    "csv bare numbers": table_of(lambda t: wide(t, "")),
    "csv unnamed columns": table_of(lambda t: wide(t, "dim")),
    "csv Excel, German": table_of(wide, decimal=",", delimiter=";", encoding="utf-8-sig"),
    "csv Excel, sep=": table_of(wide, start="sep=;\r\n", delimiter=";", lineterminator="\r\n"),
    "csv decimal commas in quotes": table_of(wide, decimal=","),
    "csv tabs, decimal commas": table_of(wide, decimal=",", delimiter="\t"),
    "csv UTF-16": table_of(wide, encoding="utf-16", delimiter="\t"),
    "csv UTF-16 LE, no mark": table_of(wide, encoding="utf-16-le"),
    "csv UTF-16 BE, no mark": table_of(wide, encoding="utf-16-be", delimiter=";"),
    "csv spaces in the header": table_of(lambda t: wide(t, " e")),
    "csv BOM": table_of(wide, encoding="utf-8-sig"),
    "csv gzip": table_of(wide, ".csv.gz"),
    "tsv gzip": table_of(wide, ".tsv.gz", delimiter="\t"),
    "tsv": table_of(wide, ".tsv", delimiter="\t"),
    "csv pipes": table_of(wide, delimiter="|"),
    "csv all quoted": table_of(wide, quoting=csv.QUOTE_ALL),
    "csv CRLF": table_of(wide, lineterminator="\r\n"),
    "csv index": table_of(wide, index=True),
    "csv index, German": table_of(wide, index=True, decimal=",", delimiter=";"),
    "csv JSON": table_of(cell(json_cells)),
    "csv JSON, semicolons": table_of(cell(json_cells, "X"), delimiter=";"),
    "csv JSON beside boxes": table_of(boxes),
    "csv NumPy text over lines": table_of(cell(numpy_cells)),
    "csv repr": table_of(cell(repr_cells, "features")),
    "csv numbers and spaces": table_of(cell(spaced_cells, "embeddings")),
    "parquet lists": parquet(lambda pa, t: pa.array(list(t.rows))),
    "parquet fixed lists": parquet(fixed),
    "parquet large lists": parquet(
        lambda pa, t: pa.array(t.rows.tolist(), pa.large_list(pa.float32()))
    ),
    "parquet lists of lists": parquet(lambda pa, t: pa.array(t.rows[:, None].tolist())),
    "parquet tensors": parquet(tensors),
    "parquet columns": parquet(lambda pa, t: wide(t)),
    "parquet categories": parquet(fixed, labels=arrow_categories),
    "parquet ClassLabel": parquet(fixed, labels=arrow_codes, metadata=huggingface),
    "parquet beside structs": parquet(fixed, more=structs),
    "parquet JSON": parquet(lambda pa, t: pa.array(json_cells(t))),
    "parquet buffers": parquet(lambda pa, t: pa.array(buffers(t))),
    "parquet fixed buffers": parquet(
        lambda pa, t: pa.array(buffers(t), pa.binary(t.rows.shape[1] * 4))
    ),
    "parquet index": parquet(
        fixed, more=lambda pa, t: {"__index_level_0__": pa.array(range(7, 7 + len(t.rows)))}
    ),
    "parquet one unnamed list": parquet(lambda pa, t: {"vector": pa.array(list(t.rows))}),
    "hdf5": hdf5(rows_named("embedding")),
    "hdf5 in a group": hdf5(rows_named("in/a/X")),
    "hdf5 gzip": hdf5(rows_named("features", compression="gzip", shuffle=True)),
    "hdf5 (N, 1, d)": hdf5(rows_named("emb", narrow)),
    "hdf5 vlen": hdf5(vlen_rows),
    "hdf5 item per row": hdf5(item_rows),
    "hdf5 fixed text": hdf5(rows_named("embedding"), fixed_text_labels),
    "hdf5 soft links": hdf5(rows_named("embedding"), linked_labels),
    "hdf5 compound labels": hdf5(rows_named("embedding"), compound_labels),
    "hdf5 enums": hdf5(rows_named("embedding"), enum_labels),
    "HDFStore fixed": frame_fixed,
    "HDFStore table": frame_table,
    "AnnData X": anndata("X"),
    "AnnData obsm": anndata("obsm/X_model"),
}
