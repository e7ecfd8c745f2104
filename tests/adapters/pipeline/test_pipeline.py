"""`prune` on every family: exact patterns, and every reported error recomputed from plain hooks on whole models."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from exact_methods import EXACT
from tiny import FAMILIES, HELDOUT, LENGTH, QUICK, WINDOWS, parameters, run, same, tiny_model
from torch import nn

from gramian.adapters import METHODS, Method, PruneConfig, Report, Tokens
from gramian.adapters.methods.registry import WEIGHT_METHODS
from gramian.adapters.models.block_lists import blocks_path
from gramian.adapters.models.discovery import operator_names, stages_of
from gramian.solvers import Quadratic
from gramian.solvers.support.baselines import magnitude

pytestmark = pytest.mark.usefixtures("small_batches")
WALKS = [(inputs, target) for inputs in ("dense", "pruned") for target in ("own", "block", "model")]


def weight_of(model: nn.Module, name: str) -> np.ndarray:
    """W (q, p) in float64."""
    module = model.get_submodule(name)
    weight = module.weight.detach()
    return (weight.T if type(module).__name__ == "Conv1D" else weight).double().numpy()


def blend(dense: nn.Module, pruned: nn.Module, names: Iterable[str]) -> nn.Module:
    """The dense model with the named operators replaced by their pruned versions."""
    mixed = copy.deepcopy(dense)
    with torch.no_grad():
        for name in names:
            mixed.get_submodule(name).weight.copy_(pruned.get_submodule(name).weight)
    return mixed


def flows(model: nn.Module, windows: torch.Tensor, names: list[str]) -> dict[str, np.ndarray]:
    """What each module receives when the whole model runs, as (tokens, p) in float64."""
    seen: dict[str, np.ndarray] = {}

    def note(name: str) -> Any:
        return lambda _, args: seen.__setitem__(name, args[0].reshape(-1, args[0].shape[-1]).double().numpy())

    handles = [model.get_submodule(name).register_forward_pre_hook(note(name)) for name in names]
    with torch.no_grad():
        model.base_model(input_ids=windows, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def paths(dense: nn.Module, pruned: nn.Module, windows: torch.Tensor, inputs: str, target: str) -> dict[str, Any]:
    """X and X* of every operator, from whole models in which only what the two switches say has been pruned."""
    path, stages = blocks_path(dense), stages_of(dense)
    found: dict[str, Any] = {}
    done: list[str] = []  # operators of earlier blocks
    blocks = dense.get_submodule(path)
    for index in range(len(blocks)):
        entering = done if inputs == "pruned" else []
        within: list[str] = []  # operators of earlier stages of this block
        for stage in stages[index]:
            names = [f"{path}.{index}.{operator}" for operator in stage]
            wanted = flows(blend(dense, pruned, [] if target == "model" else entering), windows, names)
            star = wanted
            if target != "own":
                star = flows(blend(dense, pruned, [*entering, *within]), windows, names)
            found |= {name: (wanted[name], star[name]) for name in names}
            within += names
        done = done + within
    return found


def relative_error(dense: nn.Module, pruned: nn.Module, name: str, target: np.ndarray, star: np.ndarray) -> float:
    outputs = target @ weight_of(dense, name).T
    return float(np.sum((star @ weight_of(pruned, name).T - outputs) ** 2) / np.sum(outputs**2))


def check_errors(
    dense: nn.Module, pruned: nn.Module, report: Report, inputs: str, target: str, target_blend: float = 1.0
) -> None:
    for windows, field in ((WINDOWS, "relative_error"), (HELDOUT, "heldout_error")):
        expected = paths(dense, pruned, windows, inputs, target)
        for row in report.operators:
            wanted, star = expected[row.name]
            value = relative_error(dense, pruned, row.name, target_blend * wanted + (1 - target_blend) * star, star)
            np.testing.assert_allclose(getattr(row, field), value, rtol=2e-3, err_msg=f"{row.name} {field}")


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_and_method(model_type, method):
    """Exact pattern, honest errors, and nothing but the operators' weights changed."""
    model, dense = tiny_model(model_type), tiny_model(model_type)
    before = parameters(model)
    options = QUICK if method == "fistapruner" else None
    report = run(model, method=method, options=options, heldout=HELDOUT)
    names = operator_names(model)
    assert [row.name for row in report.operators] == names
    for row in report.operators:
        weight = weight_of(model, row.name)
        zeros = weight == 0
        assert row.shape == weight.shape and row.sparsity == np.mean(zeros) == 0.5
        assert np.all(np.sum(zeros, axis=1) == weight.shape[1] // 2) or method != "wanda"
        assert not np.array_equal(weight, weight_of(dense, row.name))
    assert report.sparsity == 0.5
    untouched = set(before) - {f"{name}.weight" for name in names}
    assert len(untouched) > 2 and same(before, parameters(model), untouched)
    config = PruneConfig(method)
    check_errors(
        dense, model, report, *(config.own(name) for name in ("calibrate_on", "target")), config.own("target_blend") or 1.0
    )


@pytest.mark.parametrize(("inputs", "target"), WALKS)
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "gpt2", "opt"])
def test_errors_are_about_the_inputs_and_targets_asked_for(model_type, inputs, target):
    model, dense = tiny_model(model_type), tiny_model(model_type)
    report = run(model, method="sparsegpt", calibrate_on=inputs, target=target, heldout=HELDOUT)
    assert (report.settings["calibrate_on"], report.settings["target"]) == (inputs, target)
    check_errors(dense, model, report, inputs, target)


