"""Members 1, 2, 4, 8, 16, one network distilled from eight, MC dropout and TabM, side by side.

    python tests/benchmarks/members.py STORE OTHER RUNS [--members 1 2 4 8 16] [--fold 0]
        [--tabm PYTHON] [--times]

STORE and OTHER are embedding stores of one embedder with `age_years` and `gender` in the first.
One of five folds that split no person is held out; each row of the table learns ages and gender
on one trunk from the others (TabM: a training per label), by the default recipe without `refit`,
into RUNS, where what is finished is not computed again. It is measured on the fold: accuracy,
NLL, ECE, the AUROC of the entropy for wrong answers, and of entropy and mutual information for
foreign rows: random unit vectors, those of OTHER, and the fold's own turned by a random rotation,
which is what another embedder of the same quality gives. `--tabm` is a Python that holds PyTorch
and `tabm`. `--times` trains nothing: it alternates epochs of each number of members, and answers
of 1,000 rows, on random rows, and prints medians. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from sklearn.metrics import roc_auc_score

from kerasmlp import EmbeddingStore, Predictor, choose_target, train
from kerasmlp.data.examples import VALIDATION_SHARE, Examples
from kerasmlp.data.other_targets import SeveralTargets
from kerasmlp.data.splits import grouped_folds, grouped_split
from kerasmlp.data.targets import choose_age_target
from kerasmlp.evaluation.measuring import measure
from kerasmlp.layers.members import members_apart
from kerasmlp.models.presets import PRESETS
from kerasmlp.runs.calibration import class_entropy_nats

PEER = Path(__file__).with_name("tabm_peer.py")
SAMPLES, FOREIGN = 64, ("random unit vectors", "other store", "rotated")
COLUMNS = ("accuracy", "nll", "mae_years", "ece", "wrong", *FOREIGN)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    return -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(-1)


def rows_to_ask(test: EmbeddingStore, other: EmbeddingStore) -> dict[str, np.ndarray]:
    rng, x = np.random.default_rng(0), np.asarray(test.embeddings, np.float32)
    strangers = rng.standard_normal(x.shape).astype(np.float32)
    strangers /= np.linalg.norm(strangers, axis=1, keepdims=True)
    rotation = np.linalg.qr(rng.standard_normal((x.shape[1],) * 2))[0].astype(np.float32)
    others = np.asarray(other.embeddings[rng.choice(len(other), len(x))], np.float32)
    return {"test": x} | dict(zip(FOREIGN, (strangers, others, x @ rotation), strict=True))


def measured(rows: Examples, of: dict[str, tuple[np.ndarray, np.ndarray | None]]) -> dict:
    """Figures of one answer: per kind of row, the mean and, of several answers, their entropy."""
    mean = of["test"][0]
    found = measure(rows, mean)
    result = {name: found[name] for name in COLUMNS[:4] if name in found}
    result["wrong"] = roc_auc_score(rows.wrong(mean), class_entropy_nats(rows.target, mean))
    for name in FOREIGN:
        foreign = np.repeat([0, 1], [len(mean), len(of[name][0])])
        scores = [np.concatenate([entropy(of[k][0]) for k in ("test", name)])]
        if of[name][1] is not None:
            within = np.concatenate([of[k][1] for k in ("test", name)])
            scores.append(scores[0] - within)
        result[name] = [roc_auc_score(foreign, score) for score in scores]
    return result


def of_members(run: Path, asked: dict) -> dict[str, dict]:
    """Answers of a run per head: mean over members, and the mean of their entropies."""
    answers = collections.defaultdict(dict)
    heads = Predictor.heads(run)
    model = heads[0].model
    several = heads[0].config["recipe"]["members"] > 1
    apart = members_apart(model, own_rows=False) if several else None
    for kind, x in asked.items():
        each = apart.predict(x, batch_size=1024, verbose=0) if apart is not None else None
        for head in heads:
            within = None
            if each is not None:
                of_head = each[head.label] if isinstance(each, dict) else each
                within = entropy(np.asarray(of_head)).mean(1)
            answers[head.name][kind] = head.probabilities(x), within
    return answers


def of_passes(run: Path, asked: dict) -> dict[str, dict]:
    answers = collections.defaultdict(dict)
    for head in Predictor.heads(run):
        for kind, x in asked.items():
            chunks = list(head.uncertainty(x, num_samples=SAMPLES))
            mean = np.concatenate([c["mean"] for c in chunks])
            mutual = np.concatenate([c["mutual_information_nats"] for c in chunks])
            answers[head.name][kind] = mean, entropy(mean) - mutual
    return answers


def of_tabm(python: Path, part: EmbeddingStore, target, asked: dict, folder: Path) -> dict:
    """TabM's answers for one label, trained on the rows that ours learns from."""
    folder.mkdir(parents=True, exist_ok=True)
    data, path = folder / f"{target.label}.npz", folder / f"{target.label}_answers.npz"
    if not path.is_file():
        rows = Examples.of(part, target)
        split = grouped_split(rows.groups("group"), VALIDATION_SHARE, 0)
        learning, kept = (rows.subset(each) for each in split)
        np.savez(
            data, x=learning.inputs, y=learning.targets, kept_x=kept.inputs, kept_y=kept.targets,
            **{f"test_{name}": x for name, x in asked.items()},
        )  # fmt: skip
        subprocess.run([python, PEER, data, path], check=True)
    found = np.load(path)
    each = {name: found[f"test_{name}"] for name in asked}
    of = {name: (p.mean(1), entropy(p).mean(1)) for name, p in each.items()}
    return of | {"seconds": float(found["seconds"]), "us_per_row": float(found["us_per_row"])}


