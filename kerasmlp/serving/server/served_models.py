"""What a server is told to serve: folders of versions, run folders, or a `models.config`."""

import contextlib
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import require_training
from kerasmlp.serving.server.served_version import ServedVersion
from kerasmlp.utils.checks import reject, reject_file
from kerasmlp.utils.files import what_is

_FIELDS = {
    # message: (field, its type, whether repeated); numbers do not matter to the text format
    "Server": [("model_config_list", "List", False)],
    "List": [("config", "Model", True)],
    "Model": [
        ("name", "string", False),
        ("base_path", "string", False),
        ("model_platform", "string", False),
        ("model_version_policy", "Policy", False),
        ("version_labels", "Label", True),
    ],
    "Policy": [("latest", "Latest", False), ("all", "All", False), ("specific", "Specific", False)],
    "Latest": [("num_versions", "int64", False)],
    "All": [],
    "Specific": [("versions", "int64", True)],
    "Label": [("key", "string", False), ("value", "int64", False)],
}

_OTHER = re.compile(r"[^A-Za-z0-9_.-]")
"""What the name of a model does not hold."""


@dataclass(frozen=True)
class ServedModel:
    """Loaded versions of one model, and names for some of them."""

    name: str
    versions: dict[int, ServedVersion]
    labels: dict[str, int]


def load_models(
    paths: Sequence[str | os.PathLike], *, trust: bool = False
) -> dict[str, ServedModel]:
    """Loads what the paths name, by the model's name.

    Args:
        paths: Each a folder of versions as `export_model` makes it, of which
            the highest is served under the folder's name; a finished run,
            served as `age`, `gender` or the name of its label,
            of several labels as `age-gender`; or a text file
            in the form of TensorFlow Serving's `ModelServerConfig`, whose
            relative paths begin where the file lies.
        trust: Whether to run what no export of this package holds.

    Raises:
        InputError: if a path is none of these, or two models have one name.
    """
    models: dict[str, ServedModel] = {}
    for path in map(Path, paths):
        if path.is_file():
            found = [_configured(path, config, trust) for config in _read_config(path)]
        elif (path / "config.json").exists():
            found = [_of_run(path)]
        else:
            numbers = [max(_version_numbers(path))]
            found = [_loaded(Path(os.path.abspath(path)).name, path, numbers, {}, trust)]
        for model in found:
            if model.name in models:
                came = f"a second {model.name!r} (a models.config can name them)"
                reject_file(path, "must have a name of its own", came)
            models[model.name] = model
    return models


def _of_run(path: Path) -> ServedModel:
    require_training(RunFolder(path))
    from kerasmlp.runs.predictor import Predictor  # of Keras, which exports do not need
    from kerasmlp.serving.export.saved_model import export_model

    labels = "-".join(head.name for head in Predictor.heads(path))
    name = _OTHER.sub("_", labels)[:100].lstrip("_.-") or "model"
    with tempfile.TemporaryDirectory() as folder:
        export_model(path, Path(folder) / name)
        return _loaded(name, Path(folder) / name, [1], {}, False)


def _version_numbers(folder: Path) -> list[int]:
    numbers = []
    with contextlib.suppress(OSError):
        numbers = [int(p.name) for p in folder.iterdir() if p.name.isdecimal() and p.is_dir()]
    if not numbers:
        came = what_is(folder)
        reject_file(folder, "must be a run or hold numbered versions of an export", came)
    return sorted(numbers)


def _loaded(
    name: str, folder: Path, numbers: Sequence[int], labels: dict, trust: bool
) -> ServedModel:
    versions = {n: ServedVersion(folder / str(n), trust=trust) for n in numbers}
    for version in versions.values():
        version.warm_up()
    return ServedModel(name, versions, labels)


def _read_config(path: Path) -> list:
    """The model entries of a `ModelServerConfig` in Protocol Buffers' text format."""
    from google.protobuf import text_format

    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), _server_config_class()())
    except UnicodeDecodeError:
        wanted = "must be a folder of versions, a run, or a models.config"
        reject_file(path, wanted, "a file that is no text")
    except text_format.ParseError as error:
        came = re.sub(r'Message type "kerasmlp\.\w+"', "a message that", str(error))
        reject_file(path, "must be a models.config of TensorFlow Serving", came)
    if not config.model_config_list.config:
        reject_file(path, "must name at least one model", "none")
    return list(config.model_config_list.config)


def _server_config_class():
    """The fields that are read of `ModelServerConfig`: TensorFlow does not bring their package."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="kerasmlp_models.proto", package="kerasmlp")
    for message_name, fields in _FIELDS.items():
        message = file.message_type.add(name=message_name)
        for number, (name, kind, repeated) in enumerate(fields, 1):
            field = message.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            types = {"string": field.TYPE_STRING, "int64": field.TYPE_INT64}
            field.type = types.get(kind, field.TYPE_MESSAGE)
            if kind not in types:
                field.type_name = f".kerasmlp.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("kerasmlp.Server"))


def _configured(path: Path, config, trust: bool) -> ServedModel:
    folder = path.parent / config.base_path
    numbers = _version_numbers(folder)
    policy = config.model_version_policy
    if policy.HasField("specific"):
        absent = set(policy.specific.versions) - set(numbers)
        if absent:
            reject_file(folder, f"must hold version {min(absent)}", f"versions {numbers}")
        numbers = sorted(policy.specific.versions)
    elif not policy.HasField("all"):
        numbers = numbers[-max(policy.latest.num_versions, 1) :]
    labels = {label.key: label.value for label in config.version_labels}
    for label, number in labels.items():
        if number not in numbers:
            reject(f"version_labels {label}", "must be a version that is served", number)
    return _loaded(config.name or folder.name, folder, numbers, labels, trust)
