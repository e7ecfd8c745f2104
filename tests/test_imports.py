"""Who imports whom: one import path, no cycles, downward only, and nothing heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from source_tree import FOLDERS, ROOT, first_names, import_graph, modules, python_files, readme_map, upward

GRAPH = import_graph()
FILES = modules()
TOP = {"gramian", "gramian.__main__"}  # above every folder
BOTTOM = {module for module, file in FILES.items() if file.parent.name == "_root"} - TOP  # below every folder
BELOW = {"solvers": {"solvers"}, "proofs": {"solvers", "proofs"}, "adapters": {"solvers", "adapters"}}
HEAVY = {"torch", "transformers", "cupy"}
LIGHT = (
    "gramian",
    "gramian.solvers",
    "gramian.adapters",
    "gramian.adapters.cli.parser",
    "gramian.adapters.cli.solve",
    "gramian.proofs.ledger",
)


def folder(module: str) -> str:
    return module.split(".")[1]


def edges_within(name: str) -> list[tuple[Path, Path]]:
    """Imports from one file of a folder to another of it, without what stands above or below all folders."""
    outside = BOTTOM | TOP
    return [
        (FILES[module].relative_to(ROOT / name), FILES[target].relative_to(ROOT / name))
        for module, targets in GRAPH.items()
        for target in targets
        if not {module, target} & outside and folder(module) == folder(target) == name
    ]


def test_one_import_path():
    """`import adapters` is a package of its own on PyPI, and a second path would mean a second copy of every class."""
    files = {ROOT / folder / file for folder in FOLDERS for file in python_files(ROOT / folder)}
    assert ROOT / "solvers" / "core" / "problem.py" in files and Path(__file__).resolve() in files
    wrong = {file for file in files if first_names(file.read_text(encoding="utf-8")) & {"solvers", "adapters", "proofs"}}
    assert not wrong


@pytest.mark.parametrize("text", ["import solvers", "import x, solvers.core as y", "def f():\n    from solvers.core import L1"])
def test_every_form_of_import_is_seen(text):
    assert "solvers" in first_names(text)


@pytest.mark.parametrize(
    "text", ["from gramian.solvers import L1", "from . import solvers", "import gramian.solvers as solvers"]
)
def test_what_is_no_import_of_a_folder_is_none(text):
    assert "solvers" not in first_names(text)


def test_the_graph_sees_imports_that_are_deferred_for_type_checkers_and_through_stubs():
    assert "gramian.proofs.ledger" in GRAPH["gramian.adapters.cli.verify"]  # deferred
    assert "gramian.adapters.api" in GRAPH["gramian"]  # by the stub
    assert "gramian.solvers.core.problem" in GRAPH["gramian.adapters.data.problem_files"]  # the home of Quadratic
    assert "gramian.solvers" not in GRAPH["gramian.adapters.data.problem_files"]


def test_no_file_imports_itself_in_the_end():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_folders_import_downwards():
    """adapters -> solvers, proofs -> solvers; the command alone runs proofs."""
    wrong = [
        f"{module} imports {target}"
        for module, targets in GRAPH.items()
        if module not in TOP
        for target in targets - BOTTOM
        if module in BOTTOM
        or target in TOP
        or folder(target) not in BELOW[folder(module)] | ({"proofs"} if module.startswith("gramian.adapters.cli.") else set())
    ]
    assert not wrong


@pytest.mark.parametrize("name", ["solvers", "proofs", "adapters"])
def test_files_import_what_is_further_down_the_map(name):
    listed = readme_map((ROOT / name / "README.md").read_text(encoding="utf-8"))
    edges = edges_within(name)
    assert len(edges) > 30
    assert upward(listed, edges) == []


def test_an_import_that_goes_up_is_seen():
    order = [Path("a.py"), Path("room/b.py"), Path("room/c.py"), Path("d.py")]
    down = [("a.py", "room/c.py"), ("room/b.py", "room/c.py"), ("room/c.py", "d.py"), ("room/__init__.py", "room/b.py")]
    up = [("d.py", "room/c.py"), ("room/b.py", "a.py"), ("room/c.py", "room/b.py"), ("room/c.py", "room/__init__.py")]
    assert upward(order, [(Path(one), Path(other)) for one, other in down]) == []
    for one, other in up:
        assert upward(order, [(Path(one), Path(other))]) == [f"{one} imports {other}"]


def test_only_one_room_of_the_solvers_names_a_backend():
    """Everything else goes by the array API standard; inside functions too, so that no backend is chosen by an import."""
    naming = {
        file.parts[0]
        for file in python_files(ROOT / "solvers")
        if (HEAVY | {"cupyx", "scipy"}) & first_names((ROOT / "solvers" / file).read_text(encoding="utf-8"))
    }
    assert naming == {"backend"}


def loaded(code: str) -> set[str]:
    """Top-level modules, and folders of gramian, that a fresh process has after some code."""
    shown = "; import sys; print(*{'.'.join(name.split('.')[: 1 + name.startswith('gramian')]) for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code + shown], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_gramian_loads_nothing():
    assert not loaded("import gramian") & (HEAVY | {"numpy", "scipy", "gramian.adapters", "gramian.solvers"})


def test_what_needs_no_model_loads_no_torch():
    assert not loaded(f"import {', '.join(LIGHT)}") & HEAVY


def test_solvers_know_nothing_of_transformers():
    every = ", ".join(module for module in FILES if module.startswith("gramian.solvers"))
    assert not loaded(f"import {every}") & (HEAVY | {"gramian.adapters", "gramian.proofs"})
