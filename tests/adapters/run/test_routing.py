"""What reaches packed experts: seen in every form of the products, nothing left behind, and nothing missed in silence."""

import pytest
import torch
from expert_models import ROUTED, expert_model, experts_of, inputs_of_experts, path_of_experts
from tiny import WINDOWS
from torch import nn

from gramian.adapters.models.experts import Packed, active_weights, eager_experts, expert_at, packed_in
from gramian.adapters.models.layers import Layer
from gramian.adapters.run.routing import forced, watch_experts


@pytest.mark.parametrize("model_type", ROUTED)
def test_what_reaches_experts_is_what_a_loop_finds(model_type):
    model = expert_model(model_type, torch.float64)
    path = path_of_experts(model)
    module = model.get_submodule(path)
    expected = inputs_of_experts(model, WINDOWS, path)
    found, form = {}, model.config._experts_implementation
    up, down = packed_in(module)
    with watch_experts(up, lambda each: found.update({f"{path}.gate_up_proj.{e}": x for e, x in each.inputs.items()})):
        with watch_experts(down, lambda each: found.update({f"{path}.down_proj.{e}": x for e, x in each.inputs.items()})):
            model(input_ids=WINDOWS, use_cache=False)
    assert found.keys() == expected.keys()
    for name, rows in expected.items():  # in whatever order
        assert torch.allclose(found[name].sort(dim=0).values, rows.sort(dim=0).values, rtol=1e-10, atol=1e-10)
        assert torch.allclose(found[name].T @ found[name], rows.T @ rows, rtol=1e-10, atol=1e-10)
    assert model.config._experts_implementation == form and "forward" not in vars(module)


def test_an_expert_is_an_operator_by_its_name():
    model = expert_model("gpt_oss")
    name = "model.layers.1.mlp.experts.down_proj.2"
    layer, packed = Layer.at(model, name), model.model.layers[1].mlp.experts.down_proj
    assert repr(layer) == f"Layer({name}, 32 outputs x 24 inputs, 0 tokens)"
    assert layer.weight.equal(packed[2].T) and layer.tensors[name].equal(packed[2])
    before = packed.clone()
    layer.assign(torch.zeros(32, 24))
    assert not packed[2].any() and packed[[0, 1, 3]].equal(before[[0, 1, 3]])
    stages = experts_of(model.model.layers[1])
    assert stages == tuple(tuple(f"mlp.experts.{leaf}.{e}" for e in range(4)) for leaf in ("gate_up_proj", "down_proj"))
    for nothing in ("model.layers.1.mlp.experts.down_proj.4", "model.layers.1.mlp.experts.act.0", "model.layers.1", "2"):
        assert expert_at(model, nothing) is None
    with pytest.raises(AttributeError):
        Layer.at(model, "model.layers.1.mlp.experts.down_proj.4")
    assert Layer.at(model, "model.layers.1.self_attn.q_proj").site is model.model.layers[1].self_attn.q_proj


@pytest.mark.parametrize("model_type", ["mixtral", "gpt_oss"])
def test_tokens_can_be_forced_through_any_expert(model_type):
    model = expert_model(model_type, torch.float64)
    site = packed_in(model.get_submodule(path_of_experts(model)))[1]
    tokens = torch.randn(5, 32, dtype=torch.float64)
    found = forced(site, 3, tokens)
    assert found.shape == (5, 24)
    with eager_experts(model):
        outputs = site.module(tokens, torch.full((5, 1), 3), torch.ones(5, 1, dtype=torch.float64))
    bias = site.module.down_proj_bias[3] if model_type == "gpt_oss" else 0
    assert torch.allclose(outputs, found @ site.matrix(3).T + bias)


class Copies(nn.Module):
    """Experts that multiply with copies of their weights, in which nothing can be recognised."""

    num_experts, is_transposed = 2, False

    def __init__(self) -> None:
        super().__init__()
        self.up_proj = nn.Parameter(torch.randn(2, 3, 4))
        self.broken = False

    def forward(self, tokens, index):
        if self.broken:
            raise KeyError("broken")
        return sum(nn.functional.linear(tokens, self.up_proj[e].clone()) for e in range(2))


def test_experts_that_cannot_be_seen_are_refused_and_left_as_they_were():
    module = Copies()
    module.config = type("Config", (), {"_experts_implementation": "batched_mm"})()
    received = []
    with watch_experts(Packed(module, "up_proj"), received.append):
        with pytest.raises(RuntimeError, match="Copies does not multiply its tokens with slices of up_proj"):
            module(torch.ones(2, 4), None)
        module.broken = True
        with pytest.raises(KeyError, match="broken"):
            module(torch.ones(2, 4), None)
        assert module.config._experts_implementation == "eager"
    assert not received and "forward" not in vars(module) and module.config._experts_implementation == "batched_mm"


def test_a_token_meets_the_weights_of_the_experts_that_it_is_routed_to():
    block = expert_model("mixtral").model.layers[0]
    packed = sum(each.numel() for each in block.parameters() if each.ndim == 3)
    assert active_weights(block) == sum(each.numel() for each in block.parameters()) - packed // 2
    assert active_weights(block.self_attn) == sum(each.numel() for each in block.self_attn.parameters())
