"""What an extraction finds of an earlier one: its journal, or its finished store."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kerasmlp import __version__
from kerasmlp.data.datasets.records import REASONS, Record
from kerasmlp.data.stores.embedding_store import EmbeddingStore
from kerasmlp.data.stores.partial_store import PartialStore, check_settings
from kerasmlp.utils.checks import reject_file
from kerasmlp.utils.schema import Fault, dict_of, fields, number, one_of, sha256, text, whole

_KEPT = {
    "key": text(), "reason": one_of(None), "crc32": whole(0, 2**32 - 1), "sha256": sha256,
    "det_score": number(),
}  # fmt: skip
_REMOVED = {"key": text(), "reason": one_of(*REASONS)}
_COUNT = whole(0, 1 << 60)
_REPORT = {"inputs": _COUNT, "kept": _COUNT, "removed": dict_of(_COUNT)}


def inputs_digest(records: Sequence[Record]) -> str:
    """Of names, labels and sizes: images of the same names may be others."""
    digest = hashlib.sha256()
    for record in records:
        line = f"{size_of(record.image)} {replace(record, image=None)!r}\n"
        digest.update(line.encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def size_of(image: Path | None) -> int | None:
    """Bytes of an image, None where there is none."""
    try:
        return None if image is None else image.stat().st_size
    except (OSError, ValueError):
        return None


def journal_line(place: str, entry: Any, *, detected: bool = True) -> Fault | None:
    """What a line of the journal must hold: an embedding's, or why there is none."""
    if not (isinstance(entry, dict) and "crc32" in entry):
        return fields(_REMOVED)(place, entry)
    kept = _KEPT if detected else {k: v for k, v in _KEPT.items() if k != "det_score"}
    return fields(kept)(place, entry)


def check_keys(partial: PartialStore, records: Sequence[Record]) -> None:
    """Rejects a journal whose lines are of other inputs: its settings say that they are not."""
    keys, came = [r.key for r in records], [entry["key"] for entry in partial.entries]
    if came != keys[: len(came)]:
        at = next(i for i, key in enumerate(came) if [key] != keys[i : i + 1])
        expected = f"line {at + 1} of {keys[at]!r}" if at < len(keys) else f"{len(keys)} lines"
        requirement = f"must hold in records.jsonl {expected} (--force begins anew)"
        reject_file(partial.folder, requirement, f"{came[at]!r}"[:100])


def finished_store(store_path: Path, settings: dict[str, Any], inputs: int) -> dict[str, Any]:
    """The report of a store that was finished before, from these inputs by these settings.

    Returns:
        The counts, `store`, `resumed_at`, and in `doubt` a sentence or None on what the
        store does not tell.

    Raises:
        InputError: if they were others.
    """
    info = EmbeddingStore.open(store_path, verify=True).info
    counts, began = info.removal_report, info.extraction
    if not fields(_REPORT)("", counts) and counts["inputs"] == inputs:
        if began is None:
            doubt = (
                "it does not tell from which inputs and settings: only their number was compared"
            )
        else:
            check_settings(store_path, {**began, "kerasmlp": __version__}, settings)
            version = began.get("kerasmlp")
            doubt = f"it was made by kerasmlp {version}" if version != __version__ else None
        return {**counts, "store": str(store_path), "resumed_at": inputs, "doubt": doubt}
    reject_file(store_path, "must come from the same inputs (--force begins anew)", "others")
