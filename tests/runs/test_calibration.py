"""What a run fits on the rows kept back: intervals of age and when to abstain."""

import json
import math

import numpy as np
import pytest
from data_sets import make_store

from kerasmlp.data.examples import Examples
from kerasmlp.data.targets import age_target, choose_target
from kerasmlp.evaluation.metrics import interval_coverage, nll
from kerasmlp.runs.calibration import RunCalibration, age_intervals
from kerasmlp.training.calibrating import fit_calibration, fit_mc_temperature
from kerasmlp.uncertainty.abstention import Abstention
from kerasmlp.uncertainty.conformal import conformal_offset_years, grown_interval_years
from kerasmlp.uncertainty.measures import age_interval_years
from kerasmlp.uncertainty.temperature import mean_of_passes, softmax
from kerasmlp.utils.checks import InputError

YEARS = np.arange(101)


def test_the_offset_against_a_loop():
    rng = np.random.default_rng(0)
    ages = rng.uniform(0, 90, 57)
    intervals = np.sort(rng.uniform(0, 90, size=(57, 2)), axis=1)
    scores = sorted(
        max(low - age, age - high) for age, (low, high) in zip(ages, intervals, strict=True)
    )
    for coverage in (0.5, 0.9):
        expected = scores[math.ceil(58 * coverage) - 1]
        assert conformal_offset_years(ages, intervals, coverage) == pytest.approx(expected)


def test_few_rows_have_no_offset():
    for rows in range(1, 20):
        offset = conformal_offset_years(np.zeros(rows), np.zeros((rows, 2)), 0.9)
        assert (offset is None) == (rows < 9)  # 9 / 10 of 10 rows are 9
    with pytest.raises(InputError, match=r"`coverage` must be in \(0, 1\)"):
        conformal_offset_years(np.zeros(9), np.zeros((9, 2)), 1.0)


def test_intervals_grow_shrink_and_stay_ages():
    intervals = np.array([[10.0, 20.0], [0.5, 3.0], [98.0, 99.5]])
    np.testing.assert_allclose(grown_interval_years(intervals, 1), [[9, 21], [0, 4], [97, 100]])
    np.testing.assert_allclose(
        grown_interval_years(intervals, -2), [[12, 18], [1.75, 1.75], [98.75, 98.75]]
    )


def people(rows, rng, *, spread=1.0):
    """Ages and what a model predicts that takes itself for `spread` times as unsure as it is."""
    centers = rng.uniform(10, 80, rows)
    ages = np.clip(np.rint(centers + rng.normal(0, 6, rows)), 0, 100)
    p = np.exp(-0.5 * ((YEARS - centers[:, None]) / (6 * spread)) ** 2)
    return ages.astype("float32"), p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("flatness", "rows"), [(1.6, 2000), (0.7, 2000), (1.6, 199)])
def test_the_passes_get_a_temperature_of_their_own(flatness, rows):
    """One that undoes what made them too flat or too sharp, from rows enough."""
    rng = np.random.default_rng(6)
    target = choose_target(make_store(rows=50), "gender")
    logits = rng.normal(0, 2, rows)
    right = 1 / (1 + np.exp(-logits))
    gender = (rng.random(rows) < right).astype("int64")
    passes = rng.normal(0, 0.05, (16, rows)) + logits / flatness
    samples = softmax(np.stack([np.zeros_like(passes), passes], axis=-1)).astype("float32")
    part = Examples.of(make_store(rows=rows, gender=gender), target)
    temperature = fit_mc_temperature(part, samples)
    if rows < 200:
        assert temperature == 1
        return
    assert temperature == pytest.approx(1 / flatness, rel=0.1)
    assert nll(gender, mean_of_passes(samples, temperature)) < nll(gender, samples.mean(axis=0))


def test_a_probability_of_zero_stays_one():
    samples = np.array([[[1.0, 0.0], [0.0, 1.0]]], np.float32)
    np.testing.assert_allclose(mean_of_passes(samples, 0.8), samples[0], atol=1e-12)


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_any_model_covers_what_was_promised(spread):
    rng = np.random.default_rng(1)
    target = age_target("age_years", "adience", by_years=True)
    ages, p = people(2000, rng, spread=spread)
    part = Examples.of(make_store(rows=2000, age_years=ages), target)
    calibration = fit_calibration(part, {"deterministic": p}, 64)
    assert calibration.num_samples == 0 and calibration.abstention is None
    ages, p = people(5000, rng, spread=spread)
    intervals = age_intervals(target, p, calibration.offsets_years["deterministic"])
    for percent, ends in intervals.items():
        assert interval_coverage(ages, ends) == pytest.approx(percent / 100, abs=0.03)
    if spread != 1:
        raw = interval_coverage(ages, age_interval_years(p, YEARS, 0.9))
        assert abs(raw - 0.9) > 0.05
    inner, outer = intervals[50], intervals[90]
    assert (outer[:, 0] <= inner[:, 0]).all() and (outer[:, 1] >= inner[:, 1]).all()


def test_children_are_not_covered_too_often():
    """Nine of ten faces are babies, whose intervals all begin at 0: no tie may decide."""
    rng = np.random.default_rng(5)
    target = age_target("age_years", "adience", by_years=True)

    def draw(rows):
        centers = rng.choice([0.8, 30], rows, p=[0.9, 0.1])
        ages = np.clip(np.rint(centers + rng.normal(0, 1.5, rows)), 0, 100).astype("float32")
        spread = rng.uniform(1.0, 3.0, rows)  # each is unsure in its own way
        p = np.exp(-0.5 * ((YEARS - centers[:, None]) / spread[:, None]) ** 2)
        return ages, p / p.sum(axis=1, keepdims=True)

    ages, p = draw(2000)
    part = Examples.of(make_store(rows=2000, age_years=ages), target)
    calibration = fit_calibration(part, {"mc_mean": p}, 64)
    ages, p = draw(5000)
    ends = age_intervals(target, p, calibration.offsets_years["mc_mean"])[90]
    covered = interval_coverage(ages, ends)
    assert covered == pytest.approx(0.9, abs=0.025)


