"""Perplexities against the full logits of tiny models, and windows and models that are refused."""

from __future__ import annotations

import dataclasses
import doctest
from typing import Any

import pytest
import torch
from rounding import rounding
from tiny import FAMILIES, VOCABULARY, random_model, tiny_model

from gramian.adapters.measure import likelihood as evaluate
from gramian.adapters.measure.likelihood import Perplexity, paired_difference, perplexity

MORE_THAN_A_MAP: dict[str, dict[str, Any]] = {
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.0625},
    "recurrent_gemma": {"logits_soft_cap": 2.0, "attention_window_size": 8, "num_hidden_layers": 3},
}


def tokens(n: int = 3, length: int = 20) -> torch.Tensor:
    return torch.randint(VOCABULARY, (n, length), generator=torch.Generator().manual_seed(1))


def direct_losses(model, windows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=windows).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), windows[:, 1:].flatten(), reduction="none")


@pytest.mark.parametrize("model_type", [*FAMILIES, "gemma2"])
@pytest.mark.parametrize("batch", [1, 2])
def test_equals_the_full_logits(model_type, batch, monkeypatch):
    monkeypatch.setattr(evaluate, "VOCABULARY", 7)  # which does not divide the model's
    model, windows = tiny_model(model_type), tokens()
    result = perplexity(model, windows, batch=batch, progress=False)
    expected = direct_losses(model, windows)
    torch.testing.assert_close(result.losses, expected)
    assert result.tokens == 3 * 19 and result.losses.dtype == torch.float32
    assert result.value == pytest.approx(expected.double().mean().exp().item(), rel=1e-6)


def test_softcapping_matters_in_the_tiny_model():
    model, windows = tiny_model("gemma2"), tokens()
    capped = perplexity(model, windows, progress=False)
    with torch.no_grad():
        assert model(input_ids=windows).logits.abs().max() <= 2.0
        hidden = model.base_model(input_ids=windows, use_cache=False).last_hidden_state
        assert model.lm_head(hidden).abs().max() > 2.0
    assert capped.value < 2 * VOCABULARY


def test_half_precision_and_training_mode():
    model = tiny_model("gpt2").train()
    exact = perplexity(model, tokens(), progress=False)
    assert model.training
    assert exact.losses.equal(perplexity(model, tokens(), progress=False).losses)  # no dropout while evaluating
    rounded = perplexity(model.bfloat16(), tokens(), progress=False)
    assert rounded.losses.dtype == torch.float32
    assert rounded.value == pytest.approx(exact.value, rel=0.05)


def test_every_module_keeps_its_mode():
    model = tiny_model("llama").train()
    model.model.layers[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    perplexity(model, torch.arange(8)[None], progress=False)
    assert {name: module.training for name, module in model.named_modules()} == modes


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("model_type", MORE_THAN_A_MAP)
def test_logits_that_are_more_than_one_linear_map_are_the_model_s_own(model_type, batch, monkeypatch):
    """Scaled, or capped under another name, a few positions at a time: 8 logits of 258 entries do not fit in 2400."""
    model, windows = random_model(model_type, **MORE_THAN_A_MAP[model_type]), tokens()
    expected = direct_losses(model, windows)
    sizes = []
    model.lm_head.register_forward_hook(lambda _, inputs, logits: sizes.append(logits.numel()))
    monkeypatch.setattr(evaluate, "LOGITS", 2400)
    result = perplexity(model, windows, batch=batch, progress=False)
    torch.testing.assert_close(result.losses, expected)
    assert max(sizes[2:]) <= 2400 and len(sizes) > 10  # the first two are of the few tokens that are compared
    assert result.value == pytest.approx(expected.double().mean().exp().item(), rel=1e-6)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_model_that_changes_its_logits_is_measured_by_them():
    """Also where the change depends on all positions at once, so that no slice of them will do."""
    for change in (lambda logits: logits * 1.1, lambda logits: logits + logits.cumsum(1)):
        model = tiny_model("llama")
        plain = perplexity(model, tokens(), progress=False)
        model.register_forward_hook(lambda _, i, out, change=change: dataclasses.replace(out, logits=change(out.logits)))
        changed = perplexity(model, tokens(), progress=False)
        torch.testing.assert_close(changed.losses, direct_losses(model, tokens()))
        assert (changed.losses - plain.losses).abs().max() > 0.01


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "granite"])
def test_a_configuration_that_asks_for_tuples(model_type):
    """Stock llama itself cannot run by such a configuration."""
    model = random_model(model_type)
    expected = perplexity(model, tokens(), progress=False)
    model.config.return_dict = False
    assert perplexity(model, tokens(), progress=False).losses.equal(expected.losses)
    assert model.config.return_dict is False


