"""Runs Python programs in copies of one process that has imported Keras, which takes seconds.

`fresh_python()` is the path of a stand-in for the interpreter: `[fresh_python(), "-c", code]`
and `[fresh_python(), script, ...]` behave as with `sys.executable`, with pipes, signals,
environment and working folder, but begin at once. A copy has used nothing of what is imported
yet, and ends as any process does. What it starts by `sys.executable` begins in the same way.
The process that was started stands for its copy, `copy_of`, and takes it along when killed.
"""

import contextlib
import fcntl
import gc
import json
import os
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

_FOLDER = "KERASMLP_TESTS_FORKED"
_CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
folder = os.path.dirname(os.path.abspath(__file__))
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    connection.connect(os.path.join(folder, "socket"))
except OSError:
    os.system({start!r} + " " + folder)
    connection.connect(os.path.join(folder, "socket"))
request = {{"argv": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ)}}
caught = (signal.SIGTERM, signal.SIGINT)
signal.pthread_sigmask(signal.SIG_BLOCK, caught)
descriptors = []
for number in range(3):
    try:
        os.fstat(number)
        descriptors.append(number)
    except OSError:
        pass
request["descriptors"] = descriptors
socket.send_fds(connection, [json.dumps(request).encode()], descriptors)
for number in caught:
    signal.signal(number, lambda number, _: connection.send(str(number).encode()))
signal.pthread_sigmask(signal.SIG_UNBLOCK, caught)
code = int(connection.recv(16) or b"1")
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def prepare_folder() -> None:
    """Makes the stand-in, for this process and those it starts; the copies come when asked for."""
    if _FOLDER in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="forked-")
    os.environ[_FOLDER] = folder
    Path(folder, "environment.json").write_text(json.dumps(dict(os.environ)))
    start = shlex.join([sys.executable, __file__, str(os.getpid())])
    client = Path(folder, "python")
    client.write_text(_CLIENT.format(python=sys.executable, start=start))
    client.chmod(client.stat().st_mode | stat.S_IXUSR)


def remove_folder() -> None:
    shutil.rmtree(os.environ.pop(_FOLDER), ignore_errors=True)


def fresh_python() -> str:
    return os.path.join(os.environ[_FOLDER], "python")


def copy_of(process: int) -> int:
    """The number of the copy that does the work of a process started by the stand-in."""
    return int(Path(os.environ[_FOLDER], f"copy-of-{process}").read_text())


def _serve_from(folder: str, parent: int) -> None:
    """Starts the process that is copied, unless it is there; returns when it listens."""
    with open(os.path.join(folder, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = os.path.join(folder, "socket")
        if not os.path.exists(path):
            command = [sys.executable, __file__, str(parent), folder, "serve"]
            how = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
            how["env"] = json.loads(Path(folder, "environment.json").read_text())
            process = subprocess.Popen(command, start_new_session=True, cwd="/", **how)
            while not os.path.exists(path) and process.poll() is None:
                time.sleep(0.05)


def _next_copy(folder: str, parent: int) -> dict | None:
    """Copies this process for every request, until the parent is gone; returns in each copy."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(os.path.join(folder, "new"))
    listening.listen(64)
    os.rename(os.path.join(folder, "new"), os.path.join(folder, "socket"))
    ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    watched = selectors.DefaultSelector()
    watched.register(listening, selectors.EVENT_READ)
    watched.register(ended, selectors.EVENT_READ)
    copies: dict[int, socket.socket] = {}
    while os.path.isdir(f"/proc/{parent}"):
        for key, _ in watched.select(timeout=1):
            if key.fileobj is listening:
                connection, _ = listening.accept()
                content, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
                if not content:
                    connection.close()
                    continue
                process = os.fork()
                if not process:
                    watched.close()
                    for other in (listening, connection, *copies.values()):
                        other.close()
                    os.close(ended)
                    signal.set_wakeup_fd(-1)
                    os.close(wake)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    return json.loads(content) | {"received": descriptors}
                for descriptor in descriptors:
                    os.close(descriptor)
                peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                started_by = struct.unpack("3i", peer)[0]
                Path(folder, f"copy-of-{started_by}").write_text(str(process))
                copies[process] = connection
                watched.register(connection, selectors.EVENT_READ, process)
            elif key.fileobj is ended:
                os.read(ended, 1024)
                while copies:
                    process, status = os.waitpid(-1, os.WNOHANG)
                    if not process:
                        break
                    connection = copies.pop(process)
                    code = str(os.waitstatus_to_exitcode(status)).encode()
                    if connection in watched.get_map():  # else who asked was killed
                        watched.unregister(connection)
                        with contextlib.suppress(OSError):
                            connection.send(code)
                    connection.close()
            elif key.data in copies:
                word = b""
                with contextlib.suppress(OSError):
                    word = key.fileobj.recv(16)
                if not word:
                    watched.unregister(key.fileobj)
                os.kill(key.data, int(word or signal.SIGKILL))
    return None


def _become(request: dict) -> None:
    """Runs the program as the interpreter does, for the rest of this process."""
    for number in range(3):
        os.close(number)
    for number, received in zip(request["descriptors"], request["received"], strict=True):
        os.dup2(received, number)
        os.close(received)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # it was looked up in the environment of before
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    for number, name, how in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        usual = "backslashreplace" if number == 2 else "strict"
        given = number in request["descriptors"]
        options = {"encoding": encoding, "errors": errors or usual, "closefd": False}
        stream = open(number, how, **options) if given else None  # noqa: SIM115
        setattr(sys, name, stream)
    if sys.stderr is not None:
        sys.stderr.reconfigure(line_buffering=True)
    sys.executable = os.path.join(os.environ.get(_FOLDER, ""), "python")
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in paths if path]
    first, *rest = request["argv"]
    if first == "-c":
        sys.path[0], sys.argv = "", ["-c", *rest[1:]]
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)
    elif first == "-m":
        sys.path[0], sys.argv = os.getcwd(), ["-m", *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = os.path.dirname(os.path.abspath(first)), [first, *rest]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[3:] == ["serve"]:
        import keras  # noqa: F401

        gc.freeze()  # or each copy looks at a million objects when it ends
        gc.set_threshold(20_000, 20, 20)
        asked = _next_copy(sys.argv[2], int(sys.argv[1]))
        if asked is not None:
            _become(asked)
    else:
        _serve_from(sys.argv[2], int(sys.argv[1]))
