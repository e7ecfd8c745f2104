"""`gramian solve` with several methods: rows, means, options and places of solutions."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import call, failure
from safetensors.numpy import load_file

from gramian.adapters.data.problem_files import read_problem, write_problem
from gramian.solvers import Quadratic


@pytest.fixture(name="files")
def files_fixture(tmp_path, monkeypatch) -> list[Path]:
    """Problems `b` and `a`, in this order, and problems of the same names on other text in `heldout`."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(1)
    Path("heldout").mkdir()
    for name in "ba":
        weight = draw.normal(size=(3, 8))
        for folder in (Path(), Path("heldout")):
            inputs = draw.normal(size=(30, 8))
            write_problem(folder / f"{name}.safetensors", Quadratic(inputs.T @ inputs, weight), tokens=30)
    return [Path("b.safetensors"), Path("a.safetensors")]


def rows_of(*arguments) -> list[dict]:
    assert call("solve", *arguments, "--json", "rows.json", "--overwrite") == 0
    return json.loads(Path("rows.json").read_text())


def same(row: dict) -> dict:
    """A row without what differs from run to run."""
    return {name: value for name, value in row.items() if name != "seconds"}


def test_methods_are_compared_file_by_file(files, capsys):
    methods = ["sparsegpt", "wanda", "l0"]
    rows = rows_of(*files, "--heldout", "heldout", "--method", *methods)
    assert [(row["file"], row["method"]) for row in rows] == [(str(file), name) for file in files for name in methods]
    assert {row["pattern"] for row in rows if row["method"] == "wanda"} == {"50% per row"}  # by itself as in company
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["file", "method", "pattern"] and len(lines) == 2 + 6 + 1 + 2 + 3
    for name in methods:
        own = [row for row in rows if row["method"] == name]
        assert [same(row) for row in own] == [same(row) for row in rows_of(*files, "--heldout", "heldout", "--method", name)]
        (line,) = [line.split() for line in lines[9:] if line.startswith(name)]
        means = [np.mean([row[figure] for row in own]) for figure in ("relative_error", "heldout_error")]
        assert line == [name, *(f"{mean:.3g}" for mean in means), f"{sum(row['seconds'] for row in own):.2f}"]


def test_one_method_has_no_summary(files, capsys):
    assert call("solve", *files, "--method", "wanda") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["file", "pattern"] and len(lines) == 4


def test_solutions_of_several_methods_have_directories_of_their_own(files):
    rows = rows_of(*files, "--method", "wanda", "magnitude", "--out", "answers")
    written = {file.relative_to("answers") for file in Path("answers").rglob("*.safetensors")}
    assert written == {Path(name) / file for name in ("wanda", "magnitude") for file in files}
    for row in rows:
        weights = load_file(Path("answers") / row["method"] / row["file"])["weight"].astype(np.float64)
        assert row["relative_error"] == read_problem(row["file"])[0].relative_error(weights)
    rows_of(files[0], "--method", "wanda", "--out", "one")
    assert [file.name for file in Path("one").iterdir()] == [files[0].name]


def test_every_method_takes_the_options_that_it_has(files):
    rows = rows_of(files[0], "--method", "fistapruner", "wanda", "--set", "patience=2")
    assert [row["options"] for row in rows] == [{"patience": 2}, {}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--method", "wanda", "l0", "--set", "patience=2"],
            "no method that is given has the option patience: wanda has none; l0 has",
        ),
        (["--method", "wanda", "magic"], "no method 'magic'; there are fistapruner"),
        (["--method", "wanda", "--refit", "block"], "--refit block needs a model"),
        (["--method", "wanda", "numerical"], "numerical removes whole heads and channels"),
        (["--method", "wanda", "l0", "wanda"], "--method names wanda twice"),
        (["--method"], "expected at least one argument"),
        (["--sparsity-of", "mlp=0.6"], "unrecognized arguments: --sparsity-of"),
        (["--method", "wanda", "l0", "--out", "x", "--json", "b.safetensors"], "would be overwritten"),
    ],
)
def test_bad_usage(options, message, files, capsys):
    before = sorted(Path().rglob("*"))
    assert call("solve", *files, *options) == 2
    assert message in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


def test_solutions_do_not_replace_problems(files, capsys):
    """With several methods the problems of OUT/METHOD are what is protected."""
    Path("wanda").mkdir()
    problem = Path("wanda") / files[0].name
    problem.write_bytes(files[0].read_bytes())
    args = ["solve", problem, "--out", ".", "--overwrite"]
    assert call(*args, "--method", "wanda", "l0") == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert problem.read_bytes() == files[0].read_bytes()


def test_every_pattern_is_checked_before_the_first_is_solved(files, capsys):
    assert "needs a multiple of 3 inputs" in failure(capsys, "solve", *files, "--method", "wanda", "l0", "--sparsity", "2:3")
