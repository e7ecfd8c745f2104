"""What is built is whole, and what is installed without an extra does all that needs no model.

Nothing is downloaded: the source is built with the setuptools at hand, and the installation is a directory of links to what the
wheel requires, and to what that requires in turn, which is all that a Python without its site-packages then sees.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from source_tree import FOLDERS, PACKAGES, ROOT, folder_of

KEPT = (*FOLDERS, ".github", ".ci", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", ".gitignore")
LIGHT = {"numpy", "scipy", "array-api-compat", "threadpoolctl"}
HELD_BY_GIT = """
git init -q
git add -A
git -c user.name=tests -c user.email=tests@localhost commit -q -m "What is built" --no-gpg-sign
"""

PROBLEM = """
import numpy as np
from gramian.adapters.data.problem_files import write_problem
from gramian.solvers import Quadratic

rng = np.random.default_rng(0)
inputs, weight = rng.normal(size=(60, 8)), rng.normal(size=(5, 8))
write_problem("layer.safetensors", Quadratic.from_data(inputs, weight), tokens=60)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source distribution of the working tree, and the wheel that is built from it."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in KEPT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, source / name)
    run(["sh", "-ec", HELD_BY_GIT], cwd=source)
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(source)], cwd=made)
    return next(made.glob("*.tar.gz")), next(made.glob("*.whl"))


def run(command: Sequence[str], cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kept() -> set[str]:
    """The files of the working tree that belong to it."""
    left_behind = {"__pycache__", ".pytest_cache", ".hypothesis"}
    deep = {
        file for name in (*FOLDERS, ".github", ".ci") for file in (ROOT / name).rglob("*") if not left_behind & set(file.parts)
    }
    return {file.relative_to(ROOT).as_posix() for file in deep | {ROOT / name for name in KEPT} if file.is_file()}


def test_the_source_distribution_holds_what_its_tests_need(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    ignored = {name for name in kept() if name.startswith("benchmarks/results/") and name.count("/") > 2}
    assert kept() - names - ignored == set()


def test_the_wheel_holds_modules_stubs_and_the_marker(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    expected = {
        f"{package.replace('.', '/')}/{file.name}"
        for package in PACKAGES
        for file in folder_of(package).iterdir()
        if file.suffix in (".py", ".pyi") or file.name == "py.typed"
    }
    assert {"gramian/__init__.pyi", "gramian/py.typed", "gramian/solvers/__init__.pyi"} < expected
    assert {name for name in names if ".dist-info/" not in name} == expected


def required(requirement: Requirement) -> set[str]:
    """The distributions that a requirement brings here, with all that these require."""
    found: set[str] = set()
    waiting = [requirement]
    seen: set[tuple[str, str]] = set()
    while waiting:
        one = waiting.pop()
        for extra in ("", *one.extras):
            name = canonicalize_name(one.name)
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            found.add(name)
            for text in distribution(one.name).requires or ():
                further = Requirement(text)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    waiting.append(further)
    return found


def installed(wheel: Path, extras: str, place: Path) -> set[str]:
    """The wheel in a directory with links to what it requires. Returns the names of what is linked."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))).decode()
    own = [Requirement(line.partition(": ")[2]) for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    wanted = [each for each in own if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in ("", extras))]
    names = set().union(*(required(each) for each in wanted))
    for name in names:
        files = distribution(name).files
        assert files is not None
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            target = place / top
            if not target.exists():
                target.symlink_to(Path(str(distribution(name).locate_file(top))))
    return names


def test_what_needs_no_model_runs_on_four_packages(built, tmp_path):
    place, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    assert installed(built[1], "", place) == LIGHT
    alone = {"PYTHONPATH": str(place)}
    python = [sys.executable, "-S"]
    assert "torch" not in run([*python, "-c", "import sys, gramian.solvers; print(*sys.modules)"], work, **alone).split()
    assert "commands:" in run([*python, "-m", "gramian", "--help"], work, **alone)
    run([*python, "-c", PROBLEM], work, **alone)
    solve = [*python, "-m", "gramian", "solve", "layer.safetensors", "--sparsity", "2:4", "--out", "solved"]
    assert "2:4" in run(solve, work, **alone)
    assert (work / "solved" / "layer.safetensors").exists()
    prune = [*python, "-m", "gramian", "prune", "x", "--out", "y"]
    done = subprocess.run(prune, cwd=work, env=os.environ | alone, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "torch" in done.stderr and "pip install 'gramian[models]'" in done.stderr


def test_claims_are_checked_without_torch(built, tmp_path):
    place, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    assert "torch" not in installed(built[1], "proofs", place)
    verify = [sys.executable, "-S", "-m", "gramian", "verify", "--claims", "N15"]
    assert "N15" in run(verify, work, PYTHONPATH=str(place))
