"""`fit`: arrays of any kind to a model that predicts, saves itself and comes back from a pickle."""

import io
import pickle

import numpy as np
import pytest
from data_sets import make_store

from kerasmlp import Predictor, Recipe, choose_target, fit, train
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.training.fitted import task_of
from kerasmlp.training.losses import RankedCrossentropy
from kerasmlp.utils.checks import InputError

QUICK = Recipe(epochs=2, batch_size=32, mixup_alpha=0.0, noise_std=0.0, calibrate=False)


@pytest.fixture(scope="module")
def store():
    return make_store(rows=200, width=16)


@pytest.fixture(scope="module")
def model(store):
    words = np.where(store.labels["gender"] == 1, "yes", "no")
    return fit(store.embeddings, words, label="answer", recipe=QUICK, seed=3)


def test_it_is_the_training_of_the_commands(store, model, tmp_path):
    train(store, choose_target(store, "gender"), QUICK, tmp_path / "run", seed=3)
    expected = Predictor(tmp_path / "run").probabilities(store.embeddings)
    np.testing.assert_array_equal(model.probabilities(store.embeddings), expected)
    assert model.classes.tolist() == ["no", "yes"]
    words = model.classes[expected.argmax(axis=1)]
    np.testing.assert_array_equal(model.predict(store.embeddings), words)
    row = next(model.rows(store.embeddings))
    assert row["answer"] in ("no", "yes") and 0 <= row["uncertainty"] <= 1


def test_a_saved_model_is_a_run(store, model, tmp_path):
    model.save(tmp_path / "run")
    saved, run = Predictor(tmp_path / "run"), RunFolder(tmp_path / "run")
    np.testing.assert_array_equal(
        saved.probabilities(store.embeddings), model.probabilities(store.embeddings)
    )
    run.check_files()
    assert run.report() == model.report and saved.target.class_names == ("no", "yes")
    with pytest.raises(InputError, match="must be empty"):
        model.save(tmp_path / "run")
    model.save(tmp_path / "run", force=True)
    assert RunFolder(tmp_path / "run").done


def test_a_pickle_holds_bytes_and_no_code(store, model):
    named = set()

    class Named(pickle.Unpickler):
        def find_class(self, module, name):
            named.add((module.split(".")[0], name))
            return super().find_class(module, name)

    again = Named(io.BytesIO(pickle.dumps(model))).load()
    assert ("kerasmlp", "FittedModel") in named
    assert {module for module, _ in named} <= {"kerasmlp", "numpy", "copyreg", "builtins"}
    assert {name for module, name in named if module == "builtins"} <= {"object"}
    np.testing.assert_array_equal(
        again.probabilities(store.embeddings), model.probabilities(store.embeddings)
    )
    assert again.predict(store.embeddings).dtype == model.classes.dtype
    assert again.report == model.report


def test_a_pickle_that_was_altered_is_refused(model):
    state = model.__getstate__()
    files = state["files"] | {"model.keras": state["files"]["model.keras"][:-1] + b"x"}
    with pytest.raises(InputError, match="model.keras` must be as it was written"):
        type(model).__new__(type(model)).__setstate__(state | {"files": files})


@pytest.mark.parametrize("of", [lambda y: y * 2 - 1, lambda y: y == 1, lambda y: y.astype(object)])
def test_labels_of_any_kind(store, of):
    y = of(store.labels["gender"].astype(int))
    model = fit(store.embeddings.tolist(), y.tolist(), recipe=QUICK)
    assert model.classes.tolist() == np.unique(y).tolist()
    assert set(model.predict(store.embeddings).tolist()) == set(y.tolist())
    assert model.report["rows"]["unlabelled"] == 0  # of -1 and 1 none is taken for unknown


def test_floats_are_numbers_with_their_uncertainty(store):
    y = 170 + 10 * store.labels["age_years"].astype(float)
    model = fit(store, y, label="height", recipe=QUICK.replace(epochs=30, learning_rate=0.01))
    assert model.classes is None and model.target.is_number
    np.testing.assert_array_equal(model.predict(store), model.probabilities(store)[:, 0])
    assert np.corrcoef(model.predict(store), y)[0, 1] > 0.8
    row = next(model.rows(store, num_samples=4))
    assert row["interval_90"][0] < row["height"] < row["interval_90"][1]


