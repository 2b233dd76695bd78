"""Stores and pictures made to take memory, to run code or to reach elsewhere."""

import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from functools import partial
from pathlib import Path

import face_images
import h5py
import numpy as np
from damage import called, outcome
from fuzz_crafted_tables import Hostile, add_link, size_of
from fuzz_damaged import Given, ask_import, picture, wrong_rows

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.image_store import ImageStore

# ---- stores


def altered_store(samples, secret):
    """A store in which something lies elsewhere, or is another thing."""

    def lay(folder, rng):
        images = rng.random() < 0.4
        path = Path(shutil.copy(samples / ("images.h5" if images else "whole.h5"), folder))
        rows, out = "image" if images else "embedding", folder.parent / "out"
        with h5py.File(path, "r+") as file:
            label = rng.choice(sorted(file["labels"]))
            name = rng.choice([rows, f"labels/{label}", "labels"])
            what = rng.choice(["link", "link", "shape", "type", "bomb", "attributes", "nan"])
            _alter(file, name, what, rng, secret)
        found = []
        ask = (
            (lambda: called(lambda: found.append(ImageStore.open(path, verify=True))))
            if images
            else ask_import(path, out)
        )

        def judge(_):
            values = found[-1].images if images else EmbeddingStore.open(out / "a.h5").embeddings
            with h5py.File(samples / path.name) as file:
                return wrong_rows(values, file[rows][()])

        refused = what not in ("type", "nan", "attributes")
        return Given(f"store: {what} in {name}", ask, judge, refused)

    return lay


def _alter(file, name, what, rng, secret):
    whole = file[name][()] if name != "labels" else np.zeros(1, "f4")
    if what == "link":
        add_link(file, name, rng, secret, np.zeros(3, "u1") if name == "labels" else file[name])
    elif what == "attributes":
        values = [-1, "x" * 9999, "[" * 9999, "NaN", np.nan, b"\xff", 2**40]
        for key in sorted(file.attrs):
            if rng.random() < 0.5:
                file.attrs[key] = rng.choice(values)
    else:
        del file[name]
        shape, kind = whole.shape[1:], whole.dtype if whole.dtype.kind in "fiu" else "f4"
        if what == "bomb":
            packed = {"chunks": (1024, *shape), "compression": "gzip"}
            file.create_dataset(name, (size_of(rng), *shape), kind, **packed)
        else:
            others = {"shape": whole[:-1], "type": np.zeros(len(whole), "S9")}
            file[name] = (others | {"nan": np.full(whole.shape, np.nan)})[what]


# ---- pictures


def png(width, height, kind=2, data=b""):
    def chunk(name, content):
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def wild_picture(rng):
    side = rng.choice([20_000, 60_000, 1 << 20, (1 << 31) - 1])
    which = rng.randrange(7)
    if which == 0:
        return png(side, side, rng.choice([0, 2, 3, 6]), zlib.compress(bytes(1 << 24)))
    if which == 1:
        return png(9_000, 9_000, 0, zlib.compress(bytes(9_001 * 9_000)))
    if which == 2:
        return b"BM" + struct.pack(
            "<IIIIiiHHIIiiII", 99, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0
        )
    if which == 3:
        return f"P6\n{side} {side}\n255\n".encode() + bytes(99)
    if which == 4:
        return (
            b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + b"," + bytes(4)
        )
    if which == 5:
        tags = {256: side, 257: side, 258: 8, 259: rng.choice([1, 5, 8]), 262: 1, 273: 8, 279: 9}
        fields = b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in tags.items())
        return b"II*\0" + struct.pack("<IH", 8, len(tags)) + fields + bytes(4)
    return rng.choice([picture("jpg")[:300], b"", b"\xff\xd8\xff", b"RIFF\xff\xff\xff\xffWEBPVP8X"])


def _zip_of_places(path, rng, secret):
    good = face_images.encoded(face_images.make_faces(1, side=48, channels=3)[0][0])
    places = ("train", "../outside", f"{secret.parent}/train")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for age, place in enumerate(places, 1):
            archive.writestr(f"{place}/{age}_0_0_1.jpg", good)
        bad = rng.choice([bytes(1 << 26), bytes(1 << 27), wild_picture(rng)])
        archive.writestr("test/4_0_0_1.jpg", bad)
    return path


def _tar_of_links(path, rng, secret):
    name = rng.choice(["cifar-10-batches-bin/test_batch.bin", "../../outside/x.bin"])
    member = tarfile.TarInfo(name)
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.REGTYPE]
    member.type, member.linkname = rng.choice(kinds), str(secret)
    member.size = 1 << 27 if member.type == tarfile.REGTYPE else 0
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def _pickles(path, rng, secret):
    code = np.array([Hostile(secret)] * 2, object)
    images = np.zeros((2, 8, 8, 3), "u1") if rng.random() < 0.5 else code
    np.savez(path, x_train=images, y_train=code, x_test=images, y_test=[0, 1])
    return path


def wild_pictures(samples, secret):
    """Among good pictures one that is none, or another place: the good ones are kept."""

    def lay(folder, rng):
        source = Path(shutil.copytree(samples / "faces", folder / "faces"))
        path = source / "train" / f"33_0_0_9.{rng.choice(['png', 'jpg', 'tif', 'webp'])}"
        what = rng.choice(
            ["picture", "picture", "picture", "fifo", "folder", "archive", "tar", "npz"]
        )
        out, refused = folder.parent / "out" / "a.h5", False
        if what == "picture":
            path.write_bytes(wild_picture(rng))
        elif what == "fifo":
            os.mkfifo(path)
        elif what == "folder":
            (source / "test" / "there").symlink_to(source)
        elif what == "archive":
            source = _zip_of_places(folder / "a.zip", rng, secret)
        elif what == "tar":
            source, refused = _tar_of_links(folder / "cifar-10-binary.tar.gz", rng, secret), True
        elif what == "npz":
            source, refused = _pickles(folder / "a.npz", rng, secret), True

        def judge(_):
            ages = ImageStore.open(out, verify=True).labels["age_years"].tolist()
            if source.name != "faces":
                return None
            expected = [float(p.name.split("_")[0]) for p in (samples / "faces").rglob("*.jpg")]
            good = sorted(a for a in ages if a != 33) == sorted(expected)
            return None if good else "good pictures are missing"

        size = [] if refused else ["--size", "48"]
        ask = partial(outcome, "build-images", source, "-o", out, "--force", *size)
        return Given(f"picture: {what}", ask, judge, refused)

    return lay