def test_refuses_a_model_without_a_head():
    with pytest.raises(ValueError, match="LlamaModel has no language-model head"):
        perplexity(tiny_model("llama").model, tokens(), progress=False)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (torch.zeros(5, dtype=torch.int64), r"shape \(5,\)"),
        (torch.zeros(2, 1, dtype=torch.int64), "length >= 2"),
        (torch.zeros(0, 5, dtype=torch.int64), "n >= 1"),
        (torch.zeros(2, 5), "float32"),
        (torch.full((1, 5), VOCABULARY), f"token {VOCABULARY}, .* {VOCABULARY} tokens"),
        (torch.full((1, 5), -1), "token -1"),
        (torch.zeros(1, 129, dtype=torch.int64), "129 tokens, .* the model's context has 128"),
    ],
)
def test_bad_windows(windows, message):
    with pytest.raises(ValueError, match=message):
        perplexity(tiny_model("gpt2"), windows, progress=False)


def test_windows_as_other_tools_have_them():
    model, windows = tiny_model("llama"), tokens()
    expected = perplexity(model, windows, progress=False).losses
    pairs = [(window[None], window[None]) for window in windows]
    for given in (windows.tolist(), windows.numpy(), {"input_ids": windows}, pairs):
        assert perplexity(model, given, progress=False).losses.equal(expected)
    with pytest.raises(ValueError, match="padding"):
        perplexity(model, {"input_ids": windows, "attention_mask": torch.zeros_like(windows)}, progress=False)


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_losses_that_are_not_finite_are_refused_at_their_window(value, batch):
    """One token's embedding is damaged, which the third window alone reads."""
    model, windows = tiny_model("llama"), tokens(4) % 100
    windows[2, 11] = 200
    assert perplexity(model, windows, batch=batch, progress=False).value > 0
    with torch.no_grad():
        model.get_input_embeddings().weight[200, 3] = value
    with pytest.raises(ValueError, match=r"LlamaForCausalLM are NaN or infinite at window 2.*weights are damaged.*in float32"):
        perplexity(model, windows, batch=batch, progress=False)
    assert perplexity(model, windows[[0, 1, 3]], batch=batch, progress=False).value > 0


def test_a_mean_loss_without_an_exponential_is_refused():
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)
    with pytest.raises(ValueError, match=r"the mean loss of LlamaForCausalLM is \d[\d.e+]* nats.*damaged"):
        perplexity(model, tokens(), progress=False)


def test_the_example_of_the_docstring_and_one_line_for_a_result():
    assert repr(Perplexity(18.8149, torch.zeros(16368))) == "Perplexity(18.81, 16368 tokens)"
    done = doctest.testmod(evaluate)
    assert done.attempted > 3 and done.failed == 0


def test_paired_difference():
    a, b = (Perplexity(0.0, torch.tensor(losses)) for losses in ([1.0, 2.0, 4.0], [1.0, 1.0, 1.0]))
    mean, error = paired_difference(a, b)
    assert mean == pytest.approx(4 / 3)
    assert error == pytest.approx((7 / 3 / 3) ** 0.5)  # variance of 0, 1, 3 is 7/3
    assert paired_difference(b, a) == (-mean, error)
    with pytest.raises(ValueError, match="3 and 1 tokens"):
        paired_difference(a, Perplexity(1.0, torch.zeros(1)))


def test_large_logits_neither_overflow_nor_vanish(monkeypatch):
    """A head whose logits reach hundreds, the largest in the last slice or in the first, beside which others do not count.

    A loss is the largest logit + log of a sum - one logit. With m = max_v sum_k |w_vk h_k| each of both logits is a sum of
    n products of magnitude m, and either difference rounds by at most 2 m: as much as 2 n + 4 terms. The sum has V terms
    of at most 1 and is at least 1, so that its logarithm is off by the rounding of V + 2 terms of magnitude 1. As one batch
    the windows have the same hidden states on either way."""
    monkeypatch.setattr(evaluate, "VOCABULARY", 7)
    model = tiny_model("llama")
    with torch.no_grad():
        hidden = model.base_model(input_ids=tokens(), use_cache=False).last_hidden_state
    for order in (1, -1):
        with torch.no_grad():
            model.lm_head.weight.copy_(1e2 * order * torch.linspace(-1, 1, VOCABULARY)[:, None].expand_as(model.lm_head.weight))
        result = perplexity(model, tokens(), batch=len(tokens()), progress=False)
        magnitude = 1e2 * hidden.abs().sum(-1).max().item()
        slack = rounding(2 * hidden.shape[-1] + 4, magnitude, "float32") + rounding(VOCABULARY + 2, 1.0, "float32")
        assert 1e3 * slack < result.losses.max()
        torch.testing.assert_close(result.losses, direct_losses(model, tokens()), rtol=0, atol=slack)


def test_a_model_that_cannot_be_run_is_named(monkeypatch):
    model = tiny_model("llama")

    def forward(*args, **kwargs):
        raise RuntimeError("shape '[64, 1]' is invalid\nfor input of size 96")

    monkeypatch.setattr(model.model.layers[0].mlp, "forward", forward)
    with pytest.raises(ValueError, match=r"^LlamaForCausalLM cannot be run on a few tokens: .*size 96"):
        perplexity(model, torch.arange(16).reshape(2, 8), progress=False)
