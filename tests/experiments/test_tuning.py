"""A search is the same however it is interrupted or spread, and trains what it says."""

import csv
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from damage import altered
from data_sets import ROOT, make_store
from forked import copy_of, fresh_python
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.oracles import HyperbandOracle

from kerasmlp import cli
from kerasmlp.data.joining import open_stores
from kerasmlp.data.targets import choose_age_target, choose_target
from kerasmlp.experiments.tuning import tune as running
from kerasmlp.experiments.tuning.one_file import hyperparameters
from kerasmlp.experiments.tuning.oracle import SearchOracle
from kerasmlp.experiments.tuning.plan import Cost, TuningPlan, describe, longest_within
from kerasmlp.experiments.tuning.search_files import best_of, project_name
from kerasmlp.experiments.tuning.space import SPACES, Choice, LogRange, place_of, recipe_of, rounded
from kerasmlp.experiments.tuning.spread import WorkerPool, answer_workers, role, work
from kerasmlp.experiments.tuning.trial import TrialRunner
from kerasmlp.experiments.tuning.tune import tune
from kerasmlp.models.presets import PRESETS, Recipe
from kerasmlp.models.recipe_files import find_recipe
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.embeddings import train
from kerasmlp.utils.checks import InputError

TINY = {
    "learning_rate": LogRange(1e-4, 1e-1),
    "weight_decay": LogRange(1e-3, 0.1),
    "num_blocks": Choice((0, 1)),
    "residuals_per_block": Choice((0,)),
}
BASE = Recipe(batch_size=64, num_blocks=0, dropout_rate=0.3, mixup_alpha=0.0)


@pytest.fixture(autouse=True)
def tiny_space(monkeypatch):
    monkeypatch.setitem(SPACES, "tiny", TINY)
    # The command changes how its process compiles, which here runs other tests of bits, too.
    monkeypatch.setattr("kerasmlp.experiments.tuning.trial.trace_faster", lambda: None)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(rows=300, width=16)


