"""The surest and least sure faces: which are kept, what is cut out, how they are drawn."""

import matplotlib.image
import numpy as np
import pytest

from kerasmlp.runs.extremes import Extremes, KeptFace, square_crop
from kerasmlp.runs.figures import extreme_faces
from kerasmlp.utils.checks import InputError


def face(entropy_nats, embedding, color=(0, 0, 0)):
    crop = np.full((224, 224, 3), color, np.uint8)
    return KeptFace(float(entropy_nats), embedding, crop, "30 years (20–40)\nuncertainty 50%")


def filled(entropies_nats, **options):
    extremes = Extremes("age", **options)
    for entropy_nats, embedding in zip(entropies_nats, np.eye(len(entropies_nats)), strict=True):
        extremes.add(face(entropy_nats, embedding))
    return extremes


@pytest.mark.parametrize("order", ["random", "rising", "falling"])
def test_keeps_the_lowest_and_the_highest_of_many(order):
    entropies = np.random.default_rng(0).uniform(0, 4, 300)
    if order != "random":
        entropies = np.sort(entropies)[:: 1 if order == "rising" else -1]
    extremes = filled(entropies)
    assert [f.entropy_nats for f in extremes.lowest] == sorted(entropies)[:10]
    assert [f.entropy_nats for f in extremes.highest] == sorted(entropies)[::-1][:10]
    assert len(extremes._faces) == 20  # memory does not grow with the photos


@pytest.mark.parametrize("number", [0, 1, 2, 7, 19, 20, 21])
def test_no_face_is_on_both_sides(number):
    extremes = filled([0.5] * number)
    kept = [f.embedding.argmax() for f in (*extremes.lowest, *extremes.highest)]
    assert len(set(kept)) == len(kept) == min(number, 20)
    assert 0 <= len(extremes.lowest) - len(extremes.highest) <= 1


def test_copies_of_a_picture_are_kept_once():
    first, second = np.eye(2)
    extremes = Extremes("age")
    extremes.add(face(0.1, first))
    extremes.add(face(0.2, 0.9 * first + np.sqrt(1 - 0.9**2) * second))  # in another crop
    extremes.add(face(0.3, 0.6 * first + 0.8 * second))  # another person
    assert [f.entropy_nats for f in (*extremes.lowest, *extremes.highest)] == [0.1, 0.3]


def test_a_count_below_one_is_refused():
    with pytest.raises(InputError, match="`count` must be an integer >= 1. Received: count=0"):
        Extremes("age", count=0)


def test_crop_is_a_square_inside_the_image():
    pytest.importorskip("cv2")
    image = np.full((300, 500, 3), 200, np.uint8)
    image[100:140, 250:290] = 50
    crop = square_crop(image, np.array([250, 100, 290, 140]))
    assert crop.shape == (224, 224, 3)
    assert (crop < 125).mean() == pytest.approx(1 / 1.25**2, abs=0.02)
    for box in ([-30, -40, 60, 70], [450, 250, 560, 330], [-50, -50, 600, 400], [9, 9, 9, 9]):
        assert square_crop(image, np.array(box)).min() >= 50  # no border of black
    assert square_crop(image[:1, :1], np.array([0, 0, 1, 1])).shape == (224, 224, 3)


def test_picture_shows_every_face_once_with_the_lowest_above(tmp_path):
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255), (255, 255, 0)]
    extremes = Extremes("age")
    for i, embedding in enumerate(np.eye(5)):
        extremes.add(face(i, embedding, colors[i]))
    path = tmp_path / "extremes.png"
    extreme_faces([extremes], path)
    picture = (matplotlib.image.imread(path)[..., 2::-1] * 255).round()
    places = []
    for color in colors:
        where = np.argwhere((picture == color).all(axis=2))
        assert len(where) > 5000
        places.append(where.mean(axis=0))
    rows, columns = np.transpose(places)
    np.testing.assert_allclose(rows[:3], rows[0], atol=1)
    np.testing.assert_allclose(rows[3:], rows[4], atol=1)
    assert rows[0] < rows[4]
    assert columns[0] < columns[1] < columns[2] and columns[4] < columns[3]
    assert list(tmp_path.iterdir()) == [path]


def test_picture_of_one_face_and_of_two_models(tmp_path):
    one, many = filled([0.5]), filled(np.arange(30))
    extreme_faces([one], tmp_path / "one.png")
    extreme_faces([many], tmp_path / "many.png")
    extreme_faces([many, many], tmp_path / "two.png")
    sizes = [matplotlib.image.imread(tmp_path / f"{n}.png").shape for n in ("one", "many", "two")]
    assert sizes[1][1] > 5 * sizes[0][1]
    assert sizes[2][0] == pytest.approx(2 * sizes[1][0], rel=0.05)


def test_rows_that_are_not_normalised_are_the_same_only_if_they_are_equal():
    extremes = Extremes("kind", count=4)
    rows = 5 + np.random.default_rng(0).random((6, 8))  # all in one direction, almost
    for k, row in enumerate([*rows, rows[0]]):
        extremes.add(face(k, row))
    assert len(extremes.lowest) + len(extremes.highest) == 6
