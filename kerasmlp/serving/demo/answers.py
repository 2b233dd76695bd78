import base64
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL.Image import Image as PILImage

from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.faces.finder import FaceFinder, read_image
from kerasmlp.runs.photo_answers import caption, draw_faces, predict_faces, predict_store
from kerasmlp.runs.predictor import Predictor
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.drawing import label

MAX_ROWS = 2000
_MAX_STORE_BYTES = 1 << 28  # in memory
_MAX_SIDE = 1600  # pixels of the picture in the page
_NUM_EXTREMES = 5


class DemoAnswers:
    """Answers to one uploaded file at a time, as HTML; nothing of it is written anywhere.

    Args:
        predictors: One or more models, of different labels.
        finder: Of the embedder that the models know; None where only stores
            are asked about.
        how: Arguments of `Predictor.rows`; at least one pass.
    """

    def __init__(self, predictors: Sequence[Predictor], finder: FaceFinder | None, **how: Any):
        self.predictors = predictors
        self.finder = finder
        self.how = how

    def photo(self, path: Path) -> str:
        """Returns the photo with boxes, and a table of its faces, as HTML.

        Raises:
            InputError: if it is no photo, or shows no face.
        """
        image = read_image(path)
        faces = sorted(self.finder.find(image), key=lambda face: face.box[0])
        if not faces:
            reject_file(path, "must show a face", "a photo in which none was found")
        rows = predict_faces(self.predictors, faces, **self.how)
        table = [[str(i), *caption(row)] for i, row in enumerate(rows, 1)]
        count = "1 face" if len(faces) == 1 else f"{len(faces)} faces, from left to right"
        headers = ["", *(p.name for p in self.predictors)]
        picture = _picture(draw_faces(image, faces, rows))
        return picture + _table(count, headers, table) + self._legend()

    def store(
        self, path: Path, progress: Callable[[Iterable, int], Iterable]
    ) -> tuple[str, list[str], list[list]]:
        """Returns a summary as HTML, and the table of predictions: headers, rows.

        Args:
            path: Of an embedding store; its first `MAX_ROWS` rows are answered.
            progress: Wraps the rows, given their number.

        Raises:
            InputError: if it is no store, or of embeddings that a model does not know.
        """
        total = len(EmbeddingStore.open(path, most_bytes=_MAX_STORE_BYTES, verify=True))
        count = min(total, MAX_ROWS)
        answers = predict_store(self.predictors, path, **self.how)
        rows = list(progress(islice(answers, count), count))
        cells = [_cells(p, rows) for p in self.predictors]
        headers = ["row", *(header for columns in cells for header in columns)]
        values = [column for columns in cells for column in columns.values()]
        table = [list(row) for row in zip((r["row"] for r in rows), *values, strict=True)]
        text = f"{total:,} rows" if count == total else f"The first {count:,} of {total:,} rows"
        html = f"<p>{text}</p>" + self._legend() + _histograms(self.predictors, rows)
        return html + "".join(_extremes(p.name, rows) for p in self.predictors), headers, table

    def _legend(self) -> str:
        """What the one number of how sure an answer is means."""
        text = "Uncertainty is 0 where all is on one class, 1 where all classes are alike."
        if any(p.target.is_number for p in self.predictors):
            text += (
                " Of a number it is the standard deviation of the answer as a share of that of "
                "the numbers trained on, at most 1."
            )
        max_risk, within_years = self.how.get("max_risk"), self.how.get("within_years")
        if max_risk is not None:
            text += (
                " Above the limit stands “not sure”: below it, of faces like those trained on, "
                f"at most {max_risk:.4g} of the answers should be wrong."
            )
        if within_years is not None:
            text += f" An age counts as right if it is at most {within_years:g} years off."
        return f"<p>{text}</p>"


