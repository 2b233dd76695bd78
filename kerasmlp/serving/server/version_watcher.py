"""Takes up new versions of models while they are served."""

import asyncio
import contextlib
import gc
import logging
import os
import weakref
from collections.abc import Callable, Collection, Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from kerasmlp.serving.server.private_copy import DESCRIPTION, GRAPH, INDEX, REFERENCE, WEIGHTS
from kerasmlp.serving.server.served_models import (
    ServedModel,
    check_labels,
    load_version,
    refuse_name,
)
from kerasmlp.serving.server.served_version import ServedVersion
from kerasmlp.serving.server.version_sources import Source, sources_of
from kerasmlp.utils.checks import InputError, one_sentence, reject_file

_log = logging.getLogger("kerasmlp.serving.versions")
"""A logger of its own: its sentences are few, and each is written."""
_LONGEST = 40


class VersionWatcher:
    """Looks at folders of versions and at `models.config` files, and serves what they hold now.

    A new version is loaded and asked once beside those that are served, then
    it takes their place at once: questions in work are answered by the version
    that they began with, which is released behind the last of them. One that
    cannot be loaded, or takes or gives something else, is refused in one
    sentence in the log, and those that are served go on; it is tried again
    when its files change. A folder whose files still change is not touched.

    Where the highest version is removed, the one below it is served again, as
    by TensorFlow Serving. Where none is left, the last one goes on. Runs are
    not looked at again.

    Args:
        models: As of `load_models`; their entries are replaced.
        paths: That they were loaded from.
        trust: Whether to run what no export of this package holds.
        changed: Called with the name, the number, and whether it is served now.
    """

    def __init__(
        self,
        models: MutableMapping[str, ServedModel],
        paths: Sequence[str | os.PathLike],
        *,
        trust: bool = False,
        changed: Callable[[str, int, bool], None] = lambda name, number, served: None,
    ):
        runs = {path for path in map(Path, paths) if (path / "config.json").exists()}
        self._models = models
        self._paths = [path for path in map(Path, paths) if path not in runs]
        self._trust, self._changed = trust, changed
        self._stamps: dict[Path, tuple] = {}
        self._refused: set[Path] = set()
        self._told: dict[tuple, str | None] = {}
        versions = [v for model in models.values() for v in model.versions.values()]
        self._loaded = [weakref.ref(version) for version in versions]

    async def watch(self, pause_s: float) -> None:
        """Looks again and again, in a thread, until it is cancelled."""
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="versions")
        try:
            while True:
                await asyncio.sleep(pause_s)
                try:
                    await loop.run_in_executor(thread, self.look)
                except Exception as error:  # the next look may fare better
                    _log.error("versions could not be looked at: %s", one_sentence(error))
        finally:
            thread.shutdown(wait=False)

    def look(self) -> None:
        """Looks once, and takes up what is new."""
        if any(one() is None for one in self._loaded):
            self._loaded = [one for one in self._loaded if one() is not None]
            gc.collect()  # TensorFlow's objects know each other in circles
        for path in self._paths:
            with self._telling(path):
                sources = sources_of(path)
                for source in sources:
                    with self._telling(path, source.name):
                        self._look_at(source)
                self._drop_others(path, {source.name for source in sources})
        self._stamps = {place: v for place, v in self._stamps.items() if place.is_dir()}
        self._refused &= self._stamps.keys()

    def _look_at(self, source: Source) -> None:
        model = self._models.get(source.name)
        if model is not None and (model.source is None or model.source.path != source.path):
            refuse_name(source.path, source.name)
        wanted = source.numbers()
        check_labels(source, wanted)
        served = model.versions if model and model.source.folder == source.folder else {}
        versions, others = {n: v for n, v in served.items() if n in wanted}, {}
        for number in wanted:
            if number not in served:
                version = self._new_version(source, number, model)
                if version is not None:
                    versions[number] = version
                else:
                    is_refused = source.place(number) in self._refused
                    others[number] = "END" if is_refused else "LOADING"
        labels = source.labels
        if others:  # the earlier ones go on
            versions = {**served, **versions}
            known = {k: n for k, n in source.labels.items() if n in versions}
            labels = {**(model.labels if served else {}), **known}
        if versions:
            versions = dict(sorted(versions.items()))
            self._take(ServedModel(source.name, versions, labels, source, others), model)
        elif model is not None:
            self._models[source.name] = replace(model, others=others)

    def _take(self, new: ServedModel, model: ServedModel | None) -> None:
        self._models[new.name] = new
        earlier = model.versions if model else {}
        for number, version in new.versions.items():
            if version is not earlier.get(number):
                self._changed(new.name, number, True)
        for number, version in earlier.items():
            if version is not new.versions.get(number):
                self._changed(new.name, number, False)

    def _drop_others(self, path: Path, named: Collection[str]) -> None:
        """Those that a file names no more."""
        for model in list(self._models.values()):
            if model.source and model.source.path == path and model.name not in named:
                del self._models[model.name]
                for number in model.versions:
                    self._changed(model.name, number, False)

    def _new_version(
        self, source: Source, number: int, model: ServedModel | None
    ) -> ServedVersion | None:
        """Loads one whose files rest; None where they do not, or it is refused."""
        place = source.place(number)
        stamp = _stamp(place)
        if self._stamps.get(place) != stamp:
            self._stamps[place] = stamp
            self._refused.discard(place)
            return None
        if place in self._refused:
            return None
        if model is not None:
            others = {**model.others, number: "LOADING"}
            self._models[source.name] = replace(model, others=others)
        try:
            version = load_version(place, trust=self._trust)
            self._loaded.append(weakref.ref(version))
            if model is not None:
                _check_alike(place, version, model)
        except Exception as error:  # an altered file may fail anywhere, in any way
            self._refused.add(place)
            _log.warning("not served: %s", one_sentence(error) or type(error).__name__)
            return None
        return version if _stamp(place) == stamp else None  # else it changed meanwhile

    @contextlib.contextmanager
    def _telling(self, *what: Any) -> Iterator[None]:
        """Around what may be wrong: then all stays as it is, which is said once."""
        sentence = None
        try:
            yield
        except (InputError, OSError) as error:
            sentence = one_sentence(error)
            if self._told.get(what) != sentence:
                _log.warning("versions stay as they are: %s", sentence)
        self._told[what] = sentence


