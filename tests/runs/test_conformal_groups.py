"""Groups keep the promise each by limits of its own: against NumPy, MAPIE and a whole run."""

import json

import numpy as np
import pytest
from data_sets import make_store
from mapie.regression import ConformalizedQuantileRegressor
from sklearn.base import BaseEstimator, RegressorMixin

from kerasmlp import EmbeddingStore, Predictor, evaluate, train
from kerasmlp.data.examples import Examples
from kerasmlp.data.other_targets import NumberTarget, SeveralTargets
from kerasmlp.data.targets import age_target, choose_target
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.calibration import RunCalibration, age_intervals
from kerasmlp.runs.conformal_groups import MIN_GROUP_ROWS, count_in_none, group_names
from kerasmlp.training.calibrating import calibrate_numbers, fit_calibration
from kerasmlp.uncertainty.measures import age_interval_years
from kerasmlp.utils.checks import InputError

YEARS = np.arange(101)


def people(rows, rng):
    """Ages, what a model says of them, and a column in whose second group it is far more wrong."""
    ages = rng.integers(1, 90, rows)
    site = rng.integers(0, 2, rows)
    centers = ages + rng.normal(0, np.where(site == 1, 9, 2))
    p = np.exp(-0.5 * ((YEARS - centers[:, None]) / 4) ** 2) + 1e-12
    labels = {"site": np.array(["calm", "wild"])[site], "age_years": ages.astype("float32")}
    return labels, p / p.sum(axis=1, keepdims=True)


def examples(labels):
    target = age_target("age_years", "adience", by_years=True)
    rows = len(labels["age_years"])
    return Examples.of(
        EmbeddingStore(np.eye(4, dtype="float32")[np.arange(rows) % 4], labels), target
    )


def own_groups(calibration, model="mc_mean"):
    return [one for one in calibration.groups.models[model] if one.group]


@pytest.fixture(scope="module")
def fitted():
    labels, p = people(1500, np.random.default_rng(0))
    return labels, p, fit_calibration(examples(labels), {"mc_mean": p}, 64, by=("site",))


def covered(calibration, labels, p):
    target = examples(labels).target
    names = group_names(calibration.groups.by, target, p, labels)
    limits = calibration.groups.of_rows("mc_mean", calibration.limits("mc_mean"), names)
    ends = age_intervals(target, p, {k: limits[k] for k in ("50", "90")})[90]
    return (labels["age_years"] >= ends[:, 0]) & (labels["age_years"] <= ends[:, 1])


def test_each_group_keeps_the_promise_that_all_rows_together_break(fitted):
    labels, p = people(6000, np.random.default_rng(1))
    inside = covered(fitted[2], labels, p)
    whole = age_intervals(examples(labels).target, p, fitted[2].offsets_years["mc_mean"])[90]
    broken = (labels["age_years"] >= whole[:, 0]) & (labels["age_years"] <= whole[:, 1])
    for group, of_all in (("calm", 0.99), ("wild", 0.81)):
        chosen = labels["site"] == group
        assert inside[chosen].mean() == pytest.approx(0.9, abs=0.03)
        assert broken[chosen].mean() == pytest.approx(of_all, abs=0.04)


def test_the_offset_of_a_group_is_that_of_its_rows_alone(fitted):
    labels, p, calibration = fitted
    for one in own_groups(calibration):
        chosen = labels["site"] == one.group[0]
        assert one.rows == chosen.sum()
        low, high = age_interval_years(p[chosen], YEARS, 0.9).T
        scores = np.sort(
            np.maximum(low - labels["age_years"][chosen], labels["age_years"][chosen] - high)
        )
        rank = int(np.ceil(0.9 * (len(scores) + 1)))
        assert one.limits["90"] == pytest.approx(scores[rank - 1], abs=1e-6)


class Column(RegressorMixin, BaseEstimator):
    def __init__(self, column):
        self.column, self.fitted_ = column, True

    def fit(self, X, y):
        return self

    def predict(self, X):
        return X[:, self.column]


def test_ends_are_those_of_mapie(fitted):
    labels, p, calibration = fitted
    for one in own_groups(calibration):
        chosen = labels["site"] == one.group[0]
        raw = age_interval_years(p[chosen], YEARS, 0.9)
        both = np.column_stack([raw, raw.mean(axis=1)])
        peer = ConformalizedQuantileRegressor([Column(k) for k in range(3)], 0.9, prefit=True)
        peer.conformalize(both, labels["age_years"][chosen])
        ends = peer.predict_interval(both, symmetric_correction=True)[1][:, :, 0]
        np.testing.assert_allclose(ends, raw + one.limits["90"] * np.array([-1, 1]), atol=1e-6)


