"""What `leaks` tells of near-duplicates: counts, a table of pairs, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kerasmlp.data.datasets.photos import read_photo
from kerasmlp.data.duplicates.crossings import Crossings
from kerasmlp.data.duplicates.duplicate_rows import NearDuplicates
from kerasmlp.data.images.image_decoding import decode_image
from kerasmlp.data.labels import is_unknown
from kerasmlp.data.row_photos import RowPhotos, photo_column
from kerasmlp.data.stores.stored_rows import StoredRows
from kerasmlp.utils.drawing import drawing
from kerasmlp.utils.files import write_json

FORMAT = "kerasmlp.near_duplicates"
_SHOWN_PAIRS = 24
_MOST_LOOKED_FOR = 20_000
_SIDE = 256


def count_duplicates(found: NearDuplicates, parts: Sequence[StoredRows]) -> dict:
    """Counts pairs, rows and groups within stores, across them, and across folds.

    Args:
        found: In these stores.
        parts: The stores.

    Returns:
        As in `report.json`: `within` each store `pairs`, `rows` and `groups` of them, and how
        many pairs were in one `group` before; `across` two stores `pairs` and the `rows` of
        either that the other has; `folds` of a store.
    """
    names, every = found.names, np.arange(len(found.kinds))
    crossings = Crossings(found.kinds, found.near, found.store_of(every))
    (pairs, _), groups = found.pairs(), found.groups(known=False)
    stores = found.store_of(pairs)
    grouped = found.known[pairs[:, 0]] == found.known[pairs[:, 1]]
    within, folds = [], []
    for number, (name, part) in enumerate(zip(names, parts, strict=True)):
        own = (stores == number).all(axis=1)
        of_rows = slice(found.starts[number], found.starts[number + 1])
        sizes = np.unique(groups[of_rows], return_counts=True)[1]
        counts = {
            "store": name,
            "rows": int(crossings.rows[number, number]),
            "pairs": int(crossings.pairs[number, number]),
            "groups": int((sizes > 1).sum()),
            "grouped_already": int(grouped[own].sum()),
            "of_rows": len(part),
        }
        within.append(counts)
        folds += _of_folds(name, found.kinds[of_rows], found.near, part.labels.get("fold"))
    across = [
        {
            "stores": [names[a], names[b]],
            "pairs": int(crossings.pairs[a, b]),
            "rows": [int(crossings.rows[a, b]), int(crossings.rows[b, a])],
        }
        for a in range(len(names))
        for b in range(a + 1, len(names))
    ]
    return {
        "format": FORMAT,
        "threshold": found.threshold,
        "threshold_from": _origin(found),
        "recall": found.recall,
        "within": within,
        "across": across,
        "folds": folds,
    }


def _origin(found: NearDuplicates) -> str | None:
    if found.threshold is None:
        return None
    return "valley" if found.derived else "given"


def _of_folds(
    name: str, kinds: np.ndarray, near: np.ndarray, folds: np.ndarray | None
) -> list[dict]:
    """How many rows of each fold of a store have a duplicate in another of its folds."""
    if folds is None or is_unknown(folds).all():
        return []
    numbers, codes = np.unique(folds, return_inverse=True)
    known = ~is_unknown(numbers)
    parts = (np.cumsum(known) - 1)[codes]
    parts[is_unknown(folds)] = -1
    elsewhere = Crossings(kinds, near, parts).elsewhere
    sizes = np.bincount(parts[parts >= 0])
    each = zip(numbers[known].tolist(), elsewhere.tolist(), sizes.tolist(), strict=True)
    return [{"store": name, "fold": k, "rows": n, "of_rows": size} for k, n, size in each]


def write_duplicates(
    folder: Path,
    found: NearDuplicates,
    counts: Mapping,
    parts: Sequence[StoredRows],
    photos: Sequence[RowPhotos] = (),
) -> int:
    """Writes report, pairs and pictures into a folder.

    Args:
        folder: That is there.
        found: In these stores.
        counts: Of `count_duplicates`.
        parts: The stores.
        photos: Of one folder for all stores, or of one for each, each of which has a column
            that names them; none: no photos are drawn.

    Returns:
        How many pairs of photos are drawn.
    """
    pairs, cosines = found.pairs()
    write_json(folder / "report.json", counts)
    _write_pairs(folder / "pairs.csv", found, pairs, cosines)
    from kerasmlp.evaluation import duplicate_pictures as pictures

    nearest = {
        name: of_store[np.isfinite(of_store)]
        for name, of_store in zip(
            found.names, np.split(found.nearest, found.starts[1:-1]), strict=True
        )
    }
    with drawing(folder / "nearest.png") as path:
        pictures.nearest_cosines(nearest, found.threshold, path)
    shown = _shown_pairs(found, pairs, cosines, parts, photos) if photos else []
    if shown:
        with drawing(folder / "pairs.png") as path:
            pictures.photo_pairs(shown, path)
    return len(shown)


def _write_pairs(path: Path, found: NearDuplicates, pairs: np.ndarray, cosines: np.ndarray) -> None:
    """One line a pair, the least alike first; `grouped` where both were in one group before."""
    import csv

    stores = found.store_of(pairs)
    rows = pairs - found.starts[stores]
    grouped = found.known[pairs[:, 0]] == found.known[pairs[:, 1]]
    names = np.array(found.names)
    how = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    with open(path, "w", **how) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["store_a", "row_a", "store_b", "row_b", "cosine", "grouped"])
        columns = (names[stores[:, 0]], rows[:, 0], names[stores[:, 1]], rows[:, 1])
        values = [column.tolist() for column in (*columns, cosines, grouped.astype(int))]
        values[4] = [f"{cosine:.6f}" for cosine in values[4]]
        writer.writerows(zip(*values, strict=True))


def _shown_pairs(
    found: NearDuplicates,
    pairs: np.ndarray,
    cosines: np.ndarray,
    parts: Sequence[StoredRows],
    photos: Sequence[RowPhotos],
) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """Pairs of photos that are there, from the least alike to the most alike."""
    columns = [part.labels[photo_column(part.labels, needed=False)] for part in parts]
    folders = list(photos) * (len(parts) if len(photos) == 1 else 1)
    stores = found.store_of(pairs)
    rows = pairs - found.starts[stores]

    def photos_of(pair: int) -> list[Path | None]:
        each = zip(stores[pair], rows[pair], strict=True)
        return [folders[store].of(str(columns[store][row])) for store, row in each]

    named = ((pair, photos_of(pair)) for pair in _spaced(len(pairs), _MOST_LOOKED_FOR))
    there = [(pair, paths) for pair, paths in named if None not in paths]
    shown = []
    for place in _spaced(len(there), _SHOWN_PAIRS):
        pair, (left, right) = there[place][0], map(_small_photo, there[place][1])
        if left is not None and right is not None:
            first, second = rows[pair]
            shown.append((left, right, f"{cosines[pair]:.3f}: rows {first} and {second}"))
    return shown


def _spaced(count: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _small_photo(path: Path) -> np.ndarray | None:
    try:
        pixels, _ = decode_image(read_photo(path))
    except OSError:
        return None
    if pixels is None:
        return None
    image = Image.fromarray(pixels.squeeze())
    image.thumbnail((_SIDE, _SIDE))
    small = np.asarray(image)
    return small.reshape(*small.shape[:2], -1)
