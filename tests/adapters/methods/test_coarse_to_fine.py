"""CFSP: angles of blocks against plain hooks, scores by hand, and where units go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stacked_models import stacked_model
from structured_models import exact
from tiny import WINDOWS, parameters, some_windows, tiny_model

import gramian
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.data.mixing import given_windows
from gramian.adapters.estimates.figures import Rates
from gramian.adapters.estimates.runs import run_estimate
from gramian.adapters.models.block_lists import blocks_path
from gramian.adapters.passes.angles import block_angles
from gramian.adapters.run.blocks import InMemory
from gramian.adapters.run.forward import batches_of
from gramian.adapters.run.journal import Journal
from gramian.adapters.run.mixtures import mixture_of


def blocks_of(model):
    return model.get_submodule(blocks_path(model))


def angles_by_hand(model, windows) -> list[np.ndarray]:
    """The angle of every token in parts of half a turn, block by block, one window after the other."""
    found = [[] for _ in blocks_of(model)]

    def see(place):
        def hook(_, args, kwargs, answer):
            entering = (args[0] if args else kwargs["hidden_states"])[0].double().numpy()
            leaving = (answer if torch.is_tensor(answer) else answer[0])[0].double().numpy()
            for x, y in zip(entering, leaving):
                found[place].append(np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y)) / np.pi)

        return hook

    handles = [block.register_forward_hook(see(place), with_kwargs=True) for place, block in enumerate(blocks_of(model))]
    with torch.no_grad():
        for window in windows:
            model(window[None])
    for handle in handles:
        handle.remove()
    return [np.array(each) for each in found]


def turning_less(scale: float):
    """A model whose last block adds less to the stream by a factor, and the sigmoid of every block's angle by hand."""
    model = exact("llama")
    last = blocks_of(model)[-1]
    for weight in (last.self_attn.o_proj.weight, last.mlp.down_proj.weight):
        weight.mul_(scale)
    turns = np.array([each.mean() for each in angles_by_hand(model, WINDOWS)])
    return model, 1 / (1 + np.exp(-13.1 * (turns - turns.mean())))


def activations(model, mlp) -> torch.Tensor:
    """|X_j|_2 of the hidden channels of a module, by a hook on the dense model."""
    seen = []
    handle = mlp.down_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        model(WINDOWS)
    handle.remove()
    return torch.cat(seen).norm(dim=0)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_angles_are_those_of_hooks(family):
    model = tiny_model(family)
    found = block_angles(InMemory(model), batches_of(WINDOWS))
    assert list(found) == [f"{blocks_path(model)}.{place}" for place in range(len(blocks_of(model)))]
    expected = [each.mean() for each in angles_by_hand(model, WINDOWS)]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-5)
    assert not any(block._forward_hooks for block in blocks_of(model))


def test_tokens_of_domains_count_by_their_weights():
    model, law, news = tiny_model("llama"), some_windows(3, seed=1), some_windows(1, seed=2)
    tokens = given_windows({"law": (law, 0.2), "news": (news, 0.8)})
    found = block_angles(InMemory(model), batches_of(tokens), mixture_of(tokens))
    pairs = zip(angles_by_hand(model, law), angles_by_hand(model, news))
    np.testing.assert_allclose(list(found.values()), [0.2 * one.mean() + 0.8 * other.mean() for one, other in pairs], rtol=1e-5)


def test_blocks_keep_parts_in_proportion_to_a_sigmoid_of_their_angles():
    """Consumers that are scaled down turn next to nothing: their block keeps least, and parts are as the sigmoid has them."""
    model, wanted = turning_less(1e-4)
    report = gramian.prune(model, WINDOWS, "cfsp", ratio=0.3, progress=False)
    assert all(row.name.endswith("down_proj") for row in report.modules)
    kept = np.array([row.units[1] for row in report.modules])
    whole = np.array([row.units[0] for row in report.modules])
    assert kept[-1] < min(kept[:-1])
    some = kept < whole  # one cut t says floor(w n / t) for all of these
    assert np.max(wanted * whole / (kept + 1), where=some, initial=0) <= np.min(wanted * whole / kept) * (1 + 1e-5)


