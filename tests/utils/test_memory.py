"""How much memory is left, as Linux tells it and a container limits it."""

import pytest

from kerasmlp.utils import memory


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Has the files say something else."""
    monkeypatch.setattr(memory, "_SYSTEM", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)

    def tell(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    return tell


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


GROUPS = {
    "": ("memory.max", "memory.current", "inactive_file", "0::/a.slice/b.scope\n"),
    "memory/": (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
        "9:cpuset:/other\n5:cpu,memory:/a.slice/b.scope\n0::/\n",
    ),
}


@pytest.mark.parametrize("root", GROUPS, ids=["v2", "v1"])
def test_the_smallest_limit_of_a_group_and_those_that_it_is_in(told, root):
    most, used, cached, own = GROUPS[root]
    told("meminfo", "MemAvailable:    9000 kB\n")
    told("own", own)
    told(f"{root}other/{most}", "1\n")
    told(f"{root}other/{used}", "1\n")
    assert memory.available_bytes() == 9000 * 1024
    told(f"{root}a.slice/b.scope/{most}", "7000000\n")
    told(f"{root}a.slice/b.scope/{used}", "1000000\n")
    assert memory.available_bytes() == 6_000_000
    told(f"{root}a.slice/{most}", "9223372036854771712\n" if root else "max\n")
    told(f"{root}a.slice/{used}", "2000000\n")
    assert memory.available_bytes() == 6_000_000
    told(f"{root}a.slice/{most}", "5000000\n")
    told(f"{root}a.slice/memory.stat", f"anon 1000\n{cached} 500000\n")
    assert memory.available_bytes() == 3_500_000
    told(f"{root}{most}", "2000000\n")
    told(f"{root}{used}", "500000\n")
    assert memory.available_bytes() == 1_500_000


@pytest.mark.parametrize(
    "own",
    ["0::/../../else.scope\n", "0::/docker/0a1b\n", "", "no line of these\n", "4:memory\n"],
    ids=repr,
)
def test_a_container_sees_its_own_group_as_the_root(told, own):
    told("meminfo", "MemAvailable:    9000 kB\n")
    told("own", own)
    told("memory.max", "5000000\n")
    told("memory.current", "3000000\n")
    assert memory.available_bytes() == 2_000_000
