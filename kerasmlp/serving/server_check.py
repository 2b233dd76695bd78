"""A running server held against the same model here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kerasmlp.serving.client import Client
from kerasmlp.serving.served_version import ServedVersion

_ROUNDING = 1e-5
_MEASURES_ROUNDING = 5e-3  # an interval's end is found on the steps of a cumulative sum


def check_server(
    client: Client, version: ServedVersion, *, rows: int = 16, num_samples: int = 64
) -> dict[str, tuple[bool, str]]:
    """Asks both the same questions, about random unit vectors.

    Deterministic answers must have the same bits, which holds where the
    server runs the same build of TensorFlow on a processor of the same kind;
    a row that is asked alone may differ by rounding, as a product with one
    row is summed up in another order. Answers of MC dropout must agree to
    rounding for equal seeds, be the same twice, and differ for another seed.

    Args:
        client: Of the server.
        version: The same model, loaded here.
        rows: To ask about at once, 2 or more.
        num_samples: Of MC dropout.

    Returns:
        Check to whether it held, and what was seen.

    Raises:
        ServerError: if the server does not answer.
    """
    x = np.random.default_rng(0).standard_normal((rows, version.width), np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    here = {name: sorted(version.inputs_of(name)) for name in version.signatures}
    there = {name: sorted(ends["inputs"]) for name, ends in client.signatures().items()}
    checks = {"signatures": (here == there, ", ".join(sorted(there)))}
    local = version.run("serving_default", {"embedding": x})
    checks["deterministic, to the bit"] = _compared(client.predict(x), local, np.array_equal)
    checks["one row, to rounding"] = _compared(
        client.predict(x[:1]), {k: v[:1] for k, v in local.items()}, _close
    )
    if "serve_mc" not in version.signatures or "serve_mc" not in there:
        return checks
    answers = {}
    for seed in (0, 1, 2**40 + 3):
        numbers = {
            "num_samples": np.full(rows, num_samples, np.int32),
            "seed": np.full(rows, seed, np.int64),
        }
        local = version.run("serve_mc", {"embedding": x, **numbers})
        answers[seed] = client.predict_mc(x, num_samples=num_samples, seed=seed)
        checks[f"MC with seed {seed}, to rounding"] = _compared(answers[seed], local, _close)
    again = client.predict_mc(x, num_samples=num_samples, seed=0)
    checks["MC with one seed twice"] = _compared(again, answers[0], _close)
    apart = np.abs(answers[0]["probabilities"] - answers[1]["probabilities"]).max()
    checks["MC with another seed differs"] = (bool(apart > 1e-6), f"by up to {apart:.1e}")
    return checks


def _close(one: np.ndarray, other: np.ndarray, *, atol: float = _MEASURES_ROUNDING) -> bool:
    return one.shape == other.shape and np.allclose(one, other, atol=atol, rtol=1e-4)


def _compared(
    there: Mapping[str, np.ndarray],
    here: Mapping[str, np.ndarray],
    equal: Callable[[np.ndarray, np.ndarray], bool],
) -> tuple[bool, str]:
    """Whether all outputs agree, and by how much they differ at most."""
    if there.keys() != here.keys():
        return False, f"outputs {', '.join(sorted(there))}"
    worst, good = 0.0, True
    for name, values in here.items():
        if name == "label":
            texts = np.array([v.decode() if isinstance(v, bytes) else v for v in values.tolist()])
            good &= np.array_equal(there[name], texts)
            continue
        good &= bool(equal(there[name], values))
        if name == "probabilities" and there[name].shape == values.shape:
            worst = float(np.abs(there[name] - values).max())
            good &= worst <= _ROUNDING
    return good, f"probabilities differ by up to {worst:.1e}"
