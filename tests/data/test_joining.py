"""Stores joined to one: rows, labels, groups, rows that are in two, and what is refused."""

import numpy as np
import pytest

from kerasmlp import EmbeddingStore, InputError, StoreInfo, choose_target, join_stores
from kerasmlp.data.joined_labels import doubts_of_joined, known_in_files
from kerasmlp.data.joining import open_stores
from kerasmlp.data.label_kinds import kind_of_label
from kerasmlp.data.labelled import parts_of
from kerasmlp.data.other_targets import NumberTarget
from kerasmlp.data.splits import grouped_folds
from kerasmlp.data.targets import choose_age_target


def rows(count: int, seed: int = 0, width: int = 8) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def store(name: str, count: int = 4, seed: int = 0, **labels) -> EmbeddingStore:
    return EmbeddingStore(rows(count, seed), labels, StoreInfo("r50", "a" * 64), name=name)


def test_joined_rows_and_labels_are_those_of_the_stores_in_order():
    a = store("x/a.h5", age_years=[1.0, 2, 30, 40], gender=[0, 1, 1, -1], id=["p", "q", "r", "s"])
    b = store("b.h5", 3, 1, gender=[1, 0, 1], age_group=["0-2", "", "20-29"])
    both = join_stores([a, b])
    np.testing.assert_array_equal(both.embeddings, np.concatenate([a.embeddings, b.embeddings]))
    np.testing.assert_array_equal(both.labels["age_years"], [1, 2, 30, 40, *[np.nan] * 3])
    assert both.labels["gender"].tolist() == [0, 1, 1, -1, 1, 0, 1]
    assert both.labels["age_group"].tolist() == ["", "", "", "", "0-2", "", "20-29"]
    assert both.labels["id"].tolist() == ["p", "q", "r", "s", "", "", ""]
    assert both.labels["joined_from"].tolist() == ["a.h5"] * 4 + ["b.h5"] * 3
    assert "group" not in both.labels  # nobody has one, and no row is there twice
    told = [{"file": "a.h5", "rows": 4}, {"file": "b.h5", "rows": 3}]
    assert both.info.joined == {"stores": told, "same_rows": 0, "left_out": {}}
    assert both.info.of_embedder()["stores"] == told
    nothing = store("c.h5", 2, 2, gender=[-1, -1], id=[np.nan, np.nan], group=[-1, -1])
    assert join_stores([a, nothing]).labels["id"].tolist() == ["p", "q", "r", "s", "", ""]
    assert "group" not in join_stores([a, nothing]).labels
    with pytest.raises(InputError, match="`stores` must hold at least one store"):
        join_stores([])
    assert join_stores([a]) is a and "stores" not in a.info.of_embedder()
    assert both.digest() != join_stores([b, a]).digest()


def test_numbers_of_groups_mean_nothing_elsewhere_and_names_do():
    a = store("a.h5", group=[7, 7, 8, -1], person=["ann", "bob", "", "bob"])
    b = store("b.h5", 3, 1, group=[8, 9, 8], person=["bob", "cid", ""])
    both = join_stores([a, b], group="person")
    assert both.labels["group"].tolist() == [0, 0, 1, 2, 3, 4, 3]
    assert both.labels["person"].tolist() == [0, 1, 2, 1, 1, 3, 4]
    c = store("c.h5", 2, 2, group=["x", "x"])
    assert join_stores([a, c]).labels["group"].tolist() == [0, 0, 1, 2, 3, 3]
    bare = store("d.h5", 2, 3)
    assert join_stores([bare, a]).labels["group"].tolist() == [0, 1, 2, 2, 3, 4]


@pytest.mark.parametrize("groups", [{}, {"group": [1, 1, 2, 3]}])
def test_no_split_has_a_row_that_is_in_two_stores_on_both_sides(groups):
    a, b = store("a.h5", 4, **groups), store("b.h5", 30, 1)
    half = np.concatenate([a.embeddings[1:3].astype(np.float16), b.embeddings]).astype(np.float32)
    b = EmbeddingStore(half, {}, b.info, name="b.h5")
    both = join_stores([a, b])
    assert both.info.joined["same_rows"] == 2
    group = both.labels["group"]
    assert group[1] == group[4] and group[2] == group[5] and len(set(group)) == 34 - len(groups)
    assert (group[0] == group[4]) == bool(groups)  # by way of its group in the first store
    for seed in range(5):
        for fold in grouped_folds(group, 5, seed):
            assert (1 in fold) == (4 in fold) and (2 in fold) == (5 in fold)