def test_activations_alone():
    """What the released code amounts to: the channels of the largest |X_j|, whatever the weights."""
    model = exact("llama")
    mlp = blocks_of(model)[0].mlp
    score, before = activations(model, mlp), mlp.gate_proj.weight.clone()
    gramian.prune(
        model, WINDOWS, "cfsp", ratio=0.1, include=r"layers\.0\.mlp", options={"within": "activations"}, progress=False
    )
    after = mlp.gate_proj.weight
    assert len(after) < len(before)
    assert torch.equal(after, before[torch.sort(torch.argsort(score, descending=True)[: len(after)]).values])


def test_an_order_that_is_none_is_refused():
    with pytest.raises(ValueError, match="within must be one of product, activations but is 'norms'"):
        gramian.prune(tiny_model("llama"), WINDOWS, "cfsp", ratio=0.2, options={"within": "norms"}, progress=False)


def test_the_scores_within_a_module():
    """The module keeps the channels of the largest |X_j| (|gate_j| + |up_j| + |down_j|), by hooks on the dense model."""
    model = exact("llama")
    mlp = blocks_of(model)[0].mlp
    size = mlp.gate_proj.weight.abs().sum(1) + mlp.up_proj.weight.abs().sum(1) + mlp.down_proj.weight.abs().sum(0)
    score, before = activations(model, mlp) * size, mlp.gate_proj.weight.clone()
    gramian.prune(model, WINDOWS, "cfsp", ratio=0.1, include=r"layers\.0\.mlp", progress=False)
    after = mlp.gate_proj.weight
    kept = torch.sort(torch.argsort(score, descending=True)[: len(after)]).values
    assert len(after) < len(before) and torch.equal(after, before[kept])


def test_streamed_to_the_same_bytes(tmp_path):
    model = tiny_model("llama")
    gramian.save(model, None, tmp_path / "dense")
    gramian.prune(model, WINDOWS, "cfsp", ratio=0.2, progress=False)
    gramian.prune(tmp_path / "dense", WINDOWS, "cfsp", ratio=0.2, out=tmp_path / "out", progress=False)
    found, _ = gramian.load(tmp_path / "out")
    theirs = parameters(found)
    assert all(torch.equal(theirs[name], weight) for name, weight in parameters(model).items())


@pytest.mark.parametrize(("method", "amount"), [("cfsp", {"ratio": 0.2}), ("wanda", {"sparsity": 0.5, "allocation": "angles"})])
def test_a_model_of_one_block_is_refused(method, amount):
    with pytest.raises(ValueError, match=r"allocation='angles' needs a model that runs block by block.*: take another"):
        gramian.prune(stacked_model("t5"), WINDOWS, method, progress=False, **amount)


def test_sparsities_of_weights_by_angles():
    """Densities of blocks are in proportion to the sigmoid of their angles, at the total that the sparsity gives."""
    model, wanted = turning_less(1e-2)
    report = gramian.prune(model, WINDOWS, "wanda", sparsity=0.7, per_row=False, allocation="angles", progress=False)
    zeros, whole = np.zeros(len(wanted)), np.zeros(len(wanted))
    for row in report.operators:
        place = int(row.name.split("layers.")[1].split(".")[0])
        whole[place] += row.shape[0] * row.shape[1]
        zeros[place] += round(row.sparsity * row.shape[0] * row.shape[1])
    assert zeros.sum() == sum(round(0.7 * row.shape[0] * row.shape[1]) for row in report.operators)
    kept = 1 - zeros / whole
    np.testing.assert_allclose(kept / kept.sum(), wanted / wanted.sum(), atol=2e-3)


