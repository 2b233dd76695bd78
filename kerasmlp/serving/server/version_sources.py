"""Where the versions of models come from: a folder of them, or a `models.config` of several."""

import contextlib
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kerasmlp.utils.checks import reject_file
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


@dataclass(frozen=True)
class Source:
    """A folder of versions, and which of them are served under which name.

    Args:
        path: What names it: the folder itself, or a `models.config`.
        name: Of the model.
        folder: Of the versions.
        latest: How many of the highest numbers; None for all.
        only: These numbers instead, if there are any.
        labels: Names of some numbers.
    """

    path: Path
    name: str
    folder: Path
    latest: int | None = 1
    only: Collection[int] = ()
    labels: Mapping[str, int] = field(default_factory=dict)

    def numbers(self) -> list[int]:
        """Those to serve of what is there now, the latest last.

        Raises:
            InputError: if there is none, or one is missing.
        """
        there = []
        with contextlib.suppress(OSError):
            entries = self.folder.iterdir()
            there = sorted(int(p.name) for p in entries if p.name.isdecimal() and p.is_dir())
        if not there:
            came = what_is(self.folder)
            reject_file(self.folder, "must be a run or hold numbered versions of an export", came)
        if absent := set(self.only) - set(there):
            reject_file(self.folder, f"must hold version {min(absent)}", f"versions {there}")
        if self.only:
            return sorted(self.only)
        return there if self.latest is None else there[-self.latest :]

    def place(self, number: int) -> Path:
        return self.folder / str(number)


def sources_of(path: Path) -> list[Source]:
    """What a path names.

    Args:
        path: Folder of versions, of which the highest is served under the folder's
            name, or a text file in the form of TensorFlow Serving's
            `ModelServerConfig`, whose relative paths begin where the file lies.

    Raises:
        InputError: if a file is no such thing.
    """
    if not path.is_file():
        return [Source(path, Path(os.path.abspath(path)).name, path)]
    return [_configured(path, config) for config in _read_config(path)]


def _configured(path: Path, config) -> Source:
    folder = path.parent / config.base_path
    policy = config.model_version_policy
    latest, only = max(policy.latest.num_versions, 1), ()
    if policy.HasField("specific"):
        only = tuple(policy.specific.versions)
    elif policy.HasField("all"):
        latest = None
    labels = {label.key: label.value for label in config.version_labels}
    return Source(path, config.name or folder.name, folder, latest, only, labels)


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
