"""Raw files to records: every input is counted, every label decoded by its source's own rule."""

from __future__ import annotations

import datetime
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from adience_layout import KEPT, REMOVED, WOMEN, write_adience

from kerasmlp.data.datasets import read_records
from kerasmlp.data.datasets.photos import photos_of
from kerasmlp.data.datasets.records import REASONS
from kerasmlp.data.labels import Gender
from kerasmlp.utils.checks import InputError

SHARED = Path(__file__).parents[3] / "shared" / "data"
FACES = SHARED / "faces"
needs_faces = pytest.mark.skipif(not FACES.is_dir(), reason=f"needs the photos in {FACES}")


def removed(records):
    return Counter(r.removed for r in records if r.removed)


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image")


@needs_faces
@pytest.mark.parametrize(
    ("layout", "inputs", "fallen"),
    [
        ("utkface", 243, {"malformed name": 3}),
        ("fairface", 160, {}),
        ("adience", 110, {"missing image": 20}),
    ],
)
def test_real_sources(layout, inputs, fallen):
    records = read_records(layout, FACES / layout)
    assert len(records) == inputs == len({r.key for r in records})
    assert removed(records) == fallen
    assert all(r.gender is not None for r in records if not r.removed and layout != "adience")


def test_each_reason_is_listed_once():
    assert len(set(REASONS)) == len(REASONS)


