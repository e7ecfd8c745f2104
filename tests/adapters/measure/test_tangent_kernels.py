"""Tangent kernels against gradients by hand, and their change against its bounds."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from saliency_by_hand import gradients, scores
from stacked_models import stacked_model
from structured_models import TOKENS, exact
from tiny import VOCABULARY, names_of
from transformers import AutoConfig, AutoModelForCausalLM

from gramian.adapters.data.tokens import Tokens
from gramian.adapters.measure.tangent_kernels import kernel_change
from gramian.adapters.models.shrink import shrink_model
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.solvers.units.kernel_bounds import linear_bound, smooth_bound

WINDOWS = TOKENS[:4, :12]


def keep_of(model, kept: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: np.sort(generator.permutation(48)[:kept]) for name in names_of(model, "channels")}


def rows(model, output: str) -> np.ndarray:
    """Gradients over feed-forward weights, one row per window."""
    unit_groups = [unit_group for unit_group in unit_groups_of(model).values() if unit_group.size == 1]
    names = {f"{unit_group.name}.weight" for unit_group in unit_groups}
    for unit_group in unit_groups:
        names |= {
            f"{unit_group.block}.{path}.{kind}" for path, _ in unit_group.structure.producers for kind in ("weight", "bias")
        }
    found = []
    for window in WINDOWS:
        by_name = gradients(model, window, output)
        found.append(np.concatenate([by_name[name].numpy().ravel() for name in sorted(names & set(by_name))]))
    return np.stack(found)


@pytest.mark.parametrize("output", ["logit", "loss"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt"])
def test_kernels_by_hand(model_type, output):
    model = exact(model_type)
    keep = keep_of(model, 20)
    found = kernel_change(model, Tokens(WINDOWS, "a test"), keep, output=output)
    smaller = copy.deepcopy(model)
    shrink_model(smaller, keep)
    for place, each in enumerate((model, smaller)):
        by_hand = rows(each, output)
        np.testing.assert_allclose(found.sign[place], by_hand @ np.sign(by_hand).T, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(found.plain[place], by_hand @ by_hand.T, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(np.diag(found.sign[place]), np.abs(by_hand).sum(axis=1), rtol=1e-8)
    np.testing.assert_allclose(found.gone + found.kept, np.diag(found.sign[0]), rtol=1e-9)
    assert np.all(found.change <= found.measured_bound * (1 + 1e-9)) and np.all(found.change > 0)
    before, change = np.diag(found.sign[0]).mean(), found.change.mean()
    assert repr(found) == f"KernelChange(4 windows, SignGD kernel {before:.3g} changed by {change:.3g} on average)"


def test_removed_saliency_is_that_of_the_method():
    model = exact("opt")
    keep = keep_of(model, 30)
    found = kernel_change(model, WINDOWS, keep)
    for place, window in enumerate(WINDOWS):
        by_module = dict(zip(unit_groups_of(model), scores("tasp", model, windows=window[None])))
        gone = sum(np.delete(by_module[name], kept).sum() for name, kept in keep.items())
        assert found.saliency[place] == pytest.approx(gone, rel=1e-8)
    weights = []
    for name, kept in keep.items():
        block = model.get_submodule(unit_groups_of(model)[name].block)
        weights += [np.delete(block.fc1.weight.numpy(), kept, axis=0), np.delete(block.fc1.bias.numpy(), kept)]
        weights += [np.delete(block.fc2.weight.numpy(), kept, axis=1)]
    assert found.smallest == min(np.abs(each).min() for each in weights)


def linear_readout() -> torch.nn.Module:
    """One layer without a last norm: logits are linear in what its feed-forward module puts out."""
    shape = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = AutoConfig.for_model("opt", **shape, vocab_size=VOCABULARY, _remove_final_layer_norm=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def test_behind_a_linear_readout_units_do_not_see_each_other():
    model = linear_readout()
    keep = keep_of(model, 24)
    found = kernel_change(model, WINDOWS, keep)
    np.testing.assert_allclose(found.moved, 0, atol=1e-10)
    np.testing.assert_allclose(found.change, found.gone, rtol=1e-9)
    assert np.all(found.change <= found.linear_bound)
    np.testing.assert_allclose(found.smooth_bound(1.0, 0.0), found.linear_bound)
    assert np.all(found.smooth_bound(0.5, 0.2) > found.linear_bound)
    deep = exact("opt")
    assert kernel_change(deep, WINDOWS, keep_of(deep, 24)).moved.min() > 1e-3  # elsewhere they do


def test_bounds_of_numbers():
    assert linear_bound(3.0, 2.0) == 1.5 and np.isinf(linear_bound(1.0, 0.0)) and np.isnan(linear_bound(0.0, 0.0))
    assert smooth_bound(3.0, 2.0, -0.5, 4.0, 5.0) == pytest.approx(3.0 * (1 / 2 + 4 * 5 / (2 * 0.5)))


def test_refusals():
    model = exact("llama")
    heads = names_of(model, "heads")[0]
    for keep, message in (
        ({heads: [0, 1]}, "kernels are over feed-forward weights"),
        (keep_of(model, 48), "keep removes nothing"),
        ({"model.layers.0.mlp.up_proj": [0]}, "consumes no units"),
    ):
        with pytest.raises(ValueError, match=message):
            kernel_change(model, WINDOWS, keep)
    with pytest.raises(ValueError, match="output must be one of"):
        kernel_change(model, WINDOWS, keep_of(model, 9), output="loss of labels")
    with pytest.raises(ValueError, match="hold token 1000"):
        kernel_change(model, torch.full((1, 4), 1000), keep_of(model, 9))
    encoder = stacked_model("bert")
    with pytest.raises(ValueError, match="BertModel predicts no tokens"):
        kernel_change(encoder, WINDOWS, {"encoder.layer.0.output.dense": [1, 2]})
