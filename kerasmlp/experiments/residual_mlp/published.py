"""Table 3 of the paper: 25 runs on Adience, loss and accuracy on all three parts."""

import numpy as np

from kerasmlp.data.labels import UNKNOWN
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.targets import Target
from kerasmlp.experiments.cross_validation.table import PARTS
from kerasmlp.experiments.residual_mlp.design import VARIANTS

_NUM_FOLDS = 5
_TABLE_3 = {
    # By task and initialisation a line per variant; in it, for training, validation and
    # test: loss, its standard deviation, accuracy, its standard deviation.
    ("gender", "random"): """
        0.0650 0.0074 0.9800 0.0030 0.1180 0.0150 0.9639 0.0063 0.4353 0.0785 0.8406 0.0273
        0.0459 0.0050 0.9874 0.0020 0.1044 0.0109 0.9672 0.0039 0.4047 0.0810 0.8413 0.0326
        0.1879 0.0618 0.9425 0.0102 0.2067 0.0623 0.9336 0.0121 0.4622 0.0914 0.8207 0.0389
        0.0666 0.0067 0.9805 0.0021 0.1176 0.0130 0.9614 0.0052 0.4217 0.0865 0.8340 0.0345
        0.6141 0.1254 0.6119 0.1568 0.6144 0.1242 0.6151 0.1557 0.6581 0.0581 0.5847 0.1015
    """,
    ("gender", "pretrained"): """
        0.0332 0.0021 0.9917 0.0009 0.0810 0.0167 0.9772 0.0049 0.3120 0.0604 0.8887 0.0255
        0.0400 0.0027 0.9899 0.0013 0.0841 0.0192 0.9753 0.0042 0.2768 0.0457 0.8986 0.0198
        0.0438 0.0037 0.9880 0.0011 0.0895 0.0149 0.9743 0.0047 0.2679 0.0676 0.9066 0.0248
        0.1110 0.0050 0.9707 0.0021 0.1389 0.0128 0.9596 0.0059 0.2833 0.0338 0.8937 0.0171
        0.0633 0.0033 0.9833 0.0012 0.1041 0.0177 0.9693 0.0061 0.2835 0.0659 0.9034 0.0227
    """,
    ("age", "random"): """
        0.0147 0.0075 0.9974 0.0017 0.2299 0.0273 0.9342 0.0064 1.6409 0.1889 0.5482 0.0391
        0.0139 0.0079 0.9976 0.0019 0.2259 0.0303 0.9343 0.0086 1.6301 0.1815 0.5437 0.0413
        0.2188 0.0329 0.9288 0.0138 0.4496 0.0480 0.8596 0.0126 1.5591 0.1445 0.5332 0.0403
        0.0157 0.0039 0.9971 0.0008 0.2330 0.0261 0.9331 0.0079 1.6680 0.1392 0.5395 0.0374
        0.4202 0.0797 0.8359 0.0428 0.7315 0.0969 0.7548 0.0431 2.0719 0.2454 0.4068 0.0529
    """,
    ("age", "pretrained"): """
        0.0442 0.0111 0.9906 0.0027 0.2498 0.0274 0.9237 0.0076 1.3567 0.1020 0.6086 0.0283
        0.0454 0.0145 0.9906 0.0036 0.2721 0.0262 0.9156 0.0081 1.3589 0.0774 0.5968 0.0187
        0.0904 0.0202 0.9799 0.0057 0.3133 0.0210 0.9013 0.0082 1.3406 0.0900 0.6032 0.0308
        0.0538 0.0181 0.9873 0.0048 0.2599 0.0226 0.9210 0.0083 1.3822 0.0963 0.6047 0.0270
        0.1052 0.0128 0.9751 0.0037 0.3307 0.0252 0.8932 0.0087 1.3568 0.1311 0.5937 0.0357
    """,
    ("age-modified", "random"): """
        0.0188 0.0040 0.9968 0.0008 0.2354 0.0271 0.9343 0.0073 1.6534 0.1735 0.5445 0.0397
        0.0170 0.0047 0.9973 0.0009 0.2345 0.0273 0.9326 0.0073 1.6319 0.1586 0.5477 0.0354
        0.4539 0.0472 0.8340 0.0192 0.5811 0.0408 0.7933 0.0183 1.3348 0.1425 0.5329 0.0372
        0.0198 0.0049 0.9965 0.0009 0.2336 0.0270 0.9326 0.0081 1.6528 0.1671 0.5435 0.0371
        0.8561 0.1304 0.6270 0.0584 0.9393 0.1106 0.5967 0.0519 1.4231 0.1128 0.4270 0.0388
    """,
    ("age-modified", "pretrained"): """
        0.0455 0.0116 0.9913 0.0027 0.2623 0.0272 0.9195 0.0080 1.3636 0.0694 0.6005 0.0233
        0.0444 0.0127 0.9918 0.0028 0.2679 0.0277 0.9196 0.0078 1.4226 0.1403 0.5916 0.0362
        0.1100 0.0216 0.9726 0.0064 0.3482 0.0238 0.8930 0.0065 1.3880 0.0790 0.6030 0.0216
        0.0450 0.0078 0.9908 0.0021 0.2650 0.0285 0.9188 0.0080 1.4405 0.0882 0.5985 0.0226
        0.1311 0.0221 0.9655 0.0068 0.3538 0.0230 0.8890 0.0065 1.3887 0.1497 0.5967 0.0344
    """,
}


def is_comparable(store: EmbeddingStore, target: Target) -> bool:
    """Whether the numbers of the paper are about these faces, folds and classes."""
    source = (store.info.source or "").lower()
    if not source.startswith("adience") or ";" in source:  # ";" joins sources of joined stores
        return False
    folds = set(np.unique(store.labels["fold"]).tolist()) if "fold" in store.labels else set()
    if folds - {UNKNOWN} != set(range(_NUM_FOLDS)):
        return False
    return target.classes == "adience" if target.is_age else target.label == "gender"


def paper_results(task: str, init: str, variant: str) -> dict[str, float]:
    """Returns `<part>_<measure>_mean` and `_std` as `long_table` has them.

    Example:

    >>> results = paper_results("gender", "pretrained", "full")
    >>> results["test_accuracy_mean"], results["test_accuracy_std"]
    (0.8887, 0.0255)
    """
    line = _TABLE_3[task, init].strip().splitlines()[list(VARIANTS).index(variant)]
    names = [f"{p}_{m}_{k}" for p in PARTS for m in ("nll", "accuracy") for k in ("mean", "std")]
    return dict(zip(names, map(float, line.split()), strict=True))
