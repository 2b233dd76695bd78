"""Run folders of older versions, which name neither their kind nor what they may hold."""

from typing import Any

_FILES = (
    "calibration.json", "seen.npy", "curves.png", "confusion_matrix.png", "runs.csv", "table.md",
    "best.json", "trials.csv", "trials.png", "ages.png", "faces.png", "seed*_fold*/", "*_seed*/",
)  # fmt: skip
_MORE = {
    "tuning": ("search/**",),
    "age-cnn-tuning": ("search/**",),
    "experiment": (
        "table.csv", "claims.csv", "search.csv", "report.html", "figures/*.png", "search/*/",
        "pretraining/*/", "cross-validation/*/",
    ),
}  # fmt: skip


def in_new_words(config: dict) -> dict:
    """Settings as this version has them, which says `precision` for `dtype`, and all runs' kind.

    Example:

    >>> known = in_new_words({"dtype": "float32"})
    >>> known["precision"], known["kind"], known["files"][:2]
    ('float32', 'embeddings', ['calibration.json', 'seen.npy'])
    """
    renamed = {"precision" if k == "dtype" else k: v for k, v in config.items()}
    files = [*_FILES, *_MORE.get(str(config.get("kind")), ())]
    renamed = {name: _filled(value) for name, value in renamed.items()}
    return {"kind": "embeddings", "files": files, **renamed}


def _filled(value: Any) -> Any:
    """Recipes, wherever they stand, with what older ones did not have."""
    if not isinstance(value, dict):
        return value
    new = {"min_steps": 1, "refit": False, "members": 1, "conformal_by": []}
    filled = {name: _filled(inner) for name, inner in value.items()}
    return new | filled if "residuals_per_block" in value else filled
