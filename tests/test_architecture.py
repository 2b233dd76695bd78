"""The rooms of the house: a file imports from its own room or a lower one, never in a circle."""

import ast
import collections
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kerasmlp"

ROOMS = {  # what stands directly below; a file imports from its own room and all below it
    "utils": "",
    "data": "utils",
    "faces": "data",
    "layers": "data",
    "models": "layers",
    "callbacks": "layers",
    "uncertainty": "layers",
    "runs": "faces models uncertainty",
    "evaluation": "runs",
    "training": "callbacks evaluation",
    "estimators": "training",
    "experiments": "training",
    "serving": "runs",
    "commands": "experiments serving",
}
LIBRARIES = {  # that a file of a room may import at its top, where it is not free to
    "utils": {"numpy", "matplotlib"},
    "data": {"numpy", "h5py", "PIL", "pyarrow"},  # the last of readers that a table has loaded
    "layers": {"numpy", "keras"},
    "models": {"numpy", "keras"},
    "callbacks": {"numpy", "keras"},
}
ALIKE = {  # names that mean the same wherever they stand
    "__init__",
    "experiment",  # a paper's experiments on images
    "figures",  # pictures of what the folder computes
    "plan",  # what an experiment consists of, before anything is computed
    "report",  # what it comes to
    "search",  # of hyperparameters
    "table",  # its results as rows and Markdown
}
FILES = sorted(PACKAGE.rglob("*.py"))
STUBS = sorted(PACKAGE.rglob("*.pyi"))  # what `lazy_names` reads


def module_of(path):
    return ".".join(["kerasmlp", *path.relative_to(PACKAGE).with_suffix("").parts])


def imports_of(path, *, top_level_only=False):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                inside = (PACKAGE.parent / Path(*whole.split("."))).with_suffix(".py")
                yield whole if inside.is_file() else node.module


def below(room):
    """The room and all that it stands on."""
    return {room}.union(*(below(lower) for lower in ROOMS[room].split()))


def names_in_strings(path):
    """Modules that a file names in its strings: so a process is started, so a room is entered."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FORMAT":
            node.value.value = ""  # what a file of ours says of itself
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(
            node
        ):
            node.body[0].value.value = ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\bkerasmlp\.\w[\w.]*", node.value)


def check_names(room, text_of):
    for name in text_of:
        parts = name.split(".")
        if parts[0] == "kerasmlp" and len(parts) > 1 and parts[1] in ROOMS:
            assert parts[1] in below(room), f"a file of {room} names {name}"


@pytest.mark.parametrize("path", FILES + STUBS, ids=lambda path: module_of(path) + path.suffix)
def test_a_file_stands_on_its_own_room_and_lower_ones(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if len(parts) == 1:  # the front door
        assert parts[0] in ("__init__", "__main__", "cli")
        return
    room = parts[0]
    check_names(room, imports_of(path))
    check_names(room, names_in_strings(path))
    for name in imports_of(path, top_level_only=True):
        library = name.split(".")[0]
        if room in LIBRARIES and library not in sys.stdlib_module_names and library != "kerasmlp":
            assert library in LIBRARIES[room], f"{module_of(path)} imports {library}"


def test_a_string_does_not_lead_upstairs(tmp_path):
    path = tmp_path / "a.py"
    path.write_text('"""Of `kerasmlp.training`."""\nimport_module(f"kerasmlp.training.{name}")\n')
    assert list(names_in_strings(path)) == ["kerasmlp.training."]
    with pytest.raises(AssertionError, match=r"a file of data names kerasmlp.training"):
        check_names("data", names_in_strings(path))
    check_names("experiments", names_in_strings(path))


def test_names_are_made_in_few_places():
    """An import of a name that is put together is seen by no other test."""
    makers = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1]
            if called in ("import_module", "__import__") and not isinstance(
                node.args[0], ast.Constant
            ):
                makers.add(module_of(path))
    assert makers == {
        "kerasmlp.cli",
        "kerasmlp.data.datasets.__init__",
        "kerasmlp.utils.lazy",
    }


def test_one_name_means_one_thing():
    """`plan`, `table`, …: the same in every room. Commands are called as what they do."""
    named = collections.Counter(p.stem for p in FILES if p.parent.name != "commands")
    alike = {name for name, count in named.items() if count > 1}
    assert alike <= ALIKE, alike - ALIKE


@pytest.mark.parametrize("path", STUBS, ids=module_of)
def test_public_names_are_there_and_no_modules(path):
    """An import of a module would put it in the place of a name that is spelled alike."""
    package = importlib.import_module(module_of(path).removesuffix(".__init__"))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = [a for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names]
    assert sorted(a.asname for a in imported) == package.__all__
    assert all(a.name == a.asname for a in imported)  # else type checkers do not see it
    assert not set(package.__all__) & {m.name for m in pkgutil.iter_modules(package.__path__)}
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_no_circles():
    graph = {module_of(p): {n for n in imports_of(p) if n.startswith("kerasmlp")} for p in FILES}
    graph = {name: targets - {name} for name, targets in graph.items()}
    done = set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_no_pickle():
    for path in FILES:
        assert not {"pickle", "joblib", "dill", "marshal", "shelve"} & {
            name.split(".")[0] for name in imports_of(path)
        }, path
        assert "allow_pickle=True" not in path.read_text(encoding="utf-8")


def test_files_stay_small():
    for path in FILES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 300, f"{path} has {lines} lines"


def test_functions_stay_small():
    """A docstring does not count: that of a public function has its arguments, one by one."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                documented = node.body[0] if ast.get_docstring(node) is not None else None
                of_docs = documented.end_lineno - documented.lineno + 1 if documented else 0
                lines = node.end_lineno - node.lineno + 1 - of_docs
                assert lines <= 60, f"{path}: {node.name} has {lines} lines"


def test_import_loads_nothing_heavy():
    code = (
        "import sys, kerasmlp;"
        "assert not {'numpy', 'keras', 'tensorflow', 'h5py'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


@pytest.mark.parametrize("script", sorted(p.name for p in (PACKAGE.parent / "bin").iterdir()))
def test_help_loads_nothing_heavy(script):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{script}', '--help']\n"
        "try:\n"
        f"    runpy.run_path('bin/{script}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "heavy = {'numpy', 'keras', 'tensorflow', 'h5py', 'cv2', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("usage:")
    assert len(run.stdout.splitlines()) > 5


def test_every_command_has_a_script():
    from kerasmlp.cli import COMMANDS

    assert {p.name for p in (PACKAGE.parent / "bin").iterdir()} == set(COMMANDS)
