"""The model inside `torch.compile` and `DataParallel` is found; adapters of PEFT and what is no model are refused."""

from __future__ import annotations

import pytest
import torch
from stacked_models import stacked_model
from tiny import WINDOWS, tiny_model
from torch import nn

from gramian.adapters.measure.embeddings import embed
from gramian.adapters.measure.likelihood import perplexity
from gramian.adapters.measure.tangent_kernels import kernel_change
from gramian.adapters.models.wrappers import plain_model


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # needs no compiler


class PeftModel(nn.Module):
    """What `peft` shows of itself: a module of its package around the model, whose attributes it passes on."""

    __module__ = "peft.peft_model"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model = model
        self.config = model.config

    def get_output_embeddings(self) -> nn.Module:
        return self.base_model.get_output_embeddings()


class PeftModelForCausalLM(PeftModel):
    __module__ = "elsewhere"


class LoraLinear(nn.Linear):
    __module__ = "peft.tuners.lora.layer"


def test_the_model_inside_is_the_same():
    model = tiny_model("llama")
    parallel = nn.DataParallel(model)
    for given in (model, parallel, compiled(model), compiled(parallel), nn.DataParallel(compiled(model))):
        assert plain_model(given) is model
    alone = stacked_model("bert")
    assert plain_model(compiled(alone)) is alone


def test_what_is_wrapped_is_measured():
    model = tiny_model("llama")
    losses = perplexity(model, WINDOWS, progress=False).losses
    for wrapped in (compiled(model), nn.DataParallel(model)):
        assert perplexity(wrapped, WINDOWS, progress=False).losses.equal(losses)
        assert embed(wrapped, WINDOWS).equal(embed(model, WINDOWS))


@pytest.mark.parametrize("wrapped", [PeftModel, PeftModelForCausalLM, lambda model: nn.DataParallel(PeftModel(model))])
def test_adapters_have_to_be_merged(wrapped):
    model = wrapped(tiny_model("llama"))
    for measure in (plain_model, lambda each: perplexity(each, WINDOWS, progress=False), lambda each: embed(each, WINDOWS)):
        with pytest.raises(ValueError, match=r"PeftModel\w* has adapters of PEFT.*model.merge_and_unload\(\)"):
            measure(model)
    with pytest.raises(ValueError, match="merge_and_unload"):
        kernel_change(model, WINDOWS, {"model.layers.0.mlp.down_proj": [0]})


def test_adapters_inside_a_model_have_to_be_merged():
    model = tiny_model("llama")
    model.model.layers[1].mlp.up_proj = LoraLinear(32, 48)
    with pytest.raises(ValueError, match="LlamaForCausalLM has adapters of PEFT"):
        plain_model(model)


@pytest.mark.parametrize("given", ["org/name", (tiny_model("llama"), None), nn.Linear(2, 2), None])
def test_what_is_no_model_of_transformers(given):
    with pytest.raises(ValueError, match=f"type {type(given).__name__}, expected a PreTrainedModel.*gramian.load returns"):
        plain_model(given)
