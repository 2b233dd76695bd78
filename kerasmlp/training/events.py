"""Where a run logs its epochs for TensorBoard."""

from kerasmlp.callbacks.event_log import EventLog, event_logs
from kerasmlp.runs.run_folder import EVENTS, RunFolder

EVENT_FILES = f"{EVENTS}/**"
"""What a run names among its files; one of an older version that is resumed logs nothing."""


def event_logs_of(run: RunFolder) -> list[EventLog]:
    """The log of a run that works in its folder, or none; see `event_logs`."""
    return event_logs(run / EVENTS) if EVENT_FILES in run.config()["files"] else []
