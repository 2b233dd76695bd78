"""The paper's experiment, whole, on two small stores."""

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from data_sets import INFO, make_store

from kerasmlp import EmbeddingStore
from kerasmlp.cli import run_command
from kerasmlp.data.labels import age_classes
from kerasmlp.data.targets import choose_age_target, choose_target
from kerasmlp.experiments.residual_mlp.claims import check_claims
from kerasmlp.experiments.residual_mlp.design import INITS, TASKS, VARIANTS, Experiment, make_tasks
from kerasmlp.experiments.residual_mlp.figures import distributions, network
from kerasmlp.experiments.residual_mlp.published import is_comparable, paper_results
from kerasmlp.experiments.residual_mlp.reproduce import reproduce, with_searched_recipes
from kerasmlp.experiments.residual_mlp.table import lowest_validation_losses, table_markdown
from kerasmlp.experiments.tuning.plan import Cost
from kerasmlp.experiments.tuning.trial import TrialRunner
from kerasmlp.models.presets import Recipe
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.checks import InputError


def groups_store(**labels):
    """Ages as FairFace has them: groups, no years."""
    store = make_store(rows=240, seed=5)
    ages = age_classes("fairface")
    names = np.array(ages.class_names)[ages.encode(store.labels["age_years"])]
    columns = {"age_group": names, "gender": store.labels["gender"], **labels}
    return EmbeddingStore(store.embeddings, columns, INFO)


pytestmark = pytest.mark.slow  # a whole `reproduce`, small


@pytest.fixture(scope="module")
def folder(tmp_path_factory, quick_starts):
    path = tmp_path_factory.mktemp("experiment")
    make_store(rows=300).save(path / "years.h5")
    groups_store().save(path / "groups.h5")
    recipe = {"num_blocks": 1, "epochs": 2, "batch_size": 32, "calibrate": False}
    recipe |= {"use_output_ic": False, "label_sigma_years": 0.0, "dropout_rate": 0.2}
    (path / "small.json").write_text(json.dumps(recipe))
    return path


def command(folder, *more):
    presets = ("--age-preset", folder / "small.json", "--gender-preset", folder / "small.json")
    sizes = ("--seeds", "1", "--folds", "2", "--pretraining-epochs", "1", "--tasks", "gender")
    words = (folder / "years.h5", folder / "groups.h5", *presets, *sizes, *more)
    return [str(word) for word in words]


@pytest.fixture(scope="module")
def finished(folder):
    assert (
        run_command("reproduce", command(folder, "--run-dir", folder / "run", "--workers", "1"))
        == 0
    )
    return folder / "run"


def test_the_folder_is_whole(finished):
    names = {p.name for p in finished.iterdir()} - {".lock"}
    assert names == {
        "DONE", "config.json", "report.json", "report.html", "table.md", "table.csv",
        "claims.csv", "figures", "pretraining", "cross-validation",
    }  # fmt: skip
    runs = {p.name for p in (finished / "cross-validation").iterdir()}
    slugs = [v.replace(", ", "-").replace(" ", "-") for v in VARIANTS]
    assert runs == {f"gender-{v}-{init}" for v in slugs for init in INITS}
    assert {p.name for p in (finished / "pretraining").iterdir()} == {f"gender-{v}" for v in slugs}
    for picture in (finished / "figures").iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG")
    page = (finished / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)  # opens offline
    assert page.count("data:image/png") == len(list((finished / "figures").iterdir()))


