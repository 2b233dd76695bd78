"""Run folders of older versions, which name neither their kind nor what they may hold."""

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
    for name in ("recipe", "base"):
        recipe = config.get(name)
        if isinstance(recipe, dict) and "residuals_per_block" in recipe:
            new = {"min_steps": 1, "refit": False, "members": 1, "conformal_by": []}
            renamed[name] = new | recipe
    return {"kind": "embeddings", "files": files, **renamed}