def _check_alike(place: Path, version: ServedVersion, model: ServedModel) -> None:
    """Rejects a version of other embeddings or answers: who asks would not learn of it."""
    number = max(model.versions)
    earlier = model.versions[number]
    requirement = f"must take and give what version {number} does, or be served by a new start"
    expected, came = _meaning(earlier), _meaning(version)
    for key in {**expected, **came}:
        ours, theirs = came.get(key), expected.get(key)
        if ours != theirs:
            reject_file(place, requirement, f"{key} {_short(ours)} and not {_short(theirs)}")
    for signature in earlier.signatures:
        definitions = [v.signature_definitions.get(signature, {}) for v in (earlier, version)]
        theirs, ours = (one.get("outputs", {}).keys() for one in definitions)
        if missing := sorted(theirs - ours):
            reject_file(place, requirement, f"{signature} without {', '.join(missing)[:80]}")


def _meaning(version: ServedVersion) -> dict[str, Any]:
    """What its embeddings and its numbers stand for."""
    about = version.description
    known = {k: about.get(k) for k in ("width", "embedder_sha256", "normalized", "preprocessing")}
    heads = about.get("heads") if isinstance(about.get("heads"), dict) else {"": about}
    for name, head in heads.items():
        for key in ("class_names", "label_names", "unit"):
            if isinstance(head, dict):
                known[f"{key} of {name}".removesuffix(" of ")] = head.get(key)
    return known


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _stamp(version: Path) -> tuple[tuple | None, ...]:
    """What changes with its files, and where there are more of them."""
    stamps: list[tuple | None] = []
    files = [version / name for name in (GRAPH, DESCRIPTION, INDEX, WEIGHTS, REFERENCE)]
    for path in dict.fromkeys((version, *(file.parent for file in files), *files)):
        try:
            status = os.stat(path)
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(stamps)
