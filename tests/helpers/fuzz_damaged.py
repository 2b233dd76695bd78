"""Real files of every kind that commands take, damaged at random, and who reads them."""

import io
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import face_images
import h5py
import numpy as np
from damage import called, outcome, turned
from data_sets import make_store
from import_variants import VARIANTS, Truth, as_text
from PIL import Image

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.image_store import ImageStore


@dataclass
class Given:
    """An input as it lies there.

    Attributes:
        what: What was done to it.
        ask: Returns exit code, output and errors of who reads it.
        judge: Given the output, says what is wrong with values that were taken.
        refused: Whether it must not be taken.
    """

    what: str
    ask: Callable
    judge: Callable = lambda out: None
    refused: bool = False


@dataclass
class Kind:
    """`lay(folder, rng)` lays an input there, a whole one without `rng`."""

    count: int
    lay: Callable
    warm: Callable | None = None  # of a crafted kind: lays a whole one


def damage_file(path, rng):
    content, what = turned(path.read_bytes(), rng)
    path.write_bytes(content)
    return f"{path.name}: {what}"


def ask_import(source, out):
    return lambda: outcome("import-embeddings", source, "-o", out / "a.h5", "--force")


def wrong_rows(found, rows):
    if found.shape != rows.shape:
        return f"rows of shape {found.shape}, not {rows.shape}"
    same = np.array_equal(found, rows.astype(found.dtype), equal_nan=True)
    return None if same else "other rows"


def wrong_labels(store, expected):
    for name, texts in expected.items():
        if name not in store.labels:
            return f"no label {name}"
        if as_text(store.labels[name]) != texts:
            return f"other values of {name}"
    return None


# ---- tables of others


def make_truth():
    rng = np.random.default_rng(0)
    labels = {"age": [9, 30, 41, 7, 5, 60, 22] * 4, "kind": [0, 1, 2, 2, 1, 0, 0] * 4}
    labels["mood"] = ["cat", "dog", "", "cat", "été", "dog", "cat"] * 4
    expected = {"kind": list("0122100") * 4, "mood": labels["mood"]}
    expected["age_years"] = [str(a) for a in labels["age"]]
    return Truth((rng.integers(1, 99, (28, 24)) / 64).astype(np.float32), labels, expected)


def read_otherwise(path):
    """The rows of a damaged file as another reader finds them, None where it is not that plain."""
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            table = parquet.read_table(path)
            if "embedding" in table.column_names:
                return np.array(table["embedding"].to_pylist(), np.float32)
            return np.array([table[f"e{k}"].to_pylist() for k in range(24)], np.float32).T
        if path.suffix in (".h5", ".h5ad"):
            with h5py.File(path, "r") as file:
                name = next(n for n in ("embedding", "features", "X", "in/a/X") if n in file)
                return np.array(file[name][()], np.float32)
        if path.suffix in (".csv", ".tsv"):
            import pandas

            separator = "\t" if path.suffix == ".tsv" else ","
            table = pandas.read_csv(path, sep=separator, encoding="utf-8-sig")
            return table[[f"e{k}" for k in range(24)]].to_numpy(np.float32)
    except Exception:
        return None


def imports(samples):
    """Every layout of `import_variants`; where the format has checksums, all values are known."""
    rows = samples / "tables"
    rows.mkdir()
    files = {}
    for place, (name, write) in enumerate(VARIANTS.items()):
        truth = make_truth()
        files[name] = write(rows / f"t{place}", truth), truth
    names = sorted(files)

    def lay(folder, rng):
        for name in [rng.choice(names)] if rng else names:
            source, truth = files[name]
            path = Path(shutil.copy(source, folder))
            what = f"{name}: {damage_file(path, rng)}" if rng else "whole"

            def judge(_, path=path, truth=truth):
                store = EmbeddingStore.open(folder.parent / "out" / "a.h5")
                if rng is None or path.suffix in (".npz", ".gz"):
                    wrong = wrong_rows(store.embeddings, truth.rows)
                    return wrong or wrong_labels(store, truth.expected)
                other = read_otherwise(path)
                if other is None or other.shape != store.embeddings.shape:
                    return None
                return wrong_rows(store.embeddings, other)

            given = Given(what, ask_import(path, folder.parent / "out"), judge)
        return given

    return lay


# ---- stores