def test_the_table_holds_the_means_of_the_runs(finished):
    with open(finished / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(VARIANTS) * len(INITS)
    for row in rows:
        slug = f"gender-{row['variant']}-{row['init']}".replace(", ", "-").replace(" ", "-")
        inner = (finished / "cross-validation" / slug).glob("seed*/report.json")
        losses = [json.loads(p.read_text())["test"]["nll"] for p in inner]
        assert len(losses) == 2
        assert float(row["test_nll_mean"]) == pytest.approx(np.mean(losses))
        assert "paper_test_nll_mean" not in row
        assert (row["runs"], row["diverged"]) == ("2", "0")
    counts = {row["variant"]: int(row["trainable_parameters"]) for row in rows}
    assert counts["full"] == counts["no skip"] == counts["no dropout"] > counts["no IC"]


def test_variants_are_what_their_names_say(finished):
    for variant, changes in VARIANTS.items():
        slug = variant.replace(", ", "-").replace(" ", "-")
        config = RunFolder(finished / f"cross-validation/gender-{slug}-random/seed0_fold0").config()
        for name in ("use_ic", "use_residual"):
            assert config["recipe"][name] is changes.get(name, True)
        assert config["recipe"]["dropout_rate"] == changes.get("dropout_rate", 0.2)
        pretrained = RunFolder(
            finished / f"cross-validation/gender-{slug}-pretrained/seed0_fold0"
        ).report()
        assert pretrained["weights_from_init"]["new"] == []


def test_a_finished_experiment_is_not_computed_again(finished, folder, capsys):
    before = (finished / "report.json").stat().st_mtime_ns
    again = command(folder, "--run-dir", finished, "--resume", "--json")
    assert run_command("reproduce", again) == 0
    assert (finished / "report.json").stat().st_mtime_ns == before
    printed = capsys.readouterr().out
    assert "lowest validation loss from pre-trained weights" in printed
    verdicts = json.loads(printed.splitlines()[-1])
    assert len(verdicts) == 1 + 4 * 2 and verdicts[0]["claim"] == "pre-training helps"
    assert run_command("reproduce", command(folder, "--run-dir", finished)) == 2
    assert "must be empty (or give --resume" in capsys.readouterr().err


def test_force_deletes_a_whole_experiment_and_nothing_else(finished, tmp_path):
    run = RunFolder(shutil.copytree(finished, tmp_path / "run"))
    (run / "figures" / "mine.png").write_text("precious")
    with (
        pytest.raises(InputError, match="Received: a folder with figures/mine.png"),
        run.working({}, resume=False, force=True),
    ):
        pass
    assert run.done and "report.html" in (run / "DONE").read_text()
    (run / "figures" / "mine.png").unlink()
    with run.working({"kind": "other"}, resume=False, force=True):
        assert {p.name for p in run.path.iterdir()} == {".lock", "config.json"}


def test_a_dry_run_measures_and_writes_nothing(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert run_command("reproduce", command(folder, "--dry-run", "--workers", "1", "--json")) == 0
    assert sorted(folder.rglob("*")) == before
    output = capsys.readouterr().out
    assert "5 pre-trainings on 300 rows" in output and "10 cross-validations on 240 rows" in output
    result = json.loads(output.splitlines()[-1])
    gender = result["tasks"]["gender"]
    runs = 2 * (gender["around"] + 2 * gender["epoch"])
    assert gender["cross_validations"] == pytest.approx(5 * (gender["compiling"] + 2 * runs))
    assert result["seconds_at_most"] > gender["cross_validations"]


def test_the_search_decides_the_recipes_on_the_first_store_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(TrialRunner, "measure_cost", lambda self, xla: Cost(1.0, 1.0))
    base = Recipe(epochs=7, patience=3, batch_size=32, schedule="exponential", calibrate=False)
    (tmp_path / "base.json").write_text(json.dumps(base.to_config()))
    tasks = make_tasks(
        ("age", "age-modified"), make_store(), groups_store(), age_preset=tmp_path / "base.json"
    )
    experiment = Experiment(
        pretraining_path=folder / "years.h5",
        store_path=folder / "groups.h5",
        tasks=tasks,
        search_epochs=1,
    )
    searched, rows = with_searched_recipes(experiment, tmp_path, workers=1)
    (row,) = rows  # the tasks share their pre-training
    with open(tmp_path / "search" / "age" / "trials.csv", newline="") as file:
        (trial,) = csv.DictReader(file)
    assert float(trial["learning_rate"]) == row["learning_rate"]
    for before, task in zip(tasks, searched.tasks, strict=True):
        for recipe in (task.preset, task.recipe):
            assert all(getattr(recipe, k) == v for k, v in row.items() if hasattr(recipe, k))
            assert (recipe.epochs, recipe.patience, recipe.mixup_alpha) == (7, 3, base.mixup_alpha)
        assert task.recipe.label_sigma_years == before.recipe.label_sigma_years
    assert {"learning_rate", "weight_decay", "gamma", "num_blocks"} < set(row)
    assert with_searched_recipes(experiment, tmp_path, workers=1) == (searched, rows)


def test_tasks_on_stores_of_years_and_groups():
    gender, age, modified = make_tasks(TASKS, make_store(), groups_store())
    assert gender.target.class_names == ("male", "female")
    assert len(age.target.class_names) == 9 and age.target.classes == "fairface"
    assert len(age.pretraining_target.class_names) == 101
    assert len(modified.target.class_names) == 101 and modified.target.classes == "fairface"
    assert age.recipe.label_sigma_years == 0 < modified.recipe.label_sigma_years
    assert gender.recipe.num_blocks == 4 and age.recipe.num_blocks == 2
    adience = make_tasks(["age"], make_store(), make_store())[0]
    assert adience.target.classes == "adience" and len(adience.target.class_names) == 8


def test_the_age_tasks_share_a_pretraining(folder):
    tasks = make_tasks(TASKS, make_store(), groups_store())
    experiment = Experiment(
        pretraining_path=folder / "years.h5", store_path=folder / "groups.h5", tasks=tasks
    )
    assert len(experiment.steps()) == 3 * 5 * 2
    assert set(experiment.pretrainings()) == {(n, v) for n in ("gender", "age") for v in VARIANTS}
    experiment.check()
    assert len(experiment.pretraining_store) == 300


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "`tasks` must be one or more of gender, age, age-modified"),
        (["age", "age"], "`tasks` must be one or more of"),
        (["height"], "`tasks` must be"),
    ],
)
def test_bad_tasks(names, message):
    with pytest.raises(InputError, match=message):
        make_tasks(names, make_store(), groups_store())


