"""The floors of the house: a file imports from its own floor or a lower one, never in a circle."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kerasmlp"

FLOORS = {
    0: [
        "abstention",
        "age_columns",
        "checks",
        "evaluation_folder",
        "files",
        "home",
        "keras_file",
        "labels",
        "locks",
        "manifest",
        "metrics",
        "model_loading",
        "norms",
        "photos",
        "processes",
        "quiet",
        "runs",
        "schema",
        "seen",
        "selective",
        "strict_json",
        "tables",
        "year_errors",
    ],
    1: [
        "calibration",
        "conformal",
        "initial_weights",
        "quantifiers",
        "risk",
        "run_calibration",
        "splits",
        "stores",
        "targets",
        "training_files",
    ],
    2: ["initializers", "layers", "losses", "masks"],
    3: [
        "callbacks",
        "mc_model",
        "models",
        "moment_rules",
        "moments",
        "optimizers",
        "precision",
        "sampler",
        "uncertainty",
        "xla",
    ],
    4: [
        "datasets",
        "face_models",
        "face_pool",
        "face_process",
        "face_worker",
        "faces",
        "image_batches",
        "pipelines",
    ],
    5: [
        "age_cnn",
        "cifar",
        "cross_validation",
        "drawing",
        "evaluation",
        "evaluation_plots",
        "evaluation_report",
        "experiment",
        "extraction",
        "extraction_resuming",
        "extremes",
        "fitting",
        "image_experiment",
        "image_training",
        "layer_out",
        "photo_prediction",
        "plots",
        "prediction",
        "serving",
        "torch_checkpoint",
        "torch_import",
        "training",
        "training_remarks",
        "training_rows",
        "tuning",
        "workbench",
    ],
    6: ["__main__", "cli", "commands"],
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
LIBRARIES = {
    0: {"numpy"},
    1: {"numpy", "h5py", "pandas"},
    2: {"numpy", "keras"},
    3: {"numpy", "keras"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


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


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts == ("__init__",):
        return
    own = FLOOR[parts[0]]
    for name in imports_of(path):
        if name.startswith("kerasmlp."):
            assert FLOOR[name.split(".")[1]] <= own, f"{module_of(path)} imports {name}"
    for name in imports_of(path, top_level_only=True):
        library = name.split(".")[0]
        if own in LIBRARIES and library not in sys.stdlib_module_names and library != "kerasmlp":
            assert library in LIBRARIES[own], f"{module_of(path)} imports {library}"


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
