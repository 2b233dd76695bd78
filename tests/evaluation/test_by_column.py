"""Measures by the values of a column: values, intervals, the test of the gap, the command."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from data_sets import make_store
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasmlp import EmbeddingStore, Predictor, evaluate
from kerasmlp.cli import run_command
from kerasmlp.data.examples import Examples
from kerasmlp.data.other_targets import NumberTarget, SeveralTargets
from kerasmlp.data.targets import age_target, choose_age_target, choose_target
from kerasmlp.evaluation.bootstrap import group_intervals
from kerasmlp.evaluation.gap_test import gap_tests
from kerasmlp.evaluation.grouping import Grouping, groupings
from kerasmlp.evaluation.measured_answers import Answers, measure_answers
from kerasmlp.evaluation.ranked_rows import RankedRows
from kerasmlp.evaluation.row_scores import MeanScore, RankScore, row_scores
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.calibration import age_intervals
from kerasmlp.training.embeddings import train
from kerasmlp.uncertainty.numbers import number_intervals
from kerasmlp.uncertainty.selective import risk_coverage
from kerasmlp.utils.checks import InputError

Z = 1.959963984540054


def store_of(**labels):
    rows = len(next(iter(labels.values())))
    return EmbeddingStore(np.ones((rows, 1)), labels)


def answered(kind, rows=300, seed=0):
    """Rows of a head, and random answers with intervals and sets."""
    rng = np.random.default_rng(seed)
    years = np.where(rng.random(rows) < 0.1, np.nan, rng.uniform(0, 110, rows))
    gender, bmi = rng.integers(0, 2, rows), rng.normal(25, 4, rows)
    store = store_of(age_years=years, gender=gender, bmi=bmi)
    if kind == "number":
        means = np.stack([bmi + rng.normal(0, 3, rows), rng.uniform(1, 4, rows)], axis=1)
        ends = number_intervals(*means.T, None)
        return Examples.of(store, NumberTarget("bmi")), Answers(means, ends)
    target = choose_target(store, "gender")
    if kind != "gender":
        classes = "years" if kind == "years" else "fairface"
        target = age_target("age_years", classes, by_years=kind != "groups")
    examples = Examples.of(store, target)
    means = rng.dirichlet(np.full(target.num_classes, 0.1), rows)
    ends = age_intervals(target, means, None) if target.is_age else {}
    sets = target.measured(means) > 0.05
    known = examples.known
    return examples.subset(known), Answers(means, ends, sets).subset(known)


@pytest.mark.parametrize("kind", ["number", "gender", "years", "years in groups", "groups"])
def test_every_measure_follows_from_its_rows(kind):
    """A measure that is new in `measure_answers` needs a line in `row_scores`."""
    rows, answers = answered(kind)
    scores = row_scores(rows, answers)
    for chosen in (np.arange(len(rows)), np.arange(0, len(rows), 3), np.array([5])):
        expected = measure_answers(rows.subset(chosen), answers.subset(chosen))
        found = {name: score.value(chosen) for name, score in scores.items()}
        found = {name: value for name, value in found.items() if not np.isnan(value)}
        assert found == pytest.approx({k: v for k, v in expected.items() if k != "rows"})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ranked_rows_are_those_of_repeated_ones(data):
    rows = data.draw(st.integers(1, 12))
    numbers = st.lists(st.integers(0, 4), min_size=rows, max_size=rows).map(np.array)
    errors, uncertainty, times = (data.draw(numbers) for _ in range(3))
    again = np.repeat(np.arange(rows), times)
    for share in (None, 0.8):
        (found,) = RankedRows(errors, uncertainty, share).values(times[None].astype(float))
        if not len(again):
            assert np.isnan(found)
            continue
        curve = risk_coverage(errors[again], uncertainty[again])
        at = max(round(0.8 * len(curve)), 1) - 1
        assert found == pytest.approx(curve.mean() if share is None else 1 - curve[at])


def test_intervals_are_those_of_a_plain_cluster_bootstrap():
    """One by one: clusters are drawn from all groups, and rows of each looked up."""
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(700), rng.integers(1, 4, 700))
    codes = np.where(clusters < 300, 0, np.where(clusters < 600, 1, -1))
    right = (rng.random(700) < 0.8).astype(float)[clusters]
    errors, uncertainty = rng.normal(size=len(clusters)) ** 2, rng.random(len(clusters))
    scores = {
        "accuracy": MeanScore(right[:, None], is_share=True),
        "rmse": MeanScore(errors[:, None], lambda means: np.sqrt(means[..., 0])),
        "aurc": RankScore(errors, uncertainty),
    }
    found = group_intervals(scores, codes, clusters, 3, seed=1)
    assert found[2] == {}  # a group without rows
    members = [np.flatnonzero(clusters == c) for c in range(600)]
    for group in (0, 1):
        draws = []
        for _ in range(600):
            rows = np.concatenate([members[c] for c in rng.integers(600, size=600)])
            rows = rows[codes[rows] == group]
            area = risk_coverage(errors[rows], uncertainty[rows]).mean()
            draws.append((right[rows].mean(), np.sqrt(errors[rows].mean()), area))
        for name, values in zip(scores, np.transpose(draws), strict=True):
            low, high = np.percentile(values, (2.5, 97.5))
            wide = high - low  # an end of 200 draws is off by some tenth of that
            assert found[group][name] == pytest.approx((low, high), abs=0.13 * wide), name


def test_copies_of_rows_make_nothing_surer():
    rng = np.random.default_rng(0)
    values, codes = rng.normal(size=(80, 1)) ** 2, np.repeat([0, 1], 40)
    right = (values > 0.2).astype(float)
    once = {"mae": MeanScore(values), "accuracy": MeanScore(right, is_share=True)}
    thrice = {k: replace(v, columns=np.repeat(v.columns, 3, axis=0)) for k, v in once.items()}
    clusters = np.arange(80)
    expected = group_intervals(once, codes, clusters, 2)
    found = group_intervals(thrice, np.repeat(codes, 3), np.repeat(clusters, 3), 2)
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys() == once.keys()
        assert one["mae"] == pytest.approx(other["mae"])
        assert one["accuracy"] == pytest.approx(other["accuracy"], abs=0.01)
    assert group_intervals(once, codes, clusters, 2) == expected  # by the one seed
    assert group_intervals(once, codes, clusters, 2, seed=1) != expected


def test_intervals_of_few_rows():
    right = np.ones((45, 1))
    right[:5] = 0
    scores = {
        "accuracy": MeanScore(right, is_share=True),
        "mae": MeanScore(np.arange(45.0)[:, None] ** 2),
    }
    small, perfect = group_intervals(scores, np.repeat([0, 1], [10, 35]), np.arange(45), 2)
    assert set(small) == {"accuracy"}  # of 10 rows no draws tell how rare large errors are
    assert small["accuracy"][0] < 0.3 < 0.7 < small["accuracy"][1]
    assert perfect["accuracy"] == pytest.approx((1 / (1 + Z**2 / 35), 1.0))  # Wilson's
    assert perfect["mae"][0] < scores["mae"].value(np.arange(10, 45)) < perfect["mae"][1]


def test_ece_is_not_sure_of_what_may_be_noise():
    rng = np.random.default_rng(0)
    confidence = 0.5 + 0.5 * rng.random(4000)
    p = np.stack([confidence, 1 - confidence], axis=1)
    target, held = choose_target(store_of(gender=[0, 1]), "gender"), 0
    for start in range(0, 4000, 200):  # calibrated: the true distance is 0
        some = slice(start, start + 200)
        labels = (rng.random(200) >= confidence[some]).astype(int)
        scores = row_scores(Examples(p[some], labels, {}, target), Answers(p[some]))
        ece = scores["ece"]
        (found,) = group_intervals({"ece": ece}, np.zeros(200, int), np.arange(200), 1)
        held += found["ece"][0] == 0
        assert found["ece"][1] > ece.value(np.arange(200)) > 0.02
    assert held >= 18


def test_the_gap_is_found_where_it_is_and_rarely_where_it_is_not():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(150), 2)
    right = (rng.random(150) < 0.7).astype(float)[clusters]
    alarms = 0
    for trial in range(60):
        codes = rng.choice(3, p=[0.3, 0.3, 0.4], size=150)[clusters]
        ((lowest, highest, p),) = gap_tests(
            {"accuracy": MeanScore(right[:, None])}, codes, clusters, seed=trial
        ).values()
        shares = [right[codes == g].mean() for g in range(3)]
        gap = shares[highest] - shares[lowest]
        assert gap == pytest.approx(np.ptp(shares))
        alarms += p <= 0.05
    assert alarms <= 8  # of 60 at 5%, which has a chance of 0.5% to be missed
    worse = np.where(codes == 1, 0.0, right)
    found = gap_tests({"accuracy": MeanScore(worse[:, None])}, codes, clusters)
    assert found["accuracy"][0] == 1 and found["accuracy"][2] == 1 / 1001


def test_the_unit_of_a_number_changes_no_test_and_scales_intervals():
    """Errors of metres, and of the same in parsecs or in nanometres."""
    values, codes = np.random.default_rng(0).exponential(size=(90, 1)), np.arange(90) // 30
    values[codes == 2] *= 1.5
    where, found = (codes, np.arange(90)), {}
    for unit in (1.0, 1e-17, 1e9):
        scores = {"mae": MeanScore(unit * values)}
        (gap,) = gap_tests(scores, *where).values()
        ends = [np.array(one["mae"]) / unit for one in group_intervals(scores, *where, 3)]
        found[unit] = (*gap, ends)
    assert 1 / 1001 < found[1.0][2] < 0.5
    for unit in (1e-17, 1e9):
        assert found[unit][:3] == found[1.0][:3]
        np.testing.assert_allclose(found[unit][3], found[1.0][3], rtol=1e-9)


def test_small_groups_and_unknown_rows_are_not_compared():
    values = np.repeat([0.0, 1.0, 0.5, 9.0], [30, 30, 19, 30])[:, None]
    values[:25] += 0.1
    codes = np.repeat([0, 1, 2, -1], [30, 30, 19, 30])
    found = gap_tests({"mae": MeanScore(values)}, codes, np.arange(109))
    assert found["mae"] == (0, 1, 1 / 1001)
    one = {"mae": MeanScore(values)}
    assert gap_tests(one, codes, np.arange(109) // 4) == {}  # in clusters of four rows
    half = np.where(codes[:, None] == 1, np.nan, values)
    assert gap_tests({"mae": MeanScore(half)}, codes, np.arange(109)) == {}


def test_groups_of_every_kind_of_column():
    store = store_of(
        race=["b", "", "a", "a"], code=[7, -1, 7, 10], gap=[2.0, None, 3.0, 2.0],
        age_years=[1.0, 30.0, None, 99.0], age_group=["3-9", "10-19", "more than 70", ""],
        gender=[1, 0, -1, 1],
    )  # fmt: skip
    found = {name: Grouping.of(store, name) for name in store.labels}
    assert {name: (one.values, one.codes.tolist()) for name, one in found.items()} == {
        "race": (("a", "b"), [1, -1, 0, 0]),
        "code": (("7", "10"), [0, -1, 0, 1]),
        "gap": (("2", "3"), [0, -1, 1, 0]),
        "age_years": (("0-2", "25-32", "60-100"), [0, 1, -1, 2]),
        "age_group": (("3-9", "10-19", "more than 70"), [0, 1, 2, -1]),
        "gender": (("male", "female"), [1, 0, -1, 1]),
    }
    both = Grouping.of(store, "race*gender")
    assert both.values == ("a, female", "b, female")
    assert both.codes.tolist() == [1, -1, -1, 0]
    fairface = choose_age_target(store, "age_years", "fairface", by_years=True)
    assert Grouping.of(store, "age_years", fairface).values == ("0-2", "30-39", "more than 70")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(-(2**40), 2**40)), min_size=1, max_size=80)
    | st.lists(st.one_of(st.none(), st.floats(allow_nan=False, width=32)), min_size=1, max_size=80)
    | st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1)
)
def test_a_column_is_told_apart_or_refused(values):
    try:
        store = store_of(column=values, other=np.arange(len(values)) % 2)
    except InputError:
        return  # which no store is made of
    column = store.labels["column"]
    try:
        found = Grouping.of(store, "column")
    except InputError as error:
        assert "must name columns of text or whole numbers with at most 50 values" in str(error)
        assert "(here other)" in str(error)
        return
    names = np.array([*found.values, None], object)[found.codes]
    values = [None if value != value else value for value in column.tolist()]  # 0.0 and -0.0
    pairs = set(zip(names, values, strict=True))
    assert len(pairs) == len({name for name, _ in pairs}) == len({value for _, value in pairs})
    assert 1 <= len(found.values) <= 50


def test_columns_are_refused_in_one_sentence():
    store = store_of(race=["a", "b"] * 30, path=[f"{k}.jpg" for k in range(60)], score=[0.5] * 60)
    for by, text in (
        (["nothing"], "must name columns of the store (race, path, score). Received: by='nothing'"),
        (["path"], "or of ages (here race). Received: by='path, 60 different values'"),
        (["score"], "or of ages (here race). Received: by='score, numbers with fractions'"),
        (["race*none"], "must name columns of the store (race, path, score)"),
        (["race", "race"], "must be given, and each once"),
        (["race*race"], "must be given, and each once. Received: by=['race', 'race']"),
    ):
        with pytest.raises(InputError) as error:
            groupings(store, by)
        assert text in str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two heads, and a store of 400 other rows, some of them copies."""
    path, rng = tmp_path_factory.mktemp("by"), np.random.default_rng(0)
    store = make_store(rows=300, bmi=rng.normal(25, 4, 300))
    target = SeveralTargets((choose_target(store, "gender"), NumberTarget("bmi")))
    recipe = Recipe(epochs=2, batch_size=32, dropout_rate=0.2)
    train(store, target, recipe, path / "run", seed=1, pictures=False)
    race = np.repeat(np.array(["a", "b", "", "rare"]), [220, 150, 20, 10])
    group = np.where(np.arange(400) % 4 == 1, np.arange(400) - 1, np.arange(400))
    fresh = make_store(rows=400, seed=5, race=race, group=group, bmi=rng.normal(25, 4, 400))
    fresh.labels["gender"][:7] = -1
    fresh.labels["late"] = np.where(np.arange(400) < 7, 1, -1)  # known where no gender is
    fresh.save(path / "fresh.h5")
    return path


