"""Which columns of numbers `train-age` takes for ages, and what tolerance in years means."""

import json

import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import EmbeddingStore, StoreInfo
from kerasmlp.cli import run_command
from kerasmlp.data.age_columns import check_age_years, count_clipped
from kerasmlp.data.examples import Examples
from kerasmlp.data.targets import age_target, choose_age_target, choose_target, in_groups
from kerasmlp.runs.calibration import RunCalibration, class_entropy_nats
from kerasmlp.runs.risk import judged_target, threshold_nats
from kerasmlp.training.calibrating import fit_calibration
from kerasmlp.training.remarks import majority_of, remarks
from kerasmlp.uncertainty.abstention import Abstention
from kerasmlp.uncertainty.measures import entropy_nats
from kerasmlp.uncertainty.year_errors import YearErrors
from kerasmlp.utils.checks import InputError

RNG = np.random.default_rng(0)
AGES = RNG.integers(1, 90, 500).astype(float)


@pytest.mark.parametrize(
    ("label", "column"),
    [
        ("age_years", AGES),
        ("age_years", AGES.astype(int)),
        ("age_years", AGES + RNG.random(500)),  # from dates of birth
        ("age", np.append(AGES, [116.0, np.nan, -1.0])),
        ("age_years", np.array([28.5, 5.0, 40.5, 80.0, 17.5])),  # middles of groups
        ("jahre", AGES),
        ("age_years", np.full(9, np.nan)),
    ],
)
def test_ages_are_ages(label, column):
    check_age_years(label, column)


@pytest.mark.parametrize(
    ("label", "column", "doubt"),
    [
        ("age_years", AGES / 100, "none above 1: scaled?"),
        ("age_years", (AGES - 45) / 26, "of them below 0: standardised?"),
        ("age_years", 2026 - AGES, "100% of them above 120: another unit, or years of birth?"),
        ("age_years", AGES * 12, "of them above 120: another unit"),
        ("age_years", RNG.uniform(1, 5, 500), "nearly all within 3."),
        ("age_years", RNG.uniform(0, 10, 500), "100% of them fractions: a score?"),
        ("smiling", np.tile([0.0, 1.0], 50), "none above 1"),
        ("emotion", np.arange(500) % 7, "nearly all within 6: a score, or codes of classes?"),
        ("score", RNG.uniform(0, 100, 500), "100% of them fractions: a score?"),
    ],
)
def test_what_is_no_age_is_refused_unless_it_is_said_to_be(label, column, doubt):
    message = rf"`{label}` must hold ages in years \(say --task years if it does\)"
    with pytest.raises(InputError, match=message) as error:
        check_age_years(label, column)
    assert doubt in str(error.value)
    store = make_store(len(column))
    store.labels[label] = np.asarray(column)  # as if it had come past the checks of a store
    with pytest.raises(InputError, match=message):
        choose_age_target(store, label, None, by_years=True)
    told = choose_age_target(store, label, None, by_years=True, are_years=True)
    assert (told.head, told.classes) == ("years", "adience")


def test_the_command_refuses_scaled_ages_before_anything_is_written(tmp_path, capsys):
    store = make_store(rows=60)
    store.labels["age_years"] /= 100
    store.save(tmp_path / "scaled.h5")
    words = ["--store", str(tmp_path / "scaled.h5"), "--run-dir", str(tmp_path / "run")]
    assert run_command("train-age", words) == 2
    assert "none above 1: scaled?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_clipped_ages_are_counted():
    assert count_clipped(np.array([100, 100.4, 101, np.nan, 116])) == 3


def test_years_are_learned_and_groups_are_answered():
    store = make_store()
    target = choose_age_target(store, None, None, by_years=True)
    assert (target.head, target.classes, len(target.measured_names)) == ("years", "adience", 8)
    assert choose_age_target(store, None, None, by_years=False) == target  # the head stays
    exact = choose_age_target(store, None, "years", by_years=True)
    assert in_groups(exact) == target and in_groups(target) is target


def predicted(rows, rng, spread):
    """A made model of years: its answers are off as far as it says."""
    spreads = rng.uniform(*spread, rows)
    centers = rng.uniform(10, 80, rows)
    ages = np.clip(np.rint(centers + rng.normal(size=rows) * spreads), 0, 100)
    p = np.exp(-0.5 * ((np.arange(101) - centers[:, None]) / spreads[:, None]) ** 2)
    return ages.astype("float32"), p / p.sum(axis=1, keepdims=True)


def calibrated(target, rows=3000, seed=0):
    ages, p = predicted(rows, np.random.default_rng(seed), (1, 12))
    part = make_store(rows=rows, age_years=ages)
    return fit_calibration(Examples.of(part, target), {"mc_mean": p}, 64)


