"""Whole blocks removed: planted ones that do nothing, every subset by hand, refits by numpy, stock classes, runs that go on."""

from __future__ import annotations

import copy
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from command_line import FAST, call, failure, model_fixture, no_network_fixture, short_builtin_text_fixture  # noqa: F401
from stacked_models import stacked_model
from tiny import HELDOUT, WINDOWS, parameters, random_model, same, some_windows, tiny_tokenizer
from tiny_models import exact
from torch import nn
from transformers import AlbertConfig, AlbertModel, AutoModel, AutoModelForCausalLM

import gramian
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates.runs import disk_space, run_estimate
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.discovery import short_window
from gramian.adapters.passes import depth
from gramian.adapters.passes.block_judge import BlockJudge
from gramian.adapters.passes.planned import plan_of
from gramian.adapters.passes.stream_entries import entries_of
from gramian.adapters.run.forward import enter

KINDS = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
DEEP: dict[str, dict[str, Any]] = {
    "llama": {"num_hidden_layers": 4},
    "gemma3_text": {"num_hidden_layers": 4, "layer_types": KINDS},
    "gpt2": {"n_layer": 4},
    "opt": {"num_hidden_layers": 4},
    "phi": {"num_hidden_layers": 4},
    "qwen2": {"num_hidden_layers": 4, "tie_word_embeddings": True},
}
MANY = some_windows(32, 3)


def deep(name: str) -> Any:
    return random_model(name, **DEEP[name])


def idle(model: Any, number: int) -> None:
    """Let a block return what it is given: nothing is added to the stream."""
    (hidden, calls), block = enter(model, [short_window(model)]), blocks_of(model)[number]
    with torch.no_grad():
        for entry in entries_of(block, calls[number], hidden[0]):
            for parameter in block.get_submodule(entry.path).parameters():
                parameter.zero_()
        for path in ("self_attn.o_proj", "self_attn.out_proj", "attn.c_proj"):  # what it adds goes through the MLP, too
            if path in dict(block.named_modules()):
                for parameter in block.get_submodule(path).parameters():
                    parameter.zero_()


def prune(model: Any, windows: torch.Tensor = WINDOWS, **settings: Any) -> Any:
    return gramian.prune(model, windows, "depth", progress=False, **settings)


def removed(report: Any) -> list[int]:
    return list(report.settings["removed_blocks"])


@torch.no_grad()
def logits(model: Any, windows: torch.Tensor = WINDOWS) -> torch.Tensor:
    return model(input_ids=windows, use_cache=False).logits


def shorter(model: Any, gone: tuple[int, ...]) -> Any:
    """A llama without some blocks, by hand."""
    model = copy.deepcopy(model)
    model.model.layers = nn.ModuleList(block for number, block in enumerate(model.model.layers) if number not in gone)
    model.config.num_hidden_layers = len(model.model.layers)
    return model


def divergence(dense: torch.Tensor, found: torch.Tensor) -> float:
    p, q = dense.double().log_softmax(-1), found.double().log_softmax(-1)
    return float(torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1).mean())


@pytest.mark.parametrize("name", DEEP)
def test_blocks_that_do_nothing_go_first_and_nothing_changes(name, tmp_path):
    model = deep(name)
    for number in (1, 2):
        idle(model, number)
    dense, windows = copy.deepcopy(model), WINDOWS[:4]
    report = prune(model, ratio=0.5, heldout=HELDOUT)
    assert removed(report) == [1, 2]  # of equal blocks the first
    assert logits(model, windows).equal(logits(dense, windows))
    assert [row.units for row in report.modules] == [(1, 1), (1, 0), (1, 0), (1, 1)]
    assert all(row.masked_error == row.relative_error == row.heldout_error == 0 for row in report.modules)
    assert [row.detail["score"] for row in report.modules[1:3]] == [0, 0]
    assert report.settings["output"] == {"measure": "output", "removed": 0, "refitted": 0}
    counts = [sum(each.numel() for each in model.parameters()) for model in (dense, model)]
    assert list(report.parameters) == counts and report.ratio == pytest.approx(0.5)
    if name == "gemma3_text":
        assert model.config.layer_types == [KINDS[0], KINDS[3]]
    folder = gramian.save(model, None, tmp_path / "out", report=report)
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    mask = torch.ones_like(windows)
    for cached in (True, False):
        with torch.no_grad():
            assert stock(input_ids=windows, use_cache=cached).logits.equal(model(input_ids=windows, use_cache=cached).logits)
    sequences = [
        each.generate(windows, attention_mask=mask, max_new_tokens=5, min_new_tokens=5, do_sample=False, use_cache=cached)
        for each in (model, stock)
        for cached in (True, False)
    ]
    assert all(each.equal(sequences[0]) for each in sequences)
    if name == "qwen2":
        assert stock.lm_head.weight is stock.model.embed_tokens.weight


