"""What the paper claims, each as a comparison of two cross-validations."""

import contextlib
from pathlib import Path

from kerasmlp.experiments.cross_validation.comparison import TooFewPairs, compare
from kerasmlp.experiments.residual_mlp.design import INITS, Folders

SIGNIFICANT = 0.05

_SAYS = {
    "no dropout": "dropout helps",
    "no IC": "IC layers help",
    "no skip": "skip connections help",
    "no IC, no skip": "IC layers and skip connections together help",
}


def check_claims(folders: Folders) -> list[dict]:
    """Returns one row per claim, task and initialisation.

    A claim holds where the full network is better by the corrected t-test of
    `compare` with p below 0.05, and is contradicted where it is worse; else
    these runs do not tell, or too many of them diverged.

    Returns:
        `claim`, `task`, `init`, `pairs` of runs compared and, of test `nll` and
        `accuracy`, the `<measure>_difference` full minus other, `<measure>_p`
        (both None where too few are left) and `<measure>_verdict`.
    """
    rows = []
    for task in dict.fromkeys(task for task, _, _ in folders):
        others = [("pre-training helps", "pretrained", ("full", "random"))]
        others += [(claim, init, (v, init)) for init in INITS for v, claim in _SAYS.items()]
        for claim, init, other in others:
            row = {"claim": claim, "task": task, "init": init}
            rows.append(row | _compared(folders[task, *other], folders[task, "full", init]))
    return rows


def _compared(other: Path | None, full: Path | None) -> dict:
    result = {}
    if other is not None and full is not None:
        with contextlib.suppress(TooFewPairs):
            result = compare(other, full)
    row = {"pairs": result["nll"]["pairs"] if result else 0}
    for measure, sign in (("nll", -1), ("accuracy", 1)):
        found = result.get(measure, {"difference": None, "p": None})
        difference, p = found["difference"], found["p"]
        verdict = "not told" if result else "diverged"
        if p is not None and p < SIGNIFICANT:
            verdict = "holds" if sign * difference > 0 else "contradicted"
        row |= {
            f"{measure}_difference": difference,
            f"{measure}_p": p,
            f"{measure}_verdict": verdict,
        }
    return row
