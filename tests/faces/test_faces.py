"""Faces in photos: models, detection, the choice of a face, embeddings, damaged files."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from kerasmlp.faces.embedder import FaceEmbedder
from kerasmlp.faces.finder import Face, FaceFinder, choose_face, decode_photo, read_image
from kerasmlp.faces.models import download_models, exact_fast_prelu, find_models
from kerasmlp.utils.checks import InputError

cv2 = pytest.importorskip("cv2")
insightface = pytest.importorskip("insightface")

SHARED = Path(__file__).parents[3] / "shared" / "data"
MODELS = SHARED / "models"
pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason=f"needs the models in {MODELS}")
DETECTOR, EMBEDDER = "det_500m.onnx", "w600k_mbf_dequant.onnx"


@pytest.fixture(scope="module")
def finder():
    return FaceFinder(MODELS, threads=2)


@pytest.fixture(scope="module")
def group_photo():
    return insightface.data.get_image("t1")


def test_six_faces(finder, group_photo):
    faces = finder.find(group_photo)
    assert len(faces) == 6
    embeddings = np.stack([f.embedding for f in faces])
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert np.all(np.diff([f.det_score for f in faces]) <= 0)
    similarity = embeddings @ embeddings.T - np.eye(6)
    assert similarity.max() < 0.5  # six people


def test_a_photo_becomes_a_store_of_its_faces(tmp_path, finder, group_photo):
    empty, photo = tmp_path / "empty.png", tmp_path / "six.png"
    cv2.imwrite(str(photo), group_photo)
    cv2.imwrite(str(empty), np.zeros((64, 64, 3), np.uint8))
    embedder = FaceEmbedder(MODELS)
    store, faces = embedder.embed(empty, photo), finder.find(group_photo)
    assert store.labels["path"].tolist() == [str(photo)] * 6 and store.info.normalized
    np.testing.assert_array_equal(store.labels["det_score"], [f.det_score for f in faces])
    box = np.stack([store.labels[edge] for edge in ("left", "top", "right", "bottom")], axis=1)
    np.testing.assert_array_equal(box, [f.box for f in faces])
    np.testing.assert_allclose(store.embeddings, [f.embedding for f in faces], atol=1e-6)
    assert store.info.embedder_sha256 == find_models(MODELS).embedder_sha256
    with pytest.raises(InputError, match=r"`photos` must show a face. Received: .*empty.png"):
        embedder.embed(empty)


@pytest.mark.filterwarnings("ignore")
def test_equals_bare_insightface(finder, group_photo):
    app = insightface.app.FaceAnalysis(
        name=str(MODELS),
        allowed_modules=["detection", "recognition"],
        providers=["CPUExecutionProvider"],
    )
    app.prepare(0, det_size=(640, 640))
    for ours, theirs in zip(finder.find(group_photo), app.get(group_photo), strict=True):
        np.testing.assert_array_equal(ours.box, theirs.bbox)
        np.testing.assert_allclose(ours.embedding, theirs.normed_embedding, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "glob"), [("utkface", "*.jpg"), ("fairface", "train/*.jpg")]
)  # fmt: skip
def test_tight_crops_equal_the_reference(finder, source, glob):
    import h5py

    with h5py.File(SHARED / f"{source}_arcface.h5") as file:
        rows = {Path(p.decode()).name: i for i, p in enumerate(file["path"][()])}
        photos = [p for p in sorted((SHARED / "faces" / source).glob(glob)) if p.name in rows]
        photos = photos[::10]
        assert len(photos) > 5
        for photo in photos:
            image = read_image(photo)
            face, _ = choose_face(finder.detect(image), image.shape, "centre", 0.3)
            (embedding,) = finder.embeddings(finder.crops(image, face))
            reference = file["embedding"][rows[photo.name]].astype(np.float32)
            assert embedding @ reference > 0.999


def test_second_look_finds_a_face_that_fills_a_large_photo(finder):
    photo = read_image(sorted((SHARED / "faces/utkface").glob("*.jpg"))[20])
    large = cv2.resize(photo, (700, 700))
    small_box = finder.detect(photo)[0].box
    faces = finder.detect(large)
    assert faces[0].det_score > 0.5
    np.testing.assert_allclose(faces[0].box, small_box * 3.5, atol=40)


def test_rewritten_embedder_gives_the_same_bits(finder):
    import onnxruntime

    face = np.random.default_rng(0).uniform(-1, 1, (1, 3, 112, 112)).astype(np.float32)
    path = MODELS / EMBEDDER
    outputs = []
    for content in (path.read_bytes(), exact_fast_prelu(path)):
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {session.get_inputs()[0].name: face})[0])
    np.testing.assert_array_equal(*outputs)
    assert b"PRelu" not in exact_fast_prelu(path)


def test_info_names_both_models(finder):
    info = finder.info
    assert (info.detector, info.embedder) == (DETECTOR, EMBEDDER)
    assert info.embedder_sha256.startswith("62a5a76d57d9")
    assert info.detector_sha256.startswith("5e4447f50245")
    assert (info.min_det_score, finder.width) == (0.5, 512)
    assert finder.provider == "CPUExecutionProvider"


def test_no_face_and_odd_shapes(finder):
    assert finder.choose(np.full((300, 300, 3), 127, np.uint8), "only") == (None, "no face")
    for shape in ((1, 1, 3), (1, 5000, 3), (5000, 2, 3), (321, 7, 3)):
        assert finder.find(np.zeros(shape, np.uint8)) == []


def test_threshold_tells_low_scores_from_no_face(group_photo):
    strict = FaceFinder(MODELS, min_det_score=0.95)
    assert strict.find(group_photo) == []
    assert strict.choose(group_photo, "centre") == (None, "low det_score")
    assert strict.choose(group_photo, "only") == (None, "low det_score")


def face_at(left, top, right, bottom, det_score=0.9):
    return Face(np.array([left, top, right, bottom], float), np.zeros((5, 2)), det_score)


def test_choice_of_a_face():
    # 300 wide, 100 high: width and height swapped, the middle would be at (50, 150)
    left, middle, big = face_at(30, 60, 70, 90), face_at(140, 30, 160, 60), face_at(200, 0, 290, 90)
    faces, shape = [left, middle, big], (100, 300, 3)
    assert choose_face(faces, shape, "centre") == (middle, None)
    assert choose_face(faces, shape, "biggest") == (big, None)
    assert choose_face(faces, shape, "only") == (None, "more than one face")
    assert choose_face([left], shape, "only") == (left, None)
    faint = face_at(140, 30, 160, 60, det_score=0.4)
    assert choose_face([left, faint], shape, "only") == (left, None)
    assert choose_face([left, faint], shape, "centre") == (left, None)
    assert choose_face([faint], shape, "centre") == (None, "low det_score")
    assert choose_face([faint], shape, "centre", 0.4) == (faint, None)
    assert choose_face([], shape, "biggest") == (None, "no face")
    with pytest.raises(InputError, match="`face` must be one of 'only', 'centre', 'biggest'"):
        choose_face([left], shape, "best")


@pytest.mark.parametrize("missing", [DETECTOR, EMBEDDER])
def test_folder_without_one_model(tmp_path, missing):
    for name in {DETECTOR, EMBEDDER} - {missing}:
        shutil.copy(MODELS / name, tmp_path / name)
    kind = "detector" if missing == DETECTOR else "embedder"
    with pytest.raises(InputError, match=f"must hold a face {kind}.*Received: \\w+.onnx"):
        find_models(tmp_path)


def test_missing_folder_says_where_models_come_from(tmp_path):
    with pytest.raises(InputError, match=r"--download buffalo_l.*non-commercial research only"):
        find_models(tmp_path / "none")
    with pytest.raises(InputError, match=r"must hold a face detector.*no .onnx file"):
        find_models(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("name", [DETECTOR, EMBEDDER])
def test_half_downloaded_model(tmp_path, name, share):
    for other in (DETECTOR, EMBEDDER):
        shutil.copy(MODELS / other, tmp_path / other)
        (tmp_path / other).chmod(0o644)
    content = (MODELS / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=f"{name}` must be a whole ONNX file"):
        FaceFinder(tmp_path)


def test_download_refuses_unknown_packs_and_keeps_what_is_there(tmp_path):
    with pytest.raises(InputError, match="must be one of buffalo_l"):
        download_models("buffalo_xl")
    folder = tmp_path / "models" / "buffalo_s"
    folder.mkdir(parents=True)
    assert download_models("buffalo_s", tmp_path) == folder


def test_device_that_is_not_there():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has it")
    with pytest.raises(InputError, match="onnxruntime chose CPUExecutionProvider"):
        FaceFinder(MODELS, device="cuda")


def pixels_of(content):
    return decode_photo(content)[0]


def encode(image, suffix=".jpg"):
    return cv2.imencode(suffix, image)[1].tobytes()


def test_exif_orientation_is_applied():
    wide = np.zeros((20, 60, 3), np.uint8)
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    jpeg = encode(wide)
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert pixels_of(jpeg).shape == (60, 20, 3)


def test_images_that_cannot_be_read(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    jpeg, png = encode(image), encode(image, ".png")
    for content in (b"", b"no image", jpeg[: len(jpeg) // 2], png[:100], jpeg[:10]):
        assert pixels_of(content) is None
    assert pixels_of(jpeg).shape == pixels_of(png).shape == (64, 64, 3)
    grey = encode(image[..., 0], ".png")
    assert pixels_of(grey).shape == (64, 64, 3)
    odd = tmp_path / "ä 写真.jpg"
    odd.write_bytes(jpeg)
    assert read_image(odd).shape == (64, 64, 3)
    odd.write_bytes(b"no image")
    with pytest.raises(InputError, match="must be a readable image"):
        read_image(odd)
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.jpg")


def enormous_png(side):
    """A whole PNG of one-bit pixels: small on disk, `side`² · 3 bytes in memory."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((side // 8 + 1) * side), 1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    )


def test_enormous_image_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENCV_IO_MAX_IMAGE_PIXELS", raising=False)  # the page sets it
    path = tmp_path / "a.png"
    path.write_bytes(enormous_png(256))
    assert read_image(path).shape == (256, 256, 3)
    path.write_bytes(enormous_png(17_000))
    assert decode_photo(path.read_bytes()) == (None, "more pixels than are read")
    with pytest.raises(
        InputError,
        match=r"must be a readable image.*more pixels than .*88 megapixels",
    ):
        read_image(path)
