"""Table 3: every variant from both initialisations, the paper's numbers beside ours on Adience."""

from collections.abc import Iterator, Mapping, Sequence

from kerasmlp.data.other_targets import target_from_config
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.experiments.cross_validation.cross_validate import open_finished
from kerasmlp.experiments.cross_validation.table import PARTS
from kerasmlp.experiments.residual_mlp.design import Folders
from kerasmlp.experiments.residual_mlp.published import is_comparable, paper_results
from kerasmlp.experiments.summary import markdown_lines, mean_and_std, p_value

_MORE = ("one_off_accuracy", "ece")
_SHOWN = tuple(f"{part}_{measure}" for part in PARTS for measure in ("nll", "accuracy"))


def long_table(folders: Folders, store: EmbeddingStore) -> list[dict]:
    """Returns one row per task, variant and initialisation.

    Args:
        folders: Finished ones.
        store: That they are of; of Adience in its own age groups and folds,
            `paper_<part>_<measure>_mean` and `_std` stand beside ours.

    Returns:
        `task`, `variant`, `init`, `runs` that the means are over, `diverged`
        runs that they are not over; where there are any `runs` also
        `trainable_parameters`, `epochs_mean`, and of loss (NLL) and accuracy on
        every part `<part>_<measure>_mean` and `_std`; on the test rows also
        one-off accuracy, where classes have an order, and ECE.
    """
    rows = []
    for (task, variant, init), path in folders.items():
        row = {"task": task, "variant": variant, "init": init, "runs": 0, "diverged": 0}
        rows.append(row)
        if path is None:
            continue
        config, report = open_finished(path)
        row["diverged"] = report["diverged"]
        row["runs"] = len(report["runs"]) - report["diverged"]
        if row["runs"]:
            summary = report["summary"]
            row["trainable_parameters"] = report["trainable_parameters"]
            row["epochs_mean"] = summary["epochs"]["mean"]
            for name in (*_SHOWN, *(f"test_{measure}" for measure in _MORE)):
                if name in summary:
                    row |= {f"{name}_{k}": summary[name][k] for k in ("mean", "std")}
        if is_comparable(store, target_from_config(config["target"])):
            row |= {f"paper_{k}": v for k, v in paper_results(task, init, variant).items()}
    return rows


Table = tuple[Sequence[str], list[list[str]]]
"""Heads, and the cells of each line."""


def tables_of(rows: Sequence[dict]) -> Iterator[tuple[str, str, Table]]:
    """A table per task with its caption: loss and accuracy on training, validation, test rows."""
    heads = ["init", *(f"{part} {name}" for part in PARTS for name in ("loss", "accuracy"))]
    for task in dict.fromkeys(row["task"] for row in rows):
        chosen = [row for row in rows if row["task"] == task]
        most = max(row["runs"] + row["diverged"] for row in chosen)
        cells = []
        for row in sorted(chosen, key=lambda row: row["init"] != "random"):
            cells.append([row["variant"] + _what_diverged(row), row["init"], *_cells(row)])
            if "paper_test_nll_mean" in row:
                cells.append(["… in the paper", row["init"], *_cells(row, "paper_")])
        yield task, f"Mean ± standard deviation of {most} runs.", ([task, *heads], cells)


def table_markdown(rows: Sequence[dict]) -> str:
    """The tables of `tables_of`."""
    lines = []
    for task, caption, table in tables_of(rows):
        lines += [f"### {task}", "", caption, "", *markdown_lines(*table), ""]
    return "\n".join(lines)


def _what_diverged(row: Mapping) -> str:
    if row["diverged"]:
        return f" ({row['diverged']} of {row['runs'] + row['diverged']} runs diverged)"
    return "" if row["runs"] else " (its pre-training diverged)"


def _cells(row: Mapping, prefix: str = "") -> list[str]:
    if f"{prefix}test_nll_mean" not in row:
        return ["" for _ in _SHOWN]
    return [mean_and_std({k: row[f"{prefix}{n}_{k}"] for k in ("mean", "std")}) for n in _SHOWN]


def claims_table(claims: Sequence[dict]) -> Table:
    """One line per claim: differences full minus other on the test rows, p and verdict."""
    heads = ("claim", "task", "init", "pairs", "Δ loss", "p", "", "Δ accuracy", "p", "")
    lines = []
    for row in claims:
        cells = [row["claim"], row["task"], row["init"], str(row["pairs"])]
        for measure in ("nll", "accuracy"):
            difference, p = row[f"{measure}_difference"], row[f"{measure}_p"]
            cells += ["", ""] if p is None else [f"{difference:+.4f}", p_value(p)]
            cells.append(row[f"{measure}_verdict"])
        lines.append(cells)
    return heads, lines


def lowest_validation_losses(rows: Sequence[dict]) -> dict[str, str]:
    """Of each task, the variant of lowest validation loss from pre-trained weights.

    The paper's main claim is that this is the full network. A task of which nothing
    could be trained is left out.
    """
    best = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        chosen = [r for r in rows if (r["task"], r["init"]) == (task, "pretrained") and r["runs"]]
        if chosen:
            best[task] = min(chosen, key=lambda r: r["validation_nll_mean"])["variant"]
    return best
