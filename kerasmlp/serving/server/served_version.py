"""One version of an exported model in memory, asked with arrays."""

import contextlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasmlp.serving.server.graph_check import answering_part, check_weights
from kerasmlp.serving.server.private_copy import (
    DESCRIPTION,
    GRAPH,
    INDEX,
    REFERENCE,
    VARIABLES,
    private_copy,
)
from kerasmlp.serving.server.watching import PLAIN, Watch, read_watch
from kerasmlp.utils.checks import one_sentence, reject_file
from kerasmlp.utils.files import MOST_JSON_BYTES, parse_json, what_is


class ServedVersion:
    """Loads a SavedModel of `export_model` and answers from its signatures.

    Every batch is filled up to one of few sizes by repeating its last row; what
    that adds is cut off again. This way the deterministic answer to a row has
    the same bits whichever rows come with it: what is left over of the tiles
    of rows that a processor multiplies, and of the numbers that it takes the
    exponential of at once, may be computed in another way than the rest. See
    `row_tile`.

    What is loaded is a copy of its files that was looked through first: see
    `answering_part`.

    Args:
        path: Version folder, numbered.
        trust: Load it from where it lies and run whatever it holds.

    Raises:
        InputError: if there is no such export, it cannot be loaded, or could
            do something else than compute answers.

    Attributes:
        signatures: With the names of their inputs.
        watch: Of the rows that it is asked for, once it is warm; None without a reference.
    """

    watch: Watch | None = None

    def __init__(self, path: str | os.PathLike, *, trust: bool = False):
        self.path = Path(path)
        if not (self.path / "saved_model.pb").is_file():
            reject_file(path, "must hold a saved_model.pb", what_is(path))
        with contextlib.nullcontext(self.path) if trust else private_copy(path) as files:
            graph = (files / GRAPH).read_bytes()
            if not trust:
                graph = answering_part(self.path / GRAPH, graph)
                (files / GRAPH).write_bytes(graph)
                check_weights(self.path / INDEX, files / VARIABLES)
            self.description = _description(files / DESCRIPTION, self.path / DESCRIPTION)
            self._reference = _reference(files / REFERENCE, self.path / REFERENCE)
            try:
                self._loaded = tf.saved_model.load(os.fspath(files))
                self._functions = dict(self._loaded.signatures)
            except Exception as error:  # an altered file may fail anywhere, in any way
                came = " ".join(str(error).split()).replace(os.fspath(files), os.fspath(path))
                reject_file(path, "must be a complete SavedModel", came[:200])
        self.signature_definitions = _signature_definitions(graph)
        inputs = {name: f.structured_input_signature[1] for name, f in self._functions.items()}
        self.signatures = {name: tuple(sorted(found)) for name, found in inputs.items()}

    @property
    def max_samples(self) -> int:
        """The most passes that the model takes; 0 without dropout."""
        return self.description["max_samples"]

    @property
    def width(self) -> int:
        return self.description["width"]

    def warm_up(self) -> None:
        """Asks every signature once: the first time takes longer.

        Raises:
            InputError: if it wants other inputs or fails, as what is trusted may, or an answer
                is not finite: the weights are not, or a temperature.
        """
        one = {"embedding": np.zeros((1, self.width), np.float32)}
        one |= {"num_samples": np.ones(1, np.int32), "seed": np.zeros(1, np.int64)}
        for signature, names in self.signatures.items():
            if "embedding" not in names or not one.keys() >= set(names):
                came = f"inputs {', '.join(names) or 'none'} of {signature}"
                reject_file(self.path, f"must have no inputs but {', '.join(one)}", came)
            try:
                outputs = self.run(signature, {name: one[name] for name in names})
            except Exception as error:  # anything can be trusted
                came = f"{one_sentence(error)} from {signature}"
                reject_file(self.path, f"must answer a row of {self.width} zeros", came)
            for name, values in outputs.items():
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    came = f"{name} of {signature} is NaN or infinity for a row of zeros"
                    reject_file(self.path, "must be a model with finite answers", came)
            if signature == PLAIN and self._reference is not None:
                how = {"description": self.description, "outputs": outputs}
                self.watch = read_watch(self.path / REFERENCE, self._reference, **how)

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answers one batch.

        Args:
            signature: One of `signatures`.
            inputs: Each with one entry per row; at least one row.

        Returns:
            Outputs by name, one entry per row; texts as bytes.
        """
        rows = len(inputs["embedding"])
        tile = 1 if "seed" in inputs else row_tile()  # only what has no seed promises its bits
        lacking = batch_size(rows, tile) - rows
        filled = {k: np.concatenate([v, np.repeat(v[-1:], lacking, 0)]) for k, v in inputs.items()}
        outputs = self._functions[signature](**{k: tf.constant(v) for k, v in filled.items()})
        return {k: v.numpy()[:rows] for k, v in outputs.items()}


def batch_size(rows: int, tile: int) -> int:
    """The size to which a batch is filled up: 1, 2, 3, 4, 6, 8, 12, … tiles, two rows at least.

    Example:

    >>> [batch_size(rows, tile=1) for rows in (1, 2, 5, 9, 64, 65)]
    [2, 2, 6, 12, 64, 96]
    >>> [batch_size(rows, tile=48) for rows in (1, 64, 97, 200)]
    [48, 96, 144, 288]
    """
    tiles = -(-max(rows, 2) // tile)
    power = 1 << (tiles - 1).bit_length()
    return tile * (power * 3 // 4 if tiles <= power * 3 // 4 and power > 2 else power)


@cache
def row_tile() -> int:
    """1 where this processor gives a row the same bits in batches of any of the sizes, else 48.

    Batches of two or more rows do so on a Xeon with AVX-512. An EPYC with AVX2
    multiplies tiles of six rows and takes exponentials of eight numbers.
    """
    rng = np.random.default_rng(0)
    weights = tf.constant(rng.normal(size=(64, 101)).astype(np.float32))

    @tf.function
    def function(rows):
        powers = tf.exp(tf.matmul(rows, weights) / 8)
        return tf.concat([powers, tf.nn.softplus(powers[:, 0])[:, None]], axis=1)

    rows = rng.normal(size=(97, 64)).astype(np.float32)
    whole = function(tf.constant(rows)).numpy()
    for size in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96):
        chosen = rng.permutation(len(rows))[:size]
        if not np.array_equal(function(tf.constant(rows[chosen])).numpy(), whole[chosen]):
            return 48
    return 1


def _description(file: Path, name: Path) -> dict:
    description = _json(file, name)
    known = description if isinstance(description, dict) else {}
    for key in ("width", "max_samples"):
        if not isinstance(known.get(key), int):
            reject_file(name, f"must hold an integer {key}", f"{known.get(key)!r}")
    return known


def _reference(file: Path, name: Path) -> Any:
    return _json(file, name) if file.is_file() else None


def _json(file: Path, name: Path) -> Any:
    """What a file holds, under the name that people know it by."""
    if not file.is_file():
        reject_file(name, "must be a JSON file", what_is(file))
    with open(file, "rb") as opened:
        return parse_json(name, opened.read(MOST_JSON_BYTES + 1))


def _signature_definitions(graph: bytes) -> dict:
    """The `SignatureDef`s of a SavedModel, in the JSON form of Protocol Buffers."""
    from google.protobuf.json_format import MessageToDict
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    (graph,) = SavedModel.FromString(graph).meta_graphs
    return {
        name: MessageToDict(
            definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, definition in graph.signature_def.items()
    }
