"""Moved rows on real faces: when and by what they are noticed, and what recalibration mends.

UTKFace's embeddings are divided by groups: most to learn from, the others kept away, without
those whose photos are at hand. Noticed are to be: FairFace, embeddings turned at random (another
embedder of the same width), and blurred, darkened and compressed photos. Then the age model is
calibrated anew on 500 rows of FairFace, which knows age groups only. Last line: one JSON object.
`python tests/benchmarks/moved.py FOLDER`; what is in FOLDER already is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from damage import altered, is_one_sentence, outcome, turned, without_hashes

from kerasmlp import EmbeddingStore, Predictor
from kerasmlp.data.examples import Examples
from kerasmlp.data.splits import grouped_split, one_of_each_group
from kerasmlp.evaluation.measuring import fitting_classes, measure
from kerasmlp.evaluation.promises import moved_and_promises
from kerasmlp.runs.moved import FALSE_ALARMS, MIN_ROWS, look_for_move
from kerasmlp.runs.reference import answer_scores
from kerasmlp.serving.server.watching import PLAIN, Watch
from kerasmlp.training.reference_fitting import fit_reference

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
DRAWS, ORDERS, CALIBRATIONS = 100, 50, 5
BATCHES = (MIN_ROWS, 30, 50, 75, 100, 150, 200, 300, 500, 1000, 2000)


def altered_photos():
    import cv2

    def blurred(sigma):  # pixels of a photo 200 wide
        return lambda im: cv2.GaussianBlur(im, (0, 0), sigma * im.shape[1] / 200)

    def compressed(im):
        return cv2.imdecode(cv2.imencode(".jpg", im, [cv2.IMWRITE_JPEG_QUALITY, 15])[1], 1)

    return {
        "as they are": lambda im: im,
        "blurred, 2 px": blurred(2),
        "blurred, 4 px": blurred(4),
        "darkened to 1/3": lambda im: (im / 3).astype(np.uint8),
        "darkened to 1/6": lambda im: (im / 6).astype(np.uint8),
        "JPEG 15": compressed,
    }


def photos(path: Path) -> dict[str, np.ndarray]:
    """Embeddings of UTKFace's photos that are at hand, altered in each way; and their names."""
    if not path.exists():
        from kerasmlp.faces.finder import FaceFinder, read_image

        finder, found, names = FaceFinder(SHARED / "models", threads=1), {}, []
        ways = altered_photos()
        for photo in sorted((SHARED / "faces" / "utkface").glob("*.jpg")):
            faces = {way: finder.find(change(read_image(photo))) for way, change in ways.items()}
            if all(faces.values()):
                names.append(photo.name)
                for way, each in faces.items():
                    found.setdefault(way, []).append(each[0].embedding)
        np.savez(path, names=names, **{way: np.stack(rows) for way, rows in found.items()})
    with np.load(path) as content:
        return {name: content[name] for name in content.files}


def stores(folder: Path, names) -> dict[str, EmbeddingStore]:
    """UTKFace to learn from and kept away, and FairFace."""
    paths = {name: folder / f"{name}.h5" for name in ("learn", "away", "fairface")}
    if not all(path.exists() for path in paths.values()):
        for name in ("utkface", "fairface"):
            words = [SHARED / f"{name}_arcface.h5", "-o", folder / f"{name}.h5", "--force"]
            assert outcome("import-embeddings", *words)[0] == 0
        whole = EmbeddingStore.open(folder / "utkface.h5")
        groups = whole.labels["group"]
        at_hand = np.isin([os.path.basename(p) for p in whole.labels["path"]], names)
        rest = whole.subset(~np.isin(groups, groups[at_hand]))
        learn, away = grouped_split(rest.labels["group"], 0.4, 0)
        rest.subset(learn).save(paths["learn"], overwrite=True)
        rest.subset(away).save(paths["away"], overwrite=True)
    return {name: EmbeddingStore.open(path) for name, path in paths.items()}


def trained(folder: Path, name: str, *words) -> Path:
    if not (folder / name / "DONE").exists():
        how = ["--store", folder / "learn.h5", "--run-dir", folder / name, "--force", *words]
        code, _, err = outcome(f"train-{name}", *how)
        assert code == 0, err[-1000:]
    return folder / name


def watch_rows(predictor, reference, x, p, order) -> int | None:
    """How many rows it takes until the watch of a server alarms, None where it does not."""
    classes = predictor.target.measured(np.eye(predictor.target.num_classes)).argmax(axis=1)
    clock = iter(range(0, 10**9, 1000))  # it looks at every row
    heads = {predictor.name: ("probabilities", classes)}
    watch = Watch(reference, heads, lambda: next(clock))
    watch._rng.seed(random.Random(int(order[0])).random())
    for start in range(0, len(order), 10):
        rows = order[start : start + 10]
        watch.see(PLAIN, x[rows], {"probabilities": p[rows]})
        if watch.alarms:
            break
    if not watch.alarms:
        return None
    return _exactly(predictor, reference, x, p, order[: watch.rows], heads)


