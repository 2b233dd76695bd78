"""Numbers of several runs as means, deviations and lines of a table."""

from collections.abc import Iterable, Sequence

import numpy as np


def summarize(rows: Sequence[dict]) -> dict:
    """Mean and standard deviation (of a sample, n - 1) over runs of each number.

    A measure that a run lacks is left out; of a single run there is no deviation.

    Example:

    >>> rows = [{"seed": 0, "fold": k, "test_nll": v} for k, v in enumerate((1.0, 2.0))]
    >>> summarize(rows)
    {'test_nll': {'mean': 1.5, 'std': 0.7071067811865476}}
    """
    summary = {}
    for name in rows[0] if rows else ():
        counted = name in ("seed", "fold") or name.endswith("_rows")
        if counted or not all(name in row for row in rows):
            continue
        values = np.array([row[name] for row in rows], np.float64)
        std = float(values.std(ddof=1)) if len(values) > 1 else None
        summary[name] = {"mean": float(values.mean()), "std": std}
    return summary


def mean_and_std(values: dict, *, percent: bool = False) -> str:
    """As `0.6643 ± 0.0040`; a single run has no deviation.

    Example:

    >>> mean_and_std({"mean": 0.9361, "std": 0.0012}, percent=True)
    '93.61 ± 0.12'
    >>> mean_and_std({"mean": 0.9361, "std": None})
    '0.9361'
    """
    factor, digits = (100, 2) if percent else (1, 4)
    std = "" if values["std"] is None else f" ± {factor * values['std']:.{digits}f}"
    return f"{factor * values['mean']:.{digits}f}{std}"


def p_value(p: float) -> str:
    """A probability in three digits: `0.042`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown_lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown.

    Example:

    >>> print(*markdown_lines(("run", "nll"), [("a", "0.5")]), sep="\\n")
    | run | nll |
    | --- | --- |
    | a | 0.5 |
    """
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
