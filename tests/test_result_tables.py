"""Tables of results are what `benchmarks/results` say, and no figure stands in `benchmarks/README.md` that no file holds."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"<!-- table: (.+?) -->\n(.*?)<!-- end -->", README, re.DOTALL))
BY_HAND = re.sub(r"<!-- table: .+? -->\n.*?<!-- end -->", "", README, flags=re.DOTALL)


@pytest.fixture
def results_module(monkeypatch):
    """`benchmarks/common/results.py`, imported as the scripts do."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("common.results")


def command(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)


@pytest.fixture
def copied(tmp_path):
    """A copy of what the command reads and writes, to be changed."""
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(FOLDER, tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
    return tmp_path / "benchmarks"


def change(folder: Path, name: str, edit) -> None:
    path = folder / "results" / name
    results = json.loads(path.read_text(encoding="utf-8"))
    edit(results)
    path.write_text(json.dumps(results), encoding="utf-8")


def test_the_readmes_are_what_the_command_writes():
    done = command(FOLDER / "tables.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_result_is_seen_and_written(copied):
    def better(results):
        results["l0 50%"]["perplexity"]["wikitext2"] -= 1

    change(copied, "end_to_end.json", better)
    done = command(copied / "tables.py", "--check")
    assert done.returncode == 1 and "benchmarks/README.md" in done.stdout
    assert (copied / "README.md").read_text(encoding="utf-8") == README
    assert command(copied / "tables.py").returncode == 0
    assert (copied / "README.md").read_text(encoding="utf-8") != README
    assert command(copied / "tables.py", "--check").returncode == 0


def test_a_row_without_its_result_is_an_error(copied):
    change(copied, "structured.json", lambda results: results.pop("50% random, uniform"))
    done = command(copied / "tables.py", "--check")
    assert done.returncode == 1 and "50% random, uniform" in done.stderr


def test_a_table_that_is_none_is_an_error(copied):
    (copied / "README.md").write_text("<!-- table: nothing -->\n<!-- end -->\n", encoding="utf-8")
    done = command(copied / "tables.py", "--check")
    assert done.returncode == 1 and "'nothing'" in done.stderr


def test_every_table_is_written_somewhere():
    done = command(FOLDER / "tables.py", "--help")
    assert done.returncode == 0
    names = re.findall(r'^    "(.+)": \w+\.\w+,$', (FOLDER / "tables.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(BLOCKS) == set(names) and len(names) > 15


@pytest.mark.parametrize("name", BLOCKS)
def test_every_row_has_a_number(name):
    _, _, *rows = [line for line in BLOCKS[name].splitlines() if line.startswith("|")]
    assert rows
    for row in rows:
        assert any(re.search(r"\d", cell) for cell in row.split(" | ")[1:]), row


def test_no_measured_figure_is_written_by_hand():
    prose = re.sub(r"```.*?```|`[^`]*`", "", BY_HAND, flags=re.DOTALL)
    assert not re.findall(r"(?<!Section )\d+\.\d+", prose)


def test_every_file_is_named():
    files = [path for path in FOLDER.rglob("*.py") if "__pycache__" not in path.parts]
    assert len(files) > 20
    assert not [path.name for path in files if f"`{path.name}`" not in README]
    assert set(re.findall(r"`(\w+\.py)`", README)) == {path.name for path in files}


def test_result_files_are_summaries():
    """No result file has a row for every layer of a model."""
    for path in (FOLDER / "results").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert "model.layers." not in text, path.name
        assert len(text.splitlines()) < 3000, path.name


def test_a_summary_counts_and_averages(results_module):
    rows = [
        {
            "name": "a",
            "relative_error": 1.0,
            "heldout_error": None,
            "status": "done",
            "recovered": True,
            "detail": {"gap": 4.0},
        },
        {"name": "b", "relative_error": 2.0, "heldout_error": 5.0, "status": "done", "recovered": False, "detail": {}},
        {"name": "c", "relative_error": 6.0, "heldout_error": 7.0, "status": "cut", "recovered": True, "detail": {}},
    ]
    found = results_module.summary(
        {"settings": {"seed": 0, "versions": {"python": "3"}}, "mean_error": 3.0, "rows": rows}, "rows"
    )
    assert found["settings"] == {"seed": 0} and found["mean_error"] == 3.0
    assert found["rows"] == {
        "count": 3,
        "status": {"done": 2, "cut": 1},
        "relative_error": {"mean": 3.0, "median": 2.0, "max": 6.0},
        "heldout_error": {"mean": 6.0, "median": 6.0, "max": 7.0},
        "gap": {"mean": 4.0, "median": 4.0, "max": 4.0},
        "recovered": 2,
    }


def test_a_result_file_holds_what_was_saved(results_module, tmp_path):
    value = {"short": [1, 2.5, None], "long": [{"name": "é" * 40, "figure": 1e-9, "more": ["x" * 50] * 3}] * 2, "empty": {}}
    results_module.save(tmp_path / "new" / "file.json", value)
    text = (tmp_path / "new" / "file.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert 5 < len(text.splitlines()) < 25 and all(len(line) < 140 for line in text.splitlines())


RESUME = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import end_to_end, finetune, structured
from common.cells import resumed
for script, cells in ((end_to_end, end_to_end.cells()), (structured, structured.cells()), (finetune, finetune.cells(600))):
    path = Path(sys.argv[1]) / "results" / f"{script.__name__}.json"
    before = json.loads(path.read_text())
    ran = []
    after = resumed(cells, ".", path, lambda name, keywords: ran.append(name) or {})
    assert set(ran) == set(cells) - set(before), set(ran) & set(before)
    assert all(after[name] == before[name] for name in before)
"""


def test_cells_resume_from_the_result_files(copied):
    done = subprocess.run([sys.executable, "-c", RESUME, str(copied)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = (json.loads((folder / "results" / "structured.json").read_text()) for folder in (FOLDER, copied))
    assert len(after) > len(before)  # what had not been run was
    assert after[next(iter(before))] == before[next(iter(before))]
