"""Edges of structured pruning: budgets met exactly, modules that add nothing, settings that would change nothing."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from stacked_models import WINDOWS, stacked_model
from structured_models import TOKENS, exact, in_blocks, kept_columns, pruned, rows_of, seen
from tiny import FAMILIES, tiny_model

from gramian.adapters import PruneConfig, prune
from gramian.adapters.estimates.figures import Rates
from gramian.adapters.estimates.runs import run_estimate
from gramian.adapters.files import write_json
from gramian.adapters.models.units import operator
from gramian.adapters.removal.plan import plan_removal
from gramian.solvers import MaskProblem, Quadratic

UP, DOWN = "model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj"


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_ratio_that_was_reached_is_reached_again_by_as_many_units(model_type):
    """The ratio of a report times the parameters is their number but for rounding, which must not cost one more unit."""
    for ratio in (0.13, 0.3, 0.45, 0.52):
        first, report = pruned(tiny_model(model_type), method="magnitude-l1", allocation="score", ratio=ratio)
        again, _ = pruned(tiny_model(model_type), method="magnitude-l1", allocation="score", ratio=report.ratio)
        assert in_blocks(again) == in_blocks(first)


def test_the_largest_ratio_is_in_reach():
    for width in range(18, 30):
        model = exact("llama", intermediate_size=width, num_hidden_layers=1)
        before = in_blocks(model)
        with pytest.raises(ValueError, match="out of reach") as refusal:
            plan_removal(model, PruneConfig("random", allocation="score", ratio=0.999))
        most = int(str(refusal.value).split(" as ")[1].split(" of ")[0].replace(",", ""))
        pruned(model, method="random", allocation="score", ratio=most / before)
        assert before - in_blocks(model) == most


def silent(cancelling: bool):
    """A model whose module `DOWN` adds nothing: channels come in pairs of opposite sign, or are dead."""
    model = exact("llama", num_key_value_heads=4)
    mlp = model.model.layers[1].mlp
    if cancelling:
        for layer in (mlp.gate_proj, mlp.up_proj):
            layer.weight[1::2] = layer.weight[::2]
        mlp.down_proj.weight[:, 1::2] = -mlp.down_proj.weight[:, ::2]
    else:
        mlp.up_proj.weight.zero_()
    return model


@pytest.mark.parametrize("cancelling", [True, False])
def test_what_adds_nothing_is_removed_first(cancelling):
    _, report = pruned(silent(cancelling), target_blend=1, ratio=0.1)
    units_of = {row.name: row.units for row in report.modules}
    assert units_of[DOWN][1] < units_of[DOWN][0]
    assert all(units[1] == units[0] for name, units in units_of.items() if name != DOWN)


@pytest.mark.parametrize("target_blend", [1.0, 0.5])
@pytest.mark.parametrize("score", ["newton", "box", "compensated"])
def test_modules_that_add_nothing_are_reported(score, target_blend, tmp_path):
    for cancelling in (True, False):
        options = {"score": score}
        _, report = pruned(silent(cancelling), options=options, allocation="equal", target_blend=target_blend)
        assert 0 <= report.mean_error < math.inf
        write_json(tmp_path / "report.json", report.to_dict())
        json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)


def test_a_joint_budget_names_the_module_that_adds_nothing():
    with pytest.raises(ValueError, match=rf"{DOWN}: its output is zero.*exclude"):
        pruned(silent(True), method="wanda-sp", allocation="loss")
    pruned(silent(True), method="wanda-sp", allocation="loss", exclude=r"layers\.1\.mlp")


def test_sums_of_heads_that_cancel_make_a_mask_problem():
    """Their second moment is zero, and the rounded sum may be below it."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        weight, other = rng.normal(size=(3, 8)), rng.normal(size=(3, 8))
        null = np.linalg.svd(weight)[2][3:]  # inputs that the first head's weights map to zero
        inputs = np.hstack([rng.normal(size=(20, 5)) @ null, rng.normal(size=(20, 8))])
        problem = MaskProblem.from_problem(Quadratic.from_data(inputs, np.hstack([weight, other])), groups=2)
        head = inputs[:, 8:] @ other.T
        np.testing.assert_allclose(np.diag(problem.matrix), [0, (head**2).sum()], atol=1e-12 * (head**2).sum())


