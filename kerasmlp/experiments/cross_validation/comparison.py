"""Two cross-validations side by side on the same test rows."""

import json
import os

import numpy as np

from kerasmlp.data.other_targets import target_from_config
from kerasmlp.experiments.cross_validation.cross_validate import open_finished
from kerasmlp.experiments.cross_validation.significance import corrected_t_test
from kerasmlp.experiments.cross_validation.table import of_heads
from kerasmlp.experiments.summary import mean_and_std, p_value, summarize
from kerasmlp.utils.checks import InputError, reject_file

MEASURES = (
    "rmse", "mae", "mae_years", "nll", "accuracy", "exact_year_accuracy", "one_off_accuracy", "ece",
    "brier",
)  # fmt: skip
_SAME = ("data_digest", "seeds", "num_folds", "folds_from", "folds_digest")


class TooFewPairs(InputError):
    """Too many runs diverged for any test of a difference."""


def compare(a: str | os.PathLike, b: str | os.PathLike) -> dict:
    """Returns paired differences of two cross-validations, and how likely chance makes them.

    A run of one is paired with that of the other on the same seed and fold.
    Where all seeds test on the same folds, differences of one fold are averaged
    first: seeds do not make other test rows. Then the corrected resampled
    t-test of `corrected_t_test`.

    Args:
        a: Folder of a finished cross-validation.
        b: Another, with the same data, seeds, folds and precision, measured in the same
            classes.

    Returns:
        Per measure on the test rows `a`, `b` (mean and standard deviation over
        pairs), `difference` (mean of b - a over test sets), `t`,
        `degrees_of_freedom`, `p`, `pairs`: a pair of which one run diverged is
        left out.

    Raises:
        InputError: if one is not finished, or they were not tested alike; a
            `TooFewPairs` if fewer than two test sets are left.
    """
    (config_a, report_a), (config_b, report_b) = open_finished(a), open_finished(b)
    for key in _SAME:
        if config_a[key] != config_b[key]:
            requirement = f"must have the same {key} ({config_a[key]!r}) as the other"
            reject_file(b, requirement, f"{config_b[key]!r}")
    if (precision := report_a["precision"]) != report_b["precision"]:
        reject_file(b, f"must be trained in {precision}, as the other", report_b["precision"])
    if (classes := _measured(config_a)) != _measured(config_b):
        requirement = f"must be measured in the same classes ({classes})"
        reject_file(b, requirement, _measured(config_b))
    fixed = config_a["folds_from"] == "column"
    pairs = [
        (x, y)
        for x, y in zip(report_a["runs"], report_b["runs"], strict=True)
        if "diverged" not in x and "diverged" not in y
    ]
    folds = [x["fold"] if fixed else (x["seed"], x["fold"]) for x, _ in pairs]
    if (number := len(set(folds))) < 2:
        raise TooFewPairs(
            f"`{b}` must have sound runs on two test sets where the other has. Received: {number}"
        )
    summary_a, summary_b = (summarize(runs) for runs in zip(*pairs, strict=True))
    result = {}
    for measure, _ in of_heads(MEASURES, target_from_config(config_a["target"])):
        name = f"test_{measure}"
        if name not in summary_a or name not in summary_b:
            continue
        differences = [y[name] - x[name] for x, y in pairs]
        test = corrected_t_test(_per_test_set(differences, folds), report_a["test_share"])
        result[measure] = {
            "a": summary_a[name],
            "b": summary_b[name],
            "difference": test.pop("mean"),
            **test,
            "pairs": len(pairs),
        }
    return result


def comparison_table(result: dict) -> str:
    """The comparison as a short text table."""
    heads = ("measure", "a", "b", "b - a", "p")
    lines = ["{:20}{:>18}{:>18}{:>10}{:>8}".format(*heads)]
    for measure, row in result.items():
        a, b = mean_and_std(row["a"]), mean_and_std(row["b"])
        p = p_value(row["p"])
        lines.append(f"{measure:20}{a:>18}{b:>18}{row['difference']:>+10.4f}{p:>8}")
    return "\n".join(lines)


def _measured(config: dict) -> str:
    target = config["target"]
    if "class_names" not in target:  # numbers, or several heads
        return json.dumps(target)
    return target["classes"] or ", ".join(target["class_names"])


def _per_test_set(differences: list[float], folds: list) -> list[float]:
    """Means over the runs that were tested on the same rows."""
    return [
        float(np.mean([d for d, f in zip(differences, folds, strict=True) if f == fold]))
        for fold in dict.fromkeys(folds)
    ]