def test_bad_settings(folder):
    with pytest.raises(InputError, match="`classes` must be age groups"):
        make_tasks(["age"], make_store(), make_store(), classes="years")
    paths = {"pretraining_path": folder / "years.h5", "store_path": folder / "groups.h5"}
    tasks = make_tasks(["gender"], make_store(), groups_store())
    with pytest.raises(InputError, match="`search_epochs` must be at most 100"):
        Experiment(**paths, tasks=tasks, search_epochs=101)
    with pytest.raises(InputError, match="`workers` must be an integer >= 1"):
        reproduce(Experiment(**paths, tasks=tasks), folder / "none", workers=-1)
    cosine = make_tasks(["gender"], make_store(), groups_store(), gender_preset="gender")
    with pytest.raises(InputError, match="`schedule` must be 'exponential' for the space 'paper'"):
        Experiment(**paths, tasks=cosine, search_epochs=1).check()


def test_stores_that_do_not_fit_are_refused_before_anything_runs(folder, tmp_path, capsys):
    other = make_store(rows=300, width=16)
    other.save(tmp_path / "narrow.h5")
    words = command(folder, "--run-dir", tmp_path / "run")
    words[0] = str(tmp_path / "narrow.h5")
    assert run_command("reproduce", words) == 2
    assert "must hold embeddings of width 32" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    words[0] = str(folder / "groups.h5")
    words[words.index("--tasks") + 1] = "age"
    assert run_command("reproduce", words) == 2
    assert "`store to pre-train on` must have a column `age_years`" in capsys.readouterr().err


def test_faces_that_test_may_not_be_pretrained_on(folder, tmp_path, capsys):
    both = make_store(rows=300)
    both.embeddings[7] = groups_store().embeddings[3]
    both.save(tmp_path / "both.h5")
    words = command(folder, "--run-dir", tmp_path / "run")
    words[0] = str(tmp_path / "both.h5")
    assert run_command("reproduce", words) == 2
    sentence = capsys.readouterr().err
    assert "must hold no face of the other store" in sentence
    assert f"1 embeddings of {folder / 'groups.h5'}" in sentence


def test_a_resumed_experiment_keeps_every_recipe(finished, folder, tmp_path, capsys):
    other = json.loads((folder / "small.json").read_text()) | {"learning_rate": 0.5}
    (tmp_path / "other.json").write_text(json.dumps(other))
    words = command(folder, "--run-dir", finished, "--resume")
    words[words.index("--gender-preset") + 1] = str(tmp_path / "other.json")
    assert run_command("reproduce", words) == 2
    assert "must be resumed with the same presets.gender.learning_rate" in capsys.readouterr().err


def test_photos_that_cannot_be_drawn_are_refused_before_anything_runs(folder, tmp_path, capsys):
    words = command(folder, "--run-dir", tmp_path / "run", "--photos", tmp_path, "--model-dir")
    assert run_command("reproduce", [*words, str(tmp_path)]) == 2
    assert "must hold photos" in capsys.readouterr().err
    (tmp_path / "a.png").write_bytes(b"")
    assert run_command("reproduce", [*words, str(tmp_path / "none")]) == 2
    assert "must be a folder of insightface models" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_papers_numbers_stand_beside_those_of_adience():
    of_adience = replace(INFO, source="adience: photos")
    labels = make_store(fold=np.arange(400) % 5).labels
    store = EmbeddingStore(make_store().embeddings, labels, of_adience)
    for classes, is_like in (("adience", True), ("fairface", False)):
        target = choose_age_target(store, None, classes, by_years=False)
        assert is_comparable(store, target) == is_like
    assert is_comparable(store, choose_target(store, "gender"))
    for others in (
        make_store(),
        EmbeddingStore(store.embeddings, make_store().labels, of_adience),  # no folds
        EmbeddingStore(store.embeddings, labels, replace(INFO, source="adience: a; utkface: b")),
        EmbeddingStore(store.embeddings, labels, replace(INFO, source="not Adience")),
    ):
        assert not is_comparable(others, choose_target(store, "gender"))
    results = paper_results("age-modified", "pretrained", "no skip")
    assert (results["test_nll_mean"], results["validation_accuracy_mean"]) == (1.4405, 0.9188)
    rows = [
        {"task": "age", "variant": variant, "init": init, "runs": 25, "diverged": 0}
        | {f"{p}_{m}_{k}": 0.5 for p in ("training", "validation", "test")
           for m in ("nll", "accuracy") for k in ("mean", "std")}
        | {f"paper_{k}": v for k, v in paper_results("age", init, variant).items()}
        for variant in VARIANTS for init in INITS
    ]  # fmt: skip
    table = table_markdown(rows)
    ours = table.index("| no IC, no skip | random | 0.5000 ± 0.5000")
    papers = table.index("| … in the paper | random | 0.4202 ± 0.0797", ours)
    assert "2.0719 ± 0.2454 | 0.4068 ± 0.0529 |" in table[papers:]
    rows[1]["validation_nll_mean"] = 0.4  # full, pretrained
    assert lowest_validation_losses(rows) == {"age": "full"}