def test_the_walks_differ():
    """Else the tests above could not tell them apart; with dense inputs the dense model is the dense layer."""
    errors = {}
    for walk in WALKS:
        report = run(tiny_model("llama"), method="sparsegpt", calibrate_on=walk[0], target=walk[1])
        errors[walk] = tuple(row.relative_error for row in report.operators)
    assert errors["dense", "block"] == errors["dense", "model"]
    assert len(set(errors.values())) == len(WALKS) - 1


@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize(("pattern", "kept", "group"), [("2:4", 2, 4), ("1:4", 1, 4), ("4:8", 4, 8)])
def test_group_patterns_are_exact(method, pattern, kept, group):
    model = tiny_model("gpt2")
    options = QUICK if method == "fistapruner" else None
    report = run(model, method=method, pattern=pattern, options=options)
    for row in report.operators:
        weight = weight_of(model, row.name)
        counts = np.sum((weight != 0).reshape(-1, group), axis=1)
        assert np.all(counts <= kept) and row.pattern == pattern and row.sparsity == np.mean(weight == 0)
        assert np.all(counts == kept) or method == "fistapruner"  # whose LASSO may have zeros of its own


def spied(monkeypatch: pytest.MonkeyPatch, inputs: str, target: str) -> dict[int, Quadratic]:
    """A method `spy` that prunes by magnitude and notes the problems it is given, in order."""
    problems: dict[int, Quadratic] = {}

    def spy(problem, pattern):
        if problem.shape[0] > 1:  # not the trial that options are checked with
            problems[len(problems)] = problem
        return magnitude(problem, pattern)

    monkeypatch.setitem(METHODS, "spy", Method(spy, settings={"calibrate_on": inputs, "target": target}))
    return problems


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_correction_reaches_the_solver(model_type, monkeypatch):
    """The gradient at W is W (X* - X)^T X*: zero for what comes first in a block, not for what follows."""
    problems = spied(monkeypatch, "dense", "block")
    model, dense = tiny_model(model_type), tiny_model(model_type)
    report = run(model, method="spy")
    first = stages_of(model)[0][0]
    expected = paths(dense, model, WINDOWS, "dense", "block")
    for row, problem in zip(report.operators, problems.values(), strict=True):
        target, star = expected[row.name]
        gram = star.T @ star
        np.testing.assert_allclose(problem.gram, gram, rtol=1e-4, atol=1e-5 * np.max(gram))
        np.testing.assert_array_equal(problem.anchor, weight_of(dense, row.name))
        if row.name.endswith(first):
            assert problem.slope is None
        else:
            slope = weight_of(dense, row.name) @ ((star - target).T @ star)
            np.testing.assert_allclose(problem.slope, slope, rtol=1e-3, atol=1e-4 * np.max(np.abs(slope)))
            assert np.linalg.norm(slope) > 1e-2 * np.linalg.norm(problem.at_zero[1])


@pytest.mark.parametrize("target_blend", [0.25, 1.0])
def test_a_correction_may_go_part_of_the_way(target_blend):
    model, dense = tiny_model("llama"), tiny_model("llama")
    report = run(model, method="sparsegpt", calibrate_on="pruned", target="model", target_blend=target_blend, heldout=HELDOUT)
    assert report.settings["target_blend"] == target_blend
    check_errors(dense, model, report, "pruned", "model", target_blend)


def test_without_correction_no_problem_has_a_slope(monkeypatch):
    for inputs in ("dense", "pruned"):
        problems = spied(monkeypatch, inputs, "own")
        run(tiny_model("llama"), method="spy")
        assert len(problems) == 14 and all(problem.slope is None for problem in problems.values())


