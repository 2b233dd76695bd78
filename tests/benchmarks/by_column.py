"""The intervals and tests of `evaluate --by`: how often they hold, and how long they take.

    python tests/benchmarks/by_column.py [--trials 500]

Made answers of two classes, a little too sure, whose rows come in clusters of one to three equal
ones. Coverage is the share of stores in whose interval of 95% the measure of 2,000,000 rows lies,
in groups of three sizes; a false alarm is a p of at most 0.05 between four groups whose names mean
nothing. The last line is one JSON object.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kerasmlp.data.examples import Examples
from kerasmlp.data.targets import Target, age_target
from kerasmlp.evaluation.bootstrap import group_intervals
from kerasmlp.evaluation.by_column import by_columns
from kerasmlp.evaluation.gap_test import gap_tests
from kerasmlp.evaluation.grouping import Grouping
from kerasmlp.evaluation.row_scores import row_scores

GENDER = Target("gender", ("male", "female"))
MEASURES = ("accuracy", "nll", "brier", "ece", "aurc", "accuracy_at_80")
CLUSTERS = (30, 100, 400)


def made(clusters, rng, copies=True):
    """Scores of made answers, and the cluster of each row."""
    confidence = 0.5 + 0.5 * rng.beta(4, 1, clusters)
    right = rng.random(clusters) < 0.5 + 0.9 * (confidence - 0.5)
    times = rng.integers(1, 4, clusters) if copies else np.ones(clusters, int)
    cluster = np.repeat(np.arange(clusters), times)
    predicted = rng.integers(0, 2, clusters)
    p = np.where(np.eye(2)[predicted] == 1, confidence[:, None], 1 - confidence[:, None])
    labels = np.where(right, predicted, 1 - predicted)
    rows = Examples(np.zeros((len(cluster), 1)), labels[cluster], {}, GENDER)
    scores = row_scores(rows, p[cluster], {})
    return {k: scores[k] for k in MEASURES}, cluster


def coverage(trials, rng):
    many, _ = made(2_000_000, rng, copies=False)
    truth = {k: score.value(np.arange(2_000_000)) for k, score in many.items()}
    held = {k: np.zeros(len(CLUSTERS)) for k in MEASURES}
    plain = np.zeros(len(CLUSTERS))  # percentiles as they are, of accuracy
    for trial in range(trials):
        scores, cluster = made(sum(CLUSTERS), rng)
        codes = np.repeat(np.arange(len(CLUSTERS)), CLUSTERS)[cluster]
        groups = group_intervals(scores, codes, cluster, len(CLUSTERS), seed=trial)
        for g, found in enumerate(groups):
            for k, (low, high) in found.items():
                held[k][g] += low <= truth[k] <= high
            right = scores["accuracy"].columns[codes == g, 0]
            low, high = plain_interval(right, cluster[codes == g], rng)
            plain[g] += low <= truth["accuracy"] <= high
    shares = {k: v / trials for k, v in held.items()} | {"accuracy_plain": plain / trials}
    return {k: dict(zip(CLUSTERS, v.round(3).tolist(), strict=True)) for k, v in shares.items()}


def plain_interval(values, cluster, rng, draws=1000):
    """Of a mean: clusters drawn with replacement, percentiles 2.5 and 97.5."""
    sums, rows = np.bincount(cluster, values), np.bincount(cluster)
    sums, rows = sums[rows > 0], rows[rows > 0]
    drawn = (rng.integers(len(rows), size=len(rows)) for _ in range(draws))
    return np.percentile([sums[d].sum() / rows[d].sum() for d in drawn], (2.5, 97.5))


def false_alarms(trials, rng):
    """Of names dealt out anew in each trial among the clusters of other rows."""
    alarms = dict.fromkeys(("accuracy", "nll"), 0)
    for trial in range(trials):
        scores, cluster = made(1000, rng)
        codes = rng.choice(4, p=[0.05, 0.15, 0.3, 0.5], size=1000)[cluster]
        found = gap_tests({k: scores[k] for k in alarms}, codes, cluster, seed=trial)
        for k, (_, _, p) in found.items():
            alarms[k] += p <= 0.05
    return {k: count / trials for k, count in alarms.items()}


def seconds(rng, rows=20_000, groups=5):
    """All measures of ages of two models, by one column."""
    years = rng.integers(0, 90, rows).astype(float)
    off = np.arange(101) - years[:, None] - rng.normal(0, 5, (rows, 1))
    p = np.exp(-0.5 * (off / 5) ** 2)
    p /= p.sum(axis=1, keepdims=True)
    target = age_target("age_years", "adience", by_years=True)
    labels = {"age_years": years, "group": rng.integers(0, rows, rows)}
    examples = Examples(np.zeros((rows, 1)), np.zeros(rows, int), labels).by(target)
    ends = {c: np.stack([years - w, years + w], axis=1) for c, w in ((50, 3), (90, 8))}
    names = tuple(f"group {k}" for k in range(groups))
    one = Grouping("race", names, rng.integers(0, groups, rows))
    start = time.perf_counter()
    by_columns(examples, {"deterministic": (p, ends), "mc_mean": (p, ends)}, [one])
    return round(time.perf_counter() - start, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=500)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    took = {f"seconds_{n}_groups": seconds(rng, groups=n) for n in (5, 50)}
    held, alarms = coverage(args.trials, rng), false_alarms(args.trials, rng)
    print("share of intervals of 95% that hold, in groups of so many clusters")
    for name, shares in held.items():
        print(f"{name:>16}", *(f"{n}: {share:.3f}" for n, share in shares.items()), sep="  ")
    print(json.dumps({"trials": args.trials, **took, "coverage": held, "false_alarms": alarms}))


if __name__ == "__main__":
    main()
