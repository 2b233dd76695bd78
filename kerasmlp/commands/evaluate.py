"""Measures the deterministic model of a run on a store; ends with one line of JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

USES_TENSORFLOW = True


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
    from kerasmlp.evaluation import groups_table, measure, measure_groups, with_classes
    from kerasmlp.prediction import Predictor
    from kerasmlp.stores.embedding_store import EmbeddingStore

    predictor = Predictor(args.run)
    store = EmbeddingStore.open(args.store)
    predictor.check(args.store, store.width, store.info)
    target = predictor.target
    if args.classes:
        if not target.is_age:
            reject("classes", f"must be left out for a model of {target.label}", args.classes)
        target = with_classes(target, args.classes)
    probabilities = predictor.probabilities(store.embeddings)
    print(groups_table(measure_groups(target, probabilities, store)))
    print(json.dumps(measure(target, probabilities, store)))
