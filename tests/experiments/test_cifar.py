"""CIFAR's own files, and the command that trains IC ResNets on them."""

import csv
import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killed import finish, kill

from kerasmlp import InputError, load_model, predict_samples
from kerasmlp.cli import run_command
from kerasmlp.data.images.cifar import parse, store_of_cifar
from kerasmlp.data.stores.image_store import ImageStore
from kerasmlp.experiments.ic_resnet.plan import CifarPlan
from kerasmlp.training.image_batches import load_images, plain_batches

RNG = np.random.default_rng(0)
CIFAR10 = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]


def make_records(labels, seed=0):
    """Records of a bright bar whose place is the last label."""
    rng = np.random.default_rng(seed)
    labels = np.atleast_2d(np.array(labels, "uint8").T).T
    images = rng.integers(0, 60, (len(labels), 3, 32, 32)).astype("uint8")
    for image, label in zip(images, labels[:, -1] % 3, strict=True):
        image[:, 5 + 8 * label : 9 + 8 * label, 6:26] += 180
    return np.hstack([labels, images.reshape(len(labels), -1)])


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate(CIFAR10):
        make_records(np.arange(12) % 3, seed=number).tofile(folder / name)
    (folder / "readme.html").write_text("")
    return folder


def archive_of(folder, path):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    return path


def test_cifar_10_from_a_folder_and_from_the_archive(cifar10, tmp_path):
    data = load_images(cifar10)
    assert data.train.inputs.shape == (60, 32, 32, 3) and data.test.inputs.shape == (12, 32, 32, 3)
    record = np.fromfile(cifar10 / "data_batch_2.bin", "uint8")[3073:6146]
    assert data.train.targets[13] == record[0] == 1
    # Red, then green, then blue, each row by row.
    np.testing.assert_array_equal(
        data.train.inputs[13, :, :, 1].ravel(), record[1 + 1024 : 1 + 2048]
    )
    packed = load_images(archive_of(cifar10, tmp_path / "cifar-10-binary.tar.gz"))
    assert packed.digest() == data.digest()
    assert data.head(7).train.inputs.shape == (7, 32, 32, 3) and data.head(7).test is data.test
    pixels = np.concatenate(
        [x for x, _ in plain_batches(data.test.inputs, data.test.targets, normalized=False)]
    )
    np.testing.assert_array_equal(pixels, data.test.inputs)


def test_cifar_100_learns_the_fine_labels(tmp_path):
    make_records([(3, 99), (19, 0)]).tofile(tmp_path / "train.bin")
    make_records([(0, 99)]).tofile(tmp_path / "test.bin")
    data = load_images(tmp_path)
    assert data.train.targets.tolist() == [99, 0] and data.test.targets.tolist() == [99]
    assert data.num_classes == 100 and data.train.targets.dtype == np.int32
    store = store_of_cifar(tmp_path)
    assert store.labels["superclass"].tolist() == [3, 19, 0]
    store.save(tmp_path / "cifar.h5")
    assert load_images(tmp_path / "cifar.h5").digest() == data.digest()


def test_files_that_are_no_cifar(cifar10, tmp_path):
    def refused(path):
        with pytest.raises(InputError) as caught:
            store_of_cifar(path)
        return str(caught.value)

    folder = tmp_path / "some"
    folder.mkdir()
    assert "must hold test_batch.bin (CIFAR-10) or test.bin (CIFAR-100)" in refused(folder)
    for name in CIFAR10:
        (folder / name).write_bytes((cifar10 / name).read_bytes())
    whole = (folder / "data_batch_4.bin").read_bytes()
    for content, message in (
        (whole[:-1], "data_batch_4.bin` must be complete, a multiple of 3073 bytes."),
        (b"", "must be complete, a multiple of 3073 bytes. Received: 0 bytes"),
        (b"\x0a" + whole[1:], "must hold a class below 10 in byte 0 of each record. Received: 10"),
    ):
        (folder / "data_batch_4.bin").write_bytes(content)
        assert message in refused(folder)
    (folder / "data_batch_4.bin").unlink()
    assert "data_batch_4.bin` must be there, as a part of CIFAR-10" in refused(folder)
    packed = archive_of(cifar10, tmp_path / "a.tar.gz")
    packed.write_bytes(packed.read_bytes()[:2000])
    assert "must be a folder or .tar.gz with the binary version" in refused(packed)
    (tmp_path / "text.tar.gz").write_text("no archive")
    assert "must be a folder or .tar.gz with the binary version" in refused(
        tmp_path / "text.tar.gz"
    )
    assert "no such file" in refused(tmp_path / "none.tar.gz")


