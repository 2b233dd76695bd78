"""A search is the same however it is interrupted or spread, and trains what it says."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_sets import ROOT, make_store

from kerasmlp import cli
from kerasmlp.checks import InputError
from kerasmlp.models.presets import PRESETS, Recipe, find_recipe
from kerasmlp.runs import RunFolder
from kerasmlp.targets import choose_age_target, choose_target
from kerasmlp.training import train
from kerasmlp.tuning.oracle import SearchOracle
from kerasmlp.tuning.plan import Cost, TuningPlan, describe, longest_within
from kerasmlp.tuning.running import project_name, tune, work
from kerasmlp.tuning.space import SPACES, Choice, LogRange, recipe_of, rounded
from kerasmlp.tuning.table import best_of
from kerasmlp.tuning.trial import OutOfTime, TrialRunner

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


# ---- plan and space


@pytest.mark.parametrize(
    ("max_epochs", "factor", "trials", "epochs"),
    [(9, 3, 23, 75), (10, 2, 46, 170), (30, 3, 90, 576), (100, 3, 254, 2672), (1, 2, 1, 1)],
)
def test_counts_of_trials_and_epochs(store, max_epochs, factor, trials, epochs):
    plan = plan_of(store, max_epochs=max_epochs, factor=factor)
    assert (plan.num_trials, plan.num_epochs) == (trials, epochs)
    oracle = SearchOracle(plan)
    for rounds, bracket in zip(plan.brackets, reversed(range(len(plan.brackets))), strict=True):
        assert oracle._get_num_rounds(bracket) == len(rounds)
        for k, (size, until) in enumerate(rounds):
            assert (oracle._get_size(bracket, k), oracle._get_epochs(bracket, k)) == (size, until)


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
    assert longest_within(plan, cost, ten) == 10
    assert longest_within(plan, cost, ten - 1) == 9
    assert longest_within(plan, cost, ten / 2, workers=2) == 10
    with pytest.raises(InputError, match="`--budget-minutes` must be at least 1 for these data"):
        longest_within(plan, cost, 1.0)


def test_xla_only_where_it_is_earned_back(store):
    plan = plan_of(store, base=Recipe(), space="narrow", max_epochs=10)
    assert not plan.uses_xla(5_400) and plan.uses_xla(100_000)
    assert not replace(plan, space="paper").uses_xla(100_000)


# ---- the oracle


def simulated(plan, folder, *, at_once=1, kill_every=None, order=None):
    """Runs an oracle on made-up losses, several trials at once; returns its trials."""
    oracle = SearchOracle(plan)
    oracle._set_project_dir(str(folder), "project")
    rng, running, calls = np.random.default_rng(order), {}, 0
    while True:
        calls += 1
        if kill_every and calls % kill_every == 0 and oracle.path.exists():
            oracle, running = SearchOracle(plan), {}
            oracle._set_project_dir(str(folder), "project")
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


def test_a_state_cut_short_is_refused(store, tmp_path):
    simulated(plan_of(store), tmp_path)
    oracle = SearchOracle(plan_of(store))
    oracle._set_project_dir(str(tmp_path), "project")
    oracle.path.write_text(oracle.path.read_text()[:100])
    with pytest.raises(InputError, match="search.json` must be a JSON file"):
        oracle.reload()


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


def test_the_deadline_ends_a_trial_after_an_epoch(store, tmp_path):
    runner, recipe = TrialRunner(store, plan_of(store)), plan_of(store).recipe
    epochs = []
    with pytest.raises(OutOfTime):
        runner.run(recipe, tmp_path / "c.npz", stop_after=4, deadline=0.0, on_epoch=epochs.append)
    assert epochs == [1]
    whole = runner.run(recipe, tmp_path / "c.npz", stop_after=4)["val_loss"]
    assert whole == runner.run(recipe, tmp_path / "d.npz", stop_after=4)["val_loss"]


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
    trained = train(store, choose_target(store, "gender"), recipe, tmp_path / "run")
    assert trained["before_temperature"]["nll"] == pytest.approx(
        report["best"]["val_loss"], abs=2e-3
    )
    assert trained["epochs"] == 4


def test_a_finished_search_is_not_run_again(found, path, store, monkeypatch):
    monkeypatch.setattr(TrialRunner, "run", None)
    folder, report, _ = found
    assert tune(path, plan_of(store), folder, resume=True) == report


def test_time_up_then_resumed_ends_with_the_same(found, path, store, tmp_path, monkeypatch):
    run, calls = TrialRunner.run, []

    def run_and_stop(self, recipe, checkpoint, **settings):
        if settings["stop_after"] == 4 and not calls:
            calls.append(1)
            settings["deadline"] = 0.0
        return run(self, recipe, checkpoint, **settings)

    monkeypatch.setattr(TrialRunner, "run", run_and_stop)
    report = tune(path, plan_of(store), tmp_path / "run")
    assert not report["complete"] and not (tmp_path / "run" / "DONE").exists()
    assert 0 < report["trials"]["run"] < report["trials"]["planned"]
    assert (tmp_path / "run" / "best.json").is_file()
    again = tune(path, plan_of(store), tmp_path / "run", resume=True)
    assert again["complete"] and trials_of(tmp_path / "run") == trials_of(found[0])
    assert find_recipe(tmp_path / "run" / "best.json") == find_recipe(found[0] / "best.json")


def test_a_budget_decides_the_epochs_once(path, store, tmp_path, monkeypatch):
    monkeypatch.setattr(TrialRunner, "measure_cost", lambda *_: Cost(1.0, 1.0))
    settings = {"any_epochs": True, "resume": True}
    tune(path, plan_of(store), tmp_path / "run", budget_minutes=0.2, **settings)
    assert RunFolder(tmp_path / "run").config()["max_epochs"] == 2  # 11 s; 3 epochs are 23
    report = tune(path, plan_of(store), tmp_path / "run", **settings)
    assert report["complete"] and report["trials"]["planned"] == 5


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


# ---- processes


def start_tune(path, folder, *options):
    command = [sys.executable, ROOT / "tests" / "tiny_tune.py", path, folder, *options]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    return subprocess.Popen(
        [str(c) for c in command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_for(condition, process, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < until
        time.sleep(0.05)


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


def test_a_killed_worker_does_not_lose_the_search(store, path, tmp_path):
    plan, folder = plan_of(store, space="narrow", max_epochs=2), tmp_path / "run"
    process = start_tune(path, folder, "narrow", 2, 2)
    wait_for(lambda: len(list(folder.rglob("checkpoint.npz"))) > 1, process)
    first = children_of(process.pid)
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
        (["--preset", "ours"], "`preset` must be one of"),
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


def test_tune_prints_its_plan_and_the_presets_path(path, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(SPACES, "narrow", TINY)
    options = ["--store", path, "--label", "gender", "--max-epochs", 1, "--run-dir", tmp_path / "a"]
    assert command(*options) == 0
    output = capsys.readouterr().out
    assert "1 trials, 1 epochs, at most 1 each" in output
    assert f"--preset {tmp_path / 'a' / 'best.json'}" in output
    assert json.loads(output.splitlines()[-1])["epochs"] == 1
    assert command(*options) == 2
    assert command(*options, "--force") == 0


def test_ages_are_searched_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    store = make_store(rows=200, width=16)
    store.save(tmp_path / "store.h5")
    target = choose_age_target(store, None, "adience", by_years=True)
    plan = replace(plan_of(store, max_epochs=1), target=target)
    report = tune(tmp_path / "store.h5", plan, tmp_path / "run")
    assert np.isfinite(report["best"]["val_loss"])
