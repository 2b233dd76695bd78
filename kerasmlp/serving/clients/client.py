"""What the clients of a served model have in common: checked questions, answers as arrays."""

import abc
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kerasmlp.utils.checks import InputError, check_int, check_optional_int, check_positive, reject

_SEEDS = 1 << 63
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


class ServerError(InputError):
    """A server that cannot be reached, or that answers with an error.

    `code` is its HTTP status or the name of its gRPC status, None without an answer.
    """

    def __init__(self, sentence: str, code: int | str | None = None, wanted_s: str | None = None):
        super().__init__(sentence)
        self.code, self.wanted_s = code, wanted_s


class PassingError(ServerError):
    """One that a later try may not meet, after `wanted_s` if the server says so."""


def pause_s(tried: int, wanted_s: str | None = None) -> float:
    """Until the next try: twice as long each time, or as the server wants, but not for long.

    Example:

    >>> pause_s(0), pause_s(1), pause_s(9), pause_s(0, "2"), pause_s(0, "86400")
    (0.1, 0.2, 5.0, 2.0, 5.0)
    """
    wanted = wanted_s or ""
    known = wanted.isascii() and wanted.isdecimal() and len(wanted) < 9
    return float(min(int(wanted) if known else _FIRST_PAUSE_S * 2**tried, _LONGEST_PAUSE_S))


class Client(contextlib.AbstractContextManager):
    """Asks one served model.

    Embeddings are checked before they travel: the width is that of the
    served signature, which is asked for once. What was not answered in time is
    not asked again: the server may still be computing it.
    """

    def __init__(self, *, version: int | None = None, timeout_s: float = 30.0, retries: int = 3):
        self._version = check_optional_int("version", version, minimum=0)
        self._timeout_s = check_positive("timeout_s", timeout_s)
        self._retries = check_int("retries", retries, minimum=0)
        self._width: int | None = None
        self._outputs: dict[str, dict[str, bool]] = {}
        """Of each signature, and whether they are texts."""

    def predict(self, embeddings: np.ndarray) -> dict[str, np.ndarray]:
        """Asks the deterministic model.

        Args:
            embeddings: `(rows, width)`, finite, one row or more.

        Returns:
            `probabilities` `(rows, classes)`, `label` (text) and, of ages,
            `age_years`: float32, one entry per row. Of a number `number`, `std` and
            `interval_90` `(rows, 2)`. Of several heads each has these under names of its
            own, such as `gender`, `gender_probabilities`, `age_years`, `bmi` and `bmi_std`;
            `assets/model.json` of the export lists them.

        Raises:
            InputError: if the embeddings are none for this model.
            ServerError: if there is no answer.
        """
        return self._ask("serving_default", {"embedding": self._checked(embeddings)})

    def predict_mc(
        self, embeddings: np.ndarray, *, num_samples: int = 64, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Asks the mean of MC dropout; the same seed gives the same answer.

        Args:
            embeddings: `(rows, width)`, finite, one row or more.
            num_samples: Stochastic passes.
            seed: Of the passes, in [0, 2^63); rows share their masks.

        Returns:
            As `predict`, and `predictive_entropy_nats`,
            `mutual_information_nats` and, of ages, `age_interval_90` `(rows, 2)`; of a
            number `aleatoric_std` and `epistemic_std`.

        Raises:
            InputError: if an argument is out of range.
            ServerError: if there is no answer.
        """
        check_int("num_samples", num_samples, minimum=1)
        if check_int("seed", seed, minimum=0) >= _SEEDS:
            reject("seed", f"must be below {_SEEDS}", seed)
        embeddings = self._checked(embeddings)
        rows = len(embeddings)
        # One number per row, not one for all: a server that batches takes no scalars.
        numbers = {
            "num_samples": np.full(rows, num_samples, np.int32),
            "seed": np.full(rows, seed, np.int64),
        }
        return self._ask("serve_mc", {"embedding": embeddings, **numbers})

    def signatures(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Names of the `inputs` and the `outputs` of every signature, sorted."""
        definitions = self._definitions()
        with self._understanding():
            return {
                name: {end: tuple(sorted(definition.get(end, {}))) for end in ("inputs", "outputs")}
                for name, definition in definitions.items()
                if not name.startswith("__")  # TensorFlow's own
            }

    @property
    def width(self) -> int:
        """Of the embeddings that the model takes."""
        if self._width is None:
            definitions = self._definitions()
            with self._understanding():
                definition = definitions.get("serving_default", {})
                embedding = definition.get("inputs", {}).get("embedding")
                self._outputs = {
                    name: {
                        k: v.get("dtype") == "DT_STRING" for k, v in one.get("outputs", {}).items()
                    }
                    for name, one in definitions.items()
                }
                if embedding is not None:
                    self._width = int(embedding["tensor_shape"]["dim"][1]["size"])
        if self._width is None:
            raise ServerError(f"`{self}` must serve a model of export-model. Received: another")
        return self._width

    def _checked(self, embeddings: np.ndarray) -> np.ndarray:
        embeddings = np.asarray(embeddings)
        shape, width = embeddings.shape, self.width
        if embeddings.dtype.kind not in "fiu" or len(shape) != 2 or not len(embeddings):
            came = f"{embeddings.dtype} of shape {shape}"
            reject("embeddings", f"must be numbers of shape (rows, {width}), one row or more", came)
        if shape[1] != width:
            reject("embeddings", f"must be of width {width}", shape[1])
        with np.errstate(over="ignore"):
            embeddings = np.ascontiguousarray(embeddings, np.float32)
        unknown = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if len(unknown):
            came = f"NaN or infinity in row {unknown[0]}"
            reject("embeddings", "must be finite in float32", came)
        return embeddings

    def _tried(self, once: Callable[..., Any], *args: Any) -> Any:
        """What one try brings, or a later one."""
        for tried in range(self._retries):
            try:
                return once(*args)
            except PassingError as error:
                time.sleep(pause_s(tried, error.wanted_s))
        return once(*args)

    @contextlib.contextmanager
    def _understanding(self):
        """Around whatever is made of an answer: a strange one is a `ServerError`."""
        try:
            yield
        except Exception as error:
            raise self._strange(f"other contents ({type(error).__name__})") from None

    def _strange(self, came: str) -> ServerError:
        return ServerError(f"`{self}` must answer as TensorFlow Serving does. Received: {came}")

    def _complete(
        self, signature: str, answers: dict[str, np.ndarray], rows: int
    ) -> dict[str, np.ndarray]:
        """The answers, if they are all that the signature gives, some to each row."""
        expected = self._outputs.get(signature)
        if not expected or not expected.keys() <= answers.keys():
            raise self._strange("other outputs")
        if any(v.shape[:1] != (rows,) for v in answers.values()):
            raise self._strange("other outputs")
        blank = {
            name: values == ""
            if values.dtype.kind == "U"
            else ~np.isfinite(values.reshape(rows, -1)).all(axis=1)
            for name, values in answers.items()
        }
        known = ~np.all(list(blank.values()), axis=0)
        for name, rows_without in blank.items():
            if answers[name].dtype.kind == "f" and (rows_without & known).any():
                raise self._strange(f"answers beside {name} that is not finite")
        return answers

    @abc.abstractmethod
    def ready(self) -> bool:
        """Whether the model is available; False where no server answers."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends its connections."""

    def __exit__(self, *_) -> None:
        self.close()

    @abc.abstractmethod
    def _definitions(self) -> Mapping:
        """Signature name to its definition, in the JSON form of `SignatureDef`."""

    @abc.abstractmethod
    def _ask(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answers by output name."""
