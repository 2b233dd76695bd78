"""The UTKFace CNN: its layers, and the commands that train and tune it."""

import csv
import json

import keras
import numpy as np
import pytest
from face_images import SIDE, TINY, make_faces, make_store
from killed import finish, kill

from kerasmlp import AgeCNN, ImageStore, InputError, load_model
from kerasmlp.cli import run_command
from kerasmlp.experiments.age_cnn import search
from kerasmlp.experiments.age_cnn.recipe import AgeCNNRecipe
from kerasmlp.experiments.age_cnn.search import STAGES
from kerasmlp.models.age_cnn import PAPER
from kerasmlp.models.layer_specification import KINDS

TABLE = [  # the appendix of the paper: output shape and parameters
    ("conv", (89, 89, 32), 320), ("conv", (87, 87, 32), 9248), ("pool", (43, 43, 32), 0),
    ("conv", (41, 41, 64), 18496), ("conv", (39, 39, 64), 36928), ("pool", (19, 19, 64), 0),
    ("conv", (17, 17, 128), 73856), ("conv", (15, 15, 128), 147584),
    ("conv", (13, 13, 128), 147584), ("pool", (6, 6, 128), 0), ("conv", (4, 4, 256), 295168),
    ("conv", (4, 4, 512), 131584), ("pool", (2, 2, 512), 0), ("flatten", (2048,), 0),
    ("dense", (256,), 524544), ("dense", (128,), 32896), ("dense", (64,), 8256),
    ("dense", (1,), 65),
]  # fmt: skip


def test_the_papers_model_is_the_papers():
    model = AgeCNN(seed=0)
    assert model.count_params() == 1_431_905
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 1_429_217
    assert sum(int(np.prod(w.shape)) for w in model.non_trainable_weights) == 2_688
    named = [layer for layer in model.layers if layer.name.split("_")[0] in KINDS]
    found = [(n.name.split("_")[0], n.output.shape[1:], n.count_params()) for n in named]
    assert found == TABLE
    kernels = [layer for layer in model.layers if hasattr(layer, "kernel")]
    for layer in kernels:
        assert isinstance(layer.kernel_initializer, keras.initializers.GlorotUniform)
        assert layer.kernel_regularizer.l2 == pytest.approx(1e-4)
    for conv in (layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)):
        after = conv.output._keras_history.operation._outbound_nodes[0].operation
        assert isinstance(after, keras.layers.BatchNormalization)
    other = AgeCNN(seed=1)
    assert not np.array_equal(model.get_weights()[0], other.get_weights()[0])
    np.testing.assert_array_equal(model.get_weights()[0], AgeCNN(seed=0).get_weights()[0])


def test_every_kind_of_layer():
    specification = [
        {"kind": "batch_norm"},
        {"kind": "conv", "filters": 3, "kernel": 3, "stride": 2, "padding": "same",
         "activation": "tanh", "initializer": "gaussian", "regularizer": "l1"},
        {"kind": "pool", "mode": "avg", "size": 3, "stride": 1},
        {"kind": "dropout", "rate": 0.5},
        {"kind": "flatten"},
        {"kind": "batch_norm"},
        {"kind": "dense", "units": 4, "activation": "relu", "initializer": "gaussian"},
        {"kind": "dense", "units": 1},
    ]  # fmt: skip
    model = AgeCNN(specification, input_shape=(10, 8, 3), regularization=0.5, seed=0)
    conv = model.get_layer("conv_1")
    assert conv.output.shape == (None, 5, 4, 3)
    assert isinstance(conv.kernel_initializer, keras.initializers.RandomNormal)
    assert conv.kernel_regularizer.l1 == 0.5
    assert isinstance(model.get_layer("pool_2"), keras.layers.AveragePooling2D)
    assert model.get_layer("pool_2").output.shape == (None, 3, 2, 3)
    assert model.get_layer("dense_6").kernel_regularizer is None
    assert json.loads(json.dumps(specification)) == specification
    config = json.loads(json.dumps(AgeCNNRecipe(specification=specification).to_config()))
    assert AgeCNNRecipe(**config) == AgeCNNRecipe(specification=specification)


