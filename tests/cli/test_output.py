"""Results on stdout and all else on stderr; --quiet; --json -; output that nobody reads, or that cannot be written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import FAST, call, model_fixture, no_network_fixture, short_builtin_text_fixture, text_fixture  # noqa: F401

from gramian import progress
from gramian.adapters.cli.output import STDOUT, emit
from gramian.adapters.data.problem_files import write_problem
from gramian.solvers import Quadratic

REMARKS = "loading", "0 of ", "windows to calibrate"
SAVES = "prune", "capture"  # commands that replace nothing without --overwrite


@pytest.fixture(name="problem")
def problem_fixture(tmp_path) -> Path:
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(20, 4))
    write_problem(tmp_path / "problem.safetensors", Quadratic(inputs.T @ inputs, draw.normal(size=(3, 4))), tokens=20)
    return tmp_path / "problem.safetensors"


def commands(problem, model, text, folder):
    """A command line of each kind that runs in a moment."""
    return {
        "solve": ["solve", problem, "--method", "wanda", "magnitude"],
        "verify": ["verify", "--claims", "X1", "--examples", "5"],
        "prune": ["prune", model, "--method", "wanda", "--calibration", text, "--out", folder / "sparse", *FAST],
        "capture": ["capture", model, "--include", r"0\.mlp", "--out", folder / "problems", *FAST[:4]],
    }


@pytest.mark.parametrize("name", ["solve", "verify", "prune", "capture"])
def test_quiet_leaves_results_alone(name, problem, model, text, tmp_path, capsys):
    args = commands(problem, model, text, tmp_path)[name]
    assert call(*args) == 0
    loud = capsys.readouterr()
    assert any(remark in loud.err for remark in REMARKS) and "\r" not in loud.err
    assert not any(remark in loud.out for remark in REMARKS)
    assert call(*args, "--quiet", *(["--overwrite"] if name in SAVES else [])) == 0
    quiet = capsys.readouterr()
    assert quiet.err == "" and len(quiet.out.splitlines()) == len(loud.out.splitlines()) > 0
    assert call(*args) == (1 if name in SAVES else 0)
    assert capsys.readouterr().err  # the next command is not quiet


def test_quiet_still_says_what_is_wrong(capsys):
    assert call("solve", "missing", "--quiet") == 1
    assert capsys.readouterr().err == "gramian: error: no problem file 'missing'\n"


@pytest.mark.parametrize("name", ["solve", "verify", "prune"])
def test_json_on_stdout_is_alone_there(name, problem, model, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    args = [*commands(problem, model, text, tmp_path)[name], *(["--overwrite"] if name in SAVES else [])]
    assert call(*args, "--json", "-") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) and "-----" in printed.err  # of the table
    assert call(*args, "--json", "-", "--quiet") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) and printed.err == ""
    assert not Path("-").exists()


def test_what_is_printed_is_what_is_written(tmp_path, capsys):
    document = {"infinite": float("inf"), "list": (1, 2.5)}
    emit(document, "a table", STDOUT)
    printed = capsys.readouterr()
    emit(document, "a table", tmp_path / "result.json")
    assert printed.out == (tmp_path / "result.json").read_text() and printed.err == "a table\n"
    assert capsys.readouterr().out == "a table\n"


def test_a_text_is_printed_where_the_file_cannot_be_written(tmp_path, capsys):
    with pytest.raises(OSError):
        emit({}, "a table", tmp_path / "missing" / "result.json")
    assert capsys.readouterr().out == "a table\n"


# -- output that nobody reads ------------------------------------------------------------------------------------------


def run_with(stdout: int, arguments: list, *, unbuffered: bool) -> tuple[int, str]:
    """Exit code and stderr of a process with this file descriptor as stdout."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-m", "gramian", *map(str, arguments)], stdout=stdout, stderr=subprocess.PIPE, text=True,
        env=variables | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {}), timeout=120,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("name", ["help", "version", "prune --help", "solve", "verify", "capture"])
def test_a_closed_pipe_is_no_error(name, unbuffered, problem, model, text, tmp_path):
    known = {"help": ["--help"], "version": ["--version"], "prune --help": ["prune", "--help"]}
    arguments = known.get(name) or [*commands(problem, model, text, tmp_path)[name], "--quiet"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        code, said = run_with(writing, arguments, unbuffered=unbuffered)
    finally:
        os.close(writing)
    # argparse prints help and ignores errors of it, so that it depends on buffers whether there is one to notice
    assert said == "" and code in ((0, 141) if name in known else (141,))


def test_stderr_may_be_closed_too(problem):
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [sys.executable, "-m", "gramian", "solve", str(problem)]
    try:
        assert subprocess.run(arguments, stdout=writing, stderr=writing, timeout=120).returncode == 141
    finally:
        os.close(writing)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_said_in_one_line(problem):
    with open("/dev/full", "w") as full:
        code, said = run_with(full.fileno(), ["solve", problem, "--quiet"], unbuffered=False)
    assert code == 1 and said.startswith("gramian: error: ") and len(said.splitlines()) == 1


# -- bars, lines and remarks -------------------------------------------------------------------------------------------


def test_plain_lines_are_few(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.bar(1000, "work", "piece") as done:
        for _ in range(1000):
            now[0] += 1
            done.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "work: 0 of 1000 pieces, 0 s" and lines[1] == "work: 100 of 1000 pieces, 100 s"
    assert len(lines) == 11 and lines[-1] == "work: 1000 of 1000 pieces, 1000 s"
    assert list(progress.progress(range(1000), "fast", "piece")) == list(range(1000))
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_work_that_fails_says_how_far_it_came(capsys):
    with pytest.raises(ZeroDivisionError), progress.bar(3, "work", "piece") as done:
        done.update(2)
        raise ZeroDivisionError
    assert capsys.readouterr().err.splitlines()[-1].startswith("work: 2 of 3 pieces")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.bar(2, "work", "piece") as done:
        done.update(2)
        progress.say("a remark")
    drawn = capsys.readouterr().err
    assert "\r" in drawn and "100%" in drawn and "a remark\n" in drawn
    with progress.quietly(), progress.bar(2, "work", "piece") as done:
        done.update(2)
        progress.say("a remark")
    with progress.bar(2, "work", "piece", shown=False) as done:
        done.update(2)
    assert capsys.readouterr().err == ""


def test_quiet_inside_quiet_ends_with_the_outer_one(capsys):
    with progress.quietly():
        with progress.quietly(), progress.quietly(False):
            progress.say("not shown")
        progress.say("nor this")
    with progress.quietly(False):
        progress.say("shown")
    assert capsys.readouterr().err == "shown\n"
