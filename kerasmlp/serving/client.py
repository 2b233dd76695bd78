"""What the clients of a served model have in common: checked questions, answers as arrays."""

from __future__ import annotations

import abc
from collections.abc import Mapping

import numpy as np

from kerasmlp.checks import InputError, check_int, reject

_SEEDS = 1 << 63


class ServerError(InputError):
    """A server that cannot be reached, or that answers with an error.

    `code` is its HTTP status or the name of its gRPC status, None without an answer.
    """

    def __init__(self, sentence: str, code: int | str | None = None):
        super().__init__(sentence)
        self.code = code


class Client(abc.ABC):
    """Asks one served model.

    Embeddings are checked before they travel: the width is that of the
    served signature, which is asked for once.
    """

    def __init__(self):
        self._width: int | None = None

    def predict(self, embeddings: np.ndarray) -> dict[str, np.ndarray]:
        """Asks the deterministic model.

        Args:
            embeddings: `(rows, width)`, finite, one row or more.

        Returns:
            `probabilities` `(rows, classes)`, `label` (text) and, of ages,
            `age_years`: float32, one entry per row.

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
            `mutual_information_nats` and, of ages, `age_interval_90` `(rows, 2)`.

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
        return {
            name: {end: tuple(sorted(definition.get(end, {}))) for end in ("inputs", "outputs")}
            for name, definition in self._definitions().items()
            if not name.startswith("__")  # TensorFlow's own
        }

    @property
    def width(self) -> int:
        """Of the embeddings that the model takes."""
        if self._width is None:
            definition = self._definitions().get("serving_default", {})
            embedding = definition.get("inputs", {}).get("embedding")
            if embedding is None:
                raise ServerError(f"`{self}` must serve a model of export-model. Received: another")
            self._width = int(embedding["tensor_shape"]["dim"][1]["size"])
        return self._width

    def _checked(self, embeddings: np.ndarray) -> np.ndarray:
        embeddings = np.asarray(embeddings)
        shape, width = embeddings.shape, self.width
        if embeddings.dtype.kind not in "fiu" or len(shape) != 2 or not len(embeddings):
            came = f"{embeddings.dtype} of shape {shape}"
            reject("embeddings", f"must be numbers of shape (rows, {width})", came)
        if shape[1] != width:
            reject("embeddings", f"must be of width {width}", shape[1])
        with np.errstate(over="ignore"):
            embeddings = np.ascontiguousarray(embeddings, np.float32)
        unknown = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if len(unknown):
            came = f"NaN or infinity in row {unknown[0]}"
            reject("embeddings", "must be finite in float32", came)
        return embeddings

    @abc.abstractmethod
    def ready(self) -> bool:
        """Whether the model is available; False where no server answers."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends its connections."""

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @abc.abstractmethod
    def _definitions(self) -> Mapping:
        """Signature name to its definition, in the JSON form of `SignatureDef`."""

    @abc.abstractmethod
    def _ask(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answers by output name."""
