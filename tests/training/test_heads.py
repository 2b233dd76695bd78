"""Numbers and several labels: what is learned, saved, answered and measured of them."""

import json
import math

import keras
import numpy as np
import pytest

from kerasmlp import EmbeddingStore, Predictor, Recipe, fit, load_model, predict_samples, train
from kerasmlp.data.label_kinds import kind_of_label
from kerasmlp.data.other_targets import NumberTarget, SeveralTargets, target_from_config
from kerasmlp.data.targets import age_target, choose_target
from kerasmlp.evaluation.evaluate import evaluate
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.runs import answering_model
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.embeddings import EmbeddingTraining
from kerasmlp.training.heads import Heads
from kerasmlp.training.losses import GaussianNLL, JointLoss, RankedCrossentropy
from kerasmlp.training.rows import Rows
from kerasmlp.uncertainty.numbers import conformal_quantiles, fit_floor, fit_spread
from kerasmlp.uncertainty.samples import predict_uncertainty
from kerasmlp.utils.checks import InputError

RECIPE = Recipe(
    epochs=40, learning_rate=3e-3, batch_size=32, noise_std=0.0, mixup_alpha=0.0, dropout_rate=0.1
)
HOW = {"validation_share": 0.1, "seed": 0, "group": None}


@pytest.fixture(scope="module")
def store() -> EmbeddingStore:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 16))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    gender, height = (x[:, 0] > 0).astype(int), 170 + 60 * x[:, 1] + rng.normal(size=400)
    gender[:30], height[30:70] = -1, np.nan
    years = np.clip(40 + 80 * x[:, 2], 0, 100)
    return EmbeddingStore(x, {"gender": gender, "height": height, "age_years": years})


def three(store: EmbeddingStore) -> SeveralTargets:
    age = age_target("age_years", "adience", by_years=True)
    return SeveralTargets((age, choose_target(store, "gender"), NumberTarget("height", "cm")))


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    targets = {"number": NumberTarget("height", "cm"), "three": three(store)}
    reports = {
        name: train(store, target, RECIPE, folder / name, test_share=0.2)
        for name, target in targets.items()
    }
    return folder, targets, reports


def test_losses_are_those_of_numpy():
    rng = np.random.default_rng(0)
    y, mean, std = rng.normal(size=8), rng.normal(size=8), rng.uniform(0.5, 2, 8)
    weight = np.array([1, 1, 1, 1, 1, 0.5, 0.25, 0])
    truth = np.stack([y * weight, weight], axis=1).astype("float32")
    answers = np.stack([mean, std], axis=1).astype("float32")
    nll = 0.5 * ((y - mean) / std) ** 2 + np.log(std) + 0.5 * np.log(2 * np.pi)
    found = keras.ops.convert_to_numpy(GaussianNLL(beta=0.5).call(truth, answers))
    np.testing.assert_allclose(found, weight * std * nll, rtol=1e-5)

    classes = np.eye(3, dtype="float32")[rng.integers(0, 3, 8)] * (weight > 0)[:, None]
    p = rng.dirichlet(np.ones(3), 8).astype("float32")
    loss = JointLoss(
        [RankedCrossentropy(rps_weight=2.0, partial=True), GaussianNLL(beta=0.0)],
        sizes=[3, 2], weights=[0.5, 3.0],
    )  # fmt: skip
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    both = np.concatenate([classes, truth], 1), np.concatenate([p, answers], 1)
    known = weight > 0
    cross = np.where(known, -np.log((classes * p).sum(1) + ~known), 0)
    ranked = ((np.cumsum(p, 1) - np.cumsum(classes, 1)) ** 2).sum(1) * known
    expected = (0.5 * (cross + 2 * ranked) + 3 * weight * nll).mean()
    for one in (loss, again):
        assert float(one(*both)) == pytest.approx(expected, rel=1e-5)


def test_each_head_counts_by_the_root_of_its_constant_loss_on_its_own_rows(store):
    heads = Heads(Rows.of(store, three(store), None, HOW), RECIPE)
    names = [head.name for head in heads.heads]
    assert names == ["age_years", "gender", "height"]
    targets = np.asarray(heads.targets)
    assert targets.shape == (360, 101 + 2 + 2)
    for head, columns in zip(heads.heads, heads.columns, strict=True):
        known = head.rows.training.known
        mass = targets[:, columns][:, -1:] if head.target.is_number else targets[:, columns]
        assert ((mass.sum(axis=1) > 0.5) == known).all()
        assert head.target.is_number or known.sum() < 360 or head.name == "age_years"
    constants = []
    for head, columns in zip(heads.heads, heads.columns, strict=True):
        known = head.rows.training.known
        mean = targets[known][:, columns].mean(axis=0)
        answer = [0, 1] if head.target.is_number else mean
        constants.append(np.tile(answer, (360, 1)).astype("float32"))
    total = float(heads.loss(targets, np.concatenate(constants, axis=1)))
    roots = [head.constant_loss() ** 0.5 * head.rows.training.known.mean() for head in heads.heads]
    assert total == pytest.approx(sum(roots), rel=1e-4)
    number = heads.heads[2].constant_loss()
    assert number == pytest.approx(0.5 * math.log(2 * math.pi) + 0.5, rel=1e-4)


