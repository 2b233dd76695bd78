"""A running server held against the same model here."""

from collections.abc import Mapping, Sequence

import numpy as np

from kerasmlp.serving.clients.client import Client
from kerasmlp.serving.server.served_version import ServedVersion

_ROWS = 16
_ROUNDING = 1e-4
_ROUNDINGS = {
    "probabilities": 1e-6,
    "age_interval_90": 1e-2,  # its ends are found on the steps of a cumulative sum
}
_OF_STD, _OF_NUMBER = 1e-3, 1e-6  # numbers may have any unit


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
    heads = _heads(version)
    local = version.run("serving_default", {"embedding": x})
    checks["deterministic, to the bit"] = _compared(client.predict(x), local, heads, exact=True)
    checks["one row, to rounding"] = _compared(
        client.predict(x[:1]), {k: v[:1] for k, v in local.items()}, heads
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
        checks[f"MC of seed {seed}, to rounding"] = _compared(answers[seed], local, heads)
    again = client.predict_mc(x, num_samples=num_samples, seed=0)
    checks["MC of one seed, asked twice"] = _compared(again, answers[0], heads)
    apart = _apart(answers[0], answers[1], heads)
    different = bool(apart) and all(by > 0 for by in apart.values())
    checks["MC of two seeds, different"] = different, _said(apart, "by up to")
    return checks


def _heads(version: ServedVersion) -> list[Mapping[str, str]]:
    """Of each head, from the name of an output of a single one to its name here."""
    if several := version.description.get("heads"):
        return [head["outputs"] for head in several.values()]
    return [{k: k for one in version.signature_definitions.values() for k in one["outputs"]}]


def _compared(
    there: Mapping[str, np.ndarray],
    here: Mapping[str, np.ndarray],
    heads: Sequence[Mapping[str, str]],
    *,
    exact: bool = False,
) -> tuple[bool, str]:
    """Whether all outputs agree, and by how much the probabilities or numbers differ."""
    if {k: v.shape for k, v in there.items()} != {k: v.shape for k, v in here.items()}:
        return False, f"outputs {', '.join(sorted(there))} of other names or shapes"
    good = True
    plain = {given: name for head in heads for name, given in head.items()}
    stds = {given: here[head["std"]] for head in heads if "std" in head for given in head.values()}
    for name, values in here.items():
        if values.dtype.kind in "OSU":
            texts = [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]
            good &= there[name].tolist() == texts
        elif exact:
            good &= np.array_equal(there[name], values)
        elif name in stds:
            std = stds[name].reshape(-1, *[1] * (values.ndim - 1))
            most = _OF_STD * std + _OF_NUMBER * np.abs(values)
            good &= bool((np.abs(there[name] - values) <= most).all())
        else:
            atol = _ROUNDINGS.get(plain.get(name, name), _ROUNDING)
            good &= np.allclose(there[name], values, atol=atol, rtol=1e-4)
    return bool(good), _said(_apart(there, here, heads), "differ by up to")


def _apart(
    there: Mapping[str, np.ndarray],
    here: Mapping[str, np.ndarray],
    heads: Sequence[Mapping[str, str]],
) -> dict[str, float]:
    """By how much the probabilities, or the numbers, of each head differ."""
    main = [head.get("probabilities", head.get("number")) for head in heads]
    return {k: float(np.abs(there[k] - here[k]).max()) for k in main if k in there and k in here}


def _said(apart: Mapping[str, float], how: str) -> str:
    return ", ".join(f"{name} {how} {by:.1e}" for name, by in apart.items())