@pytest.mark.parametrize("target_blend", [1.0, 0.5, 0.1])
def test_errors_of_masks_are_on_dense_inputs_whatever_the_target(target_blend):
    dense = exact("llama", num_key_value_heads=4)
    model, report = pruned(copy.deepcopy(dense), options={"score": "newton"}, allocation="equal", target_blend=target_blend)
    wide = seen(dense, TOKENS)
    for row in report.modules:
        x, y = wide[row.name]
        kept = kept_columns(dense, model, row.name)
        error = ((x[:, kept] @ rows_of(dense, row.name)[:, kept].T - y) ** 2).sum() / (y**2).sum()
        assert row.detail["mask_error"] == pytest.approx(error, rel=1e-6)
        assert row.detail["mask_bound"] <= error * (1 + 1e-9)


def test_figures_of_masks_that_swaps_replaced_are_not_reported():
    how = {"options": {"score": "box"}, "calibrate_on": "dense"}
    assert set(pruned(exact("llama"), **how)[1].allocation) == {"mask_error", "mask_bound", "rounding"}
    assert set(pruned(exact("llama"), **how, swap_search=True)[1].allocation) == {"mask_bound"}


@pytest.mark.parametrize("ratio", [0.05, 0.1])
@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_refitted_producers_add_no_bias_that_the_plan_did_not_count(model_type, ratio):
    dense = exact(model_type)
    model, report = pruned(
        copy.deepcopy(dense), method="flap", calibrate_on="pruned", refit_producers=True, allocation="per_type", ratio=ratio
    )
    assert report.ratio >= ratio
    for row in report.modules:
        assert (operator(model, row.name).bias is not None) <= (row.units[1] < row.units[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibrate_on": "dense", "target_blend": 0.5}, "with calibrate_on='dense' the target is the dense model's output"),
        ({"method": "flap", "target_blend": 0.1}, "with calibrate_on='dense'"),
        ({"method": "wanda-sp", "damping": 0.1}, "damping=0.1 changes nothing, as nothing is solved for"),
        ({"method": "flap", "damping": 0.0}, "damping=0.0 changes nothing, as nothing is solved for"),
        ({"heads": "per_kv_group", "include": "o_proj", "swap_search": True}, "swaps whole units, and heads='per_kv_group'"),
    ],
)
def test_what_would_change_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pruned(exact("llama", num_attention_heads=8, num_key_value_heads=2), **options)


def test_damping_counts_where_scores_do_though_nothing_is_compensated():
    runs = [pruned(exact("llama"), compensate=False, damping=damping)[0] for damping in (0.0, 10.0)]
    assert not torch.equal(*[model.model.layers[1].mlp.down_proj.weight[:, :20] for model in runs])


def test_types_are_two_whatever_the_stacks():
    """Feed-forward weights of the decoder are tiny: as all stacks are one type, all that is removed is theirs."""
    model = stacked_model("t5")
    for block in model.decoder.block:
        for parameter in block.layer[2].DenseReluDense.parameters():
            parameter.mul_(1e-3)
    report = prune(model, WINDOWS, method="magnitude-l1", allocation="per_type", ratio=0.1, progress=False)
    assert all((row.units[1] < row.units[0]) == row.name.startswith("decoder") for row in report.modules)


@pytest.mark.parametrize("name", ["t5", "gated t5", "bert"])
def test_plans_refuse_what_runs_would(name):
    model = stacked_model(name)
    refused = [
        ({"refit_producers": True}, "refit_producers=True needs a model that runs block by block"),
        ({"method": "greedy-output", "options": {"moment": "product"}}, "moment='product' needs a model that runs"),
    ]
    if name == "bert":
        refused += [({"method": method}, "predicts no tokens") for method in ("tasp", "snip", "grasp", "llm-pruner")]
    for options, message in refused:
        for work in (lambda **how: run_estimate(model, (4, 20), PruneConfig(**how), rates=Rates(2e9, 1e9)),
                     lambda **how: prune(model, WINDOWS, progress=False, **how)):  # fmt: skip
            with pytest.raises(ValueError, match=message):
                work(**{"method": "numerical", "ratio": 0.1} | options)
