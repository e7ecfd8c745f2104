"""The stream narrowed: rotations that change nothing, planted streams, SliceGPT by hand with hooks, stock classes, refusals."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from command_line import FAST, call, failure, model_fixture, no_network_fixture, short_builtin_text_fixture  # noqa: F401
from stacked_models import stacked_model
from tiny import HELDOUT, WINDOWS, parameters, random_model, same, tiny_tokenizer
from transformers import AutoModel, AutoModelForCausalLM

import gramian
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates.runs import disk_space, run_estimate
from gramian.adapters.models.narrowing import check_turned, narrow
from gramian.adapters.models.stream_parts import stream_parts
from gramian.adapters.passes import stream
from gramian.adapters.passes.planned import plan_of

ROUNDING = 1e-4  # of logits: norms of transformers compute in float32, whatever the model's dtype is
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
TYPES: dict[str, dict[str, Any]] = {
    "gemma": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16,
        "num_key_value_heads": 2,
    }
}  # fmt: skip


def prune(model: Any, windows: torch.Tensor = WINDOWS, **settings: Any) -> Any:
    return gramian.prune(model, windows, "slicegpt", progress=False, **settings)


@torch.no_grad()
def logits(model: Any, windows: torch.Tensor = WINDOWS) -> torch.Tensor:
    return model(input_ids=windows, use_cache=False).logits


def in_double(name: str) -> Any:
    """A tiny model in float64, gains and all random."""
    model = random_model(name, **TYPES.get(name, {})).double()
    model.config.dtype = torch.float64
    if name == "gemma":
        model.model.embed_tokens.embed_scale = model.model.embed_tokens.embed_scale.double()
    return model


def norms(model: Any) -> list[str]:
    """The norms of the stream of the four families, in order."""
    inside = [
        f"model.layers.{number}.{name}"
        for number in range(model.config.num_hidden_layers)
        for name in ("input_layernorm", "post_attention_layernorm")
    ]
    return [*inside, "model.norm"]


@torch.no_grad()
def streams(model: Any, windows: torch.Tensor) -> list[np.ndarray]:
    """What every norm reads, tokens of length one, by hooks."""
    found: list[np.ndarray] = []
    with ExitStack() as stack:
        for name in norms(model):
            hook = model.get_submodule(name).register_forward_pre_hook(
                lambda _, args: found.append(args[0].flatten(0, 1).double().numpy())
            )
            stack.callback(hook.remove)
        model(input_ids=windows, use_cache=False)
    return [each / np.linalg.norm(each, axis=1, keepdims=True) for each in found]


@torch.no_grad()
def projected(model: Any, basis: np.ndarray, windows: torch.Tensor) -> torch.Tensor:
    """Logits of the dense model with Q Q^T before every norm."""
    within = torch.from_numpy(basis @ basis.T)
    with ExitStack() as stack:
        for name in norms(model):
            hook = model.get_submodule(name).register_forward_pre_hook(
                lambda _, args: ((args[0].double() @ within).to(args[0].dtype),)
            )
            stack.callback(hook.remove)
        return logits(model, windows)


def plant(model: Any, rank: int) -> None:
    """Let the stream of a model lie in a subspace."""
    width = model.config.hidden_size
    random = torch.Generator().manual_seed(5)
    basis = torch.linalg.qr(torch.randn(width, rank, generator=random, dtype=torch.float64))[0]
    within = (basis @ basis.T).to(model.dtype)
    with torch.no_grad():
        embedding = model.get_input_embeddings()
        embedding.weight.copy_(embedding.weight @ within)
        for block in model.model.layers:
            for writer in (block.self_attn.o_proj, block.mlp.down_proj):
                writer.weight.copy_(within @ writer.weight)


@pytest.mark.parametrize("name", [*FAMILIES, "gemma"])
def test_a_rotated_model_computes_the_same(name):
    """With k = p the logits are those of the dense model, to rounding, and what is undone is the very model."""
    model = in_double(name)
    parts, dense, before = stream_parts(model, "slicegpt"), logits(model), parameters(model)
    assert list(parts.norms) == norms(model) and parts.scaled == (name == "gemma")
    assert (parts.tied is None) == (not model.config.tie_word_embeddings)
    rotation = torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    done = narrow(model, parts, lambda rows: rows @ rotation, 32)
    found = logits(model)
    assert float((found - dense).abs().max()) < ROUNDING * float(dense.abs().max())
    assert not logits(model).equal(dense) and not same(before, parameters(model))
    gain = 0.0 if name == "gemma" else 1.0
    assert all(bool((model.get_submodule(norm).weight == gain).all()) for norm in parts.norms)
    done.undo()
    assert same(before, parameters(model)) and logits(model).equal(dense)
    check_turned(model, parts)  # raises nothing, and turns it back
    assert same(before, parameters(model))


@pytest.mark.parametrize("name", [*FAMILIES, "gemma"])
def test_a_stream_in_a_subspace_is_narrowed_to_it_and_nothing_changes(name):
    model = in_double(name)
    plant(model, 24)
    dense = logits(model)
    report = prune(model, ratio=0.25, heldout=HELDOUT)
    assert model.config.hidden_size == 24 and model.get_input_embeddings().embedding_dim == 24
    assert float((logits(model) - dense).abs().max()) < ROUNDING * float(dense.abs().max())
    for row in report.modules:
        assert max(row.relative_error, row.heldout_error, row.detail["own_basis"]) < 1e-13 and row.units == (32, 24)
    assert report.settings["stream"]["lost"] < 1e-13


@pytest.mark.parametrize("name", FAMILIES)
def test_against_the_dense_model_with_projections_before_its_norms(name, tmp_path):
    """The basis by numpy's singular vectors of all tokens, its effect by hooks; then from the disk, with stock classes."""
    model = random_model(name)
    dense, windows = copy.deepcopy(model), WINDOWS[:4]
    report = prune(model, ratio=0.25, heldout=HELDOUT)
    seen, apart = streams(dense, WINDOWS), streams(dense, HELDOUT)
    basis = np.linalg.svd(np.concatenate(seen), full_matrices=False)[2][:24].T
    assert [row.name for row in report.modules] == norms(dense)
    for row, tokens, others in zip(report.modules, seen, apart):
        lost = [float(np.mean(np.sum((each - each @ basis @ basis.T) ** 2, axis=1))) for each in (tokens, others)]
        assert (row.masked_error, row.relative_error, row.heldout_error) == pytest.approx((lost[0], lost[0], lost[1]), rel=1e-4)
        own = np.linalg.svd(tokens, compute_uv=False)[24:]
        assert row.detail["own_basis"] == pytest.approx(float(np.sum(own**2)) / len(tokens), rel=1e-4)
        assert row.detail["own_basis"] < row.relative_error and row.units == (32, 24) and row.residual is None
    found = report.settings["stream"]
    assert found["width"] == [32, 24] and found["lost"] == pytest.approx(report.mean_error, rel=1e-5)
    assert found["least"] == pytest.approx(found["lost"], rel=1e-9) and found["own_bases"] < found["lost"]
    assert "stream of 32 -> 24 directions" in str(report)
    expected = projected(dense, basis, windows)
    assert float((logits(model, windows) - expected).abs().max()) < 1e-3 * float(expected.abs().max())
    counts = [sum(each.numel() for each in some.parameters()) for some in (dense, model)]
    assert list(report.parameters) == counts
    folder = gramian.save(model, None, tmp_path / "out", report=report)
    assert not (folder / "modeling_gramian.py").exists()
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert (
        stock.config.hidden_size == 24
        and not stock.config.tie_word_embeddings
        and stock.config.head_dim == (dense.config.hidden_size // 4 if name in ("llama", "qwen2") else 16)
    )
    mask = torch.ones_like(windows)
    with torch.no_grad():
        for cached in (True, False):
            assert stock(input_ids=windows, use_cache=cached).logits.equal(model(input_ids=windows, use_cache=cached).logits)
    sequences = [
        each.generate(windows, attention_mask=mask, max_new_tokens=5, min_new_tokens=5, do_sample=False, use_cache=cached)
        for each in (model, stock)
        for cached in (True, False)
    ]
    assert all(each.equal(sequences[0]) for each in sequences)
    again = gramian.load(folder)[0]
    assert logits(again, windows).equal(logits(model, windows))
    follow = gramian.prune(model, WINDOWS, "wanda", sparsity=0.5, progress=False)  # what remains is a model like any other
    assert follow.sparsity == pytest.approx(0.5, abs=0.01)


def test_embeddings_scaled_by_the_width_are_stored_without_the_change(tmp_path):
    model = random_model("gemma", **TYPES["gemma"])
    prune(model, ratio=0.3)
    folder = gramian.save(model, None, tmp_path / "out")
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert logits(stock).equal(logits(model)) and stock.lm_head.weight is not stock.model.embed_tokens.weight


def size(model: Any, blocks: bool) -> int:
    return sum(each.numel() for each in (model.model.layers if blocks else model).parameters())


def of_width(dense: Any, width: int) -> Any:
    """The same class with another width, as its configuration says it."""
    config = copy.deepcopy(dense.config)
    config.hidden_size, config.tie_word_embeddings, config.head_dim = width, False, 8
    return type(dense)(config)


@pytest.mark.parametrize("ratio", [0.02, 0.3, 0.51, 0.99])
def test_the_width_is_the_nearest_that_the_class_builds(ratio):
    """Llama takes widths that its heads divide alone: of those, by building them all."""
    dense = random_model("llama")
    inside = size(dense, True)
    target = (1 - ratio) * inside
    best = min(range(4, 32, 4), key=lambda width: (abs(size(of_width(dense, width), True) - target), -width))
    report = prune(dense, ratio=ratio)
    assert dense.config.hidden_size == best and size(dense, True) == report.block_parameters[1]
    assert report.ratio == pytest.approx(1 - report.block_parameters[1] / inside)


def test_rounded_widths_and_budgets():
    dense = random_model("qwen2")
    whole, rounded = size(dense, False), copy.deepcopy(dense)
    prune(rounded, ratio=0.4, round_to=8)
    assert rounded.config.hidden_size == 16  # 0.4 is nearest to 20 of 32, which 16 and 24 are as near to; the ratio counts
    for budget in (f"params={int(0.8 * whole)}", f"bytes={int(4 * 0.8 * whole)}"):
        model = copy.deepcopy(dense)
        report = prune(model, budget=budget)
        width = model.config.hidden_size
        assert size(model, False) <= 0.8 * whole < size(of_width(dense, width + 2), False)  # of even widths the largest
        assert report.parameters == (whole, size(model, False))
    with pytest.raises(ValueError, match="is met already"):
        prune(dense, budget=f"params={2 * whole}")
    with pytest.raises(ValueError, match="no width of the stream among the multiples of 2 below 32 will do"):
        prune(dense, budget="params=10")
    with pytest.raises(ValueError, match="no width of the stream among the multiples of 64 below 32 will do"):
        prune(dense, ratio=0.5, round_to=64)
    assert size(dense, False) == whole and dense.config.hidden_size == 32


@pytest.mark.parametrize(
    "name, reason",
    [
        ("opt", "is a LayerNorm, which subtracts a mean or adds a bias"),
        ("gpt2", "is a LayerNorm, which subtracts a mean or adds a bias"),
        ("gemma3_text", "is a norm that no Linear reads, as where a model norms what is added to the stream"),
        ("gemma2", "is a norm that no Linear reads, as where a model norms what is added to the stream"),
        ("mixtral", "is a norm that no Linear reads, .*packs experts"),
        ("cohere", "makes of ones neither its weight nor 1"),
    ],
)
def test_models_that_depend_on_their_basis_are_refused(name, reason):
    model = random_model(name)
    before, config = parameters(model), model.config.to_dict()
    with pytest.raises(ValueError, match=reason) as caught:
        prune(model)
    assert "\n" not in str(caught.value)
    assert same(before, parameters(model)) and model.config.to_dict() == config


def test_refusals_come_before_any_work(tmp_path):
    model = random_model("llama")
    before = parameters(model)
    for settings, reason in (
        ({"include": "mlp"}, "narrows the stream of the whole model and fits nothing: leave it out"),
        ({"blocks": "1:"}, "narrows the stream of the whole model"),
        ({"allocation": "score"}, "allocation='score' does not go with 'slicegpt', which narrows the stream"),
        ({"allocation": "owl"}, "allocation='owl' does not go with 'slicegpt', which narrows the stream"),
        ({"compensate": True}, "fits nothing: leave it out"),
        ({"damping": 0.1}, "fits nothing: leave it out"),
        ({"refit": "block"}, "refit='block' does not go with 'slicegpt', which narrows the stream of the whole model"),
        ({"sparsity": 0.5}, "sparsity=0.5 does not go with 'slicegpt', which narrows the stream of the model: give it ratio="),
        ({"options": {"score": "loss"}}, "slice_stream has no option 'score'; it has basis"),
    ):
        with pytest.raises(ValueError, match=reason):
            prune(model, **settings)
    with pytest.raises(ValueError, match="has an encoder and a decoder"):
        prune(stacked_model("t5"))
    headless = AutoModel.from_config(model.config).eval()
    with pytest.raises(ValueError, match="norm of LlamaModel is a norm that no Linear reads"):
        prune(headless)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="run it where the model is in memory"):
        gramian.prune(tmp_path / "model", WINDOWS, "slicegpt", out=tmp_path / "out", progress=False)
    assert same(before, parameters(model))