@pytest.fixture(scope="module")
def evaluated(folder):
    report = evaluate(folder / "run", folder / "fresh.h5", folder / "out", num_samples=4, by="race")
    return folder / "out", report


def test_an_evaluation_by_race_against_numbers_from_the_arrays(folder, evaluated):
    out, report = evaluated
    store = EmbeddingStore.open(folder / "fresh.h5")
    race, known = store.labels["race"], store.labels["gender"] >= 0
    gender = {p.name: p for p in Predictor.heads(folder / "run")}["gender"]
    right = gender.probabilities(store).argmax(axis=1) == store.labels["gender"]
    of = report["heads"]["gender"]
    assert list(of["by"]["race"]) == ["a", "b", "rare"]
    for value, found in of["by"]["race"].items():
        mine = (race == value) & known
        assert found["rows"] == mine.sum()
        assert found["clusters"] == len(np.unique(store.labels["group"][mine]))
        assert found["small"] is (value == "rare")
        assert found["accuracy"] == pytest.approx(right[mine].mean())
        low, high = found["intervals"]["accuracy"]
        assert 0 <= low <= found["accuracy"] <= high <= 1
        assert set(found["intervals"]) <= set(found["mc_mean"])
    gaps = of["gaps"]["race"]
    assert gaps["rows_unknown"] == ((race == "") & known).sum()
    shares = {value: right[(race == value) & known].mean() for value in "ab"}
    accuracy = gaps["deterministic"]["accuracy"]
    assert accuracy["worst"] == min(shares, key=shares.get)  # never the rare one
    assert accuracy["gap"] == pytest.approx(abs(shares["a"] - shares["b"]))
    assert set(gaps["mc_mean"]) == {"accuracy", "nll", "brier", "set_90_coverage"}
    told = report["heads"]["bmi"]["gaps"]["race"]["deterministic"]
    assert set(told) == {"rmse", "mae", "nll", "interval_50_coverage", "interval_90_coverage"}
    assert json.loads((out / "report.json").read_text())["by"] == report["by"]


