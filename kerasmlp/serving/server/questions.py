"""Questions that can be computed, and what their values may be, to the last number."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import orjson

from kerasmlp.utils.checks import reject_file

_NUMBERS = {int, float}  # `bool` is an int too, and not wanted
_SEEDS = 1 << 63
_SHOWN = 120  # characters of a value
_PART = reprlib.Repr()
_PART.maxlevel = 3  # of more lists in lists the parts would be a long text, too


@dataclass(frozen=True)
class Form:
    """What a request may hold.

    Args:
        signatures: With the names of their inputs.
        width: Of the embeddings.
        max_rows: More are refused.
        max_samples: More passes per row are refused.
        json_bytes: Of the body, before binary tensors; None where it is JSON to its end.
    """

    signatures: Mapping[str, Sequence[str]]
    width: int
    max_rows: int
    max_samples: int
    json_bytes: int | None = None


@dataclass(frozen=True)
class Question:
    """A request that can be computed.

    Args:
        signature: Of the model.
        inputs: By name, one entry per row.
        wanted: How the answer is to be written, in plain values.
    """

    signature: str
    inputs: dict[str, np.ndarray]
    wanted: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.inputs["embedding"])

    @property
    def passes(self) -> int:
        """Rows × MC passes, all rows taking as many as the one that wants most."""
        samples = self.inputs.get("num_samples")
        return self.rows * (1 if samples is None else int(samples.max()))


def parse_object(body: bytes | memoryview) -> dict:
    """Reads a JSON object.

    Raises:
        InputError: if it is none, deeper than 1,024 lists, or holds NaN or Infinity.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reject_file("body", "must be JSON of limited depth, without NaN and Infinity", f"{error}")
    if type(content) is not dict:
        refuse("body", "must be a JSON object", content)
    return content


def check_signature(signature: Any, form: Form) -> str:
    """Returns the name of a signature that is served; empty means the default one."""
    signature = "serving_default" if signature == "" else signature  # as TensorFlow Serving does
    if type(signature) is not str or signature not in form.signatures:
        refuse("signature_name", f"must be one of {', '.join(form.signatures)}", signature)
    return signature


def check_rows(name: str, rows: int, max_rows: int) -> None:
    if rows > max_rows:
        reject_file(name, f"must hold at most {max_rows} rows", f"{rows}")


def embeddings_of(rows: list, width: int) -> np.ndarray:
    """Lists of numbers as float32, which must be able to hold them."""
    for i, row in enumerate(rows):
        if type(row) is not list:
            refuse(f"embedding[{i}]", f"must be a list of {width} numbers", row)
        if len(row) != width:
            reject_file(f"embedding[{i}]", f"must be a list of {width} numbers", f"{len(row)}")
        check_numbers(f"embedding[{i}]", row)
    return as_float32(rows)


def check_numbers(name: str, values: list) -> None:
    if not _NUMBERS.issuperset(map(type, values)):
        wrong = next(v for v in values if type(v) not in _NUMBERS)
        refuse(name, "must hold numbers only", wrong)


def as_float32(values: list) -> np.ndarray:
    wide = np.array(values, np.float64)
    check_finite_rows(wide)
    with np.errstate(over="ignore"):
        embeddings = wide.astype(np.float32)
    if not np.isfinite(embeddings).all():
        reject_file("embedding", "must hold numbers that float32 can hold", "a larger one")
    return embeddings


def check_finite_rows(embeddings: np.ndarray) -> None:
    if not np.isfinite(embeddings).all():
        reject_file("embedding", "must hold finite numbers", "NaN or infinity")


def integers_of(name: str, values: list, rows: int, form: Form) -> np.ndarray:
    """`num_samples` or `seed`: one number for all rows, or one for each."""
    minimum, maximum, kind = {
        "num_samples": (1, form.max_samples, np.int32),
        "seed": (0, _SEEDS - 1, np.int64),
    }[name]
    for one in values:
        if type(one) is not int or not minimum <= one <= maximum:
            refuse(name, f"must be an integer from {minimum} to {maximum}", one)
    if len(values) not in (1, rows):
        reject_file(name, "must be one number, or one per row", f"{len(values)} for {rows} rows")
    return np.broadcast_to(np.array(values, kind), (rows,))


def check_finite(outputs: Mapping[str, np.ndarray]) -> None:
    """Rejects an answer with a number that is not finite: its row has no answer."""
    for values in outputs.values():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0]
            came = "numbers with which it runs over"
            reject_file(f"embedding[{row}]", "must have a finite answer of the model", came)


def refuse(name: str, requirement: str, received: Any) -> NoReturn:
    """Rejects a hostile value, which is shown in part only."""
    shown = _PART.repr(received)
    reject_file(name, requirement, shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…")
