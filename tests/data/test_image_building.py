"""`build-images`: folders, archives and arrays become one store, whatever lies among them."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from data_sets import SHARED
from face_images import encoded, make_faces, write_faces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kerasmlp import ImageStore, InputError
from kerasmlp.cli import run_command
from kerasmlp.data.datasets import read_records
from kerasmlp.data.datasets.records import REASONS, label_columns
from kerasmlp.data.images.image_building import build_images
from kerasmlp.data.images.image_decoding import decode_image


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, f"root/{file.relative_to(folder)}")
    return path


def build(capsys, source, output, *flags):
    assert run_command("build-images", [str(a) for a in (source, "-o", output, *flags)]) == 0
    return ImageStore.open(output), capsys.readouterr().out


def refused(capsys, source, output, *flags):
    assert run_command("build-images", [str(a) for a in (source, "-o", output, *flags)]) == 2
    captured = capsys.readouterr().err
    assert "Traceback" not in captured
    (line,) = [line for line in captured.splitlines() if line.startswith("error: ")]
    return line


def test_folder_and_archive_give_one_store(tmp_path, capsys):
    folder = tmp_path / "faces"
    paths = write_faces(folder)
    bad = {
        "train/30_0_0_90.jpg": b"",
        "train/31_0_0_91.jpg": paths[0].read_bytes()[:-40],
        "test/32_0_0_portrait.png": b"no image",
        "test/33_0_93.jpg": paths[1].read_bytes(),
        "other/34_0_0_94.jpg": paths[1].read_bytes(),
    }
    for name, data in bad.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "train" / "notes.txt").write_text("no image by name")
    store, out = build(capsys, folder, tmp_path / "a.h5")
    of_zip, _ = build(capsys, zipped(folder, tmp_path / "faces.zip"), tmp_path / "b.h5")
    np.testing.assert_array_equal(store.images, of_zip.images)
    np.testing.assert_array_equal(store.labels["age_years"], of_zip.labels["age_years"])
    assert [line.split()[-1] for line in out.splitlines()[:5]] == ["12", "2", "2", "1", "17"]
    assert "12 images of 12×12×1: 4 test, 4 train, 4 validation" in out
    removal = json.loads((tmp_path / "a.h5.removal.json").read_text())
    assert removal["removed"] == store.info.removal_report["removed"] == {
        "malformed name": 2, "failed to read image": 2, "no train, validation or test folder": 1,
    }  # fmt: skip
    assert {name for names in removal["keys"].values() for name in names} == set(bad)
    # Every pixel and label is that of its file.
    for row, name in enumerate(store.labels["path"]):
        with Image.open(folder / name) as image:
            np.testing.assert_array_equal(store.images[row, :, :, 0], np.asarray(image))
        split, file = name.split("/")
        age, gender, *_ = file.split("_")
        assert store.labels["split"][row] == split
        assert (store.labels["age_years"][row], store.labels["gender"][row]) == (
            float(age),
            int(gender),
        )


def test_sizes_channels_and_drawn_splits(tmp_path, capsys):
    folder = tmp_path / "faces"
    paths = write_faces(folder, rows=20, splits=())
    copies = [folder / f"50_0_0_{k}.jpg" for k in (70, 71, 72)]
    for copy in copies:
        copy.write_bytes(paths[0].read_bytes())
    output = tmp_path / "a.h5"
    assert "must hold folders train, validation, test" in refused(capsys, folder, output)
    store, _ = build(capsys, folder, output, "--split", "10", "8", "5")
    assert [len(store.rows(s)) for s in ("train", "validation", "test")] == pytest.approx(
        [10, 8, 5], abs=3
    )
    same = [k for k, p in enumerate(store.labels["path"]) if "50_0_0_7" in p]
    assert len(same) == 3 and len(set(store.labels["split"][same])) == 1
    assert len(set(store.labels["group"])) == 20
    again, _ = build(capsys, folder, output, "--split", "10", "8", "5", "--force")
    assert again.digest() == store.digest()
    colour, _ = make_faces(1, channels=3, side=30)
    (folder / "9_0_0_99.jpg").write_bytes(encoded(colour[0]))
    line = refused(capsys, folder, output, "--split", "2", "1", "1", "--force")
    assert "must hold images of 12×12 pixels, grey" in line and "'9_0_0_99.jpg' of 30×30" in line
    flags = ("--split", "2", "1", "1", "--force", "--size", "8", "--gray")
    store, _ = build(capsys, folder, output, *flags)
    assert store.images.shape == (24, 8, 8, 1)


def test_what_cannot_be_built(tmp_path, capsys):
    output = tmp_path / "a.h5"
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("no archive")
    write_faces(tmp_path / "faces")
    for source, flags, message in (
        (tmp_path / "none", (), "must be a folder, a zip archive, or an .npz. Received: no such"),
        (tmp_path / "empty", (), "must hold images"),
        (tmp_path / "text.zip", (), "must be a folder, a complete zip archive"),
        (tmp_path / "faces", ("--size", 0), "`--size` must be an integer >= 1"),
        (tmp_path / "faces", ("--split", 1, 1, 1), "`--split` must be left out where folders"),
        (tmp_path / "empty", ("--split", 1, 1, 0), "`each number of split` must be a finite"),
        (tmp_path / "faces", ("--size", 10**6), "`--size` must be at most 4096"),
        (tmp_path / "empty", ("--seed", -1), "`--seed` must be an integer >= 0"),
    ):
        assert message in refused(capsys, source, output, *flags)
        assert not output.exists()
    small = next((tmp_path / "faces").rglob("*.jpg"))
    Image.new("L", (9, 7)).save(small)
    assert "(or give --size). Received" in refused(capsys, tmp_path / "faces", output, "--gray")
    for path in (tmp_path / "faces").rglob("*.jpg"):
        path.unlink()
        os.mkfifo(path)  # which nobody writes to
    assert "must hold at least one image to keep" in refused(capsys, tmp_path / "faces", output)
    output.write_text("mine")
    assert "must not exist yet (or --force)" in refused(capsys, tmp_path / "faces", output)
    assert output.read_text() == "mine"


def test_every_layout_of_photos_becomes_a_store_of_images(tmp_path, capsys):
    """The records are those of `extract-embeddings`: a table with people, and a bare folder."""
    images, _ = make_faces(6, side=12)
    names = [f"photos/{k}.png" for k in range(6)]
    (tmp_path / "photos").mkdir()
    for name, image in zip(names, images, strict=True):
        (tmp_path / name).write_bytes(encoded(image, "png"))
    table = tmp_path / "faces.csv"
    rows = ["path;Age;gender;person;group;split", f"{names[0]};25,5;f;Ann;ann;train"]
    rows += [f"{names[1]};(38, 43);m;Bob;bob;val", f"{names[2]};;?;Ann;ann;test"]
    rows += [f"{names[3]};3;male;Cid;;", "gone.png;9;m;Dan;;test", f"{names[0]};4;m;Eve;;test"]
    table.write_text("\n".join(rows))
    flags = [str(table), "-o", str(tmp_path / "a.h5"), "--layout", "csv"]
    assert run_command("build-images", flags) == 0
    assert "of one person, lie in several splits: 1\n" in capsys.readouterr().err
    store = ImageStore.open(tmp_path / "a.h5")
    np.testing.assert_array_equal(store.images, images[:3])
    assert {k: v.tolist() for k, v in store.labels.items() if k != "age_years"} == {
        "path": names[:3], "gender": [1, 0, -1], "person": ["Ann", "Bob", "Ann"],
        "group": [0, 1, 0], "split": ["train", "validation", "test"],
    }  # fmt: skip
    np.testing.assert_array_equal(store.labels["age_years"], np.float32([25.5, 40.5, np.nan]))
    assert store.info.removal_report["removed"] == {
        "duplicate row": 1, "missing image": 1, "no train, validation or test folder": 1,
    }  # fmt: skip
    records = read_records("csv", table)
    assert label_columns(records[:3])["person"] == store.labels["person"].tolist()
    shown, _ = build(
        capsys, tmp_path / "photos", tmp_path / "b.h5", "--layout", "folder", "--split", 1, 1, 1
    )
    np.testing.assert_array_equal(shown.images, images)
    assert set(shown.labels) == {"path", "group", "split"} and len(set(shown.labels["split"])) == 3
    of_zip = zipped(tmp_path / "photos", tmp_path / "photos.zip")
    packed, _ = build(
        capsys, of_zip, tmp_path / "c.h5", "--layout", "folder", "--split", "1", "1", "1"
    )
    np.testing.assert_array_equal(packed.images, images)
    table.write_text(f"path,split\n{names[0]},dev\n")
    line = refused(capsys, table, tmp_path / "d.h5", "--layout", "csv")
    assert "must hold train, validation, test or nothing as split. Received: 'dev'" in line


def test_grey_among_colour_and_16_bits_among_8(tmp_path, capsys):
    ramp = np.arange(144, dtype=np.uint16).reshape(12, 12) * 455
    gray, colour = make_faces(2)[0], make_faces(2, channels=3)[0]
    images = {
        "train/20_0_0_1.png": gray[0, ..., 0],
        "train/21_0_0_2.png": colour[0],
        "validation/22_0_0_3.png": ramp,
        "test/23_0_0_4.png": colour[1],
        "test/24_0_0_5.png": ramp // 64,
    }
    for name, image in images.items():
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "faces" / name)
    flags = [str(tmp_path / "faces"), "-o", str(tmp_path / "a.h5")]
    assert run_command("build-images", flags) == 0
    captured = capsys.readouterr()
    store = ImageStore.open(tmp_path / "a.h5")
    rows = dict(zip(store.labels["path"], store.images, strict=True))
    assert store.images.shape == (4, 12, 12, 3)
    for name in ("train/21_0_0_2.png", "test/23_0_0_4.png"):
        np.testing.assert_array_equal(rows[name], images[name])
    for channel in range(3):
        np.testing.assert_array_equal(
            rows["train/20_0_0_1.png"][..., channel], images["train/20_0_0_1.png"]
        )
        np.testing.assert_array_equal(rows["validation/22_0_0_3.png"][..., channel], ramp >> 8)
    assert "note: 2 grey images became colour, as 2 others are: 'train/20_0_0_1" in captured.err
    assert store.info.removal_report == {
        "inputs": 5, "kept": 4, "removed": {"16-bit or float pixels of unclear range": 1},
    }  # fmt: skip
    gray_store, _ = build(capsys, tmp_path / "faces", tmp_path / "b.h5", "--gray")
    assert gray_store.images.shape == (4, 12, 12, 1)


def test_links_other_suffixes_and_val(tmp_path, capsys):
    faces, outside = tmp_path / "faces", tmp_path / "outside"
    names = ["Train/1_0_0_1.jfif", "Train/2_0_0_2.JPE", "val/3_0_0_3", "test/4_0_0_4.gif"]
    names += ["test/5_0_0_5.avif", "test/notes", "test/6_0_0_6.jpg"]
    kinds = ["jpeg", "jpeg", "png", "gif", "avif"]
    for k, (name, kind) in enumerate(zip(names, kinds, strict=False)):
        (faces / name).parent.mkdir(parents=True, exist_ok=True)
        (faces / name).write_bytes(encoded(np.full((12, 12, 3), 40 * k, np.uint8), kind))
    (faces / "test/notes").write_text("BMW, in words")
    (faces / "test/6_0_0_6.jpg").symlink_to(tmp_path / "gone")
    write_faces(outside / "more", rows=2, splits=())
    (faces / "test/linked").symlink_to(outside / "more")
    (faces / "test/again").symlink_to(outside / "more")
    (faces / "val/around").symlink_to(faces)
    (outside / "more/around").symlink_to(outside)
    store, _ = build(capsys, faces, tmp_path / "a.h5")
    removed = store.info.removal_report["removed"]
    assert removed == {"link to a folder read already, or around it": 3, "failed to read image": 1}
    assert store.info.removal_report["inputs"] == 7 + 4 and len(store) == 7
    splits = dict(zip(store.labels["path"], store.labels["split"], strict=True))
    assert [splits[name] for name in names[:5]] == ["train", "train", "validation", "test", "test"]
    values = dict(zip(store.labels["path"], store.images[:, 0, 0, 0], strict=True))
    assert [values[name] for name in names[:4]] == [0, 40, 80, 120]
    listed = json.loads((tmp_path / "a.h5.removal.json").read_text())["keys"]
    assert {name for names in listed.values() for name in names} == {
        "test/linked/", "val/around/", "test/again/around/", names[-1],
    }  # fmt: skip
    # The same from an archive, where links are no links.
    for link in (faces / "test/linked", faces / "test/again", faces / "val/around"):
        link.unlink()
    (faces / names[-1]).unlink()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names[:6]:
            archive.write(faces / name, name)
    assert run_command("build-images", [str(tmp_path / "a.zip"), "-o", str(tmp_path / "b.h5")]) == 0
    captured = capsys.readouterr()
    assert "note: 2 images of 'Train' were taken as train\n" in captured.err
    assert "note: 1 images of 'val' were taken as validation\n" in captured.err
    of_zip = ImageStore.open(tmp_path / "b.h5")
    assert set(of_zip.labels["path"]) == set(names[:5])
    for image, name in zip(of_zip.images, of_zip.labels["path"], strict=True):
        assert image[0, 0, 0] == values[name]


def test_arrays(tmp_path, capsys):
    images, _ = make_faces(9, side=32, channels=3)
    arrays = {"x_train": images[:6], "y_train": np.arange(6)[:, None], "x_test": images[6:]}
    np.savez(tmp_path / "a.npz", **arrays, y_test=np.array([0, 1, 2]))
    store, out = build(capsys, tmp_path / "a.npz", tmp_path / "a.h5")
    np.testing.assert_array_equal(store.images, images)
    assert store.labels["class"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert "9 images of 32×32×3: 6 train, 3 test" in out
    deep = {k: v / 255 if k[0] == "x" else v for k, v in arrays.items()}
    np.savez(tmp_path / "c.npz", **deep, y_test=np.array([0, 1, 2]))
    np.testing.assert_array_equal(
        build(capsys, tmp_path / "c.npz", tmp_path / "c.h5")[0].images, images
    )
    output = tmp_path / "b.h5"
    for changed, message in (
        ({}, "must hold x_train, y_train, x_test, y_test. Received: no y_test"),
        ({"y_test": [1, 2]}, "must hold a class 0, 1, … for each of the 3 images in y_test"),
        ({"y_test": [0, 1, 2], "x_test": images[6:, 1:]}, "must hold images of one shape"),
        ({"y_test": [0, 1, 2], "x_test": np.float32(images[6:])}, "must hold uint8 images, or"),
        ({"y_test": np.array([0, None, 2])}, "never loaded"),
    ):
        np.savez(tmp_path / "b.npz", **arrays | changed)
        assert message in refused(capsys, tmp_path / "b.npz", output)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-300])
    assert "must be a complete .npz file" in refused(capsys, tmp_path / "b.npz", output)
    assert "`--gray` must be left out" in refused(capsys, tmp_path / "a.npz", output, "--gray")


@pytest.mark.parametrize("kind", ["CIFAR-10", "CIFAR-100"])
def test_cifar(tmp_path, capsys, kind):
    images, _ = make_faces(7, side=32, channels=3)
    planes = images.transpose(0, 3, 1, 2).reshape(7, -1)
    classes = np.arange(7, dtype=np.uint8)[:, None]
    if kind == "CIFAR-10":
        names, labels = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"], classes
        parts = [slice(k, k + 1) for k in range(5)] + [slice(5, 7)]
    else:
        names, labels = ["train.bin", "test.bin"], np.hstack([classes // 2, 9 * classes])
        parts = [slice(0, 5), slice(5, 7)]
    records = np.hstack([labels, planes])
    for name, part in zip(names, parts, strict=True):
        (tmp_path / name).write_bytes(records[part].tobytes())
    store, _ = build(capsys, tmp_path, tmp_path / "a.h5")
    np.testing.assert_array_equal(store.images, images)
    np.testing.assert_array_equal(store.labels["class"], labels[:, -1])
    assert store.rows("test").tolist() == [5, 6] and store.info.source == kind
    whole = (tmp_path / names[0]).read_bytes()
    (tmp_path / names[0]).write_bytes(whole[:-1])
    assert "must be complete, a multiple of" in refused(capsys, tmp_path, tmp_path / "b.h5")
    (tmp_path / names[0]).write_bytes(b"\xff" + whole[1:])
    assert "class below" in refused(capsys, tmp_path, tmp_path / "b.h5")
    (tmp_path / names[0]).unlink()
    assert f"as a part of {kind}" in refused(capsys, tmp_path, tmp_path / "b.h5")


def test_a_file_of_two_splits_stays_in_the_later_one(tmp_path, capsys):
    for split, names in (("train", "abc"), ("validation", "c"), ("test", "ad")):
        (tmp_path / "faces" / split).mkdir(parents=True)
        for name in names:
            pixels = make_faces(1, side=16, seed=ord(name))[0][0]
            path = tmp_path / "faces" / split / f"20_0_0_201701{ord(name):011d}.jpg"
            path.write_bytes(encoded(pixels, "png"))
    store, out = build(capsys, tmp_path / "faces", tmp_path / "a.h5")
    splits = store.labels["split"].tolist()
    assert [splits.count(s) for s in ("train", "validation", "test")] == [1, 1, 2]
    assert "the same file in a later split" in out


def test_photos_are_turned_as_their_exif_says():
    image, file = Image.new("L", (40, 30)), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(file, "jpeg", exif=exif)
    assert decode_image(file.getvalue())[0].shape == (40, 30, 1)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "faces"
    write_faces(folder, rows=6)
    image = make_faces(1, channels=3)[0][0]
    kinds = ("jpeg", "png", "bmp", "webp", "tiff")
    return zipped(folder, folder.parent / "a.zip").read_bytes(), [encoded(image, k) for k in kinds]


def damage(draw, whole):
    if draw(st.booleans()):
        return whole[: draw(st.integers(0, len(whole) - 1))]
    damaged = bytearray(whole)
    for _ in range(draw(st.integers(1, 10))):
        damaged[draw(st.integers(0, len(whole) - 1))] = draw(st.integers(0, 255))
    return bytes(damaged)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_images_are_none_or_pixels(samples, data):
    pixels, reason = decode_image(damage(data.draw, data.draw(st.sampled_from(samples[1]))))
    assert (pixels is None) == (reason in REASONS)
    assert reason or (pixels.dtype == np.uint8 and pixels.ndim == 3)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_archives_end_in_one_sentence_or_a_store(samples, tmp_path, data):
    path = tmp_path / "a.zip"
    path.write_bytes(damage(data.draw, samples[0]))
    try:
        store, entries = build_images(path)
    except InputError as error:
        assert "Received: " in str(error)
    else:
        assert len(store) == sum(entry["reason"] is None for entry in entries)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs UTKFace")
def test_utkface_is_read_as_opencv_reads_it(tmp_path, capsys):
    cv2 = pytest.importorskip("cv2")
    path = SHARED / "utkface91.zip"
    folder = tmp_path / "some"
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist()[:8800:88]:
            archive.extract(name, folder)
    store, _ = build(capsys, folder, tmp_path / "a.h5")
    assert len(store) == 100
    for image, name in zip(store.images, store.labels["path"], strict=True):
        np.testing.assert_array_equal(image[:, :, 0], cv2.imread(str(folder / name), 0))
