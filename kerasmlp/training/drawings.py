"""The pictures of a training on embeddings: curves, and how answers and labels agree."""

from collections.abc import Callable, Sequence
from pathlib import Path

from kerasmlp.data.other_targets import AnyTarget
from kerasmlp.models.residual_mlp import head_layer
from kerasmlp.training.head_results import HeadResult


def picture_names(target: AnyTarget) -> list[str]:
    """Files of the pictures of each head."""
    several = len(target.heads) > 1
    kinds = ["predicted" if head.is_number else "confusion_matrix" for head in target.heads]
    return [
        head_layer(kind, head.name if several else None) + ".png"
        for kind, head in zip(kinds, target.heads, strict=True)
    ]


def drawings(
    history: list[dict], target: AnyTarget, results: Sequence[HeadResult]
) -> dict[str, Callable[[Path], None]]:
    """From the name of a PNG to what draws it."""

    def draw_curves(path: Path) -> None:
        from kerasmlp.training.figures import curves

        curves(history, path)

    by_label = {result.part.target.label: result for result in results}
    ordered = [by_label[head.label] for head in target.heads]
    drawn = {
        name: _agreement(result)
        for name, result in zip(picture_names(target), ordered, strict=True)
    }
    return {"curves.png": draw_curves} | drawn


def _agreement(result: HeadResult) -> Callable[[Path], None]:
    def draw(path: Path) -> None:
        from kerasmlp.evaluation import figures

        part = result.part
        if part.target.is_number:
            figures.predicted(part.targets, result.answers, part.target.measured_in, path)
            return
        predicted = part.target.measured(result.answers).argmax(axis=1)
        figures.confusion(part.targets, predicted, part.target.measured_names, path)

    return draw