def test_columns_that_do_not_fit_are_left_out_and_said():
    ages = ["0-2", "20-29", "0-2", "3-9"], ["4-6", "0-2", "8-12"]
    a = store("a.h5", race=["White"] * 4, fold=[0, 1, 0, 1], age_group=ages[0], n=[2**60, 1, 1, 1])
    b = store("b.h5", 3, 1, race=[0, 1, 2], age_group=ages[1], n=[0.5, 1, 1])
    both = join_stores([a, b])
    assert set(both.labels) == {"joined_from"}
    left_out = both.info.joined["left_out"]
    assert left_out["race"] == "it is text in a.h5, numbers in b.h5"
    assert left_out["fold"] == "only a.h5 has it"
    assert left_out["age_group"] == "it holds other age groups in a.h5 than in b.h5"
    assert left_out["n"].startswith("`a.h5` must hold whole numbers below")
    with pytest.raises(InputError, match=r"alike: it is text in a.h5, .* Received: label='race'"):
        choose_target(both, "race")
    folds = [store(f"{k}.h5", 4, k, fold=[0, 0, 1, -1]) for k in (0, 1)]
    assert join_stores(folds).labels["fold"].tolist() == [0, 0, 1, -1] * 2
    views = store("v.h5", 4, view=[0, 1, 0, 1], group=[1, 1, 2, 2])
    assert join_stores([views, store("w.h5", 2, 1)]).labels["view"].tolist() == [0, 1, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (EmbeddingStore(rows(2, 1, 4), name="b.h5"), "have width 8, as `a.h5` has"),
        (
            EmbeddingStore(
                rows(2, 1), {}, StoreInfo("r50", "a" * 64, normalized=False), name="b.h5"
            ),
            "are normalised, as `a.h5` does",
        ),
        (
            EmbeddingStore(rows(2, 1), {}, StoreInfo("r18", "b" * 64), name="b.h5"),
            r"embeddings of r50 \(sha256 a+\), as `a.h5` does. Received: those of r18",
        ),
    ],
)
def test_stores_of_another_space_are_refused_with_both_files(other, message):
    with pytest.raises(InputError, match=f"`b.h5` must .*{message}"):
        join_stores([store("a.h5"), other])
    plain, flipped = (StoreInfo("r50", preprocessing={"flip": flip}) for flip in (False, True))
    with pytest.raises(InputError, match="`b` .* made with flip=False, as `a` does. .*flip=True"):
        join_stores(
            [EmbeddingStore(rows(2), {}, i, name=n) for i, n in ((plain, "a"), (flipped, "b"))]
        )


def joined(label: str, first, second) -> EmbeddingStore:
    both = [
        store("a.h5", len(first), **{label: first}),
        store("b.h5", len(second), 1, **{label: second}),
    ]
    return join_stores(both)


def test_classes_are_joined_where_some_are_shared():
    both = joined("race", ["Black", "White", "White"], ["Asian", "White", "Asian"])
    assert choose_target(both, "race").class_names == ("Asian", "Black", "White")
    doubts = doubts_of_joined(both, (choose_target(both, "race"),))
    assert doubts == ["race: 'Black' in a.h5 alone", "race: 'Asian' in b.h5 alone"]
    one_each = joined("pet", ["cat", "cat"], ["dog", "dog"])
    assert choose_target(one_each, "pet").class_names == ("cat", "dog")
    assert len(doubts_of_joined(one_each, (choose_target(one_each, "pet"),))) == 2
    codes = joined("code", [0, 1, 1], [1, 0, -1])
    said = ["code: a code is taken to mean the same in a.h5 and b.h5"]
    assert doubts_of_joined(codes, (choose_target(codes, "code"),)) == said
    lines = known_in_files(codes, (choose_target(codes, "code"),))
    assert lines == ["code: known in 3 of 3 rows in a.h5, 2 of 3 rows in b.h5"]
    letters = joined("letter", ["A", "a", "A"], ["a", "A", "B"])
    assert choose_target(letters, "letter").class_names == ("A", "B", "a")
    for other, message in (
        (["m", "f", "m"], "sex=\"'female', 'male' in a.h5, 'f', 'm' in b.h5\""),
        (["Male", "female", "female"], "spell a class alike .*\"'male' in a.h5, 'Male' in b.h5\""),
    ):
        with pytest.raises(InputError, match=message):
            choose_target(joined("sex", ["male", "female", "male"], other), "sex")


def test_kinds_units_and_ages_are_held_against_each_other_by_store():
    mixed = joined("score", [1, 2, 1, 2], [0.5, 0.25, 0.125])
    with pytest.raises(InputError, match=r"told by `--task`.*classes in a.h5, number in b.h5"):
        kind_of_label(mixed, "score")
    assert kind_of_label(mixed, "score", "number")[0] == "number"
    heights = joined("height", [1.5, 1.9, 1.7], [150.0, 190.0, 175.5])
    assert doubts_of_joined(heights, (NumberTarget("height"),)) == [
        "height: 1.504 to 1.896 in a.h5, 150.5 to 189.7 in b.h5: are both in one unit?"
    ]
    assert doubts_of_joined(joined("h", [1.5, 1.9], [1.7, 2.0]), (NumberTarget("h"),)) == []
    scaled = joined("age_years", [1.0, 20, 60, 80], [0.01, 0.2, 0.6, 0.8])
    with pytest.raises(InputError, match=r"of b.h5 4 numbers from 0.01 to 0.8, none above 1"):
        choose_age_target(scaled, None, None, by_years=True)
    assert choose_age_target(scaled, None, None, by_years=True, are_years=True).head == "years"


def test_files_are_opened_joined_saved_and_joined_again(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        store("a", 3, ord(name), gender=[0, 1, 0]).save(tmp_path / name / "faces.h5")
    paths = [tmp_path / name / "faces.h5" for name in ("x", "y")]
    both = open_stores(paths)
    assert list(parts_of(both)) == ["faces.h5 (1)", "faces.h5 (2)"]
    both.save(tmp_path / "both.h5")
    again = open_stores(tmp_path / "both.h5")
    assert again.digest() == both.digest() and again.info.joined == both.info.joined
    store("c", 2, 5).save(tmp_path / "c.h5")
    three = open_stores([tmp_path / "both.h5", tmp_path / "c.h5"])
    assert {file: int(mask.sum()) for file, mask in parts_of(three).items()} == {
        "faces.h5 (1)": 3, "faces.h5 (2)": 3, "c.h5": 2,
    }  # fmt: skip
    with pytest.raises(InputError, match="`store` must name one or more files, each once"):
        open_stores([paths[0], tmp_path / "x" / ".." / "x" / "faces.h5"])
    with pytest.raises(InputError, match=r"must say what was joined in attribute 'joined'"):
        StoreInfo.from_attributes("z.h5", {"joined": '{"stores": [{}]}'})
