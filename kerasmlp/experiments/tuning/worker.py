"""One worker process of a search: `python -m kerasmlp.experiments.tuning.worker STORE RUN_DIR`."""

from __future__ import annotations

import os
import sys
import threading

from kerasmlp.utils.checks import InputError
from kerasmlp.utils.tensorflow_import import import_tensorflow


def main() -> None:
    """Runs trials of the chief that the environment names until there are no more."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import_tensorflow()
    from kerasmlp.experiments.tuning.trial import trace_faster
    from kerasmlp.experiments.tuning.tune import work

    trace_faster()
    try:
        work(*sys.argv[1:])
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
