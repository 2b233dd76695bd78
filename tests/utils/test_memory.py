"""How much memory is left, as Linux tells it and a container limits it."""

import pytest

from kerasmlp.utils import memory


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Has the files say something else."""
    monkeypatch.setattr(memory, "_SYSTEM", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    return lambda name, text: (tmp_path / name).write_text(text)


def test_what_the_system_has_and_a_container_may_take(told):
    assert memory.available_bytes() == memory.memory_bytes() // 2  # nothing is told
    told("meminfo", "MemTotal:  16000 kB\nMemAvailable:    9000 kB\nHugePages_Total:   0\n")
    assert memory.available_bytes() == 9000 * 1024
    told("memory.max", "max\n")
    told("memory.current", "3000000\n")
    assert memory.available_bytes() == 9000 * 1024  # no limit
    told("memory.max", "5000000\n")
    assert memory.available_bytes() == 2_000_000
    told("memory.stat", "anon 1000\ninactive_file 500000\n")  # files that are cached make room
    assert memory.available_bytes() == 2_500_000
    told("memory.current", "6000000\n")
    assert memory.available_bytes() == 0
