"""Bad files of the kinds that people, disks and strangers make: altered JSON, turned bits."""

import contextlib
import io
import json
import re
import sys
import types

from kerasmlp.cli import run_command

RAW = "@raw@"
VALUES = (
    None, True, False, -1, 0, 1, 0.5, 1e308, 1e-308, -1e308, 2**63, "x", "", "\ud800", "\x1b[31m",
    [], {}, [None], [[]], {"a": 1}, "9" * 5000, ["x"] * 2000, "\u202e" * 300,
    f"{RAW}NaN", f"{RAW}Infinity", f"{RAW}-Infinity", f"{RAW}1e999", f"{RAW}{'1' * 5000}",
    f"{RAW}{'[' * 500}{']' * 500}", f"{RAW}{'[' * 100_000}", f'{RAW}{{"a": 1, "a": 2}}',
)  # fmt: skip


def without_hashes(run):
    """Makes of a finished run one of an older version, whose files nothing vouches for."""
    (run / "DONE").write_text("")
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    config.pop("hashes", None)
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")


def places(value, place=()):
    """Every place in a JSON value, as a tuple of names and numbers; of long lists the ends."""
    yield place
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from places(inner, (*place, name))
    elif isinstance(value, list):
        for i in sorted({0, len(value) - 1} & set(range(len(value)))):
            yield from places(value[i], (*place, i))


def altered(text, rng):
    """JSON with one value deleted, doubled or replaced; and what was done."""
    value = json.loads(text)
    place = rng.choice(list(places(value))[1:])
    inner = value
    for name in place[:-1]:
        inner = inner[name]
    what = rng.choice(["delete", "replace", "replace", "replace", "replace", "longer"])
    if what == "delete":
        del inner[place[-1]]
    elif what == "longer" and isinstance(inner[place[-1]], list):
        inner[place[-1]] = inner[place[-1]] * 2
    else:
        new = rng.choice(VALUES)
        what, inner[place[-1]] = f"= {new!r}"[:40], new
    whole = re.sub(
        rf'"{RAW}((?:[^"\\]|\\.)*)"', lambda m: json.loads(f'"{m[1]}"'), json.dumps(value)
    )
    return whole, f"{'.'.join(map(str, place))} {what}"


def turned(content, rng):
    """Bytes with bits turned, a part lost, doubled or overwritten; and what was done."""
    content = bytearray(content)
    what = rng.choice(["bit", "bit", "bit", "bits", "cut", "zeros", "noise", "gone", "twice"])
    # The structures of most formats lie at the ends: every second time it is there.
    reach = rng.choice([len(content), len(content), 512, 4096])
    at = rng.randrange(max(min(reach, len(content)), 1))
    at = len(content) - 1 - at if content and rng.random() < 0.5 else at
    size = rng.choice([1, 4, 64, 512])
    part = content[at : at + size]
    if what == "cut":
        del content[at:]
    elif what == "zeros":
        content[at : at + size] = bytes(len(part))
    elif what == "noise":
        content[at : at + size] = rng.randbytes(len(part))
    elif what == "gone":
        del content[at : at + size]
    elif what == "twice":
        content[at:at] = part
    elif content:
        for _ in range(1 if what == "bit" else rng.randrange(2, 20)):
            content[at] ^= 1 << rng.randrange(8)
            at = rng.randrange(len(content))
    return bytes(content), f"{what} at {at}"


def outcome(command, *arguments):
    """Exit code, standard output and standard error of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(command, [str(a) for a in arguments])
    return code, out.getvalue(), err.getvalue()


def called(function):
    """As `outcome`, of a function that a command would call."""
    module = types.SimpleNamespace(
        __doc__="", add_arguments=lambda parser: None, run=lambda arguments: function()
    )
    sys.modules["kerasmlp.commands.called"] = module
    return outcome("called")


def is_one_sentence(text):
    """Whether an error is one line of at most 300 characters that moves no cursor."""
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    if len(lines) != 1 or len(lines[0]) > 310 or "Traceback" in text:
        return False
    return not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202e]", lines[0])
