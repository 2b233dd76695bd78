"""What the Open Inference Protocol tells of a server and its models, over HTTP and gRPC alike."""

from collections.abc import Mapping, Sequence

from kerasmlp import __version__
from kerasmlp.serving.server.served_models import ServedModel
from kerasmlp.serving.server.served_version import ServedVersion

SERVER = {"name": "kerasmlp", "version": __version__}
_ENDS = ("inputs", "outputs")


def metadata_of(model: ServedModel, number: int) -> dict:
    """Of a version: the tensors of `serving_default`, and under `signatures` those of each."""
    version = model.versions[number]
    signatures = {
        name: {end: _tensors(version.signature_definitions[name][end]) for end in _ENDS}
        for name in version.signatures
    }
    about = {"name": model.name, "versions": [str(n) for n in sorted(model.versions)]}
    about |= {"platform": "tensorflow_savedmodel"}
    return {**about, **signatures["serving_default"], "signatures": signatures}


def outputs_of(version: ServedVersion) -> dict[str, Sequence[str]]:
    """The names of the outputs of each signature."""
    definitions = version.signature_definitions
    return {name: sorted(definitions[name]["outputs"]) for name in version.signatures}


def _tensors(definitions: Mapping[str, Mapping]) -> list[dict]:
    """Of the inputs or outputs of a `SignatureDef` in JSON; -1 for what varies."""
    return [
        {
            "name": name,
            "datatype": _datatype(definition["dtype"]),
            "shape": [int(d["size"]) for d in definition["tensor_shape"]["dim"]] or [-1],
        }
        for name, definition in sorted(definitions.items())
    ]


def _datatype(kind: str) -> str:
    """The protocol's name of a type of TensorFlow.

    Example:

    >>> _datatype("DT_FLOAT"), _datatype("DT_INT64"), _datatype("DT_STRING")
    ('FP32', 'INT64', 'BYTES')
    """
    others = {"DT_HALF": "FP16", "DT_FLOAT": "FP32", "DT_DOUBLE": "FP64", "DT_STRING": "BYTES"}
    return others.get(kind, kind.removeprefix("DT_"))
