"""Weights that are no plain tensors in memory are refused before any work, with the way out; the model stays as it is."""

from __future__ import annotations

import pytest
import torch
from tiny import WINDOWS, parameters, run, same, tiny_model
from torch import nn
from torch.nn.utils import parametrizations, prune, remove_weight_norm, spectral_norm, weight_norm
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from gramian.adapters import capture, perplexity, save
from gramian.adapters.models.layers import Layer
from gramian.adapters.models.plain_modules import check_plain

NAME = "model.layers.1.mlp.up_proj"


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


class Packed(nn.Parameter):
    """As libraries of quantisation have them."""


def old_weight_norm(module: nn.Module) -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        weight_norm(module)


def whole_numbers(module: nn.Module) -> None:
    module.weight = nn.Parameter(module.weight.detach().to(torch.int8), requires_grad=False)


def eight_bits(module: nn.Module) -> None:
    module.weight = nn.Parameter(module.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)


def of_its_own_class(module: nn.Module) -> None:
    module.weight = Packed(module.weight.detach())


def hooked(module: nn.Module) -> None:
    """A weight that a hook computes, which no library is known for."""
    weight = module.weight
    del module.weight
    module.own = nn.Parameter(weight.detach())
    module.weight = module.own * 1
    module.register_forward_pre_hook(lambda module, args: setattr(module, "weight", module.own * 1))


CHANGES = {
    "parametrised weight norm": (parametrizations.weight_norm, r"parametrize.remove_parametrizations\(module, 'weight'\)"),
    "parametrised spectral norm": (parametrizations.spectral_norm, "remove_parametrizations"),
    "a parametrisation": (lambda module: register_parametrization(module, "weight", Doubled()), "computes"),
    "weight norm": (old_weight_norm, r"remove_weight_norm\(module, 'weight'\)"),
    "spectral norm": (spectral_norm, r"remove_spectral_norm\(module, 'weight'\)"),
    "torch's pruning": (lambda module: prune.l1_unstructured(module, "weight", 0.3), r"prune.remove\(module, 'weight'\)"),
    "a hook": (hooked, "computes weight from other parameters .*make it a parameter again"),
    "whole numbers": (whole_numbers, r"Linear.* is quantised .*int8.*quantise the result"),
    "eight bits": (eight_bits, "quantised .*float8_e4m3fn"),
    "a class of its own": (of_its_own_class, "quantised or kept in another form .*Packed"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_plain_is_refused_before_any_work(change, tmp_path):
    model = tiny_model("llama").requires_grad_(False)
    act, message = CHANGES[change]
    act(model.get_submodule(NAME))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for method in ({"method": "wanda"}, {"method": "flap", "ratio": 0.2}):
        with pytest.raises(ValueError, match=rf"{NAME}.*{message}"):
            run(model, **method)
    with pytest.raises(ValueError, match=rf"{NAME}.*{message}"), capture(model, [NAME]):
        raise AssertionError("not reached")
    with pytest.raises(ValueError, match=rf"{NAME}.*{message}"):
        save(model, None, tmp_path / "out")
    after = model.state_dict()
    assert after.keys() == before.keys() and all(after[name].equal(before[name]) for name in before)


def test_the_way_out_leads_out():
    model = tiny_model("llama").requires_grad_(False)
    for path, act, undo in (
        ("up_proj", old_weight_norm, remove_weight_norm),
        ("gate_proj", parametrizations.weight_norm, lambda module: remove_parametrizations(module, "weight")),
        (
            "down_proj",
            lambda module: prune.l1_unstructured(module, "weight", 0.3),
            lambda module: prune.remove(module, "weight"),
        ),
    ):
        act(model.model.layers[0].mlp.get_submodule(path))
        undo(model.model.layers[0].mlp.get_submodule(path))
    assert run(model, method="magnitude", sparsity=0.5).sparsity >= 0.5


def test_what_is_written_to_a_layer_is_there():
    for module in (nn.Linear(3, 4), Conv1D(4, 3)):
        layer = Layer("it", module)
        layer.assign(torch.zeros(4, 3))
        assert not module.weight.any()


def test_a_pruned_mask_elsewhere_is_found():
    """Where no operator of the model is concerned: its embedding would be lost on saving all the same."""
    model = tiny_model("llama")
    parametrizations.weight_norm(model.model.embed_tokens)
    with pytest.raises(ValueError, match=r"^model\.embed_tokens computes weight"):
        check_plain(model)


def test_models_without_memory():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_model("llama").config)
    for act in (
        lambda: run(model, method="wanda"),
        lambda: perplexity(model, WINDOWS, progress=False),
        lambda: save(model, None, "x"),
    ):
        with pytest.raises(ValueError, match=r"embed_tokens\.weight has no memory.*gramian\.load.*stream"):
            act()


def test_weights_that_are_put_on_the_disk(saved, tmp_path):
    pytest.importorskip("accelerate")
    place = {"model.embed_tokens": "cpu", "model.norm": "cpu", "lm_head": "cpu", "model.rotary_emb": "cpu",
             "model.layers.0": "cpu", "model.layers.1": "disk"}  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(saved, device_map=place, offload_folder=str(tmp_path / "offloaded"))
    before = parameters(model.model.layers[0])
    with pytest.raises(ValueError, match=r"model\.layers\.1\.self_attn\.q_proj\.weight has no memory.*device_map"):
        run(model, method="wanda")
    assert same(parameters(model.model.layers[0]), before)
