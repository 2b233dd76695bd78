"""What a server is told to serve: folders of versions, run folders, or a `models.config`."""

import os
import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import require_training
from kerasmlp.serving.server.served_version import ServedVersion
from kerasmlp.serving.server.version_sources import Source, sources_of
from kerasmlp.utils.checks import reject, reject_file

_OTHER = re.compile(r"[^A-Za-z0-9_.-]")
"""What the name of a model does not hold."""


@dataclass(frozen=True)
class ServedModel:
    """Loaded versions of one model, and names for some of them.

    Args:
        name: Of the model.
        versions: By number.
        labels: Number of the version that each stands for.
        source: Where further versions may come from; None for none.
        others: Numbers that are there and not served, and why: `LOADING`, or `END` of
            those that could not be loaded.
    """

    name: str
    versions: Mapping[int, ServedVersion]
    labels: Mapping[str, int]
    source: Source | None = None
    others: Mapping[int, str] = field(default_factory=dict)


def load_models(
    paths: Sequence[str | os.PathLike], *, trust: bool = False
) -> dict[str, ServedModel]:
    """Loads what the paths name, by the model's name.

    Args:
        paths: Each a folder of versions as `export_model` makes it or a `models.config`,
            see `sources_of`; or a finished run, served as `age`, `gender` or the name of
            its label, of several labels as `age-gender`.
        trust: Whether to run what no export of this package holds.

    Raises:
        InputError: if a path is none of these, or two models have one name.
    """
    models: dict[str, ServedModel] = {}
    for path in map(Path, paths):
        if (path / "config.json").exists():
            found = [_of_run(path)]
        else:
            found = [_loaded(source, trust) for source in sources_of(path)]
        for model in found:
            if model.name in models:
                refuse_name(path, model.name)
            models[model.name] = model
    return models


def load_version(path: Path, *, trust: bool) -> ServedVersion:
    """Loads a version, and asks it once.

    Raises:
        InputError: if it is none, or does not answer.
    """
    version = ServedVersion(path, trust=trust)
    version.warm_up()
    return version


def check_labels(source: Source, numbers: Collection[int]) -> None:
    """Rejects names for versions that are not served."""
    for label, number in source.labels.items():
        if number not in numbers:
            reject(f"version_labels {label}", "must be a version that is served", number)


def refuse_name(path: Path, name: str) -> None:
    came = f"a second {name!r} (a models.config can name them)"
    reject_file(path, "must have a name of its own", came)


def _loaded(source: Source, trust: bool) -> ServedModel:
    numbers = source.numbers()
    check_labels(source, numbers)
    versions = {n: load_version(source.place(n), trust=trust) for n in numbers}
    return ServedModel(source.name, versions, source.labels, source)


def _of_run(path: Path) -> ServedModel:
    require_training(RunFolder(path))
    from kerasmlp.runs.predictor import Predictor  # of Keras, which exports do not need
    from kerasmlp.serving.export.saved_model import export_model

    labels = "-".join(head.name for head in Predictor.heads(path))
    name = _OTHER.sub("_", labels)[:100].lstrip("_.-") or "model"
    with tempfile.TemporaryDirectory() as folder:
        version = Path(export_model(path, Path(folder) / name)["version"])
        return ServedModel(name, {1: load_version(version, trust=False)}, {})
