"""Serves exported models over HTTP, as TensorFlow Serving does over its REST port.

MODEL is a folder of versions as of export-model, a run, or a `models.config`
of several models with paths of this machine. A version that appears in a folder
is taken up without a new start. Ask `POST /v1/models/NAME:predict`, or in the
Open Inference Protocol `POST /v2/models/NAME/infer`, with --grpc-port its gRPC
service; with --model-dir or --embedder also `POST /v1/models/NAME:embed` about a
photo; see `/openapi.json`, `/readyz` and `/metrics`. There is no encryption and
no log-in: for other machines, put a proxy before it. While it listens on this
machine only, or with --allow-host, HTTP requests under other names are refused.
SIGTERM stops it once everything that it took is answered.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import importlib.util
import sys
from pathlib import Path

from kerasmlp.commands.face_options import add_face_arguments, finder_of, limit_pixels, takes_photos
from kerasmlp.commands.number_options import add_number
from kerasmlp.utils.checks import check_positive, reject
from kerasmlp.utils.tensorflow_import import import_tensorflow

_LIBRARIES = ("aiohttp", "orjson", "prometheus_client")
_ARENAS = -8  # M_ARENA_MAX of malloc.h


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    add_address_arguments(parser, 8501, "NAME")
    text = "a port for gRPC too, such as TensorFlow Serving's 8500; 0: a free one (default: none)"
    parser.add_argument("--grpc-port", type=int, help=text)
    for flag, text in (
        ("--max-body-bytes", "of one request (default: 16 MiB)"),
        ("--max-rows", "of one request (default: 1024)"),
        ("--max-samples", "MC passes per row (default: 4096)"),
        ("--max-passes", "rows times MC passes of one request (default: 262144)"),
        ("--max-requests", "at one time; more get 503 (default: 256)"),
        ("--max-connections", "at one time, to each port (default: 1024)"),
        ("--max-batch-rows", "of requests computed together; 0: each alone (default: 256)"),
    ):
        add_number(parser, flag, int, text)
    text = "of one request (default: 30)"
    add_number(parser, "--timeout-s", float, text, metavar="SECONDS")
    text = "between two looks for new versions; 0: never (default: 2)"
    add_number(parser, "--poll-s", float, text, default=2.0, metavar="SECONDS")
    parser.add_argument("--trust", action="store_true", help="run whatever a MODEL holds")
    add_face_arguments(parser, "insightface's .onnx models, for photos (:embed)")


def add_address_arguments(parser: argparse.ArgumentParser, port: int, name: str) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar=name,
        help="a further name by which it is called, as that of a proxy",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=port, help=f"default: {port}; 0: a free one")


def run(args: argparse.Namespace) -> None:
    _require_libraries(grpc=args.grpc_port is not None)
    import asyncio

    from kerasmlp.serving.server.limits import Limits

    _keep_little_memory()
    names = {field.name for field in dataclasses.fields(Limits)}
    check_positive("poll_s", args.poll_s, zero=True)
    photos = takes_photos(args)
    limits = Limits(**{k: v for k, v in vars(args).items() if k in names and v is not None})
    import_tensorflow()
    from kerasmlp.serving.server.http_server import serve
    from kerasmlp.serving.server.served_models import load_models
    from kerasmlp.serving.server.version_watcher import VersionWatcher

    models = load_models(args.models, trust=args.trust)
    base = ""

    def place(name: str, number: int) -> str:
        return f"{base}/v1/models/{name}/versions/{number}"

    for name, number in [(k, n) for k, m in models.items() for n in sorted(m.versions)]:
        if models[name].versions[number].watch is None:
            why = "of an older version, or of few rows kept back"
            told = f"{name}/versions/{number} holds no reference ({why})"
            print(f"note: {told}: whether rows have moved is not watched", file=sys.stderr)

    def started(url: str, grpc_address: str | None) -> None:
        nonlocal base
        base = url
        for name, model in models.items():
            for number in sorted(model.versions):
                print(place(name, number))
        if grpc_address is not None:
            print(f"gRPC         {grpc_address}")
        print(f"ready        {url}", flush=True)

    def changed(name: str, number: int, is_served: bool) -> None:
        with contextlib.suppress(OSError):  # nobody need read it
            print(f"{'taken up' if is_served else 'released':12} {place(name, number)}", flush=True)

    how = {"limits": limits, "allowed_hosts": args.allow_host, "started": started}
    if args.poll_s:
        watcher = VersionWatcher(models, args.models, trust=args.trust, changed=changed)
        how |= {"watcher": watcher, "poll_s": args.poll_s}
    with contextlib.ExitStack() as stack:
        if photos:
            from kerasmlp.serving.server.photo_paths import open_photos

            limit_pixels()
            finder = {"model_dir": args.model_dir, **finder_of(args)}
            how["photos"] = open_photos(models, limits.timeout_s, **finder)
            stack.callback(how["photos"].stop)
        address = {"host": args.host, "port": args.port, "grpc_port": args.grpc_port}
        asyncio.run(serve(models, **address, **how))
    print("stopped")


def _require_libraries(*, grpc: bool) -> None:
    for name in _LIBRARIES:
        if not importlib.util.find_spec(name):
            reject(name, "must be installed to serve (extra `serve`)", None)
    if grpc and not importlib.util.find_spec("grpc"):
        reject("grpcio", "must be installed for --grpc-port: pip install kerasmlp[grpc]", None)


def _keep_little_memory() -> None:
    """Else glibc keeps what was freed eight times per core, for each group of threads anew."""
    with contextlib.suppress(OSError, AttributeError):  # another libc has no such setting
        ctypes.CDLL(None).mallopt(_ARENAS, 2)
