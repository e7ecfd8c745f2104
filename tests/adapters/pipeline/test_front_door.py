"""The front door: what it takes as an amount, what it refuses, and what it reaches."""

from __future__ import annotations

import pydoc
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import WINDOWS, same, tiny_model
from tiny import parameters as parameters_of

import gramian
from gramian.adapters import PruneConfig
from gramian.adapters.estimates.figures import Rates
from gramian.solvers import TopK


@pytest.mark.parametrize("sparsity", [0.5, np.float32(0.5), TopK(0.5), "2:4"])
def test_amounts_of_weights(sparsity):
    report = gramian.prune(tiny_model("llama"), WINDOWS, "magnitude", sparsity=sparsity, progress=False)
    assert report.sparsity == 0.5


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("numericl", {"ratio": 0.2}, "no method 'numericl' .*; there are fistapruner, .*, numerical, .*module:name"),
        ("l0", {"ratio": 0.2}, "ratio=0.2 does not go with 'l0', which zeroes single weights: give it sparsity="),
        ("flap", {"sparsity": 0.5}, "sparsity=0.5 does not go with 'flap', .*: give it ratio="),
        ("flap", {"jobs": 2}, "jobs=2 does not go with 'flap', which removes whole heads and channels$"),
        ("depth", {"jobs": 2}, "jobs=2 does not go with 'depth', which removes whole blocks$"),
        ("depth", {"allocation": "owl"}, "'depth', which removes whole blocks: leave it out$"),
        ("wanda", {"heads": "groups"}, "heads='groups' does not go with 'wanda'"),
        ("numerical", {"damping": "auto"}, "damping='auto' does not go with 'numerical'"),
    ],
)
def test_settings_of_the_other_kind_are_refused_before_any_work(method, settings, message):
    model = tiny_model("llama")
    before = parameters_of(model)
    with pytest.raises(ValueError, match=message):
        gramian.prune(model, WINDOWS, method, progress=False, **settings)
    assert same(before, parameters_of(model))


def test_a_model_is_used_with_its_gradients_on():
    """As `load` leaves it: no method that differentiates leaves a gradient behind or needs the flag off."""
    model = tiny_model("opt")
    assert all(parameter.requires_grad for parameter in model.parameters())
    gramian.prune(model, WINDOWS[:2], "tasp", ratio=0.1, progress=False)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("method", "settings"), [("l0", {"sparsity": "2:4"}), ("numerical", {"ratio": 0.3})])
def test_what_a_run_would_take(tmp_path, method, settings):
    """A directory needs no weights, and windows may be numbers; times and sizes grow with the number of windows."""
    model, rates = tiny_model("llama"), Rates(1e9, 1e9)
    model.config.save_pretrained(tmp_path)
    found = gramian.estimate(model, WINDOWS, method, rates=rates, **settings)
    again = gramian.estimate(tmp_path, tuple(WINDOWS.shape), method, rates=rates, **settings)
    assert again.seconds == found.seconds
    own = {"model", "one block, streamed"}
    assert {name: size for name, size in again.memory.items() if name not in own} == {
        name: size for name, size in found.memory.items() if name not in own
    }
    count, length = WINDOWS.shape
    more = gramian.estimate(tmp_path, (4 * count, length), config=PruneConfig(method, **settings), rates=rates)
    assert more.duration > found.duration and more.peak > found.peak


def test_what_several_processes_would_take():
    one, two = (gramian.estimate(tiny_model("llama"), (8, 24), "sparsegpt", ranks=ranks) for ranks in (1, 2))
    assert one.duration > 0 and two.ranks == 2 and "critical path" in f"{two}"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"method": "l0", "ratio": 0.2}, ValueError, "ratio=0.2 does not go with 'l0'"),
        ({"method": "l0", "sparsty": 0.2}, TypeError, r"estimate\(\) has no setting 'sparsty'"),
        ({"method": "l0", "ranks": 0}, ValueError, "ranks=0"),
        ({"method": "numerical", "ranks": 2}, ValueError, "'numerical' removes units"),
        ({"method": "l0", "config": PruneConfig()}, ValueError, "give one of them"),
    ],
)
def test_estimates_that_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        gramian.estimate(tiny_model("llama"), (8, 24), **given)


def test_methods_are_described_by_what_they_do():
    described = gramian.methods()
    assert "heads similar to a kept one" in described["greedy-output"] and "|df/dW W|" in described["tasp"]
    assert all(described.values())


def test_folders_are_within_reach_and_help_begins():
    code = "import gramian\nprint(gramian.solvers.L1, gramian.adapters.Layer, gramian.proofs.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "gramian.proofs" in done.stdout, done.stderr
    assert "gramian.load(" in pydoc.render_doc(gramian)


def test_help_and_refusals_without_the_extra(monkeypatch):
    """A fresh process in which torch cannot be found."""
    code = """
import sys, importlib.util
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "safetensors", "tqdm"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
real = importlib.util.find_spec
def find_spec(name, package=None):
    try:
        return real(name, package)
    except ModuleNotFoundError:
        return None
importlib.util.find_spec = find_spec
import gramian, pydoc
print("gramian.load(" in pydoc.render_doc(gramian), "load" in dir(gramian), "solvers" in dir(gramian))
try:
    gramian.load
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["True False True", "gramian.load needs torch: pip install 'gramian[models]'"], (
        done.stderr
    )


def test_own_gradients_are_not_disturbed():
    model = tiny_model("opt")
    weight = next(model.parameters())
    weight.grad = torch.ones_like(weight)
    gramian.prune(model, WINDOWS[:2], "tasp", ratio=0.1, progress=False)
    assert torch.equal(weight.grad, torch.ones_like(weight))
