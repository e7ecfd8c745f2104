"""Models that were wrapped, or changed by hand: saved as what they are, or refused where what is saved would not load."""

from __future__ import annotations

import pytest
import torch
from stacked_models import stacked_model
from tiny import parameters, same, tiny_model
from torch import nn

from gramian.adapters import load, save


def drop_a_block(model) -> None:
    model.model.layers = model.model.layers[:1]


def add_a_block(model) -> None:
    model.model.layers.append(model.model.layers[0])


def widen(model) -> None:
    mlp = model.model.layers[0].mlp
    mlp.gate_proj, mlp.up_proj, mlp.down_proj = (
        nn.Linear(32, 64, bias=False),
        nn.Linear(32, 64, bias=False),
        nn.Linear(64, 32, bias=False),
    )


def add_a_bias(model) -> None:
    model.model.layers[0].self_attn.q_proj.bias = nn.Parameter(torch.zeros(32))


def factorise(model) -> None:
    model.model.layers[0].self_attn.q_proj = nn.Sequential(nn.Linear(32, 4, bias=False), nn.Linear(4, 32, bias=False))


def shorten_the_vocabulary(model) -> None:
    model.lm_head = nn.Linear(32, 100, bias=False)


@pytest.mark.parametrize("change", [add_a_block, widen, add_a_bias, factorise, shorten_the_vocabulary])
def test_what_would_not_load_is_refused(change, tmp_path):
    model = tiny_model("llama")
    change(model)
    with pytest.raises(ValueError, match=r"configuration|must state no less|is a Sequential"):
        save(model, None, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_change_that_the_configuration_states(tmp_path):
    model = tiny_model("llama")
    drop_a_block(model)
    model.config.num_hidden_layers = 1
    assert same(parameters(load(save(model, None, tmp_path / "out"))[0]), parameters(model))


@pytest.mark.parametrize("wrap", [lambda model: torch.compile(model, backend="eager"), nn.DataParallel])
@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "bert"])
def test_what_is_wrapped_is_saved_as_it_is(name, wrap, tmp_path):
    model = stacked_model(name) if name in ("t5", "bert") else tiny_model(name)
    assert same(parameters(load(save(wrap(model), None, tmp_path / "out"))[0]), parameters(model))


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a PreTrainedModel of transformers"):
        save(nn.Linear(2, 2), None, tmp_path / "out")
    assert not list(tmp_path.iterdir())