def test_pixels_are_scaled_inside(tmp_path):
    images, _ = make_faces(4)
    model = AgeCNN(TINY, input_shape=(SIDE, SIDE, 1), seed=0)
    raw = model.predict(images, verbose=0)
    assert raw.shape == (4, 1) and raw.dtype == np.float32
    np.testing.assert_array_equal(model.predict(images.astype("float32"), verbose=0), raw)
    first = model.get_layer("scaled")(images)
    np.testing.assert_allclose(first, images / 255, rtol=1e-6)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(images), model(images))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_precision(policy):
    model = AgeCNN(TINY, input_shape=(SIDE, SIDE, 1), seed=0, dtype=policy)
    assert model.get_layer("conv_0").compute_dtype == policy.removeprefix("mixed_")
    assert {w.dtype for w in model.weights if "seed" not in w.path} == {"float32"}
    images, _ = make_faces(4)
    outputs = model(images)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    exact = AgeCNN(TINY, input_shape=(SIDE, SIDE, 1), seed=0)(images)
    np.testing.assert_allclose(outputs, exact, rtol=0.05, atol=0.05)


END = {"kind": "dense", "units": 1}
FLAT = {"kind": "flatten"}
CONV = {"kind": "conv", "filters": 2, "kernel": 3}


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ([], "`specification` must be a list of layers"),
        ("dense", "`specification` must be a list of layers"),
        ([FLAT, "dense"], r"`specification\[1\]` must be a mapping"),
        ([{"units": 1}], r"`specification\[0\]` must have a kind, one of conv, batch_norm"),
        ([{"kind": "cnv"}, END], r"`specification\[0\].kind` must be one of 'conv', .*'cnv'"),
        ([{"kind": ["conv"]}, END], r"`specification\[0\].kind` must be one of"),
        ([{"kind": "conv", "filters": 2}, END], r"`specification\[0\]` must have 'kernel'"),
        ([{"kind": "dropout"}, END], r"`specification\[0\]` must have 'rate'"),
        ([CONV | {"filters": 0}, FLAT, END], r"`specification\[0\].filters` must be an integer"),
        ([CONV | {"kernel": 2.5}, FLAT, END], r"`specification\[0\].kernel` must be an integer"),
        ([CONV | {"padding": "full"}, FLAT, END], r"padding` must be one of 'valid', 'same'"),
        ([CONV | {"activation": "rel"}, FLAT, END], r"activation` must be the name of one"),
        ([CONV | {"activation": None}, FLAT, END], r"activation` must be the name of one"),
        ([CONV | {"initializer": "he"}, FLAT, END], r"initializer` must be one of 'xavier'"),
        ([CONV | {"regularizer": "l3"}, FLAT, END], r"regularizer` must be one of 'l1', 'l2'"),
        ([CONV | {"batch_norm": 1}, FLAT, END], r"batch_norm` must be True or False"),
        ([CONV | {"units": 1}, FLAT, END], r"must be a layer of kind 'conv', which takes filters"),
        ([{"kind": "flatten", "to": 1}, END], "which takes nothing more"),
        ([{"kind": "pool", "mode": "min"}, FLAT, END], r"mode` must be one of 'max', 'avg'"),
        ([{"kind": "dropout", "rate": 1}, FLAT, END], r"rate` must be in \[0, 1\)"),
        ([FLAT], "`specification` must end with a dense layer of 1 unit"),
        ([FLAT, {"kind": "dense", "units": 2}], "must end with a dense layer of 1 unit"),
        ([END], r"`specification\[0\]` must come after a flatten layer"),
        ([FLAT, CONV, END], r"`specification\[1\]` must come before the flatten layer"),
        ([FLAT, FLAT, END], r"`specification\[1\]` must come before the flatten layer"),
        ([{"kind": "pool", "mode": "max"}] * 4 + [FLAT, END],
         r"`specification\[3\]` must leave at least 1 of the 1×1 pixels that reach it"),
        ([CONV | {"kernel": 13}, FLAT, END], r"must leave at least 1 of the 12×12 pixels"),
    ],
)  # fmt: skip
def test_bad_specifications(specification, message):
    with pytest.raises(InputError, match=message):
        AgeCNN(specification, input_shape=(SIDE, SIDE, 1))


def test_bad_arguments():
    with pytest.raises(InputError, match="`input_shape` must be height, width and channels"):
        AgeCNN(input_shape=(91, 91))
    with pytest.raises(InputError, match="`input_shape` must be an integer >= 1"):
        AgeCNN(input_shape=(91, 0, 1))
    with pytest.raises(InputError, match="`regularization` must be a finite number >= 0"):
        AgeCNN(regularization=-1)
    with pytest.raises(InputError, match=r"`specification\[12\]` must leave .* 1×1 pixels"):
        AgeCNN(input_shape=(60, 60, 1))
    with pytest.raises(InputError, match="`patience` must be an integer >= 1"):
        AgeCNNRecipe(patience=0)
    assert AgeCNNRecipe().specification == tuple(AgeCNNRecipe(specification=PAPER).specification)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("age_cnn")
    make_store().save(path / "faces.h5")
    recipe = {"specification": TINY, "learning_rate": 0.01, "batch_size": 16, "epochs": 6}
    (path / "tiny.json").write_text(json.dumps(recipe))
    return path