def test_scores_are_those_of_every_subset_by_hand():
    """The divergence without any subset, whatever was asked for before, and the greedy's own steps."""
    model = random_model("llama", num_hidden_layers=5)
    dense = logits(model)
    found = {
        gone: divergence(dense, logits(shorter(model, gone))) for count in range(1, 5) for gone in combinations(range(5), count)
    }
    judge = BlockJudge(model, WINDOWS, "output", 10**6, range(5), lambda step, work: work(), lambda: None)
    for before in [*found, ()]:
        if len(before) < 4:
            left = [number for number in range(5) if number not in before]
            for number, score in judge.costs(before, left).items():
                assert score == pytest.approx(found[tuple(sorted((*before, number)))], rel=1e-4)
    gone: list[int] = []
    for _ in range(2):
        gone.append(min((n for n in range(5) if n not in gone), key=lambda n: found[tuple(sorted((*gone, n)))]))
    report = prune(model, ratio=0.4, compensate=False, options={"positions": 10**6})
    assert removed(report) == gone
    assert report.settings["output"]["removed"] == pytest.approx(found[tuple(sorted(gone))], rel=1e-4)
    assert report.modules[gone[0]].detail["score"] == pytest.approx(found[(gone[0],)], rel=1e-4)
    assert report.modules[gone[1]].detail["score"] == pytest.approx(found[tuple(sorted(gone))], rel=1e-4)


@pytest.mark.parametrize("score", ["hidden", "finercut", "block-influence"])
def test_other_scores_by_hand(score):
    model = random_model("llama", num_hidden_layers=4)
    seen: list[torch.Tensor] = []
    handles = [block.register_forward_pre_hook(lambda _, args: seen.append(args[0].double())) for block in model.model.layers]
    handles.append(model.model.norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].double())))
    dense = logits(model).double()
    for handle in handles:
        handle.remove()
    values = []
    for number in range(4):
        other = shorter(model, (number,))
        if score == "block-influence":
            values.append(1 - float(torch.cosine_similarity(seen[number], seen[number + 1], dim=-1).mean()))
        elif score == "finercut":
            cosine = torch.cosine_similarity(dense, logits(other).double(), dim=-1)
            values.append(float(cosine.arccos().mean()))
        else:
            with torch.no_grad():
                one, two = (
                    each.model(input_ids=WINDOWS, use_cache=False).last_hidden_state.double() for each in (model, other)
                )
            values.append(float(((one - two).square().sum(-1) / one.square().sum(-1)).mean()))
    report = prune(model, ratio=0.25, compensate=False, options={"score": score, "positions": 10**6})
    assert removed(report) == [int(np.argmin(values))]
    assert [row.detail["score"] for row in report.modules] == pytest.approx(values, rel=1e-3)


def entering(model: Any, windows: torch.Tensor, sites: list[nn.Module]) -> list[np.ndarray]:
    """What flows into modules."""
    seen: dict[int, list[torch.Tensor]] = {}
    handles = [
        site.register_forward_pre_hook(lambda _, args, place=place: seen.setdefault(place, []).append(args[0].detach()))
        for place, site in enumerate(sites)
    ]
    logits(model, windows)
    for handle in handles:
        handle.remove()
    return [torch.cat(seen[place]).flatten(0, 1).numpy() for place in range(len(sites))]