def _exactly(predictor, reference, x, p, order, heads) -> int:
    """The row of the last ten that alarmed."""
    clock = iter(range(0, 10**9, 1000))
    watch = Watch(reference, heads, lambda: next(clock))
    watch._rng.seed(random.Random(int(order[0])).random())
    for i in order:
        watch.see(PLAIN, x[[i]], {"probabilities": p[[i]]})
        if watch.alarms:
            return watch.rows
    return len(order)


def false_alarms(predictor, kept, away, p_kept, p_away) -> dict:
    """Of halves of rows kept away; then with the rows kept back drawn anew each time, too."""
    reference, x = predictor.reference, away.embeddings
    rows = one_of_each_group(away.labels["group"], 0)
    halves, online = 0, 0
    for seed in range(DRAWS):
        half = np.random.default_rng(seed).permutation(rows)[: len(rows) // 2]
        given = {predictor.label: p_away[half]}
        halves += bool(look_for_move([predictor], x[half], {}, deterministic=given).noticed)
        online += watch_rows(predictor, reference, x, p_away, half) is not None
    pool = np.concatenate([kept, x[rows]])
    p_pool = np.concatenate([p_kept, p_away[rows]])
    scores, number = answer_scores(predictor.target, p_pool), len(reference.scores["along"])
    anew, online_anew, drawn = 0, 0, Predictor(predictor.path)
    for seed in range(DRAWS):
        order = np.random.default_rng(1000 + seed).permutation(len(pool))
        back, half = order[:number], order[number : number + len(rows) // 2]
        answers = {predictor.name: (scores[back], np.arange(number))}
        fitted = fit_reference(reference, pool[back], np.arange(number), answers, seed)
        drawn.reference = fitted
        given = {predictor.label: p_pool[half]}
        anew += bool(look_for_move([drawn], pool[half], {}, deterministic=given).noticed)
        online_anew += watch_rows(predictor, fitted, pool, p_pool, half) is not None
    return {
        "rows": len(rows) // 2, "kept_back": number, "draws": DRAWS, "stated": FALSE_ALARMS,
        "batch": halves, "online": online, "batch_anew": anew, "online_anew": online_anew,
    }  # fmt: skip


def noticed(predictor, x) -> dict:
    """From how many rows on, at once and one after the other, over random orders."""
    p = predictor.probabilities(x)
    given = {predictor.label: p}
    whole = look_for_move([predictor], x, {}, deterministic=given)
    least = None
    for size in BATCHES:
        if size > len(x) or least:
            continue
        hits = 0
        for seed in range(ORDERS):
            rows = np.random.default_rng(seed).permutation(len(x))[:size]
            part = {predictor.label: p[rows]}
            hits += bool(look_for_move([predictor], x[rows], {}, deterministic=part).noticed)
        least = size if hits >= ORDERS / 2 else None
    orders = [np.random.default_rng(seed).permutation(len(x))[:6000] for seed in range(ORDERS)]
    taken = [watch_rows(predictor, predictor.reference, x, p, order) for order in orders]
    found = [n for n in taken if n is not None]
    middle = sorted(n or 10**9 for n in taken)[ORDERS // 2]
    return {
        "rows": len(x),
        "p_values": {k: float(f"{v:.2g}") for k, v in whole.p_values.items()},
        "moved": bool(whole.noticed),
        "batch_half_noticed_from": least,
        "online_median": None if middle == 10**9 else middle,
        "online_found": len(found) / ORDERS,
    }


def answers_of(predictor, x) -> dict[str, np.ndarray]:
    chunks = predictor.uncertainty(x, num_samples=64, seed=0)
    mean = np.concatenate([chunk["mean"] for chunk in chunks])
    return {"deterministic": predictor.probabilities(x), "mc_mean": mean}


def quality(path: Path, store: EmbeddingStore) -> dict:
    """ECE, NLL, coverage and size of sets, and what its tests say, on rows of FairFace."""
    predictor = Predictor(path)
    target = predictor.target
    target = fitting_classes(target, store, None) if target.is_age else target
    rows = Examples.of(store, target)
    answers, result = answers_of(predictor, rows.inputs), {}
    for name, p in answers.items():
        measured = measure(rows, p)
        sets = predictor.sets(p, sampled=name == "mc_mean")
        inside = sets[np.arange(len(rows)), rows.targets]
        result[name] = {k: measured[k] for k in ("accuracy", "nll", "ece")} | {
            "set_90_coverage": float(inside.mean()),
            "set_90_size": float(sets.sum(axis=1).mean()),
        }
    said = moved_and_promises(predictor, rows, answers, 64, 0)
    return result | {"moved": said["moved"], "promises_kept": said["promises_kept"]}


def recalibrated(folder: Path, run: Path, fairface: EmbeddingStore) -> dict:
    """Before, and after with 500 rows, drawn several times; on the same 6,000 others."""
    order = np.random.default_rng(0).permutation(len(fairface))
    tested = fairface.subset(np.sort(order[:6000]))
    found = {"before": [quality(run, tested)], "after": [], "after, --batch-norm": []}
    for draw in range(CALIBRATIONS):
        rows = order[6000 + 500 * draw : 6500 + 500 * draw]
        fairface.subset(np.sort(rows)).save(folder / "some.h5", overwrite=True)
        for name, words in (("after", []), ("after, --batch-norm", ["--batch-norm"])):
            how = [run, folder / "some.h5", "-o", folder / "anew", "--force", *words]
            code, out, err = outcome("recalibrate", *how)
            assert code == 0, err
            if draw == 0:
                print(out)
            found[name].append(quality(folder / "anew", tested))
    return {name: _mean(each) for name, each in found.items()}


def _mean(each: list[dict]) -> dict:
    models = {
        model: {
            k: round(float(np.mean([one[model][k] for one in each])), 4) for k in each[0][model]
        }
        for model in ("deterministic", "mc_mean")
    }
    kept = sum(bool(one["promises_kept"]) for one in each)
    moved = sum(bool(one["moved"]) for one in each)
    return models | {"promises_kept": f"{kept} of {len(each)}", "moved": f"{moved} of {len(each)}"}


def hostile(folder: Path, run: Path) -> dict[str, int]:
    """Altered JSON and turned bits of both files: an answer or one sentence, nothing else."""
    rng, counts = random.Random(0), {"answered": 0, "one_sentence": 0, "else": 0}
    EmbeddingStore.open(folder / "away.h5").subset(range(20)).save(
        folder / "few.h5", overwrite=True
    )
    broken = folder / "broken"
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(run, broken)
    without_hashes(broken)
    for number in range(200):
        name = ("reference.json", "calibration.json")[number % 2]
        content = (run / name).read_bytes()
        if number % 4 < 2:
            text, _ = altered(content.decode(), rng)
            content = text.encode("utf-8", "surrogatepass")
        else:
            content, _ = turned(content, rng)
        (broken / name).write_bytes(content)
        code, _, err = outcome("predict", broken, folder / "few.h5", "--num-samples", "0")
        kind = {0: "answered", 2: "one_sentence" if is_one_sentence(err) else "else"}.get(code)
        counts[kind or "else"] += 1
        shutil.copy(run / name, broken / name)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    faces = photos(folder / "photos.npz")
    known = stores(folder, faces.pop("names"))
    learn, away, fairface = (known[name] for name in ("learn", "away", "fairface"))
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(away.width,) * 2))[0]
    sources = {
        "UTKFace, kept away": away.embeddings[one_of_each_group(away.labels["group"], 0)],
        "FairFace": fairface.embeddings[one_of_each_group(fairface.labels["group"], 0)[:6000]],
        "turned at random": (away.embeddings @ rotation).astype(np.float32)[:2000],
        **{f"photos {way}": rows.astype(np.float32) for way, rows in faces.items()},
    }
    result: dict = {"false_alarms": {}, "noticed": {}, "recalibrated": {}}
    for name, words in (("age", ["--classes", "fairface"]), ("gender", [])):
        run = trained(folder, name, *words)
        predictor = Predictor(run)
        kept = rows_kept_back(predictor, learn)
        p = {k: predictor.probabilities(v) for k, v in (("kept", kept), ("away", away))}
        result["false_alarms"][name] = false_alarms(predictor, kept, away, p["kept"], p["away"])
        print(name, json.dumps(result["false_alarms"][name]), flush=True)
        result["noticed"][name] = {}
        for source, x in sources.items():
            result["noticed"][name][source] = one = noticed(predictor, x)
            print(f"{name:7} {source:24} {json.dumps(one)}", flush=True)
        result["recalibrated"][name] = recalibrated(folder, run, fairface)
        for when, one in result["recalibrated"][name].items():
            print(f"{name:7} {when:24} {json.dumps(one)}", flush=True)
    result["hostile"] = hostile(folder, folder / "age")
    print(json.dumps(result))


def rows_kept_back(predictor, store: EmbeddingStore) -> np.ndarray:
    """One of each group."""
    from kerasmlp.training.rows import Rows

    how = {k: predictor.config[k] for k in ("validation_share", "seed", "group")}
    part = Rows.of(store, predictor.trained, None, how).heads[0].part
    return part.inputs[one_of_each_group(part.groups(None), 0)]


if __name__ == "__main__":
    main()
