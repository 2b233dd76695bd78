"""Measures a run on a store, from file to folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmlp.data.examples import Examples
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.evaluation.grouping import groupings
from kerasmlp.runs.evaluation_folder import evaluation_folder
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import require_training
from kerasmlp.utils.checks import check_int, reject
from kerasmlp.utils.tensorflow_import import import_keras

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
    by: str | Sequence[str] = (),
    force: bool = False,
    progress: bool = False,
) -> dict:
    """Measures a run, and the mean of its MC dropout samples, on a store.

    Args:
        run_dir: Finished run.
        store: File with the label, of the same embedder.
        output: Folder to write; None is `evaluation-<store>` in the run.
        num_samples: Stochastic passes; 0, or a model without dropout or members, measures
            the deterministic model only.
        seed: Of the passes, and of what `by` draws.
        ood: Another store, which the model should be unsure about.
        classes: Age classes to measure in, where the model knows years; None
            takes the run's, or those of a store that holds groups.
        by: Columns of the store by whose values all is measured, too, with intervals of 95%:
            of text, whole numbers or ages; `race*gender` combines two.
        force: Replace the evaluation there.
        progress: Show a bar.

    Returns:
        The report, as in `report.json`: measures under `deterministic` and
        `mc_mean`, `groups`, `by` and `gaps` (see `by_columns`), and more; `output` is the
        folder. Of a run with several heads that of each is under its name in `heads`.

    Raises:
        InputError: if the run, a store or the folder cannot be used.
    """
    check_int("num_samples", num_samples, minimum=0)
    check_int("seed", seed, minimum=0)
    if ood is not None and not num_samples:
        reject("ood", "must come with num_samples above 0", str(ood))
    by = [by] if isinstance(by, str) else list(by)
    require_training(RunFolder(run_dir))
    output = Path(output or Path(run_dir) / f"evaluation-{Path(store).stem}")
    with evaluation_folder(output, force=force) as folder:
        paths = [Path(path) for path in (store, ood) if path is not None]
        stores = {path: EmbeddingStore.open(path, verify=True) for path in paths}
        groupings(stores[paths[0]], by)
        import_keras()  # what can be refused before is refused at once
        from kerasmlp.evaluation.report import write_evaluation, write_evaluations
        from kerasmlp.runs.mc_model import can_be_sampled

        heads = _heads_and_rows(run_dir, stores, classes)
        sampled = num_samples if can_be_sampled(heads[0][0].model) else 0
        how = {"num_samples": sampled, "seed": seed, "by": by, "progress": progress}
        how["others"] = {path.stem: stores[path] for path in paths[1:]}
        if len(heads) == 1:
            report = write_evaluation(folder, *heads[0], **how)
        else:
            report = write_evaluations(folder, heads, **how)
    return report | {"output": str(output)}


def _heads_and_rows(
    run_dir: str | os.PathLike, stores: Mapping[Path, EmbeddingStore], classes: str | None
) -> list[tuple[Predictor, Examples]]:
    """The heads of a run, and the rows of the first store in the classes that are measured."""
    from kerasmlp.evaluation.measuring import fitting_classes
    from kerasmlp.runs.predictor import Predictor

    predictors = Predictor.heads(run_dir)
    for path, opened in stores.items():
        predictors[0].check(path, opened.width, opened.info)
    rows, found = next(iter(stores.values())), []
    if classes is not None and not any(p.target.is_age for p in predictors):
        label = ", ".join(p.label for p in predictors)
        reject("classes", f"must be left out for a model of {label}", classes)
    for predictor in predictors:
        target = predictor.target
        if target.is_age:
            target = fitting_classes(target, rows, classes)
        found.append((predictor, Examples.of(rows, target)))
    return found