def test_modules_keep_the_same_parts_by_any_method():
    """Whatever orders the units, of heads too; and less of the block that turns less."""
    kept = []
    for method in ("numerical", "wanda-sp", "magnitude-l1"):
        model, _ = turning_less(1e-2)
        report = gramian.prune(model, WINDOWS, method, ratio=0.3, allocation="angles", progress=False)
        kept.append({row.name: row.units for row in report.modules})
    assert kept[0] == kept[1] == kept[2]
    parts = [kept[0][f"model.layers.{place}.mlp.down_proj"] for place in (0, len(blocks_of(model)) - 1)]
    assert parts[1][1] < parts[0][1]


def test_rules_are_scaled_and_empty_no_operator():
    """Of two amounts by rule, kept parts of every operator are in proportion to the sigmoid times what the rule keeps."""
    model, wanted = turning_less(1e-2)
    rules = {"q_proj": 0.9, "*": 0.6}
    report = gramian.prune(model, WINDOWS, "wanda", sparsity=rules, per_row=False, allocation="angles", progress=False)
    ratios = []
    for row in report.operators:
        share = 1 - rules["q_proj" if "q_proj" in row.name else "*"]
        ratios.append((1 - row.sparsity) / share / wanted[int(row.name.split("layers.")[1].split(".")[0])])
        assert 0 < row.sparsity < 1
    np.testing.assert_allclose(ratios, ratios[0], rtol=0.05)


@pytest.mark.parametrize("method", ["wanda", "cfsp"])
def test_states_that_are_not_finite_are_an_error_that_names_the_block(method):
    model = exact("llama")
    blocks_of(model)[1].mlp.down_proj.weight[0, 0] = torch.inf
    amount = {"ratio": 0.2} if method == "cfsp" else {"sparsity": 0.5, "allocation": "angles"}
    with pytest.raises(ValueError, match=r"model\.layers\.1"):
        gramian.prune(model, WINDOWS, method, progress=False, **amount)


@pytest.mark.parametrize("settings", [{"round_to": 8}, {"heads": "per_kv_group"}, {"blocks": ":1"}])
def test_other_settings_go_with_it(settings):
    """The ratio is met to within what the settings allow."""
    model = exact("llama")
    report = gramian.prune(model, WINDOWS, "numerical", ratio=0.1, allocation="angles", progress=False, **settings)
    assert report.ratio == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize(("method", "amount"), [("cfsp", {"ratio": 0.2}), ("wanda", {"sparsity": 0.5, "allocation": "angles"})])
def test_an_estimate_knows_of_the_pass(method, amount):
    """What runs through the model once more takes longer."""
    model, other = tiny_model("llama"), {"allocation": "score"} if method == "cfsp" else {"allocation": "uniform"}
    given = [PruneConfig(method, **each) for each in (amount, {**amount, **other})]
    found, plain = (run_estimate(model, (64, 64), each, rates=Rates(2e9, 1e9)) for each in given)
    assert found.duration > plain.duration
    assert not any(block._forward_hooks for block in blocks_of(model))


@pytest.mark.parametrize(("method", "amount"), [("cfsp", {"ratio": 0.2}), ("wanda", {"sparsity": 0.5, "allocation": "angles"})])
def test_a_run_that_was_interrupted_goes_on_to_the_same_bytes(tmp_path, monkeypatch, method, amount):
    model = tiny_model("llama")
    gramian.save(model, None, tmp_path / "dense")
    gramian.prune(tmp_path / "dense", WINDOWS, method, out=tmp_path / "whole", progress=False, **amount)
    calls, usual = [], Journal.write

    def interrupted(self, *given, **named):
        usual(self, *given, **named)
        calls.append(given)
        if len(calls) == (3 if method == "cfsp" else 1):  # units take two passes
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gramian.prune(tmp_path / "dense", WINDOWS, method, out=tmp_path / "out", progress=False, **amount)
    monkeypatch.setattr(Journal, "write", usual)
    gramian.prune(tmp_path / "dense", WINDOWS, method, out=tmp_path / "out", resume=True, progress=False, **amount)
    whole, found = (parameters(gramian.load(tmp_path / name)[0]) for name in ("whole", "out"))
    assert all(torch.equal(found[name], weight) for name, weight in whole.items())
