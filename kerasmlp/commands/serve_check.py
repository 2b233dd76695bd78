"""Compares a running server, of `serve` or of TensorFlow Serving, with the same model here.

URL is that of the model: `http://HOST:8501/v1/models/NAME[/versions/N]`, or
`grpc://HOST:8500/NAME`. MODEL is the folder of versions that is served (its
latest, or the one that the URL names), or its run. Deterministic answers must
be equal to the bit, those of MC dropout equal to rounding for equal seeds.
Exit code 2 where they are not.
"""

import argparse
import re
from pathlib import Path

from kerasmlp.utils.checks import check_int, reject, reject_file
from kerasmlp.utils.tensorflow_import import import_tensorflow

_REST = re.compile(r"(https?://[^/]+(?:/.+)?)/v1/models/([^/:]+)(?:/versions/(\d+))?/?")
_GRPC = re.compile(r"grpc://([^/]+:\d+)/([^/:]+)/?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL")
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--num-samples", type=int, default=64, help="default: 64")
    parser.add_argument(
        "--timeout-s", type=float, default=30.0, metavar="SECONDS", help="of one try (default: 30)"
    )
    parser.add_argument("--trust", action="store_true", help="run whatever MODEL holds")


def run(args: argparse.Namespace) -> None:
    rest, grpc = _REST.fullmatch(args.url), _GRPC.fullmatch(args.url)
    if not (rest or grpc):
        reject("url", "must be http://HOST:PORT/v1/models/NAME or grpc://HOST:PORT/NAME", args.url)
    check_int("num_samples", args.num_samples, minimum=1)
    import_tensorflow()
    from kerasmlp.serving.clients.grpc_client import GrpcClient
    from kerasmlp.serving.clients.rest_client import RestClient
    from kerasmlp.serving.clients.server_check import check_server
    from kerasmlp.serving.server.served_models import load_models
    from kerasmlp.serving.server.served_version import ServedVersion

    number = int(rest[3]) if rest and rest[3] else None
    if rest:
        client = RestClient(rest[1], rest[2], version=number, timeout_s=args.timeout_s)
    else:
        client = GrpcClient(grpc[1], grpc[2], timeout_s=args.timeout_s)
    with client:
        client.width  # noqa: B018  an absent server is found before the model is loaded
        if number is not None and (args.model / str(number)).is_dir():
            version = ServedVersion(args.model / str(number), trust=args.trust)
        else:
            (model,) = load_models([args.model], trust=args.trust).values()
            is_run = (args.model / "config.json").exists()  # of whichever version it became
            wanted = max(model.versions) if number is None or is_run else number
            if wanted not in model.versions:
                held = ", ".join(map(str, sorted(model.versions)))
                reject_file(args.model, f"must hold version {wanted}", f"version {held}")
            version = model.versions[wanted]
        if 0 < version.max_samples < args.num_samples:
            requirement = f"must be at most {version.max_samples}, as the model takes"
            reject("num_samples", requirement, args.num_samples)
        checks = check_server(client, version, num_samples=args.num_samples)
    for name, (good, seen) in checks.items():
        print(f"{'equal' if good else 'NOT EQUAL':12} {name:36} {seen}")
    wrong = [name for name, (good, _) in checks.items() if not good]
    if wrong:
        reject_file(args.url, "must answer as the model here", f"other answers: {'; '.join(wrong)}")
