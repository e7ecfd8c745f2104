"""Tables of results are what `benchmarks/results` say, no figure stands in `benchmarks/README.md` that no file holds, and the
scripts start and resume."""

import html
import importlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gramian.adapters import PruneConfig

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"<!-- table: (.+?) -->\n(.*?)<!-- end -->", README, re.DOTALL))
BY_HAND = re.sub(r"<!-- table: .+? -->\n.*?<!-- end -->", "", README, flags=re.DOTALL)


@pytest.fixture
def scripts(monkeypatch):
    """Imports a module of `benchmarks` by the name that the scripts import it by; none is imported when the test has ended."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name, module in list(sys.modules.items()):
        if FOLDER in Path(getattr(module, "__file__", None) or "/").parents:
            del sys.modules[name]


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


def test_the_figure_shows_what_was_measured(scripts):
    """Its description has every point, as the result files have it."""
    pytest.importorskip("matplotlib")
    said = scripts("text_and_time").said()
    assert "l0 50 %, 32 windows: 27.7 minutes, WikiText-2 27.18, PTB 104.53" in said
    figure = (FOLDER / "results" / "text_and_time.svg").read_text(encoding="utf-8")
    assert said in html.unescape(figure), "run `python benchmarks/text_and_time.py`"


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
    change(copied, "structured.json", lambda results: results.pop("50% random, equal"))
    done = command(copied / "tables.py", "--check")
    assert done.returncode == 1 and "50% random, equal" in done.stderr


def test_a_table_that_is_none_is_an_error(copied):
    with (copied / "README.md").open("a", encoding="utf-8") as readme:
        readme.write("<!-- table: nothing -->\n<!-- end -->\n")
    done = command(copied / "tables.py", "--check")
    assert done.returncode == 1 and "'nothing'" in done.stderr


@pytest.mark.parametrize("damage", [("<!-- table: summary -->", ""), (r"(<!-- table: summary -->.*?)<!-- end -->", r"\1")])
def test_a_readme_without_the_place_of_a_table_is_an_error(copied, damage):
    """Where either marker is missing, nothing is written, least of all over what follows."""
    readme = copied.parent / "README.md"
    damaged = re.sub(*damage, readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    readme.write_text(damaged, encoding="utf-8")
    for arguments in (["--check"], []):
        done = command(copied / "tables.py", *arguments)
        assert done.returncode == 1 and "README.md has no place for table 'summary'" in done.stderr
    assert readme.read_text(encoding="utf-8") == damaged


def test_the_summary_of_the_main_readme_follows_the_results(copied):
    readme, other = copied.parent / "README.md", copied / "README.md"
    before = readme.read_text(encoding="utf-8")

    def worse(results):
        results["20% compensated, loss"]["perplexity"]["ptb"] = 123.4

    change(copied, "structured.json", worse)
    done = command(copied / "tables.py", "--check")
    assert done.returncode == 1 and "benchmarks/README.md, README.md" in done.stdout
    assert command(copied / "tables.py").returncode == 0
    assert "| 123.4 |" in readme.read_text(encoding="utf-8") and "| 123.4 |" not in before
    assert "| 123.4 |" in other.read_text(encoding="utf-8")


def test_every_table_is_written_somewhere():
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


def test_a_summary_counts_and_averages(scripts):
    rows = [
        {
            "name": "a",
            "relative_error": 1.0,
            "heldout_error": None,
            "status": "done",
            "better": True,
            "detail": {"gap": 4.0},
        },
        {"name": "b", "relative_error": 2.0, "heldout_error": 5.0, "status": "done", "better": False, "detail": {}},
        {"name": "c", "relative_error": 6.0, "heldout_error": 7.0, "status": "cut", "better": True, "detail": {}},
    ]
    found = scripts("common.results").summary(
        {"settings": {"seed": 0, "versions": {"python": "3"}}, "mean_error": 3.0, "rows": rows}, "rows"
    )
    assert found["settings"] == {"seed": 0} and found["mean_error"] == 3.0
    assert found["rows"] == {
        "count": 3,
        "status": {"done": 2, "cut": 1},
        "relative_error": {"mean": 3.0, "median": 2.0, "max": 6.0},
        "heldout_error": {"mean": 6.0, "median": 6.0, "max": 7.0},
        "gap": {"mean": 4.0, "median": 4.0, "max": 4.0},
        "better": 2,
    }


def test_a_result_file_holds_what_was_saved(scripts, tmp_path):
    value = {"short": [1, 2.5, None], "long": [{"name": "é" * 40, "figure": 1e-9, "more": ["x" * 50] * 3}] * 2, "empty": {}}
    scripts("common.results").save(tmp_path / "new" / "file.json", value)
    text = (tmp_path / "new" / "file.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert 5 < len(text.splitlines()) < 25 and all(len(line) < 140 for line in text.splitlines())


def test_cells_resume_from_the_result_files(scripts, copied):
    for name in ("end_to_end", "structured", "finetune"):
        script, path = scripts(name), copied / "results" / f"{name}.json"
        cells = script.cells(600) if name == "finetune" else script.cells()
        before, ran = json.loads(path.read_text(encoding="utf-8")), []
        after = script.resumed(cells, ".", path, lambda cell, _, ran=ran: ran.append(cell) or {})
        assert set(ran) == set(cells) - set(before), set(ran) & set(before)
        assert all(after[cell] == before[cell] for cell in before)
        assert json.loads(path.read_text(encoding="utf-8")) == after


def test_keywords_of_cells_are_those_of_the_functions_that_they_are_for(scripts):
    units = [
        {key: value for key, value in cell.items() if key not in ("windows", "calibration", "steps", "domains")}
        for cell in [*scripts("structured").cells().values(), *scripts("finetune").METHODS.values()]
    ]
    weights = scripts("end_to_end").cells().values()
    for cell in filter(None, [*weights, *units]):
        PruneConfig(**cell)


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_every_script_explains_itself(scripts, monkeypatch, capsys, script):
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(str(script), run_name="__main__")
    assert f"usage: {script.name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "phases"),
    [
        ("l0", {"damping, without refits", "refits", "forward passes inside a block"}),
        ("sparsegpt", set()),
        ("fistapruner", {"FISTA", "warm start"}),
    ],
)
def test_the_clock_sees_every_phase(scripts, method, phases):
    """What it wraps is there, and is what a run of each method goes through."""
    from tiny import WINDOWS, tiny_model

    import gramian

    with scripts("common.clock").phases() as seconds:
        gramian.prune(tiny_model("llama"), WINDOWS, method, sparsity=0.5, progress=False)
    always = {"forward passes", "moments", "factorisation", "certificates and held-out errors", "solver"}
    assert {phase for phase, spent in seconds.items() if spent > 0} >= always | phases
