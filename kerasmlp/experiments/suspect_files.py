"""What `doctor` writes of suspects: a table to correct, and contact sheets of their photos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kerasmlp.data.datasets.photos import read_photo
from kerasmlp.data.images.image_decoding import decode_image
from kerasmlp.data.importing.relabelling import in_words
from kerasmlp.data.joining import join_stores
from kerasmlp.data.row_photos import RowPhotos, photo_column
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.evaluation.suspects import Suspects
from kerasmlp.utils.drawing import drawing

MOST_PICTURES = 100
_SIDE = 224
_UNSURE = {"mutual_information_nats": "mutual information", "epistemic_std": "epistemic std"}


class StoreRows:
    """The rows of one store, or of several that are joined, and where each is in its own.

    Args:
        stores: As they were joined.
        group: As of `join_stores`.
        column: As of `photo_column`.

    Attributes:
        joined: All rows.
        digest: Of all rows.
        named_by: The column that names photos, or None.
    """

    def __init__(self, stores: Sequence[EmbeddingStore], group: str | None, **column: Any):
        self.joined = join_stores(stores, group=group)
        self.named_by = photo_column(self.joined.labels, **column)
        self._digests = [store.digest() for store in stores]
        self.digest = self.joined.digest() if len(stores) > 1 else self._digests[0]
        self._starts = np.cumsum([0, *map(len, stores)])
        self._files = [Path(store.name).name for store in stores]

    def name_of(self, row: int) -> str:
        """Of the photo of a row, "" where there is none."""
        return "" if self.named_by is None else str(self.joined.labels[self.named_by][row])

    def lines(self, suspects: Suspects, label: str, listed: int) -> list[dict[str, Any]]:
        """The table of the first suspects."""
        chosen = suspects.rows[:listed]
        known = in_words(self.joined.labels[label][chosen], label)
        places = [self._place(row) for row in chosen.tolist()]
        return [
            {
                "rank": rank + 1,
                "row": place,
                "store": self._files[number],
                "path": self.name_of(row),
                "column": label,
                "label": known[rank],
                "suggested": suspects.suggested[rank],
                "corrected": "",
                **{k: float(f"{v[rank]:.6g}") for k, v in suspects.scores.items()},
                "store_digest": self._digests[number],
            }
            for rank, (row, (number, place)) in enumerate(zip(chosen, places, strict=True))
        ]

    def place_of(self, row: int) -> str:
        """A row in words."""
        number, place = self._place(row)
        of = f" of {self._files[number]}" if len(self._files) > 1 else ""
        return f"row {place}{of}"

    def _place(self, row: int) -> tuple[int, int]:
        """Number of the store, and the row in it."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return number, int(row - self._starts[number])


def draw_suspects(
    stem: str | os.PathLike,
    rows: StoreRows,
    suspects: Suspects,
    label: str,
    photos: RowPhotos,
    *,
    listed: int,
    progress: bool,
) -> dict[str, int]:
    """Draws the first suspects whose photos are there, and counts them.

    Args:
        stem: Of the PNGs.
        rows: Of the store.
        suspects: Of one label.
        label: That it is.
        photos: To look in.
        listed: How many suspects are looked for.
        progress: Show a bar.
    """
    from kerasmlp.evaluation.contact_sheets import PER_SHEET, Picture, contact_sheet

    named = [(k, photos.of(rows.name_of(row))) for k, row in enumerate(suspects.rows[:listed])]
    with_photo = [(k, path) for k, path in named if path is not None]
    pictures, unreadable = [], 0
    for k, path in tqdm(with_photo[:MOST_PICTURES], unit="photo", disable=not progress):
        image = _photo(path)
        if image is None:
            unreadable += 1
            continue
        pictures.append(Picture(image, _lines(rows, suspects, label, k)))
    for number, start in enumerate(range(0, len(pictures), PER_SHEET), 1):
        shown = pictures[start : start + PER_SHEET]
        title = f"{label}: suspects {start + 1} to {start + len(shown)} whose photos are there"
        with drawing(f"{os.fspath(stem)}_{number}.png") as path:
            contact_sheet(shown, title, path)
    return {"found": len(with_photo), "drawn": len(pictures), "unreadable": unreadable}


def _lines(rows: StoreRows, suspects: Suspects, label: str, k: int) -> list[str]:
    row = suspects.rows[k]
    known = in_words(rows.joined.labels[label][row : row + 1], label)[0]
    scores = {name: column[k] for name, column in suspects.scores.items()}
    surer = scores.get("suggested_probability", 1) < scores.get("self_confidence", 0)
    looks = f"{known}, {'or' if surer else 'looks like'} {suspects.suggested[k]}"
    lines = [f"{k + 1}. {rows.place_of(row)}", looks]
    if "self_confidence" in scores:
        lines.append(f"self-confidence {scores['self_confidence']:.2g}")
    else:
        lines.append(f"{scores['scaled_residual']:+.1f} standard deviations")
    for name, word in _UNSURE.items():
        lines += [f"{word} {scores[name]:.3g}"] if name in scores else []
    return lines


def _photo(path: Path) -> np.ndarray | None:
    try:
        pixels, _ = decode_image(read_photo(path), size=_SIDE)
    except OSError:
        return None
    return None if pixels is None else pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels
