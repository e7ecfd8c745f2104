"""Whole experts removed: the router at minus infinity, errors by hooks of our own, stock classes that load, runs that go on."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from expert_models import COMMON, ROUTED, expert_model, path_of_experts
from tiny import tiny_model
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM

import gramian
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates.runs import run_estimate
from gramian.adapters.models.mixtures import mixtures_of
from gramian.adapters.passes import experts as experts_pass

WINDOWS = torch.randint(0, 256, (10, 24), generator=torch.Generator().manual_seed(4))
TYPES = [*ROUTED, "deepseek in groups"]


def model_of(name: str) -> Any:
    model_type = name.split()[0] if name in ROUTED else "deepseek_v3"
    grouped = {"n_routed_experts": 8, "n_group": 2, "topk_group": 1} if name not in ROUTED else {}
    return expert_model(model_type, **grouped)


class Deaf(TorchFunctionMode):
    """Routers whose logits of some experts are minus infinity."""

    def __init__(self, removed: dict[int, list[int]]) -> None:
        super().__init__()
        self.removed = removed  # by the address of a router's weight

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if getattr(function, "__name__", "") == "linear" and (gone := self.removed.get(args[1].data_ptr())):
            result = result.clone()
            result[:, gone] = -torch.inf
        return result


def without(model: Any, kept: dict[str, list[int]], windows: torch.Tensor) -> torch.Tensor:
    """The logits of the dense model whose routers never choose the experts that are not kept."""
    removed = {
        model.get_submodule(mixture.router).weight.data_ptr(): sorted({*range(mixture.count)} - {*kept[name]})
        for name, mixture in mixtures_of(model).items()
    }
    with Deaf(removed), torch.no_grad():
        return model(windows).logits


@pytest.mark.parametrize("name", TYPES)
def test_the_model_answers_as_if_its_routers_never_chose_them_and_loads_anywhere(name, tmp_path):
    dense = model_of(name)
    model = copy.deepcopy(dense)
    report = gramian.prune(model, WINDOWS[:8], "experts", ratio=0.15, compensate=False, progress=False)
    kept = report.settings["experts"]
    assert all(0 < len(each) < mixtures_of(dense)[path].count for path, each in kept.items())
    found = model(WINDOWS).logits
    assert torch.allclose(found, without(dense, kept, WINDOWS), atol=1e-4 * float(found.abs().max()))
    assert report.parameters[1] == sum(each.numel() for each in model.parameters()) < report.parameters[0]
    saved = gramian.save(model, None, tmp_path / "m", report=report)
    again = AutoModelForCausalLM.from_pretrained(saved).eval()
    assert torch.equal(again(WINDOWS).logits, found)
    ids = WINDOWS[:1, :6]
    with_cache, without_cache = (
        again.generate(ids, max_new_tokens=6, do_sample=False, use_cache=each) for each in (True, False)
    )
    assert torch.equal(with_cache, without_cache)


@torch.no_grad()
def answers(model: Any, path: str, tokens: torch.Tensor) -> torch.Tensor:
    mixture = mixtures_of(model)[path]
    _, weights, chosen = model.get_submodule(mixture.router)(tokens)
    return model.get_submodule(path)(tokens, chosen, weights).double()


@pytest.mark.parametrize("merges", [False, True])
@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "deepseek in groups"])
def test_errors_are_those_of_the_mixture_as_it_is_stored(name, merges):
    """On dense inputs, since they can be taken from the dense model by a hook of our own."""
    dense = model_of(name)
    model, path = copy.deepcopy(dense), path_of_experts(dense)
    seen: list[torch.Tensor] = []
    handle = dense.get_submodule(path).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    dense(WINDOWS)
    handle.remove()
    tokens = seen[0].reshape(10, 24, -1)
    report = gramian.prune(
        model,
        WINDOWS[:8],
        "experts",
        ratio=0.2,
        calibrate_on="dense",
        refit_producers=merges,
        heldout=WINDOWS[8:],
        progress=False,
    )
    row = next(each for each in report.modules if each.name == path)
    for part, reported in ((tokens[:8], row.relative_error), (tokens[8:], row.heldout_error)):
        rows = part.reshape(-1, part.shape[-1])
        wanted = answers(dense, path, rows)
        error = float((answers(model, path, rows) - wanted).square().sum() / wanted.square().sum())
        assert np.isclose(reported, error, rtol=1e-3)
    assert row.relative_error < row.masked_error and row.residual is not None and row.residual < 1e-9
    moved = any(not torch.equal(ours, theirs) for ours, theirs in zip(*(gates(each, path, report) for each in (model, dense))))
    assert moved == merges  # hidden channels of others have come in


def gates(model: Any, path: str, report: Any) -> list[torch.Tensor]:
    """The matrices before the hidden channels, of the experts that are kept."""
    packed = model.get_submodule(path).gate_up_proj
    kept = report.settings["experts"][path]
    return list(packed if len(packed) == len(kept) else packed[kept])


def test_where_experts_are_alike_nothing_is_lost():
    """Their weights sum to one, whoever answers; of experts that differ something is lost."""
    model = model_of("mixtral")
    other = gramian.prune(copy.deepcopy(model), WINDOWS, "experts", ratio=0.2, compensate=False, progress=False)
    for path in mixtures_of(model):
        for parameter in model.get_submodule(path).parameters(recurse=False):
            parameter[1:] = parameter[:1]
    report = gramian.prune(model, WINDOWS, "experts", ratio=0.2, compensate=False, progress=False)
    assert report.mean_error < 1e-9 and other.mean_error > 1e-3


@pytest.mark.parametrize("score", ["output", "reap", "frequency"])
def test_scores_differ_and_the_output_misses_least_of_it(score):
    model = model_of("mixtral")
    settings = {"ratio": 0.3, "calibrate_on": "dense", "compensate": False, "progress": False}
    report = gramian.prune(copy.deepcopy(model), WINDOWS, "experts", options={"score": score}, **settings)
    best = gramian.prune(model, WINDOWS, "experts", swap_search=True, **settings)
    for one, other in zip(best.modules, report.modules):
        assert one.detail["sample_error"] <= other.detail["sample_error"] * (1 + 1e-9)


def test_a_run_that_was_interrupted_goes_on_to_the_same_bytes(monkeypatch, tmp_path):
    gramian.save(expert_model("mixtral"), None, tmp_path / "dense")
    settings = {"ratio": 0.2, "progress": False}
    gramian.prune(tmp_path / "dense", WINDOWS, "experts", out=tmp_path / "whole", **settings)
    work, calls = experts_pass.thinned, []

    def failing(*args: Any) -> Any:
        calls.append(args[1].name)
        if len(calls) == 2:
            raise OSError("the disk is full")
        return work(*args)

    monkeypatch.setattr(experts_pass, "thinned", failing)
    with pytest.raises(OSError, match="full"):
        gramian.prune(tmp_path / "dense", WINDOWS, "experts", out=tmp_path / "out", **settings)
    report = gramian.prune(tmp_path / "dense", WINDOWS, "experts", out=tmp_path / "out", resume=True, **settings)
    assert len(calls) == 3 and len(report.modules) == 2
    one, other = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "out"))
    assert all(torch.equal(one[name], other[name]) for name in one | other)


def test_a_run_that_fails_leaves_the_model_as_it_was(monkeypatch):
    model = model_of("deepseek in groups")
    before, logits = copy.deepcopy(model.state_dict()), model(WINDOWS).logits
    config = copy.deepcopy(model.config)
    work = experts_pass.thinned

    def failing(*args: Any) -> Any:
        work(*args)
        raise RuntimeError("no more")

    monkeypatch.setattr(experts_pass, "thinned", failing)
    with pytest.raises(RuntimeError, match="no more"):
        gramian.prune(model, WINDOWS, "experts", ratio=0.15, progress=False)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model(WINDOWS).logits, logits) and model.config.to_dict() == config.to_dict()


def test_refusals():
    model = model_of("mixtral")
    before = copy.deepcopy(model.state_dict())
    for settings, words in [
        ({"ratio": 0.9}, "a ratio of 0.9 is out of reach"),
        ({"include": "layers.0"}, "leave include, exclude and blocks out"),
        ({"allocation": "loss"}, "does not go with 'experts'"),
        ({"options": {"score": "size"}}, "score must be one of output, reap, frequency"),
        ({"swap_search": True, "options": {"score": "reap"}}, "score='output'"),
        ({"sparsity": 0.5}, "ratio="),
        ({"compensate": False, "damping": 0.1}, "nothing is fitted"),
    ]:
        with pytest.raises(ValueError, match=words):
            gramian.prune(model, WINDOWS, "experts", progress=False, **settings)
    with pytest.raises(ValueError, match="no mixture of experts"):
        gramian.prune(tiny_model("llama"), WINDOWS, "experts", progress=False)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_an_estimate_says_what_share_experts_are():
    model = model_of("mixtral")
    found = run_estimate(model, (8, 24), PruneConfig("experts", ratio=0.2))
    experts = sum(each.size * each.count for each in mixtures_of(model).values())
    inside = sum(each.numel() for each in model.model.layers.parameters())
    assert np.isclose(found.covered, experts / inside) and len(found.operators) == COMMON["num_hidden_layers"]
