"""Measures a run on a store, from file to folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmlp.data.examples import Examples
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.runs.evaluation_folder import evaluation_folder
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import require_training
from kerasmlp.utils.checks import check_int, reject
from kerasmlp.utils.tensorflow_import import import_tensorflow

if TYPE_CHECKING:
    from kerasmlp.runs.predictor import Predictor


def evaluate(
    run_dir: str | os.PathLike,
    store: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    num_samples: int = 64,
    seed: int = 0,
    ood: str | os.PathLike | None = None,
    classes: str | None = None,
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Measures a run, and the mean of its MC dropout samples, on a store.

    Args:
        run_dir: Finished run.
        store: File with the label, of the same embedder.
        output: Folder to write; None is `evaluation-<store>` in the run.
        num_samples: Stochastic passes; 0, or a model without dropout, measures
            the deterministic model only.
        seed: Of the passes.
        ood: Another store, which the model should be unsure about.
        classes: Age classes to measure in, where the model knows years; None
            takes the run's, or those of a store that holds groups.
        force: Replace the evaluation there.
        progress: Show a bar.

    Returns:
        The report, as in `report.json`: measures under `deterministic` and
        `mc_mean`, `groups`, and more (see `write_evaluation`); `output` is the folder.

    Raises:
        InputError: if the run, a store or the folder cannot be used.
    """
    check_int("num_samples", num_samples, minimum=0)
    check_int("seed", seed, minimum=0)
    if ood is not None and not num_samples:
        reject("ood", "must come with num_samples above 0", str(ood))
    require_training(RunFolder(run_dir))
    output = Path(output or Path(run_dir) / f"evaluation-{Path(store).stem}")
    with evaluation_folder(output, force=force) as folder:
        paths = [Path(path) for path in (store, ood) if path is not None]
        stores = {path: EmbeddingStore.open(path, verify=True) for path in paths}
        import_tensorflow()  # what can be refused before is refused at once
        from kerasmlp.evaluation.report import write_evaluation
        from kerasmlp.runs.mc_model import has_dropout

        predictor, rows = _predictor_and_rows(run_dir, stores, classes)
        report = write_evaluation(
            folder,
            predictor,
            rows,
            num_samples=num_samples if has_dropout(predictor.model) else 0,
            seed=seed,
            others={path.stem: stores[path] for path in paths[1:]},
            progress=progress,
        )
    return report | {"output": str(output)}


def _predictor_and_rows(
    run_dir: str | os.PathLike, stores: Mapping[Path, EmbeddingStore], classes: str | None
) -> tuple[Predictor, Examples]:
    """The run, and the rows of the first store in the classes that are measured."""
    from kerasmlp.evaluation.measuring import fitting_classes
    from kerasmlp.runs.predictor import Predictor

    predictor = Predictor(run_dir)
    for path, opened in stores.items():
        predictor.check(path, opened.width, opened.info)
    target, rows = predictor.target, next(iter(stores.values()))
    if classes is not None and not target.is_age:
        reject("classes", f"must be left out for a model of {target.label}", classes)
    return predictor, Examples.of(rows, fitting_classes(target, rows, classes))