def test_small_and_unknown_groups_share_the_widest_limits(fitted):
    labels, p = (v.copy() for v in fitted[:2])
    site = labels["site"].astype("U9")
    site[:9], site[9:18] = "few", ""
    part = examples(labels | {"site": site})
    groups = fit_calibration(part, {"mc_mean": p}, 64, by=("site",)).groups
    *own, others = groups.models["mc_mean"]
    assert [one.group for one in own] == [("calm",), ("wild",)]
    assert others.group == () and others.rows == 18 < MIN_GROUP_ROWS
    names = [np.array(["few", "", "new", "calm"])]
    rows = groups.of_rows("mc_mean", dict.fromkeys(("50", "90", "set_90"), 0.0), names)
    widest = max(one.limits["90"] for one in own)
    assert (rows["90"][:3] == widest).all() and rows["90"][3] == own[0].limits["90"] < widest
    assert groups.in_none("mc_mean", names).tolist() == [True, True, True, False]


def test_rows_in_no_group_are_covered_too():
    """The hard quarter is in a hundred small groups, which the limits of all would not hold."""
    rng = np.random.default_rng(7)

    def draw(rows):
        labels, p = people(rows, rng)
        hard = labels["site"] == "wild"
        names = np.char.add("w", rng.integers(0, 100, rows).astype(str))
        return labels | {"site": np.where(hard, names, "calm")}, p

    labels, p = draw(1200)
    calibration = fit_calibration(examples(labels), {"mc_mean": p}, 64, by=("site",))
    labels, p = draw(6000)
    inside, hard = covered(calibration, labels, p), labels["site"] != "calm"
    assert inside[hard].mean() == pytest.approx(0.9, abs=0.03)
    assert inside.mean() == pytest.approx(0.9, abs=0.03)


def test_values_of_another_spelling_are_counted(fitted):
    labels, _, calibration = fitted
    assert count_in_none(calibration, labels, len(labels["site"])) == 0
    foreign = labels | {"site": np.char.upper(labels["site"])}
    assert count_in_none(calibration, foreign, len(labels["site"])) == len(labels["site"])
    assert count_in_none(calibration, None, 5) == 5
    with pytest.raises(InputError, match="must hold 5 values of 'site'"):
        group_names(("site",), examples(labels).target, np.ones((5, 101)), {"site": np.ones(3)})


def test_by_the_predicted_class_and_two_columns_at_once(fitted):
    labels, p, _ = fitted
    labels = labels | {"site": labels["site"].copy()}
    part = examples(labels)
    calibration = fit_calibration(part, {"mc_mean": p}, 64, by=("predicted", "site"))
    names = np.array(part.target.measured_names)[part.target.measured(p).argmax(axis=1)]
    for one in own_groups(calibration):
        chosen = (names == one.group[0]) & (labels["site"] == one.group[1])
        assert one.rows == chosen.sum() >= MIN_GROUP_ROWS
    assert group_names(("site",), part.target, p, {"age_years": 1}) is None
    known = {one.group[1] for one in own_groups(calibration)}
    labels["site"][:7] = "new"
    counted = sum(site not in known for site in labels["site"])
    assert count_in_none(calibration, labels, len(names)) == counted >= 7
    alone = fit_calibration(part, {"mc_mean": p}, 64, by=("predicted",))
    assert count_in_none(alone, labels, len(names)) == 0


def test_a_file_gives_it_back_and_damage_is_one_sentence(fitted, tmp_path):
    path = tmp_path / "calibration.json"
    fitted[2].save(path)
    assert RunCalibration.open(path) == fitted[2]
    for damage, words in (
        (lambda g: g["by"].append("race"), "told apart by each of"),
        (lambda g: g["models"]["mc_mean"].append(g["models"]["mc_mean"][0]), "one twice"),
        (lambda g: g["models"]["mc_mean"][0]["limits"].update({"90": 1e9}), "from -101 to 101"),
        (lambda g: g["models"]["mc_mean"][0]["limits"].update({"set_90": "x"}), "set_90"),
        (lambda g: g.update(by="site"), "a list"),
        (lambda g: g["models"]["mc_mean"][0].update(rows=10**6), "at most 1500 rows"),
    ):
        value = json.loads(path.read_text())
        damage(value["groups"])
        with pytest.raises(InputError, match="calibration.json") as caught:
            RunCalibration.from_json(path, value, None)
        assert words in str(caught.value)