def test_without_offsets_intervals_are_those_of_the_distribution():
    _, p = people(5, np.random.default_rng(2))
    target = age_target("age_years", "adience", by_years=True)
    for percent, ends in age_intervals(target, p, None).items():
        expected = np.clip(age_interval_years(p, YEARS, percent / 100), 0, 100)
        np.testing.assert_allclose(ends, expected)


def test_only_years_and_enough_of_them_give_intervals():
    rng = np.random.default_rng(3)
    years = age_target("age_years", "adience", by_years=True)
    ages, p = people(50, rng)
    unknown = np.where(np.arange(50) < 8, ages, np.nan)
    groups = age_target("age_group", "fairface", by_years=True)
    store = make_store(rows=50, age_group=np.array(["0-2", "3-9"] * 25))
    labels = {k: v for k, v in store.labels.items() if k != "age_years"}
    store.labels = labels
    gender = choose_target(make_store(rows=50), "gender")
    for target, part, probabilities in (
        (years, make_store(rows=50, age_years=unknown), p),
        (groups, store, p),
        (gender, make_store(rows=50), np.full((50, 2), 0.5)),
    ):
        calibration = fit_calibration(
            Examples.of(part, target), {"deterministic": probabilities}, 64
        )
        assert calibration.offsets_years == {}


def test_abstention_counts_errors_in_the_measured_classes():
    target = age_target("age_years", "0-49,50+", by_years=True)
    ages, p = people(300, np.random.default_rng(4))
    part = Examples.of(make_store(rows=300, age_years=ages), target)
    calibration = fit_calibration(part, {"mc_mean": p}, 16)
    abstention = calibration.abstention
    wrong = (p[:, 50:].sum(axis=1) > 0.5) != (ages >= 50)
    assert abstention.rows[-1] == 300 and abstention.errors[-1] == wrong.sum()
    old = p[:, 50:].sum(axis=1)
    entropies = -old * np.log(old) - (1 - old) * np.log(1 - old)  # of the two groups, not of years
    for k in (150, 200, 299):
        below = entropies <= abstention.thresholds[k] + 1e-9
        assert (abstention.rows[k], abstention.errors[k]) == (below.sum(), wrong[below].sum())


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"},
        {"abstention": {"thresholds": [2.0, 1.0], "rows": [1, 2], "errors": [0, 0]}},
        {"abstention": [1]},
        {"offsets_years": {"mc_mean": {"50": 1.0}}},
        {"offsets_years": {"mc_mean": {"50": 1.0, "90": "wide"}}},
        {"offsets_years": 3},
        {"mc_temperature": 0},
        {"mc_temperature": None},
        {"num_samples": 0},
        {"colour": "red"},
        {"rows": 1},
        {"clusters": -1},
        {"clusters": 1.5},
        {"year_errors": {"entropy_nats": [0.1] * 3, "error_years": [1.0] * 3}},
        {"year_errors": {"entropy_nats": [0.1, 4.7], "error_years": [1.0, 2.0]}},
    ],
)
def test_damaged_calibrations_are_refused(tmp_path, change):
    path = tmp_path / "calibration.json"
    whole = RunCalibration(
        rows=2, num_samples=64, offsets_years={"mc_mean": {"50": 0.5, "90": 1.0}},
        abstention=Abstention([0.1, 0.2], [1, 2], [0, 1]), mc_temperature=0.9,
    )  # fmt: skip
    whole.save(path)
    assert RunCalibration.open(path) == whole
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    years = age_target("age_years", "adience", by_years=True)
    with pytest.raises(InputError, match=r"calibration.json` must be the calibration of a run"):
        RunCalibration.open(path, years)
    path.write_text("[]")
    with pytest.raises(InputError, match="calibration.json` must hold an object. Received: list"):
        RunCalibration.open(path)


def test_abstention_keeps_its_confidence_where_each_person_has_several_rows():
    """All rows of a person are right or wrong together: 1,000 rows are 200 draws.

    Taken for 1,000 draws, 23% of these thresholds would be wrong.
    """
    gender, broken, kept = choose_target(make_store(rows=9), "gender"), 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        person = np.repeat(np.arange(200), 5)
        sure = rng.uniform(0.5, 1, 200)
        wrong = rng.random(200) < 0.6 * (1 - sure)
        p = np.stack([sure, 1 - sure], axis=1)[person]
        store = make_store(rows=1000, gender=wrong[person].astype(int), group=person)
        calibration = fit_calibration(Examples.of(store, gender), {"mc_mean": p}, 64)
        assert calibration.abstention.rows[-1] == 200 and calibration.rows == 1000
        threshold = calibration.abstention.threshold(0.1)
        if threshold is not None:
            entropies = -(sure * np.log(sure) + (1 - sure) * np.log(np.maximum(1 - sure, 1e-9)))
            lowest = sure[entropies <= threshold + 1e-9].min()
            risk = 0.6 * (1 - (1 + lowest) / 2)  # of answers that are at least so sure
            broken, kept = broken + (risk > 0.1), kept + 1
    assert kept > 20 and broken <= 0.1 * kept
