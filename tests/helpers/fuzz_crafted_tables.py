"""Tables made to take memory, to run code or to reach elsewhere."""

import gzip
import io
import os
import socket
import struct
import zipfile

import h5py
import numpy as np
from fuzz_damaged import Given, ask_import

from kerasmlp.data.stores.embedding_store import EmbeddingStore

ROWS = (np.arange(1, 25).reshape(6, 4) / 64).astype(np.float32)


class Hostile:
    """What a pickle of it does when it is believed."""

    def __init__(self, secret):
        self.secret = str(secret)

    def __reduce__(self):
        return eval, (f"open({self.secret!r}, 'a').write('x')",)


def size_of(rng, least=20, most=28):
    return 1 << rng.randint(least, most)


# ---- tables: each writes a file and returns it


def gzip_bomb(folder, rng, secret):
    start = b"e0,e1,e2,e3\n" if rng.random() < 0.5 else b""
    zeros = gzip.compress(rng.choice([b"0,1,0,1\n", b"0", b"\n", b'"']) * (1 << 18))
    (folder / "a.csv.gz").write_bytes(gzip.compress(start) + zeros * rng.randint(300, 2000))
    return folder / "a.csv.gz"


def npz_bomb(folder, rng, secret):
    header = {"descr": rng.choice(["<f4", "<f8", "|S64", "<U16"]), "fortran_order": False}
    header["shape"] = (1 << rng.randint(18, 40), rng.choice([16, 70, 512]))
    how = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA])
    archive = zipfile.ZipFile(folder / "a.npz", "w", how)
    with archive, archive.open("X.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(rng.randint(1, 90) if how == zipfile.ZIP_DEFLATED else 1):
            member.write(bytes(1 << 22))
    return folder / "a.npz"


def npy_header(folder, rng, secret):
    shape = rng.choice(
        [
            "(6, 4)",
            "(1099511627776, 64)",
            "(-1, 4)",
            "(6, 0)",
            "()",
            f"({'9' * 5000},)",
            "(6, 4, " * 30 + ")" * 30,
            "(2**62, 4)",
            f"open({str(secret)!r}).read()",
        ]
    )
    descr = rng.choice(
        [
            "'<f4'",
            "'|O'",
            "[('a', '|O')]",
            "'<M8[s]'",
            "'|V8'",
            "'<U99999999'",
            "'|S0'",
            "[('x', '<f4', (99999, 99999))]",
            f"__import__('os').remove({str(secret)!r})",
        ]
    )
    order = rng.choice(["False", "True"])
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    content = text.encode().ljust(118) + b"\n"
    (folder / "a.npy").write_bytes(
        b"\x93NUMPY\x02\0" + struct.pack("<I", len(content)) + content + bytes(96)
    )
    return folder / "a.npy"


def pickled(folder, rng, secret):
    values = np.array([Hostile(secret)] * 6, object)
    if rng.random() < 0.3:
        np.save(folder / "a.npy", values, allow_pickle=True)
        return folder / "a.npy"
    np.savez(folder / "a.npz", **{rng.choice(["embedding", "X"]): values, "id": np.arange(6)})
    return folder / "a.npz"


def escaping_archive(folder, rng, secret):
    file = io.BytesIO()
    np.save(file, ROWS)
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        for name in (
            "../outside/written.npy",
            f"{secret.parent}/written.npy",
            "..\\..\\written.npy",
        ):
            archive.writestr(rng.choice([name, f"{name}/../x.npy"]), file.getvalue())
    return folder / "a.npz"


def wild_csv(folder, rng, secret):
    number = rng.choice(
        [
            "9" * 5000,
            "1e999",
            "-1e999",
            "NaN",
            "Infinity",
            "0x10",
            "1_000",
            "\u0661",
            "[" * 100_000,
            "[" * 500 + "]" * 500,
            "x" * 9_000_000,
            '"' + "1\n" * 999_999,
            "1" * 20_000_000,
            "\0",
            "=cmd|' /C calc'!A0",
            "{'a': 1}",
            "[1, 2",
            "1 2 3 " * 9999,
        ]
    )
    as_one = rng.random() < 0.4
    header = "embedding" if as_one else "e0,e1,e2,e3"
    rows = [('"[1, 2, 3, 4]"' if as_one else "1,2,3,4")] * rng.randint(1, 9)
    rows[rng.randrange(len(rows))] = number if as_one else f"1,{number},3,4"
    (folder / "a.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return folder / "a.csv"


def wild_header(folder, rng, secret):
    wide = rng.randint(50_001, 120_000)
    text = rng.choice(
        [
            "e0,e99999999\n1,2\n",
            "e0,e" + "9" * 5000 + "\n1,2\n",
            ",".join(f"e{k}" for k in range(wide)) + "\n" + "1," * (wide - 1) + "1\n",
            "," * 3_000_000 + "\n",
            "e0," * 40_000 + "\n",
            "\n" * 5_000_000,
            "e0,e0,e0\n1,2,3\n",
            "x" * 30_000_000,
            "e0,e1\n" + "1,2\n" * 10 + "1," * 500_000,
            '"' * 999_999,
        ]
    )
    (folder / "a.csv").write_text(text)
    return folder / "a.csv"


def parquet_bomb(folder, rng, secret):
    import pyarrow as pa
    from pyarrow import parquet

    codes = pa.array(np.zeros(1 << rng.randint(20, 22), np.int8))
    value = rng.choice([0.5, "x" * rng.choice([1, 1 << 12, 1 << 20])])
    names = [f"e{k}" for k in range(rng.randint(4, 12))]
    table = pa.table({n: pa.DictionaryArray.from_arrays(codes, [value]) for n in names})
    parquet.write_table(table, folder / "a.parquet", compression=rng.choice(["snappy", "zstd"]))
    return folder / "a.parquet"


def hdf5_bomb(folder, rng, secret):
    with h5py.File(folder / "a.h5", "w") as file:
        rows, width = size_of(rng), rng.choice([256, 4096])
        shape, options = (rows, width), {}
        what = rng.choice(["gzip", "chunk", "contiguous", "text", "vlen", "groups", "attribute"])
        if what == "gzip":
            options = {"chunks": (1 << 10, width), "compression": "gzip"}
        elif what == "chunk":
            shape, options = (3, 256), {"chunks": (1 << 20, 256), "maxshape": (None, 256)}
        if what == "groups":
            group = file
            for _ in range(rng.randint(2, 2000)):
                group = group.create_group("g")
            group["embedding"] = file["g"]
        elif what == "attribute":
            file["embedding"] = ROWS
            file.attrs["source"] = "x" * 60_000
            file.attrs["import_report"] = "[" * 60_000
        elif what == "text":
            file["embedding"] = ROWS
            file.create_dataset("mood", (6,), "S100000000", chunks=(1,), compression="gzip")
        elif what == "vlen":
            file.create_dataset("embedding", (rows,), h5py.vlen_dtype("f4"), chunks=(1024,))
        else:
            file.create_dataset("embedding", shape, "f4", **options)
    return folder / "a.h5"


def add_link(file, name, rng, secret, like=None):
    """In place of a dataset: something that lies elsewhere."""
    shape, dtype = (like.shape, like.dtype) if like is not None else ((96,), np.dtype("u1"))
    if name in file:
        del file[name]
    what = rng.choice(["external", "external soft", "storage", "storage", "virtual", "group"])
    if what.startswith("external"):
        file[name] = h5py.ExternalLink(str(secret), rng.choice(["/", "x", "embedding"]))
    elif what == "storage":
        size = int(np.prod(shape)) * dtype.itemsize
        where = rng.choice([str(secret), f"../../outside/{secret.name}"])
        file.create_dataset(name, shape, dtype, external=[(where, 0, max(size, 1))])
    elif what == "virtual":
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(str(secret), "embedding", shape, dtype)
        file.create_virtual_dataset(name, layout)
    else:
        file.create_group(name)["embedding"] = h5py.ExternalLink(str(secret), "/")


def hdf5_links(folder, rng, secret):
    with h5py.File(folder / "a.h5", "w") as file:
        file["embedding"] = ROWS
        name = rng.choice(["embedding", "age", "in/a/b", "mood"])
        add_link(file, name, rng, secret, file.get(name))
        if rng.random() < 0.3:
            file["loop"] = h5py.SoftLink("/loop")
            file["nowhere"] = h5py.SoftLink("/none/at/all")
    return folder / "a.h5"


def no_file(folder, rng, secret):
    path = (
        folder / f"a.{rng.choice(['csv', 'csv.gz', 'npz', 'npy', 'parquet', 'h5', 'h5ad', 'tsv'])}"
    )
    what = rng.choice(["fifo", "folder", "loop", "device", "socket", "empty", "dangling"])
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "empty":
        path.touch()
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    else:
        path.symlink_to({"loop": path, "device": "/dev/zero", "dangling": folder / "none"}[what])
    return path


def values_elsewhere(folder, rng, secret):
    """Plain values that are none: NaN, infinity and numbers that no half precision has."""
    rows = ROWS.astype(np.float64)
    rows[rng.randrange(6), rng.randrange(4)] = rng.choice([np.nan, np.inf, -np.inf, 1e300, 1e39])
    np.savez(folder / "a.npz", embedding=rows)
    return folder / "a.npz"


TABLES = {  # whether none of them may be taken
    "gzip bomb": (gzip_bomb, True), "npz bomb": (npz_bomb, False),
    "npy header": (npy_header, False), "pickles": (pickled, True),
    "escaping names": (escaping_archive, False), "wild numbers": (wild_csv, False),
    "wild headers": (wild_header, True), "parquet bomb": (parquet_bomb, False),
    "HDF5 bomb": (hdf5_bomb, False), "HDF5 links": (hdf5_links, True),
    "no files": (no_file, True), "no numbers": (values_elsewhere, True),
}  # fmt: skip


def tables(secret):
    def lay(folder, rng):
        name = rng.choice(sorted(TABLES))
        write, refused = TABLES[name]
        path = write(folder, rng, secret)

        def judge(_):
            found = EmbeddingStore.open(folder.parent / "out" / "a.h5").embeddings
            return None if np.isfinite(found).all() else "no numbers"

        return Given(name, ask_import(path, folder.parent / "out"), judge, refused)

    return lay
