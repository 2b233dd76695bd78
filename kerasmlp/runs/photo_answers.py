"""Answers for photos and stores, and photos with the answers drawn on them."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.faces.finder import Face, FaceFinder, read_image
from kerasmlp.runs.extremes import Extremes, KeptFace, square_crop
from kerasmlp.runs.predictor import Predictor
from kerasmlp.utils.drawing import shown
from kerasmlp.utils.files import atomic_path

_SURE, _NOT_SURE = (80, 220, 100), (200, 200, 200)
_NO_LIMIT = 0.9995
"""A limit of which three digits are 1.000 refuses no answer, and makes none sure."""
_GAP = 4
_SAID = 3
"""Classes of a set that a caption names."""
_LINE = 64
"""Characters of a caption. Of a longer one the end stays: it says how sure the answer is."""


def predict_store(
    predictors: Sequence[Predictor],
    path: str | os.PathLike,
    *,
    progress: bool = False,
    opened: Callable[[EmbeddingStore], None] = lambda store: None,
    **how: Any,
) -> Iterator[dict]:
    """Yields one row per row of a store, as `Predictor.rows` with the same arguments.

    `opened` is called with the store before anything is answered.
    """
    store = EmbeddingStore.open(path, verify=True)
    for predictor in predictors:
        predictor.check(path, store.width, store.info)
    opened(store)
    answers = [p.rows(store, **how) for p in predictors]
    rows = tqdm(zip(*answers, strict=True), total=len(store), unit="row", disable=not progress)
    for i, row in enumerate(rows):
        named = {p.name: answer for p, answer in zip(predictors, row, strict=True)}
        yield {"input": str(path), "row": i, **named}


def want_flips(predictors: Sequence[Predictor]) -> bool:
    """Whether all models have learned from crops embedded together with their mirror image."""
    return all((p.config["preprocessing"] or {}).get("flip") for p in predictors)


def predict_photo(
    predictors: Sequence[Predictor],
    finder: FaceFinder,
    path: Path,
    *,
    annotate: Path | None,
    extremes: Sequence[Extremes] = (),
    **how: Any,
) -> list[dict]:
    """Returns one row per face, or a single one that says that there is none.

    Args:
        predictors: One or more models.
        finder: Of the embedder that the models know.
        path: Of the photo.
        annotate: PNG to write with boxes and captions, or None.
        extremes: To which the faces are added, by the names of models.
        how: Arguments of `Predictor.rows`.

    Raises:
        InputError: if the photo cannot be read.
    """
    image = read_image(path)
    faces = finder.find(image)
    rows = [{"input": str(path)} | row for row in predict_faces(predictors, faces, **how)]
    for kept in extremes:
        for face, row in zip(faces, rows, strict=True):
            answer = row[kept.name]
            text = shown(said(kept.name, answer), _LINE).replace(" (", "\n(")
            # of a number there is no entropy, and its `uncertainty` orders faces alike
            entropy_nats = answer.get("predictive_entropy_nats", answer["uncertainty"])
            crop = square_crop(image, face.box)
            kept.add(KeptFace(entropy_nats, face.embedding, crop, text))
    if annotate is not None:
        with atomic_path(annotate) as temporary:
            draw_faces(image, faces, rows).save(temporary, format="PNG")
    return rows or [{"input": str(path), "face": None, "reason": "no face"}]


def predict_faces(predictors: Sequence[Predictor], faces: Sequence[Face], **how: Any) -> list[dict]:
    """Returns one row per face, as `Predictor.rows` with the same arguments."""
    rows: list[dict] = []
    for i, face in enumerate(faces):
        box = [round(float(v), 1) for v in face.box]
        rows.append({"face": i, "box": box, "det_score": face.det_score})
    if faces:
        embeddings = np.stack([face.embedding for face in faces])
        for predictor in predictors:
            for row, answer in zip(rows, predictor.rows(embeddings, **how), strict=True):
                row[predictor.name] = answer
    return rows


def caption(row: dict) -> list[str]:
    """The lines that stand beside a face: each answer, and the one number of how sure it is."""
    return [
        said(name, answer) + _how_sure(answer)
        for name, answer in row.items()
        if isinstance(answer, dict)
    ]


def said(name: str, answer: dict) -> str:
    """An answer without how sure it is.

    Example:

    >>> said("age", {"age_years": 31.2, "age_interval_90": [24.4, 39.8]})
    '31 years (90%: 24–40)'
    >>> said("bmi", {"bmi": 24.31, "unit": "kg/m²", "interval_90": [20.2, 29.04]})
    'bmi 24.31 kg/m² (90%: 20.2–29.04)'
    >>> said("race", {"race": "White", "set_90": ["White", "Latino"]})
    'White or Latino (90%)'
    """
    if answer.get("abstained"):
        return f"{name}: not sure"
    if "interval_90" in answer:
        low, high = answer["interval_90"]
        unit = f" {answer['unit']}" if answer["unit"] else ""
        return f"{name} {answer[name]:.4g}{unit} (90%: {low:.4g}–{high:.4g})"
    if "age_years" not in answer:
        several = answer.get("set_90") or ()
        several = [*several[:_SAID], "others"] if len(several) > _SAID else several
        return f"{' or '.join(several)} (90%)" if len(several) > 1 else str(answer[name])
    low, high = answer["age_interval_90"]
    years = f"{answer['age_years']:.0f}"
    return f"{years} year{'s' * (years != '1')} (90%: {low:.0f}–{high:.0f})"


def _how_sure(answer: dict) -> str:
    """By what abstention goes: no percentage, which would be read as a probability."""
    uncertainty, limit = answer["uncertainty"], answer.get("uncertainty_limit")
    if limit is None or (limit >= _NO_LIMIT and not answer["abstained"]):
        return f", uncertainty {uncertainty:.2f}{', no limit' * (limit is not None)}"
    digits = next((d for d in (2, 3, 4) if round(uncertainty, d) != round(limit, d)), 5)
    sign = ">" if answer["abstained"] else "≤"
    compared = f" ({uncertainty:.{digits}f} {sign} {limit:.{digits}f})"
    return compared if answer["abstained"] else f", sure{compared}"


def draw_faces(image: np.ndarray, faces: Sequence[Face], rows: list[dict]) -> Image.Image:
    """Returns the photo, which is BGR, with a box and a caption for each face."""
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
    # Small crops are enlarged: captions must stay readable.
    factor = max(1, round(640 / max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor))
    draw = ImageDraw.Draw(picture)
    size = max(13, picture.width // 75)
    font = ImageFont.truetype(font_manager.findfont(font_manager.FontProperties()), size)
    line = max(2, picture.width // 400)
    edges = (*picture.size, *picture.size)
    inside = [np.clip(np.asarray(f.box) * factor, 0, np.subtract(edges, line)) for f in faces]
    boxes = [[float(v) for v in box] for box in inside]
    for box, row in zip(boxes, rows, strict=True):  # all before any caption, which none may cross
        answers = [answer for answer in row.values() if isinstance(answer, dict)]
        silent = answers and all(answer.get("abstained") for answer in answers)
        draw.rectangle(box, outline=_NOT_SURE if silent else _SURE, width=line)
    taken = [tuple(box) for box in boxes]
    for i, (box, row) in enumerate(zip(boxes, rows, strict=True)):
        text = "\n".join(shown(line, _LINE) for line in caption(row))
        left, _, right, bottom = draw.textbbox((0, 0), text, font=font)
        place = place_caption(
            (right - left + 8, bottom + 6), box, taken[:i] + taken[i + 1 :], picture.size
        )
        taken.append(place)
        draw.rectangle(place, fill=(0, 0, 0))
        draw.text((place[0] + 4, place[1] + 2), text, font=font, fill=(255, 255, 255))
    return picture


def place_caption(
    size: tuple[float, float],
    box: Sequence[float],
    others: Sequence[Sequence[float]],
    picture: tuple[int, int],
) -> tuple[float, float, float, float]:
    """Where beside its face a caption covers least: of other faces and captions, then of its own.

    Args:
        size: Width and height of the caption.
        box: Of its face; left, top, right and bottom.
        others: What must stay free.
        picture: Its width and height; the caption stays inside, as far as it fits.

    Example:

    >>> place_caption((40, 10), (50, 50, 70, 80), [], (200, 200))
    (50, 36, 90, 46)
    >>> place_caption((40, 10), (50, 50, 70, 80), [(60, 20, 90, 60)], (200, 200))
    (50, 84, 90, 94)
    """
    width, height = size
    left, top, right, bottom = box
    across = (left, right - width, (left + right - width) / 2, left - width / 2, right - width / 2)
    places = [(x, y) for y in (top - height - _GAP, bottom + _GAP) for x in across]
    beside = (top, bottom - height, (top + bottom - height) / 2)
    places += [(x, y) for x in (right + _GAP, left - width - _GAP) for y in beside]
    corners = [
        (max(min(x, picture[0] - width), 0), max(min(y, picture[1] - height), 0)) for x, y in places
    ]
    drawn = [(x, y, x + width, y + height) for x, y in corners]
    return min(drawn, key=lambda d: (sum(_shared(d, o) for o in others), _shared(d, box)))


def _shared(a: Sequence[float], b: Sequence[float]) -> float:
    """The area that two rectangles share."""
    sides = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    return math.prod(max(side, 0) for side in sides)