def test_what_touches_the_stream_otherwise_is_noticed():
    """A gain per channel behind the attention, which no folding finds."""
    model = random_model("llama")
    own = model.model.layers[1].self_attn.o_proj.forward
    model.model.layers[1].self_attn.o_proj.forward = lambda hidden: own(hidden) * torch.linspace(0.5, 2, 32)
    with pytest.raises(ValueError, match="is another model once its stream is turned"):
        prune(model)


def test_a_run_that_fails_leaves_the_model_as_it_was(monkeypatch):
    model = random_model("qwen2")
    before, config = parameters(model), model.config.to_dict()
    work = stream.narrow_exactly

    def fails(*arguments):
        work(*arguments).undo()
        raise RuntimeError("at the end")

    monkeypatch.setattr(stream, "narrow_exactly", fails)
    with pytest.raises(RuntimeError, match="at the end"):
        prune(model)
    assert same(before, parameters(model)) and model.config.to_dict() == config
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(1e30)
        model.model.layers[1].mlp.up_proj.weight.mul_(1e30)
    with pytest.raises(ValueError, match="makes NaN or Inf of a short window: its weights are damaged"):
        prune(model)


def test_the_command_saves_and_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = gramian.save(random_model("llama"), tiny_tokenizer(), "model")
    args = ["prune", source, *FAST, "--method", "slicegpt", "--ratio", "0.25", "--no-perplexity"]
    assert call(*args, "--out", "whole") == 0
    assert "stream of 32 -> 24 directions" in capsys.readouterr().out
    page = (tmp_path / "whole" / "report.html").read_text(encoding="utf-8")
    assert (
        "The method slicegpt narrowed the stream of model from 32 to 24 directions" in page and "Directions that stay" in page
    )
    work = stream.narrow_exactly

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "narrow_exactly", interrupted)
    assert call(*args, "--out", "again") == 130
    monkeypatch.setattr(stream, "narrow_exactly", work)
    assert call(*args, "--out", "again", "--resume") == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert call(*args, "--dry-run") == 0 and "model.layers.1.input_layernorm" in capsys.readouterr().out
    assert "run it where the model is in memory" in failure(capsys, *args, "--out", "other", "--memory", "stream")
    assert call("methods", "slicegpt") == 0
    printed = capsys.readouterr().out
    assert "slicegpt narrows the stream: --ratio" in printed and "Ashkboos" in printed


