"""Options that say which model embeddings come from."""

import argparse

from kerasmlp.utils.checks import reject


def add_origin_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--embedder", metavar="NAME", help="name of the embedding model")
    group.add_argument("--embedder-sha256", metavar="HASH", help="of its file")
    group.add_argument("--model-dir", metavar="DIR", help="insightface models: both from there")


def origin_of(args: argparse.Namespace) -> dict[str, str]:
    """The fields of `StoreInfo` that the options say."""
    import re

    keys = ("embedder", "embedder_sha256")
    origin = {k: getattr(args, k) for k in keys if getattr(args, k) is not None}
    if args.model_dir is not None:
        from kerasmlp.faces.models import find_models

        models = find_models(args.model_dir)
        of_models = {"embedder": models.embedder.name, "embedder_sha256": models.embedder_sha256}
        origin = of_models | origin
    digest = origin.get("embedder_sha256")
    if digest is not None and not re.fullmatch("[0-9a-f]{64}", digest):
        reject("--embedder-sha256", "must be 64 lower-case hexadecimal digits", digest)
    return origin
