"""The shape of the repository: fixed folders, packages that are whole, maps that are true, names that mean one thing."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tokenize
from importlib.resources import files
from pathlib import Path

import pytest
from source_tree import FOLDERS, PACKAGES, ROOT, folder_of, imported, modules, python_files, readme_map, stub_names

FILES = modules()
CODE = ("solvers", "adapters", "proofs")  # what is installed
TOP_LEVEL = {*FOLDERS, "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
STUBS = [module for module, file in FILES.items() if stub_names(module, file)]
RESOLVE = """
import json, sys
from importlib import import_module
for package, names in json.loads(sys.argv[1]).items():
    there = import_module(package)
    assert set(there.__all__) == set(names), package
    for name, (source, original) in names.items():
        assert getattr(there, name) is getattr(import_module(source), original), f"{package}.{name}"
"""
GONE = """
    Menu Survey Subject Scored Visits Inflow Evidence Forecast HOMES menu survey toll told asked judged
    calibration_tokens load_model save_model save_structured prune_structured parts_of forecast
""".split()  # words that have been replaced: each had a second meaning, or none to a newcomer


def test_the_top_level_is_fixed():
    """Folders of code are the five, whatever users put beside them; in a clone, every file that is kept counts."""
    deep = {path.relative_to(ROOT).parts[0] for path in ROOT.glob("[!.]*/*.py")}
    assert deep <= set(FOLDERS)
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert {name for name in (line.partition("/")[0] for line in listed.splitlines()) if name[0] != "."} == TOP_LEVEL


def test_every_folder_of_code_is_a_package():
    """Each is listed in pyproject.toml, once, and has an `__init__.py`; so what is tested is what is installed."""
    found = {ROOT / folder / file.parent for folder in CODE for file in python_files(ROOT / folder)}
    assert {folder_of(package) for package in PACKAGES} == found
    assert len(set(PACKAGES)) == len(PACKAGES) == len(found)
    assert not [package for package in PACKAGES if package not in FILES]


def test_the_adapters_have_rooms():
    assert len(list((ROOT / "adapters").glob("*.py"))) <= 12


def test_the_installed_package_is_typed():
    assert files("gramian").joinpath("py.typed").is_file()


@pytest.mark.parametrize("name", [*CODE, "tests"])
def test_the_map_is_true(name):
    listed = readme_map((ROOT / name / "README.md").read_text(encoding="utf-8"))
    here = {file for file in python_files(ROOT / name) if file.name != "__init__.py"}
    assert len(listed) == len(set(listed))
    assert set(listed) - {file for file in listed if file.name == "__init__.py"} == here


def test_the_readme_of_the_benchmarks_names_every_file():
    named = set(re.findall(r"\b\w+\.py\b", (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")))
    assert named - {"__init__.py"} == {file.name for file in python_files(ROOT / "benchmarks")} - {"__init__.py"}


def test_a_map_is_read_as_it_stands():
    text = """# Title
## Map
How to read it.
```
room/     one idea, see b.py
  a.py    a text
          that goes on with more.py
  b.py c.py
d.py      last
```
"""
    assert readme_map(text) == [Path("room/a.py"), Path("room/b.py"), Path("room/c.py"), Path("d.py")]
    with pytest.raises(ValueError, match="Map"):
        readme_map("## Mapping\n```\na.py\n```\n")


def test_every_name_in_a_stub_is_there():
    """In a fresh process, where no test has put anything in a name's place."""
    assert {"gramian", "gramian.adapters", "gramian.solvers"} <= set(STUBS)
    exported = {package: stub_names(package, FILES[package]) for package in STUBS}
    done = subprocess.run([sys.executable, "-c", RESOLVE, json.dumps(exported)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_exported_name_hides_a_module():
    """`from .solve import solve` would replace the module by the function."""
    for package, file in FILES.items():
        if file.name != "__init__.py":
            continue
        inside = {module.rpartition(".")[2] for module in FILES if module.rpartition(".")[0] == package}
        text = file.read_text(encoding="utf-8")
        taken = {name for source, there, name in imported(text, f"{package}.") if there and f"{source}.{there}" not in FILES}
        assert not inside & (taken | set(stub_names(package, file))), package


COMMANDS = ("gramian.adapters.cli.", "gramian.proofs.table")


def test_only_commands_print():
    prints = [
        f"{module}, line {node.lineno}"
        for module, file in FILES.items()
        if not module.startswith(COMMANDS)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not prints


def test_words_that_are_gone_stay_away():
    found = []
    for module, file in FILES.items():
        with file.open("rb") as text:
            tokens = list(tokenize.tokenize(text.readline))
        found += [f"{module}, line {each.start[0]}: {each.string}" for each in tokens if each.string in GONE]
    assert not found
