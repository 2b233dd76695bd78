"""What intervals and sets of classes hold in every group of people, beside MAPIE and crepes.

    python tests/benchmarks/conformal.py STORE CV [--num-samples 64]

CV is a cross-validation of STORE with several heads, ages in years among them:

    python bin/cross-validate --store STORE --label age_years gender race --seeds 1 --run-dir CV

Nothing is trained: the limits are fitted anew on the rows that each run kept back, of all rows,
by predicted class and by race and gender, and measured on the fold that it was tested on; rows
of all folds are counted together. Printed are the coverage and mean width of 90% intervals in
each group, and coverage and mean size of sets; MAPIE's of the same answers beside them, and by
how much the ends of intervals (MAPIE, symmetric conformalized quantiles) and the sets (crepes, by
groups) differ where the method is the same. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from crepes import ConformalClassifier
from mapie.classification import SplitConformalClassifier
from mapie.regression import ConformalizedQuantileRegressor
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from kerasmlp import EmbeddingStore, Predictor
from kerasmlp.data.examples import Examples
from kerasmlp.data.labels import NUM_YEARS
from kerasmlp.data.value_names import value_names
from kerasmlp.experiments.cross_validation.plan import CrossValidationPlan, plan_runs
from kerasmlp.runs.calibration import age_intervals
from kerasmlp.runs.conformal_groups import SET, group_names
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.calibrating import fit_calibration
from kerasmlp.training.rows import Rows
from kerasmlp.uncertainty.measures import age_interval_years
from kerasmlp.uncertainty.prediction_sets import prediction_sets, set_scores

BY = ((), ("predicted",), ("race", "gender"))


class Given(ClassifierMixin, BaseEstimator):
    """Answers with the probabilities that it is given."""

    def __init__(self, classes: int):
        self.classes_ = np.arange(classes)
        self.fitted_ = True

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return X.argmax(axis=1)


class Column(RegressorMixin, BaseEstimator):
    """Answers with one column of its input."""

    def __init__(self, column: int):
        self.column, self.fitted_ = column, True

    def fit(self, X, y):
        return self

    def predict(self, X):
        return X[:, self.column]


def mean_of_passes(predictor: Predictor, x: np.ndarray, num_samples: int) -> np.ndarray:
    chunks = predictor.uncertainty(x, num_samples=num_samples, seed=0)
    return np.concatenate([chunk["mean"] for chunk in chunks])


def parts_of(store: EmbeddingStore, cv: Path, num_samples: int):
    """Yields of each run and head: predictor, rows kept back and tested, with their answers."""
    config = RunFolder(cv).config()
    names = CrossValidationPlan.__dataclass_fields__
    plan = CrossValidationPlan.from_config({k: v for k, v in config.items() if k in names})
    for run in plan_runs(store, plan):
        how = {"validation_share": plan.validation_share, "seed": run.seed, "group": plan.group}
        training, test = store.subset(run.training), store.subset(run.test)
        rows = Rows.of(training, plan.target, None, how)
        for predictor in Predictor.heads(cv / run.name):
            (own,) = [h for h in rows.heads if h.whole.target.label == predictor.label]
            both = own.part.subset(own.part.known), Examples.of(test, own.whole.target)
            both = tuple(part.by(predictor.target) for part in both)
            answers = [mean_of_passes(predictor, part.inputs, num_samples) for part in both]
            yield run.fold, predictor, *both, *answers


def limits(calibration, by, target, answers, columns) -> dict[str, np.ndarray]:
    whole = calibration.limits("mc_mean")
    if calibration.groups is None:
        return {name: np.full(len(answers), limit) for name, limit in whole.items()}
    names = group_names(by, target, answers, columns)
    return calibration.groups.of_rows("mc_mean", whole, names)


def measure_intervals(found, predictor, part, test, p_part, p_test) -> float:
    """Counts what each kind of intervals holds; returns how far MAPIE's ends are off."""
    target, years = predictor.target, np.asarray(predictor.target.head_ages.year_to_class)
    ages = np.minimum(test.years, NUM_YEARS - 1)
    people = {
        "predicted": np.array(target.measured_names)[target.measured(p_test).argmax(axis=1)],
        "race": value_names("race", test.labels["race"]),
        "gender": value_names("gender", test.labels["gender"]),
    }
    people["race, gender"] = np.char.add(np.char.add(people["race"], ", "), people["gender"])
    for by in BY:
        calibration = fit_calibration(part, {"mc_mean": p_part}, 64, by=by)
        ends = age_intervals(target, p_test, limits(calibration, by, target, p_test, test.labels))
        inside = (ages >= ends[90][:, 0]) & (ages <= ends[90][:, 1])
        width = ends[90][:, 1] - ends[90][:, 0]
        for column, values in people.items():
            for value in np.unique(values):
                chosen = values == value
                one = found.setdefault((by, column, str(value)), np.zeros(3))
                one += chosen.sum(), inside[chosen].sum(), width[chosen].sum()
        one = found.setdefault((by, "all", ""), np.zeros(3))
        one += len(test), inside.sum(), width.sum()
    return off_mapie(part, p_part, p_test, years)


