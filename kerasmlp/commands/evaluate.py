"""Measures the deterministic model of a run on a store; ends with one line of JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder of a training command")
    parser.add_argument("store", type=Path, help="embedding store with the label")
    parser.add_argument(
        "--classes",
        metavar="C",
        help="age classes to measure in, where the model knows years (default: the run's)",
    )


def run(args: argparse.Namespace) -> None:
    from kerasmlp.checks import reject
    from kerasmlp.quiet import import_tensorflow
    from kerasmlp.runs import RunFolder
    from kerasmlp.stores.embedding_store import EmbeddingStore

    RunFolder(args.run).require_done()
    store = EmbeddingStore.open(args.store)
    import_tensorflow()
    from kerasmlp.evaluation import fitting_classes, groups_table, measure, measure_groups
    from kerasmlp.prediction import Predictor

    predictor = Predictor(args.run)
    predictor.check(args.store, store.width, store.info)
    target = predictor.target
    if args.classes is not None and not target.is_age:
        reject("--classes", f"must be left out for a model of {target.label}", args.classes)
    target = fitting_classes(target, store, args.classes)
    if target.classes != predictor.target.classes:
        print(f"measured in classes: {target.classes}")
    probabilities = predictor.probabilities(store.embeddings)
    print(groups_table(measure_groups(target, probabilities, store)))
    print(json.dumps(measure(target, probabilities, store)))
