"""Budgets in place of ratios: parameters, active parameters, bytes."""

from __future__ import annotations

import copy

import pytest
import torch
from expert_models import expert_model
from tiny import tiny_model

import gramian
from gramian.adapters.config.budgets import read_budget

WINDOWS = torch.randint(0, 256, (6, 24), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    "text, found",
    [
        ("params=4B", ("params", 4 * 10**9)), ("params=250M", ("params", 250 * 10**6)), ("active=1.5k", ("active", 1500)),
        ("bytes=8GB", ("bytes", 8 * 10**9)), ("bytes=1.5GiB", ("bytes", 3 * 2**29)), ("bytes=700", ("bytes", 700)),
        ("bytes=2 MB", ("bytes", 2 * 10**6)),
    ],
)  # fmt: skip
def test_sizes_are_read(text, found):
    assert read_budget(text) == found


@pytest.mark.parametrize(
    "text", ["params", "params=", "params=4X", "params=-4B", "size=4B", "bytes=GB", "params=0", "4B", "params=4GB"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="budget"):
        gramian.prune(tiny_model("llama"), WINDOWS, "flap", budget=text, progress=False)


@pytest.mark.parametrize("method", ["flap", "numerical", "wanda-sp"])
def test_the_model_is_within_its_budget_and_near_it(method):
    model = tiny_model("llama")
    whole = sum(each.numel() for each in model.parameters())
    wanted = whole - 1500
    report = gramian.prune(model, WINDOWS, method, budget=f"params={wanted}", progress=False)
    left = sum(each.numel() for each in model.parameters())
    assert report.parameters == (whole, left) and wanted - 1500 < left <= wanted


def test_bytes_are_those_of_the_checkpoint():
    """A model of bfloat16 weights runs in float32 on a CPU, and is saved in two bytes a parameter."""
    model = tiny_model("llama")
    model.config.dtype = torch.bfloat16
    other = copy.deepcopy(model)
    whole = sum(each.numel() for each in model.parameters())
    gramian.prune(model, WINDOWS, "flap", budget=f"bytes={2 * (whole - 1200)}", progress=False)
    gramian.prune(other, WINDOWS, "flap", budget=f"params={whole - 1200}", progress=False)
    assert [each.shape for each in model.parameters()] == [each.shape for each in other.parameters()]


def test_experts_go_until_the_budget_is_met():
    model = expert_model("mixtral", num_local_experts=8)
    whole = sum(each.numel() for each in model.parameters())
    expert = 2 * (3 * 24 * 32 + 32)  # of both layers, with its rows of the routers
    report = gramian.prune(model, WINDOWS, "experts", budget=f"params={whole - expert - 1}", progress=False)
    assert [each.units for each in report.modules] == [(8, 6)] * 2
    assert sum(each.numel() for each in model.parameters()) == whole - 2 * expert == report.parameters[1]


def test_refusals():
    model = tiny_model("llama")
    for settings, words in [
        ({"budget": "params=4B"}, "is met already"),
        ({"budget": "params=10"}, "out of reach"),
        ({"budget": "params=30k", "ratio": 0.2}, "give one of them"),
    ]:
        with pytest.raises(ValueError, match=words):
            gramian.prune(model, WINDOWS, "flap", progress=False, **settings)
    with pytest.raises(ValueError, match="budget"):
        gramian.prune(model, WINDOWS, "wanda", budget="params=30k", progress=False)
    with pytest.raises(ValueError, match="as many experts answer a token"):
        gramian.prune(expert_model("mixtral"), WINDOWS, "experts", budget="active=30k", progress=False)
