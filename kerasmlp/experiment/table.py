"""Table 3: every variant from both initialisations, the paper's numbers beside ours on Adience."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kerasmlp.cross_validation.running import open_finished
from kerasmlp.cross_validation.table import PARTS, mean_and_std
from kerasmlp.experiment.design import INITS, VARIANTS
from kerasmlp.experiment.paper import is_comparable, paper_test
from kerasmlp.stores.embedding_store import EmbeddingStore
from kerasmlp.targets import Target

_MORE = ("one_off_accuracy", "ece")


def long_table(folders: Mapping[tuple[str, str, str], Path], store: EmbeddingStore) -> list[dict]:
    """Returns one row per task, variant and initialisation.

    Args:
        folders: Finished cross-validation of each (task, variant, init).
        store: That they are of; of Adience in its own age groups,
            `paper_test_<measure>_mean` and `_std` stand beside ours.

    Returns:
        `task`, `variant`, `init`, `runs`, `trainable_parameters`, `epochs_mean`,
        and of loss (NLL) and accuracy on every part
        `<part>_<measure>_mean` and `_std`; on the test rows also one-off
        accuracy, where classes have an order, and ECE.
    """
    rows = []
    for (task, variant, init), path in folders.items():
        config, report = open_finished(path)
        summary = report["summary"]
        row = {
            "task": task,
            "variant": variant,
            "init": init,
            "runs": len(report["runs"]),
            "trainable_parameters": report["trainable_parameters"],
            "epochs_mean": summary["epochs"]["mean"],
        }
        shown = [f"{part}_{measure}" for part in PARTS for measure in ("nll", "accuracy")]
        for name in shown + [f"test_{measure}" for measure in _MORE]:
            if name in summary:
                row |= {f"{name}_{k}": summary[name][k] for k in ("mean", "std")}
        if is_comparable(store, Target.from_config(config["target"])):
            for measure, values in paper_test(task, init, variant).items():
                row |= {f"paper_test_{measure}_{k}": v for k, v in values.items()}
        rows.append(row)
    return rows


def table_markdown(rows: Sequence[dict]) -> str:
    """One table per task: loss and accuracy on training, validation and test rows."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        chosen = [row for row in rows if row["task"] == task]
        paper = "paper_test_nll_mean" in chosen[0]
        heads = ["init", *(f"{part} {name}" for part in PARTS for name in ("loss", "accuracy"))]
        heads += ["paper: test loss", "accuracy"] if paper else []
        lines += [f"### {task}", "", f"Mean ± standard deviation of {chosen[0]['runs']} runs.", ""]
        lines += [f"| {task} | {' | '.join(heads)} |", "| --- " * (len(heads) + 1) + "|"]
        for init in INITS:
            for variant in VARIANTS:
                row = next(r for r in chosen if (r["variant"], r["init"]) == (variant, init))
                names = [f"{part}_{m}" for part in PARTS for m in ("nll", "accuracy")]
                names += ["paper_test_nll", "paper_test_accuracy"] if paper else []
                cells = [mean_and_std({k: row[f"{n}_{k}"] for k in ("mean", "std")}) for n in names]
                lines.append(f"| {variant} | {init} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def claims_markdown(claims: Sequence[dict]) -> str:
    """One row per claim: differences full minus other on the test rows, p and verdict."""
    heads = ("claim", "task", "init", "Δ loss", "p", "", "Δ accuracy", "p", "")
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in claims:
        cells = [row["claim"], row["task"], row["init"]]
        for measure in ("nll", "accuracy"):
            cells += [f"{row[f'{measure}_difference']:+.4f}", _p_value(row[f"{measure}_p"])]
            cells.append(row[f"{measure}_verdict"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def lowest_validation_losses(rows: Sequence[dict]) -> dict[str, str]:
    """Of each task, the variant of lowest validation loss from pre-trained weights.

    The paper's main claim is that this is the full network.
    """
    best = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        chosen = [r for r in rows if (r["task"], r["init"]) == (task, "pretrained")]
        best[task] = min(chosen, key=lambda r: r["validation_nll_mean"])["variant"]
    return best


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
