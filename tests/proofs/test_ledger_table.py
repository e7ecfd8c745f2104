"""`proofs/README.md`: its ledger is what the code says, its map is what the folder is, and its Python runs."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gramian.proofs import table
from gramian.proofs.ledger import CLAIMS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "proofs"
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def mapped() -> list[str]:
    """The files of the map from top to bottom, relative to the folder."""
    files, room = [], ""
    for line in README.split("## Map")[1].split("```")[1].strip().splitlines():
        if line.endswith("/"):
            room = "" if line == "./" else line
        else:
            name, what = re.fullmatch(r"  (\w+\.py) +(\S.*)", line).groups()
            assert what, line
            files.append(room + name)
    return files


def imported(file: str) -> set[str]:
    """The files of the folder that a file imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse((FOLDER / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and f"{node.module}.".startswith("gramian.proofs."):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")[2:] if name.startswith("gramian.proofs.") else []
            for path in ("/".join(parts), "/".join(parts[:-1])):  # a module, or a name in one
                ends = [end for end in (f"{path}.py", f"{path}/__init__.py".lstrip("/")) if (FOLDER / end).is_file()]
                if parts and ends:
                    found.add(ends[0])
                    break
    return found


def test_the_tables_are_those_of_the_ledger():
    assert table.written(README) == README
    rows = re.findall(r"^\| (\w+) \| (.*) \| (.*) \| \[(\w+\.py)\]\((\w+)/(\w+\.py)\) \|$", README, re.MULTILINE)
    assert [row[:3] for row in rows] == [(claim.id, claim.source, claim.verdict.value) for claim in CLAIMS.values()]
    for name, _, _, shown, room, file in rows:
        assert shown == file and re.search(rf'Claim\(\s*"{name}",', (FOLDER / room / file).read_text(encoding="utf-8"))


def test_one_command_writes_the_tables(tmp_path: Path):
    def command(*options: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "gramian.proofs.table", *options]
        return subprocess.run(call, capture_output=True, text=True, cwd=tmp_path)

    assert "there is no proofs/README.md" in command().stderr
    (tmp_path / "proofs").mkdir()
    copy = Path(shutil.copy(FOLDER / "README.md", tmp_path / "proofs"))
    copy.write_text(re.sub(r"^\| N7 .*\n", "", README, flags=re.MULTILINE), encoding="utf-8")
    stale = command("--check")
    assert stale.returncode == 1 and "is not what the ledger says" in stale.stderr
    assert copy.read_text(encoding="utf-8") != README
    assert command().returncode == 0 and copy.read_text(encoding="utf-8") == README
    assert command("--check").returncode == 0


def test_a_claim_that_no_file_states_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(table, "HERE", tmp_path)
    with pytest.raises(LookupError, match="N7 is stated by 0 files"):
        table.file_of(CLAIMS["N7"])


def test_the_map_names_every_file():
    files = [file.relative_to(FOLDER).as_posix() for file in FOLDER.rglob("*.py")]
    assert sorted(mapped()) == sorted(file for file in files if file != "kit/__init__.py")


def test_imports_point_down_the_map():
    files = mapped()
    assert imported("laws/solvers.py") >= {"laws/law.py", "kit/backends.py"} and "tasp/__init__.py" in imported("ledger.py")
    up = [(file, other) for place, file in enumerate(files) for other in imported(file) if other not in files[place + 1 :]]
    assert not up


def test_the_python_of_the_readme_runs():
    found = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(found) == 2
    for code in found:
        exec(code, {})


@pytest.mark.parametrize("marker", ["<!-- table: claims -->", "<!-- end -->"])
def test_a_readme_without_a_place_for_a_table_is_an_error(marker):
    with pytest.raises(SystemExit, match="has places for the tables"):
        table.written(README.replace(marker, "", 1))
