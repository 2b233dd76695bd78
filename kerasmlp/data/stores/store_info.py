import datetime
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

import numpy as np

from kerasmlp.utils import strict_json
from kerasmlp.utils.checks import reject_file, shown
from kerasmlp.utils.schema import dict_of, flag, list_of, optional, text, whole
from kerasmlp.utils.schema import fields as object_of

_OBJECTS = (
    "removal_report", "import_report", "extraction", "preprocessing", "versions", "joined",
)  # fmt: skip

_NUMBERED = re.compile(r"(.*?)(\d{1,9})")

PREPROCESSING = object_of({"flip": optional(flag)})
"""The rest of it is only compared."""

_MANY = 10**6
_STORE = object_of({"file": text(10_000), "rows": whole(1, 10**12)})
_JOINED = object_of(
    {
        "stores": list_of(_STORE, _MANY),
        "same_rows": whole(0, 10**12),
        "left_out": dict_of(text(10_000)),
    }
)


@dataclass(frozen=True, kw_only=True)
class RowsInfo:
    """Where the rows of a store come from.

    Attributes:
        source: The data set, in words.
        licence: Of the data, in words.
        removal_report: `{"inputs": n, "kept": n, "removed": {reason: n}}`.
        created: When the store was written, ISO 8601.
    """

    source: str | None = None
    licence: str | None = None
    removal_report: dict | None = None
    created: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )

    @classmethod
    def from_attributes(cls, name: Any, attributes: Mapping[str, Any]) -> Self:
        """Takes over the attributes of a file that are known here; others are left.

        Raises:
            InputError: naming the file, if an attribute is of the wrong kind.

        Example:

        >>> StoreInfo.from_attributes("a.h5", {"embedder": b"r50", "colour": 1}).embedder
        'r50'
        """
        names = [f.name for f in fields(cls)]
        found = {k: _plain(name, k, attributes[k]) for k in names if k in attributes}
        return cls(**found)

    def to_attributes(self) -> dict[str, Any]:
        """What a file keeps: text, numbers and bools."""
        known = {k: v for k, v in asdict(self).items() if v is not None}
        return {k: json.dumps(v) if isinstance(v, dict) else v for k, v in known.items()}


@dataclass(frozen=True)
class StoreInfo(RowsInfo):
    """Where the embeddings of a store come from.

    Attributes:
        embedder: Name of the embedding model, or None where unknown.
        embedder_sha256: Hash of its file. Two embedders of one width give
            different spaces: models refuse embeddings of another one.
        detector: Name of the face detector, or None.
        detector_sha256: Hash of its file.
        min_det_score: Threshold below which faces were removed; it belongs
            to this detector's scale.
        normalized: Whether every embedding has Euclidean norm 1.
        import_report: What `import_embeddings` read and left out:
            `{"sources": [{"file", "rows", "embedding", "labels", "left_out",
            "doubts"}]}`.
        extraction: The settings of `extract_embeddings`, and the digest of its inputs.
        preprocessing: How a picture came before the embedder, as `Preprocessing.to_json`
            has it: models refuse embeddings of another one. None where unknown.
        versions: Of the libraries that computed the embeddings, by their names.
        embedder_licence: Of the embedder's weights, in words.
        embedder_source: Where the embedder came from.
        joined: What `join_stores` put together: `{"stores": [{"file", "rows"}],
            "same_rows": n, "left_out": {label: why}}`.
    """

    embedder: str | None = None
    embedder_sha256: str | None = None
    detector: str | None = None
    detector_sha256: str | None = None
    min_det_score: float | None = None
    normalized: bool = True
    import_report: dict | None = None
    extraction: dict | None = None
    preprocessing: dict | None = None
    versions: dict | None = None
    embedder_licence: str | None = None
    embedder_source: str | None = None
    joined: dict | None = None

    def of_embedder(self) -> dict[str, Any]:
        """What a run records of it: embeddings of another space mean nothing to its model."""
        names = ("embedder", "embedder_sha256", "normalized")
        known = {} if self.preprocessing is None else {"preprocessing": self.preprocessing}
        known |= {} if self.joined is None else {"stores": self.joined["stores"]}
        return {name: getattr(self, name) for name in names} | known

    def of_data(self) -> dict[str, Any]:
        """What a report says of the rows and of who made them: names and licences."""
        names = ("source", "licence", "removal_report", "detector", "min_det_score")
        names += ("embedder_licence", "embedder_source")
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}