def test_importing_a_parser_loads_nothing_heavy():
    code = (
        "import sys, kerasmlp.faces.extraction, kerasmlp.faces.finder, kerasmlp.faces.pool\n"
        "from kerasmlp.data.datasets import adience, fairface, folder, imdb_wiki\n"
        "from kerasmlp.data.datasets import photo_table, utkface\n"
        "print([m for m in ('cv2', 'insightface', 'scipy', 'pandas', 'keras') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_folder(tmp_path):
    touch(tmp_path / "b/ä ö.PNG", tmp_path / "a.jpg", tmp_path / "notes.txt", tmp_path / ".x.jpg")
    records = read_records("folder", tmp_path)
    assert [r.key for r in records] == ["a.jpg", "b/ä ö.PNG"]
    assert all(r.age_years is None and r.gender is None and not r.removed for r in records)


def test_folder_counts_links_and_what_only_the_content_tells(tmp_path):
    photos, outside = tmp_path / "photos", tmp_path / "outside"
    touch(photos / "a.jfif", photos / "b.heic", photos / "notes.txt", photos / "raw.nef")
    touch(outside / "c.jpg", outside / "deep/d.avif")
    for name in ("1234", "5678.1"):
        (photos / name).write_bytes(b"\xff\xd8\xff\xe0 a JPEG")
    (photos / "scan").write_bytes(b"II*\0 a TIFF")
    (photos / "no_scan.dat").write_bytes(b"II*\0 a TIFF")
    os.mkfifo(photos / "pipe")
    (photos / "linked").symlink_to(outside)
    (outside / "back").symlink_to(photos)
    (photos / "deep").symlink_to(outside / "deep")
    (photos / "root").symlink_to("/")
    records = read_records("folder", photos)
    assert [r.key for r in records if not r.removed] == [
        "1234", "5678.1", "a.jfif", "b.heic", "raw.nef", "scan", "deep/d.avif", "linked/c.jpg",
    ]  # fmt: skip
    assert {r.key: r.removed for r in records if r.removed} == dict.fromkeys(
        ("linked/back/", "linked/deep/", "root/"), "link to a folder read already, or around it"
    )
    assert photos_of(photos) == sorted(r.image for r in records if not r.removed)


def test_folder_without_images(tmp_path):
    with pytest.raises(InputError, match="must hold images in the layout 'folder'"):
        read_records("folder", tmp_path)
    with pytest.raises(InputError, match="must be a folder of images"):
        read_records("folder", tmp_path / "none")


def test_utkface_names(tmp_path):
    names = {
        "24_0_2_20170116.jpg.chip.jpg": None,
        "116_1_4_20170116.jpg": None,
        "30_0_1_9.PNG": None,
        "39_1_20170116174525125.jpg.chip.jpg": "malformed name",
        "24_0_1_20170116.jpg.chip.jpg.chip.jpg": "malformed name",
        "24_2_1_20170116.jpg.chip.jpg": "malformed name",
        "24_0_5_20170116.jpg.chip.jpg": "malformed name",
        "131_0_1_20170116.jpg.chip.jpg": "malformed name",
        "portrait.jpg": "malformed name",
        "24_0_1_x.jpg": "malformed name",
    }
    touch(*(tmp_path / name for name in names))
    records = {r.key: r for r in read_records("utkface", tmp_path)}
    assert {key: r.removed for key, r in records.items()} == names
    man = records["24_0_2_20170116.jpg.chip.jpg"]
    assert (man.age_years, man.gender, man.extra) == (24.0, Gender.MALE, {"race": "Asian"})
    woman = records["116_1_4_20170116.jpg"]
    assert (woman.age_years, woman.gender, woman.extra) == (116, Gender.FEMALE, {"race": "other"})


def test_fairface_table(tmp_path):
    rows = [
        "train/1.jpg,20-29,Female,Black,TRUE",
        "train/2.jpg,Oct-19,Male,Southeast Asian,FALSE",
        "train/3.jpg,03-Sep,Male,White,FALSE",
        "train/4.jpg,more than 70,Male,White,FALSE",
        "train/1.jpg,20-29,Female,Black,TRUE",
        "train/9.jpg,20-29,Female,Black,TRUE",
        "train/5.jpg,21-30,Female,Black,TRUE",
        "train/6.jpg,20-29,,Black,TRUE",
        "train/7.jpg,20-29",
    ]
    table = tmp_path / "fairface_label_train.csv"
    table.write_text("file,age,gender,race,service_test\n" + "\n".join(rows) + "\n")
    touch(*(tmp_path / f"train/{i}.jpg" for i in range(1, 8)))
    records = read_records("fairface", tmp_path)
    assert len(records) == len(rows)
    assert [r.age_group for r in records[:4]] == ["20-29", "10-19", "3-9", "more than 70"]
    assert [r.gender for r in records[:2]] == [Gender.FEMALE, Gender.MALE]
    assert records[1].extra == {"race": "Southeast Asian"}
    assert all(r.age_years is None for r in records)
    assert [r.removed for r in records[4:]] == [
        "duplicate row", "missing image", "malformed row", "malformed row", "malformed row",
    ]  # fmt: skip


def adience(folder, rows):
    header = "user_id\toriginal_image\tface_id\tage\tgender\tx"
    for fold in range(5):
        lines = [header, *(f"{row}\t0" for row in rows.get(fold, []))]
        (folder / f"fold_{fold}_data.txt").write_text("\n".join(lines) + "\n")


def test_adience_rules(tmp_path):
    ages = {
        "(0, 2)": (1, "0-2"),
        "(4, 6)": (5, "4-6"),
        "(8, 12)": (10, "8-12"),
        "(15, 20)": (17.5, "15-20"),
        "(25, 32)": (28.5, "25-32"),
        "(38, 43)": (40.5, "38-43"),
        "(48, 53)": (50.5, "48-53"),
        "(60, 100)": (80, "60-100"),
        "35": (35, "38-43"),
        "(27, 32)": (29.5, "25-32"),
        "(8, 23)": (15.5, "15-20"),
        "3": (3, "0-2"),  # a tie
        "45": (45, "38-43"),
        "46": (46, "48-53"),
    }
    rows = [f"u{i}\tp.jpg\t{i}\t{age}\tf" for i, age in enumerate(ages)]
    adience(tmp_path, {2: rows})
    for i in range(len(ages)):
        touch(tmp_path / f"aligned/u{i}/landmark_aligned_face.{i}.p.jpg")
    records = read_records("adience", tmp_path)
    assert [(r.age_years, r.age_group) for r in records] == list(ages.values())
    assert {r.fold for r in records} == {2}
    assert not removed(records)


def test_adience_removals_images_and_groups(tmp_path):
    rows = [
        "ann\ta.jpg\t1\t(0, 2)\tf",
        "ann\tb.jpg\t2\t(0, 2)\tm",
        "bob\tc.jpg\t3\tNone\tm",
        "bob\td.jpg\t4\t(0, 2)\tu",
        "bob\te.jpg\t5\tNone\t",
        "bob\tf.jpg\t6\t(0, 2)\tm",
    ]
    adience(tmp_path, {0: rows[:2], 4: rows[2:]})
    with open(tmp_path / "fold_4_data.txt", "a") as file:
        file.write("bob\tg.jpg\n")
    touch(
        tmp_path / "faces/ann/coarse_tilt_aligned_face.1.a.jpg",
        tmp_path / "aligned/ann/landmark_aligned_face.2.b.jpg",
        tmp_path / "faces/bob/coarse_tilt_aligned_face.3.c.jpg",
        tmp_path / "faces/bob/coarse_tilt_aligned_face.4.d.jpg",
        tmp_path / "faces/bob/coarse_tilt_aligned_face.5.e.jpg",
    )
    records = read_records("adience", tmp_path)
    assert [r.removed for r in records] == [
        None, None, "no age", "no gender", "no age", "missing image", "malformed row",
    ]  # fmt: skip
    assert [r.gender for r in records[:2]] == [Gender.FEMALE, Gender.MALE]
    assert [r.group for r in records[:3]] == ["ann", "ann", "bob"]
    assert [r.fold for r in records] == [0, 0, 4, 4, 4, 4, 4]
    assert [r.image.is_file() for r in records[:5]] == [True] * 5
    assert records[0].key == "faces/ann/coarse_tilt_aligned_face.1.a.jpg"


def test_adience_at_its_full_size(tmp_path):
    """All but the faces of the paper's table: 19,370 inputs, 17,055 and 397 of them to look at."""
    blank = tmp_path / "blank.jpg"
    blank.write_bytes(b"image")
    counts = write_adience(tmp_path, good=[blank], faceless=[blank], faint=[blank], linked=True)
    assert counts == {"kept": 17_055, **REMOVED}
    records = read_records("adience", tmp_path)
    assert len(records) == 19_370
    assert removed(records) == {"no age": 748, "no gender": 1_170}
    left = [r for r in records if not r.removed]
    assert len(left) == 17_055 + 322 + 75
    spare = Counter(r.age_group for r in left)
    spare.subtract(KEPT)
    assert set(spare) == set(KEPT) and spare.total() == 397 and min(spare.values()) >= 0
    assert 0 <= sum(r.gender is Gender.FEMALE for r in left) - WOMEN <= 397
    folds = {r.group: r.fold for r in records}
    assert all(r.fold == folds[r.group] for r in records) and set(folds.values()) == set(range(5))


def test_adience_needs_its_folds(tmp_path):
    adience(tmp_path, {})
    (tmp_path / "fold_3_data.txt").unlink()
    with pytest.raises(InputError, match=r"must hold the 5 fold files.*no fold_3_data.txt"):
        read_records("adience", tmp_path)
    (tmp_path / "fold_3_data.txt").write_text("user_id\tage\n")
    with pytest.raises(InputError, match=r"fold_3_data.txt.*must have the columns user_id"):
        read_records("adience", tmp_path)


def datenum(year, month, day):
    return datetime.date(year, month, day).toordinal() + 366


@pytest.mark.parametrize("source", ["folder", "file"])
def test_imdb_wiki(tmp_path, source):
    scipy_io = pytest.importorskip("scipy.io")
    people = [  # birth, photo, gender, expected age, gender, reason
        (datenum(1980, 6, 30), 2010, 1.0, 30, Gender.MALE, None),
        (datenum(1980, 7, 1), 2010, 0.0, 29, Gender.FEMALE, None),
        (datenum(1980, 1, 1), 2010, np.nan, 30, None, "no gender"),
        (datenum(2012, 1, 1), 2010, 1.0, None, Gender.MALE, "no age"),
        (datenum(1900, 1, 1), 2001, 1.0, None, Gender.MALE, "no age"),
        (datenum(1900, 1, 1), 2000, 1.0, 100, Gender.MALE, None),
        (5, 2000, np.nan, None, None, "no age"),
        (datenum(1980, 1, 1), 2010, 1.0, 30, Gender.MALE, "missing image"),
    ]
    paths = [f"0{i}/{i}.jpg" for i in range(len(people))]
    for name in ("wiki", "imdb"):
        folder = tmp_path / f"{name}_crop"
        touch(*(folder / path for path in paths[:-1]))
        table = {
            "dob": np.array([p[0] for p in people]),
            "photo_taken": np.array([p[1] for p in people], np.uint16),
            "full_path": np.array(paths, object),
            "gender": np.array([p[2] for p in people]),
            "name": np.array(["Ann", "Bob", *"cdefgh"], object),
            "face_score": np.array([4.2, -np.inf, *np.ones(6)]),
            "second_face_score": np.full(8, np.nan),
        }
        scipy_io.savemat(folder / f"{name}.mat", {name: table})
    records = read_records(
        "imdb-wiki", tmp_path if source == "folder" else tmp_path / "wiki_crop/wiki.mat"
    )
    assert len(records) == len(people) * (2 if source == "folder" else 1)
    assert len({r.key for r in records}) == len(records)
    for record, person in zip(records[-len(people) :], people, strict=True):
        assert (record.age_years, record.gender, record.removed) == person[3:]
    assert records[0].group == "Ann"
    assert records[0].extra["face_score"] == 4.2
    assert math.isnan(records[1].extra["face_score"])


def test_imdb_wiki_damaged(tmp_path):
    pytest.importorskip("scipy.io")
    with pytest.raises(InputError, match=r"must hold imdb.mat or wiki.mat"):
        read_records("imdb-wiki", tmp_path)
    (tmp_path / "wiki.mat").write_bytes(b"no matlab at all" * 50)
    with pytest.raises(InputError, match="must be a readable Matlab file"):
        read_records("imdb-wiki", tmp_path)


def test_table_keeps_unknown_labels(tmp_path):
    table = tmp_path / "faces.csv"
    table.write_text(
        "file,age,gender,fold,group,camera,age_group\n"
        "a.jpg,33,female,1,ann,X100,03-Sep\n"
        "b.jpg,,,,,,\n"
        "c.jpg,nan,unknown,0,,D5,\n"
        "a.jpg,33,female,1,ann,X100,\n"
        "d.jpg,5,m,0,,D5,\n"
        "e.jpg,5\n",
        encoding="utf-8-sig",
    )
    touch(*(tmp_path / f"{n}.jpg" for n in "abc"))
    a, b, c, *rest = read_records("csv", table)
    assert (a.age_years, a.gender, a.fold, a.group) == (33, Gender.FEMALE, 1, "ann")
    assert (a.extra, a.age_group) == ({"camera": "X100"}, "3-9")
    assert (b.age_years, b.gender, b.fold, b.group, b.removed) == (None,) * 5
    assert (c.age_years, c.gender, c.fold, c.removed) == (None, None, 0, None)
    assert [r.removed for r in rest] == ["duplicate row", "missing image", "malformed row"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_tables_as_spreadsheets_write_them(tmp_path, delimiter, encoding):
    lines = [
        ("Path", "Age", "GENDER", "Age Group", "Fold", "Kamera"),
        ("a.jpg", '"25,5"', "Female", "03-Sep", "1.0", "Größe"),
        ("deep\\ä.jpg", "30.5", "m", "", "", ""),
        ("deep/ä.jpg", "31", "m", "", "", ""),
        ("none\\c.jpg", "31", "m", "", "", ""),
    ]
    text = "\r\n".join(delimiter.join(line) for line in lines) + "\r\n"
    table = tmp_path / "faces.csv"
    table.write_bytes((f"sep={delimiter}\r\n" * (encoding == "utf-8") + text).encode(encoding))
    touch(tmp_path / "a.jpg", tmp_path / "deep/ä.jpg")
    a, b, again, c = read_records("csv", table)
    assert (a.key, a.age_years, a.gender) == ("a.jpg", 25.5, Gender.FEMALE)
    assert (a.age_group, a.fold) == ("3-9", 1)
    assert a.extra == {"Kamera": "Gr\\xf6\\xdfe" if encoding == "cp1252" else "Größe"}
    assert (b.key, b.age_years, b.removed) == ("deep/ä.jpg", 30.5, None) and b.image.is_file()
    assert (again.removed if encoding != "cp1252" else "duplicate row") == "duplicate row"
    assert (c.key, c.removed) == ("none/c.jpg", "missing image")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("age\n1\n", "must have the columns path"),
        ("path,age\na.jpg,old\n", r"faces.csv:2.*an age of 0 to 130 years"),
        ("path,age\na.jpg,200\n", r"an age of 0 to 130 years"),
        ("path,gender\na.jpg,1\n", "0 and 1 mean different things"),
        ("path,fold\na.jpg,-2\n", "whole number >= 0"),
        ("path,a/b\na.jpg,1\n", "columns of different names"),
        ("path,age,age\na.jpg,1,1\n", "columns of different names"),
    ],
)
def test_table_rejects(tmp_path, content, message):
    table = tmp_path / "faces.csv"
    table.write_text(content)
    touch(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=message):
        read_records("csv", table)


@pytest.mark.parametrize(
    ("content", "came"),
    [
        ("path;age\na.png;25,32\nb.png;38,43\n", r"faces.csv:2`.*'25,32'"),
        ("path;age\na.png;25,5\nb.png;38,43\n", [25.5, 38.43]),
        ('path,age\na.png,33\nb.png,"4,6"\n', r"faces.csv:3`.*'4,6'"),
        ('path,age\na.png,"(4, 6)"\nb.png,"4,0"\n', [5.0, 4.0]),
    ],
)
def test_commas_in_ages_are_told_by_the_column(tmp_path, content, came):
    table = tmp_path / "faces.csv"
    table.write_text(content)
    touch(tmp_path / "a.png", tmp_path / "b.png")
    if isinstance(came, list):
        assert [r.age_years for r in read_records("csv", table)] == came
        return
    with pytest.raises(InputError, match=came) as error:
        read_records("csv", table)
    assert "must hold ages as 25.5 or (25, 32), not with a comma" in str(error.value)


def test_missing_table(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_records("csv", tmp_path / "none.csv")