def test_a_number_is_answered_in_its_unit(runs, store):
    folder, _, reports = runs
    report, predictor = reports["number"], Predictor(folder / "number")
    test, known = report["test"], np.isfinite(store.labels["height"])
    assert test["r2"] > 0.5 and report["validation"]["rmse"] < 0.7 * report["majority"]["rmse"]
    mean, std = predictor.probabilities(store.embeddings).astype(float).T
    assert abs(mean[known].mean() - 170) < 10 and (std > 0).all()
    layer = predictor.model.get_layer("gaussian")
    center, scale, *_ = layer.get_weights()
    assert 150 < center < 190 and 8 < scale < 25
    answers = list(predictor.rows(store.embeddings[:50], num_samples=16))
    samples = predict_samples(predictor.mc_model, store.embeddings[:50], num_samples=16)
    for answer, passes in zip(answers, samples.transpose(1, 0, 2).astype(float), strict=True):
        aleatoric, epistemic = (passes[:, 1] ** 2).mean(), passes[:, 0].var()
        assert answer["height"] == pytest.approx(passes[:, 0].mean(), rel=1e-5)
        assert answer["aleatoric_std"] == pytest.approx(aleatoric**0.5, rel=1e-4)
        assert answer["epistemic_std"] == pytest.approx(epistemic**0.5, rel=1e-3)
        assert answer["total_std"] == pytest.approx((aleatoric + epistemic) ** 0.5, rel=1e-4)
        assert answer["unit"] == "cm"
        assert answer["uncertainty"] == pytest.approx(min(answer["total_std"] / scale, 1))
        reach = predictor.calibration.quantiles["mc_mean"]["90"] * answer["total_std"]
        middle = answer["height"]
        assert answer["interval_90"] == pytest.approx([middle - reach, middle + reach])
    with pytest.raises(InputError, match="`max_risk` must be left out for height, a number"):
        predictor.threshold_nats(0.1, num_samples=64)


def test_several_heads_are_one_function(runs, store):
    folder, _, reports = runs
    model = load_model(folder / "three")
    assert sorted(model.output) == ["age_years", "gender", "height"]
    heads = {head.name: head for head in Predictor.heads(folder / "three")}
    assert list(heads) == ["age", "gender", "height"]
    x = store.embeddings[:20]
    outputs = model.predict(x, verbose=0)
    np.testing.assert_array_equal(
        heads["age"].probabilities(np.asfortranarray(x)), outputs["age_years"]
    )
    for head in heads.values():
        np.testing.assert_array_equal(head.probabilities(x), outputs[head.label])
    samples = predict_samples(heads["age"].mc_model, x, num_samples=8, masks="shared")
    assert {k: v.shape for k, v in samples.items()} == {
        "age_years": (8, 20, 101), "gender": (8, 20, 2), "height": (8, 20, 2)
    }  # fmt: skip
    alone = keras.Model(model.input, model.output["gender"])
    of_all = predict_samples(model, x, num_samples=8, seed=3)["gender"]
    np.testing.assert_allclose(
        predict_samples(alone, x, num_samples=8, seed=3), of_all, rtol=1e-5, atol=1e-6
    )
    report = reports["three"]
    assert report["rows"]["unlabelled"] == 0 and report["rows"]["test"] == 80
    assert report["heads"]["gender"]["validation"]["rows"] < report["rows"]["validation"]
    assert report["validation"]["gender_nll"] == report["heads"]["gender"]["validation"]["nll"]
    assert report["test"]["height_r2"] > 0.3 and report["test"]["gender_accuracy"] > 0.7
    with pytest.raises(InputError, match="`label` must be one of age_years, gender, height"):
        Predictor(folder / "three")