def off_mapie(part, p_part, p_test, years) -> float:
    """Years between our grown intervals, before they are cut to 0 to 100, and MAPIE's."""
    raw = {k: age_interval_years(p, years, 0.9) for k, p in {"p": p_part, "t": p_test}.items()}
    both = {k: np.column_stack([v, v.mean(axis=1)]) for k, v in raw.items()}
    peer = ConformalizedQuantileRegressor([Column(k) for k in range(3)], 0.9, prefit=True)
    peer.conformalize(both["p"], np.minimum(part.years, NUM_YEARS - 1))
    ends = peer.predict_interval(both["t"], symmetric_correction=True)[1][:, :, 0]
    offset = fit_calibration(part, {"mc_mean": p_part}, 64).offsets_years["mc_mean"]["90"]
    return float(np.abs(ends - (raw["t"] + offset * np.array([-1, 1]))).max())


def measure_sets(found, predictor, part, test, p_part, p_test, rng) -> int:
    """Counts what sets hold, ours and MAPIE's; returns how many differ from those of crepes."""
    target, different = predictor.target, 0
    part_p, test_p = target.measured(p_part), target.measured(p_test)
    classes, truth = test.targets, part.targets

    def add(name: str, sets: np.ndarray):
        one = found.setdefault((target.name, name), np.zeros(4))
        sizes = sets.sum(axis=1)
        inside = sets[np.arange(len(classes)), classes].sum()
        one += len(classes), inside, sizes.sum(), (sizes == 0).sum()

    scores = set_scores(part_p)[np.arange(len(truth)), truth]
    for by in BY:
        if target.label in by:
            continue
        calibration = fit_calibration(part, {"mc_mean": p_part}, 64, by=by)
        threshold = limits(calibration, by, target, p_test, test.labels)[SET]
        sets = prediction_sets(test_p, threshold)
        add(f"ours, by {', '.join(by) or 'all rows'}", sets)
        groups = calibration.groups
        large = (
            {}
            if groups is None
            else {g.group: k for k, g in enumerate(groups.models["mc_mean"]) if g.group}
        )
        bins = [codes(by, target, p, rows, large) for p, rows in ((p_part, part), (p_test, test))]
        # rows of small groups have the limits of all rows, which crepes has no word for
        kept = [b >= 0 for b in bins]
        peer = ConformalClassifier().fit(scores[kept[0]], bins=bins[0][kept[0]])
        values = peer.predict_p(set_scores(test_p)[kept[1]], bins=bins[1][kept[1]], smoothing=False)
        theirs = values > 0.1 + 1e-9  # its own sets hold classes of p = 0.1, too
        different += int((theirs != sets[kept[1]]).any(axis=1).sum())
    u, v = rng.random(len(truth)), rng.random(len(classes))
    drawn = np.sort((set_scores(part_p) + u[:, None] * part_p)[np.arange(len(truth)), truth])
    limit = drawn[int(np.ceil(round((len(drawn) + 1) * 0.9, 9))) - 1]
    add("ours, randomised", set_scores(test_p) + v[:, None] * test_p <= limit)
    for name in ("lac", "aps", "raps")[: None if part_p.shape[1] > 2 else 1]:
        p, y = part_p, truth
        peer = SplitConformalClassifier(Given(p.shape[1]), 0.9, name, prefit=True, random_state=0)
        peer.conformalize(p / p.sum(axis=1, keepdims=True), y)
        sets = peer.predict_set(test_p / test_p.sum(axis=1, keepdims=True))[1][:, :, 0]
        add(f"MAPIE {name}", sets)
    return different


def codes(by, target, answers, rows, large: dict) -> np.ndarray:
    """The number of the group of each row, -1 in small groups; 0 of all rows."""
    if not by:
        return np.zeros(len(answers), int)
    names = np.stack(group_names(by, target, answers, rows.labels), axis=1)
    return np.array([large.get(tuple(map(str, name)), -1) for name in names])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("cv", type=Path)
    parser.add_argument("--num-samples", type=int, default=64)
    args = parser.parse_args()
    store, rng = EmbeddingStore.open(args.store), np.random.default_rng(0)
    intervals: dict = {}
    sets: dict = {}
    off, different = 0.0, 0
    for _, predictor, part, test, p_part, p_test in parts_of(store, args.cv, args.num_samples):
        known = test.known
        test, p_test = test.subset(known), p_test[known]
        if predictor.target.is_age:
            off = max(off, measure_intervals(intervals, predictor, part, test, p_part, p_test))
        different += measure_sets(sets, predictor, part, test, p_part, p_test, rng)
    print("| 90% intervals fitted | rows of | value | rows | coverage | mean width (years) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (by, column, value), (rows, inside, width) in intervals.items():
        by = ", ".join(by) or "on all rows"
        print(
            f"| {by} | {column} | {value} | {rows:.0f} | {inside / rows:.3f} | {width / rows:.1f} |"
        )
    print("\n| label | sets | coverage | mean size | empty |\n| --- | --- | --- | --- | --- |")
    for (label, name), (rows, inside, size, empty) in sets.items():
        print(
            f"| {label} | {name} | {inside / rows:.3f} | {size / rows:.2f} | {empty / rows:.3f} |"
        )
    result = {
        "mapie_ends_off_years": off,
        "sets_unlike_crepes": different,
        "intervals": {
            " / ".join(filter(None, (", ".join(by) or "all", column, value))): round(i / n, 4)
            for (by, column, value), (n, i, _) in intervals.items()
        },
        "sets": {
            f"{label} / {name}": [round(i / n, 4), round(s / n, 3)]
            for (label, name), (n, i, s, _) in sets.items()
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
