import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasmlp.data.labels import (
    FAIRFACE_GROUPS,
    GENDER_CODES,
    NUM_YEARS,
    Gender,
    age_classes,
    decimal_comma,
    decode_gender,
    parse_age_years,
    repair_age_group,
)
from kerasmlp.utils.checks import InputError


@pytest.mark.parametrize(
    ("source", "male", "female"),
    [
        ("utkface", ["0", 0, 0.0, np.float32(0), "0.0"], ["1", 1, 1.0, np.int8(1), " 1 "]),
        ("imdb-wiki", [1, 1.0, "1"], [0, 0.0, "0"]),
        ("adience", ["m", "M"], ["f", " F"]),
        ("words", ["Male", "man", "M"], ["FEMALE", "woman", "f"]),
    ],
)
def test_gender_decoders(source, male, female):
    assert {decode_gender(v, source) for v in male} == {Gender.MALE}
    assert {decode_gender(v, source) for v in female} == {Gender.FEMALE}
    for value in ("u", "", None, float("nan"), 2, -1, "10"):
        assert decode_gender(value, source) is None
    assert source in GENDER_CODES


def test_gender_codes_contradict_each_other():
    assert decode_gender(1, "utkface") != decode_gender(1, "imdb-wiki")
    with pytest.raises(InputError, match=r"`source` must be one of .* Received: source='lfw'"):
        decode_gender(1, "lfw")


@pytest.mark.parametrize("month", ["03-Sep", "3-Sep", "03-SEP", "Sep-03", " 3-9 ", "3–9"])
def test_spreadsheet_damage_is_undone(month):
    assert repair_age_group(month) == "3-9"


def test_repair_leaves_sound_groups():
    assert [repair_age_group(g) for g in FAIRFACE_GROUPS] == list(FAIRFACE_GROUPS)
    assert [repair_age_group(t) for t in ("Oct-19", "19-Oct", "08-Dec", "04-Jun", "")] == [
        "10-19", "10-19", "8-12", "4-6", "",
    ]  # fmt: skip


@given(st.text(max_size=20))
def test_repair_is_idempotent(text):
    assert repair_age_group(repair_age_group(text)) == repair_age_group(text)


@given(st.text(max_size=12))
def test_parsed_age_is_finite_or_none(text):
    age_years = parse_age_years(text)
    assert age_years is None or (np.isfinite(age_years) and age_years >= 0)


@pytest.mark.parametrize(
    "spec", ["years", "adience", "fairface", "0-12,13-19,20-64,65+", "0,1-100"]
)
def test_every_year_has_one_class(spec):
    classes = age_classes(spec)
    encoded = classes.encode(np.arange(NUM_YEARS))
    assert set(encoded) == set(range(classes.num_classes)) and (np.diff(encoded) >= 0).all()
    assert len(classes.class_names) == classes.num_classes == len(classes.centers)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(NUM_YEARS), size=3)
    np.testing.assert_allclose(classes.from_years(probabilities).sum(axis=1), 1)
    np.testing.assert_array_equal(classes.encode([np.nan, -1, 130]), [-1, -1, encoded[-1]])


def test_fairface_boundaries():
    classes = age_classes("fairface")
    names = [classes.class_names[k] for k in classes.encode([0, 2, 3, 9, 10, 69, 70, 100])]
    assert names == ["0-2", "0-2", "3-9", "3-9", "10-19", "60-69", "more than 70", "more than 70"]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("0-12,14+", "without gap or overlap"),
        ("0-12,12+", "without gap or overlap"),
        ("1-12,13+", "without gap or overlap"),
        ("0-12,13-99", "without gap or overlap"),
        ("0-100", "'years', 'adience'"),
        ("young,old", "'years', 'adience'"),
        ("", "'years', 'adience'"),
        (None, "'years', 'adience'"),
    ],
)
def test_bad_classes(spec, text):
    with pytest.raises(InputError, match=rf"`classes` must .*{text}") as caught:
        age_classes(spec)
    assert f"Received: classes={spec!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["25,32", "38,43"], ("25,32", False)),
        (["25,32", "38,43", "(48, 53)", "33"], ("25,32", False)),
        (["4,6"], ("4,6", False)),
        (["25,32", "38,5"], ("25,32", True)),
        (["25,131"], ("25,131", True)),
        (["60,100", "60,60"], ("60,100", False)),
        (["(25, 32)", "25.5", "33", ""], None),
        (["25,32 years", "38,43 Years"], ("25,32 years", False)),
        (["25,32y", "40"], ("25,32y", False)),
        (["25,32 years", "38,5 years"], ("25,32 years", True)),
        (["1,200 days", "3 months"], ("1,200 days", False)),
        (["60,132 months"], ("60,132 months", False)),
        (["25, 32 years", "25,32 people"], None),
    ],
)
def test_a_decimal_comma_is_told_by_the_whole_column(texts, found):
    assert decimal_comma(texts) == found