def made_of_columns(names: Sequence[Any]) -> dict[str, Any] | None:
    """What a store says of columns with names of their own, whose order must not change.

    Those of an embedding are numbered and say nothing more.

    Example:

    >>> made_of_columns(["no2", "pm10"]), made_of_columns(["e0", "e1"])
    ({'columns': ['no2', 'pm10']}, None)
    """
    names = list(names)
    if not names or not all(isinstance(name, str) for name in names):
        return None
    parts = [_NUMBERED.fullmatch(name) for name in names]
    if all(parts):
        prefixes, numbers = zip(*(part.groups() for part in parts if part), strict=True)
        first = int(numbers[0])
        running = [int(n) for n in numbers] == list(range(first, first + len(names)))
        if len(set(prefixes)) == 1 and running:
            return None
    return {"columns": names}


def _plain(name: Any, key: str, value: Any) -> Any:
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if key in _OBJECTS and isinstance(value, str):
        try:
            value = (strict_json.loads if key == "preprocessing" else json.loads)(value)
        except (ValueError, RecursionError):
            value = None
    kind, wanted = {
        "normalized": ((bool, int), "True or False"),
        "min_det_score": ((float, int), "a number"),
        **dict.fromkeys(_OBJECTS, (dict, "a JSON object")),
    }.get(key, (str, "text"))
    if not isinstance(value, kind):
        reject_file(name, f"must hold {wanted} in attribute {key!r}", f"{value!r}"[:100])
    if key == "import_report" and not all(isinstance(s, dict) for s in _sources(value)):
        reject_file(name, f"must hold a report in attribute {key!r}", f"{value!r}"[:100])
    if key == "preprocessing" and PREPROCESSING("", value):
        reject_file(name, f"must hold true or false as 'flip' in {key!r}", f"{value!r}"[:100])
    if key == "joined" and _JOINED("", value):
        reject_file(name, f"must say what was joined in attribute {key!r}", f"{value!r}"[:100])
    return bool(value) if key == "normalized" else value


def _sources(report: dict | None) -> list:
    sources = (report or {}).get("sources", [])
    return sources if isinstance(sources, list) else [sources]


def check_same_embedder(
    name: str | os.PathLike, came: StoreInfo, expected: StoreInfo, *, as_in: str = ""
) -> None:
    """Rejects embeddings of another embedder or preprocessing, where both are known; `as_in` goes
    on with the sentence."""
    if came.embedder_sha256 and expected.embedder_sha256:
        same = came.embedder_sha256 == expected.embedder_sha256
    else:
        same = None in (came.embedder, expected.embedder) or came.embedder == expected.embedder
    if not same:
        requirement = f"must hold embeddings of {_describe(expected)}{as_in}"
        reject_file(name, requirement, f"those of {_describe(came)}")
    ours, theirs = expected.preprocessing, came.preprocessing
    if ours and theirs:
        _check_columns(name, theirs.get("columns"), ours.get("columns"))
    for key in {**ours, **theirs} if ours and theirs else ():
        if ours.get(key) != theirs.get(key):
            requirement = f"must hold embeddings made with {key}={shown(ours.get(key))}{as_in}"
            reject_file(name, requirement, f"those made with {key}={shown(theirs.get(key))}")


def _check_columns(name: str, came: Any, expected: Any) -> None:
    """Rejects columns of other names, or in another order, where both are known."""
    if not (isinstance(came, list) and isinstance(expected, list)) or came == expected:
        return
    if len(came) != len(expected):
        reject_file(name, f"must hold {len(expected)} columns", f"{len(came)} columns")
    place = next(k for k, pair in enumerate(zip(came, expected, strict=True)) if len(set(pair)) > 1)
    requirement = f"must hold the columns of the training in their order: {expected[place]!r} as"
    reject_file(name, f"{requirement} number {place + 1}", f"{came[place]!r}")


def _describe(info: StoreInfo) -> str:
    return f"{info.embedder} (sha256 {(info.embedder_sha256 or 'unknown')[:12]})"


def joined_info(infos: Sequence[StoreInfo]) -> StoreInfo:
    """The info of stores put together: what they agree on, and all sources and licences."""
    known = [i for i in infos if i.embedder_sha256] or [i for i in infos if i.embedder] or infos

    def common(key: str) -> Any:
        values = [getattr(i, key) for i in infos]
        return values[0] if all(value == values[0] for value in values) else None

    def listed(key: str) -> str | None:
        return "; ".join(dict.fromkeys(getattr(i, key) for i in infos if getattr(i, key))) or None

    reports = [source for info in infos for source in _sources(info.import_report)]
    return replace(
        known[0],
        detector=common("detector"),
        detector_sha256=common("detector_sha256"),
        min_det_score=common("min_det_score"),
        versions=common("versions"),
        preprocessing=next((i.preprocessing for i in infos if i.preprocessing), None),
        source=listed("source"),
        licence=listed("licence"),
        removal_report=infos[0].removal_report if len(infos) == 1 else None,
        extraction=infos[0].extraction if len(infos) == 1 else None,
        joined=infos[0].joined if len(infos) == 1 else None,
        import_report={"sources": reports} if reports else None,
        created=StoreInfo().created,
    )