@given(
    size=st.integers(0, 3),
    extra=st.integers(-2, 2),
    fill=st.binary(min_size=1, max_size=9),
    coarse=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_any_bytes_are_images_or_one_sentence(size, extra, fill, coarse):
    counts = {"superclass": 20, "class": 100} if coarse else {"class": 10}
    record = len(counts) + 3072
    length = max(size * record + extra, 0)
    content = (fill * (length // len(fill) + 1))[:length]
    first = [content[k::record][:size] for k in range(len(counts))]
    good = size and not extra
    good = good and all(max(v) < n for v, n in zip(first, counts.values(), strict=True))
    if good:
        images, labels = parse(content, counts, "a.bin")
        assert images.shape == (size, 32, 32, 3) and images.dtype == np.uint8
        assert labels["class"].tolist() == list(first[-1])
        back = images.transpose(0, 3, 1, 2).reshape(size, -1)
        assert (
            b"".join(
                content[k * record : k * record + len(counts)] + row.tobytes()
                for k, row in enumerate(back)
            )
            == content
        )
    else:
        with pytest.raises(InputError, match="`a.bin` must"):
            parse(content, counts, "a.bin")


@given(content=st.binary(max_size=300), packed=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_archive_is_refused_in_one_sentence(content, packed, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzz.tar.gz"
    if packed:
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    else:
        path.write_bytes(content)
    with pytest.raises(InputError):
        store_of_cifar(path)


def test_the_plan_is_the_papers():
    plan = CifarPlan(seeds=(0, 1))
    assert (plan.depth, plan.epochs, plan.batch_size, plan.learning_rate) == (110, 200, 64, 1e-3)
    assert len(plan.runs()) == 8 and plan.runs()[0].name == "relu-ic-conv_seed0"
    assert plan.rates() == pytest.approx({0: 1e-3, 80: 1e-4, 120: 1e-5, 160: 1e-6})
    assert plan.dropout_rate == 0.05
    assert list(CifarPlan(depth=20, epochs=12).rates()) == [0, 5, 7, 10]
    assert CifarPlan(epochs=1).rates()[0] == 1e-3


FLAGS = ["--depth", "8", "--epochs", "3", "--batch-size", "20", "--learning-rate", "0.01"]


def arguments(data, folder, *more):
    return [str(data), "--run-dir", str(folder), *FLAGS, *more]


def history_of(run):
    with open(run / "history.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_table(cifar10, tmp_path):
    def words(name, *more):
        return arguments(cifar10, tmp_path / name, "--arrangements", "relu-ic-conv", *more)

    checkpoint = tmp_path / "broken" / "relu-ic-conv_seed0" / "checkpoint.npz"
    kill("train-cifar", words("broken"), tmp_path / "broken", checkpoint)
    out, err = finish("train-cifar", words("broken", "--resume"), words("whole", "--json"))
    assert "epoch" in err  # the bar
    assert "| ResNet | 8 | 2×{ReLU-IC-Conv2D} |" in out
    assert "60 images trained on, 12 tested on" in out
    summary = json.loads(out.splitlines()[-1])
    assert list(summary) == ["2×{ReLU-IC-Conv2D}"]
    runs = [tmp_path / name / "relu-ic-conv_seed0" for name in ("whole", "broken")]
    models = [load_model(path) for path in runs]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    whole, resumed = (history_of(path) for path in runs)
    assert whole == resumed and len(whole) == 3
    # What was saved takes pixels, and answers as it was measured.
    data = load_images(cifar10)
    found = models[0].predict(data.test.inputs, verbose=0)
    accuracy = (found.argmax(axis=1) == data.test.targets).mean()
    assert accuracy == pytest.approx(float(whole[-1]["val_accuracy"]), abs=1e-6)
    assert summary["2×{ReLU-IC-Conv2D}"]["test_accuracy"]["mean"] == pytest.approx(accuracy)
    assert predict_samples(models[0], data.test.inputs[:2], num_samples=3).std(axis=0).max() > 0
    accuracies = np.array([float(row["val_accuracy"]) for row in whole])
    assert summary["2×{ReLU-IC-Conv2D}"]["mean_fall"]["mean"] == pytest.approx(
        np.maximum(accuracies[:-1] - accuracies[1:], 0).sum() / 3, abs=1e-6
    )
    assert (tmp_path / "whole" / "curves.png").stat().st_size > 5000
    assert run_command("train-cifar", words("whole", "--resume")) == 0


def test_the_mean_image_is_taken_off(cifar10):
    from kerasmlp.experiments.ic_resnet.experiment import CifarTraining

    data = load_images(cifar10)
    plan = CifarPlan(depth=8)
    model = CifarTraining(data, plan, plan.runs()[0], "").network()
    layer = model.get_layer("less_the_mean_image")
    images = np.array(layer(data.train.inputs.astype("float32")))
    np.testing.assert_allclose(images.mean(axis=0), 0, atol=1e-6)
    assert images.std() == pytest.approx(
        (data.train.inputs / 255 - data.train.inputs.mean(0) / 255).std()
    )


def test_bad_input_is_one_sentence(cifar10, tmp_path, capsys):
    def refused(path, *more):
        assert run_command("train-cifar", arguments(path, tmp_path / "run", *more)) == 2
        lines = capsys.readouterr().err.splitlines()
        (line,) = [line for line in lines if line.startswith("error: ")]
        assert not (tmp_path / "run" / "config.json").exists()
        return line

    assert "`--depth` must be 6n + 2 without bottlenecks" in refused(cifar10, "--depth", "29")
    assert "such as 11 or 20" in refused(cifar10, "--bottleneck")  # of depth 8
    assert "`--dropout-rate` must be in [0, 1)" in refused(cifar10, "--dropout-rate", "1")
    assert "`--epochs` must be an integer >= 1" in refused(cifar10, "--epochs", "0")
    assert "`--batch-size` must be at most the 60 images" in refused(cifar10, "--batch-size", "61")
    assert "`--rows` must be at most 60" in refused(cifar10, "--rows", "61")
    assert "`--rows` must be an integer >= 1" in refused(cifar10, "--rows", "0")
    assert "`--run-dir` must be given to be resumed" in one_line(
        capsys, run_command("train-cifar", [str(cifar10), "--resume"])
    )
    requirement = "must be an .npz, an image store (.h5), or a folder or .tar.gz of CIFAR"
    assert f"{requirement}. Received: a folder" in refused(tmp_path)
    assert f"{requirement}. Received: no such file" in refused(tmp_path / "none")
    assert "must be a file. Received: no such file" in refused(tmp_path / "none.npz")
    channels = {f"x_{part}": np.zeros((9, 32, 32, 4), "uint8") for part in ("train", "test")}
    np.savez(tmp_path / "four.npz", **channels, y_train=np.arange(9), y_test=np.arange(9))
    assert "must hold images of 1 or 3 channels. Received: 4" in refused(tmp_path / "four.npz")
    faces = ImageStore(np.zeros((3, 32, 32, 1), "uint8"), {"split": ["train", "train", "test"]})
    faces.save(tmp_path / "faces.h5")
    assert "as label 'class'. Received: labels split" in refused(tmp_path / "faces.h5")
    ImageStore(faces.images, faces.labels | {"class": ["b", "a", "b"]}).save(tmp_path / "text.h5")
    assert "as label 'class'. Received: 'a' among them" in refused(tmp_path / "text.h5")
    images = {f"x_{part}": np.zeros((3, 32, 32, 3), "uint8") for part in ("train", "test")}
    for y_train, y_test, came in (
        ([0, 0, 0], [0, 0, 0], "must hold 2 classes or more to train on. Received: 1 in 3 images"),
        ([0, 1, 1], [2, 3, 4], "classes that are trained on. Received: none in 3 images"),
        ([0, 1, 10**9], [0, 1, 0], "fewer than 65536. Received: class 1000000000"),
    ):
        np.savez(tmp_path / "classes.npz", **images, y_train=y_train, y_test=y_test)
        assert f"{tmp_path / 'classes.npz'}` must" in (line := refused(tmp_path / "classes.npz"))
        assert came in line


def one_line(capsys, code):
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line