def test_verdicts_follow_sign_and_p(monkeypatch):
    def result(nll, nll_p, accuracy, accuracy_p):
        values = {"nll": (nll, nll_p), "accuracy": (accuracy, accuracy_p)}
        return {k: {"difference": d, "p": p, "pairs": 10} for k, (d, p) in values.items()}

    better, worse = result(-0.1, 0.01, 0.1, 0.2), result(0.1, 0.01, -0.1, 0.04)
    monkeypatch.setattr(
        "kerasmlp.experiments.residual_mlp.claims.compare",
        lambda other, full: worse if "no IC" in other else better,
    )
    folders = {("age", v, i): f"{v} {i}" for v in VARIANTS for i in INITS}
    rows = {(r["claim"], r["init"]): r for r in check_claims(folders)}
    assert rows["pre-training helps", "pretrained"]["nll_verdict"] == "holds"
    assert rows["dropout helps", "random"]["accuracy_verdict"] == "not told"
    assert rows["IC layers help", "random"]["nll_verdict"] == "contradicted"
    assert rows["IC layers help", "random"]["accuracy_verdict"] == "contradicted"


def test_pictures_of_any_store_and_network(tmp_path):
    from kerasmlp import ResidualMLP

    bare = EmbeddingStore(make_store().embeddings, {}, INFO)
    distributions(
        {"years": make_store(), "groups": groups_store(), "bare": bare}, tmp_path / "a.png"
    )
    network(ResidualMLP(num_classes=2, width=64, num_blocks=4), tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_killed_experiment_goes_on_where_it_was(finished, folder, tmp_path):
    broken = tmp_path / "run"
    shutil.copytree(finished, broken)
    for name in ("DONE", "report.json", "report.html", "table.csv", "table.md", "claims.csv"):
        (broken / name).unlink()
    shutil.rmtree(broken / "figures")
    missing = broken / "cross-validation" / "gender-no-dropout-pretrained"
    shutil.rmtree(missing)
    kept = {p: p.stat().st_mtime_ns for p in broken.glob("*/*/DONE")}
    assert len(kept) == 5 + 9
    assert run_command("reproduce", command(folder, "--run-dir", broken, "--resume")) == 0
    assert all(p.stat().st_mtime_ns == written for p, written in kept.items())
    for name in ("table.csv", "table.md", "claims.csv"):
        assert (broken / name).read_text() == (finished / name).read_text()


def test_a_variant_that_diverges_is_a_result(finished, folder, tmp_path, monkeypatch):
    wild = {"use_ic": False, "learning_rate": 1e30}
    monkeypatch.setitem(VARIANTS, "no IC", wild)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "DONE").unlink()
    for path in run.glob("*/gender-no-IC*"):
        if "skip" not in path.name:
            shutil.rmtree(path)
    assert run_command("reproduce", command(folder, "--run-dir", run, "--resume")) == 0
    with open(run / "table.csv", newline="") as file:
        rows = {(row["variant"], row["init"]): row for row in csv.DictReader(file)}
    lost, kept = rows.pop(("no IC", "random")), rows.pop(("no IC", "pretrained"))
    assert (lost["runs"], lost["diverged"], lost["test_nll_mean"]) == ("0", "2", "")
    assert (kept["runs"], kept["diverged"]) == ("0", "0")
    assert all(row["runs"] == "2" for row in rows.values())
    assert not (run / "cross-validation" / "gender-no-IC-pretrained").exists()
    table = (run / "table.md").read_text()
    assert "| no IC (2 of 2 runs diverged) | random |" in table
    assert "| no IC (its pre-training diverged) | pretrained |" in table
    with open(run / "claims.csv", newline="") as file:
        verdicts = {(r["claim"], r["init"]): r for r in csv.DictReader(file)}
    for init in INITS:
        row = verdicts["IC layers help", init]
        assert (row["pairs"], row["nll_verdict"], row["nll_p"]) == ("0", "diverged", "")
    assert verdicts["dropout helps", "random"]["pairs"] == "2"
    assert "its pre-training diverged" in (run / "report.html").read_text()
