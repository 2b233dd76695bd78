"""A student: what it learns of a teacher, what it takes over, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import EmbeddingStore, Predictor, Recipe, StoreInfo, distil, load_model, train
from kerasmlp.cli import run_command
from kerasmlp.data.other_targets import NumberTarget, SeveralTargets
from kerasmlp.data.row_hashes import row_hashes
from kerasmlp.data.targets import choose_age_target, choose_target
from kerasmlp.evaluation.agreement import agreement
from kerasmlp.evaluation.measuring import measure
from kerasmlp.models.residual_mlp import ResidualMLP
from kerasmlp.runs.mc_model import with_temperatures
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.seen import count_seen, load_seen
from kerasmlp.serving.export.saved_model import export_model
from kerasmlp.training import train_run
from kerasmlp.training.compiled_models import Workbench
from kerasmlp.training.fit import compile_by_recipe
from kerasmlp.training.losses import GaussianCrossentropy, RankedCrossentropy
from kerasmlp.training.rows import Rows
from kerasmlp.training.student_recipe import student_recipe
from kerasmlp.training.student_rows import StudentRows
from kerasmlp.training.teacher import StudentModel, Teacher
from kerasmlp.uncertainty.samples import predict_uncertainty
from kerasmlp.utils.checks import InputError
from kerasmlp.utils.files import sha256_file

RECIPE = Recipe(epochs=25, batch_size=64, dropout_rate=0.1, learning_rate=0.01, noise_std=0.1)
KEPT_BACK = 0.3  # so many that they fit a temperature
HOW = {"seed": 3, "validation_share": KEPT_BACK, "pictures": False}


def make_people(rows: int, seed: int, *, labelled: bool = True) -> EmbeddingStore:
    """Rows that are not normalised, with an age, a gender and a number."""
    store = make_store(rows=rows, width=16, seed=seed)
    x = 5 * store.embeddings * np.linspace(0.1, 10, 16, dtype="float32") + 1
    noise = np.random.default_rng(seed + 100).normal(size=rows)
    labels = {"height": 170 + 9 * x[:, 3] / x[:, 3].std() + 3 * noise, **store.labels}
    info = StoreInfo(embedder="table", normalized=False)
    return EmbeddingStore(x, labels if labelled else {}, info, name="people")


@pytest.fixture(scope="module")
def people():
    return make_people(800, 0)


@pytest.fixture(scope="module")
def target(people):
    age = choose_age_target(people, "age_years", "adience", by_years=True)
    return SeveralTargets((age, choose_target(people, "gender"), NumberTarget("height", "cm")))


@pytest.fixture(scope="module")
def folder(people, target, tmp_path_factory):
    """Three runs: `two` of two members, `one` that learns from labels, `student`."""
    path, bench = tmp_path_factory.mktemp("distilled"), Workbench(xla=False)
    train(people, target, RECIPE.replace(members=2), path / "two", workbench=bench, **HOW)
    train(people, target, RECIPE, path / "one", workbench=bench, **HOW | {"seed": 50})
    distil(path / "two", people, path / "student", recipe=RECIPE, seed=3)
    return path


@pytest.fixture(scope="module")
def report(folder):
    return RunFolder(folder / "student").report()


def by_head(run, rows) -> dict[str, np.ndarray]:
    return {head.label: head.probabilities(rows) for head in Predictor.heads(run)}


@pytest.mark.slow
def test_it_is_nearer_to_the_teacher_than_a_training_on_labels(folder, target):
    """On rows that neither has seen; a number that is nearly linear both learn as well."""
    rows = make_people(600, 1).embeddings
    expected, *others = (by_head(folder / name, rows) for name in ("two", "student", "one"))
    found = {
        head.label: [agreement(head, expected[head.label], o[head.label]) for o in others]
        for head in target.heads
    }
    for label in ("age_years", "gender"):
        student, one = found[label]
        assert student["kl_nats"] < 0.5 * one["kl_nats"], label
        assert student["difference"] < 0.6 * one["difference"], label
    assert found["height"][0]["kl_nats"] < 0.1


@pytest.mark.slow
def test_it_is_measured_beside_the_teacher_on_what_that_has_kept_back(
    folder, report, people, target
):
    settings = RunFolder(folder / "two").config()
    rows = Rows.of(people, target, None, settings)
    assert report["rows"] == {"training": 560, "validation": 240, "unlabelled": 0}
    both = [by_head(folder / name, rows.part_inputs) for name in ("two", "student")]
    for head in rows.heads:
        found, label = report["heads"][head.part.target.name], head.part.target.label
        known = agreement(head.part.target, both[0][label], both[1][label])
        assert found["agreement"] == pytest.approx(known, rel=1e-3)
        for name, answers in zip(("teacher", "validation"), both, strict=True):
            assert found[name] == pytest.approx(measure(head.part, answers[label]), rel=1e-3)
    flat = report["agreement"]["height_kl_nats"]
    assert flat == report["heads"]["height"]["agreement"]["kl_nats"]
    assert report["notes"] == []


@pytest.mark.slow
def test_it_is_a_run_of_one_network_that_knows_all_rows(folder, report, people, target):
    run, teacher = RunFolder(folder / "student"), RunFolder(folder / "two")
    config, known = run.config(), teacher.config()
    assert config["recipe"]["members"] == 1 and not config["recipe"]["refit"]
    assert config["distilled"] == sha256_file(teacher / "model.keras")
    for name in ("kind", "target", "width", "embedder", "normalized", "norm_1_share"):
        assert config[name] == known[name], name
    assert count_seen(run, people.embeddings) == len(people)
    sizes = [load_model(folder / name).count_params() for name in ("two", "one", "student")]
    assert sizes[1] == sizes[2] < sizes[0] / 1.9
    for head in Predictor.heads(folder / "student"):
        assert head.calibration.rows == 240  # new to the teacher: fitted as in a training
        answer = next(head.rows(people.embeddings[:2], num_samples=8))
        assert np.isfinite(answer["uncertainty"])
    columns = [load_model(folder / n).get_layer("standardize") for n in ("two", "student")]
    for one, other in zip(*(layer.get_weights() for layer in columns), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def faces():
    return make_store(rows=500, width=16)


@pytest.fixture(scope="module")
def refitted(faces, tmp_path_factory):
    """A teacher that has learned from all of its rows, and held a test out."""
    path = tmp_path_factory.mktemp("refitted") / "run"
    recipe = RECIPE.replace(members=2, refit=True, epochs=4)
    how = HOW | {"test_share": 0.2, "workbench": Workbench(xla=False)}
    train(faces, choose_target(faces, "gender"), recipe, path, **how)
    return path


def test_of_rows_that_the_teacher_knows_its_calibration_is_taken_over(refitted, faces, tmp_path):
    """From two stores, the second a copy of some rows and others without labels."""
    extra = make_store(rows=300, width=16, seed=5).embeddings
    other = EmbeddingStore(np.concatenate([faces.embeddings, extra]), {}, faces.info)
    recipe = RECIPE.replace(epochs=2, dropout_rate=0.5)
    report = distil(refitted, [faces, other], tmp_path / "run", recipe=recipe)
    teacher, student = Predictor(refitted), Predictor(tmp_path / "run")
    assert report["notes"][-2:] == [
        f"gender: {refitted} has learned from 120 of the 120 rows kept back that have it, which "
        "flatters both",
        f"gender: temperature, intervals, sets and abstention are taken over from {refitted}: too "
        "few rows kept back have it and are new to that run",
    ]
    assert report["temperature"] == 1
    assert replace(student.calibration, mc_temperature=1.0) == replace(
        teacher.calibration, mc_temperature=1.0
    )
    # Neither the test of the teacher nor its copy in the other store is learned from.
    rows = StudentRows.of_stores([faces, other], Teacher(refitted), 0)
    hashes = row_hashes(rows.inputs)
    assert not np.isin(hashes, row_hashes(rows.test_inputs)).any()
    assert not np.isin(hashes, row_hashes(rows.kept_back)).any()
    assert report["rows"]["test"] == len(rows.test_inputs) == 100
    assert report["test"]["nll"] == pytest.approx(
        measure(rows.heads[0].test, student.probabilities(rows.test_inputs))["nll"], rel=1e-4
    )
    before = load_seen(RunFolder(refitted))
    assert np.isin(before, load_seen(RunFolder(tmp_path / "run"))).all()
    # With the temperature of its passes their mean is nearest to the teacher's answers.
    expected, near = teacher.probabilities(rows.kept_back), []
    for factor in (0.8, 1, 1.25):
        cooled = with_temperatures(
            student.model, {None: factor * student.calibration.mc_temperature}
        )
        mean = predict_uncertainty(cooled, rows.kept_back, num_samples=64)["mean"]
        near.append(agreement(teacher.target, expected, mean)["kl_nats"])
    assert near[1] == min(near)


@pytest.fixture(scope="module")
def plain(faces, tmp_path_factory):
    """A store without labels, and what a command has made of it."""
    path = tmp_path_factory.mktemp("plain")
    store = EmbeddingStore(make_store(rows=300, width=16, seed=5).embeddings, {}, faces.info)
    store.save(path / "plain.h5")
    return path


def command(name, *arguments) -> int:
    return run_command(name, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def plain_run(refitted, plain):
    """What the command makes of rows without labels."""
    options = ("distil", refitted, "--store", plain / "plain.h5", "--epochs", 2)
    assert command(*options, "-o", plain / "run") == 0
    return plain / "run"


@pytest.mark.slow
def test_the_command_needs_no_labels(refitted, plain, tmp_path, capsys):
    run, store = tmp_path / "run", plain / "plain.h5"
    options = ("distil", refitted, "--store", store, "--epochs", 2, "--json")
    assert command(*options, "-o", run) == 0
    printed = capsys.readouterr().out
    assert "270 rows learned from, 30 kept back" in printed
    assert "note: gender: the stores do not say how right the answers are" in printed
    line = json.loads(printed.splitlines()[-1])
    assert line["validation"] == {} and 0 < line["agreement"]["kl_nats"] < 1
    assert command(*options, "-o", run) == 2
    assert "must be empty (or give --resume or --force)" in capsys.readouterr().err
    assert command(*options, "-o", refitted, "--force") == 2
    expected = "`--run-dir` must be another folder than that of the run. Received: --run-dir="
    assert expected in capsys.readouterr().err
    make_store(rows=300, width=16, seed=5).save(tmp_path / "labelled.h5")
    assert command("evaluate", run, tmp_path / "labelled.h5", "--num-samples", 0) == 0
    assert "has learned from 300 of these rows" in capsys.readouterr().out


def test_resumed_it_ends_with_the_same_bits(
    refitted, plain, plain_run, tmp_path, monkeypatch, capsys
):
    """As the run of the command, whose seed and recipe it has."""
    whole, run = train_run.fit, tmp_path / "run"

    def killed(*args, on_epoch, **more):
        def end(epochs):
            raise KeyboardInterrupt

        return whole(*args, on_epoch=end, **more)

    options = ("distil", refitted, "--store", plain / "plain.h5", "-o", run)
    with monkeypatch.context() as patched:
        patched.setattr(train_run, "fit", killed)
        assert command(*options, "--epochs", 2) == 130
    assert (run / "checkpoint.npz").exists()
    assert command(*options, "--resume", "--seed", 1) == 2
    assert "must be resumed with the same seed (0)" in capsys.readouterr().err
    assert command(*options, "--resume") == 0  # the recipe is that of the run
    models = [load_model(path) for path in (run, plain_run)]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    files = [path / "calibration.json" for path in (run, plain_run)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_its_export_answers_as_it_does(plain_run, tmp_path):
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(5, 16)).astype("float32")
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    version = export_model(plain_run, tmp_path / "served")["version"]
    answers = tf.saved_model.load(version).signatures["serving_default"](embedding=tf.constant(x))
    expected = Predictor(plain_run).probabilities(x)
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-6)


@pytest.mark.slow
def test_a_member_of_the_teacher_is_the_default(folder, refitted):
    recipe = student_recipe(refitted, 5000)
    assert (recipe.members, recipe.refit, recipe.batch_size) == (1, False, 256)
    assert (recipe.dropout_rate, recipe.epochs) == (0.05, 50)
    assert student_recipe(refitted, 500).batch_size == 64
    assert student_recipe(folder / "two", 5000).num_blocks == RECIPE.num_blocks


def refuse(match, *args, **more):
    with pytest.raises(InputError, match=match):
        distil(*args, **more)


def test_refusals(refitted, faces, tmp_path):
    new, x = tmp_path / "new", faces.embeddings
    wide = EmbeddingStore(np.eye(20), {}, faces.info, name="wide.h5")
    refuse("`wide.h5` must hold embeddings of width 16. Received: 20", refitted, wide, new)
    info = StoreInfo(embedder="other.onnx", embedder_sha256="1" * 64)
    other = EmbeddingStore(x, {}, info, name="other.h5")
    refuse("`other.h5` must hold embeddings of made.onnx", refitted, other, new)
    loose = EmbeddingStore(2 * x, {}, replace(faces.info, normalized=False), name="loose.h5")
    refuse("`loose.h5` must hold embeddings that are normalised", refitted, loose, new)
    few = EmbeddingStore(x[:19], {}, faces.info, name="few.h5")
    refuse("`few.h5` must hold at least 20 rows. Received: 19", refitted, few, new)
    refuse("`stores` must be one store or more", refitted, [], new)
    refuse("`run_dir` must be another folder", refitted, faces, refitted / ".." / "run")
    two = Recipe(members=2)
    refuse("`recipe.members` must be 1: a student is one network", refitted, faces, new, recipe=two)
    refuse("must be a run folder", tmp_path / "none", faces, new)
    images = RunFolder(tmp_path / "images")
    with images.working({"kind": "images"}, resume=False, force=False):
        images.finish({})
    refuse(
        "must be a training on embeddings. Received: a run of kind 'images'",
        images.path,
        faces,
        new,
    )
    assert not new.exists()


def test_the_teacher_is_asked_at_the_rows_of_the_step():
    recipe = Recipe(epochs=1, batch_size=4)
    teacher, model = (ResidualMLP(num_classes=3, seed=seed, **recipe.network(8)) for seed in (0, 1))
    loss = RankedCrossentropy(rps_weight=0.0)
    student = compile_by_recipe(
        model, recipe, steps=1, loss=loss, xla=False,
        make=lambda *ends, **more: StudentModel(*ends, teacher=teacher, **more),
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    answers = model(x)
    found = student.compute_loss(x, np.zeros((4, 1), "float32"), answers)
    assert float(found) == pytest.approx(float(loss(teacher(x), answers)), rel=1e-6)
    assert not set(map(id, teacher.variables)) & set(map(id, student.variables))


def test_the_divergence_of_normals_is_least_at_the_given_ones():
    """And is the mean of the negative log-likelihood of draws."""
    loss, rng = GaussianCrossentropy(), np.random.default_rng(0)
    given, other = np.float32([[1, 2]]), np.float32([[0.5, 1.5]])
    draws = rng.normal(1, 2, 400_000)
    nll = 0.5 * ((draws - 0.5) / 1.5) ** 2 + np.log(1.5) + 0.5 * np.log(2 * np.pi)
    assert float(loss(given, other)) == pytest.approx(nll.mean(), rel=5e-3)
    kl = agreement(NumberTarget("height"), given, other)["kl_nats"]
    assert float(loss(given, other) - loss(given, given)) == pytest.approx(kl, rel=1e-5)
    restored = GaussianCrossentropy.from_config(loss.get_config())
    assert float(restored(given, other)) == float(loss(given, other))
