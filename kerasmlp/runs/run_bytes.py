"""A finished run as the bytes of its files: in memory, in a pickle, in a folder again."""

from collections.abc import Mapping
from pathlib import Path

from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.utils.files import atomic_path, parse_json
from kerasmlp.utils.manifest import read_manifest


def read_run(run: RunFolder) -> dict[str, bytes]:
    """The files of a finished run by their names, `DONE` last.

    Raises:
        InputError: if it is not finished, or a file is damaged or altered.
    """
    run.require_done()
    files = {name: run.read_bytes(name) for name in read_manifest(run / "DONE")}
    return files | {"DONE": (run / "DONE").read_bytes()}


def write_run(files: Mapping[str, bytes], run: RunFolder, *, force: bool = False) -> None:
    """Writes the files of `read_run` into a folder, which is a finished run then.

    Args:
        files: By their names.
        run: A new or empty folder, or a run to be replaced.
        force: Replace what is in the folder.

    Raises:
        InputError: if the folder cannot be used.
    """
    config = parse_json("config.json", files["config.json"])
    with run.working(config, resume=None, force=force, files=config["files"]):
        for name in sorted(files, key="DONE".__eq__):
            with atomic_path(run / name) as temporary:
                Path(temporary).write_bytes(files[name])
