"""Parts of a result: whole or not there, of the same settings, and one driver at a time."""

import os

import pytest

from kerasmlp.data.part_folder import PartFolder, has_part, part_path, write_part
from kerasmlp.utils.checks import InputError


@pytest.fixture
def target(tmp_path):
    return tmp_path / "a.jsonl"


def test_what_is_there_is_gone_on_with(target):
    with PartFolder(target, settings={"seed": 0}) as parts:
        write_part(parts.path(0), {"rows": 1}, b"one\n")
        write_part(parts.path(2), {}, b"")
    with PartFolder(target, settings={"seed": 0}, resume=True) as parts:
        assert parts.missing(4) == [1, 3]
        assert parts.read(0) == ({"rows": 1}, b"one\n") and parts.read(2) == ({}, b"")
        parts.remove()
    assert os.listdir(target.parent) == []


def test_other_settings_and_two_drivers_are_refused(target):
    with PartFolder(target, settings={"seed": 0, "runs": ["a"]}) as parts:
        write_part(parts.path(0), {}, b"one")
        with pytest.raises(InputError, match="must not be in use"):
            PartFolder(target, settings={"seed": 0, "runs": ["a"]}, resume=True)
    with pytest.raises(InputError, match="must be resumed .*or thrown away"):
        PartFolder(target, settings={"seed": 0, "runs": ["a"]})
    with pytest.raises(InputError, match="Received: another runs, another seed"):
        PartFolder(target, settings={"seed": 1, "runs": ["b"]}, resume=True)
    with PartFolder(target, settings={"seed": 1}, force=True) as anew:
        assert anew.missing(1) == [0] and anew.parts != parts.parts


def test_a_late_writer_of_a_run_that_was_thrown_away_does_no_harm(target):
    with PartFolder(target, settings={"seed": 0}) as parts:
        late = parts.path(0)
    with PartFolder(target, settings={"seed": 1}, force=True) as anew:
        with pytest.raises(InputError, match="must lie in an existing folder"):
            write_part(late, {}, b"of seed 0")
        assert anew.missing(1) == [0]


@pytest.mark.parametrize("damage", ["cut", "empty", "longer", "no header"])
def test_what_is_not_whole_is_not_there(tmp_path, damage):
    path = part_path(tmp_path, 7)
    write_part(path, {"a": 1}, b"12345")
    assert has_part(path)
    content = path.read_bytes()
    damaged = {"cut": content[:-1], "empty": b"", "longer": content + b"6", "no header": b"[]\n"}
    path.write_bytes(damaged[damage])
    assert not has_part(path)


def test_a_part_of_other_bytes_is_refused_and_done_again(target):
    with PartFolder(target, settings={}) as parts:
        write_part(parts.path(0), {}, b"12345")
        parts.path(0).write_bytes(parts.path(0).read_bytes()[:-1] + b"6")
        assert parts.missing(1) == []
        with pytest.raises(InputError, match=r"000000.part` must be whole \(--resume"):
            parts.read(0)
        assert parts.missing(1) == [0]
