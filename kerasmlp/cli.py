"""`kerasmlp <command>` and the scripts in `bin/`: parse, call, print; errors as one sentence."""

import argparse
import codecs
import contextlib
import errno
import importlib
import io
import json
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Sequence

from kerasmlp import __version__
from kerasmlp.utils.checks import InputError, one_sentence
from kerasmlp.utils.files import is_full_disk
from kerasmlp.utils.home import require_caches

COMMANDS = {
    "import-embeddings": "arrays, tables and plain HDF5 files → embedding store",
    "extract-embeddings": "photos → embedding store, by insightface",
    "export-embeddings": "embedding store → one file, shards or Parquet",
    "import-torch": "checkpoint of the original PyTorch code → run folder",
    "leaks": "embedding stores → near-duplicate rows, and tests that have seen them",
    "train": "embedding store → model of any labels in a run folder",
    "train-age": "embedding store → age model in a run folder",
    "train-gender": "embedding store → gender model in a run folder",
    "distil": "run of many networks → run of one that answers as they do",
    "recalibrate": "run and rows of where it is to answer → run whose promises hold there",
    "build-images": "images → image store, one HDF5 file read in one go",
    "train-age-cnn": "image store → the UTKFace CNN's ages in a run folder",
    "tune-age-cnn": "image store → learning rate and L2 of that CNN, in two stages",
    "train-cifar": "small images → the IC paper's ResNets and table",
    "train-layerout": "images → the LayerOut paper's networks and table",
    "tune": "embedding store → preset with the best hyperparameters, by Hyperband",
    "cross-validate": "seeds × folds of one recipe, mean and standard deviation",
    "doctor": "the labels of a store that a cross-validation cannot believe",
    "compare": "two cross-validations on the same folds, with a test",
    "runs": "run folders as a table: `runs list`, `runs compare`",
    "reproduce": "the paper's experiment on two stores, with a report",
    "evaluate": "measure a run on a store",
    "card": "run → model card: data, licences, measures per group, limits",
    "predict": "photos or a store → ages or genders with uncertainty",
    "demo": "a local page: drop a photo or a store, see answers with uncertainty",
    "export-model": "run → SavedModel for TensorFlow Serving, or ONNX",
    "serve": "exported models or runs over HTTP, as TensorFlow Serving does",
    "serve-check": "a running server against the same model here",
}

TRACEBACK = "KERASMLP_TRACEBACK"
_CLOSED = "standard output must be open until the command has ended. Received: a closed one"
_NO_ROOM = "standard output must take what is written to it. Received: no space left there"
_NO_MEMORY = "this needs more memory than there is"


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point `kerasmlp`: its first argument is a command."""
    if not _usable_streams():
        return _fail(_CLOSED, 2)
    argv = list(sys.argv[1:] if argv is None else argv)
    listing = "\n".join(f"  {name:20} {text}" for name, text in COMMANDS.items())
    parser = _Parser(
        "kerasmlp",
        usage="kerasmlp <command> [options]",
        description=f"Residual MLPs on embeddings.\n\ncommands:\n{listing}\n\n"
        "`kerasmlp <command> --help` shows the options of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kerasmlp {__version__}")
    parser.add_argument("command", choices=list(COMMANDS), metavar="command")
    args = parser.parse_args(argv[:1])
    return run_command(args.command, argv[1:], prog=f"kerasmlp {args.command}")


def run_command(command: str, argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Runs one command; returns its exit code: 0, 1 (a bug), 2 (bad input), 130 (interrupted)."""
    if not _usable_streams():
        return _fail(_CLOSED, 2)
    module = importlib.import_module(f"kerasmlp.commands.{command.replace('-', '_')}")
    parser = _Parser(
        prog, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        if threading.current_thread() is threading.main_thread():
            # So that a stopped command takes its temporary files along.
            signal.signal(signal.SIGTERM, _interrupt)
        require_caches()
        module.run(args)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        return _fail(f"interrupted{'; --resume goes on from here' * _has_begun(args)}", 130)
    except InputError as error:
        return _fail(_as_typed(error, parser), 2)
    except Exception as error:
        number = getattr(error, "errno", None)
        if number == errno.EPIPE and _nobody_reads():
            _drop_output()  # `| head` has read enough
            return 0
        if (sentence := _of_the_system(error, number)) is not None:
            return _fail(sentence, 2)
        if os.environ.get(TRACEBACK):
            raise
        text = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:150]}"
        return _fail(f"{text} (set {TRACEBACK}=1 for the traceback)", 1)