def test_heads_asked_one_after_the_other_share_the_passes(runs, store, monkeypatch):
    folder, _, _ = runs
    x, calls = np.tile(store.embeddings, (4, 1)), []

    def counted(*args, **how):
        calls.append(how["first_row"])
        return predict_uncertainty(*args, **how)

    monkeypatch.setattr(answering_model, "predict_uncertainty", counted)
    heads = Predictor.heads(folder / "three")
    first = [np.concatenate([c["mean"] for c in h.uncertainty(x, num_samples=4)]) for h in heads]
    assert calls == [0, 1024]
    heads[0].probabilities(x[:5])[:] = 7  # what was handed out may be changed
    assert (heads[0].probabilities(x[:5]) < 2).all()
    for head, expected in zip(heads, first, strict=True):  # of 400 rows the masks are the same
        (again,) = head.uncertainty(x[:400], num_samples=4)
        np.testing.assert_allclose(again["mean"], expected[:400], rtol=1e-5)
    assert calls == [0, 1024, 0]


@pytest.mark.parametrize("name", [pytest.param("number", marks=pytest.mark.slow), "three"])
def test_evaluate_measures_every_head(runs, store, tmp_path, name):
    folder, _, _ = runs
    store.save(tmp_path / "store.h5")
    report = evaluate(folder / name, tmp_path / "store.h5", tmp_path / "out", num_samples=8)
    part = report["heads"]["height"] if name == "three" else report
    known = np.isfinite(store.labels["height"])
    numbers = store.labels["height"][known]
    answers = Predictor(folder / name, "height").probabilities(store.embeddings[known])
    mean, std = answers.astype(float).T
    found = part["deterministic"]
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((numbers - mean) ** 2)))
    assert found["r2"] == pytest.approx(1 - np.mean((numbers - mean) ** 2) / numbers.var())
    normal = 0.5 * ((numbers - mean) / std) ** 2 + np.log(std) + 0.5 * math.log(2 * math.pi)
    assert found["nll"] == pytest.approx(normal.mean())
    reach = Predictor(folder / name, "height").calibration.quantiles["deterministic"]["90"]
    inside = np.abs(numbers - mean) <= reach * std
    assert found["interval_90_coverage"] == pytest.approx(inside.mean())
    assert part["rows_without_label"] == 40
    inner = tmp_path / "out" / ("head_height" if name == "three" else ".")
    assert {p.name for p in inner.iterdir()} >= {"report.json", "predicted.png", "intervals.png"}
    if name == "three":
        assert report["mc_mean"]["gender_nll"] == report["heads"]["gender"]["mc_mean"]["nll"]
        assert json.loads((tmp_path / "out/report.json").read_text())["heads"].keys() == {
            "age", "gender", "height"
        }  # fmt: skip
    again = evaluate(
        folder / name, tmp_path / "store.h5", tmp_path / "out", num_samples=0, force=True
    )
    assert again["num_samples"] == 0


def test_weights_go_on_in_the_unit_they_were_learned_in(runs, store, tmp_path):
    folder, targets, _ = runs
    rng = np.random.default_rng(5)
    x = rng.normal(size=(100, 16))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    other = EmbeddingStore(x, {"height": 190 + 60 * x[:, 1]})
    recipe = RECIPE.replace(epochs=1, learning_rate=1e-5)
    report = train(other, targets["number"], recipe, tmp_path / "run", init=folder / "number")
    before = Predictor(folder / "number").probabilities(x)[:, 0]
    after = Predictor(tmp_path / "run").probabilities(x)[:, 0]
    assert np.abs(before - after).max() < 3  # the statistics of batch norm move a little
    assert report["before_training"]["rmse"] == pytest.approx(report["validation"]["rmse"], 0.1)


def training_of(store, target, init):
    rows = Rows.of(store, target, None, HOW)
    settings = HOW | {"steps_per_epoch": None, "data_digest": store.digest()}
    return EmbeddingTraining(
        rows, target, RECIPE, settings, store.info, Workbench(), RunFolder(init), False
    )


