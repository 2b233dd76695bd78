"""Adience's complete layout with the paper's counts, its images made from a few given ones."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Sequence
from pathlib import Path

KEPT = {
    "0-2": 1363, "4-6": 2087, "8-12": 2226, "15-20": 1761,
    "25-32": 5162, "38-43": 2719, "48-53": 907, "60-100": 830,
}  # fmt: skip
WOMEN = 9103
REMOVED = {"no age": 748, "no gender": 1170, "no face": 322, "low det_score": 75}
NUM_USERS, NUM_FOLDS = 2000, 5

SPELLINGS = {
    "0-2": ("(0, 2)", "3", "2"), "4-6": ("(4, 6)",), "8-12": ("(8, 12)", "13"),
    "15-20": ("(15, 20)", "22", "23", "(8, 23)"), "25-32": ("(25, 32)", "(27, 32)", "34", "29"),
    "38-43": ("(38, 43)", "35", "45", "(38, 42)", "36"), "48-53": ("(48, 53)", "55", "46", "57"),
    "60-100": ("(60, 100)",),
}  # fmt: skip
"""How the fold files write the ages of a group: its tuple, others, and single years."""

_HEADER = "user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\ttilt_ang\n"


def write_adience(
    folder: Path,
    *,
    good: Sequence[Path],
    faceless: Sequence[Path],
    faint: Sequence[Path],
    one_of: int = 1,
    linked: bool = False,
) -> dict[str, int]:
    """Writes fold files and images; returns the number of inputs by what must become of them.

    Args:
        folder: Where to.
        good: Images with one clear face, repeated as often as needed, each
            time with bytes of its own.
        faceless: Images without a face.
        faint: Images with a face below the threshold.
        one_of: Every n-th of all inputs only.
        linked: Links to the images instead, which are made sooner.
    """
    rng = random.Random(0)
    people = _people(rng)[::one_of]
    images = {
        "kept": itertools.cycle(good),
        "no age": itertools.cycle([*good, *faceless]),
        "no gender": itertools.cycle(good),
        "no face": itertools.cycle(faceless),
        "low det_score": itertools.cycle(faint),
    }
    lines = [[_HEADER] for _ in range(NUM_FOLDS)]
    counts: dict[str, int] = {}
    folders: set[Path] = set()
    for number, (fate, age, gender) in enumerate(people):
        user = rng.randrange(NUM_USERS // one_of)
        image, face_id = f"{number}_o.jpg", rng.randrange(100)
        lines[user % NUM_FOLDS].append(
            f"{user}@N00\t{image}\t{face_id}\t{age}\t{gender}\t1\t1\t9\t9\t0\n"
        )
        kind = ("aligned", "landmark") if user % 2 else ("faces", "coarse_tilt")
        path = folder / kind[0] / f"{user}@N00" / f"{kind[1]}_aligned_face.{face_id}.{image}"
        if path.parent not in folders:
            path.parent.mkdir(parents=True)
            folders.add(path.parent)
        if linked:
            os.link(next(images[fate]), path)
        else:
            path.write_bytes(next(images[fate]).read_bytes() + str(number).encode())
        counts[fate] = counts.get(fate, 0) + 1
    for fold, text in enumerate(lines):
        (folder / f"fold_{fold}_data.txt").write_text("".join(text))
    return counts


def faces_to_spread(shared: Path, folder: Path) -> dict[str, list[Path]]:
    """Photos of FairFace with a clear face and with a faint one, and a picture of noise."""
    import cv2
    import numpy as np

    from kerasmlp.faces.finder import MIN_DET_SCORE, FaceFinder

    noise = folder / "noise.jpg"
    cv2.imwrite(str(noise), np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8))
    finder = FaceFinder(shared / "models", min_det_score=0.3)
    images: dict[str, list[Path]] = {"good": [], "faceless": [noise], "faint": []}
    for path in sorted((shared / "faces" / "fairface").rglob("*.jpg")):
        scores = [face.det_score for face in finder.find(cv2.imread(str(path)))]
        if len(scores) == 1:
            images["good" if scores[0] >= MIN_DET_SCORE else "faint"].append(path)
    return images


def _people(rng: random.Random) -> list[tuple[str, str, str]]:
    """What must become of an input, its age and its gender as written, in random order."""
    genders = ["f"] * WOMEN + ["m"] * (sum(KEPT.values()) - WOMEN)
    rng.shuffle(genders)
    ages = [
        next(spelling)
        for group, number in KEPT.items()
        for spelling in [itertools.cycle(SPELLINGS[group])]
        for _ in range(number)
    ]
    people = [("kept", age, gender) for age, gender in zip(ages, genders, strict=True)]
    for fate, number in REMOVED.items():
        for _ in range(number):
            age, gender = rng.choice(ages), rng.choice("fm")
            if fate == "no age":
                age, gender = "None", rng.choice(("f", "m", "u", ""))
            elif fate == "no gender":
                gender = rng.choice(("u", ""))
            people.append((fate, age, gender))
    rng.shuffle(people)
    return people
