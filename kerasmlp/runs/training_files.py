"""What `config.json` and `report.json` of a training on embeddings must hold."""

import os

from kerasmlp.data.labels import age_classes
from kerasmlp.data.other_targets import AnyTarget, target_from_config
from kerasmlp.data.stores.store_info import PREPROCESSING
from kerasmlp.data.targets import Target
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.checks import DivergedError, InputError, reject_file
from kerasmlp.utils.schema import (
    check_object,
    check_same,
    dict_of,
    fields,
    flag,
    kind,
    list_of,
    made_by,
    number,
    one_of,
    optional,
    text,
    whole,
)

KIND = "embeddings"
"""Of a run whose model takes embeddings: trained on them, or brought from elsewhere."""

FILES = ("calibration.json", "reference.json", "seen.npy", "curves.png", "confusion_matrix.png")
MAX_WIDTH = 1 << 16
_MOST_CLASSES = 100_000
_AGES = made_by(age_classes, "the name of age classes")
_TEXT = text(1000)
TARGET = {
    "label": _TEXT,
    "class_names": list_of(text(10_000), _MOST_CLASSES),
    "head": optional(_AGES),
    "classes": optional(_AGES),
}
_ANYTHING = kind("anything", lambda value: True)
_NUMBER = {"kind": one_of("number"), "label": _TEXT, "unit": optional(text(100))}


_SETTINGS = {
    "width": whole(1, MAX_WIDTH),
    "normalized": flag,
    "embedder": optional(text()),
    "embedder_sha256": optional(text()),
    "preprocessing": optional(PREPROCESSING),
    "data_digest": optional(text()),
    "norm_1_share": optional(number(0, 1)),
    "standardized": optional(flag),
    "target": dict_of(_ANYTHING),
}
_NEW = ("norm_1_share", "standardized")  # runs of older versions are without
_PLAIN = kind("a text or a finite number", lambda v: isinstance(v, str | int | float))
_MEASURES = dict_of(number())
_REPORT = {
    "epochs": whole(0, 10**9),
    "seconds": fields({"total": number(), "fit": number()}),
    "rows": fields({k: whole(0, 10**12) for k in ("training", "validation", "unlabelled")}),
    "trainable_parameters": whole(0, 10**12),
    "validation": _MEASURES,
    "training": optional(_MEASURES),
    "test": optional(_MEASURES),
    "validation_groups": list_of(dict_of(_PLAIN)),
}


def require_training(run: RunFolder) -> None:
    """Rejects what is no finished training on embeddings."""
    run.require_kind(KIND, "a training on embeddings")


def read_settings(run: RunFolder) -> tuple[dict, AnyTarget]:
    """The settings of a run that learned from embeddings, and what it predicts.

    Raises:
        InputError: naming the file, if it is another run or does not fit itself.
    """
    require_training(run)
    config, path, what = run.config(), run / "config.json", "that of a training on embeddings"
    for name in ("data_digest", "preprocessing"):
        config.setdefault(name, None)
    if absent := [k for k in _SETTINGS if k not in config and k not in _NEW]:
        reject_file(path, f"must be {what}", f"one without {absent[0]}")
    check_object(path, config, _SETTINGS, what)
    return config, target_of(path, config, what)


def target_of(path: str | os.PathLike, config: dict, what: str) -> AnyTarget:
    """The target in the settings of a run, whose file is `what` in words.

    Raises:
        InputError: naming the file, if its classes do not fit each other.
    """
    target = config.get("target")
    heads = [target]
    if isinstance(target, dict) and target.get("kind") == "several":
        several = {"kind": one_of("several"), "heads": list_of(dict_of(_ANYTHING), 100)}
        check_object(path, config, {"target": fields(several)}, what)
        heads = target["heads"]
    for head in heads:
        of_number = isinstance(head, dict) and head.get("kind") == "number"
        schema = fields(_NUMBER if of_number else TARGET)
        check_object(path, {"target": head}, {"target": schema}, what)
    try:
        found = target_from_config(target)
    except TypeError:
        reject_file(path, f"must be {what}", "one with another kind of target")
    except InputError as error:
        reject_file(path, f"must be {what}", f"{error}")
    for head in found.heads:
        if not head.is_number:
            _check_classes(path, head, what)
    return found


def _check_classes(path: str | os.PathLike, target: Target, what: str) -> None:
    names = target.class_names
    if len(names) < 2 or len(set(names)) < len(names):
        reject_file(path, f"must be {what} in two or more classes", f"{len(names)} class names")
    if target.is_age:
        allowed = target.head == "years" or target.classes == target.head
        if names != target.head_ages.class_names or target.classes is None or not allowed:
            came = f"a head of {target.head!r} with {len(names)} names and {target.classes!r}"
            reject_file(path, f"must be {what} whose classes are those of its head", came)


def check_taken_over(run: RunFolder, settings: dict) -> None:
    """Rejects a finished run that is to be a part of another result, if it is not whole or was
    made with others than these of its settings.

    Raises:
        InputError: naming the file or the setting.
    """
    run.check_files()
    before = run.config()
    check_same(run.path, {name: before.get(name) for name in settings}, settings)


def read_report(run: RunFolder) -> dict:
    """The report of a finished training, on embeddings or on images.

    Raises:
        InputError: naming the file, if it is not one.
    """
    report = run.report()
    if "diverged" in report:
        return check_object(run / "report.json", report, {"diverged": text()})
    schema = _REPORT if run.config()["kind"] == KIND else {}
    return check_object(run / "report.json", report, schema, "that of a training")


def report_of_finished(run: RunFolder, *, keep_diverged: bool) -> dict:
    """As `read_report`; weights that diverged are an error, where they are no result.

    Raises:
        InputError: as said; a `DivergedError` of weights that ran away.
    """
    report = read_report(run)
    if "diverged" in report and not keep_diverged:
        raise DivergedError(run.config()["recipe"]["learning_rate"])
    return report