def train(folder, name, *flags):
    options = ["--preset", folder / "tiny.json", "--run-dir", folder / name]
    return [str(a) for a in (folder / "faces.h5", *options, *flags)]


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_bits(folder):
    checkpoint = folder / "broken" / "checkpoint.npz"
    kill("train-age-cnn", train(folder, "broken"), folder / "broken", checkpoint)
    broken = train(folder, "broken", "--resume")
    out, err = finish("train-age-cnn", broken, train(folder, "whole", "--json"))
    measured = json.loads(out.splitlines()[-1])
    assert set(measured["mae_years"]) == set(measured["median_mae_years"])
    assert "best validation MAE after epoch" in out and "epoch" in err
    models = [load_model(folder / name) for name in ("broken", "whole")]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    histories = [(folder / name / "history.csv").read_text() for name in ("broken", "whole")]
    assert histories[0] == histories[1]
    rows = list(csv.DictReader(histories[0].splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(6))
    assert float(rows[-1]["mae_years"]) < float(rows[0]["mae_years"])
    # The weights are the best epoch's, and the report is about them.
    report = json.loads((folder / "whole" / "report.json").read_text())
    best = min(rows, key=lambda row: float(row["val_mae_years"]))
    assert report["best_epoch"] == int(best["epoch"]) + 1
    assert report["mae_years"]["validation"] == pytest.approx(
        float(best["val_mae_years"]), rel=1e-5
    )
    assert report["rows"] == {"train": 64, "validation": 24, "test": 16}
    store = ImageStore.open(folder / "faces.h5")
    test = store.subset(store.rows("test"))
    years = models[1].predict(test.images, verbose=0)[:, 0]
    error = np.abs(years - test.labels["age_years"]).mean()
    assert report["mae_years"]["test"] == pytest.approx(error, rel=1e-5)
    for picture in ("curves.png", "ages.png", "faces.png"):
        assert (folder / "whole" / picture).stat().st_size > 5000
    # A finished run is not computed again.
    before = (folder / "whole" / "model.keras").stat().st_mtime_ns
    assert run_command("train-age-cnn", train(folder, "whole", "--resume")) == 0
    assert (folder / "whole" / "model.keras").stat().st_mtime_ns == before


def test_few_rows_are_learned_by_heart(folder, capsys):
    flags = ("--overfit", "5", "--epochs", "4", "--learning-rate", "0.1", "--json")
    assert run_command("train-age-cnn", train(folder, "heart", *flags)) == 0
    out = capsys.readouterr().out.splitlines()
    assert "MAE on the 5 images learned by heart" in out[-2]
    report = json.loads((folder / "heart" / "report.json").read_text())
    assert json.loads(out[-1])["mae_years"] == report["mae_years"] < 5
    assert load_model(folder / "heart").get_layer("conv_0").kernel_regularizer.l2 == 0


def test_half_precision_trains_and_is_saved_in_single(folder, capsys):
    flags = ("--precision", "mixed_bfloat16", "--epochs", "2", "--rows", "32", "--patience", "1")
    assert run_command("train-age-cnn", train(folder, "half", *flags)) == 0
    model = load_model(folder / "half")
    assert model.get_layer("conv_0").compute_dtype == "float32"
    assert json.loads((folder / "half" / "report.json").read_text())["rows"]["train"] == 32


@pytest.mark.slow
def test_the_search_ends_with_the_same_trials(folder, capsys, monkeypatch):
    def arguments(name, *flags):
        common = ["--preset", folder / "tiny.json", "--rows", "32", "--epochs", "1"]
        options = [folder / "faces.h5", "--run-dir", folder / name, "--trials", "3", *common]
        return [str(a) for a in (*options, *flags)]

    calls = []

    def made(recipe, *_):
        calls.append(recipe)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return 10 + abs(np.log10(recipe.learning_rate) + 4) + recipe.regularization

    monkeypatch.setattr(search, "_run", made)
    assert run_command("tune-age-cnn", arguments("tune")) == 130
    assert run_command("tune-age-cnn", arguments("tune", "--resume")) == 0
    assert len(calls) == 7  # six trials, one of them twice
    calls[:] = [None] * 5
    assert run_command("tune-age-cnn", arguments("tune-whole", "--json")) == 0
    tables = [(folder / name / "trials.csv").read_text() for name in ("tune", "tune-whole")]
    assert tables[0] == tables[1]
    rows = list(csv.DictReader(tables[0].splitlines()))
    assert [(row["stage"], row["trial"]) for row in rows] == [
        (stage, trial) for stage in "12" for trial in "012"
    ]
    for row in rows:
        for name, kind in STAGES[int(row["stage"]) - 1].items():
            assert kind.low <= float(row[name]) <= kind.high
    best = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert best["val_mae_years"] == min(float(row["val_mae_years"]) for row in rows)
    recipe = AgeCNNRecipe.from_file(folder / "tune" / "best.json")
    assert recipe.learning_rate == best["learning_rate"] and recipe.epochs == 6
    assert (folder / "tune" / "trials.png").stat().st_size > 5000
    monkeypatch.undo()
    assert run_command("tune-age-cnn", arguments("tune", "--trials", "1", "--force", "--json")) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["val_mae_years"] < 100


def test_bad_input_is_one_sentence(folder, tmp_path, capsys):
    def refused(command, *given):
        run = ["--run-dir", tmp_path / "run"]
        assert run_command(command, [str(a) for a in (*given, *run)]) == 2
        captured = capsys.readouterr().err
        assert "Traceback" not in captured and not (tmp_path / "run").exists()
        (line,) = [line for line in captured.splitlines() if line.startswith("error: ")]
        return line

    good, tiny = folder / "faces.h5", ["--preset", folder / "tiny.json"]
    make_store(channels=3).save(tmp_path / "colour.h5")
    images, _ = make_faces(4)
    ImageStore(images, {"split": ["train"] * 4}).save(tmp_path / "no_ages.h5")
    labels = {"split": ["train"] * 4, "age_years": [1, 2, 3, 4]}
    ImageStore(images, labels).save(tmp_path / "no_test.h5")
    (tmp_path / "text.h5").write_text("text")
    (tmp_path / "bad.json").write_text(json.dumps({"learning_rat": 1}))
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "layer.json").write_text(json.dumps({"specification": [{"kind": "conv"}]}))
    for command in ("train-age-cnn", "tune-age-cnn"):
        for given, message in (
            ([tmp_path / "none.h5"], "none.h5` must be an HDF5 file. Received: no such file"),
            ([tmp_path / "text.h5"], "text.h5` must be a complete HDF5 file"),
            ([tmp_path / "colour.h5", *tiny], "must hold grey images, of 1 channel"),
            ([tmp_path / "no_ages.h5", *tiny], "no_ages.h5` must hold label 'age_years'"),
            ([good], "must leave at least 1 of the 2×2 pixels"),
            ([good, "--preset", tmp_path / "none.json"], "none.json` must be a JSON file"),
            ([good, "--preset", tmp_path / "bad.json"], "must hold values of batch_size, epochs"),
            ([good, "--preset", tmp_path / "list.json"], "must hold values of batch_size, epochs"),
            ([good, "--preset", tmp_path / "layer.json"], "must have 'filters'"),
            ([good, *tiny, "--rows", "65"], "`--rows` must be at most the 64 images"),
            ([good, *tiny, "--rows", "5"], "must be at most the 5 images"),
            ([good, *tiny, "--epochs", "0"], "`--epochs` must be an integer >= 1"),
            ([good, *tiny, "--seed", "-1"], "`--seed` must be an integer >= 0"),
        ):
            assert message in refused(command, given[0], "--rows", "32", *given[1:])
    no_test = refused("train-age-cnn", tmp_path / "no_test.h5", *tiny)
    assert "no_test.h5` must hold images of split 'validation'. Received: 'train'" in no_test
    assert "`--overfit` must be at most the 64" in refused(
        "train-age-cnn", good, *tiny, "--overfit", 65
    )
    assert "`--rows` must be left out with --overfit" in refused(
        "train-age-cnn", good, *tiny, "--overfit", 5, "--rows", 9
    )
    assert "`--learning-rate` must be a finite number > 0" in refused(
        "train-age-cnn", good, *tiny, "--learning-rate", 0
    )
    diverged = ("--learning-rate", "1e30", "--epochs", "2")
    assert "`--learning-rate` must be lower" in refused("train-age-cnn", good, *tiny, *diverged)
    assert "`--trials` must be an integer >= 1" in refused(
        "tune-age-cnn", good, *tiny, "--rows", 32, "--trials", 0
    )