def test_heads_stand_side_by_side_and_in_tables(evaluated):
    out, report = evaluated
    both, head = report["by"]["race"]["b"], report["heads"]["bmi"]["by"]["race"]["b"]
    assert both["bmi_rmse"] == head["rmse"] and both["gender_rows"] == 150
    assert both["intervals"]["bmi_rmse"] == head["intervals"]["rmse"]
    assert both["mc_mean"]["bmi_rmse"] == head["mc_mean"]["rmse"]
    assert report["gaps"]["race"]["deterministic"]["bmi_rmse"]["worst"] in "ab"
    for name in ("gender", "bmi"):
        assert (out / f"head_{name}" / "by_race.png").read_bytes().startswith(b"\x89PNG")
        with open(out / f"head_{name}" / "by.csv", newline="") as file:
            table = list(csv.DictReader(file))
        assert [(r["value"], r["model"]) for r in table] == [
            (value, model) for value in ("a", "b", "rare") for model in ("deterministic", "mc_mean")
        ]
    low, high = (float(table[2][f"mae_{end}"]) for end in ("low", "high"))
    assert [low, high] == both["intervals"]["bmi_mae"]


def test_the_command_prints_them_and_replaces_its_folder(folder, capsys):
    words = [str(folder / "run"), str(folder / "fresh.h5"), "--num-samples", "0", "--json"]
    words += ["--output", str(folder / "printed"), "--by", "gender*race", "late"]
    assert run_command("evaluate", words) == 0
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert set(result["by"]) == {"gender*race", "late"}
    assert result["by"]["gender*race"]["male, rare"]["bmi_clusters"] < 20
    assert "* fewer than 20 rows, those of one group counted once: not compared" in printed
    assert "27 rows of unknown gender*race are in no group" in printed
    assert "accuracy: worst " in printed and "rmse: worst " in printed
    assert result["by"]["late"]["1"]["gender_rows"] == 0  # told all the same
    pictures = {p.name for p in (folder / "printed").glob("*/by*.png")}
    assert pictures == {"by_late.png", "by_gender_race_a98958a.png"}
    assert not (folder / "printed" / "head_gender" / "by_late.png").exists()
    assert run_command("evaluate", [*words[:-3], "--force", "--by", "embedding"]) == 2
    assert "`--by` must name columns of the store (age_years" in capsys.readouterr().err
    assert (folder / "printed" / "head_bmi" / "by.csv").exists()
    assert run_command("evaluate", [*words[:-3], "--force"]) == 0
    assert not list((folder / "printed" / "head_bmi").glob("by*"))