def test_estimates_count_what_a_run_does():
    model = random_model("llama")
    config = PruneConfig("slicegpt", ratio=0.25)
    found = run_estimate(model, (8, 24), config, heldout=2, evaluated=2)
    assert [each.name for each in found.operators] == norms(model) and found.operators[0].shape == (24, 32)
    assert found.memory["moments of the stream at every norm, float64"] == 5 * 2 * 32**2 * 8
    assert 0.99 < found.covered <= 1 and found.peak < 2**31
    assert disk_space(model, config, plan_of(model, config)) == 4 * sum(each.numel() for each in model.parameters())
    with pytest.raises(ValueError, match="which is not in memory"):
        with torch.device("meta"):
            empty = type(model)(model.config)
        run_estimate(empty, (8, 24), config)


def test_one_window_is_enough():
    """Fewer tokens than channels leave directions of which nothing is known; the model still runs."""
    model = random_model("llama")
    report = prune(model, WINDOWS[:1, :4], ratio=0.25)
    assert report.settings["stream"]["lost"] < 1e-9 and bool(logits(model).isfinite().all())


def test_channels_as_they_are():
    """Planted: what the stream leaves out costs nothing; weights that stay are the dense ones, but for a factor."""
    model = random_model("llama").eval()
    kept = [j for j in range(32) if j % 4]
    gone = [j for j in range(32) if not j % 4]
    with torch.no_grad():
        model.get_input_embeddings().weight[:, gone] = 0
        for block in model.model.layers:
            for writer in (block.self_attn.o_proj, block.mlp.down_proj):
                writer.weight[gone] = 0
    dense, up = logits(model), model.model.layers[0].mlp.down_proj.weight.detach().clone()
    report = prune(model, ratio=0.25, options={"basis": "channels"})
    assert model.config.hidden_size == 24
    assert max(row.relative_error for row in report.modules) < 1e-12
    torch.testing.assert_close(logits(model), dense, rtol=1e-4, atol=1e-5)
    scaled = up[kept] * (24 / 32) ** 0.5  # so that norms, which divide by a mean over fewer channels, read the same
    torch.testing.assert_close(model.model.layers[0].mlp.down_proj.weight, scaled, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="basis must be one of principal, channels but is 'axes'"):
        prune(random_model("llama"), ratio=0.25, options={"basis": "axes"})