@pytest.mark.parametrize("unit", ["cm", "inch"])
def test_what_is_learned_is_in_the_unit_of_the_answers(runs, store, unit):
    """That of the weights it begins with; of another number its own."""
    folder, _, _ = runs
    numbers = 25 + 5 * store.embeddings[:, 3]
    others = EmbeddingStore(store.embeddings, {"height": numbers})
    training = training_of(others, NumberTarget("height", unit), folder / "number")
    (head,) = training.heads.heads
    answers = head.in_unit(training.targets)[:, 0]
    expected = training.rows.heads[0].training.targets
    np.testing.assert_allclose(answers, expected, atol=1e-4)
    begun = load_model(folder / "number").get_layer("gaussian").get_weights()
    assert (head.center == begun[0]) == (unit == "cm")
    assert [float(v) for v in training.model.get_layer("gaussian").get_weights()] == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("labels", "test", "message"),
    [
        ({"few": [1.0, 2.0] + [np.nan] * 398}, None, "`few` must be known in one of the rows kept"),
        ({}, {"height": [np.nan] * 400}, "`height` must be known in one of the rows of the test"),
        ({"time": 1.7e9 + np.arange(400.0)}, None, "`time` must hold numbers .* a ten-thousandth"),
        ({"large": 1e38 * np.arange(400.0)}, None, "`large` must hold numbers within float32's"),
        ({"uncertainty": np.arange(400.0)}, None, "`uncertainty` must have another name"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_anything_is_written(
    store, tmp_path, labels, test, message
):
    height = {"height": np.arange(400.0) + 100}
    known = EmbeddingStore(store.embeddings, height | labels)
    targets = [NumberTarget(name) for name in (height | labels)]
    target = SeveralTargets(tuple(targets)) if labels else targets[0]
    if test is not None:
        test = EmbeddingStore(store.embeddings, {"height": np.array(test["height"])})
    with pytest.raises(InputError, match=message):
        train(known, target, RECIPE, tmp_path / "run", test=test)
    assert not (tmp_path / "run").exists()


def test_a_row_counts_by_its_mass():
    y, p = np.float32([[0, 1, 0]]), np.float32([[0.2, 0.3, 0.5]])
    for mass in (0.0, 0.25, 1.0, 2.0):
        of_one = RankedCrossentropy(rps_weight=1.0).call(y, p)
        of_all = RankedCrossentropy(rps_weight=1.0, partial=True).call(mass * y, p)
        np.testing.assert_allclose(of_all, mass * np.array(of_one), rtol=1e-6)


@pytest.mark.parametrize(
    ("losses", "sizes", "message"),
    [
        (["mse"], [2], "must be instances of keras.losses.Loss"),
        ([GaussianNLL()], [2, 2], "must be as many as sizes and weights"),
    ],
)
def test_bad_joint_losses(losses, sizes, message):
    with pytest.raises(ValueError, match=message):
        JointLoss(losses, sizes=sizes, weights=[1])


@pytest.mark.parametrize("dtype", [float, int])
def test_classes_of_minus_one(dtype):
    """Among integers -1 says that nothing is known; among floats NaN does."""
    column = np.array([-1, 0, 1, 10, 0, 10]).astype(dtype)
    column = np.append(column, np.nan) if dtype is float else column
    store = EmbeddingStore(np.eye(len(column)), {"mood": column})
    target = choose_target(store, "mood")
    expected = ("-1", "0", "1", "10") if dtype is float else ("0", "1", "10")
    assert target.class_names == expected
    codes = [0, 1, 2, 3, 1, 3, -1] if dtype is float else [-1, 0, 1, 2, 0, 2]
    assert target.encode(store).tolist() == codes


def test_spread_and_quantiles():
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=4000), rng.uniform(1, 3, 4000)
    numbers = mean + 1.7 * std * rng.normal(size=4000)
    assert fit_spread(numbers, mean, std**2, np.zeros(4000)) == pytest.approx(1.7, rel=0.04)
    quantiles = conformal_quantiles(numbers, mean, std)
    assert quantiles["90"] == pytest.approx(1.7 * 1.645, rel=0.05)
    assert conformal_quantiles(numbers[:8], mean[:8], std[:8]) is None


def test_a_floor_where_the_model_is_too_sure_of_some_rows():
    """Against the likelihood on a grid of both."""
    rng = np.random.default_rng(0)
    own = np.exp(rng.normal(0, 1.5, 300))
    mean, true = rng.normal(size=300), 0.3 * own + 0.5
    numbers = mean + np.sqrt(true) * rng.normal(size=300)
    squares = (numbers - mean) ** 2

    def nll(factor, floor):
        variance = factor**2 * own + floor**2
        return (np.log(variance) + squares / variance).mean()

    found = fit_floor(numbers, mean, own)
    grid = np.linspace(0, 1.5, 61)
    best = min(((a, b) for a in grid for b in grid if a or b), key=lambda pair: nll(*pair))
    assert nll(*found) <= nll(*best) + 1e-3
    np.testing.assert_allclose(found, best, atol=0.1)
    np.testing.assert_allclose(np.square(found), [0.3, 0.5], atol=0.15)
    assert nll(*found) < nll(fit_spread(numbers, mean, own, np.zeros(300)), 0) - 0.05
    own = np.where(rng.random(2000) < 0.6, 1e-6, 1.0)  # sure without reason
    numbers = rng.normal(size=2000) * np.sqrt(own + 0.25)
    np.testing.assert_allclose(fit_floor(numbers, np.zeros(2000), own), [1, 0.5], atol=0.1)
    exact = fit_floor(mean, mean, np.ones(300))
    assert 0 < math.hypot(*exact) < 0.5 and np.isfinite(exact).all()


def test_targets_come_back_from_json(store):
    for target in (*three(store).heads, three(store)):
        assert target_from_config(json.loads(json.dumps(target.to_config()))) == target


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (np.array(["a", "b"] * 100), "classes"),
        (np.array([True, False] * 100), "classes"),
        (np.arange(200) % 7, "classes"),
        (np.arange(200) % 7 + 0.0, "classes"),
        (np.arange(200) % 40 + 0.0, "number"),
        (np.linspace(0, 1, 200), "number"),
        (np.arange(200), None),
    ],
)
def test_what_a_column_is(column, kind):
    store = EmbeddingStore(np.eye(200), {"y": column})
    if kind is None:
        with pytest.raises(InputError, match="`y` must be told by `--task classes` or `--task n"):
            kind_of_label(store, "y")
    else:
        assert kind_of_label(store, "y")[0] == kind
    assert kind_of_label(store, "y", "number") == ("number", "as --task says")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"y": np.full(60, 1.5)}, "must hold at least two different numbers"),
        ({"y": np.full(60, np.nan)}, "must hold at least two different numbers"),
        ({"y": np.array(["a"] * 60)}, "must hold numbers"),
        ({"y": np.r_[np.inf, np.zeros(59)]}, "infinity"),
    ],
)
def test_bad_numbers(labels, message, tmp_path):
    with pytest.raises(InputError, match=message):
        store = EmbeddingStore(np.eye(60), labels)
        train(store, NumberTarget("y"), RECIPE, tmp_path / "run")