@pytest.mark.parametrize("model_type", ["gemma3_text", "gpt2"])
@pytest.mark.parametrize("method", WEIGHT_METHODS)
def test_parallel_equals_serial_and_both_repeat(model_type, method):
    options = QUICK if method == "fistapruner" else None
    results = []
    for jobs in (1, 1, 2, 5):
        model = tiny_model(model_type)
        report = run(model, method=method, options=options, calibrate_on="dense", jobs=jobs, heldout=HELDOUT)
        rows = [(row.name, row.relative_error, row.heldout_error, row.residual, row.detail) for row in report.operators]
        results.append((parameters(model), rows))
    for weights, rows in results[1:]:
        assert same(results[0][0], weights) and rows == results[0][1]


def test_repeats_with_pruned_inputs():
    results = []
    for _ in range(2):
        model = tiny_model("gemma3_text")
        run(model, method="sparsegpt")
        results.append(parameters(model))
    assert same(*results)


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_not_selected_stays(jobs):
    model, dense = tiny_model("gemma3_text"), tiny_model("gemma3_text")
    selection: dict[str, Any] = {"include": r"layers\.[01]\.", "exclude": "(q|v|gate|down)_proj"}
    report = run(model, options=QUICK, jobs=jobs, heldout=HELDOUT, **selection)
    names = operator_names(dense, **selection)
    assert [row.name for row in report.operators] == names and len(names) == 6
    chosen = {f"{name}.weight" for name in names}
    before, after = parameters(dense), parameters(model)
    assert same(before, after, set(before) - chosen) and all(not before[name].equal(after[name]) for name in chosen)
    expected = paths(dense, model, WINDOWS, "dense", "block")  # operators that were not pruned are dense in `model`
    for row in report.operators:
        np.testing.assert_allclose(row.relative_error, relative_error(dense, model, row.name, *expected[row.name]), rtol=2e-3)


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_errors_are_judged_after_the_cast(model_type, sparsity):
    """At sparsity 0 the rounding to bfloat16 is the only error."""
    model, dense = tiny_model(model_type), tiny_model(model_type)
    model.config.dtype = torch.bfloat16
    report = run(model, method="sparsegpt", sparsity=sparsity, calibrate_on="dense", target="block", heldout=HELDOUT)
    assert report.settings["dtype"] == "bfloat16" and model.dtype == torch.float32
    for name in operator_names(model):
        weight = model.get_submodule(name).weight.detach()
        assert weight.equal(weight.bfloat16().float())
    assert all(row.relative_error > 1e-7 for row in report.operators)
    check_errors(dense, model, report, "dense", "block")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_model_that_runs_in_another_dtype(model_type, dtype):
    model, dense = tiny_model(model_type).to(dtype), tiny_model(model_type).to(dtype)
    for each in (model, dense):
        each.config.dtype = dtype
    name = operator_names(model)[0]  # nothing pruned before it, whatever the batches
    report = run(model, method="magnitude", include=name.replace(".", r"\."))
    target = flows(dense, WINDOWS, [name])[name]
    value = relative_error(dense, model, name, target, target)
    assert value > 1e-3
    np.testing.assert_allclose(report.operators[0].relative_error, value, rtol=1e-6 if dtype == torch.float64 else 0.02)


def test_a_model_in_training_mode_is_calibrated_without_dropout():
    reference, model = tiny_model("gpt2"), tiny_model("gpt2").train()
    expected, report = (run(each, method="sparsegpt") for each in (reference, model))
    assert [row.relative_error for row in report.operators] == [row.relative_error for row in expected.operators]
    assert same(parameters(reference), parameters(model)) and model.training


def test_the_report_says_what_was_done():
    tokens = Tokens(WINDOWS, "test.txt", seed=4)
    report = run(tiny_model("llama"), tokens=tokens, method="wanda", pattern="2:4", heldout=HELDOUT)
    settings = report.settings
    assert settings["method"] == "wanda" and settings["pattern"] == "2:4" and settings["windows"] == [7, LENGTH]
    assert settings["heldout"] == {"windows": [5, LENGTH], "sha256": Tokens(HELDOUT, "").digest}
    assert settings["calibration"] == {"source": "test.txt", "seed": 4, "sha256": tokens.digest}
    errors = [row.relative_error for row in report.operators]
    assert report.mean_error == pytest.approx(np.mean(errors))
    text = str(report)
    assert all(row.name in text for row in report.operators) and "14 operators, 50.00% zeros" in text
    assert report.to_dict()["operators"][0]["name"] == "model.layers.0.self_attn.q_proj"
    assert run(tiny_model("llama"), method="wanda").mean_heldout_error is None


def test_no_gradients_are_kept():
    model = tiny_model("llama")
    assert all(parameter.requires_grad for parameter in model.parameters())
    run(model, method="wanda")
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("model_type", FAMILIES)
def test_heldout_windows_may_have_another_length(model_type):
    report = run(tiny_model(model_type), method="magnitude", heldout=HELDOUT[:, :-1])
    assert all(row.heldout_error > 0 for row in report.operators)
