"""The shape of the repository: one import path, solvers that know nothing of transformers, a fixed top level."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import gramian.solvers

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"solvers", "adapters", "proofs", "tests", "benchmarks"}
MODULES = sorted(module.name for module in pkgutil.iter_modules(gramian.solvers.__path__))


def code() -> list[Path]:
    """Every Python file at the top level or one below it and, in our folders, at any depth."""
    deep = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    return sorted({*deep, *ROOT.glob("*.py"), *ROOT.glob("[!.]*/*.py")})


def imported(path: Path) -> set[str]:
    """First names of every absolute import in a file, wherever it stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_one_import_path():
    """`import adapters` is a package of its own on PyPI, and a second path would mean a second copy of every class."""
    files = code()
    assert ROOT / "solvers" / "problem.py" in files
    guilty = {str(path.relative_to(ROOT)) for path in files if imported(path) & {"solvers", "adapters", "proofs"}}
    assert not guilty


def test_the_guard_sees_every_form(tmp_path):
    for line in ("import solvers", "import x, solvers.problem as y", "def f():\n    from solvers.terms import L1"):
        (tmp_path / "file.py").write_text(line)
        assert "solvers" in imported(tmp_path / "file.py")
    for line in ("from gramian.solvers import L1", "from . import solvers", "import gramian.solvers as solvers"):
        (tmp_path / "file.py").write_text(line)
        assert "solvers" not in imported(tmp_path / "file.py")


def test_solvers_know_nothing_of_transformers():
    """Importing every solver module loads neither; only `_xp` and `_cuda` may name a backend, and inside functions."""
    code = "import sys; " + "".join(f"import gramian.solvers.{module}; " for module in MODULES)
    code += "print(*({'torch', 'transformers', 'cupy', 'gramian.adapters'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
    for path in (ROOT / "solvers").glob("*.py"):
        backends = {"torch", "cupy", "cupyx", "scipy", "transformers"} & imported(path)
        assert path.name in ("_xp.py", "_cuda.py") or not backends, path.name
        assert "transformers" not in backends


def test_no_name_hides_a_module():
    """`from .solve import solve` would replace the module by the function."""
    for name in MODULES:
        import_module(f"gramian.solvers.{name}")
        assert isinstance(getattr(gramian.solvers, name), ModuleType), name


def test_what_is_promised_is_there():
    names = gramian.solvers.__all__
    assert len(set(names)) == len(names)
    assert all(hasattr(gramian.solvers, name) for name in names)


def test_the_top_level_is_fixed():
    """Folders of code are the five. What users put beside them (environments, pruned models) is theirs."""
    assert {path.relative_to(ROOT).parts[0] for path in code()} <= FOLDERS


def test_every_package_is_typed():
    for folder in ("solvers", "adapters"):
        assert (ROOT / folder / "py.typed").exists()
