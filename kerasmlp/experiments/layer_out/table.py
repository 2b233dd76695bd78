"""LayerOut's results as the paper's tables show them, and as curves."""

from __future__ import annotations

from kerasmlp.experiments.image_runs import Presentation
from kerasmlp.experiments.layer_out.plan import MODES
from kerasmlp.experiments.summary import markdown_lines, mean_and_std


def title_of(row: dict) -> str:
    return MODES[row["mode"]] + (", random erasing" if row["random_erasing"] else "")


def markdown_of(summary: dict[str, dict], num_seeds: int) -> str:
    """The table: one line per mode.

    Example:

    >>> row = {"mode": "efreeze", "random_erasing": False, "seed": 0, "test_accuracy": 0.99,
    ...     "best_test_accuracy": 0.9908, "frozen_share": 0.223, "expected_frozen_share": 0.2,
    ...     "seconds": 61.2}
    >>> print(markdown_of(presentation(1).summarize([row]), 1).splitlines()[-1])
    | 1 | LayerOut-efreeze | 99.00 | 99.08 | 22.3 (20.0) | 61 |
    """
    columns = (
        "S.No", "Architecture", "Accuracy (%)", "Best epoch (%)",
        "Parameters frozen (expected) (%)", "Training (s)",
    )  # fmt: skip
    rows = []
    for number, (title, values) in enumerate(summary.items(), 1):
        observed, expected = values["frozen_share"], values["expected_frozen_share"]
        frozen = f"{100 * observed['mean']:.1f} ({100 * expected['mean']:.1f})"
        rows.append([
            str(number),
            title,
            mean_and_std(values["test_accuracy"], percent=True),
            mean_and_std(values["best_test_accuracy"], percent=True),
            frozen if expected["mean"] else "-",
            f"{values['seconds']['mean']:.0f}",
        ])  # fmt: skip
    seeds = f"{num_seeds} seed{'s' * (num_seeds > 1)}"
    head = f"Test accuracy, mean ± standard deviation of {seeds}."
    return "\n".join([head, "", *markdown_lines(columns, rows)]) + "\n"


def presentation(num_seeds: int) -> Presentation:
    return Presentation(
        keys=("mode", "random_erasing", "seed"),
        numbers=("test_accuracy", "best_test_accuracy", "frozen_share", "expected_frozen_share"),
        panels={
            "loss": "training loss",
            "val_accuracy": "test accuracy",
            "frozen_share": "share of parameters frozen",
        },
        title_of=title_of,
        markdown_of=lambda summary: markdown_of(summary, num_seeds),
    )
