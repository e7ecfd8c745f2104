"""What a person sees of runs: tables of many rows, pages beside models, `--html`, `gramian compare`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import (  # noqa: F401
    FAST,
    call,
    failure,
    model_fixture,
    no_network_fixture,
    short_builtin_text_fixture,
    text_fixture,
)
from page_parser import parsed

from gramian.adapters import Report
from gramian.adapters.cli.summary import shown
from gramian.adapters.data.problem_files import write_problem
from gramian.adapters.removal.report import ModuleReport, StructuredReport
from gramian.adapters.report import OperatorReport
from gramian.solvers import Quadratic


def operator(block, kind, error, seconds=1.0):
    name = f"model.layers.{block}.{kind}"
    return OperatorReport(name, (4, 6), "50%", 0.5, error, 2 * error, 1e-9 * (block + 1), "done", seconds)


def test_many_rows_are_shown_by_kind_with_the_ten_worst():
    rows = [
        operator(block, kind, 0.001 * (block + 1) + shift) for block in range(12) for kind, shift in (("q", 0.0), ("up", 0.1))
    ]
    report = Report(tuple(rows), {"method": "l0"}, 24.0)
    kinds, title, worst, below = shown(report, verbose=False).split("\n\n")
    _, _, q, up = (line.split() for line in kinds.splitlines())
    assert q == ["q", "12", "50.0%", "0.0065", "0.012", "0.013", "0.024", "1.2e-08", "12.0"]
    assert up[0] == "up" and float(up[4]) == pytest.approx(0.112) and float(up[6]) == pytest.approx(0.224)
    assert title == "the 10 operators with the largest held-out error"
    assert [line.split()[0] for line in worst.splitlines()[2:]] == [f"model.layers.{block}.up" for block in range(11, 1, -1)]
    assert below.splitlines()[0] == report.totals() and "--verbose" in below.splitlines()[1]
    assert shown(report, verbose=True) == str(report)
    few = Report(tuple(rows[:20]), {"method": "l0"}, 24.0)
    assert shown(few, verbose=False) == str(few)


def test_modules_are_shown_by_kind_too_and_undefined_errors_are_not_the_worst():
    rows = [
        ModuleReport(f"h.{block}.{kind}", (8, 6), (8, 6), 0.1, 0.01 * block or float("nan"), None, None, "done", 1.0)
        for block in range(15) for kind in ("o", "down")
    ]  # fmt: skip
    report = StructuredReport(tuple(rows), (2000, 1500), (1000, 500), {}, {"method": "flap"}, 2.0)
    text = shown(report, verbose=False)
    assert "the 10 modules with the largest calibration error" in text and "h.0.o" not in text and "h.14.down" in text
    assert text.splitlines()[2].split()[:3] == ["o", "15", "75.0%"] and report.totals()[0] in text


@pytest.fixture(name="saved")
def saved_fixture(model, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for method in ("wanda", "magnitude"):
        assert call("prune", model, "--method", method, "--calibration", text, "--out", method, *FAST) == 0
    capsys.readouterr()
    return tmp_path


def test_a_page_stands_beside_the_model_and_a_comparison_reads_two(saved, model, capsys):
    for method in ("wanda", "magnitude"):
        tree, document = parsed(Path(method, "report.html").read_text()), json.loads(Path(method, "gramian.json").read_text())
        assert "report.html" not in document["files"] and f"The method {method} set 50.0 %" in tree.text
        assert f"{document['perplexity']['pruned']:,.1f}"[:3] in tree.text and document["phases"]
        assert "measuring perplexity before" in tree.text
    assert call("compare", "wanda", "magnitude", "--html", "page.html", "--json", "out.json") == 0
    out = capsys.readouterr().out
    found = json.loads(Path("out.json").read_text())
    assert [row["method"] for row in found["runs"]] == ["wanda", "magnitude"] and found["warnings"] == []
    documents = [json.loads(Path(method, "gramian.json").read_text())["perplexity"] for method in ("wanda", "magnitude")]
    ours, theirs = (np.array(each["nats_by_window"]["pruned"]) for each in documents)
    assert found["runs"][1]["difference_to_first_nats"] == pytest.approx((theirs - ours).mean())
    assert np.exp(ours.mean()) == pytest.approx(documents[0]["pruned"], rel=1e-5)
    assert "wanda" in out and "magnitude" in out and "warning" not in out
    assert "Runs compared" in parsed(Path("page.html").read_text()).text


def test_a_page_is_no_part_of_what_a_model_needs_and_is_never_copied_on(saved, text):
    """It may be removed, and a model that is pruned again, or saved without a report, has none of another run."""
    import gramian

    Path("wanda/report.html").unlink()
    smaller, tokenizer = gramian.load("wanda")
    Path("wanda/report.html").write_text("of another run")
    assert not (gramian.save(smaller, tokenizer, "plain") / "report.html").exists()
    assert not (gramian.save(smaller, tokenizer, "own", report={"method": "none"}) / "report.html").exists()


def test_streamed_runs_have_a_page(saved, model, text):
    assert (
        call("prune", model, "--method", "wanda", "--calibration", text, "--out", "streamed", "--memory", "stream", *FAST) == 0
    )
    assert "perplexity was not measured" in parsed(Path("streamed/report.html").read_text()).text


def test_compare_refuses_what_is_no_run_and_needs_no_torch(saved, capsys):
    assert "no gramian.json in 'nothing'" in failure(capsys, "compare", "wanda", "nothing")
    assert call("compare", "wanda", "magnitude", "--html", "same", "--json", "same") == 2
    assert "name the same file" in capsys.readouterr().err
    program = (
        "import sys\nfrom gramian.adapters.cli.main import main\n"
        "assert main(['compare', 'wanda']) == 0 and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_solve_writes_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for block in range(2):
        inputs = draw.normal(size=(20, 4))
        problem = Quadratic(inputs.T @ inputs, draw.normal(size=(3, 4)))
        write_problem(tmp_path / f"h.{block}.up.safetensors", problem, tokens=20)
    files = ["h.0.up.safetensors", "h.1.up.safetensors"]
    assert call("solve", *files, "--method", "wanda", "magnitude", "--html", "page.html", "--json", "rows.json") == 0
    rows, tree = json.loads(Path("rows.json").read_text()), parsed(Path("page.html").read_text())
    cells = [cell.text for figure in tree.of_class("heat") for cell in figure.every("td")]
    assert [float(cell) for cell in cells] == pytest.approx(
        [100 * row["relative_error"] for method in ("wanda", "magnitude") for row in rows if row["method"] == method], rel=0.051
    )
    assert call("solve", *files, "--html", "h.0.up.safetensors") == 2
    assert "would be overwritten" in capsys.readouterr().err