def test_numbers_by_a_column():
    rng = np.random.default_rng(3)
    site = rng.integers(0, 2, 600)
    numbers = rng.normal(0, 1, 600) * (1 + 4 * site)
    store = EmbeddingStore(
        np.eye(4, dtype="float32")[np.arange(600) % 4], {"bmi": numbers, "site": site}
    )
    part = Examples.of(store, NumberTarget("bmi"))
    answers = np.column_stack([np.zeros(600), np.ones(600)])
    calibration = calibrate_numbers(None, part, answers, by=("predicted", "site"))
    assert calibration.groups.by == ("site",)  # no number is a class
    reach = {one.group[0]: one.limits["90"] for one in own_groups(calibration, "deterministic")}
    for group in (0, 1):
        scores = np.sort(np.abs(part.targets[site == group]))
        expected = scores[int(np.ceil(0.9 * (len(scores) + 1))) - 1]
        assert reach[str(group)] == pytest.approx(expected)
    assert type(calibration).from_json("c.json", json.loads(json.dumps(calibration.to_json()))) == (
        calibration
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two heads whose limits are by race, and its store."""
    folder = tmp_path_factory.mktemp("by")
    store = make_store(rows=900)
    store.labels = store.labels | {"race": np.array(["A", "B"])[np.arange(900) % 2]}
    store.save(folder / "store.h5")
    target = SeveralTargets(
        (age_target("age_years", "adience", by_years=True), choose_target(store, "gender"))
    )
    recipe = Recipe(epochs=2, conformal_by=("race",))
    train(store, target, recipe, folder / "run", validation_share=0.3, pictures=False)
    return folder / "run", folder / "store.h5"


def test_a_run_answers_by_the_columns_of_a_store(run):
    store = EmbeddingStore.open(run[1])
    for predictor in Predictor.heads(run[0]):
        groups = predictor.calibration.groups
        assert {one.group for one in groups.models["mc_mean"]} == {("A",), ("B",), ()}
        assert predictor.unknown_columns(store.labels) == []
        assert predictor.unknown_columns(None) == ["race"]
        by_store = list(predictor.rows(store, num_samples=8))
        plain = list(predictor.rows(store.embeddings, num_samples=8))
        given = list(predictor.rows(store.embeddings, num_samples=8, columns=store.labels))
        assert by_store == given
        key = "age_interval_90" if predictor.target.is_age else "set_90"
        if predictor.target.is_age:
            assert [a[key] for a in by_store] != [a[key] for a in plain]
        assert all(a["set_90"][0] in predictor.target.measured_names for a in by_store)


def test_evaluate_measures_the_sets_of_each_group(run):
    report = evaluate(*run, num_samples=8)
    store = EmbeddingStore.open(run[1])
    (gender,) = [p for p in Predictor.heads(run[0]) if p.label == "gender"]
    p = np.concatenate([c["mean"] for c in gender.uncertainty(store, num_samples=8)])
    sets = gender.sets(p, sampled=True, columns=store.labels)
    held = sets[np.arange(len(store)), store.labels["gender"]].mean()
    found = report["heads"]["gender"]["mc_mean"]
    assert found["set_90_coverage"] == pytest.approx(held)
    assert found["set_90_size"] == pytest.approx(sets.sum(axis=1).mean())


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (("nothing",), "nothing"),
        (("gender",), "known when the model answers"),
        (("age_group",), "known when the model answers"),
    ],
)
def test_columns_that_nobody_can_know_are_refused(by, words, tmp_path):
    store = make_store(rows=100)
    target = SeveralTargets(
        (age_target("age_years", "adience", by_years=True), choose_target(store, "gender"))
    )
    with pytest.raises(InputError, match=words):
        train(store, target, Recipe(epochs=1, conformal_by=by), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="conformal_by"):
        Recipe(conformal_by=("a", "a"))
    assert not Recipe(conformal_by=("a",), calibrate=False).calibrate  # nothing to be fitted
