"""A run that fails in the middle leaves the model as it was, to the bit, and its error names the layer, whatever its type."""

from __future__ import annotations

import contextlib

import pytest
import torch
from stacked_models import stacked_model
from tiny import HELDOUT, LENGTH, WINDOWS, run, tiny_model
from torch import nn

from gramian.adapters import prune
from gramian.adapters.models.layers import Layer
from gramian.adapters.passes import removal
from gramian.adapters.run.blocks import InMemory
from gramian.adapters.run.naming import naming
from gramian.adapters.run.undo import Originals

LAST = "model.layers.1.mlp.down_proj"


class Own(Exception):
    """An error of a library that nobody knows."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@contextlib.contextmanager
def untouched(model: nn.Module):
    """The same parameters, as objects and in their numbers, the same mode and the same hooks."""
    before, objects, training = state(model), dict(model.named_parameters()), model.training
    yield
    after = state(model)
    assert after.keys() == before.keys()
    assert all(value.view(torch.uint8).equal(before[name].view(torch.uint8)) for name, value in after.items())
    assert all(parameter is objects[name] for name, parameter in model.named_parameters())
    assert model.training == training and not any(module._forward_pre_hooks for module in model.modules())


def failing(assign, name: str = LAST):
    def fails(self, weights, dtype=None):
        assign(self, weights, dtype)
        if self.name == name:
            raise RuntimeError("late")

    return fails


@pytest.mark.parametrize(
    "error",
    [
        ValueError("it is wrong"), RuntimeError("it broke"), MemoryError(), KeyError("key"), ZeroDivisionError("division"),
        torch.linalg.LinAlgError("singular"), OSError(28, "No space left"), Own(3, "text"), KeyboardInterrupt(), SystemExit(1),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_is_raised_in_the_last_block(error, monkeypatch):
    model = tiny_model("llama").train()
    assign, written = Layer.assign, []

    def fails(self, weights, dtype=None):
        written.append(self.name)
        if self.name == LAST:
            raise error
        assign(self, weights, dtype)

    monkeypatch.setattr(Layer, "assign", fails)
    with untouched(model), pytest.raises(type(error)) as caught:
        run(model, method="wanda", heldout=HELDOUT)
    assert len(written) == 14
    if isinstance(error, Exception):
        assert LAST in str(caught.value) + " ".join(getattr(caught.value, "__notes__", ()))


def test_activations_that_overflow_half_way():
    model = tiny_model("llama").half()
    model.config.dtype = torch.float16
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(6e4)
    with untouched(model), pytest.raises(ValueError, match=r"^model\.layers\.1\.self_attn\.q_proj: the inputs hold NaN or Inf"):
        run(model, method="wanda")


def test_a_block_that_fails_is_named(monkeypatch):
    model = tiny_model("llama")
    block = model.model.layers[1]
    calls, whole = [], block.mlp.forward

    def forward(states):
        if states.shape[1] == LENGTH:  # of the calibration windows, not of any that a model is looked at with
            calls.append(None)
            raise RuntimeError("no such kernel")
        return whole(states)

    monkeypatch.setattr(block.mlp, "forward", forward)
    with untouched(model), pytest.raises(RuntimeError, match=r"^model\.layers\.1: no such kernel$"):
        run(model, method="wanda")
    assert calls


@pytest.mark.parametrize("jobs", [1, 2])
def test_blocks_that_are_worked_on_at_once(jobs, monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setattr(Layer, "assign", failing(Layer.assign))
    with untouched(model), pytest.raises(RuntimeError, match=f"{LAST}: late"):
        run(model, method="wanda", calibrate_on="dense", jobs=jobs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_the_storage_dtype_cannot_hold(dtype, monkeypatch):
    """A model whose numbers were never rounded: copies are exact all the same."""
    model = tiny_model("llama")
    model.config.dtype = dtype
    monkeypatch.setattr(Layer, "assign", failing(Layer.assign))
    with untouched(model), pytest.raises(RuntimeError, match="late"):
        run(model, method="wanda")
    copied = Originals(model, torch.bfloat16).copied
    assert copied(torch.ones(3)).dtype == torch.bfloat16 and copied(torch.full((2,), 1 / 3)).dtype == torch.float32


@pytest.mark.parametrize(("method", "refit_producers"), [("flap", False), ("numerical", False), ("numerical", True)])
def test_units_that_are_removed(method, refit_producers, monkeypatch):
    """With biases that the method adds, which are not there afterwards, and producers that it refits."""
    model = tiny_model("llama")
    whole = removal.remove_from

    def fails(*given):
        row = whole(*given)
        if row.row.name == LAST:
            raise RuntimeError("late")
        return row

    monkeypatch.setattr(removal, "remove_from", fails)
    with untouched(model), pytest.raises(RuntimeError, match=f"{LAST}: late"):
        prune(model, WINDOWS, method, ratio=0.3, refit_producers=refit_producers, progress=False)
    assert model.model.layers[0].mlp.down_proj.bias is None


def test_models_of_one_piece(monkeypatch):
    model = stacked_model("bert")
    name = "encoder.layer.1.output.dense"
    monkeypatch.setattr(Layer, "assign", failing(Layer.assign, name))
    with untouched(model), pytest.raises(RuntimeError, match=f"{name}: late"):
        prune(model, WINDOWS, "numerical", ratio=0.3, progress=False)


def test_a_packed_parameter_is_kept_whole():
    """An operator that is a matrix of a packed parameter, by its number."""
    model = tiny_model("llama")
    experts = nn.Module()
    experts.gate_up_proj = nn.Parameter(torch.randn(3, 4, 5))
    model.model.layers[0].experts = experts
    before, originals = experts.gate_up_proj.detach().clone(), Originals(model, torch.float32)
    blocks = originals.before(InMemory(model), lambda index: [f"model.layers.{index}.experts.gate_up_proj.2"][: 1 - index])
    for index in range(2):
        assert blocks.acquire(index) is model.model.layers[index]
    with torch.no_grad():
        experts.gate_up_proj.zero_()
    originals.restore()
    assert experts.gate_up_proj.equal(before)


def test_a_name_that_is_there_is_not_put_again():
    for raised, expected in (
        (ValueError("a.b: wrong"), "a.b: wrong"),
        (ValueError("wrong"), "a.b: wrong"),
        (ValueError(), "a.b"),
    ):
        with pytest.raises(ValueError) as caught, naming("a.b"):
            raise raised
        assert str(caught.value) == expected