def test_the_risk_is_that_of_ages_too_far_off():
    """On fresh rows at most 10% of the answers are more than 6 years off, at most 30% of groups."""
    target = age_target("age_years", "adience", by_years=True)
    calibration = calibrated(target)
    ages, p = predicted(20_000, np.random.default_rng(1), (1, 12))
    off = np.abs(p @ np.arange(101) - ages)
    how = ("run", calibration, target, "adience")
    for years, risk in ((6, 0.1), (3, 0.2), (6.5, 0.05)):
        threshold = threshold_nats(*how, risk, num_samples=64, within_years=years)
        answered = class_entropy_nats(judged_target(target, years), p) <= threshold
        np.testing.assert_allclose(entropy_nats(p)[answered].max(), threshold, atol=0.01)
        assert 0.6 * risk < (off[answered] > years).mean() <= risk
    threshold = threshold_nats(*how, 0.3, num_samples=64)
    answered = class_entropy_nats(target, p) <= threshold
    wrong = Examples.of(make_store(20_000, age_years=ages), target).wrong(p)
    assert 0.2 < wrong[answered].mean() <= 0.3 < wrong.mean()


def test_what_cannot_be_promised_is_said(tmp_path):
    years, groups = (age_target("age_years", c, by_years=True) for c in ("years", "adience"))
    older = calibrated(years)  # of a version that counted exact years, and wrote no more
    older.save(tmp_path / "calibration.json")
    config = json.loads((tmp_path / "calibration.json").read_text())
    del config["abstention_classes"], config["year_errors"]
    (tmp_path / "calibration.json").write_text(json.dumps(config))
    older = RunCalibration.open(tmp_path / "calibration.json")
    for counted, within, message in (
        ("years", None, "errors counted in years by an older version: train it again"),
        ("adience", 5, "no ages in years among the rows kept back, or a run of an older version"),
    ):
        with pytest.raises(InputError, match=message):
            threshold_nats("run", older, groups, counted, 0.99, num_samples=64, within_years=within)
    threshold_nats("run", older, years, "years", 0.99, num_samples=64)  # the same classes
    whole = calibrated(groups)
    whole.save(tmp_path / "calibration.json")
    assert RunCalibration.open(tmp_path / "calibration.json") == whole
    with pytest.raises(InputError, match="`within_years` must be a finite number >= 0"):
        threshold_nats("run", whole, groups, None, 0.9, num_samples=64, within_years=-1)
    gender = choose_target(make_store(), "gender")
    assert judged_target(gender, 5) is gender


def test_year_errors_keep_at_most_4000_rows_evenly():
    entropy = np.linspace(0, 3, 9001)
    errors = YearErrors.fit(entropy, 4 * entropy)
    assert len(errors.entropy_nats) == 4000 and errors.entropy_nats[-1] == 3
    counts = errors.within(6)
    assert isinstance(counts, Abstention) and counts.rows[-1] == 4000
    assert counts.errors[-1] == pytest.approx(2000, abs=1)
    assert YearErrors.fit(np.zeros(0), np.zeros(0)) is None
    with pytest.raises(InputError, match="`error_years` must be one number >= 0 for each entropy"):
        YearErrors([0.1], [-1.0])


@pytest.mark.parametrize(
    ("shares", "beaten"), [((0.9, 0.8), True), ((1, 0), False), ((0.75, 0.3), False)]
)
def test_a_model_is_held_against_the_majority(shares, beaten):
    """Three of four are male: it is right in a share of the males and in one of the females."""
    gender = np.repeat([0, 0, 0, 1], 50)
    part = make_store(rows=200, gender=gender)
    target = choose_target(part, "gender")
    right = np.concatenate([np.arange(150) < shares[0] * 150, np.arange(50) < shares[1] * 50])
    p = np.eye(2)[np.where(right, gender, 1 - gender)]
    rows = Examples.of(part, target)
    majority = majority_of(rows, rows, p)
    assert majority["class"] == "male" and majority["accuracy"] == 0.75
    assert majority["right"] == round(shares[1] * 50)
    assert majority["wrong"] == 150 - round(np.ceil(shares[0] * 150))
    assert majority["beaten"] == beaten
    report = {"majority": majority, "rows": {"validation": 200}, "validation": {"accuracy": 0.7}}
    notes = remarks(rows, report)
    assert len(notes) == (not beaten)
    if not beaten:
        assert notes[0].startswith(
            "not surely better than always answering 'male', the commonest class trained on, "
            "which is right in 75.0%"
        )
        wide = np.concatenate([part.embeddings, part.embeddings * 0.01] * 2, axis=1)
        wide[:, :10] *= 200
        coordinates = EmbeddingStore(wide, part.labels, StoreInfo(normalized=False))
        for columns, said in ((None, True), ({"standardized": 128}, False)):
            told = remarks(Examples.of(coordinates, target), report | {"columns": columns})[0]
            assert ("16 of 128 columns hold 100% of" in told) == said


def test_few_rows_kept_back_and_old_people_are_said():
    part = make_store(rows=40)
    part.labels["age_years"][:3] = 104
    target = age_target("age_years", "adience", by_years=True)
    report = {
        "majority": {"beaten": True}, "rows": {"validation": 24}, "validation": {"accuracy": 0.5}
    }  # fmt: skip
    rows = Examples.of(part, target)
    few, clipped = remarks(rows, report)
    # Clopper and Pearson for 12 of 24: 0.291 to 0.709
    assert "only 24 rows are kept back: an accuracy of 0.50" in few and "0.29 to 0.71" in few
    assert clipped == "3 ages above 100 count as 100"
    report["rows"]["validation"] = 100
    assert remarks(rows, report) == [clipped]
