"""The picture of a measure in the groups of a column."""

import os
from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kerasmlp.evaluation.bootstrap import FEWEST
from kerasmlp.evaluation.by_column import more_is_better
from kerasmlp.evaluation.measuring import rounded
from kerasmlp.utils.drawing import label
from kerasmlp.utils.figures import save_png


def forest(
    column: str,
    groups: Mapping[str, Mapping],
    measure: str,
    overall: float,
    gap: Mapping | None,
    path: str | os.PathLike,
) -> None:
    """Draws a measure of each group with its interval of 95%, the best group at the top.

    Args:
        column: Whose values the groups are.
        groups: By value, of `by_columns`.
        measure: Its name.
        overall: Of all rows.
        gap: Between the worst and the best group, with its test, or None.
        path: PNG to write.
    """
    shown = [(value, group) for value, group in groups.items() if measure in group]
    shown.sort(key=lambda pair: pair[1][measure], reverse=not more_is_better(measure))
    names = [f"{label(value)} ({group['rows']:,})" for value, group in shown]
    room = 0.08 * max(0, max(map(len, names)) - 16)  # inches, for names longer than most
    figure = Figure(figsize=(5.6 + room, 1.5 + 0.27 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(overall, color="gray", linestyle="--", linewidth=1)
    for place, (_, group) in enumerate(shown):
        if ends := group["intervals"].get(measure):
            axes.plot(ends, [place, place], color="tab:blue", linewidth=2, alpha=0.55)
        face = "white" if group["small"] else "tab:blue"
        axes.plot(group[measure], place, "o", color="tab:blue", markerfacecolor=face, markersize=6)
        beside = {"transform": axes.get_yaxis_transform(), "va": "center_baseline"}
        axes.text(1.02, place, rounded(measure, group[measure]), **beside)
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel(f"{measure} of the deterministic model")
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if gap is not None:
        size = f"gap {rounded(measure, gap['gap'])}, p = {gap['p_value']:.3f}"
        extremes = f"worst: {label(gap['worst'])}; best: {label(gap['best'])}"
        axes.set_title(f"{extremes}; {size}", fontsize=9)
    dot = {"marker": "o", "color": "tab:blue"}
    handles = [
        Line2D([], [], color="gray", linestyle="--", label=f"all ({rounded(measure, overall)})"),
        Line2D([], [], **dot, label=f"{label(column)} (rows), interval of 95%"),
    ]
    if any(group["small"] for _, group in shown):
        text = f"fewer than {FEWEST} rows"
        handles.append(Line2D([], [], **dot, markerfacecolor="white", linestyle="", label=text))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    save_png(figure, path)
