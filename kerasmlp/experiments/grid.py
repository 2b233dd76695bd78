"""A grid of runs: a folder for each inside that of the whole, which holds what they come to."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from kerasmlp.runs.environment import environment
from kerasmlp.runs.run_folder import RunFolder
from kerasmlp.runs.training_files import check_taken_over
from kerasmlp.utils.drawing import drawing
from kerasmlp.utils.files import write_text
from kerasmlp.utils.tables import csv_of


class Grid:
    """Which runs there are, which of them are done, and what they come to.

    Args:
        path: Folder of the whole.
        names: Of the runs, each that of its folder.

    Attributes:
        folder: Of the whole.
        runs: Folder of each run.
        files: That the whole may hold beside those of every run, as `working` takes them.
    """

    def __init__(self, path: str | os.PathLike, names: Sequence[str]):
        self.folder = RunFolder(path)
        self.runs = [RunFolder(self.folder / name) for name in names]
        self.files = ("runs.csv", "table.md", "curves.png", *(f"{name}/" for name in names))

    def pending(self, settings_of: Callable[[int], dict]) -> list[int]:
        """Numbers of the runs that are not done, by what the `config.json` of each would hold.

        Raises:
            InputError: if one that is done is not whole, or was made with other settings.
        """
        for number, run in enumerate(self.runs):
            if run.done:
                check_taken_over(run, settings_of(number))
        return [number for number, run in enumerate(self.runs) if not run.done]

    def finish(
        self,
        rows: Sequence[dict],
        table: str,
        report: dict,
        draw: Callable[[Path], None] | None,
    ) -> dict:
        """Writes `runs.csv`, `table.md`, `curves.png` and `report.json`; returns the report.

        To the report the data's digest and the environment are added.
        """
        write_text(self.folder / "runs.csv", csv_of(rows))
        write_text(self.folder / "table.md", table)
        if draw is not None:
            with drawing(self.folder / "curves.png") as path:
                draw(path)
        report = {**report, "data_digest": self.folder.config()["data_digest"], **environment()}
        self.folder.finish(report)
        return report
