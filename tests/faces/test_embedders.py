"""Embedders of one's own: what `embedder.json` says is what is done, or it is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")
from tiny_embedder import WIDTH, says, tiny_onnx, write_embedder  # noqa: E402

from kerasmlp import FaceEmbedder, InputError  # noqa: E402
from kerasmlp.faces.detector import Face  # noqa: E402
from kerasmlp.faces.embedder_json import read_embedder  # noqa: E402
from kerasmlp.faces.finder import FaceFinder  # noqa: E402


def pictures(n, side=40, seed=1):
    return list(np.random.default_rng(seed).integers(0, 256, (n, side, side + 8, 3), np.uint8))


def by_hand(picture, *, order=slice(None, None, -1), mean=127.5, std=64.0):
    """What the tiny embedder says of a whole picture."""
    import onnxruntime

    small = cv2.resize(picture, (24, 24), interpolation=cv2.INTER_AREA)
    batch = (small[..., order].astype(np.float32) - mean) / std
    session = onnxruntime.InferenceSession(tiny_onnx(), providers=["CPUExecutionProvider"])
    return session.run(None, {"pictures": batch.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]


def finder_of(folder, **how):
    return FaceFinder(embedder=folder, threads=1, **how)


def test_a_whole_picture_comes_as_its_description_says(tmp_path):
    finder = finder_of(write_embedder(tmp_path))
    picture = pictures(1)[0]
    (face,) = finder.find(picture)
    expected = by_hand(picture)
    np.testing.assert_allclose(face.embedding, expected / np.linalg.norm(expected), atol=1e-6)
    assert face.box.tolist() == [0, 0, 48, 40] and face.det_score is None
    info = finder.info
    assert (info.embedder, info.detector, info.min_det_score) == ("tiny.onnx", None, None)
    assert info.normalized and (info.embedder_licence, info.embedder_source) == (
        "CC0", "random numbers",
    )  # fmt: skip
    assert info.preprocessing["mean"] == [127.5] * 3 and not info.preprocessing["flip"]
    assert set(info.versions) == {"onnxruntime", "opencv"}


def test_each_word_of_the_description_counts(tmp_path):
    picture = pictures(1)[0]

    def embedded(name, **changes):
        return finder_of(write_embedder(tmp_path / name, **changes)).find(picture)[0].embedding

    plain = by_hand(picture)
    np.testing.assert_allclose(embedded("raw", normalize=False), plain, rtol=1e-4, atol=1e-5)
    bgr = by_hand(picture, order=slice(None))
    came = embedded("bgr", normalize=False, colour_order="bgr")
    np.testing.assert_allclose(came, bgr, rtol=1e-4, atol=1e-5)
    other = by_hand(picture, mean=np.array([10, 20, 30]), std=np.array([50, 60, 70]))
    came = embedded("mean", normalize=False, mean=[10, 20, 30], std=[50, 60, 70])
    np.testing.assert_allclose(came, other, rtol=1e-4, atol=1e-5)
    # the mirrored picture counts as much
    mirrored = (plain + by_hand(np.ascontiguousarray(picture[:, ::-1]))) / 2
    folder = write_embedder(tmp_path / "flip", normalize=False)
    (face,) = finder_of(folder, flip=True).find(picture)
    np.testing.assert_allclose(face.embedding, mirrored, rtol=1e-3, atol=1e-4)


def test_gray_and_channels_last(tmp_path):
    import onnx
    from onnx import helper

    model = onnx.load_from_string(tiny_onnx(channels=1))
    model.graph.input[0].type.tensor_type.shape.ClearField("dim")
    for size in ("n", 24, 24, 1):
        dim = model.graph.input[0].type.tensor_type.shape.dim.add()
        setattr(dim, "dim_param" if size == "n" else "dim_value", size)
    model.graph.node.insert(
        0, helper.make_node("Transpose", ["pictures"], ["first"], perm=[0, 3, 1, 2])
    )
    model.graph.node[1].input[0] = "first"
    gray = {"colour_order": "gray", "mean": [100], "std": [50]}
    content = model.SerializeToString()
    last = write_embedder(tmp_path / "last", content=content, layout="nhwc", **gray)
    first = write_embedder(tmp_path / "first", content=tiny_onnx(channels=1), **gray)
    picture = pictures(1)[0]
    one, other = (finder_of(folder).find(picture)[0].embedding for folder in (last, first))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_box_is_cut_out_with_its_margin(tmp_path):
    """Of a face at a known place, without any detector."""
    from kerasmlp.faces.crops import crops_of

    said = read_embedder(write_embedder(tmp_path, alignment="crop", margin=0.5))
    image = np.zeros((100, 200, 3), np.uint8)
    image[40:60, 90:110] = 200  # the face
    face = Face(np.array([90, 40, 110, 60.0]), None, 0.9)
    (crop,) = crops_of(image, face, said.preprocessing)
    assert crop.shape == (24, 24, 3) and (crop[7:17, 7:17] == 200).all()
    assert (crop[:5] == 0).all() and (crop[:, -5:] == 0).all()  # 10 of 40 pixels at each side
    corner = Face(np.array([190, 90, 210, 110.0]), None, 0.9)
    image[:] = 100
    (crop,) = crops_of(image, corner, said.preprocessing)
    assert (crop[:12, :12] == 100).all() and (crop[12:] == 0).all() and (crop[:, 12:] == 0).all()
    away = Face(np.array([900, 90, 910, 110.0]), None, 0.9)
    assert crops_of(image, away, said.preprocessing) is None


@pytest.mark.parametrize("alignment", ["none", "crop"])
def test_views_differ_a_little_and_are_the_same_again(tmp_path, alignment):
    margin = 0.2 if alignment == "crop" else None
    folder = write_embedder(tmp_path, alignment=alignment, margin=margin)
    said = read_embedder(folder).preprocessing
    image = cv2.resize(pictures(1)[0][:8, :8], (160, 120), interpolation=cv2.INTER_CUBIC)
    from kerasmlp.faces.crops import crops_of

    face = Face(np.array([40, 30, 110, 100.0]), None, 0.9)
    first, *others = views = crops_of(image, face, said, views=4, seed=7)
    np.testing.assert_array_equal(first, crops_of(image, face, said)[0])
    np.testing.assert_array_equal(views, crops_of(image, face, said, views=4, seed=7))
    for a, b in zip(others, crops_of(image, face, said, views=4, seed=8)[1:], strict=True):
        assert (a != b).any() and (a != first).any()
        assert np.abs(a.astype(int) - first).mean() < 25  # of pictures that differ by 80


WRONG = [
    ({"layout": None}, "whose `layout` is 'nchw' or 'nhwc'. Received: layout=nothing"),
    ({"layout": "chw"}, "Received: layout='chw'"),
    ({"input_size": [24]}, "whose `input_size` is [height, width]"),
    ({"input_size": [24, 9999]}, "whose `input_size` is [height, width]"),
    ({"mean": [0.485, 0.456, 0.406]}, "of pixels of 0 to 255. Received: mean[0]=0.485"),
    ({"std": [0.229, 0.224, 0.225]}, "of pixels of 0 to 255. Received: std[0]=0.229"),
    ({"mean": [127.5]}, "must hold 3 of `mean` for the colours rgb. Received: mean=[127.5]"),
    ({"colour_order": "gray"}, "must hold 1 of `mean` for the colours gray"),
    ({"alignment": "crop"}, "must hold `margin` where `alignment` is 'crop', and only there"),
    ({"margin": 0.1}, "must hold `margin` where `alignment` is 'crop', and only there"),
    ({"alignment": "arcface"}, "must hold a square `input_size` of 112 or 128"),
    ({"normalise": True}, "with no other names than"),
    ({"normalize": 1}, "whose `normalize` is true or false"),
    ({"licence": " "}, "whose `licence` is a text"),
    ({"source": None}, "whose `source` is a text"),
    ({"model": "../tiny.onnx"}, "must name a `model` in its own folder"),
    ({"model": "other.onnx"}, "must name a `model` that is there. Received: 'other.onnx'"),
    ({"model": "saved_model.pb"}, "a SavedModel could run any operation"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_a_wrong_description_is_one_sentence(tmp_path, changes, message):
    folder = write_embedder(tmp_path / "e")
    (folder / "embedder.json").write_text(json.dumps(says(**changes)))
    with pytest.raises(InputError) as error:
        read_embedder(folder)
    assert message in str(error.value) and f"{folder}/embedder.json" in str(error.value)


def test_what_is_no_description(tmp_path):
    with pytest.raises(InputError, match=r"embedder.json` must be a JSON file. Received: no such"):
        read_embedder(tmp_path)
    for content, came in ((b'{"layout": ', "must be a JSON file"), (b"[]", "must hold an object")):
        (tmp_path / "embedder.json").write_bytes(content)
        with pytest.raises(InputError, match=came):
            read_embedder(tmp_path)
    (tmp_path / "embedder.json").write_text(json.dumps(says()))
    with pytest.raises(InputError, match=r"must name its `model` .* Received: none"):
        read_embedder(tmp_path)
    for name in ("a.onnx", "b.keras"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"must name its `model` .* Received: a.onnx, b.keras"):
        read_embedder(tmp_path)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ({}, {"input_size": [32, 24]}, "3 × 32 × 24 (nchw), as said of it. Received: 3 × 24 × 24"),
        ({}, {"layout": "nhwc"}, "of pictures 24 × 24 × 3 (nhwc), as said of it"),
        ({"channels": 1}, {}, "Received: 1 × 24 × 24"),
        ({}, {"output": "features"}, "with the output 'features'. Received: vectors"),
        ({"kind": "two"}, {}, "with one output, or embedder.json must name it as `output`"),
        ({"kind": "maps"}, {}, "gives one vector for each picture. Received: shape (1, 6, 11, 11)"),
        ({"kind": "two"}, {"output": "maps"}, "gives one vector for each picture"),
        ({"kind": "numbers"}, {}, "whose answers are floats. Received: tensor(int64)"),
        ({"kind": "mixed", "batch": 3}, {}, "answers each picture of a batch by itself"),
        ({"scale": np.nan}, {}, "answers with finite numbers. Received: NaN or infinity"),
        ({"sides": ("h", "w")}, {"input_size": [2, 2]}, "must be a working embedder"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_is_one_sentence(tmp_path, model, changes, message):
    folder = write_embedder(tmp_path, content=tiny_onnx(**model), **changes)
    with pytest.raises(InputError) as error:
        finder_of(folder)
    assert message in str(error.value) and "tiny.onnx" in str(error.value)


def test_damaged_and_split_models(tmp_path):
    import onnx

    folder = write_embedder(tmp_path / "half", content=tiny_onnx()[:300])
    with pytest.raises(InputError, match=r"tiny.onnx` must be a "):
        finder_of(folder)
    model = onnx.load_from_string(tiny_onnx())
    folder = write_embedder(tmp_path / "split")
    how = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(model, folder / "tiny.onnx", **how)
    with pytest.raises(InputError, match="must hold its weights itself"):
        finder_of(folder)


def test_which_models_go_together(tmp_path):
    whole = write_embedder(tmp_path / "whole")
    with pytest.raises(InputError, match=r"`model_dir` must be given, or an embedder with its"):
        FaceFinder()
    with pytest.raises(InputError, match=r"`model_dir` must be left out where pictures are"):
        FaceFinder(tmp_path, embedder=whole)
    cut = write_embedder(tmp_path / "cut", alignment="crop", margin=0.1)
    with pytest.raises(InputError, match=r"`model_dir` must be given for its detector"):
        FaceFinder(embedder=cut)
    with pytest.raises(InputError, match=r"must hold a face detector .* Received: tiny.onnx"):
        FaceFinder(cut)
    finder = finder_of(cut, detector=None)  # crops that are faces already
    assert finder.info.preprocessing["alignment"] == "none"
    assert "margin" not in finder.info.preprocessing
    with pytest.raises(InputError, match="`detector` must be one of 'auto', None"):
        finder_of(cut, detector="none")
    assert FaceFinder(whole, threads=1).models == finder_of(whole).models  # in one folder


def test_batches_answer_as_one_by_one(tmp_path):
    """Of however many pictures: same bits on a CPU, or a cosine of .9999 at the least."""
    folder, images = write_embedder(tmp_path), pictures(11)
    one, four = (finder_of(folder, batch_size=size) for size in (1, 4))
    assert (one.network.batch_size, four.network.batch_size) == (1, 4)
    alone = np.stack([face.embedding for _, face in one.find_in(images)])
    together = [*four.find_in(images)]
    assert [number for number, _ in together] == list(range(11))
    batched = np.stack([face.embedding for _, face in together])
    assert np.vecdot(alone, batched).min() >= 0.9999
    assert finder_of(folder).network.batch_size == 1  # on a CPU


@pytest.mark.parametrize(
    ("model", "size", "note"),
    [
        ({"batch": 1}, 1, "tiny.onnx takes 1 at a time: so it is asked"),
        ({"batch": 3}, 3, "tiny.onnx takes 3 at a time: so it is asked"),
        ({"kind": "mixed"}, 1, "tiny.onnx answers otherwise in a batch: so it is asked one by one"),
        ({"kind": "bound"}, 1, "tiny.onnx takes one picture at a time: so it is asked one by one"),
    ],
)
def test_models_that_take_no_batch_say_so(tmp_path, model, size, note):
    folder = write_embedder(tmp_path, content=tiny_onnx(**model), normalize=False)
    finder, images = finder_of(folder, batch_size=4), pictures(5)
    assert (finder.network.batch_size, finder.network.note) == (size, note)
    if model.get("kind") != "mixed":
        expected = np.stack([by_hand(picture) for picture in images])
        came = np.stack([face.embedding for _, face in finder.find_in(images)])
        np.testing.assert_allclose(came, expected, rtol=1e-4, atol=1e-5)


def test_pictures_become_a_store(tmp_path):
    folder, paths = write_embedder(tmp_path / "e"), []
    for k, picture in enumerate(pictures(3)):
        paths.append(tmp_path / f"{k}.png")
        cv2.imwrite(str(paths[-1]), picture)
    store = FaceEmbedder(embedder=folder, batch_size=2).embed(*paths)
    assert store.labels["path"].tolist() == [str(p) for p in paths] and store.width == WIDTH
    assert list(store.labels) == ["path"]  # no box and no score without a detector
    flipped = FaceEmbedder(embedder=folder, flip=True).embed(*paths)
    store.save(tmp_path / "s.h5")
    again = type(store).open(tmp_path / "s.h5")
    assert again.info == store.info and again.info.preprocessing["alignment"] == "none"
    with pytest.raises(
        InputError, match=r"made with flip=False, as `a` does. Received: .* flip=True"
    ):
        type(store).concatenate([store, flipped], names=["a", "b"])


def test_a_keras_file_embeds_and_runs_no_code(tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((24, 24, 3))
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(WIDTH, name="vectors")(x))
    folder, said = tmp_path / "e", {"layout": "nhwc", "model": "net.keras", "normalize": False}
    write_embedder(folder, **said)
    model.save(folder / "net.keras")
    finder, images = finder_of(folder, batch_size=4), pictures(5)
    small = [cv2.resize(i, (24, 24), interpolation=cv2.INTER_AREA)[..., ::-1] for i in images]
    expected = model.predict((np.stack(small).astype(np.float32) - 127.5) / 64, verbose=0)
    came = np.stack([face.embedding for _, face in finder.find_in(images)])
    np.testing.assert_allclose(came, expected, rtol=1e-4, atol=1e-5)
    assert finder.provider == "CPU (TensorFlow)" and set(finder.info.versions) == {
        "keras", "tensorflow", "opencv",
    }  # fmt: skip
    lambdas = keras.Model(inputs, layers.Lambda(lambda t: t[:, 0, 0])(inputs))
    lambdas.save(folder / "net.keras")
    with pytest.raises(InputError, match=r"net.keras` must be a saved model without code"):
        finder_of(folder)
