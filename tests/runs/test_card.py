"""The card of a run: facts as in its files, intervals as of SciPy, pages for any text."""

import html.parser
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from damage import outcome, without_hashes
from data_sets import make_store
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from kerasmlp import EmbeddingStore, evaluate, export_model, recalibrate, train, write_card
from kerasmlp.data.other_targets import NumberTarget, SeveralTargets
from kerasmlp.data.targets import age_target, choose_target
from kerasmlp.models.presets import Recipe
from kerasmlp.runs import RunFolder
from kerasmlp.runs.card_facts import card_facts
from kerasmlp.utils.checks import InputError
from kerasmlp.utils.pages import Page


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of ages and genders, evaluated in its folder on rows of which it knows some."""
    folder = tmp_path_factory.mktemp("card")
    young = np.arange(500) % 2 == 0
    store = make_store(rows=500, age_years=np.where(young, 18, 28).astype("float32"))
    store.info = replace(store.info, source="People", licence="CC0 | <b>free</b>")
    store.save(folder / "people.h5")
    target = SeveralTargets(
        (age_target("age_years", "adience", by_years=True), choose_target(store, "gender"))
    )
    train(store, target, Recipe(epochs=1), folder / "run", validation_share=0.4, pictures=False)
    evaluate(folder / "run", folder / "people.h5", num_samples=0)
    return folder / "run"


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_the_facts_are_those_of_the_files(run):
    facts, report = card_facts(RunFolder(run)), json.loads((run / "report.json").read_text())
    config = json.loads((run / "config.json").read_text())
    assert [one["label"] for one in facts["predicts"]] == ["age_years", "gender"]
    assert facts["data"]["digest"] == config["data_digest"]
    assert (facts["data"]["source"], facts["data"]["licence"]) == ("People", "CC0 | <b>free</b>")
    assert facts["measures"]["gender"]["validation"] == report["heads"]["gender"]["validation"]
    assert facts["made"]["command"] == report["command"]
    evaluated = json.loads((run / "evaluation-people" / "report.json").read_text())
    found = facts["evaluations"]["people"]["gender"]
    assert found["deterministic"] == evaluated["heads"]["gender"]["deterministic"]
    assert json.loads(json.dumps(facts)) == facts


def test_intervals_are_those_of_wilson(run):
    for group in card_facts(RunFolder(run))["groups"]["gender"]:
        right = round(group["accuracy"] * group["rows"])
        expected = binomtest(right, group["rows"]).proportion_ci(method="wilson")
        assert group["intervals"]["accuracy"] == pytest.approx(list(expected), abs=1e-6)


def test_intervals_of_rows_that_are_alike_are_wider(copy):
    """Of 200 rows kept back in 50 groups of four."""
    path = copy / "calibration.json"
    whole = json.loads(path.read_text())
    assert all((one["rows"], one["clusters"]) == (200, 200) for one in whole["heads"].values())
    whole["heads"]["gender"]["clusters"] = 50
    path.write_text(json.dumps(whole))
    without_hashes(copy)
    facts = card_facts(RunFolder(copy))
    assert facts["calibration"]["gender"]["clusters"] == 50
    for head, share in (("gender", 4), ("age", 1)):
        for group in facts["groups"][head]:
            p, n = group["accuracy"], group["rows"] / share
            z = 1.959964**2 / n  # Wilson's ends p' have (p - p')² = z p' (1 - p')
            expected = sorted(np.roots([1 + z, -2 * p - z, p * p]).real)
            assert group["intervals"]["accuracy"] == pytest.approx(expected, abs=1e-6)


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.words = []

    def handle_data(self, data):
        self.words.append(data)


def test_both_files_say_the_same(run, tmp_path):
    files = write_card(run, tmp_path / "mine")
    assert [file.name for file in files] == ["mine.md", "mine.html"]
    markdown, page = (file.read_text() for file in files)
    reader = Reader()
    reader.feed(page)
    for words in ("Model card: run", "has the lowest accuracy", "apparent age, gender"):
        assert words in markdown and words in "".join(reader.words)
    nll = json.loads((run / "report.json").read_text())["heads"]["gender"]["validation"]["nll"]
    assert f"| nll | {nll:.4g} |" in markdown and f"{nll:.4g}" in reader.words
    assert "The run has learned from 500 of these rows" in markdown
    with pytest.raises(InputError, match=r"mine\.md.* --force"):
        write_card(run, tmp_path / "mine")
    write_card(run, tmp_path / "mine", force=True)


def test_the_command_and_its_refusals(copy, tmp_path):
    code, out, _ = outcome("card", copy)
    assert code == 0 and out.split() == [f"{copy}-card.md", f"{copy}-card.html"]
    code, _, err = outcome("card", tmp_path / "nothing")
    assert code == 2 and "nothing" in err
    (copy / "evaluation-people" / "report.json").write_text('{"format": 3}')
    code, _, err = outcome("card", copy, "-o", tmp_path / "other")
    assert code == 2 and "evaluation-people/report.json" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "other.md").exists()


@pytest.mark.parametrize(
    "damage",
    [
        {"validation_groups": 3},
        {"validation_groups": [{"rows": 0, "accuracy": 1}]},
        {"validation_groups": [{"rows": 9, "accuracy": 5.0}]},
        {"validation_groups": [{"rows": 10**400, "accuracy": 0.5}]},
        {"validation_groups": [{"rows": 90, "accuracy": "x"}] * 2},
        {"validation_groups": [{"accuracy": 0.5}]},
        {"validation": {"accuracy": [0.5]}},
    ],
)
def test_crafted_reports_are_one_sentence(copy, damage):
    path = copy / "report.json"
    report = json.loads(path.read_text())
    report["heads"]["gender"] |= damage
    path.write_text(json.dumps(report))
    without_hashes(copy)
    with pytest.raises(InputError, match=r"report\.json"):
        card_facts(RunFolder(copy))


@pytest.mark.parametrize(
    "damage",
    [
        {"by": [1]},
        {"by": {"race": {"a": {"accuracy": 0.5, "intervals": {"accuracy": [1]}}}}},
        {"by": {"race": {"a": {"accuracy": 0.5, "intervals": {"accuracy": 5}}}}},
        {"by": {"race": {"a": {"accuracy": 0.5}}}, "gaps": [3]},
        {"by": {"race": {}}, "gaps": {"race": {"deterministic": {"nll": {"worst": "a"}}}}},
        {"deterministic": {"nll": 1.0}, "by": {"race": 3}},
    ],
)
def test_crafted_evaluations_are_one_sentence(copy, damage, tmp_path):
    path = copy / "evaluation-people" / "report.json"
    report = json.loads(path.read_text())
    report["heads"]["gender"] |= damage
    path.write_text(json.dumps(report))
    code, _, err = outcome("card", copy, "-o", tmp_path / "card")
    assert code == 2 and "must hold reports as this package writes them" in err
    assert len(err.splitlines()) == 1 and not (tmp_path / "card.md").exists()


def test_an_export_has_the_facts(run, tmp_path):
    version = export_model(run, tmp_path / "served")["version"]
    with open(f"{version}/assets/model.json", encoding="utf-8") as file:
        described = json.load(file)
    assert described["card"] == card_facts(RunFolder(run), travelling=True)
    assert "command" not in described["card"]["made"] and "evaluations" not in described["card"]


def test_a_number(tmp_path):
    store = make_store(rows=300)
    train(
        store, NumberTarget("age_years", "years"), Recipe(epochs=1), tmp_path / "n", pictures=False
    )
    files = write_card(tmp_path / "n")
    text = files[0].read_text()
    assert "age_years: a number in years" in text and "| rmse |" in text
    assert "by groups of the rows kept back:\n" in text and "of accuracy" not in text


def test_a_recalibrated_run_is_told_with_its_rows(run, tmp_path):
    """Of two heads one is fitted anew; the other one stays as training left it."""
    store = make_store(rows=120, seed=5)
    info = replace(store.info, source="Others", licence="CC BY")
    new = EmbeddingStore(store.embeddings, {"gender": store.labels["gender"]}, info)
    report = recalibrate(run, new, tmp_path / "new")
    facts = card_facts(RunFolder(tmp_path / "new"))
    assert facts["recalibrated"] == {
        "source": "Others",
        "licence": "CC BY",
        "digest": new.digest(),
        "batch_norm": False,
        "heads": ["gender"],
    }
    assert card_facts(RunFolder(run))["recalibrated"] is None
    text = write_card(tmp_path / "new")[0].read_text()
    measured = report["heads"]["gender"]["validation"]
    gender, age = text.index("| gender | recalibrated on |"), text.index("| age | kept back |")
    assert f"| nll | {measured['nll']:.4g} |" in text[gender:]
    assert age < gender and measured["rows"] == 120
    assert "| recalibrated on, and measured on the same rows | Others |" in text
    assert f"| digest of these | {new.digest()} |" in text and "120 recalibrated on" in text


@given(st.text(max_size=40))
def test_any_text_stays_text(text):
    page = Page("t").text(text).table([text], [[text]]).items([text])
    reader = Reader()
    reader.feed(page.html())
    assert (
        len(re.findall("<(?!/?(?:html|meta|title|style|h1|p|table|tr|td|th|ul|li|!))", page.html()))
        == 0
    )
    assert page.markdown().count("\n| ") == 3