@pytest.fixture(scope="module")
def path(store, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "store.h5"
    store.save(path)
    return path


def plan_of(store, **values):
    settings = {"base": BASE, "space": "tiny", "max_epochs": 4, **values}
    return TuningPlan(target=choose_target(store, "gender"), **settings)


def trials_of(run_dir):
    """The trials of a search without their times and numbers, which depend on its course."""
    with open(Path(run_dir) / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ["bracket", "round", "first_epoch", "epochs", *TINY, "val_loss"]
    return sorted(tuple(row[n] for n in names) for row in rows)


class OnLearningRate(BaseTuner):
    def run_trial(self, trial):
        return {"val_loss": trial.hyperparameters.values["learning_rate"]}


# ---- plan and space


@pytest.mark.parametrize(
    ("max_epochs", "factor", "trials", "epochs"),
    [(9, 3, 23, 75), (10, 2, 46, 170), (30, 3, 90, 576), (1, 2, 1, 1)],
)
def test_trials_and_epochs_are_those_of_keras_tuners_hyperband(
    store, tmp_path, max_epochs, factor, trials, epochs
):
    plan = plan_of(store, max_epochs=max_epochs, factor=factor)
    assert (plan.num_trials, plan.num_epochs) == (trials, epochs)
    seed = SearchOracle(plan, tmp_path).seed
    theirs = HyperbandOracle(
        "val_loss", max_epochs, factor, 1, seed, hyperparameters(plan.dimensions)
    )
    theirs.verbose = 0
    tuner = OnLearningRate(theirs, directory=tmp_path / "theirs")
    tuner.search()
    values = [trial.hyperparameters.values for trial in theirs.trials.values()]
    counts = Counter((v["tuner/initial_epoch"], v["tuner/epochs"]) for v in values)
    planned = Counter()
    for rounds in plan.brackets:
        for (size, until), begin in zip(rounds, [0] + [e for _, e in rounds], strict=False):
            planned[begin, until] += size
    assert counts == planned
    drawn = {v["learning_rate"] for v in values}
    assert drawn == {row[2] for row in simulated(plan, tmp_path / "ours")}


def test_the_papers_space_is_that_of_the_paper():
    space = SPACES["paper"]
    assert space["learning_rate"] == space["weight_decay"] == LogRange(1e-6, 1e-1)
    assert space["gamma"] == LogRange(1e-6, 1.0)
    assert space["batch_size"] == Choice((128, 256, 512))
    assert space["num_blocks"] == space["residuals_per_block"] == Choice((0, 1, 2, 3, 4, 5))
    assert PRESETS["paper-age"].dropout_rate == PRESETS["paper-gender"].dropout_rate == 0.05


@pytest.mark.parametrize("space", ["narrow", "paper"])
def test_every_value_of_a_space_makes_a_recipe(space):
    kinds = SPACES[space].items()
    for pick in (min, max):
        values = {
            n: pick(k.values) if isinstance(k, Choice) else pick(k.low, k.high) for n, k in kinds
        }
        recipe = recipe_of(Recipe(), {**values, "tuner/epochs": 3, "tuner/trial_id": "0001"})
        assert {n: getattr(recipe, n) for n in values} == values


def test_plan_and_cost_in_words(store):
    plan = plan_of(store, max_epochs=10, space="paper")
    text = describe(plan, Cost(trace_seconds=6.0, epoch_seconds=1.0), workers=2)
    assert "46 trials, 170 epochs, at most 10 each" in text
    assert "10 × 2 → 5 × 3 → 3 × 5 → 2 × 10" in text
    assert "about" in text and "6.0 s to trace a network, 1.00 s an epoch" in text


def test_the_longest_plan_within_a_budget(store):
    plan, cost = plan_of(store), Cost(trace_seconds=1.0, epoch_seconds=1.0)
    ten = cost.seconds(replace(plan, max_epochs=10))

    def longest(*settings):
        return longest_within(plan, 300, lambda xla: cost, *settings).max_epochs

    assert longest(ten) == 10 and longest(ten - 1) == 9 and longest(ten / 2, 2) == 10
    with pytest.raises(InputError, match="`--budget-minutes` must be at least 1 for these data"):
        longest(1.0)


def test_each_length_of_plan_is_costed_with_its_own_compiler(store):
    plan = plan_of(store, base=Recipe(), space="narrow")
    costs = {True: Cost(2.8, 1.02), False: Cost(1.5, 1.8)}
    ten, twelve = (replace(plan, max_epochs=n) for n in (10, 12))
    assert not ten.uses_xla(19_000) and twelve.uses_xla(19_000)
    assert costs[True].seconds(twelve) < costs[False].seconds(ten)
    for seconds in range(100, 4_500, 300):
        found = longest_within(plan, 19_000, costs.get, seconds)
        longer = replace(found, max_epochs=found.max_epochs + 1)
        assert costs[found.uses_xla(19_000)].seconds(found) <= seconds
        assert costs[longer.uses_xla(19_000)].seconds(longer) > seconds


def test_xla_only_where_it_is_earned_back(store):
    plan = plan_of(store, base=Recipe(), space="narrow", max_epochs=10)
    assert not plan.uses_xla(5_400) and plan.uses_xla(100_000)
    assert not replace(plan, space="paper").uses_xla(100_000)


# ---- the oracle


def simulated(plan, folder, *, at_once=1, kill_every=None, order=None):
    """Runs an oracle on made-up losses, several trials at once; returns its trials."""
    oracle = SearchOracle(plan, folder)
    rng, running, calls = np.random.default_rng(order), {}, 0
    while True:
        calls += 1
        if kill_every and calls % kill_every == 0 and oracle.path.exists():
            oracle, running = SearchOracle(plan, folder), {}
            oracle.reload()
        tuner = f"tuner{rng.integers(at_once)}"
        if tuner in running and rng.random() < 0.5:
            trial = running.pop(tuner)
            values = trial.hyperparameters.values
            loss = abs(np.log10(values["learning_rate"]) + 2) + 1 / values["tuner/epochs"]
            oracle.update_trial(trial.trial_id, {"val_loss": loss, "seconds": 1.0})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
            continue
        trial = oracle.create_trial(tuner)
        if trial.status == "STOPPED":
            assert oracle.finished and oracle.num_epochs == plan.num_epochs
            return sorted(
                (v["tuner/bracket"], v["tuner/round"], v["learning_rate"], t.score)
                for t in oracle.completed()
                for v in [t.hyperparameters.values]
            )
        if trial.status == "RUNNING":
            running[tuner] = trial


@pytest.mark.slow
def test_neither_workers_nor_kills_change_what_is_tried(store, tmp_path):
    plan = plan_of(store, max_epochs=10)
    one = simulated(plan, tmp_path / "one")
    assert len(one) == 46
    for k in range(3):
        assert simulated(plan, tmp_path / f"{k}", at_once=k + 1, order=k) == one
        killed = simulated(plan, tmp_path / f"killed{k}", at_once=k + 1, kill_every=7 + k, order=k)
        assert killed == one


def test_seeds_give_other_trials_and_zero_is_one(store, tmp_path):
    rates = [
        {row[2] for row in simulated(plan_of(store, seed=seed), tmp_path / f"{name}")}
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert rates[0] == rates[1] and not rates[0] & rates[2]


def test_a_search_begins_with_the_base_where_the_space_holds_it(store, tmp_path):
    for inside, rate in ((True, 0.02), (False, 1.0)):
        base = BASE.replace(residuals_per_block=0, learning_rate=rate)
        oracle = SearchOracle(plan_of(store, base=base), tmp_path / str(rate))
        first = oracle.create_trial("a").hyperparameters.values
        if inside:
            assert {name: first[name] for name in TINY} == place_of(base, TINY)
        else:
            assert place_of(base, TINY) is None and first["learning_rate"] != rate
        assert oracle.create_trial("b").hyperparameters.values["learning_rate"] != rate
    for preset, space in (("paper-age", "paper"), ("paper-gender", "paper"), ("age", "narrow")):
        assert place_of(PRESETS[preset], SPACES[space]) is not None


def test_a_state_cut_short_is_refused(store, tmp_path):
    simulated(plan_of(store), tmp_path)
    oracle = SearchOracle(plan_of(store), tmp_path)
    oracle.path.write_text(oracle.path.read_text()[:100])
    with pytest.raises(InputError, match="search.json` must be a JSON file"):
        oracle.reload()
    for damaged in ("null", "{}", '{"trials": [1]}'):
        oracle.path.write_text(damaged)
        with pytest.raises(InputError, match="search.json` must "):
            oracle.reload()


def test_altered_states_are_one_sentence(store, tmp_path):
    """What is taken up can be gone on with; nothing else is."""
    rng, plan, counts = random.Random(0), plan_of(store), Counter()
    oracle = SearchOracle(plan, tmp_path)
    for loss in (0.5, 0.7, 0.6, 0.4):
        trial = oracle.create_trial("a")
        oracle.update_trial(trial.trial_id, {"val_loss": loss, "seconds": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    oracle.create_trial("b")
    text = oracle.path.read_text()
    for _ in range(300):
        oracle = SearchOracle(plan, tmp_path)
        changed, what = altered(text, rng)
        oracle.path.write_text(changed, encoding="utf-8")
        try:
            oracle.reload()
        except InputError as error:
            assert "search.json` must be" in str(error), what
            counts["refused"] += 1
            continue
        rows = oracle.rows()
        assert not rows or best_of(plan, rows)["val_loss"] >= 0, what
        assert oracle.num_epochs + oracle.longest_epoch >= 0
        trial = oracle.create_trial("x")
        values = trial.hyperparameters.values
        assert all(kind.holds(rounded(values[name])) for name, kind in TINY.items()), what
        counts["taken up"] += 1
    assert min(counts.values()) > 50


def test_a_state_with_an_infinite_loss_is_taken_up(store, tmp_path):
    """Trials that diverged, in JSON that knows no infinity, and as older versions wrote them."""
    plan = plan_of(store)
    simulated(plan, tmp_path)
    oracle = SearchOracle(plan, tmp_path)
    oracle.reload()
    next(iter(oracle.trials.values())).score = math.inf
    oracle.save()
    text = oracle.path.read_text()
    assert '"Infinity"' in text and "Infinity" not in text.replace('"Infinity"', "")
    for written in (text, text.replace('"Infinity"', "Infinity")):
        oracle.path.write_text(written)
        again = SearchOracle(plan, tmp_path)
        again.reload()
        assert next(iter(again.trials.values())).score == math.inf


def test_after_the_deadline_nothing_is_begun_and_nothing_lost(store, tmp_path):
    plan = plan_of(store)
    oracle = SearchOracle(plan, tmp_path)
    first, second = oracle.create_trial("a"), oracle.create_trial("b")
    oracle = SearchOracle(plan, tmp_path, deadline=time.monotonic() + 60)
    oracle.reload()
    assert oracle.create_trial("a").trial_id == second.trial_id
    assert oracle.get_trial(second.trial_id).status == "RUNNING"
    oracle.deadline = 0.0
    for tuner in ("a", "b", "c"):  # at a trial, with one waiting to be run again, new
        assert oracle.create_trial(tuner).status == "STOPPED"
    assert not oracle.tuner_ids
    assert oracle.get_trial(second.trial_id).status == "STOPPED"
    oracle.save()
    again = SearchOracle(plan, tmp_path)
    again.reload()
    begun = {again.create_trial(tuner).trial_id for tuner in ("a", "b")}
    assert begun == {first.trial_id, second.trial_id}


class AskedWhileSaving(SearchOracle):
    """By the thread that looks for silent workers, in the midst of a worker's request."""

    def save(self):
        assert self.silent_for(60) == []
        super().save()


def test_the_trial_of_a_worker_that_is_gone_goes_to_the_next(store, tmp_path):
    oracle = AskedWhileSaving(plan_of(store), tmp_path)
    lost, other = oracle.create_trial("elsewhere"), oracle.create_trial("here")
    assert oracle.silent_for(60) == []
    oracle._heard[lost.trial_id] -= 100
    oracle.get_trial(other.trial_id)
    assert oracle.silent_for(60) == ["elsewhere"]
    oracle.take_back("elsewhere")
    assert oracle.tuner_ids == {"here"}
    assert oracle.create_trial("third").trial_id == lost.trial_id
    oracle.take_back("unknown")


def test_a_worker_that_comes_back_ends_its_trial_once(store, tmp_path):
    oracle = SearchOracle(plan_of(store), tmp_path)
    lost = oracle.create_trial("elsewhere")
    oracle.update_trial(lost.trial_id, {"val_loss": 1.0, "seconds": 1.0})
    oracle.take_back("elsewhere")
    lost.status = "COMPLETED"
    oracle.end_trial(lost)
    assert oracle.create_trial("here").trial_id != lost.trial_id
    assert oracle.trials[lost.trial_id].status == "COMPLETED"


def test_a_state_that_cannot_be_saved_is_the_chiefs_to_tell(store, tmp_path, monkeypatch):
    oracle = SearchOracle(plan_of(store), tmp_path)

    def full(path, text):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("kerasmlp.experiments.tuning.one_file.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        oracle.create_trial("a")
    with pytest.raises(OSError, match="No space left"):
        answer_workers(SimpleNamespace(state=oracle, search=lambda: None), None, None)


# ---- trials


def test_a_promoted_trial_is_one_that_was_never_interrupted(store, tmp_path):
    plan = plan_of(store)
    recipe = plan.recipe.replace(learning_rate=0.02)
    other = recipe.replace(learning_rate=0.001, weight_decay=0.5)
    runner = TrialRunner(store, plan)
    seen = []
    for k in (1, 2, 4):
        seen.append(runner.run(recipe, tmp_path / "rounds.npz", stop_after=k)["val_loss"])
        runner.run(other, tmp_path / f"other{k}.npz", stop_after=k)  # the same compiled step
    alone = TrialRunner(store, plan).run(recipe, tmp_path / "alone.npz", stop_after=4)
    assert len(set(seen)) == 3 and seen[-1] == alone["val_loss"]
    rounds, whole = (np.load(tmp_path / f"{n}.npz") for n in ("rounds", "alone"))
    assert set(rounds) == set(whole)
    for name in rounds:
        np.testing.assert_array_equal(rounds[name], whole[name])
    again = runner.run(recipe, tmp_path / "rounds.npz", stop_after=4)
    assert again["val_loss"] == seen[-1]


def test_diverged_weights_are_a_bad_trial(store, tmp_path):
    plan = plan_of(store)
    recipe = plan.recipe.replace(learning_rate=1e30, schedule="exponential", num_blocks=1)
    runner = TrialRunner(store, plan)
    result = runner.run(recipe, tmp_path / "checkpoint.npz", stop_after=4)
    assert result["val_loss"] == float("inf")
    fine = runner.run(plan.recipe.replace(num_blocks=1), tmp_path / "fine.npz", stop_after=1)
    assert np.isfinite(fine["val_loss"])


def test_patience_takes_the_best_epoch(store, tmp_path):
    recipe = plan_of(store).recipe.replace(learning_rate=0.5, schedule="exponential", patience=1)
    runner = TrialRunner(store, plan_of(store))
    losses = [
        runner.run(recipe, tmp_path / "a.npz", stop_after=k)["val_loss"] for k in (1, 2, 3, 4)
    ]
    last = runner.run(recipe.replace(patience=None), tmp_path / "a.npz", stop_after=4)["val_loss"]
    assert losses == sorted(losses, reverse=True) and losses[-1] <= last


def test_a_trial_that_was_ended_after_an_epoch_goes_on(store, tmp_path):
    runner, recipe = TrialRunner(store, plan_of(store)), plan_of(store).recipe

    def end(done):
        raise TimeoutError(done)

    with pytest.raises(TimeoutError, match="1"):
        runner.run(recipe, tmp_path / "c.npz", stop_after=4, on_epoch=end)
    whole = runner.run(recipe, tmp_path / "c.npz", stop_after=4)["val_loss"]
    assert whole == runner.run(recipe, tmp_path / "d.npz", stop_after=4)["val_loss"]


def test_a_fold_that_is_left_out_is_not_seen(tmp_path):
    fold = np.array([-1, *np.arange(299) % 3])
    store = make_store(rows=300, width=16, fold=fold)
    runner = TrialRunner(store, plan_of(store, leave_out_fold=1))
    (head,) = runner.rows.heads
    seen = [*head.training.labels["fold"], *head.part.labels["fold"]]
    assert len(seen) == 200 and set(seen) == {-1, 0, 2}
    with pytest.raises(InputError, match="`leave_out_fold` must be one of 0, 1, 2"):
        TrialRunner(store, plan_of(store, leave_out_fold=3))
    with pytest.raises(InputError, match="must be left out for a store without a column `fold`"):
        TrialRunner(make_store(), plan_of(store, leave_out_fold=0))
    path = tmp_path / "search"
    path.mkdir()
    (path / "config.json").write_text("an old search")
    store.save(tmp_path / "a.h5")
    with pytest.raises(InputError, match="`leave_out_fold` must be one of"):
        tune(tmp_path / "a.h5", plan_of(store, leave_out_fold=3), path, force=True)
    assert (path / "config.json").read_text() == "an old search"


# ---- the search


@pytest.fixture(scope="module")
def found(store, path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "run"
    SPACES["tiny"] = TINY
    said = []
    report = tune(path, plan_of(store), folder, say=said.append)
    return folder, report, said[0]


def test_a_search_leaves_one_folder(found, store):
    folder, report, said = found
    assert {p.name for p in folder.iterdir()} == {
        ".lock", "config.json", "report.json", "best.json", "trials.csv", "trials.png",
        "search", "DONE",
    }  # fmt: skip
    assert said.startswith("space 'tiny': learning_rate") and "about" in said
    plan = plan_of(store)
    assert report["complete"] and report["trials"]["run"] == plan.num_trials
    assert report["epochs"] == {"run": plan.num_epochs, "planned": plan.num_epochs}
    assert report == RunFolder(folder).report()
    assert report["project"] == project_name(RunFolder(folder).config())
    assert report["project"] == f"tiny-4-{store.digest()[:12]}-seed0"
    assert "keras-tuner" in report["versions"] and report["data_digest"] == store.digest()
    assert (folder / "trials.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(folder.rglob("*.npz")) and not list(folder.rglob("events.*"))
    best = report["best"]
    assert best["epochs"] == 4 and best["val_loss"] == min(
        float(row[-1]) for row in trials_of(folder) if row[3] == "4"
    )


def test_training_with_the_preset_gives_the_loss_that_was_found(found, store, tmp_path):
    folder, report, _ = found
    recipe = find_recipe(folder / "best.json")
    target = choose_target(store, "gender")
    trained = train(store, target, recipe, tmp_path / "run", pictures=False)
    assert trained["before_temperature"]["nll"] == pytest.approx(
        report["best"]["val_loss"], abs=2e-3
    )
    assert trained["epochs"] == 4


def test_a_finished_search_is_not_run_again(found, path, store, monkeypatch):
    monkeypatch.setattr(TrialRunner, "run", None)
    folder, report, _ = found
    assert tune(path, plan_of(store), folder, resume=True) == report


@pytest.mark.slow
def test_time_up_then_resumed_ends_with_the_same(found, path, store, tmp_path, monkeypatch):
    run, begun = TrialRunner.run, []

    def noted(self, recipe, checkpoint, **settings):
        begun.append(settings["stop_after"])
        return run(self, recipe, checkpoint, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(TrialRunner, "run", noted)
        patch.setattr(SearchOracle, "time_is_up", property(lambda self: 4 in begun))
        report = tune(path, plan_of(store), tmp_path / "run")
    checkpoint = max((tmp_path / "run").rglob("checkpoint.npz"), key=os.path.getmtime)
    with np.load(checkpoint) as file:
        assert len(json.loads(str(file["meta"]))["history"]) == 3
    assert not report["complete"] and not (tmp_path / "run" / "DONE").exists()
    assert 0 < report["trials"]["run"] < report["trials"]["planned"]
    assert (tmp_path / "run" / "best.json").is_file()
    again = tune(path, plan_of(store), tmp_path / "run", resume=True)
    assert again["complete"] and trials_of(tmp_path / "run") == trials_of(found[0])
    assert find_recipe(tmp_path / "run" / "best.json") == find_recipe(found[0] / "best.json")


def test_a_budget_decides_the_epochs_once(path, store, tmp_path, monkeypatch):
    monkeypatch.setattr(TrialRunner, "measure_cost", lambda self, xla: Cost(1.0, 1.0))
    settings = {"any_epochs": True, "resume": True}
    tune(path, plan_of(store), tmp_path / "run", budget_minutes=0.2, **settings)
    assert RunFolder(tmp_path / "run").config()["max_epochs"] == 2  # 11 s; 3 epochs are 23
    report = tune(path, plan_of(store), tmp_path / "run", **settings)
    assert report["complete"] and report["trials"]["planned"] == 5
    settings = {"any_epochs": True, "force": True, "budget_minutes": 0.05}
    with pytest.raises(InputError, match="must be enough for one trial"):
        monkeypatch.setattr(SearchOracle, "time_is_up", True)
        tune(path, plan_of(store), tmp_path / "run", **settings)
    assert RunFolder(tmp_path / "run").config()["max_epochs"] == 1


def test_the_cost_is_that_of_the_compiler_the_search_takes(path, store, tmp_path, monkeypatch):
    monkeypatch.setattr(TuningPlan, "uses_xla", lambda plan, rows: plan.max_epochs > 2)
    monkeypatch.setattr(
        TrialRunner, "measure_cost", lambda self, xla: Cost(9.0, 9.0) if xla else Cost(1.0, 1.0)
    )
    monkeypatch.setattr(SearchOracle, "time_is_up", True)
    said = []
    settings = {"any_epochs": True, "budget_minutes": 0.5, "say": said.append}
    with pytest.raises(InputError, match="must be enough for one trial"):
        tune(path, plan_of(store), tmp_path / "run", **settings)
    assert "at most 2 each" in said[0] and "1.0 s to trace a network" in said[0]


def test_a_folder_is_refused_before_anything_is_measured(path, store, tmp_path, monkeypatch):
    monkeypatch.setattr(TrialRunner, "measure_cost", None)
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match=r"must be empty \(or give --resume or --force\)"):
        tune(path, plan_of(store), tmp_path)


def test_killed_while_its_cost_is_measured_it_is_planned_again(path, store, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    folder, settings = tmp_path / "run", {"any_epochs": True, "resume": True}
    monkeypatch.setattr(TrialRunner, "measure_cost", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(path, plan_of(store), folder, budget_minutes=0.2, **settings)
    assert RunFolder(folder).config()["max_epochs"] is None
    with pytest.raises(InputError, match="must be the folder of a search that its chief has begun"):
        work(path, folder)
    monkeypatch.setattr(TrialRunner, "measure_cost", lambda self, xla: Cost(1.0, 1.0))
    report = tune(path, plan_of(store, max_epochs=1), folder, **settings)
    assert report["complete"] and RunFolder(folder).config()["max_epochs"] == 1
    with pytest.raises(InputError, match=r"must be resumed with the same max_epochs \(1\)"):
        tune(path, plan_of(store, max_epochs=2), folder, resume=True)


def test_another_search_is_refused(found, path, store):
    folder, _, _ = found
    with pytest.raises(InputError, match=r"must be resumed with the same seed \(0\)"):
        tune(path, plan_of(store, seed=1), folder, resume=True)
    with pytest.raises(InputError, match=r"must be empty \(or give --resume or --force\)"):
        tune(path, plan_of(store), folder)


def test_best_is_trained_to_the_end_where_any_is(store):
    plan = plan_of(store, max_epochs=4)
    rows = [{"epochs": 1, "val_loss": 0.1}, {"epochs": 4, "val_loss": 0.3}]
    assert best_of(plan, rows)["val_loss"] == 0.3
    assert best_of(plan, rows[:1])["val_loss"] == 0.1
    with pytest.raises(InputError, match="`--space` must hold recipes that do not diverge"):
        best_of(plan, [{"epochs": 4, "val_loss": float("inf")}])


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        ({"seed": -1}, {}, "`seed` must be an integer >= 0"),
        ({"validation_share": 1.0}, {}, r"`validation_share` must be in \(0, 1\)"),
        ({"factor": 1}, {}, "`factor` must be an integer >= 2"),
        ({"max_epochs": 0}, {}, "`max_epochs` must be an integer >= 1"),
        ({"max_epochs": 101}, {}, "`max_epochs` must be at most 100"),
        ({}, {"workers": -1}, "`workers` must be an integer >= 0"),
        ({}, {"budget_minutes": 0.0}, "`budget_minutes` must be a finite number > 0"),
        ({"group": "none"}, {}, "`group` must be a column of the store"),
        ({"space": "paper"}, {}, "`schedule` must be 'exponential' for the space 'paper'"),
        (
            {"space": "paper", "base": PRESETS["paper-age"]},
            {},
            "`width` must be at least 32 for the space 'paper', whose networks halve it 5 times",
        ),
    ],
)
def test_refused(store, path, tmp_path, values, settings, message):
    with pytest.raises(InputError, match=message):
        tune(path, plan_of(store, **values), tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_worker_needs_a_search_on_its_data(found, path, tmp_path):
    with pytest.raises(InputError, match="must be the folder of a search that its chief has begun"):
        work(path, tmp_path)
    make_store(rows=50).save(tmp_path / "other.h5")
    with pytest.raises(InputError, match="must hold the chief's data"):
        work(tmp_path / "other.h5", found[0])


def test_several_stores_are_searched_as_one(store, tmp_path):
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for path, rows in zip(paths, (np.arange(120), np.arange(120, 300)), strict=True):
        store.subset(rows).save(path)
    report = tune(paths, plan_of(store, max_epochs=1), tmp_path / "run")
    assert report["rows"] == {"training": 270, "validation": 30}
    config = RunFolder(tmp_path / "run").config()
    assert config["stores"] == [{"file": "a.h5", "rows": 120}, {"file": "b.h5", "rows": 180}]
    assert config["data_digest"] == open_stores(paths).digest()
    with pytest.raises(InputError, match="must hold the chief's data"):
        work(paths[::-1], tmp_path / "run")


# ---- processes


def start_tune(path, folder, *options):
    command = [fresh_python(), ROOT / "tests" / "helpers" / "tiny_tune.py", path, folder, *options]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'helpers'}"}
    return subprocess.Popen(
        [str(c) for c in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_for(condition, process, seconds=600):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same(found, path, tmp_path):
    folder = tmp_path / "run"
    process = start_tune(path, folder, "tiny", 4)
    wait_for(lambda: len(list(folder.rglob("trial_*"))) > 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    process = start_tune(path, folder, "tiny", 4)
    output = process.communicate()[0].decode()
    assert process.returncode == 0, output
    assert trials_of(folder) == trials_of(found[0])


def children_of(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (OSError, IndexError):
            continue
    return found


@pytest.mark.slow
def test_a_killed_worker_does_not_lose_the_search(store, path, tmp_path):
    plan, folder = plan_of(store, space="narrow", max_epochs=2), tmp_path / "run"
    process = start_tune(path, folder, "narrow", 2, 2)
    wait_for(lambda: len(list(folder.rglob("checkpoint.npz"))) > 1, process)
    first = children_of(copy_of(process.pid))
    assert len(first) == 2
    os.kill(first[0], signal.SIGKILL)
    output = process.communicate()[0].decode()
    assert process.returncode == 0, output
    report = RunFolder(folder).report()
    assert report["complete"] and report["trials"]["run"] == plan.num_trials
    with open(folder / "trials.csv", newline="") as file:
        drawn = {float(r["learning_rate"]) for r in csv.DictReader(file)}
    rates = {rounded(row[2]) for row in simulated(plan, tmp_path / "simulated")}
    assert drawn == rates


@pytest.mark.slow
def test_at_the_deadline_workers_leave_by_themselves(
    store, path, tmp_path, monkeypatch, quick_starts
):
    left, oracles, leave = [], [], WorkerPool.__exit__

    def noted(pool, *exception):
        assert not oracles[-1].tuner_ids, "the chief leaves first"
        until = time.monotonic() + 60
        while pool.at_work and time.monotonic() < until:
            pool.watch(0.1)
        left.append(not pool.at_work)
        leave(pool)

    def on_progress(oracle, epochs):
        oracles.append(oracle)
        if len(list(oracle.folder.glob("trial_*"))) == 2:
            oracle.deadline = 0.0  # the second of two trials has begun

    monkeypatch.setattr(WorkerPool, "__exit__", noted)
    monkeypatch.setattr(running, "_silent", on_progress)
    plan = plan_of(store, space="narrow", max_epochs=3, factor=4)
    report = tune(path, plan, tmp_path / "run", workers=1)
    assert left == [True], (tmp_path / "run" / "search" / "worker-0.log").read_text()
    assert not report["complete"] and report["trials"] == {"run": 1, "planned": 2, "diverged": 0}


def test_no_host_makes_a_worker_of_this_machine_a_chief(path, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "chief01")
    names = WorkerPool(path, tmp_path, 2).names
    assert len(set(names)) == 2 and not any("chief" in name for name in names)


def test_a_chief_that_does_not_answer_is_one_sentence(found, path, monkeypatch):
    monkeypatch.setattr("keras_tuner.src.distribute.oracle_client.TIMEOUT", 0.2)
    for name, value in (("TUNER_ID", "worker-7"), ("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", "1")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    with pytest.raises(InputError, match="`KERASTUNER_ORACLE_IP` must be that of a chief at work"):
        work(path, found[0])


# ---- the command


def command(*options):
    return cli.run_command("tune", [str(o) for o in options])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--space", "wide"], "`--space` must be one of 'narrow', 'paper'"),
        (["--resume"], "`--run-dir` must be given to be resumed"),
        (["--label", "gender", "--classes", "years"], "`--classes` must be left out"),
        (["--store", "none.h5"], "none.h5"),
        (["--preset", "ours"], "`--preset` must be one of"),
    ],
)
def test_refused_on_the_command_line(options, message, path, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(SPACES, "tiny")
    store = [] if "--store" in options else ["--store", path]
    assert command(*store, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_without_keras_tuner_one_sentence_says_so(path, capsys, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command("--store", path) == 2
    assert (
        "`keras-tuner` must be installed: pip install 'kerasmlp[tuner]'" in capsys.readouterr().err
    )


def test_the_environment_says_who_is_a_worker(path, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker-7")
    assert command("--store", path, "--run-dir", tmp_path) == 2
    error = capsys.readouterr().err
    assert "`KERASTUNER_ORACLE_IP` must be set where KERASTUNER_TUNER_ID is" in error
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    assert command("--store", path) == 2
    assert "`--run-dir` must be given where several machines search" in capsys.readouterr().err
    assert command("--store", path, "--run-dir", tmp_path) == 2
    assert "must be the folder of a search that its chief has begun" in capsys.readouterr().err
    for port in ("abc", "0", "-5", "65536", "²"):
        monkeypatch.setenv("KERASTUNER_ORACLE_PORT", port)
        with pytest.raises(InputError, match="`KERASTUNER_ORACLE_PORT` must be a port, 1 to 65535"):
            role()
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker-on-chief01")
    with pytest.raises(InputError, match="must be `chief`, or a name without that word"):
        role()


def test_tune_prints_its_plan_and_the_presets_path(path, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(SPACES, "narrow", TINY)
    options = ["--store", path, "--label", "gender", "--max-epochs", 1, "--run-dir", tmp_path / "a"]
    assert command(*options, "--json") == 0
    output = capsys.readouterr().out
    assert "1 trials, 1 epochs, at most 1 each" in output
    assert f"--preset {tmp_path / 'a' / 'best.json'}" in output
    assert json.loads(output.splitlines()[-1])["epochs"] == 1
    assert command(*options) == 2
    assert command(*options, "--force") == 0


def test_a_fold_can_be_left_out(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(SPACES, "narrow", TINY)
    monkeypatch.setattr(TrialRunner, "measure_cost", lambda self, xla: Cost(1.0, 1.0))
    store = make_store(rows=120, width=16, fold=np.arange(120) % 3)
    store.save(tmp_path / "store.h5")
    options = ["--store", tmp_path / "store.h5", "--label", "gender", "--max-epochs", 1]
    options += ["--run-dir", tmp_path / "run", "--leave-out-fold"]
    assert command(*options, 2) == 0
    report, config = RunFolder(tmp_path / "run").report(), RunFolder(tmp_path / "run").config()
    assert config["leave_out_fold"] == 2 and report["project"].endswith("-seed0-without-fold2")
    assert command(*options, 1, "--resume") == 2
    assert "must be resumed with the same leave_out_fold (2)" in capsys.readouterr().err


def test_ages_are_searched_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    store = make_store(rows=200, width=16)
    store.save(tmp_path / "store.h5")
    target = choose_age_target(store, None, "adience", by_years=True)
    plan = replace(plan_of(store, max_epochs=1), target=target)
    report = tune(tmp_path / "store.h5", plan, tmp_path / "run")
    assert np.isfinite(report["best"]["val_loss"])
