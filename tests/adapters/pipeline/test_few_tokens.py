"""Experts to which few tokens were routed, or none: what they borrow is what the docstring says, and the report says it."""

import numpy as np
import pytest
import torch
from expert_models import expert_model, inputs_of_experts, matrix, path_of_experts
from safetensors.numpy import load_file
from tiny import WINDOWS, run

from gramian.adapters.models.experts import Packed
from gramian.adapters.models.layers import Layer
from gramian.adapters.run.expert_moments import ExpertMoments, spread
from gramian.adapters.run.forward import inputs_of
from gramian.adapters.run.moments import MomentCollector
from gramian.adapters.run.routing import Routed

pytestmark = pytest.mark.usefixtures("small_batches")
NEVER = 3  # the expert that is never chosen


def unbalanced(dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    model = expert_model("gpt_oss", dtype)
    for layer in model.model.layers:
        layer.mlp.router.bias[NEVER] = -1e9
        layer.mlp.router.bias[2] = -0.6  # chosen at times
    return model


def entering(model, windows, path):
    """What enters the experts module in the dense model."""
    seen = []
    hook = model.get_submodule(path).register_forward_pre_hook(lambda _, args: seen.append(args[0].double()))
    form = model.config._experts_implementation
    model.set_experts_implementation("eager")
    with torch.no_grad():
        model(input_ids=windows, use_cache=False)
    model.set_experts_implementation(form)
    hook.remove()
    return seen[0].reshape(-1, seen[0].shape[-1])


def through(model, path, number, tokens):
    """The hidden channels of one expert of gpt_oss for any tokens."""
    module = model.get_submodule(path)
    outputs = tokens @ module.gate_up_proj[number].double() + module.gate_up_proj_bias[number].double()
    gate, up = outputs[:, ::2].clamp(max=module.limit), outputs[:, 1::2].clamp(-module.limit, module.limit)
    return (up + 1) * gate * torch.sigmoid(module.alpha * gate)


@pytest.mark.parametrize("target", ["own", "block"])
def test_what_is_borrowed_is_as_stated(target, tmp_path):
    """Every problem that was solved is rebuilt from the routed tokens, the shared ones, and (p - n_e) / n_s."""
    model, dense = unbalanced(), unbalanced()
    windows = WINDOWS[:2]
    how = {"calibrate_on": "dense", "target": target, "include": "experts"}
    report = run(model, method="sparsegpt", tokens=windows, problems=tmp_path / "problems", **how)
    path = path_of_experts(dense, 0)
    entered = entering(dense, windows, path)
    rows = {row.name: row for row in report.operators if row.name.startswith(path)}
    borrowing = 0
    for name, row in rows.items():
        leaf, number = name.rsplit(".", 2)[1:]
        of_path = dense
        if target == "block" and leaf == "down_proj":
            of_path = unbalanced()
            of_path.get_submodule(path).gate_up_proj.copy_(model.get_submodule(path).gate_up_proj)
        inputs = inputs_of_experts(of_path, windows, path)[name]
        shared = entered if leaf == "gate_up_proj" else through(of_path, path, int(number), entered)
        borrowed = max(0, inputs.shape[1] - len(inputs))
        assert row.detail["routed_tokens"] == len(inputs) and row.detail["borrowed_tokens"] == borrowed
        gram = inputs.T @ inputs + borrowed / len(shared) * shared.T @ shared
        file = load_file(tmp_path / "problems" / f"{name}.safetensors")
        found = np.zeros(gram.shape)
        found[np.triu_indices(len(gram))] = file["gram_upper"] * (len(inputs) + borrowed)
        np.testing.assert_allclose(found, np.triu(gram), rtol=1e-5, atol=1e-5 * float(gram.diagonal().max()))
        borrowing += borrowed > 0
        judged = inputs if len(inputs) else shared
        outputs = judged @ matrix(dense, name).T
        error = float(((judged @ matrix(model, name).T - outputs) ** 2).sum() / (outputs**2).sum())
        assert row.relative_error == pytest.approx(error, rel=1e-6)
        assert row.sparsity == 0.5
    assert 2 <= borrowing < 8 and rows[f"{path}.down_proj.{NEVER}"].detail["routed_tokens"] == 0
    assert f"{sum(row.detail['borrowed_tokens'] > 0 for row in report.operators)} experts" in report.totals()


@pytest.mark.parametrize("method", ["l0", "wanda", "fistapruner"])
def test_no_method_fails_where_no_token_was_routed(method):
    """With held-out text, and with batches that choose the damping."""
    model = unbalanced(torch.float32)
    options = {"max_lambdas": 2, "inner_steps": 4, "warm_start": "wanda"} if method == "fistapruner" else None
    report = run(model, method=method, heldout=WINDOWS[:1], include="experts", options=options, sparsity="2:4")
    dead = [row for row in report.operators if row.name.endswith(f".{NEVER}")]
    assert len(dead) == 4
    for row in dead:
        assert row.heldout_error is None and 0 < row.relative_error < 1
        assert 0.5 <= row.sparsity < 0.51  # FISTAPruner may zero more


def packed(count: int = 3, width: int = 6) -> Packed:
    """An experts module of which nothing but the shape matters."""
    module = torch.nn.Module()
    module.up_proj = torch.nn.Parameter(torch.randn(count, 4, width), requires_grad=False)
    return Packed(module, "up_proj")


def test_inputs_wait_no_longer_than_they_are_smaller_than_moments():
    site, tokens = packed(), torch.randn(40, 6, dtype=torch.float64)
    collector = ExpertMoments(site, {0: "a", 2: "c"}, (4, 1))
    for batch in range(5):
        rows = tokens[8 * batch : 8 * batch + 8]
        collector.receive(batch, Routed(rows, {0: rows[:2], 1: rows[:1], 2: rows[2:]}))
        waiting = {number: sum(map(len, kept)) for (number, _), kept in collector.waiting.items()}
        assert all(count < 6 for count in waiting.values())
    collector.settle(None)
    first = tokens.reshape(5, 8, 6)
    layers = [Layer(name, site.module, expert=(site, number)) for number, name in collector.names.items()]
    found = collector.of(layers[0])
    np.testing.assert_allclose(found.calibration.gram, sum(each[:2].T @ each[:2] for each in first).numpy(), rtol=1e-12)
    assert found.split[0].tokens == 8 and found.split[1].tokens == 2
    assert found.detail == {"routed_tokens": 10, "borrowed_tokens": 0} and found.evaluated.tokens == 10
    other = collector.of(layers[1])
    np.testing.assert_allclose(other.calibration.gram, sum(each[2:].T @ each[2:] for each in first).numpy(), rtol=1e-12)


def test_an_expert_whose_module_never_ran_is_named():
    with pytest.raises(ValueError, match="a: no calibration token entered the experts module"):
        ExpertMoments(site := packed(), {0: "a"}, (1,)).of(Layer("a", site.module, expert=(site, 0)))


def test_tokens_are_spread_evenly():
    tokens = torch.arange(10.0).reshape(10, 1)
    assert spread(tokens, 4).flatten().tolist() == [0.0, 3.0, 6.0, 9.0] and spread(tokens, 10) is tokens


def test_experts_that_are_modules_may_be_left_out_of_batches():
    """Inputs are paired by the number of their batch, and not at all where another number of tokens came."""
    layer = Layer("linear", torch.nn.Linear(3, 2, bias=False).double())
    dense, pruned = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(4, 4, 3, dtype=torch.float64)
    collector = MomentCollector("linear", (4,), keep=True)
    collector.receive(1, dense[0])
    collector.receive(3, dense[1, :2])
    collector.settle(iter([pruned[0], pruned[1], None, pruned[3]]))
    found = collector.of(layer)
    moved = pruned[1] - dense[0]
    seen = pruned[[0, 1, 3]].reshape(-1, 3)
    assert found.calibration.tokens == 12 and found.split is None and not found.detail
    np.testing.assert_allclose(found.calibration.gram, (seen.T @ seen).numpy(), rtol=1e-12)
    np.testing.assert_allclose(found.calibration.cross, (moved.T @ pruned[1]).numpy(), rtol=1e-12)


def test_a_module_that_no_token_reaches_is_fitted_to_white_inputs():
    layer = Layer("linear", torch.nn.Linear(5, 2, bias=False))
    collector = MomentCollector("linear", (2, 1), keep=True)
    collector.receive(0, torch.empty(0, 5))
    collector.settle(iter([torch.empty(0, 5), None, None]))
    found = collector.of(layer)
    np.testing.assert_array_equal(found.calibration.gram, np.eye(5))
    assert found.detail == {"routed_tokens": 0, "borrowed_tokens": 5} and found.heldout is None


class Sometimes(torch.nn.Module):
    """A block that sends a batch to one of two operators, by its first number."""

    def __init__(self):
        super().__init__()
        self.one, self.other = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

    def forward(self, hidden):
        return (self.one if hidden.flatten()[0] > 0 else self.other)(hidden)


def test_a_batch_that_does_not_reach_a_module_gives_nothing():
    block, batches = Sometimes(), [torch.full((1, 2, 3), float(value)) for value in (1, -1, 2)]
    found = list(inputs_of(block.one, block, lambda block, hidden: block(hidden), batches))
    assert found[0].equal(batches[0]) and found[1] is None and found[2].equal(batches[2])
