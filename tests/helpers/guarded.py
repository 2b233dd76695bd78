"""Gives inputs one after another to copies of this process, within memory and time.

Of each is known what it took and whether anything in a watched folder was opened meanwhile.
"""

import ctypes
import faulthandler
import json
import os
import re
import resource
import select
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path

SECONDS = 60
_MORE_ADDRESSES = 6 << 30  # above what the process has: stops what would fill the machine
_BATCH = 100
_LIBC = ctypes.CDLL(None, use_errno=True)
_OPEN, _ALTERED = 0x20, 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200
_FORBIDDEN = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect"}


class Watch:
    """What anybody opens or alters in a folder, as the kernel says it."""

    def __init__(self, folder, *, opened=True):
        self._file = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = _ALTERED | (_OPEN if opened else 0)
        if self._file < 0 or _LIBC.inotify_add_watch(self._file, os.fsencode(folder), mask) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def seen(self):
        """Names since the last call."""
        names = set()
        try:
            while content := os.read(self._file, 1 << 16):
                while content:
                    _, mask, _, size = struct.unpack_from("iIII", content)
                    name = content[16 : 16 + size].rstrip(b"\0").decode(errors="replace")
                    names.add(f"{name or '.'} {'opened' if mask & _OPEN else 'altered'}")
                    content = content[16 + size :]
        except BlockingIOError:
            return sorted(names)


class Forbidden:
    """Programs started, servers called and files written elsewhere, by this process's Python."""

    def __init__(self, allowed):
        self._allowed, self._seen, self.active = [os.path.realpath(p) for p in allowed], [], False
        sys.addaudithook(self._hear)

    def _hear(self, event, arguments):
        if not self.active:
            return
        if event in _FORBIDDEN:
            self._seen.append(f"{event} {arguments[:1]}"[:200])
        elif event == "open" and isinstance(arguments[0], str | bytes):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not self._is_allowed(os.fsdecode(arguments[0])):
                self._seen.append(f"open {arguments[0]!r} {arguments[1]}")

    def _is_allowed(self, path):
        path = os.path.realpath(path)
        return path.startswith(("/dev/null", "/proc/")) or any(
            path.startswith(f"{p}/") for p in self._allowed
        )

    def seen(self):
        seen, self._seen = self._seen, []
        return seen


def _status(name):
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10


def measured(work):
    """What a call returns, with seconds and the bytes by which memory grew at its peak."""
    _LIBC.malloc_trim(0)  # what is free already would hide what is taken
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _status("VmRSS"), time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    return result, {"seconds": round(seconds, 3), "peak": max(_status("VmHWM") - before, 0)}


def guarded(numbers, task, watch_folders, allowed):
    """Yields `(number, outcome)` of `task(number)`, which is a dict; or one with `died`.

    Args:
        numbers: Of the inputs.
        task: Has `prepare(number)`, which names it, `ask()`, which is measured, and `judge()`.
        watch_folders: To be neither read nor written.
        allowed: Folders in which Python may write.
    """
    left = list(numbers)
    while left:
        reads, writes = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(reads)
                _work_off(left[:_BATCH], task, watch_folders, allowed, writes)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(9)
        os.close(writes)
        for number, outcome in _outcomes(reads, child, left[:_BATCH]):
            left.remove(number)
            yield number, outcome


def _outcomes(reads, child, numbers):
    """What a copy says of its inputs, at last that it died."""
    content, done, asked = b"", 0, None
    while done < len(numbers):
        ready, _, _ = select.select([reads], [], [], 2 * SECONDS)
        more = os.read(reads, 1 << 16) if ready else b""
        if not ready:
            os.kill(child, signal.SIGKILL)
        if not more:
            break
        *lines, content = (content + more).split(b"\n")
        for line in map(json.loads, lines):
            if "asked" in line:
                asked = line["asked"]
            else:
                yield numbers[done], line
                done += 1
    os.close(reads)
    _, status = os.waitpid(child, 0)
    if done < len(numbers):
        code = os.waitstatus_to_exitcode(status)
        yield numbers[done], {"died": f"exit code {code} of the process", "what": asked}


def _work_off(numbers, task, watch_folders, allowed, writes):
    forbidden = Forbidden(allowed)
    watches = [Watch(folder) for folder in watch_folders]
    tempfile.tempdir = None
    task.warm_up()
    most = _status("VmSize") + _MORE_ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for number in numbers:
        os.write(writes, json.dumps({"asked": task.prepare(number)}).encode() + b"\n")
        for watch in (*watches, forbidden):
            watch.seen()
        faulthandler.dump_traceback_later(SECONDS, exit=True)  # whatever it is in
        forbidden.active = True
        _, taken = measured(task.ask)
        forbidden.active = False
        faulthandler.cancel_dump_traceback_later()
        touched = [name for watch in (*watches, forbidden) for name in watch.seen()]
        line = {**task.judge(), **taken, "touched": touched}
        os.write(writes, json.dumps(line).encode() + b"\n")
    os._exit(0)
