"""What is left of a block fitted as a whole: planted weights are found again, zeros are held, and text set aside decides."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import parameters, same, some_windows, tiny_model
from torch import nn

from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.passes.block_fits import BlockFit, Step, scales_of
from gramian.adapters.run.forward import BlockCall, enter

FAMILIES = ("llama", "gemma3_text", "opt", "gpt2")  # gated, with norms behind its operators, with biases, transposed


def by_hand(targets: list[torch.Tensor]) -> torch.Tensor:
    """Every channel's mean square among tokens of length one, over that of all."""
    tokens = torch.cat([each.double().flatten(0, -2) for each in targets])
    each = (tokens / tokens.norm(dim=-1, keepdim=True)).square().mean(0)
    return (each.mean() / each).float()


class Planted:
    """A dense block whose operators are sparse, and the same block with every weight times noise.

    dense, block: both. steps: what enters them, and what the dense block answers. masks: where its weights are not zero."""

    def __init__(self, model_type: str, noise: float = 0.1, windows: int = 16) -> None:
        model = tiny_model(model_type).requires_grad_(False)
        hidden, calls = enter(model, list(some_windows(windows, seed=5).split(2)))
        self.block: nn.Module = blocks_of(model)[0]
        self.call = calls[0]
        assert isinstance(self.call, BlockCall)
        draw = torch.Generator().manual_seed(1)
        matrices = {name: each for name, each in self.block.named_parameters() if each.ndim == 2}
        self.masks = {name: torch.rand(each.shape, generator=draw) < 0.5 for name, each in matrices.items()}
        for name, each in matrices.items():
            each.mul_(self.masks[name])
        self.dense = copy.deepcopy(self.block)
        self.names = [name for name, _ in self.block.named_parameters()]
        self.steps: list[Step] = [(states, self.call(self.dense, states)) for states in hidden]
        self.scales = by_hand([y for _, y in self.steps])
        for each in self.block.parameters():
            each.mul_(1 + noise * torch.randn(each.shape, generator=draw))

    def fit(self, dtype: torch.dtype = torch.float32, **options) -> BlockFit:
        return BlockFit(self.block, self.call, self.names, self.masks, dtype, self.scales, **options)

    def loss(self, steps: list[Step]) -> float:
        """Of the block as it is."""
        with torch.no_grad():
            errors = [(self.call(self.block, x) - y).double().square() @ self.scales.double() for x, y in steps]
            return sum(float((each / y.double().square().sum(-1)).sum()) for each, (_, y) in zip(errors, steps))

    def zeros_hold(self) -> bool:
        weights = dict(self.block.named_parameters())
        return all(bool((weights[name][~mask] == 0).all()) for name, mask in self.masks.items())


@pytest.mark.parametrize("model_type", FAMILIES)
def test_planted_weights_are_found_again(model_type):
    planted = Planted(model_type, windows=48)
    fitted, aside, apart = planted.steps[:16], planted.steps[16:20], planted.steps[20:]
    before = [planted.loss(part) for part in (fitted, aside, apart)]
    found = planted.fit(epochs=30, rate=0.03).solve(fitted, aside)
    after = [planted.loss(part) for part in (fitted, aside, apart)]
    assert planted.zeros_hold() and found.epochs > 15
    assert all(one < 0.05 * other for one, other in zip(after, before)), (before, after)
    assert [found.before.fitted, found.before.aside] == pytest.approx(before[:2], rel=1e-5)
    assert [found.after.fitted, found.after.aside] == pytest.approx(after[:2], rel=1e-4)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_norms_and_biases_are_fitted_too(model_type):
    planted = Planted(model_type)
    vectors = [name for name in planted.names if name not in planted.masks]
    before = parameters(planted.block)
    assert planted.fit().solve(planted.steps[:6], planted.steps[6:]).epochs > 0
    after = parameters(planted.block)
    unseen = {name for name in vectors if name.endswith(("k_proj.bias",))}  # a softmax does not notice it
    assert len(vectors) > 1 and not any(same(before, after, [name]) for name in {*vectors} - unseen)


@pytest.mark.parametrize("rate", [1e-3, 0.1, 10.0])
def test_no_loss_rises(rate):
    """Steps that are far too long, which have to be taken back, among them."""
    planted = Planted("llama", noise=0.02)
    before = planted.loss(planted.steps[:6]), planted.loss(planted.steps[6:])
    found = planted.fit(epochs=4, rate=rate).solve(planted.steps[:6], planted.steps[6:])
    after = planted.loss(planted.steps[:6]), planted.loss(planted.steps[6:])
    assert after <= before and planted.zeros_hold()
    assert (found.epochs == 0) == (after == before)
    if rate == 10:
        assert found.epochs == 0 and found.tried == 4


def test_what_does_not_help_on_windows_set_aside_is_put_back():
    """On these the block answers already what it should: whatever the others teach it is worse there."""
    planted = Planted("llama")
    aside = [(x, planted.call(planted.block, x) + 1e-6) for x, _ in planted.steps[6:]]
    before = parameters(planted.block)
    found = planted.fit(epochs=9).solve(planted.steps[:6], aside)
    assert same(before, parameters(planted.block)) and (found.epochs, found.tried) == (0, 2) and found.after == found.before