def test_refits_are_least_squares_to_the_dense_stream_and_errors_are_those_of_hooks():
    dense = exact("llama", num_hidden_layers=4)
    model, damping = copy.deepcopy(dense), 0.3
    report = prune(model, MANY, ratio=0.5, heldout=HELDOUT, damping=damping)
    gone = removed(report)
    kept = [number for number in range(4) if number not in gone]
    assert report.settings["output"]["refitted"] < report.settings["output"]["removed"]
    fitted = [number for number, row in enumerate(report.modules) if "refitted" in row.status]
    assert fitted, [row.status for row in report.modules]
    first = fitted[0]
    last = next(number for number in range(first + 1, 5) if number not in gone)  # the block, or the norm, behind the gap
    plain = shorter(dense, tuple(gone))  # nothing before the first refit has changed
    parts = torch.arange(32) % 4 != 3
    behind = [*dense.model.layers, dense.model.norm][last]
    place = kept.index(first)
    after = [*plain.model.layers, plain.model.norm][place + 1]
    (target,) = entering(dense, MANY[parts], [behind])
    inputs, reached = entering(plain, MANY[parts], [plain.model.layers[place].mlp.down_proj, after])
    weight = dense.model.layers[first].mlp.down_proj.weight.numpy()
    trust = 1 / np.mean(target**2, axis=1)
    gram = inputs.T @ (trust[:, None] * inputs)
    ridge = 2 * damping * np.diag(np.diag(gram))
    change = np.linalg.solve(gram + ridge / 2, inputs.T @ (trust[:, None] * (target - reached)))
    alternative = np.linalg.solve(gram + ridge, inputs.T @ (trust[:, None] * (target - reached)))
    stored = model.model.layers[place].mlp.down_proj.weight.numpy()
    assert np.allclose(stored, weight + change.T, atol=1e-8) or np.allclose(stored, weight + alternative.T, atol=1e-8)
    assert report.modules[first].residual < 1e-8
    for windows, name in ((MANY, "relative_error"), (HELDOUT, "heldout_error")):
        ends = entering(dense, windows, [*dense.model.layers[1:], dense.model.norm])
        for short, which in ((model, name), (plain, "masked_error" if windows is MANY else "heldout_without_refit")):
            streams = entering(short, windows, [*short.model.layers, short.model.norm])
            for number, row in enumerate(report.modules):
                found = streams[sum(each <= number for each in kept)]
                error = np.mean(((found - ends[number]) ** 2).sum(1) / (ends[number] ** 2).sum(1))
                said = row.detail[which] if which in row.detail else getattr(row, which)
                assert said == pytest.approx(error, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", ["gemma3_text", "gpt2", "opt", "phi"])
def test_refits_bring_the_stream_and_the_output_nearer(name):
    """Through a norm after the operator, with biases, on flat tokens, and from two operators side by side."""
    model = deep(name)
    report = prune(model, MANY, ratio=0.25, heldout=HELDOUT)
    (gone,) = removed(report)
    row = report.modules[gone]
    assert row.relative_error < row.masked_error and row.heldout_error < row.detail["heldout_without_refit"]
    output = report.settings["output"]
    assert output["refitted"] < output["removed"]
    residuals = [each.residual for each in report.modules if each.residual is not None]
    assert residuals and max(residuals) < 1e-5


def test_what_adds_to_the_stream_is_found():
    for name, expected in {
        "llama": [("mlp.down_proj", None)],
        "gemma3_text": [("mlp.down_proj", "post_feedforward_layernorm")],
        "phi": [("mlp.fc2", None), ("self_attn.dense", None)],
        "gpt2": [("mlp.c_proj", None)],
        "opt": [("fc2", None)],
    }.items():
        model = deep(name)
        hidden, calls = enter(model, [short_window(model)])
        found = entries_of(blocks_of(model)[1], calls[1], hidden[0])
        assert [(entry.path, entry.norm) for entry in found] == expected
    model = stacked_model("bert")
    hidden, calls = enter(model, [short_window(model)])
    (entry,) = entries_of(blocks_of(model)[1], calls[1], hidden[0])
    norm = blocks_of(model)[1].output.LayerNorm
    assert (entry.path, entry.norm, entry.centred) == ("output.dense", "output.LayerNorm", True)
    torch.testing.assert_close(entry.gain.float(), norm.weight, rtol=1e-3, atol=1e-3)


def test_an_encoder_is_judged_by_its_hidden_states(tmp_path):
    model = stacked_model("bert")
    dense = copy.deepcopy(model)
    report = prune(model, MANY, ratio=0.5, heldout=HELDOUT)
    assert report.settings["output"]["measure"] == "hidden" and len(model.encoder.layer) == 1
    assert all(each.equal(other) for each, other in zip(model.embeddings.parameters(), dense.embeddings.parameters()))
    stock = AutoModel.from_pretrained(gramian.save(model, None, tmp_path / "out"), dtype=torch.float32).eval()
    with torch.no_grad():
        assert stock(WINDOWS).last_hidden_state.equal(model(WINDOWS).last_hidden_state)


def test_budgets_ratios_and_the_last_block():
    model = random_model("llama", num_hidden_layers=4)
    whole, block = (sum(each.numel() for each in part.parameters()) for part in (model, model.model.layers[0]))
    for budget, count in (
        (f"params={whole - block}", 1),
        (f"params={whole - block - 1}", 2),
        (f"bytes={4 * (whole - 3 * block)}", 3),
    ):
        other = copy.deepcopy(model)
        report = prune(other, budget=budget, compensate=False)
        assert sum(each.numel() for each in other.parameters()) == whole - count * block == report.parameters[1]
    for ratio, count in ((0.1, 1), (0.37, 1), (0.38, 2), (0.75, 3)):
        other = copy.deepcopy(model)
        assert len(removed(prune(other, ratio=ratio, compensate=False))) == count
    with pytest.raises(ValueError, match=r"0\.76 is out of reach: 0\.75 is the largest, as 1 of 4 blocks must remain"):
        prune(model, ratio=0.76)
    assert set(removed(prune(copy.deepcopy(model), ratio=0.5, blocks="1:3"))) == {1, 2}


def test_refusals_come_before_any_work():
    model = random_model("llama", num_hidden_layers=3)
    before = parameters(model)
    for settings, reason in (
        ({"include": "mlp"}, "choose among them with blocks"),
        ({"allocation": "score"}, "removes whole blocks: leave it out"),
        ({"swap_search": True}, "removes whole blocks: leave it out"),
        ({"calibrate_on": "dense"}, "given what is left of the blocks before"),
        ({"damping": 0.1, "compensate": False}, "changes nothing where nothing is fitted"),
        ({"options": {"score": "loss"}}, "score must be one of output, hidden, finercut, block-influence"),
        ({"options": {"tokens": 0}}, "tokens must be a whole number of at least 1"),
        ({"blocks": "3:"}, "none of the 3 blocks"),
    ):
        with pytest.raises(ValueError, match=reason):
            prune(model, **settings)
    with pytest.raises(ValueError, match="an encoder and a decoder, whose blocks depend on each other"):
        prune(stacked_model("t5"))
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "vocab_size": 258, "embedding_size": 16}
    with pytest.raises(ValueError, match="has one block, and one must remain"):
        prune(AlbertModel(AlbertConfig(**shape, num_hidden_layers=3)).eval())
    with pytest.raises(ValueError, match="compares logits, which BertModel has not"):
        prune(stacked_model("bert"), options={"score": "finercut"})
    with pytest.raises(ValueError, match="cannot state it without block 0"):
        prune(random_model("gpt2", n_layer=3, scale_attn_by_inverse_layer_idx=True), blocks=":2")
    assert same(before, parameters(model)) and len(model.model.layers) == 3
    last = random_model("gpt2", n_layer=3, scale_attn_by_inverse_layer_idx=True)
    assert removed(prune(last, ratio=0.3, compensate=False)) == [2]  # no block is behind it whose number would change