def _of_the_system(error: Exception, number: int | None) -> str | None:
    """What is wrong with a disk, a file, standard output or the memory; None of a bug."""
    if number == errno.EBADF and _nobody_reads():
        return _CLOSED
    if is_full_disk(error):
        return _of_full_disk(error)
    # TensorFlow's error, and Python's where no thread has a stack
    of_memory = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
    if of_memory or number == errno.ENOMEM or "can't start new thread" in str(error):
        return _NO_MEMORY
    if not isinstance(error, OSError):
        return None
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"`{error.filename}` must be usable. Received: {error.strerror}"


def _has_begun(args: argparse.Namespace) -> bool:
    """Whether a stopped command has written something that `--resume` goes on from."""
    if not hasattr(args, "resume"):
        return False
    if hasattr(args, "run_dir"):
        return args.run_dir is not None and (args.run_dir / "config.json").is_file()
    from kerasmlp.data.stores.partial_store import partial_folder

    return args.output is not None and partial_folder(args.output).is_dir()


def _as_typed(error: InputError, parser: argparse.ArgumentParser) -> str:
    """The sentence with the option that was typed instead of the argument of Python."""
    typed = {a.dest: a.option_strings[-1] for a in parser._actions if a.option_strings}
    text, name = str(error), error.argument
    if name not in typed:
        return text
    text = text.replace(f"`{name}`", f"`{typed[name]}`", 1)
    text = text.replace(f"Received: {name}=", f"Received: {typed[name]}=", 1)
    start, came, rest = text.partition(". Received: ")
    start = re.sub(r"\w+_\w+", lambda m: typed.get(m[0], m[0]), start)  # no words of English
    return start + came + rest


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(_fail(f"{message} (`{self.prog} --help` lists the options)", 2))

    def exit(self, status: int = 0, message: str | None = None):
        try:
            _flush_output()
        except BrokenPipeError:
            _drop_output()
        except OSError as error:
            status, message = _fail(_NO_ROOM if is_full_disk(error) else _CLOSED, 2), None
        super().exit(status, message)


def _usable_streams() -> bool:
    """Makes output that no character ends; returns whether there is standard output at all.

    What an encoding does not have is escaped as in JSON: lines of JSON stay what they were.
    """
    if sys.stdout is None:
        return False
    if sys.stderr is None:  # its number must not become that of a file
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ESCAPED)
    return True


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


_ESCAPED = "kerasmlp.escaped"
codecs.register_error(_ESCAPED, _escape)


def _flush_output() -> None:
    """Flushes, and asks for room: unbuffered text that had none is lost, in `--help` unsaid."""
    sys.stdout.flush()
    with contextlib.suppress(AttributeError, io.UnsupportedOperation):
        os.write(sys.stdout.fileno(), b"")


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose other end is closed, or closed itself."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(what & (select.POLLERR | select.POLLNVAL) for _, what in poll.poll(0))
    except (OSError, ValueError):
        return True


def _of_full_disk(error: Exception) -> str:
    """Says what has no room, standard output or a file."""
    try:
        _flush_output()
    except (OSError, ValueError):
        return _NO_ROOM
    named = getattr(error, "filename", None)
    what = "a file" if named is None else f"`{named}`"
    return f"the disk is full: {what} could not be written, and nothing half-written is left"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> int:
    if code and os.environ.get(TRACEBACK) and code != 130:
        import traceback

        traceback.print_exc()
    try:
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError):
        _drop_output()
    if sys.stderr is not None:
        _end_bars()
        print(f"error: {one_sentence(message)}", file=sys.stderr)
    return code


def _drop_output() -> None:
    """Python would write what is left when it ends, and fail once more."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_bars() -> None:
    """Ends the lines of progress bars that an error has left unfinished."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()
