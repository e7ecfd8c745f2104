"""Producers refitted before their module is pruned: what is solved, that it is never worse, what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from structured_models import HELD, TOKENS, exact, kept_columns, pruned, rows_of, seen
from tiny import FAMILIES, names_of

from gramian.adapters.config.settings import RANGE
from gramian.adapters.methods.producers import ProducerRefit
from gramian.adapters.models.layers import Layer
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.passes import removal


def test_both_levels_are_least_squares_with_their_ridge():
    """Of three batches the last is held out. One producer has a bias, which plays no part."""
    generator = np.random.default_rng(0)
    dense = [torch.from_numpy(generator.normal(size=(2, 20, 8))) for _ in range(3)]
    star = [each + 0.3 * torch.from_numpy(generator.normal(size=each.shape)) for each in dense]
    layers = [Layer(name, torch.nn.Linear(8, 5, bias=name == "q").double().requires_grad_(False)) for name in "qk"]
    before = [layer.weight.clone() for layer in layers]
    refitted = ProducerRefit(layers, "o", (2, 1), 0.1, torch.float64)
    for batch, inputs in enumerate(dense):
        refitted.collector.receive(batch, inputs)
    refitted.refit(star)
    fitted, target = (np.concatenate([np.asarray(each).reshape(-1, 8) for each in some[:2]]) for some in (star, dense))
    ridge = np.diag(np.sqrt(0.1 * (fitted**2).sum(axis=0)))
    for layer, old in zip(layers, before):
        wanted = np.vstack([target @ old.numpy().T, ridge @ old.numpy().T])
        expected = np.linalg.lstsq(np.vstack([fitted, ridge]), wanted, rcond=None)[0].T
        np.testing.assert_allclose(layer.weight.numpy(), expected, rtol=1e-8, atol=1e-10)
    refitted.undo()
    assert all(layer.weight.equal(old) for layer, old in zip(layers, before))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_module_keeps_the_better_of_both(model_type):
    dense = exact(model_type)
    how = {"method": "greedy-output", "options": {"tau": 0}, "allocation": "score"}
    model, report = pruned(copy.deepcopy(dense), ratio=0.4, refit_producers=True, **how)
    wide, narrow, apart, held = (seen(each, tokens) for tokens in (TOKENS, HELD) for each in (dense, model))
    assert report.modules[0].recovered is None and report.settings["refit_producers"] is True
    tried = [row for row in report.modules if row.recovered is not None]
    assert len(tried) == len(report.modules) - 1 and any(row.recovered for row in tried)
    for row in report.modules:
        y, output = wide[row.name][1], narrow[row.name][1]
        assert row.relative_error == pytest.approx(((output - y) ** 2).sum() / (y**2).sum(), rel=1e-6, abs=1e-12)
        wanted = apart[row.name][1]
        error = ((held[row.name][1] - wanted) ** 2).sum() / (wanted**2).sum()
        assert row.heldout_error == pytest.approx(error, rel=1e-6, abs=1e-12)
        if row.recovered is not None:
            assert row.unrecovered_error is not None and row.relative_error <= row.unrecovered_error * (1 + 1e-9)
            assert row.recovered == (row.relative_error < row.unrecovered_error * (1 - 1e-12))
        unit_group = unit_groups_of(model)[row.name]
        moved = [
            not np.isin(rows_of(model, f"{unit_group.block}.{path}"), rows_of(dense, f"{unit_group.block}.{path}")).all()
            for path, _ in unit_group.structure.producers
        ]
        assert all(moved) if row.recovered else not any(moved), row.name
    assert f"refitted producers brought {sum(row.recovered for row in tried)} of {len(tried)} modules nearer" in str(report)


def test_what_does_not_help_is_undone(monkeypatch):
    """A refit that goes wrong switches producers off: every module then keeps its own, as if none had been refitted."""

    def ruin(self, star):
        refit(self, star)
        for layer in self.producers:
            layer.weight.zero_()

    refit = ProducerRefit.refit
    monkeypatch.setattr(removal.ProducerRefit, "refit", ruin)
    tried, report = pruned(exact("llama"), refit_producers=True)
    plain, expected = pruned(exact("llama"), target_blend=1)
    assert all(tensor.equal(plain.state_dict()[name]) for name, tensor in tried.state_dict().items())
    assert [row.recovered for row in report.modules] == [None, False, False, False]
    assert [row.relative_error for row in report.modules] == [row.relative_error for row in expected.modules]
    assert all(row.recovered is None and row.unrecovered_error is None for row in expected.modules)


@pytest.mark.parametrize("options", [{"compensate": False}, {"method": "flap", "calibrate_on": "pruned"}, {"damping": 0.0}])
def test_every_compensation_goes_with_it(options):
    _, report = pruned(exact("gpt2"), refit_producers=True, **options)
    for row in report.modules[1:]:
        assert row.relative_error <= row.unrecovered_error * (1 + 1e-9)


def test_nothing_drifts_with_dense_inputs():
    with pytest.raises(ValueError, match="refit_producers=True needs calibrate_on='pruned'"):
        pruned(exact("opt"), refit_producers=True, calibrate_on="dense")
    with pytest.raises(ValueError, match="refit_producers=True needs calibrate_on='pruned'"):
        pruned(exact("opt"), refit_producers=True, method="flap")


# -- ranges of blocks and types of modules -----------------------------------------------------------------------------


@pytest.mark.parametrize(("blocks", "touched"), [(slice(1, 2), [1]), (slice(-1, None), [2]), (slice(None, 2), [0, 1])])
def test_blocks_outside_the_range_are_kept_whole(blocks, touched):
    dense = exact("gemma3_text")
    model, report = pruned(copy.deepcopy(dense), ratio=0.1, blocks=blocks)
    assert [row.name.split(".")[2] for row in report.modules] == [str(index) for index in touched for _ in range(2)]
    assert 0.1 <= report.ratio < 0.11 and report.settings["blocks"] == RANGE.write(blocks)
    for name, tensor in dense.state_dict().items():
        if ".layers." in name and int(name.split(".")[2]) not in touched:
            assert tensor.equal(model.state_dict()[name])
    with pytest.raises(ValueError, match=r"no module is left by .* blocks=slice\(3, 9, None\): .* of blocks 0 to 2"):
        pruned(exact("gemma3_text"), blocks=slice(3, 9))


def test_the_same_fraction_is_removed_of_each_type_and_scores_divide_it_among_layers():
    dense = exact("llama", num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=8)
    for index, layer in enumerate(dense.model.layers):
        for module in (layer.mlp.down_proj, layer.self_attn.o_proj):
            module.weight.mul_(1000.0**index)
    model, report = pruned(copy.deepcopy(dense), ratio=0.25, allocation="per_type", method="wanda-sp")
    for kind in ("heads", "channels"):
        rows = [row for row in report.modules if row.name in names_of(dense, kind)]
        before, after = (sum(row.units[k] for row in rows) for k in range(2))
        assert after / before == pytest.approx(0.75, abs=0.05)
        assert rows[0].units[1] == 1 or rows[1].units[1] == rows[1].units[0]  # the first layers give all they can
        assert rows[-1].units[1] == rows[-1].units[0]
        assert all(len(kept_columns(dense, model, row.name)) == row.units[1] * (4 if kind == "heads" else 1) for row in rows)
