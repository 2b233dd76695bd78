"""Photos of rows, by the names that a store holds."""

import numpy as np
import pytest

from kerasmlp.data.row_photos import RowPhotos, photo_column
from kerasmlp.utils.checks import InputError


def test_a_photo_is_found_by_its_path_or_by_its_name_alone(tmp_path):
    for name in ("a/1.jpg", "b/1.jpg", "b/2.png", "3.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "secret.jpg").touch()
    photos, inside = RowPhotos(tmp_path / "in"), tmp_path / "in"
    assert photos.of("a/1.jpg") == inside / "a" / "1.jpg"
    assert photos.of("2.png") == photos.of("elsewhere/2.png") == inside / "b" / "2.png"
    assert photos.of("1.jpg") is None  # two are called so
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg"), "", ".", "..", "4.jpg", "a/"):
        assert photos.of(name) is None
    with pytest.raises(InputError, match="must hold photos"):
        (tmp_path / "none").mkdir()
        RowPhotos(tmp_path / "none")
    with pytest.raises(InputError, match="must be a folder of photos. Received: no such"):
        RowPhotos(tmp_path / "nowhere")


def test_the_column_that_names_them():
    names, words = np.array(["1.jpg", "2.png"]), np.array(["a", "b"])
    assert photo_column({"race": words, "path": words, "file": names}) == "path"
    assert photo_column({"race": words, "file": names}) == "file"
    assert photo_column({"race": words, "age": np.array([1, 2])}) is None
    assert photo_column({"race": words, "a": names, "b": names}, "race") == "race"
    assert photo_column({"a": names, "b": names}, needed=False) is None
    with pytest.raises(InputError, match="`photo_column` must be given: a, b name photos"):
        photo_column({"race": words, "a": names, "b": names})
    with pytest.raises(InputError, match=r"must be a column of text of the store \(race\)"):
        photo_column({"race": words, "age": np.array([1, 2])}, "age")