def test_the_best_epoch_on_windows_set_aside_remains():
    """Targets with much noise: the windows that are fitted would be fitted ever better."""
    planted, draw = Planted("llama", noise=0.3), torch.Generator().manual_seed(2)
    steps = [(x, y + 0.5 * torch.randn(y.shape, generator=draw)) for x, y in planted.steps]
    found = planted.fit(epochs=200, rate=0.05).solve(steps[:1], steps[4:])
    assert 0 < found.epochs < found.tried < 150
    assert planted.loss(steps[4:]) == pytest.approx(found.after.aside, rel=1e-5)
    assert found.after.aside < found.before.aside


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_those_of_rounded_weights(dtype):
    planted = Planted("llama")
    for each in planted.block.parameters():
        each.copy_(each.to(dtype))
    found = planted.fit(dtype).solve(planted.steps[:6], planted.steps[6:])
    assert found.epochs > 0 and planted.zeros_hold()
    assert all(each.equal(each.to(dtype).float()) for each in planted.block.parameters())
    assert planted.loss(planted.steps[:6]) == pytest.approx(found.after.fitted, rel=1e-6)
    assert found.after.fitted < found.before.fitted


def test_a_block_that_lacks_nothing_is_left_alone():
    planted = Planted("gemma3_text", noise=0)
    before = parameters(planted.block)
    found = planted.fit().solve(planted.steps[:6], planted.steps[6:])
    assert (found.tried, found.before.fitted) == (0, 0) and same(before, parameters(planted.block))


def test_units_change_nothing():
    """Hidden states and targets of another scale lead to the same steps where a block has no norm, as its operators do."""
    linear = nn.Linear(6, 6, bias=False).requires_grad_(False)
    start, draw = linear.weight.clone(), torch.Generator().manual_seed(0)
    target = torch.randn(6, 6, generator=draw)
    states = [torch.randn(1, 8, 6, generator=draw) for _ in range(4)]
    found = []
    for scale in (1.0, 2.0**-20, 2.0**20):
        linear.weight.copy_(start)
        steps = [(x * scale, x * scale @ target.T) for x in states]
        call = lambda block, x: block(x)  # noqa: E731
        fit = BlockFit(linear, call, ["weight"], {}, torch.float32, scales_of(steps[:3]))  # type: ignore[arg-type]
        fit.solve(steps[:3], steps[3:])
        found.append(linear.weight.clone())
    assert not found[0].equal(start) and all(torch.allclose(each, found[0], rtol=1e-4) for each in found)


def test_the_same_bytes_again():
    one, two = Planted("llama"), Planted("llama")
    for each in (one, two):
        each.fit().solve(each.steps[:6], each.steps[6:])
    assert same(parameters(one.block), parameters(two.block))


def test_a_block_without_gradients_is_an_error():
    planted = Planted("llama")
    call = planted.call
    fit = BlockFit(
        planted.block, lambda block, x: call(block, x).detach(), planted.names, planted.masks, torch.float32, planted.scales
    )  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing that it answers has gradients"):
        fit.solve(planted.steps[:6], planted.steps[6:])


def test_parameters_that_are_not_named_remain():
    planted = Planted("llama")
    planted.block.requires_grad_(True)
    before, planted.names = parameters(planted.block), ["mlp.down_proj.weight"]
    assert planted.fit().solve(planted.steps[:6], planted.steps[6:]).epochs > 0
    after = parameters(planted.block)
    assert [name for name in before if not same(before, after, [name])] == ["mlp.down_proj.weight"]
    assert all(each.grad is None for each in planted.block.parameters())


def test_tokens_count_alike_however_large_their_states_are():
    """One token is a thousand times as large as the others and wants other weights: it is one of many all the same."""
    linear, draw = nn.Linear(6, 6, bias=False).requires_grad_(False), torch.Generator().manual_seed(0)
    target, other = torch.randn(6, 6, generator=draw), torch.randn(6, 6, generator=draw)
    steps = []
    for _ in range(8):
        states = torch.randn(1, 32, 6, generator=draw)
        answers = states @ target.T
        states[:, 0] *= 1000
        answers[:, 0] = states[:, 0] @ other.T
        steps.append((states, answers))
    call = lambda block, x: block(x)  # noqa: E731
    linear.weight.copy_(target + 0.3 * torch.randn(6, 6, generator=draw))
    before = float((linear.weight - target).norm())
    how = {"epochs": 40, "rate": 0.03}
    BlockFit(linear, call, ["weight"], {}, torch.float32, torch.ones(6), **how).solve(steps[:6], steps[6:])  # type: ignore[arg-type]
    assert float((linear.weight - target).norm()) < 0.5 * before


def test_channels_count_alike_however_large_they_are():
    """By hand, with one channel that holds nearly all of every token's length, and one that is always zero."""
    draw = torch.Generator().manual_seed(0)
    targets = [torch.randn(2, 9, 5, generator=draw) * torch.tensor([1.0, 300.0, 0.1, 1.0, 1.0]) for _ in range(3)]
    steps = [(each, each) for each in targets]
    assert torch.allclose(scales_of(steps), by_hand(targets), rtol=1e-5)
    for each in targets:
        each[..., 3] = 0
    found = scales_of(steps)
    assert bool(torch.isfinite(found).all()) and found[3] == pytest.approx(1e6, rel=1e-3)
    assert bool(torch.isfinite(scales_of([(each, 0 * each) for each in targets])).all())