def test_heads_of_any_name():
    model = ResidualMLP(heads={"hair/colour": 2, "hair_colour": 3, "年齢": "gaussian"}, width=8)
    assert {k: v.shape[1] for k, v in model.output.items()} == {
        "hair/colour": 2, "hair_colour": 3, "年齢": 2
    }  # fmt: skip
    with pytest.raises(ValueError, match="`heads` must be two or more"):
        ResidualMLP(heads={"a": 2}, width=8)


@pytest.mark.parametrize("form", ["{:.2f}", "{:.1f}%", "-{:.3f}"])
def test_text_that_looks_like_numbers_must_be_told(form):
    values = [form.format(v).replace(".", ",") for v in np.linspace(1, 60, 40)]
    store = EmbeddingStore(np.eye(40), {"y": np.array(values)})
    with pytest.raises(
        InputError, match="must hold numbers, or be told by `--task classes` .of several y=c"
    ):
        kind_of_label(store, "y")
    assert kind_of_label(store, "y", "classes")[0] == "classes"
    codes = EmbeddingStore(np.eye(40), {"y": np.array([f"{k:04d}" for k in range(40)])})
    assert kind_of_label(codes, "y")[0] == "classes"
    words = EmbeddingStore(np.eye(40), {"y": np.array([f"a{v}" for v in values])})
    assert kind_of_label(words, "y")[0] == "classes"


def test_few_rows_kept_back_make_deviations_larger_and_are_told(store, tmp_path):
    part = store.subset(np.arange(100, 160))
    report = train(part, NumberTarget("height", "cm"), RECIPE, tmp_path / "run", pictures=False)
    assert report["rows"]["validation"] == 6
    layer = load_model(tmp_path / "run").get_layer("gaussian")
    _, scale, spread, floor = map(float, layer.get_weights())
    assert spread == 1 and floor * scale == pytest.approx(report["validation"]["rmse"], rel=1e-4)
    assert report["spread"] == {"factor": 1.0, "floor": pytest.approx(floor * scale, rel=1e-5)}
    assert any("only 6 rows are kept back: the standard dev" in note for note in report["notes"])


def test_columns_that_float32_cannot_tell_are_named(store, tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 4))
    x[:, 1] += 1.7e9  # seconds since 1970
    with pytest.raises(InputError, match=r"`X` .*float32 tells apart.* about \d+.\d+ in column 1"):
        fit(x, x[:, 0])
    x[:, 1] += 1e3 * x[:, 0]
    times = EmbeddingStore(x, {"y": x[:, 0]}, type(store.info)(normalized=False))
    report = train(times, NumberTarget("y"), RECIPE, tmp_path / "run", pictures=False)
    assert any(note.startswith("column 1 of the rows") for note in report["notes"])