def stores(samples):
    words = np.array(["cat", "dog", "été", ""] * 30)
    whole = make_store(rows=120, width=16, mood=words)
    whole.save(samples / "whole.h5")
    EmbeddingStore(whole.embeddings.astype(np.float16), whole.labels, whole.info).save(
        samples / "half.h5"
    )

    def lay(folder, rng):
        name = rng.choice(["whole.h5", "half.h5"]) if rng else "whole.h5"
        path = Path(shutil.copy(samples / name, folder))

        def judge(_):
            found = EmbeddingStore.open(folder.parent / "out" / "a.h5")
            other = [
                n for n in whole.labels if not np.array_equal(found.labels[n], whole.labels[n])
            ]
            wrong = wrong_rows(found.embeddings, whole.embeddings)
            return wrong or (f"other {other}" if other else None)

        what = damage_file(path, rng) if rng else "whole"
        return Given(what, ask_import(path, folder.parent / "out"), judge)

    return lay


def image_stores(samples):
    whole = face_images.make_store((12, 4, 4))
    whole.save(samples / "images.h5")

    def lay(folder, rng):
        path, found = Path(shutil.copy(samples / "images.h5", folder)), []

        def judge(_):
            same = np.array_equal(found[-1].images, whole.images)
            for name, values in whole.labels.items():
                kinds = {"equal_nan": True} if values.dtype.kind == "f" else {}
                same = same and np.array_equal(found[-1].labels[name], values, **kinds)
            return None if same else "other images or labels"

        what = damage_file(path, rng) if rng else "whole"
        return Given(
            what, lambda: called(lambda: found.append(ImageStore.open(path, verify=True))), judge
        )

    return lay


# ---- pictures

_PICTURES = {
    "jpg": {}, "png": {}, "bmp": {}, "webp": {"lossless": True}, "tif": {},
    "gif": {}, "ppm": {},
}  # fmt: skip


def picture(kind, size=48):
    rng = np.random.default_rng(0)
    image = Image.fromarray(
        np.kron(rng.integers(0, 256, (6, 6, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    )
    file = io.BytesIO()
    Image.Image.save(
        image.resize((size, size)),
        file,
        Image.registered_extensions()[f".{kind}"],
        **_PICTURES.get(kind, {}),
    )
    return file.getvalue()


def pictures(samples):
    """One of four pictures is damaged: the others are read as they are."""
    folder = samples / "faces"
    face_images.write_faces(folder, rows=3, side=48, channels=3)
    encoded = {kind: picture(kind) for kind in _PICTURES}
    with np.errstate(all="ignore"):
        store = face_images.make_store((6, 3, 3), channels=3)
    arrays = {"x_train": store.images[:6], "y_train": np.arange(6)}
    arrays |= {"x_test": store.images[6:], "y_test": np.arange(6)}
    np.savez(samples / "images.npz", **arrays)
    with zipfile.ZipFile(samples / "faces.zip", "w") as archive:
        for file in sorted(folder.rglob("*.jpg")):
            archive.write(file, f"root/{file.relative_to(folder)}")
    truth = {}

    def lay(target, rng):
        kind = rng.choice([*encoded, "zip", "npz"]) if rng else "png"
        if kind in ("zip", "npz"):
            path = Path(
                shutil.copy(samples / f"{'faces' if kind == 'zip' else 'images'}.{kind}", target)
            )
            source = path
        else:
            source = Path(shutil.copytree(folder, target / "faces"))
            path = source / "train" / f"33_0_0_9.{kind}"
            path.write_bytes(encoded[kind])
        what = damage_file(path, rng) if rng else "whole"
        out = target.parent / "out" / "a.h5"

        def judge(_):
            found = ImageStore.open(out, verify=True)
            if kind == "npz":
                return None if np.array_equal(found.images, store.images) else "other images"
            by_name = dict(zip(found.labels["age_years"].tolist(), found.images, strict=True))
            good = {age: image for age, image in by_name.items() if age != 33}
            if rng is None:
                truth.update(by_name)
            expected = {age: image for age, image in truth.items() if age != 33}
            if kind == "zip":
                return next(
                    (f"other image {a}" for a in good if not np.array_equal(good[a], truth.get(a))),
                    None,
                )
            if good.keys() != expected.keys() or any((good[a] != expected[a]).any() for a in good):
                return "other images beside it"
            if kind == "png" and 33 in by_name and (by_name[33] != truth[33]).any():
                return "another picture than was saved"
            return None

        return Given(
            what,
            lambda: outcome("build-images", source, "-o", out, "--force", "--size", "48"),
            judge,
        )

    return lay
