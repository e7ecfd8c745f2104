"""What structured pruning computes and reports, against what hooks see of the dense and of the pruned model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from rounding import rounding_of
from structured_models import HELD, TOKENS, exact, kept_columns, logits, pruned, rows_of, seen
from tiny import FAMILIES, tiny_model

from gramian.adapters import pipeline
from gramian.adapters.models.shrink import shrink_model
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import operator
from gramian.adapters.removal import plan as removal_plan


@pytest.mark.parametrize("method", ["numerical", "flap", "magnitude-l2"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_shrunk_model_is_the_masked_and_compensated_one(model_type, method, monkeypatch):
    masked = []

    def keep_a_copy(model, keep):
        masked.append(copy.deepcopy(model))
        shrink_model(model, keep)

    monkeypatch.setattr(pipeline, "shrink_model", keep_a_copy)
    model, _ = pruned(tiny_model(model_type), method=method, ratio=0.3)
    assert unit_groups_of(masked[0]) != unit_groups_of(model)
    torch.testing.assert_close(logits(model), logits(masked[0]), rtol=0, atol=rounding_of(model, logits))


@pytest.mark.parametrize("inputs", ["pruned", "dense"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_compensation_is_the_ridge_solution_and_the_report_has_its_errors(model_type, inputs):
    dense = exact(model_type)
    damping = 0.02
    model, report = pruned(copy.deepcopy(dense), calibrate_on=inputs, damping=damping, target_blend=1, ratio=0.4)
    wide, narrow, wide_apart, apart = (seen(each, tokens) for tokens in (TOKENS, HELD) for each in (dense, model))
    for row in report.modules:
        (x, y), (star, output) = wide[row.name], narrow[row.name]
        before, after = (rows_of(each, row.name) for each in (dense, model))
        removed = row.units[1] < row.units[0]
        kept = kept_columns(dense, model, row.name)
        if inputs == "dense":
            star, output = x[:, kept], x[:, kept] @ after.T
        else:
            wanted = wide_apart[row.name][1]
            held = ((apart[row.name][1] - wanted) ** 2).sum() / (wanted**2).sum()
            assert row.heldout_error == pytest.approx(held, rel=1e-6, abs=1e-12)
        assert row.relative_error == pytest.approx(((output - y) ** 2).sum() / (y**2).sum(), rel=1e-6, abs=1e-12)
        masked = ((star @ before[:, kept].T - y) ** 2).sum() / (y**2).sum()
        assert row.masked_error == pytest.approx(masked, rel=1e-6, abs=1e-12)
        if not removed:
            assert np.array_equal(after, before) and row.residual is None
            continue
        ridge = np.diag(np.sqrt(damping * (star**2).sum(axis=0)))
        expected = np.linalg.lstsq(np.vstack([star, ridge]), np.vstack([y, ridge @ before[:, kept].T]), rcond=None)[0].T
        np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())
        assert row.residual is not None and row.residual < 1e-9
        assert row.relative_error < row.masked_error
    assert any(row.units[1] < row.units[0] for row in report.modules)


@pytest.mark.parametrize("target_blend", [0.25, None])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_target_goes_a_part_of_the_way_to_the_dense_model(model_type, target_blend, monkeypatch):
    monkeypatch.setattr(pipeline, "shrink_model", lambda model, keep: None)  # the inputs of units set to zero can still be seen
    dense = exact(model_type)
    model, report = pruned(copy.deepcopy(dense), target_blend=target_blend, damping=0.02, ratio=0.4)
    blend = report.settings["target_blend"]
    assert blend == (target_blend or removal_plan.TARGET_BLEND) < 1
    wide, narrow, wide_apart, apart = (seen(each, tokens) for tokens in (TOKENS, HELD) for each in (dense, model))
    for row in report.modules:
        before, after = (rows_of(each, row.name) for each in (dense, model))
        for error, dense_seen, pruned_seen in (
            (row.relative_error, wide, narrow), (row.heldout_error, wide_apart, apart)
        ):  # fmt: skip
            star, output = pruned_seen[row.name]
            target = blend * dense_seen[row.name][1] + (1 - blend) * star @ before.T
            assert error == pytest.approx(((output - target) ** 2).sum() / (target**2).sum(), rel=1e-6, abs=1e-12)
        star = narrow[row.name][0]
        target = blend * wide[row.name][1] + (1 - blend) * star @ before.T
        kept = np.abs(after).sum(axis=0) > 0
        if not kept.all():
            ridge = np.diag(np.sqrt(0.02 * (star[:, kept] ** 2).sum(axis=0)))
            stacked = np.vstack([star[:, kept], ridge]), np.vstack([target, ridge @ before[:, kept].T])
            expected = np.linalg.lstsq(*stacked, rcond=None)[0].T
            np.testing.assert_allclose(after[:, kept], expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())


def test_the_whole_way_where_no_weights_are_solved_for_or_producers_are():
    assert [
        pruned(tiny_model("llama"), **options)[1].settings["target_blend"]
        for options in ({"compensate": False}, {"method": "flap"}, {"refit_producers": True}, {"target_blend": 0.75})
    ] == [1, 1, 1, 0.75]


def test_no_single_swap_helps_after_the_search():
    """Magnitudes select badly. With dense inputs every module's problem is known, and all its swaps are tried."""
    dense, damping = exact("llama", num_key_value_heads=4), 0.05
    ways = {"method": "magnitude-l2", "compensate": True, "calibrate_on": "dense", "damping": damping, "ratio": 0.4}
    plain, before = pruned(copy.deepcopy(dense), **ways)
    model, after = pruned(copy.deepcopy(dense), **ways, swap_search=True)
    assert [row.units for row in after.modules] == [row.units for row in before.modules] and after.settings["swap_search"]
    wide = seen(dense, TOKENS)

    def loss(name, kept):
        x, y = wide[name]
        ridge, weights = np.sqrt(damping * (x**2).sum(axis=0)), rows_of(dense, name)
        stacked = np.vstack([x, np.diag(ridge)]), np.vstack([y, (weights * ridge).T])
        columns = unit_group.columns(kept)
        left = np.linalg.lstsq(stacked[0][:, columns], stacked[1], rcond=None)[0]
        return ((stacked[0][:, columns] @ left - stacked[1]) ** 2).sum()

    better = 0
    for row in after.modules:
        unit_group = unit_groups_of(dense)[row.name]
        old, new = (np.unique(kept_columns(dense, each, row.name) // unit_group.size) for each in (plain, model))
        others = np.setdiff1d(np.arange(unit_group.units), new)
        reached = loss(row.name, new)
        swaps = [loss(row.name, np.sort(np.append(np.delete(new, k), other))) for k in range(len(new)) for other in others]
        assert reached <= loss(row.name, old) * (1 + 1e-9) and all(reached <= each * (1 + 1e-5) for each in swaps)
        better += reached < loss(row.name, old) * 0.99
    assert better > len(after.modules) / 2


@pytest.mark.parametrize("model_type", FAMILIES)
def test_compensation_lowers_the_error_of_every_module(model_type):
    for method in ("numerical", "wanda-sp", "random"):
        _, report = pruned(tiny_model(model_type), method=method, compensate=True)
        touched = [row for row in report.modules if row.units[1] < row.units[0]]
        assert touched and all(row.relative_error < row.masked_error for row in touched)
        assert all(row.residual < 1e-5 for row in touched)
        _, report = pruned(tiny_model(model_type), method=method, compensate=False)
        assert all(row.relative_error == row.masked_error and row.residual is None for row in report.modules)


@pytest.mark.parametrize("score", ["newton", "box"])
@pytest.mark.parametrize("allocation", ["equal", "score", "loss"])
def test_masks_are_no_better_than_their_bounds(score, allocation):
    dense = exact("llama", num_key_value_heads=4)
    model, report = pruned(copy.deepcopy(dense), options={"score": score}, allocation=allocation, compensate=False)
    wide, errors = seen(dense, TOKENS), {}
    for row in report.modules:
        x, y = wide[row.name]
        kept = kept_columns(dense, model, row.name)
        error = ((x[:, kept] @ operator(model, row.name).weight.numpy().T - y) ** 2).sum() / (y**2).sum()
        errors[row.name] = error
        if row.detail:
            assert row.detail["mask_error"] == pytest.approx(error, rel=1e-8, abs=1e-12)
            assert 0 <= row.detail["mask_bound"] <= error * (1 + 1e-9) + 1e-12
    if allocation == "loss":
        figures = report.allocation
        assert figures["mask_error"] == pytest.approx(sum(errors.values()), rel=1e-8)
        assert 0 < figures["mask_bound"] <= figures["mask_error"] and figures["rounding"] >= -1e-9
        assert "rounding" in str(report)
    else:
        assert report.allocation == {} and all(row.detail for row in report.modules)