def _cells(predictor: Predictor, rows: Sequence[dict]) -> dict[str, list]:
    """Columns of the table: the answer and how sure it is."""
    name = predictor.name
    answers = [row[name] for row in rows]
    if predictor.target.is_age:
        ends = [a["age_interval_90"] or (None, None) for a in answers]
        columns = {
            "age": [_rounded(a["age_years"]) for a in answers],
            "from": [_rounded(low) for low, _ in ends],
            "to": [_rounded(high) for _, high in ends],
        }
    elif predictor.target.is_number:
        columns = {
            predictor.target.measured_in: [_digits(a[name]) for a in answers],
            f"{name}: from": [_digits(a["interval_90"][0]) for a in answers],
            f"{name}: to": [_digits(a["interval_90"][1]) for a in answers],
        }
    else:
        columns = {name: [a[name] for a in answers]}
        if answers[0].get("set_90") is not None:
            sets = [" or ".join(a["set_90"] or ()) for a in answers]
            columns[f"{name}: 90% set"] = sets
    columns[f"{name}: uncertainty"] = [round(a["uncertainty"], 3) for a in answers]
    if "abstained" in answers[0]:
        columns[f"{name}: answered"] = ["not sure" if a["abstained"] else "yes" for a in answers]
    return columns


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _digits(value: float) -> float:
    """Of a number in any unit."""
    return float(f"{value:.4g}")


def _histograms(predictors: Sequence[Predictor], rows: Sequence[dict]) -> str:
    """Per model: what it answered, and how uncertain it was."""
    figure = Figure(figsize=(9, 2.6 * len(predictors)), layout="constrained")
    axes = figure.subplots(len(predictors), 2, squeeze=False)
    for predictor, (left, right) in zip(predictors, axes, strict=True):
        name = predictor.name
        answers = [row[name] for row in rows]
        given = [a for a in answers if not a.get("abstained")]
        if predictor.target.is_age:
            left.hist([a["age_years"] for a in given], bins=np.arange(0, 105, 5))
            left.set_xlabel("age in years")
        elif predictor.target.is_number:
            left.hist([a[name] for a in given], bins=25)
            left.set_xlabel(label(predictor.target.measured_in))
        else:
            names, counts = np.unique([str(a[name]) for a in given], return_counts=True)
            left.bar(range(len(names)), counts)
            shown = [label(n, 20) for n in names]
            turned = {"rotation": 30, "ha": "right"} if max(map(len, shown), default=0) > 8 else {}
            left.set_xticks(range(len(names)), shown, **turned)
            left.set_xlabel(label(name))
        right.hist([a["uncertainty"] for a in answers], bins=np.linspace(0, 1, 26))
        right.set_xlabel(f"uncertainty of {label(name)}")
        if (limit := answers[0].get("uncertainty_limit")) is not None:
            right.axvline(limit, color="black", linestyle="--", label=f"limit {limit:.2f}")
            right.legend()
        left.set_ylabel("rows")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return _embedded(content, "png", "histograms of answers and uncertainties")


def _extremes(name: str, rows: Sequence[dict]) -> str:
    ordered = sorted(rows, key=lambda row: row[name]["uncertainty"])
    count = min(_NUM_EXTREMES, len(rows))
    return "".join(
        _table(title, ["row", ""], [[str(r["row"]), *caption({name: r[name]})] for r in chosen])
        for title, chosen in (
            (f"{name}: most certain", ordered[:count]),
            (f"{name}: least certain", ordered[::-1][:count]),
        )
    )


def _table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><caption>{escape(title)}</caption>{line(headers, 'th')}{body}</table>"


def _picture(picture: PILImage) -> str:
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE))
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=90)
    return _embedded(content, "jpeg", "the photo with a box and a caption for each face")


def _embedded(content: io.BytesIO, kind: str, text: str) -> str:
    """The picture inside the page, so that no file of it is needed."""
    encoded = base64.b64encode(content.getvalue()).decode()
    return f'<img src="data:image/{kind};base64,{encoded}" alt="{text}">'
