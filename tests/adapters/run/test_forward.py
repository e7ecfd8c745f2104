"""Block by block equals all at once, for every family, mask and batch size."""

from __future__ import annotations

import functools

import pytest
import torch
from tiny import FAMILIES, VOCABULARY, tiny_model
from torch import nn

from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.discovery import stages_of
from gramian.adapters.run import forward
from gramian.adapters.run.forward import enter, inputs_of, run_block

LENGTH = 17  # longer than the sliding windows
BATCHES = list((torch.arange(7 * LENGTH) * 11 % VOCABULARY).view(7, LENGTH).split(3))  # 3, 3 and 1 windows


def final_norm(model: nn.Module) -> nn.Module:
    base = model.base_model
    return base.decoder.final_layer_norm if hasattr(base, "decoder") else base.ln_f if hasattr(base, "ln_f") else base.norm


def walked(model: nn.Module, batches: list[torch.Tensor]) -> list[torch.Tensor]:
    hidden, calls = enter(model, batches)
    for block, call in zip(blocks_of(model), calls, strict=True):
        hidden = run_block(block, call, hidden)
    return hidden


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_walk_reaches_the_model_s_last_hidden_state(model_type, attention):
    model = tiny_model(model_type)
    model.set_attn_implementation(attention)
    with torch.no_grad():
        expected = [model.base_model(input_ids=batch).last_hidden_state for batch in BATCHES]
        for ours, theirs in zip(walked(model, BATCHES), expected, strict=True):
            torch.testing.assert_close(final_norm(model)(ours), theirs)


def test_windows_matter_in_the_tiny_models():
    """Else the test above would pass with one mask for all layers."""
    for model_type in ("mistral", "gemma3_text"):
        model = tiny_model(model_type)
        wide = tiny_model(model_type)
        wide.config.sliding_window = 64
        with torch.no_grad():
            a, b = (each.base_model(input_ids=BATCHES[0]).last_hidden_state for each in (model, wide))
        torch.testing.assert_close(a[:, :6], b[:, :6])
        assert (a[:, -1] - b[:, -1]).abs().max() > 1e-3


@pytest.mark.parametrize("model_type", FAMILIES)
def test_replaying_changes_nothing(model_type):
    model = tiny_model(model_type)
    first, second = walked(model, BATCHES), walked(model, BATCHES)
    hidden, calls = enter(model, BATCHES)
    copies = [states.clone() for states in hidden]
    for block, call in zip(blocks_of(model), calls, strict=True):
        once, twice = run_block(block, call, hidden), run_block(block, call, hidden)
        assert all(a.equal(b) for a, b in zip(once, twice, strict=True))
    assert all(a.equal(b) for a, b in zip(hidden, copies, strict=True))
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_entering_leaves_the_model_as_it_was(model_type):
    model = tiny_model(model_type)
    with torch.no_grad():
        before = model(input_ids=BATCHES[0]).logits
        enter(model, BATCHES)
        assert not any("forward" in vars(block) for block in blocks_of(model))
        assert model(input_ids=BATCHES[0]).logits.equal(before)
        with pytest.raises(IndexError):
            enter(model, [BATCHES[0], torch.full((1, 4), VOCABULARY)])
        assert not any("forward" in vars(block) for block in blocks_of(model))
        assert model(input_ids=BATCHES[0]).logits.equal(before)


def test_a_forward_set_on_a_block_comes_back():
    """Device placement libraries wrap `forward` on the instance."""
    model = tiny_model("llama")
    block = blocks_of(model)[0]
    wrapped = functools.partial(type(block).forward, block)
    block.forward = wrapped
    enter(model, BATCHES)
    assert vars(block).get("forward") is wrapped


@pytest.mark.parametrize("model_type", FAMILIES)
def test_inputs_are_those_a_hook_sees_and_nothing_later_runs(model_type):
    model = tiny_model(model_type)
    index = len(blocks_of(model)) - 1
    stages = [stage[0] for stage in stages_of(model)[index]]
    block = blocks_of(model)[index]
    seen: dict[str, list[torch.Tensor]] = {operator: [] for operator in stages}
    handles = [
        block.get_submodule(operator).register_forward_pre_hook(lambda _, args, o=operator: seen[o].append(args[0]))
        for operator in stages
    ]
    with torch.no_grad():
        for batch in BATCHES:
            model(input_ids=batch)
    expected = {operator: list(tensors) for operator, tensors in seen.items()}
    hidden, calls = enter(model, BATCHES)
    for previous, call in zip(blocks_of(model)[:index], calls):
        hidden = run_block(previous, call, hidden)
    for place, operator in enumerate(stages):
        for tensors in seen.values():
            tensors.clear()
        found = list(inputs_of(block.get_submodule(operator), block, calls[index], hidden))
        assert len(found) == len(BATCHES)
        for ours, theirs in zip(found, expected[operator], strict=True):
            torch.testing.assert_close(ours.reshape(theirs.shape), theirs)
        assert [len(seen[other]) for other in stages[place + 1 :]] == [0] * (len(stages) - place - 1)
    for handle in handles:
        handle.remove()
    received: dict[str, dict[int, torch.Tensor]] = {operator: {} for operator in stages}
    receivers = {block.get_submodule(operator): received[operator].__setitem__ for operator in stages}
    run_block(block, calls[index], hidden, receivers)
    for operator in stages:
        assert list(received[operator]) == list(range(len(BATCHES)))
        for ours, theirs in zip(received[operator].values(), expected[operator], strict=True):
            torch.testing.assert_close(ours.reshape(theirs.shape), theirs)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_reader_that_stops_early_leaves_no_hook():
    model = tiny_model("llama")
    hidden, calls = enter(model, BATCHES)
    block = blocks_of(model)[0]
    reader = inputs_of(block.mlp.down_proj, block, calls[0], hidden)
    next(reader)
    reader.close()
    assert not block.mlp.down_proj._forward_pre_hooks
    with pytest.raises(ZeroDivisionError):
        run_block(block, calls[0], hidden, {block.mlp.down_proj: lambda batch, inputs: 1 // 0})
    assert not block.mlp.down_proj._forward_pre_hooks


@pytest.mark.parametrize(
    ("count", "batches"), [(1, 1), (3, 1), (4, 4), (8, 4), (17, 8), (32, 8), (33, 12), (40, 12), (100, 28)]
)
def test_batches_are_a_multiple_of_four_where_there_is_text_enough(count, batches):
    """Windows of 512 tokens: none of four batches of 512 tokens has fewer, and none has more than 2048."""
    windows = torch.arange(count * 512).reshape(count, 512)
    found = forward.batches_of(windows)
    assert len(found) == forward.batches_in(count, 512) == batches
    assert torch.cat(found).equal(windows)
    assert all(len(each) <= 4 for each in found) and max(map(len, found)) - min(map(len, found)) <= 1
    assert len(forward.batches_of(windows[:, :8])) == 1  # few tokens
