"""A worker of `Pool` that does as its tasks say: `python -m quick_worker`."""

import os
import signal
import sys

from kerasmlp.utils.checks import reject
from kerasmlp.utils.worker import serve


def prepare(settings):
    if settings.get("dies"):
        print("no memory", file=sys.stderr)
        os._exit(9)
    if settings.get("refused"):
        reject("settings", "must not be refused", settings["refused"])

    def answer(task):
        if task in settings.get("fatal", ()):
            print("out of memory", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if task in settings.get("hangs", ()):
            os.kill(os.getpid(), signal.SIGSTOP)
        if task in settings.get("full", ()):
            raise OSError(28, "No space left on device", "runs/a")
        once = settings.get("once")
        if once and task == once[0] and not os.path.exists(once[1]):
            open(once[1], "w").close()
            os._exit(3)
        return [task, os.getpid()]

    return {"ready": os.getpid()}, answer


if __name__ == "__main__":
    serve(prepare)
