"""The results of the CIFAR experiments as the paper's Table 1 and Figure 4 show them."""

from __future__ import annotations

from kerasmlp.experiments.image_runs import Presentation
from kerasmlp.experiments.summary import markdown_lines, mean_and_std
from kerasmlp.models.arrangements import ARRANGEMENTS

_COLUMNS = (
    "Model", "Depth", "Layers in residual unit", "Test accuracy (%)", "Best epoch (%)",
    "Mean of all epochs (%)", "Mean fall per epoch (%)", "Training (s)",
)  # fmt: skip


def title_of(row: dict) -> str:
    """The layers of a residual unit.

    Example:

    >>> title_of({"arrangement": "relu-ic-conv", "bottleneck": True})
    '3×{ReLU-IC-Conv2D}'
    """
    title = ARRANGEMENTS[row["arrangement"]]
    return title if title == "Baseline" else f"{3 if row['bottleneck'] else 2}×{{{title}}}"


def markdown_of(summary: dict[str, dict], depth: int, bottleneck: bool, num_seeds: int) -> str:
    """The table: one line per arrangement.

    Example:

    >>> row = {"arrangement": "baseline", "bottleneck": False, "seed": 0, "seconds": 60.4,
    ...     "test_accuracy": 0.9292, "best_test_accuracy": 0.9301, "mean_test_accuracy": 0.88,
    ...     "mean_fall": 0.0051}
    >>> summary = presentation(110, False, 1).summarize([row])
    >>> print(markdown_of(summary, 110, False, 1).splitlines()[-1])
    | ResNet | 110 | Baseline | 92.92 | 93.01 | 88.00 | 0.51 | 60 |
    """
    seeds = "1 seed" if num_seeds == 1 else f"{num_seeds} seeds"
    measured = ("test_accuracy", "best_test_accuracy", "mean_test_accuracy", "mean_fall")
    rows = [
        [
            "ResNet-B" if bottleneck else "ResNet",
            str(depth),
            title,
            *(mean_and_std(values[name], percent=True) for name in measured),
            f"{values['seconds']['mean']:.0f}",
        ]
        for title, values in summary.items()
    ]
    lines = [
        f"Test accuracy at the end of training, mean ± standard deviation of {seeds}.",
        "The mean of all epochs tells how fast it learns; the mean fall, the sum of all falls of "
        "test accuracy from an epoch to the next by the number of epochs, how unsteadily.",
        "",
        *markdown_lines(_COLUMNS, rows),
    ]
    return "\n".join(lines) + "\n"


def presentation(depth: int, bottleneck: bool, num_seeds: int) -> Presentation:
    return Presentation(
        keys=("arrangement", "bottleneck", "seed"),
        numbers=("test_accuracy", "best_test_accuracy", "mean_test_accuracy", "mean_fall"),
        panels={"val_accuracy": "test accuracy", "loss": "training loss"},
        title_of=title_of,
        markdown_of=lambda summary: markdown_of(summary, depth, bottleneck, num_seeds),
    )