def test_a_table_of_pandas(store, model, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(store.embeddings, columns=[f"c{i}" for i in range(store.width)])
    words = pandas.Series(np.where(store.labels["gender"] == 1, "yes", "no"))
    same = fit(frame, words, label="answer", recipe=QUICK, seed=3)
    np.testing.assert_array_equal(same.probabilities(frame), model.probabilities(store))
    np.testing.assert_array_equal(same.probabilities(frame.to_numpy()), same.probabilities(frame))
    assert same.config["preprocessing"] is None  # numbered columns, as those of an embedding
    named = frame.rename(columns={"c0": "slag", "c1": "water"})
    told = fit(named, words, label="answer", recipe=QUICK, seed=3)
    told.save(tmp_path / "run")
    other = named[[*named.columns[1::-1], *named.columns[2:]]]
    for model in (told, Predictor(tmp_path / "run")):
        np.testing.assert_array_equal(model.probabilities(named), same.probabilities(frame))
        with pytest.raises(InputError, match="their order: 'slag' as number 1. Received: 'water'"):
            model.probabilities(other)


def test_a_store_keeps_its_embedder(store):
    model = fit(store, store.labels["gender"], recipe=QUICK)
    assert model.config["embedder_sha256"] == "0" * 64 and model.config["normalized"]


def test_rows_are_taken_for_what_they_are(store):
    scaled = fit(3 * store.embeddings, store.labels["gender"], recipe=QUICK)
    assert not scaled.config["normalized"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y": [0, 1]}, "`y` must be one label for each of 200 rows"),
        ({"y": ["a", None] * 100}, "`y` must hold labels of one kind, known in every row"),
        ({"y": ["a", ""] * 100}, "`y` must hold labels that are known in every row"),
        ({"label": "a/b"}, "`label` must be a name without '/'"),
        ({"label": ""}, "`label` must be a name without '/'"),
        ({"label": "gender"}, "`label` must be a name without a meaning of its own"),
        ({"y": [0.5, np.nan] * 100}, "`y` must hold finite numbers"),
        ({"y": [1] * 200}, "must hold at least two classes"),
        ({"weights": [1.0]}, "`weights` must be one number for each of 200 rows"),
        ({"weights": [-1.0] * 200}, "`weights` must be finite numbers >= 0, not all of them zero"),
        ({"weights": [0.0] * 200}, "`weights` must be finite numbers >= 0, not all of them zero"),
        ({"X": [[1.0], [2.0, 3.0]]}, "`X` must be rows of numbers"),
    ],
)
def test_what_cannot_be_fitted(store, changes, words):
    arguments = {"X": store.embeddings, "y": store.labels["gender"], "recipe": QUICK} | changes
    with pytest.raises(InputError, match=words):
        fit(**arguments)


def test_of_the_loss_a_weight_is_a_factor():
    rng = np.random.default_rng(0)
    y, p = (rng.dirichlet(np.ones(4), 6).astype("float32") for _ in range(2))
    weights = rng.uniform(0, 3, 6).astype("float32")
    loss = RankedCrossentropy(rps_weight=0.0, reduction="none")
    np.testing.assert_allclose(loss(y * weights[:, None], p), weights * loss(y, p), rtol=1e-6)


def test_weights_count(store):
    y = store.labels["gender"]
    plain, same = (fit(store, y, recipe=QUICK, weights=w) for w in (None, np.full(200, 3.0)))
    np.testing.assert_array_equal(plain.probabilities(store), same.probabilities(store))
    some = np.arange(200) % 4 > 0
    without = fit(store.subset(some), y[some], recipe=QUICK)
    at_zero = fit(store, y, recipe=QUICK, weights=some * 2.0)
    np.testing.assert_array_equal(without.probabilities(store), at_zero.probabilities(store))
    longer = QUICK.replace(epochs=10, learning_rate=0.01)
    light = fit(store, y, recipe=longer, weights=np.where(y == 0, 50.0, 1.0))
    assert light.probabilities(store)[:, 1].mean() < y.mean() - 0.1


def test_weights_of_ages_are_refused(store, tmp_path):
    from kerasmlp.data.targets import choose_age_target

    target = choose_age_target(store, None, None, by_years=True)
    with pytest.raises(InputError, match="`weight` must be left out for ages"):
        train(store, target, QUICK, tmp_path / "run", weight="group")
    with pytest.raises(InputError, match="`weight` must be a column of the store"):
        train(store, choose_target(store, "gender"), QUICK, tmp_path / "run", weight="none")
    assert not (tmp_path / "run").exists()


def test_what_y_is():
    """Floats in objects are numbers; many different integers are to be told; times are refused."""
    assert task_of("price", np.array([1.5, 2.5, 3.7], object))[0].is_number
    many = np.arange(300) % 150
    with pytest.raises(InputError, match="`y` must be told: `y.astype.float.` are numbers"):
        task_of("price", many)
    assert len(task_of("price", many.astype(str))[1]) == 150
    with pytest.raises(InputError, match="`y` must hold text, numbers, or True and False"):
        task_of("day", np.array(["2020-01-01", "2020-01-02"], "datetime64[D]"))
