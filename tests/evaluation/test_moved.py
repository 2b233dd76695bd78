"""Whether rows have moved and promises hold: a whole run, by evaluate, predict and in Python."""

import json
from dataclasses import replace

import numpy as np
import pytest
from damage import outcome, without_hashes
from data_sets import INFO, make_store
from scipy.stats import betabinom, binom, ks_2samp

from kerasmlp import EmbeddingStore, Predictor, Recipe, StoreInfo, choose_target, evaluate, train
from kerasmlp.data.examples import Examples
from kerasmlp.data.other_targets import NumberTarget, SeveralTargets
from kerasmlp.data.targets import Target
from kerasmlp.evaluation.promises import moved_and_promises
from kerasmlp.runs.moved import FALSE_ALARMS, MIN_ROWS, Moved, look_for_move
from kerasmlp.runs.reference import answer_scores
from kerasmlp.training.reference_fitting import fit_reference

ROTATION = np.linalg.qr(np.random.default_rng(5).normal(size=(32, 32)))[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("moved")


@pytest.fixture(scope="module")
def away():
    """Rows of the same people that no run has seen."""
    return make_store(rows=3000, seed=1)


@pytest.fixture(scope="module")
def run(folder):
    make_store(rows=2000).save(folder / "store.h5")
    words = ["--store", folder / "store.h5", "--run-dir", folder / "age", "--epochs", "6"]
    assert outcome("train-age", *words, "--validation-share", "0.3")[0] == 0
    return folder / "age"


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor(run)


@pytest.fixture(scope="module")
def answers(predictor, away):
    chunks = predictor.uncertainty(away.embeddings, num_samples=64, seed=0)
    mean = np.concatenate([chunk["mean"] for chunk in chunks])
    return {"deterministic": predictor.probabilities(away), "mc_mean": mean}


def examples(predictor, store):
    return Examples.of(store, predictor.target)


def test_rows_like_those_kept_back_are_seldom_called_moved(run, away, answers):
    """One in a hundred, of stores and rows kept back that are drawn anew together."""
    predictor, alarms = Predictor(run), 0
    fitted, p = predictor.reference, answers["deterministic"]
    of_answers = answer_scores(predictor.target, p)
    for seed in range(150):
        order = np.random.default_rng(seed).permutation(len(away))
        kept, rows = order[:1000], order[1000:1600]
        found = {"age": (of_answers[kept], np.arange(1000))}
        x = away.embeddings
        predictor.reference = fit_reference(fitted, x[kept], np.arange(1000), found, seed)
        moved = look_for_move([predictor], x[rows], {}, deterministic={"age_years": p[rows]})
        assert len(moved.p_values) == 3 and len(moved.rows) == 600
        alarms += bool(moved.noticed)
    assert alarms <= binom(150, FALSE_ALARMS).ppf(0.99)


def test_p_values_are_those_of_scipy(predictor, away):
    x, reference = away.embeddings[:500], predictor.reference
    moved = look_for_move([predictor], x, {})
    scores = {f"{k} directions": (reference.scores[k], v) for k, v in reference.of_rows(x).items()}
    own = answer_scores(predictor.target, predictor.probabilities(x))
    scores["answers on age"] = reference.answers["age"], own
    for name, both in scores.items():
        expected = ks_2samp(*both, method="asymp").pvalue
        assert moved.p_values[name] == pytest.approx(expected, abs=0.02)


def test_other_embedders_are_noticed_from_twenty_rows_on(predictor, away):
    x = (away.embeddings @ ROTATION).astype("float32")
    moved = look_for_move([predictor], x[:MIN_ROWS], {})
    assert moved.noticed and "20 rows have moved" in moved.sentence
    few = look_for_move([predictor], x[: MIN_ROWS - 1], {})
    assert not few.p_values and few.to_json()["moved"] is None
    assert few.sentence.endswith("20 rows of different groups to notice it, and here are 19")


def test_copies_of_few_rows_are_no_sample(predictor, away):
    """Forty copies of each of fifty rows: by themselves they would be called moved."""
    copies = np.repeat(away.embeddings[:50], 40, axis=0)
    alone = look_for_move([predictor], copies, {})
    grouped = look_for_move([predictor], copies, {"group": np.repeat(np.arange(50), 40)})
    assert alone.noticed and not grouped.noticed
    assert len(grouped.rows) == 50 and len(set(grouped.rows // 40)) == 50


def test_rows_that_the_run_has_learned_from_are_left_out(predictor, folder, away):
    own = EmbeddingStore.open(folder / "store.h5").embeddings
    both = np.concatenate([own, away.embeddings[:100]])
    moved = look_for_move([predictor], both, {})
    assert moved.learned_from == 2000 and (moved.rows >= 2000).all() and len(moved.rows) == 100
    assert "the run has learned from 2000 of them" in look_for_move([predictor], own, {}).sentence


@pytest.mark.parametrize("columns", [3, 8])
def test_tables_of_few_values_are_seldom_called_moved(columns, folder):
    """New rows are mostly equal to some that the run has learned from."""
    shares = np.linspace(0.3, 0.7, columns)

    def drawn(rows, seed, more=0.0):
        rng = np.random.default_rng(seed)
        x = (rng.random((rows, columns)) < shares + more).astype("float32")
        y = (x[:, 0] + x[:, 1] + rng.random(rows) > 1.4).astype(int)
        return EmbeddingStore(x, {"y": y}, StoreInfo(normalized=False))

    path = folder / f"table{columns}"
    train(drawn(1500, 0), Target("y", ("0", "1")), Recipe(epochs=2), path, validation_share=0.4)
    predictor, alarms = Predictor(path), 0
    for seed in range(1, 41):
        moved = look_for_move([predictor], drawn(500, seed).embeddings, {})
        assert len(moved.rows) == 500 and moved.learned_from > 400
        alarms += bool(moved.noticed)
    assert alarms <= binom(40, FALSE_ALARMS).ppf(0.99)
    assert look_for_move([predictor], drawn(500, 0, 0.2).embeddings, {}).noticed


def test_few_rows_prove_no_promise(predictor, away, answers):
    rows = examples(predictor, away).subset(np.arange(19))
    few = {name: values[:19] for name, values in answers.items()}
    found = moved_and_promises(predictor, rows, few, 64, 0)
    assert found["rows"] == 19 and found["promises_kept"] is None
    observed = found["promises"]["set_90"]["observed"]
    assert "so few say little of what it promises: 90% intervals" in found["sentence"]
    assert f"90% sets hold {observed:.1%}" in found["sentence"]


def test_the_sentence_is_of_all_rows_though_some_were_looked_at():
    some = Moved(np.arange(30), 50, 0, {"answers": 0.5}).sentence
    assert some.startswith("no sign that these 50 rows (30 looked at) have moved")
    assert "these 30 rows have moved" in Moved(np.arange(30), 30, 0, {"answers": 0.5}).sentence


def test_promises_that_hold_are_said_to(predictor, away, answers):
    found = moved_and_promises(predictor, examples(predictor, away), answers, 64, 0)
    assert found["moved"] is False and found["promises_kept"] is True
    assert set(found["promises"]) == {"interval_90", "set_90", "risk"}
    assert "no sign that these 3000 rows have moved" in found["sentence"]
    observed = found["promises"]["interval_90"]["observed"]
    assert f"and what it promises holds: 90% intervals hold {observed:.1%}" in found["sentence"]


def test_coverage_is_tested_as_scipy_does_group_by_group(predictor, away, answers):
    rows = examples(predictor, away)
    found = moved_and_promises(predictor, rows, answers, 64, 0)["promises"]
    mean, target = answers["mc_mean"], predictor.target
    names = np.array(target.measured_names)[target.measured(mean).argmax(axis=1)]
    inside = predictor.sets(mean, sampled=True)[np.arange(len(rows)), rows.targets]
    chances, counted, hits = np.ones(1), 0, 0
    own = [one for one in predictor.calibration.groups.models["mc_mean"] if one.group]
    for one in own:
        chosen = names == one.group[0]
        assert predictor.calibration.clusters == predictor.calibration.rows  # no two of a group
        rank = int(np.ceil(round(0.9 * (one.rows + 1), 9)))
        of_group = betabinom(chosen.sum(), rank, one.rows + 1 - rank)
        chances = np.convolve(chances, of_group.pmf(np.arange(chosen.sum() + 1)))
        counted, hits = counted + chosen.sum(), hits + inside[chosen].sum()
    assert found["set_90"]["rows"] == counted < len(rows) + 1
    assert found["set_90"]["observed"] == pytest.approx(hits / counted)
    assert found["set_90"]["p"] == pytest.approx(chances[: hits + 1].sum(), abs=1e-9)


@pytest.fixture(scope="module")
def families(folder):
    """A run on four rows of each person, and rows of others."""
    parents = make_store(rows=500, seed=2)
    x = np.repeat(parents.embeddings, 4, axis=0)
    x = x + 0.02 * np.random.default_rng(3).normal(size=x.shape)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")
    labels = {k: np.repeat(parents.labels[k], 4) for k in ("gender", "age_years")}
    store = EmbeddingStore(x, labels | {"person": np.arange(2000) // 4}, INFO)
    target = SeveralTargets((choose_target(store, "gender"), NumberTarget("age_years", "years")))
    how = {"validation_share": 0.4, "group": "person", "pictures": False}
    train(store, target, Recipe(epochs=2, dropout_rate=0.0), folder / "families", **how)
    return Predictor.heads(folder / "families")


@pytest.mark.parametrize("head", [0, 1])
def test_rows_of_one_group_count_once_in_what_is_promised(families, away, head, monkeypatch):
    predictor = families[head]
    calibration = predictor.calibration
    assert (calibration.rows, calibration.clusters) == (800, 200)
    rows = examples(predictor, away)
    answers = {"deterministic": predictor.probabilities(away)}
    (found,) = moved_and_promises(predictor, rows, answers, 0, 0)["promises"].values()
    hits = round(found["observed"] * 3000)
    assert found["rows"] == 3000  # 181 of 200 reach as far as 721 of 800
    assert found["p"] == pytest.approx(betabinom(3000, 181, 20).cdf(hits), rel=1e-6)
    monkeypatch.setattr(predictor, "calibration", replace(calibration, clusters=None))  # older
    (older,) = moved_and_promises(predictor, rows, answers, 0, 0)["promises"].values()
    assert older["p"] == pytest.approx(betabinom(3000, 721, 80).cdf(hits), rel=1e-6)


def test_evaluate_draws_people_by_the_column_that_a_run_was_trained_with(families, away, tmp_path):
    store = away.subset(range(300))
    store.labels |= {"person": np.arange(300) // 3, "site": np.arange(300) // 150}
    store.save(tmp_path / "people.h5")
    found = evaluate(families[0].path, tmp_path / "people.h5", tmp_path / "e", by="site")
    for head in ("gender", "age_years"):
        of_sites = found["heads"][head]["by"]["site"].values()
        assert [(one["rows"], one["clusters"]) for one in of_sites] == [(150, 50)] * 2
        assert found["heads"][head]["moved"]["rows"] == 100


def test_a_risk_is_tested_as_scipy_does(predictor, away, answers):
    rows = examples(predictor, away)
    risk = moved_and_promises(predictor, rows, answers, 64, 0)["promises"]["risk"]
    threshold = predictor.threshold_nats(risk["promised"], num_samples=64)
    p = predictor.target.measured(answers["mc_mean"])
    sure = -(p * np.log(np.where(p > 0, p, 1))).sum(1) <= threshold
    wrong = (p.argmax(axis=1) != rows.targets)[sure]
    assert (risk["rows"], risk["observed"]) == (sure.sum(), pytest.approx(wrong.mean()))
    expected = binom.sf(wrong.sum() - 1, sure.sum(), risk["promised"])
    assert risk["p"] == pytest.approx(expected, abs=1e-9)
    few = moved_and_promises(predictor, rows, answers, 63, 0)["promises"]
    assert "risk" not in few  # promised to the mean of 64 passes


def test_broken_promises_are_said(predictor, away, answers):
    older = EmbeddingStore(
        away.embeddings,
        away.labels | {"age_years": np.minimum(away.labels["age_years"] + 30, 100)},
        INFO,
    )
    found = moved_and_promises(predictor, examples(predictor, older), answers, 64, 0)
    assert found["moved"] is False and found["promises_kept"] is False
    assert "what the run promises does not hold: 90% intervals hold" in found["sentence"]


def test_evaluate_says_one_sentence_and_the_report_holds_it(run, folder, away, tmp_path):
    turned = (away.embeddings[:200] @ ROTATION).astype("float32")
    EmbeddingStore(turned, {k: v[:200] for k, v in away.labels.items()}, StoreInfo()).save(
        tmp_path / "turned.h5"
    )
    words = ["evaluate", run, tmp_path / "turned.h5", "--output", tmp_path / "e"]
    code, out, _ = outcome(*words, "--num-samples", "0")
    found = json.loads((tmp_path / "e" / "report.json").read_text())["moved"]
    assert code == 0 and out.count(found["sentence"]) == 1 and found["moved"] is True
    assert found["rows"] == 200 and found["false_alarms"] == 0.01
    assert min(found["p_values"].values()) < 1e-12
    assert "these 200 rows have moved" in found["sentence"]


def test_predict_says_it_of_moved_stores_alone(run, away, tmp_path):
    away.subset(range(300)).save(tmp_path / "same.h5")
    turned = (away.embeddings[:300] @ ROTATION).astype("float32")
    EmbeddingStore(turned, {}, StoreInfo()).save(tmp_path / "turned.h5")
    EmbeddingStore(turned[:10], {}, StoreInfo()).save(tmp_path / "few.h5")
    said = {}
    for name in ("same", "turned", "few"):
        words = [run, tmp_path / f"{name}.h5", "--num-samples", "0"]
        code, out, said[name] = outcome("predict", *words)
        assert code == 0 and out.count("\n") == (10 if name == "few" else 300)
    assert said["same"] == said["few"] == ""
    assert said["turned"].count("\n") == 1
    assert said["turned"].startswith(f"note: {run}: these 300 rows have moved")
    assert said["turned"].endswith("coverage and risk is not for such rows\n")


def test_a_run_without_reference_still_has_its_promises_tested(run, away, answers, tmp_path):
    import shutil

    older = shutil.copytree(run, tmp_path / "older")
    (older / "reference.json").unlink()
    without_hashes(older)
    predictor = Predictor(older)
    found = moved_and_promises(predictor, examples(predictor, away), answers, 64, 0)
    assert found["moved"] is None and found["promises_kept"] is True
    assert "is not known" in found["sentence"] and "promises holds" in found["sentence"]
