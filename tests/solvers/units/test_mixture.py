"""Experts of a mixture: its loss against the sum written out, greedy removal against every set, exchanges, scores."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramian.solvers.units.mixture import Mixture, remove_experts, routing_frequency, routing_saliency

WIDTH = 5


class Layer:
    """A mixture as models have it: softmax over logits, the two largest, weights that sum to one."""

    def __init__(self, seed: int, tokens: int = 40, experts: int = 6, scale: float = 1.0, active: int = 2) -> None:
        rng = np.random.default_rng(seed)
        self.outputs = scale * rng.normal(size=(tokens, experts, WIDTH))
        self.logits = rng.normal(size=(tokens, experts))
        self.active = active
        chosen, weights = self.route(np.arange(experts))
        self.targets = self.given(chosen, weights)

    def route(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(-self.logits[:, kept], axis=1, kind="stable")[:, : self.active]
        chosen = kept[order]
        weights = np.exp(np.take_along_axis(self.logits, chosen, axis=1))
        return chosen, weights / weights.sum(axis=1, keepdims=True)

    def given(self, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
        rows = [sum(w * self.outputs[t, e] for e, w in zip(chosen[t], weights[t])) for t in range(len(chosen))]
        return np.array(rows)

    def written_out(self, kept: list[int]) -> float:
        return 0.5 * float(((self.given(*self.route(np.array(kept))) - self.targets) ** 2).sum())

    def mixture(self, groups: int = 1) -> Mixture:
        return Mixture.of_outputs(self.outputs, self.targets, groups)


@given(st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e6]), st.integers(2, 6))
def test_the_loss_is_that_of_the_sum_written_out(seed, scale, keep):
    layer = Layer(seed, scale=scale)
    kept = sorted(np.random.default_rng(seed).permutation(6)[:keep].tolist())
    found = layer.mixture().loss(*layer.route(np.array(kept)))
    assert abs(found - layer.written_out(kept)) <= 1e-10 * max(layer.mixture().energies.sum(), layer.written_out(kept))


def test_every_step_takes_the_expert_that_costs_least():
    layer = Layer(1)
    choice = remove_experts(layer.mixture(), layer.route, 2)
    left = set(range(6))
    for gone, loss in zip(choice.removed, choice.losses):
        costs = {each: layer.written_out(sorted(left - {each})) for each in left}
        assert costs[gone] <= min(costs.values()) * (1 + 1e-9) and np.isclose(loss, costs[gone], rtol=1e-9)
        left.remove(gone)
    assert choice.kept.tolist() == sorted(left) and choice.loss == choice.losses[-1]


def test_an_expert_that_nobody_hears_goes_first():
    layer = Layer(2)
    layer.logits[:, 4] = -50.0
    layer.targets = layer.given(*layer.route(np.arange(6)))
    choice = remove_experts(layer.mixture(), layer.route, 5)
    assert choice.removed == (4,) and choice.relative_error < 1e-12


def test_the_twin_of_an_expert_goes_though_it_is_busy():
    """Where one of two like experts is gone the other takes its place; scores of single experts cannot know."""
    layer = Layer(3, experts=4, active=1)
    layer.outputs[:, 1] = layer.outputs[:, 0]
    layer.logits[:, 1] = layer.logits[:, 0] + np.random.default_rng(3).choice([-1e-3, 1e-3], size=40)
    layer.logits[:, 2:] -= 1.0
    layer.targets = layer.given(*layer.route(np.arange(4)))
    busy = routing_frequency(layer.mixture(), layer.route(np.arange(4))[0])
    assert busy[:2].min() > busy[2:].max()
    choice = remove_experts(layer.mixture(), layer.route, 3)
    assert choice.removed[0] in (0, 1) and choice.relative_error < 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_exchanges_end_where_no_exchange_helps(seed):
    layer = Layer(seed, experts=7)
    greedy, after = (remove_experts(layer.mixture(), layer.route, 3, exchanges=each) for each in (False, True))
    every = {kept: layer.written_out(list(kept)) for kept in combinations(range(7), 3)}
    kept = tuple(after.kept.tolist())
    assert np.isclose(after.loss, every[kept], rtol=1e-9) and after.loss <= greedy.loss
    near = [loss for other, loss in every.items() if len({*other} & {*kept}) == 2]
    assert min(every.values()) * (1 - 1e-9) <= after.loss <= min(near) * (1 + 1e-8)
    assert sorted([*after.kept, *after.removed]) == list(range(7))


@pytest.mark.parametrize("exchanges", [False, True])
@pytest.mark.parametrize("groups", [2, 4])
def test_groups_keep_as_many_each_at_every_step(groups, exchanges):
    """A router that looks for experts in groups knows no groups of several sizes."""
    layer, size = Layer(5, experts=8), 8 // groups

    def route(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert len(set(np.bincount(kept // size, minlength=groups))) == 1
        return layer.route(kept)

    choice = remove_experts(layer.mixture(groups), route, 4, exchanges=exchanges)
    assert sorted(choice.kept // size) == sorted([*range(groups)] * (4 // groups))
    assert np.isclose(choice.loss, layer.written_out(choice.kept.tolist()), rtol=1e-9)


def test_scores_are_those_of_the_tokens_that_are_routed_to_an_expert():
    layer = Layer(6)
    chosen, weights = layer.route(np.arange(6))
    mixture = layer.mixture()
    for expert in range(6):
        heard = [
            w * np.linalg.norm(layer.outputs[t, expert])
            for t in range(40)
            for e, w in zip(chosen[t], weights[t])
            if e == expert
        ]
        assert routing_frequency(mixture, chosen)[expert] == len(heard)
        assert np.isclose(routing_saliency(mixture, chosen, weights)[expert], np.mean(heard))


def test_nothing_is_removed_where_all_are_kept():
    layer = Layer(7)
    choice = remove_experts(layer.mixture(), layer.route, 6)
    assert choice.removed == () and choice.kept.tolist() == list(range(6)) and choice.relative_error < 1e-12


def test_refusals():
    layer = Layer(8)
    with pytest.raises(ValueError, match="keep is 0"):
        remove_experts(layer.mixture(), layer.route, 0)
    with pytest.raises(ValueError, match="multiple of the 3 groups"):
        remove_experts(layer.mixture(groups=3), layer.route, 4)
    with pytest.raises(ValueError, match="not kept"):
        remove_experts(layer.mixture(), lambda kept: layer.route(np.arange(6)), 2)
    with pytest.raises(ValueError, match="6 experts cannot be in 4 groups"):
        layer.mixture(groups=4)
    with pytest.raises(ValueError, match="outputs are"):
        Mixture.of_outputs(layer.outputs, layer.targets[:-1])
    with pytest.raises(ValueError, match="NaN"):
        Mixture.of_outputs(layer.outputs * np.nan, layer.targets)
