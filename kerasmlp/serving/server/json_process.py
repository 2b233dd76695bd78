"""Decodes large bodies in a process of its own: in this one nobody else would be answered."""

import os
import subprocess
import sys
import threading
from typing import BinaryIO

import numpy as np
import orjson

from kerasmlp.serving.server.grpc_tensors import MessageForm, decode_message
from kerasmlp.serving.server.open_inference import InferForm, decode_infer
from kerasmlp.serving.server.questions import Form, Question
from kerasmlp.serving.server.rest_json import decode
from kerasmlp.utils.checks import InputError
from kerasmlp.utils.processes import start_worker

_NICE = 10  # small requests go first
_DECODERS = {Form: decode, InferForm: decode_infer, MessageForm: decode_message}


class _Ended(OSError):
    """The other side of a pipe is gone."""


def decode_by_form(body: bytes, form: Form) -> Question:
    """Reads a body in the dialect of its form.

    Raises:
        InputError: if it cannot be understood.
    """
    return _DECODERS[type(form)](body, form)


class JsonProcess:
    """Starts the process with the first body, and anew if it is gone.

    Example:

    >>> process = JsonProcess()
    >>> form = Form({"serving_default": ("embedding",)}, width=2, max_rows=1, max_samples=0)
    >>> process.decode(b'{"inputs": [[1, 2.5]]}', form).inputs["embedding"].tolist()
    [[1.0, 2.5]]
    >>> process.stop()
    """

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._one_at_a_time = threading.Lock()

    def decode(self, body: bytes, form: Form) -> Question:
        """As `decode_by_form`.

        Raises:
            InputError: as there.
            OSError: if the process ended, which is for want of memory.
        """
        with self._one_at_a_time:
            if self._process is None:
                self._process = start_worker(
                    __name__, stdout=subprocess.PIPE, env={"PYTHONSAFEPATH": "1"}
                )
            try:
                head = {"dialect": type(form).__name__, "form": vars(form), "bytes": len(body)}
                _write(self._process.stdin, head, body)
                answer, arrays = _read(self._process.stdout)
            except OSError:
                self._end()
                raise
        if "error" in answer:
            raise InputError(answer["error"])
        inputs, first = {}, 0
        for name, kind, shape in answer["arrays"]:
            values = np.frombuffer(arrays, kind, int(np.prod(shape)), first)
            inputs[name], first = values.reshape(shape), first + values.nbytes
        return Question(answer["signature"], inputs, answer["wanted"])

    def stop(self) -> None:
        with self._one_at_a_time:
            if self._process is not None:
                self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._process = None


def _write(pipe: BinaryIO, head: dict, *bodies: bytes | memoryview) -> None:
    pipe.write(orjson.dumps(head) + b"\n")
    for body in bodies:
        pipe.write(body)
    pipe.flush()


def _read(pipe: BinaryIO) -> tuple[dict, bytes]:
    """A head and what follows it, as many bytes as it says."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise _Ended
    head = orjson.loads(line)
    body = pipe.read(head.get("bytes", 0))
    if len(body) < head.get("bytes", 0):
        raise _Ended
    return head, body


def _answer(asked: dict, body: bytes) -> tuple[dict, list[memoryview]]:
    try:
        form = next(form for form in _DECODERS if form.__name__ == asked["dialect"])
        question = decode_by_form(body, form(**asked["form"]))
    except InputError as error:
        return {"error": str(error)}, []
    arrays = {name: np.ascontiguousarray(values) for name, values in question.inputs.items()}
    answer = {"signature": question.signature, "wanted": question.wanted}
    answer["arrays"] = [[k, v.dtype.str, v.shape] for k, v in arrays.items()]
    answer["bytes"] = sum(values.nbytes for values in arrays.values())
    return answer, [values.data.cast("B") for values in arrays.values()]


def main() -> None:
    """Answers bodies until there are none."""
    os.nice(_NICE)
    while True:
        try:
            head, arrays = _answer(*_read(sys.stdin.buffer))
        except _Ended:
            return
        _write(sys.stdout.buffer, head, *arrays)


if __name__ == "__main__":
    main()
