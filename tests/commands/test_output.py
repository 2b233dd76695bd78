"""What commands say and how they end, whatever the screen is."""

import contextlib
import io
import json
import os
import subprocess
import sys

import pytest
from damage import is_one_sentence, outcome
from tqdm import tqdm

from kerasmlp.cli import run_command
from kerasmlp.utils import strict_json
from kerasmlp.utils.checks import InputError, check_int, check_positive, one_sentence, reject
from kerasmlp.utils.files import read_json, write_json


def shell(line, **environment):
    """A command line in which `kerasmlp` is this package."""
    line = line.replace("kerasmlp", f"{sys.executable} -m kerasmlp")
    return subprocess.run(
        ["bash", "-c", line],
        env={
            **{k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
            "PYTHONPATH": os.pathsep.join(sys.path),
            **environment,
        },
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_letter_ends_a_command(encoding):
    done = shell("kerasmlp --help", PYTHONIOENCODING=encoding)
    arrow = "→".encode(encoding) if encoding == "utf-8" else b"\\u2192"
    assert done.returncode == 0 and b"embedding store " + arrow + b" age model" in done.stdout


@pytest.mark.parametrize(
    "line",
    ["kerasmlp compare a b >&-", "kerasmlp --help >&-"],
)
def test_a_closed_standard_output_is_one_sentence(line):
    done = shell(line)
    assert done.stderr.decode().startswith("error: standard output must be open until")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["--help", "compare"])
@pytest.mark.parametrize("text", ["few", "many" * 10_000])
@pytest.mark.parametrize("buffered", [False, True])
def test_a_full_standard_output_is_not_the_disk_of_the_run(command, text, buffered, monkeypatch):
    from kerasmlp.commands import compare

    err = io.StringIO()
    with (
        contextlib.redirect_stderr(err),
        open("/dev/full", "wb", buffering=-1 if buffered else 0) as binary,
    ):
        screen = io.TextIOWrapper(binary, write_through=not buffered)
        monkeypatch.setattr(sys, "stdout", screen)
        if command == "compare":
            monkeypatch.setattr(compare, "run", lambda _: print(text))
            assert run_command("compare", ["a", "b"]) == 2
        else:
            with pytest.raises(SystemExit) as end:
                run_command("compare", ["--help"])
            assert end.value.code == 2
    assert err.getvalue() == (
        "error: standard output must take what is written to it. Received: no space left there\n"
    )


@pytest.mark.parametrize("line", ["kerasmlp --help", "kerasmlp predict --help"])
def test_a_reader_that_has_read_enough_is_no_error(line):
    done = shell(f"set -o pipefail; {line} | :")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_answers_that_nobody_reads_any_more_are_no_error(monkeypatch):
    from kerasmlp.commands import compare

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as screen:
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setattr(compare, "run", lambda _: print("x" * 100_000))
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            assert run_command("compare", ["a", "b"]) == 0
        assert err.getvalue() == ""


def test_without_standard_error_the_exit_code_says_it():
    done = shell("kerasmlp compare a b 2>&-")
    assert (done.returncode, done.stdout) == (2, b"")


def test_sentences_are_short_and_move_no_cursor():
    for name in ("\x1b[31mred.h5", "a\nerror: b", "x" * 250 + "/" + "y" * 200, "\udcff\u202e.h5"):
        code, out, err = outcome("compare", name, "b")
        assert code == 2 and out == "" and is_one_sentence(err), err
    assert one_sentence("x" * 400 + " at last").endswith(" at last")
    with pytest.raises(InputError, match="Received: n=a number of thousands of digits"):
        reject("n", "must be less", 10**5000)
    for bad in (10**400, float("nan"), float("inf")):
        with pytest.raises(InputError, match="must be a finite number > 0"):
            check_positive("rate", bad)
    with pytest.raises(InputError, match="`n` must be at most 5. Received: n=6"):
        check_int("n", 6, minimum=0, maximum=5)


def test_a_sentence_is_not_glued_to_a_progress_bar():
    screen = io.StringIO()
    bar = tqdm(total=3, file=screen)
    bar.update()
    _, _, err = outcome("compare", "a", "b")
    assert screen.getvalue().endswith("\n") and err.startswith("error: ") and bar.disable


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "NaN, which is no number"),
        ("[-Infinity]", "-Infinity, which is no number"),
        ("1e999", "1e999, which is too large a number"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        ("[" * 100_000, "more than 64 levels"),
        ("[" * 70 + "]" * 70, "more than 64 levels"),
        ("1" * 5000, "a number of 5000 digits"),
        ("{", "Expecting property name"),
        (b"\xff\xfe", "a file that is no text"),
    ],
)
def test_json_that_is_none(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f"a.json` must be a JSON file. Received: .*{message}"):
        read_json(path)


def test_json_is_read_as_it_was_written(tmp_path):
    value = {"ü": ["\udcff", 1e308, 2**63, None, True, {}], "deep": [[[[]]]]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    (tmp_path / "a.json").write_text('\ufeff{"a": 1}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "a.json").write_text("[NaN]", encoding="utf-8")
    assert str(read_json(tmp_path / "a.json", infinite=True)) == "[nan]"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", [float("nan")])
    assert not (tmp_path / "b.json").exists()
    state = {"score": float("-inf"), "rows": [(float("inf"), "Name")]}
    again = strict_json.unspelled(strict_json.loads(strict_json.dumps(strict_json.spelled(state))))
    assert again == {"score": float("-inf"), "rows": [[float("inf"), "Name"]]}


@pytest.mark.slow
def test_a_command_takes_jax_where_keras_is_told_so_else_tensorflow(tmp_path):
    for told, taken in (("jax", "jax"), ("torch", "tensorflow")):
        run = tmp_path / told
        done = shell(f"kerasmlp train-gender --epochs 1 --run-dir {run}", KERAS_BACKEND=told)
        assert done.returncode == 0, done.stderr[-2000:]
        assert (run / "DONE").exists()
        report = json.loads((run / "report.json").read_text())
        assert report["backend"] == taken and taken in report["versions"]
