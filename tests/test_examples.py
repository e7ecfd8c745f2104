"""The short programs of `benchmarks/examples` run as they are, and check themselves what they promise."""

import ast
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


def test_there_are_five():
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, tmp_path, monkeypatch, capsys):
    """In this process, as importing torch and transformers takes longer than any of them."""
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip()
    assert not list(tmp_path.glob("[!.]*"))  # nothing is left behind but what hypothesis remembers


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_checks_itself(example):
    text = example.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert "assert " in text or "raise SystemExit" in text


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_imports_what_users_import(example):
    """The front door, the solvers and the laws: `gramian` and public names of its packages, not of files inside them."""
    for node in ast.walk(ast.parse(example.read_text(encoding="utf-8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert all(not name.startswith("gramian.") or name in ("gramian.solvers", "gramian.proofs") for name in modules)
