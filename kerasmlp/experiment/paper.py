"""Table 3 of the paper: 25 runs on Adience, test loss and accuracy."""

from __future__ import annotations

from kerasmlp.experiment.design import VARIANTS
from kerasmlp.stores.embedding_store import EmbeddingStore
from kerasmlp.targets import Target

_TEST = {  # task and initialisation: (mean and standard deviation of loss, of accuracy) by variant
    ("gender", "random"): (
        (0.4353, 0.0785, 0.8406, 0.0273), (0.4047, 0.0810, 0.8413, 0.0326),
        (0.4622, 0.0914, 0.8207, 0.0389), (0.4217, 0.0865, 0.8340, 0.0345),
        (0.6581, 0.0581, 0.5847, 0.1015),
    ),
    ("gender", "pretrained"): (
        (0.3120, 0.0604, 0.8887, 0.0255), (0.2768, 0.0457, 0.8986, 0.0198),
        (0.2679, 0.0676, 0.9066, 0.0248), (0.2833, 0.0338, 0.8937, 0.0171),
        (0.2835, 0.0659, 0.9034, 0.0227),
    ),
    ("age", "random"): (
        (1.6409, 0.1889, 0.5482, 0.0391), (1.6301, 0.1815, 0.5437, 0.0413),
        (1.5591, 0.1445, 0.5332, 0.0403), (1.6680, 0.1392, 0.5395, 0.0374),
        (2.0719, 0.2454, 0.4068, 0.0529),
    ),
    ("age", "pretrained"): (
        (1.3567, 0.1020, 0.6086, 0.0283), (1.3589, 0.0774, 0.5968, 0.0187),
        (1.3406, 0.0900, 0.6032, 0.0308), (1.3822, 0.0963, 0.6047, 0.0270),
        (1.3568, 0.1311, 0.5937, 0.0357),
    ),
    ("age-modified", "random"): (
        (1.6534, 0.1735, 0.5445, 0.0397), (1.6319, 0.1586, 0.5477, 0.0354),
        (1.3348, 0.1425, 0.5329, 0.0372), (1.6528, 0.1671, 0.5435, 0.0371),
        (1.4231, 0.1128, 0.4270, 0.0388),
    ),
    ("age-modified", "pretrained"): (
        (1.3636, 0.0694, 0.6005, 0.0233), (1.4226, 0.1403, 0.5916, 0.0362),
        (1.3880, 0.0790, 0.6030, 0.0216), (1.4405, 0.0882, 0.5985, 0.0226),
        (1.3887, 0.1497, 0.5967, 0.0344),
    ),
}  # fmt: skip


def is_comparable(store: EmbeddingStore, target: Target) -> bool:
    """Whether the numbers of the paper are about these faces and these classes."""
    classes = target.classes == "adience" if target.is_age else target.label == "gender"
    return classes and "adience" in (store.info.source or "").lower()


def paper_test(task: str, init: str, variant: str) -> dict[str, dict[str, float]]:
    """Returns mean and standard deviation of `nll` and `accuracy` on the test folds.

    Example:

    >>> paper_test("gender", "pretrained", "full")["accuracy"]
    {'mean': 0.8887, 'std': 0.0255}
    """
    row = _TEST[task, init][list(VARIANTS).index(variant)]
    return {
        "nll": {"mean": row[0], "std": row[1]},
        "accuracy": {"mean": row[2], "std": row[3]},
    }
