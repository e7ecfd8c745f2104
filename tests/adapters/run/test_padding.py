"""Under a padding mask `capture` counts exactly the tokens, or refuses where it cannot know which rows they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rounding import rounding
from stacked_models import stacked_model
from tiny import tiny_model
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from gramian.adapters import capture

IDS = torch.tensor([[1, 2, 3, 5, 5, 5], [4, 6, 5, 5, 5, 5], [7, 8, 9, 1, 2, 5]])
MASK = (IDS != 5).long()
TEXTS = [row[kept.bool()] for row, kept in zip(IDS, MASK)]


class Model(nn.Module):
    """Embeddings, and what a test does with them; the tokens that reach `linear` are of known order or not."""

    def __init__(self, rows, width: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embedding, self.linear, self.other = nn.Embedding(10, width), nn.Linear(width, width), nn.Linear(width, 3)
        self.rows = rows

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, past_key_values=None) -> torch.Tensor:
        return self.rows(self, self.embedding(input_ids) if inputs_embeds is None else inputs_embeds)


def flat(model: Model, states: torch.Tensor) -> torch.Tensor:
    return model.linear(states.reshape(-1, states.shape[-1]).relu() + 1).reshape(states.shape)


def ordered(model: Model, states: torch.Tensor) -> torch.Tensor:
    rows = states.reshape(-1, states.shape[-1])
    order = rows[:, 0].argsort()
    back = torch.empty_like(rows)
    back[order] = model.linear(rows[order])
    return back.reshape(states.shape)


def routed(model: Model, states: torch.Tensor) -> torch.Tensor:
    rows = states.reshape(-1, states.shape[-1])
    chosen = model.other(rows).argmax(-1) == model.other(rows).argmax(-1).mode().values
    rows[chosen] = model.linear(rows[chosen])
    return rows.reshape(states.shape)


def time_first(model: Model, states: torch.Tensor) -> torch.Tensor:
    return model.linear(states.transpose(0, 1)).transpose(0, 1)


def pooled(model: Model, states: torch.Tensor) -> torch.Tensor:
    return model.linear(states[:, 0])


def averaged(model: Model, states: torch.Tensor) -> torch.Tensor:
    return model.linear(states.mean(1))


def twice(model: Model, states: torch.Tensor) -> torch.Tensor:
    return flat(model, flat(model, states))


def as_often_as_padded(model: Model, states: torch.Tensor) -> torch.Tensor:
    for _ in range(1 + int((states == model.embedding.weight[4]).all(-1).sum())):
        flat(model, states)
    return states


def gram_alone(model: nn.Module, name: str) -> tuple[np.ndarray, int]:
    """What one text after the other gives, without padding."""
    with torch.no_grad(), capture(model, [name]) as layers:
        for text in TEXTS:
            model(input_ids=text[None])
    return layers[name].problem().gram, layers[name].moments.tokens


@pytest.mark.parametrize("rows", [flat, twice, pooled])
@pytest.mark.parametrize("by", ["keyword", "position", "embeddings"])
def test_tokens_are_counted_exactly(rows, by):
    model = Model(rows)
    with torch.no_grad(), capture(model, ["linear"]) as layers:
        if by == "keyword":
            model(input_ids=IDS, attention_mask=MASK)
        elif by == "position":
            model(IDS, MASK)
        else:
            model(inputs_embeds=model.embedding(IDS), attention_mask=MASK)
    expected, tokens = gram_alone(model, "linear")
    assert layers["linear"].moments.tokens == tokens
    slack = rounding(tokens, np.abs(expected).max())
    np.testing.assert_allclose(layers["linear"].problem().gram, expected, rtol=1e-6, atol=slack)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ordered, "another order"),
        (routed, "(another number of rows|another order)"),
        (time_first, "another order"),
        (averaged, "another order"),
        (as_often_as_padded, "another number of times"),
    ],
)
def test_where_it_cannot_be_known_it_is_refused(rows, message):
    model = Model(rows)
    with pytest.raises(ValueError, match=f"^linear .*{message}.*without padding"), torch.no_grad():
        with capture(model, ["linear"]) as layers:
            model(input_ids=IDS, attention_mask=MASK)
    assert layers["linear"].moments.tokens == 0
    with torch.no_grad(), capture(model, ["linear"]) as layers:  # without padding nothing is in doubt
        model(input_ids=IDS, attention_mask=torch.ones_like(MASK))
        model(input_ids=IDS)
    assert layers["linear"].moments.tokens > 0


def test_chance_is_not_knowledge():
    """In training mode rows differ by chance; with a cache a second call would change it."""
    model = Model(lambda model, states: flat(model, nn.functional.dropout(states, training=model.training))).train()
    with pytest.raises(ValueError, match="eval mode"), capture(model, ["linear"]):
        model(input_ids=IDS, attention_mask=MASK)
    model = Model(flat).eval()
    with pytest.raises(ValueError, match="no cache"), capture(model, ["linear"]):
        model(input_ids=IDS, attention_mask=MASK, past_key_values=object())


def test_two_captures_at_once_and_hooks_of_others():
    model, outer, calls = Model(flat), Model(flat), []
    model.linear.register_forward_hook(lambda *given: calls.append(None))
    outer.rows = lambda _, states: model(inputs_embeds=states, attention_mask=MASK)
    with (
        torch.no_grad(),
        capture(outer, ["linear"]) as unused,
        capture(model, ["linear"]) as one,
        capture(model, ["linear"]) as two,
    ):
        outer(input_ids=IDS)
    assert one["linear"].moments.tokens == two["linear"].moments.tokens == int(MASK.sum())
    assert unused["linear"].moments.tokens == 0 and len(calls) == 3


def test_a_call_that_fails_leaves_nothing_behind():
    def fails(model: Model, states: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(str(len(flat(model, states))))

    model = Model(fails)
    with torch.no_grad(), capture(model, ["linear"]) as layers:
        with pytest.raises(RuntimeError):
            model(input_ids=IDS, attention_mask=MASK)
        model.rows = flat
        model(input_ids=IDS, attention_mask=MASK)
    assert layers["linear"].moments.tokens == int(MASK.sum())


SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}


@pytest.mark.parametrize("name", ["opt", "gpt2", "bloom", "bert", "qwen2_moe"])
def test_layers_of_stock_models(name):
    """Every Linear that flattened rows reach, also the expert that all tokens share: as the texts alone give it."""
    if name in ("opt", "gpt2"):
        model = tiny_model(name)
    elif name == "bert":
        model = AutoModel.from_config(AutoConfig.for_model("bert", **SHAPE)).eval()
    else:
        own = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 24, "num_experts": 4, "num_key_value_heads": 4}
        config = AutoConfig.for_model(name, **SHAPE, **(own if "moe" in name else {}))
        model = AutoModelForCausalLM.from_config(config).eval()
    kinds = (nn.Linear,) if name != "gpt2" else (type(model.transformer.h[0].mlp.c_fc), nn.Linear)
    names = [path for path, module in model.named_modules() if isinstance(module, kinds) and "lm_head" not in path]
    with torch.no_grad(), capture(model, names) as layers:
        model(input_ids=IDS, attention_mask=MASK)
    for path in names:
        expected, tokens = gram_alone(model, path)
        assert layers[path].moments.tokens == tokens, path
        slack = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(layers[path].problem().gram, expected, rtol=1e-4, atol=slack, err_msg=path)


def test_encoders_and_decoders_with_flattened_rows():
    model, ids = stacked_model("t5"), IDS.repeat(2, 1)
    name = "decoder.block.1.layer.2.DenseReluDense.wo"
    inner = model.get_submodule(name)
    whole = inner.forward
    inner.forward = lambda states: whole(states)
    mask = MASK.repeat(2, 1)
    with torch.no_grad(), capture(model, [name]) as layers:
        model(input_ids=ids, attention_mask=mask, decoder_input_ids=ids, decoder_attention_mask=mask)
    assert layers[name].moments.tokens == int(mask.sum())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.attention(states, states, states)[0]
        return found


def test_what_no_hook_sees_is_refused():
    with pytest.raises(ValueError, match=r"attention\.out_proj is the output of an nn\.MultiheadAttention"):
        with capture(Attention(), ["attention.out_proj"]):
            raise AssertionError("not reached")
    experts = nn.Module()
    experts.up = nn.Parameter(torch.ones(3, 4, 5))
    model = nn.Sequential(experts)
    for name, message in (
        ("0", r"0 is a Module, which packs its experts in 3-D parameters \(up\)"),
        ("0.up", r"'0\.up' is a parameter \(3, 4, 5\)"),
    ):
        with pytest.raises(ValueError, match=message), capture(model, [name]):
            raise AssertionError("not reached")
