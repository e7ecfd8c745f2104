"""`gramian methods`, the help of `prune`, and methods of the user's own that the command runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import FAST, call, failure, model_fixture, no_network_fixture, short_builtin_text_fixture, zeros  # noqa: F401
from safetensors.torch import load_file

from gramian.adapters import METHODS

OWN = '''
import numpy as np

from gramian.adapters import UnitScores
from gramian.solvers import refit


def power(problem, pattern, *, power=0.5):
    """v_ij^2 G_jj^power orders the weights."""
    return refit(problem, pattern.select(problem.anchor**2 * problem.diagonal**power))


def count(module, *, backwards=False):
    """The place of a unit in its module is its score."""
    places = np.arange(module.count, dtype=np.float64)
    return UnitScores(places[::-1].copy() if backwards else places)


def neither(a, b, c):
    """No method."""
'''


@pytest.fixture(name="own")
def own_fixture(tmp_path, monkeypatch) -> None:
    """A module of methods in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "ordered", raising=False)
    Path("ordered.py").write_text(OWN)


def report_of(folder: str) -> dict:
    return json.loads(Path(folder, "gramian.json").read_text())


# -- what there is -----------------------------------------------------------------------------------------------------


def test_the_list_has_a_line_for_every_method(capsys):
    assert call("methods") == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(METHODS)
    for line, method in zip(lines, METHODS.values(), strict=True):
        assert line.split()[1] == method.granularity and line.rstrip().endswith(method.described.partition("\n")[0])
    assert call("methods", "--json", "-", "--quiet") == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == list(METHODS) and listed["flap"]["granularity"] == "units"
    assert listed["l0"]["settings"] == {"target": "model", "target_blend": 0.5, "damping": "auto"}


def test_one_method_is_explained(capsys):
    assert call("methods", "l0") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert words.startswith("l0 zeroes single weights: --sparsity min_V f(V)")
    for said in ("--set steps= 180", '--damping "auto"', "--target-blend 0.5", "second moments of what enters each operator"):
        assert said in words
    assert call("methods", "numerical") == 0
    assert capsys.readouterr().out.startswith("numerical removes heads and channels: --ratio\n")


def test_a_method_of_ones_own_is_explained(own, capsys):
    assert call("methods", "ordered:power") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "v_ij^2 G_jj^power orders the weights." in words and "--set power= 0.5" in words
    assert call("methods", "ordered:count", "--json", "-", "--quiet") == 0
    document = json.loads(capsys.readouterr().out)["ordered:count"]
    assert document["granularity"] == "units" and document["options"] == {"backwards": False}


def test_what_is_no_method_is_said(own, capsys):
    assert call("methods", "magic") == 2
    assert "no method 'magic'; there are fistapruner" in capsys.readouterr().err
    assert "'ordered:neither' cannot be called as solve(problem, pattern)" in failure(capsys, "methods", "ordered:neither")
    assert "'ordered:none' cannot be imported" in failure(capsys, "methods", "ordered:none")
    assert "'missing:power' cannot be imported" in failure(capsys, "methods", "missing:power")


def test_the_list_needs_no_torch():
    code = "import sys; from gramian.adapters.cli.main import main\n"
    code += "print(main(['methods']), sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "0 []" and done.stderr == ""


def test_the_help_of_prune_is_two_screens(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    assert call("prune", "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert 50 < len(lines) <= 100
    titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert len(titles) == len(set(titles))  # of groups of options


# -- methods of one's own ----------------------------------------------------------------------------------------------


def test_options_reach_a_method_of_ones_own(own, model):
    args = ["prune", model, *FAST, "--no-perplexity", "--method", "ordered:power", "--sparsity", "2:4"]
    assert call(*args, "--out", "plain") == 0
    assert call(*args, "--out", "other", "--set", "power=1") == 0
    assert report_of("plain")["settings"]["options"] == {"power": 0.5}
    assert report_of("other")["settings"]["options"] == {"power": 1}
    assert set(zeros(Path("other")).values()) == {0.5}
    plain, other = (load_file(Path(folder, "model.safetensors")) for folder in ("plain", "other"))
    assert any(not plain[name].equal(other[name]) for name in plain)


def test_options_of_ones_own_method_are_checked_before_the_model_is_read(own, model, capsys):
    args = ["prune", model, *FAST, "--out", "sparse", "--method", "ordered:power"]
    assert "power has no option 'strength'; it has power" in failure(capsys, *args, "--set", "strength=1")
    assert "--ratio 0.5 does not go with 'ordered:power'" in failure(capsys, *args, "--ratio", "0.5")
    assert not Path("sparse").exists()


def test_a_score_of_ones_own_removes_units(own, model):
    args = ["prune", model, *FAST, "--no-perplexity", "--method", "ordered:count", "--ratio", "0.3", "--include", "mlp"]
    assert call(*args, "--out", "first") == 0
    assert call(*args, "--out", "last", "--set", "backwards=true") == 0
    assert abs(report_of("first")["ratio"] - 0.3) < 0.01 and report_of("last")["settings"]["options"] == {"backwards": True}
    name = "model.layers.0.mlp.up_proj.weight"
    dense, first, last = (load_file(Path(folder, "model.safetensors"))[name] for folder in (model, "first", "last"))
    kept = len(first)
    assert kept == len(last) < len(dense) and first.equal(dense[-kept:]) and last.equal(dense[:kept])