def test_a_run_that_fails_leaves_the_model_as_it_was(monkeypatch):
    model = random_model("gpt2", n_layer=4)
    before, config = parameters(model), model.config.to_dict()

    def fails(*_):
        raise RuntimeError("at the end")

    monkeypatch.setattr(depth, "cut_exactly", fails)
    with pytest.raises(RuntimeError, match="at the end"):
        prune(model, MANY, ratio=0.25)
    assert same(before, parameters(model)) and model.config.to_dict() == config and len(model.transformer.h) == 4


def test_damaged_models_are_named():
    model = random_model("llama", num_hidden_layers=3)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(1e30)
        model.model.layers[1].mlp.up_proj.weight.mul_(1e30)
    with pytest.raises(ValueError, match="makes NaN or Inf of a short window: its weights are damaged"):
        prune(model, ratio=0.4)


def test_the_command_saves_resumes_and_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = gramian.save(random_model("llama", num_hidden_layers=4), tiny_tokenizer(), "model")
    args = ["prune", source, *FAST, "--method", "depth", "--ratio", "0.5", "--no-perplexity"]
    assert call(*args, "--out", "whole") == 0
    assert "blocks removed, the first gone first" in capsys.readouterr().out
    work = BlockJudge.measured

    def interrupted(self, gone, candidates):
        if gone:
            raise KeyboardInterrupt
        return work(self, gone, candidates)

    monkeypatch.setattr(BlockJudge, "measured", interrupted)
    assert call(*args, "--out", "again") == 130
    seen = []
    monkeypatch.setattr(BlockJudge, "measured", lambda self, gone, left: seen.append(len(gone)) or work(self, gone, left))
    assert call(*args, "--out", "again", "--resume") == 0
    assert seen == [1]  # the first step is in the journal
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert AutoModelForCausalLM.from_pretrained("again").config.num_hidden_layers == 2
    capsys.readouterr()
    assert call(*args, "--dry-run") == 0 and "model.layers.3" in capsys.readouterr().out
    assert "run it where the model is in memory" in failure(capsys, *args, "--out", "other", "--memory", "stream")
    assert call("methods", "depth") == 0
    printed = capsys.readouterr().out
    assert "depth removes whole blocks: --ratio" in printed and "ShortGPT" in printed


def test_estimates_count_what_a_run_does():
    model = random_model("llama", num_hidden_layers=4)
    config = PruneConfig("depth", ratio=0.5)
    found = run_estimate(model, (8, 24), config, heldout=2, evaluated=2)
    assert len(found.operators) == 4 and found.covered == 1 and found.peak < 2**31
    plan = plan_of(model, config)
    assert plan.steps == 2 and plan.visits == 4 + 3 + 4
    assert disk_space(model, config, plan) == 4 * sum(each.numel() for each in model.parameters())
