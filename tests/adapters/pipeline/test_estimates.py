"""The estimate names what would be pruned, and its figures follow the work."""

import tracemalloc

import numpy as np
import pytest
import torch
from tiny import FAMILIES, tiny_model

from gramian.adapters import Estimate, PruneConfig
from gramian.adapters.estimates.figures import Rates
from gramian.adapters.estimates.runs import run_estimate
from gramian.adapters.estimates.weights import solver_seconds, working_bytes
from gramian.adapters.methods.registry import WEIGHT_METHODS
from gramian.solvers import Quadratic, TopK

RATES = Rates(2e9, 1e9)


def planned(model_type: str = "llama", **changed) -> Estimate:
    of_windows = {name: changed.pop(name) for name in ("heldout", "evaluated") if name in changed}
    return run_estimate(tiny_model(model_type), (8, 64), PruneConfig(**changed), **of_windows, rates=RATES)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_operators_with_their_shapes(model_type):
    model = tiny_model(model_type)
    found = run_estimate(model, (2, 16), PruneConfig(), rates=RATES)
    for operator in found.operators:
        weight = model.get_submodule(operator.name).weight
        shape = tuple(weight.shape)
        assert operator.shape == (shape[::-1] if model_type == "gpt2" else shape)
        assert operator.name in str(found)
    assert "estimates" in str(found) and "peak" in str(found)


def test_the_model_stays_as_it_is():
    model = tiny_model("llama")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    run_estimate(model, (2, 16), PruneConfig())
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())


def test_figures_follow_the_work():
    usual = planned()
    assert usual.peak == sum(usual.memory.values()) and usual.duration == sum(usual.seconds.values())
    twice = run_estimate(tiny_model("llama"), (16, 64), PruneConfig(), rates=RATES)
    kept = "operator inputs kept for the target"
    assert twice.memory[kept] == 2 * usual.memory[kept] and twice.seconds["moments"] == 2 * usual.seconds["moments"]
    assert kept not in planned(target="own").memory
    assert planned(calibrate_on="pruned", target="model").seconds["forward passes"] > usual.seconds["forward passes"]
    assert planned(heldout=1).memory["moments of one block, float64"] == 2 * usual.memory["moments of one block, float64"]
    assert "perplexity, dense and pruned" in planned(evaluated=1).seconds
    assert (
        planned(method="wanda").seconds["solvers"] < planned(method="sparsegpt").seconds["solvers"] < usual.seconds["solvers"]
    )
    assert planned(options={"inner_steps": 100}).seconds["solvers"] > usual.seconds["solvers"]
    assert planned(jobs=2).peak > usual.peak
    assert len(planned(include="q_proj").operators) == 2
    plain, refitted = (planned(method="wanda", refit=refit) for refit in ("none", "block"))
    assert refitted.peak > plain.peak and refitted.duration - plain.duration == pytest.approx(
        refitted.seconds["refits of blocks"]
    )


def test_changes_of_basis_are_counted():
    """Reordering takes as long wherever heads are turned or not, and nothing where no pattern is n:m."""
    spent = [
        planned(method="wanda", sparsity="2:4", **chosen).seconds.get("changes of basis", 0.0)
        for chosen in ({}, {"rotate_heads": True}, {"permute_channels": True}, {"rotate_heads": True, "permute_channels": True})
    ]
    assert spent[0] == 0 < min(spent[1:]) and spent[3] == pytest.approx(spent[1] + spent[2])
    assert planned(method="wanda", rotate_heads=True).seconds["changes of basis"] == pytest.approx(spent[1])


def test_bad_arguments():
    with pytest.raises(ValueError, match="no method 'magic'"):
        planned(method="magic")
    with pytest.raises(ValueError, match="no operator is left"):
        planned(include="nothing")


def test_rates_are_measured():
    rates = Rates.measured(torch.device("cpu"), size=64, seconds=0.01)
    assert rates.single > 1e6 and rates.double > 1e6


@pytest.mark.parametrize("method", WEIGHT_METHODS)
def test_working_arrays_are_within_a_factor_of_two(method):
    generator = np.random.default_rng(0)
    problem = Quadratic.from_data(generator.standard_normal((600, 256)), generator.standard_normal((192, 256)))
    tracemalloc.start()
    try:
        WEIGHT_METHODS[method].decide(problem, TopK(0.5))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.5 < working_bytes(method, problem.shape) / peak < 2
    assert solver_seconds(method, problem.shape, {}, RATES, heldout=True) > 0
