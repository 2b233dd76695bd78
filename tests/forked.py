"""Runs Python code in copies of one process that has imported Keras, which takes seconds.

Standard input gives a line of JSON for each code, with the file for its standard
error; its exit code is a line of standard output. A copy has used nothing of what
is imported yet, and ends as any process does.
"""

import json
import os
import sys
import types

import keras  # noqa: F401


def become(code: str, errors: str) -> None:
    """Runs the code as `python -c` does, for the rest of this process."""
    for number, path in enumerate((os.devnull, os.devnull, errors)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    sys.path[0] = ""
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(code, module.__dict__)


if __name__ == "__main__":
    for line in iter(sys.stdin.readline, ""):
        process = os.fork()
        if not process:
            become(*json.loads(line))
            break
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
