"""A running server held against the same model here."""

from collections.abc import Mapping

import numpy as np

from kerasmlp.serving.clients.client import Client
from kerasmlp.serving.server.served_version import ServedVersion

_ROWS = 16
_ROUNDING = 1e-4
_ROUNDINGS = {
    "probabilities": 1e-6,
    "age_interval_90": 1e-2,  # its ends are found on the steps of a cumulative sum
}


def check_server(
    client: Client, version: ServedVersion, num_samples: int
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
        num_samples: Of MC dropout.

    Returns:
        Check to whether it held, and what was seen.

    Raises:
        ServerError: if the server does not answer.
    """
    x = np.random.default_rng(0).standard_normal((_ROWS, version.width), np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    here = {name: sorted(inputs) for name, inputs in version.signatures.items()}
    there = {name: sorted(ends["inputs"]) for name, ends in client.signatures().items()}
    checks = {"signatures": (here == there, ", ".join(sorted(there)))}
    local = version.run("serving_default", {"embedding": x})
    checks["deterministic, to the bit"] = _compared(client.predict(x), local, exact=True)
    checks["one row, to rounding"] = _compared(
        client.predict(x[:1]), {k: v[:1] for k, v in local.items()}
    )
    if "serve_mc" not in version.signatures or "serve_mc" not in there:
        return checks
    answers = {}
    for seed in (0, 1, 2**33):
        numbers = {
            "num_samples": np.full(_ROWS, num_samples, np.int32),
            "seed": np.full(_ROWS, seed, np.int64),
        }
        local = version.run("serve_mc", {"embedding": x, **numbers})
        answers[seed] = client.predict_mc(x, num_samples=num_samples, seed=seed)
        checks[f"MC of seed {seed}, to rounding"] = _compared(answers[seed], local)
    again = client.predict_mc(x, num_samples=num_samples, seed=0)
    checks["MC of one seed, asked twice"] = _compared(again, answers[0])
    apart = np.abs(answers[0]["probabilities"] - answers[1]["probabilities"]).max()
    checks["MC of two seeds, different"] = (bool(apart > 0), f"probabilities by up to {apart:.1e}")
    return checks


def _compared(
    there: Mapping[str, np.ndarray], here: Mapping[str, np.ndarray], *, exact: bool = False
) -> tuple[bool, str]:
    """Whether all outputs agree, and by how much the probabilities differ."""
    if {k: v.shape for k, v in there.items()} != {k: v.shape for k, v in here.items()}:
        return False, f"outputs {', '.join(sorted(there))} of other names or shapes"
    good = True
    for name, values in here.items():
        if name == "label":
            texts = [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]
            good &= there[name].tolist() == texts
        elif exact:
            good &= np.array_equal(there[name], values)
        else:
            atol = _ROUNDINGS.get(name, _ROUNDING)
            good &= np.allclose(there[name], values, atol=atol, rtol=1e-4)
    worst = np.abs(there["probabilities"] - here["probabilities"]).max()
    return bool(good), f"probabilities differ by up to {worst:.1e}"