def line(system: str, label: str, figures: dict) -> str:
    cells = []
    for name in COLUMNS:
        values = figures.get(name, "")
        values = values if isinstance(values, list) else [values]
        cells.append(" / ".join(f"{v:.4f}" if v != "" else "" for v in values))
    return f"| {system} | {label} | {' | '.join(cells)} |"


def seconds_to_answer(model, rounds: int = 5) -> float:
    """Median microseconds per row, of 1,000 rows at once."""
    x = np.random.default_rng(0).standard_normal((1000, model.input_shape[-1]), np.float32)
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        model.predict(x, batch_size=len(x), verbose=0)
        times.append(time.perf_counter() - started)
    return 1e6 * statistics.median(times[1:]) / len(x)


def show_times(members: list[int], rows: int = 13_662, rounds: int = 3) -> dict:
    """Seconds of an epoch and microseconds per answer, numbers of members alternating."""
    from kerasmlp.models.residual_mlp import ResidualMLP
    from kerasmlp.training.fit import answering, compile_by_recipe, course_by_recipe
    from kerasmlp.training.losses import recipe_loss

    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 512), np.float32)
    y = np.eye(101, dtype="float32")[rng.integers(0, 101, rows)]
    made, epochs, answers = {}, collections.defaultdict(list), {}
    for number in members:
        recipe = PRESETS["age"].replace(members=number, epochs=rounds + 1)
        model = ResidualMLP(num_classes=101, seed=0, **recipe.network(512))
        steps = recipe.steps(rows)
        loss = recipe_loss(recipe, ordered=True)
        model = compile_by_recipe(model, recipe, steps=steps, loss=loss)
        made[number] = model, course_by_recipe(x, y, recipe, steps=steps, seed=0, callbacks=[])
    for epoch in range(rounds + 1):
        for number, (model, course) in made.items():
            started = time.perf_counter()
            data, how = course.batches(range(epoch, epoch + 1)), {"verbose": 0, "shuffle": False}
            model.fit(data, steps_per_epoch=course.steps, **how)
            epochs[number].append(time.perf_counter() - started)
    for number, (model, _) in made.items():
        answers[number] = seconds_to_answer(answering(model))
    found = {n: {"epoch_s": statistics.median(t[1:]), "us": answers[n]} for n, t in epochs.items()}
    for number, one in found.items():
        print(f"| {number} | {one['epoch_s']:.2f} s an epoch | {one['us']:.1f} us a row |")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("runs", type=Path, nargs="?")
    parser.add_argument("--members", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--tabm", type=Path, help="a Python that holds PyTorch and tabm")
    parser.add_argument("--times", action="store_true")
    args = parser.parse_args()
    if args.times:
        print(json.dumps(show_times(args.members)))
        return
    store, other = EmbeddingStore.open(args.store), EmbeddingStore.open(args.other)
    fold = grouped_folds(store.labels["group"], 5, 0)[args.fold]
    part, test = store.subset(np.setdiff1d(np.arange(len(store)), fold)), store.subset(fold)
    target = SeveralTargets(
        (
            choose_age_target(store, "age_years", "adience", by_years=True),
            choose_target(store, "gender"),
        )
    )
    asked = rows_to_ask(test, other)
    rows = {head.name: Examples.of(test, head) for head in target.heads}
    tables = {}

    def add(system: str, answers: dict) -> None:
        tables[system] = {name: measured(rows[name], of) for name, of in answers.items()}
        for name, figures in tables[system].items():
            print(line(system, name, figures), flush=True)

    print(line("system", "label", {}))
    for number in args.members:
        run = args.runs / f"members{number}"
        how = {"resume": True, "pictures": False, "progress": True}
        train(part, target, PRESETS["age"].replace(members=number), run, **how)
        add(f"{number} members", of_members(run, asked))
        if number == 1:
            add(f"1, mean of {SAMPLES} passes", of_passes(run, asked))
    if args.tabm:
        found, how = {}, {}
        for head in target.heads:
            classes = (
                head
                if head.name == "gender"
                else choose_age_target(store, None, "adience", by_years=False)
            )
            answers = of_tabm(args.tabm, part, classes, asked, args.runs / "tabm")
            how[head.name] = {k: answers.pop(k) for k in ("seconds", "us_per_row")}
            found[head.name] = answers
        print(f"TabM: {how}")
        tables["TabM"] = how
        rows["age"] = Examples.of(test, choose_age_target(store, None, "adience", by_years=False))
        add("TabM, 32 members", found)
    print(json.dumps(tables))


if __name__ == "__main__":
    main()
