"""LayerOut's networks, images and command."""

import csv
import json
import math

import keras
import numpy as np
import pytest
from checks import check_layer
from killed import finish, kill

from kerasmlp import ICResNet, InputError, MNISTNet, RandomErasing, load_model
from kerasmlp.callbacks.frozen_step import weight_layers
from kerasmlp.cli import run_command
from kerasmlp.experiments.layer_out.plan import NETWORKS, LayerOutPlan
from kerasmlp.models.vgg16 import VGG16
from kerasmlp.training.image_batches import augmented_batches, load_images, plain_batches
from kerasmlp.training.l2_sgd import L2SGD


def make_images(path, rows=(96, 40), shape=(28, 28), num_classes=3, seed=0):
    """A bright bar whose place is the class."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in zip(("train", "test"), rows, strict=True):
        y = rng.integers(0, num_classes, count)
        y[:num_classes] = np.arange(num_classes)
        x = rng.integers(0, 60, (count, *shape)).astype("uint8")
        for image, label in zip(x, y, strict=True):
            image[5 + 6 * label : 9 + 6 * label, 6:20] += 180
        arrays |= {f"x_{part}": x, f"y_{part}": y.astype("uint8")}
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("images") / "digits.npz")


def test_parameter_counts():
    mnist = MNISTNet(seed=0)
    assert mnist.count_params() == 491_114
    assert mnist.output_shape == (None, 10)
    vgg = VGG16(num_classes=100)  # with 10 classes 33,646,666: see its docstring
    assert sum(math.prod(w.shape) for w in vgg.trainable_weights) == 33_646_666 + 90 * 4097
    # 13 convolutions and 3 dense layers, 7 layers: one probability each
    for network, model in ((NETWORKS["mnist"], mnist), (NETWORKS["vgg16"], vgg)):
        kernels = [layer for layer in model.layers if hasattr(layer, "kernel")]
        assert len(kernels) == len(network.efreeze)


def test_random_erasing_is_a_layer():
    @keras.saving.register_keras_serializable("tests")
    class Moded(RandomErasing):
        def call(self, inputs, training=False, sampling=False):
            return super().call(inputs, training=training)

    check_layer(Moded, {"probability": 0.3, "seed": 1}, (4, 8, 8, 2), parameters=0)


def test_random_erasing_does_what_it_says():
    x = np.random.default_rng(0).uniform(1, 2, (2000, 16, 12, 2)).astype("float32")
    layer = RandomErasing(probability=0.4, area=(0.1, 0.3), aspect_ratio=0.5, fill_value=-1, seed=2)
    np.testing.assert_array_equal(np.array(layer(x)), x)
    y = np.array(layer(x, training=True))
    holes = (y == -1).all(axis=-1)
    np.testing.assert_array_equal(y[~holes], x[~holes])
    erased = holes.any(axis=(1, 2))
    assert abs(erased.mean() - 0.4) < 4 * (0.24 / 2000) ** 0.5
    tall = holes.any(axis=2).sum(axis=1)[erased]
    wide = holes.any(axis=1).sum(axis=1)[erased]
    # Each hole is one full rectangle of an allowed size, up to rounding of its sides.
    np.testing.assert_array_equal(tall * wide, holes.sum(axis=(1, 2))[erased])
    area = tall * wide / (16 * 12)
    assert 0.07 < area.min() < 0.12 and 0.27 < area.max() < 0.34
    assert (tall / wide).min() > 0.4 and (tall / wide).max() < 2.5
    assert holes[:, 0].any() and holes[:, -1].any() and holes[:, :, 0].any()
    again = RandomErasing(**{**layer.get_config(), "name": "again"})
    np.testing.assert_array_equal(np.array(again(x, training=True)), y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probability": 1.2}, r"`probability` must be in \[0, 1\]"),
        ({"area": (0.4, 0.02)}, "`area` must be two shares"),
        ({"aspect_ratio": 0}, r"`aspect_ratio` must be in \(0, 1\]"),
        ({"fill_value": float("nan")}, "`fill_value` must be a finite number"),
    ],
)
def test_bad_random_erasing(arguments, message):
    with pytest.raises(InputError, match=message):
        RandomErasing(**arguments)


def test_l2_sgd_is_pytorchs_sgd():
    """v = 0.9 v + g + l2 w; w = w - lr v."""
    optimizer = L2SGD(0.1, momentum=0.9, l2=0.5)
    variable, w, v = keras.Variable([2.0]), 2.0, 0.0
    for g in (1.0, -3.0, 0.5):
        optimizer.apply([keras.ops.convert_to_tensor([g])], [variable])
        v = 0.9 * v + g + 0.5 * w
        w -= 0.1 * v
        assert float(variable[0]) == pytest.approx(w, rel=1e-5)
    assert L2SGD.from_config(optimizer.get_config()).l2 == 0.5


def test_augmented_images_are_shifted_and_mirrored_copies(images):
    data = load_images(images)
    assert data.train.inputs.shape == (96, 32, 32, 1) and data.num_classes == 3
    settings = {"batch_size": 32, "num_epochs": 3, "seed": 4}
    whole = list(augmented_batches(data.train.inputs, data.train.targets, **settings))
    assert len(whole) == 9
    rest = list(augmented_batches(data.train.inputs, data.train.targets, first_epoch=2, **settings))
    for (a, b), (c, d) in zip(whole[6:], rest, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
    epoch = np.concatenate([y for _, y in whole[:3]])
    assert sorted(epoch) == sorted(data.train.targets)
    plain = np.concatenate([x for x, _ in plain_batches(data.train.inputs, data.train.targets)])
    padded = np.pad(data.train.inputs, ((0, 0), (4, 4), (4, 4), (0, 0)))
    padded = (padded / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(plain, padded[:, 4:36, 4:36], atol=1e-5)
    mirrors = 0
    for image in whole[0][0][:8].numpy():
        found = [
            mirrored
            for mirrored, candidate in ((False, image), (True, image[:, ::-1]))
            for i in range(9)
            for j in range(9)
            if (np.abs(padded[:, i : i + 32, j : j + 32] - candidate).max((1, 2, 3)) < 1e-4).any()
        ]
        assert found
        mirrors += found[0]
    assert 0 < mirrors < 8


def test_plans_are_the_papers():
    plan = LayerOutPlan(network="vgg16", seeds=(0, 1), erasing="both")
    assert len(plan.runs()) == 2 * 5 * 2
    assert (plan.epochs, plan.batch_size) == (300, 128)
    assert plan.rates() == pytest.approx({0: 0.1, 150: 0.01, 225: 0.001})
    settings = [plan.layer_out(run) for run in plan.runs()[::2][:5]]
    assert settings[0] is None
    assert [s["warmup_epochs"] for s in settings[1:]] == [0, 20, 20, 20]
    assert [s["schedule"] for s in settings[1:3]] == ["random", "random"]
    assert settings[3]["schedule"] == settings[4]["schedule"][::-1]
    assert settings[4]["schedule"][0] == 0.9
    plan = LayerOutPlan(network="resnet-110")
    assert (plan.epochs, plan.batch_size, NETWORKS["resnet-110"].l2) == (164, 32, 1e-4)
    assert plan.rates() == pytest.approx({0: 0.01, 4: 0.1, 82: 0.01, 123: 0.001})
    assert plan.modes == ("baseline", "since-start", "warm-up")
    assert [plan.layer_out(run) and plan.layer_out(run)["schedule"] for run in plan.runs()] == [
        None, "random", "random",
    ]  # fmt: skip
    model = ICResNet(depth=110, arrangement="baseline")
    names = [layer.name for layer in weight_layers(model)]
    assert len(names) == 110 + 2  # two 1×1 convolutions skip a unit that changes the shape
    assert names[0] == "conv_stem" and names[-1] == "logits"
    short = LayerOutPlan(network="resnet-110", epochs=8, warmup_epochs=1)
    assert list(short.rates()) == [0, 1, 4, 6]


def arguments(images, folder, *more):
    flags = ["--epochs", "6", "--warmup-epochs", "2", "--batch-size", "32", "--modes", "efreeze"]
    return [str(images), "--run-dir", str(folder), *flags, *more]


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_table(images, tmp_path):
    checkpoint = tmp_path / "broken" / "efreeze_seed0" / "checkpoint.npz"
    words = [arguments(images, tmp_path / name) for name in ("broken", "whole")]
    kill("train-layerout", words[0], tmp_path / "broken", checkpoint)
    out, err = finish("train-layerout", [*words[0], "--resume"], [*words[1], "--json"])
    assert "epoch" in err  # the bar
    assert "| 1 | LayerOut-efreeze |" in out
    summary = json.loads(out.splitlines()[-1])["LayerOut-efreeze"]
    runs = [tmp_path / name / "efreeze_seed0" for name in ("whole", "broken")]
    for a, b in zip(*(load_model(run).get_weights() for run in runs), strict=True):
        np.testing.assert_array_equal(a, b)
    tables = []
    for run in runs:
        with open(run / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        tables.append([{k: v for k, v in row.items() if k != "seconds"} for row in rows])
    assert tables[0] == tables[1]
    assert [bool(row["frozen"]) for row in tables[0][:2]] == [False, False]
    assert any(row["frozen"] for row in tables[0])
    mean = np.mean([float(row["frozen_share"]) for row in tables[0]])
    assert summary["frozen_share"]["mean"] == pytest.approx(mean)
    assert (tmp_path / "whole" / "curves.png").stat().st_size > 5000
    # A finished experiment is not computed again, and only --force replaces it.
    before = (runs[0] / "model.keras").stat().st_mtime_ns
    assert run_command("train-layerout", arguments(images, tmp_path / "whole", "--resume")) == 0
    assert (runs[0] / "model.keras").stat().st_mtime_ns == before


@pytest.mark.slow
def test_half_precision_is_of_the_training_alone(images, tmp_path):
    precision = "mixed_bfloat16"  # CPUs emulate float16
    flags = ["--epochs", "4", "--warmup-epochs", "1", "--precision", precision]
    run = tmp_path / "run" / "efreeze_seed0"
    assert run_command("train-layerout", arguments(images, tmp_path / "run", *flags)) == 0
    assert keras.config.dtype_policy().name == "float32"
    model = load_model(run)
    assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}
    data = load_images(images)
    predicted = model.predict(data.test.inputs, verbose=0).argmax(axis=1)  # of pixels
    report = json.loads((run / "report.json").read_text())
    assert abs((predicted == data.test.targets).mean() - report["test_accuracy"]) <= 0.05
    assert json.loads((run / "config.json").read_text())["precision"] == precision
    assert report["best_test_accuracy"] > 0.5


@pytest.mark.slow
def test_a_run_that_diverges_is_left_out(images, tmp_path, monkeypatch):
    from kerasmlp.experiments.image_runs import run_experiment
    from kerasmlp.experiments.layer_out.experiment import LayerOutTraining, layer_out_experiment
    from kerasmlp.utils.checks import DivergedError

    make = LayerOutTraining.make

    def diverging(training):
        if training.run.seed == 1:
            raise DivergedError(training.plan.learning_rate)
        return make(training)

    monkeypatch.setattr(LayerOutTraining, "make", diverging)
    plan = LayerOutPlan(network="mnist", modes=("baseline",), seeds=(0, 1), epochs=1, batch_size=32)
    report = run_experiment(layer_out_experiment(plan), load_images(images), tmp_path / "run")
    assert report["diverged"] == ["baseline_seed1"] and len(report["runs"]) == 1
    assert "Diverged and left out: baseline_seed1." in (tmp_path / "run/table.md").read_text()


def test_bad_input_is_one_sentence(images, tmp_path, capsys):
    def refused(path, *more):
        assert run_command("train-layerout", arguments(path, tmp_path / "run", *more)) == 2
        lines = capsys.readouterr().err.splitlines()
        (line,) = [line for line in lines if line.startswith("error: ")]
        assert not (tmp_path / "run" / "config.json").exists()
        return line

    assert "must be less than the 6 epochs" in refused(images, "--warmup-epochs", "6")
    assert "`--batch-size` must be at most the 96 images" in refused(images, "--batch-size", "97")
    assert "`--learning-rate` must be a finite number > 0" in refused(
        images, "--learning-rate", "0"
    )
    assert "`--seeds` must be an integer >= 1" in refused(images, "--seeds", "0")
    assert "must be a file. Received: no such file" in refused(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no images")
    assert "must hold plain arrays" in refused(tmp_path / "text.npz")
    for name, arrays, message in (
        ("lacks", {"x_train": np.zeros((2, 28, 28), "uint8")}, "must hold x_train, y_train"),
        ("wide", {"shape": (28, 30)}, "must hold images of 28×28 or 32×32 pixels"),
    ):
        path = tmp_path / f"{name}.npz"
        if "shape" in arrays:
            make_images(path, **arrays)
        else:
            np.savez(path, **arrays)
        assert message in refused(path)
