"""Streaming inputs out of any torch model: what counts as a token, and that no hook remains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rounding import rounding
from stacked_models import stacked_model
from tiny import FAMILIES, VOCABULARY, tiny_model
from torch import nn

from gramian.adapters import capture
from gramian.adapters.models.discovery import operator_names

IDS = torch.arange(36).view(3, 12) * 5 % VOCABULARY


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def small_net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


def gram(tokens: torch.Tensor) -> np.ndarray:
    flat = tokens.detach().reshape(-1, tokens.shape[-1]).double().numpy()
    return flat.T @ flat


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_operator_of_a_model_is_reproduced(model_type):
    model = tiny_model(model_type)
    names = operator_names(model)
    seen: dict[str, list[torch.Tensor]] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, args, out, name=name: seen.update({name: [args[0], out]}))
        for name in names
    ]
    with torch.no_grad(), capture(model, names) as layers:
        model(input_ids=IDS)
    for handle in handles:
        handle.remove()
    assert list(layers) == names and hooks(model) == 0
    rng = np.random.default_rng(0)
    for name, layer in layers.items():
        inputs, outputs = seen[name]
        bias = getattr(layer.module, "bias", None)
        product = inputs @ layer.weight.T
        torch.testing.assert_close(product if bias is None else product + bias, outputs)
        problem = layer.problem()
        weights = problem.anchor + rng.normal(size=problem.shape)
        change = torch.from_numpy(weights - problem.anchor)
        direct = 0.5 * float((inputs.double() @ change.T).square().sum())
        np.testing.assert_allclose(problem.loss(weights), direct, rtol=1e-9)
        assert layer.moments.tokens == IDS.numel()


def test_calls_add_up_and_layers_stay_usable():
    model, tokens = small_net(), torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    with capture(model, ["0", "2"]) as layers:
        for part in tokens.split([7, 40, 3]):
            model(part)
    model(tokens)  # no longer watched
    assert layers["0"].moments.tokens == layers["2"].moments.tokens == 50
    slack = rounding(50, gram(tokens).max())  # the largest sum of squares bounds the sizes of products
    np.testing.assert_allclose(layers["0"].problem().gram, gram(tokens), rtol=0, atol=slack)
    np.testing.assert_allclose(layers["2"].problem().gram, gram(model[:2](tokens)), rtol=1e-6, atol=1e-6)


def test_a_module_called_with_a_keyword():
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.net[2](input=torch.relu(self.net[0](input=tokens)))

    tokens = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(1))
    model = Wrapped()
    with capture(model, ["net.0", "net.2"]) as layers:
        model(tokens=tokens)
    slack = rounding(2 * 9, gram(tokens).max())
    np.testing.assert_allclose(layers["net.0"].problem().gram, gram(tokens), rtol=0, atol=slack)
    np.testing.assert_allclose(layers["net.2"].problem().gram, gram(torch.relu(model.net[0](tokens))), rtol=1e-6, atol=1e-6)


def test_gradients_flow_through_a_watched_model():
    model = small_net()
    with capture(model, ["0"]) as layers:
        model(torch.ones(3, 6)).sum().backward()
    assert model[0].weight.grad is not None and layers["0"].moments.tokens == 3


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt", "gemma3_text"])
def test_padding_does_not_count(model_type):
    """Behind the text causality hides padding from the tokens, so the text alone must give the same moments."""
    model = tiny_model(model_type)
    names = operator_names(model)
    lengths = [12, 5, 1]
    mask = torch.tensor([[1] * n + [0] * (12 - n) for n in lengths])
    with torch.no_grad(), capture(model, names) as padded:
        model(input_ids=IDS, attention_mask=mask)
    with torch.no_grad(), capture(model, names) as alone:
        for row, length in zip(IDS, lengths):
            model(input_ids=row[None, :length])
    for name in names:
        assert padded[name].moments.tokens == sum(lengths)
        expected = alone[name].problem().gram
        np.testing.assert_allclose(padded[name].problem().gram, expected, rtol=1e-4, atol=1e-5 * np.max(expected))


def test_padding_in_front_of_the_text_does_not_count():
    model = tiny_model("opt")  # takes its positions from the mask
    name = "model.decoder.layers.0.self_attn.k_proj"
    ids, mask = torch.zeros(2, 9, dtype=torch.int64), torch.zeros(2, 9, dtype=torch.int64)
    ids[0], mask[0] = IDS[0, :9], 1
    ids[1, 5:], mask[1, 5:] = IDS[1, :4], 1
    with torch.no_grad(), capture(model, [name]) as padded:
        model(input_ids=ids, attention_mask=mask.bool())
    with torch.no_grad(), capture(model, [name]) as alone:
        model(input_ids=IDS[:1, :9])
        model(input_ids=IDS[1:2, :4])
    np.testing.assert_allclose(padded[name].problem().gram, alone[name].problem().gram, rtol=1e-5, atol=1e-5)


def test_a_mask_that_a_wrapper_passes_on():
    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny_model("llama")

        def forward(self, *args, **kwargs):
            return self.inner(*args, **kwargs)

    name = "inner.model.layers.0.self_attn.q_proj"
    wrapper = Wrapper()
    with torch.no_grad(), capture(wrapper, [name]) as layers:
        wrapper(input_ids=IDS, attention_mask=torch.zeros_like(IDS).index_fill_(1, torch.arange(4), 1))
    assert layers[name].moments.tokens == 4 * len(IDS)


def test_encoder_and_decoder_have_masks_of_their_own():
    model, ids = stacked_model("t5"), torch.arange(2, 14).view(2, 6)
    first = torch.zeros_like(ids).index_fill_(1, torch.arange(4), 1)
    second = torch.zeros_like(ids).index_fill_(1, torch.arange(5), 1)
    cross = "decoder.block.0.layer.1.EncDecAttention"
    names = ["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.0.SelfAttention.q", f"{cross}.q", f"{cross}.k"]
    for masks, counts in (
        ({"attention_mask": first}, [8, 12, 12, 8]),
        ({"attention_mask": first, "decoder_attention_mask": second}, [8, 10, 10, 8]),
    ):
        with torch.no_grad(), capture(model, names) as layers:
            model(input_ids=ids, decoder_input_ids=ids, **masks)
        assert [layers[name].moments.tokens for name in names] == counts


def test_a_mask_lasts_for_one_call():
    model = tiny_model("llama")
    name = "model.layers.0.self_attn.q_proj"
    with torch.no_grad(), capture(model, [name]) as layers:
        model(input_ids=IDS, attention_mask=torch.zeros_like(IDS).index_fill_(1, torch.arange(4), 1))
        assert layers[name].moments.tokens == 12
        model(input_ids=IDS)
    assert layers[name].moments.tokens == 12 + 36


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0", "9"], "the model has no module '9'; names come from model.named_modules"),
        (["0", "1"], "1 is a ReLU without a weight matrix"),
    ],
)
def test_bad_names(names, message):
    model = small_net()
    with pytest.raises(ValueError, match=message), capture(model, names):
        raise AssertionError("not reached")
    assert hooks(model) == 0


def test_no_hook_survives_an_error():
    model = small_net()
    with pytest.raises(KeyError), capture(model, ["0", "2"]):
        assert hooks(model) == 4  # two of the layers, and one before and one after the model
        raise KeyError
    assert hooks(model) == 0
    with pytest.raises(ValueError, match=r"^0: inputs have 99 channels"), capture(model, ["0", "2"]):
        model(torch.ones(2, 99))
    assert hooks(model) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_name_the_layer(value):
    model = small_net()
    with torch.no_grad():
        model[0].bias[3] = value
    with pytest.raises(ValueError, match=r"^2: the inputs hold NaN or Inf"), capture(model, ["0", "2"]) as layers:
        model(torch.ones(4, 6))
    assert hooks(model) == 0 and layers["0"].moments.tokens == 4 and layers["2"].moments.tokens == 0


def test_a_convolution_is_no_matrix_and_has_no_experts():
    model = nn.Sequential(nn.Conv1d(4, 4, 3))
    with pytest.raises(ValueError, match="0 is a Conv1d without a weight matrix"), capture(model, ["0"]):
        pass
