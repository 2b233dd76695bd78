"""The warm-up file of TensorFlow Serving: requests that it plays to a model before it goes live.

TFRecords of `PredictionLog` protocol buffers. Their package,
`tensorflow-serving-api`, is not needed to write these few fields; the tests
read them with it.
"""

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

PLACE = "assets.extra/tf_serving_warmup_requests"
"""Inside a SavedModel."""


def write_warmup(
    path: str | os.PathLike, name: str, requests: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Writes one request per signature, to a model by the name under which it is served.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_warmup(f"{folder}/w", "age", {"serving_default": {"x": np.zeros((1, 2))}})
    ...     len(list(tf.data.TFRecordDataset(f"{folder}/w")))
    1

    Reference: "SavedModel Warmup" of TensorFlow Serving; prediction_log.proto,
    predict.proto and model.proto of its public interface.
    """
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for signature, inputs in requests.items():
            spec = _field(1, name.encode()) + _field(3, signature.encode())
            request = _field(1, spec)
            for key, values in inputs.items():
                tensor = tf.make_tensor_proto(values).SerializeToString()
                request += _field(2, _field(1, key.encode()) + _field(2, tensor))
            predict_log = _field(1, request)
            writer.write(_field(6, predict_log))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
