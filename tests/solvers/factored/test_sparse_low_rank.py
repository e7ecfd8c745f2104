"""Sparse weights beside a matrix of low rank: planted, against every support, laws of the alternation, singular Grams."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gramian.proofs.kit.backends import NUMPY
from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import (
    NM,
    Quadratic,
    Status,
    TopK,
    l0_admm,
    magnitude,
    refit,
    sparse_low_rank,
    sparsegpt,
    wanda,
)
from gramian.solvers.factored.factors import divided_budget, rank_within


def planted(seed: int, drift: float = 0.0) -> tuple[Layer, np.ndarray, np.ndarray]:
    """A layer whose weights are nine large ones beside a matrix of rank one; with drift the outputs are still S + L's."""
    rng = np.random.default_rng(seed)
    sparse, low = np.zeros((12, 10)), np.outer(rng.normal(size=12), rng.normal(size=10))
    sparse.flat[rng.choice(120, size=9, replace=False)] = rng.choice([-1, 1], size=9) * rng.uniform(8, 12, size=9)
    return Layer(rng.normal(size=(60, 10)), sparse + low), sparse, low


def test_planted(xp):
    """W = S + L is found again, S and L apart, by the search itself."""
    layer, sparse, low = planted(1)
    solution = sparse_low_rank(layer.problem(xp), TopK(1 - 9 / 120), 1, rounds=12, polish=0)
    np.testing.assert_allclose(xp.numpy(solution.weights), layer.weight, atol=1e-6)
    np.testing.assert_allclose(xp.numpy(solution.sparse), sparse, atol=1e-6)
    np.testing.assert_allclose(xp.numpy(solution.left @ solution.right), low, atol=1e-6)
    assert solution.certificate.residual <= 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_planted_on_its_support(seed):
    """Where the support is known, S and L are found again whatever they are."""
    layer, sparse, _ = planted(seed)

    def known(problem, pattern):
        return refit(problem, sparse != 0)

    solution = sparse_low_rank(layer.problem(NUMPY), TopK(1 - 9 / 120), 1, choose=known, rounds=1, polish=60)
    np.testing.assert_allclose(solution.weights, layer.weight, atol=1e-6)
    np.testing.assert_allclose(solution.sparse, sparse, atol=1e-5)


def best_of_supports(layer: Layer, kept: int) -> float:
    """The least loss over every support of `kept` weights and every L of rank one, by alternation in numpy from several
    starts on each."""
    rows, width = layer.weight.shape
    inputs, outputs, best = layer.inputs, layer.outputs, np.inf
    for support in combinations(range(rows * width), kept):
        mask = np.zeros(rows * width, dtype=bool)
        mask[list(support)] = True
        mask = mask.reshape(rows, width)
        for start in (np.zeros((rows, width)), np.where(mask, layer.weight, 0.0)):
            sparse = start
            for _ in range(25):
                rest = np.linalg.lstsq(inputs, outputs - inputs @ sparse.T, rcond=None)[0].T @ inputs.T
                left, values, right = np.linalg.svd(rest, full_matrices=False)
                low = np.linalg.lstsq(inputs, (values[0] * np.outer(left[:, 0], right[0])).T, rcond=None)[0].T
                sparse = np.zeros((rows, width))
                for row in range(rows):
                    aim = outputs[:, row] - inputs @ low[row]
                    sparse[row, mask[row]] = np.linalg.lstsq(inputs[:, mask[row]], aim, rcond=None)[0]
            best = min(best, layer.loss(sparse + low))
    return best


def test_against_every_support():
    """Three rows of three weights, two of which are sparse: the search is never below the best support, and on each support in
    turn the alternation comes to it."""
    layer = normal_layer(20, 12, 3, 3)
    problem, least = layer.problem(NUMPY), best_of_supports(layer, 2)
    assert sparse_low_rank(problem, TopK(7 / 9), 1).certificate.objective >= least * (1 - 1e-3)
    found = []
    for support in combinations(range(9), 2):
        mask = np.isin(np.arange(9), support).reshape(3, 3)
        solution = sparse_low_rank(problem, TopK(7 / 9), 1, choose=lambda p, _, m=mask: refit(p, m), rounds=1, polish=40)
        found.append(solution.certificate.objective)
    assert min(found) == pytest.approx(least, rel=1e-2)


@pytest.mark.parametrize("pattern", [TopK(0.5), TopK(0.6, per_row=True), NM(2, 4)], ids=str)
@pytest.mark.parametrize("choose", [l0_admm, sparsegpt, wanda, magnitude])
def test_the_loss_never_rises(xp, pattern, choose):
    """From the method of choice by itself on, to the last digit, and what is returned is what the history ends with."""
    layer = normal_layer(30, 40, 8, 6, drift=0.3)
    problem = layer.problem(xp)
    alone = choose(problem, pattern).certificate.objective
    solution = sparse_low_rank(problem, pattern, 2, choose=choose)
    losses = [loss for _, loss in solution.history]
    assert losses[0] == pytest.approx(alone, rel=1e-12) and len(losses) == 9
    assert all(after <= before for before, after in pairwise(losses))
    assert losses[-1] < 0.9 * losses[0]
    assert layer.loss(xp.numpy(solution.weights)) == pytest.approx(losses[-1], rel=1e-9)
    assert pattern.admits(solution.sparse != 0)
    assert solution.rank == 2 and solution.parameters == int(np.sum(xp.numpy(solution.sparse) != 0)) + 2 * 14
    np.testing.assert_array_equal(xp.numpy(solution.weights), xp.numpy(solution.sparse + solution.left @ solution.right))


@given(layer=layers(multiple=2), rank=st.integers(1, 2), pattern=st.sampled_from([TopK(0.5), NM(1, 2)]))
@settings(max_examples=15)
def test_any_layer(xp, layer: Layer, rank, pattern):
    """Singular Grams, dead and duplicate channels, ties, units of 1e-6 and 1e6."""
    solution = sparse_low_rank(layer.problem(xp), pattern, rank, rounds=2, polish=1)
    losses = [loss for _, loss in solution.history]
    assert all(after <= before for before, after in pairwise(losses))
    weights, sparse = xp.numpy(solution.weights), xp.numpy(solution.sparse)
    assert np.all(np.isfinite(weights)) and pattern.admits(sparse != 0)
    assert layer.loss(weights) <= losses[0] + 1e-9 * (layer.magnitude(weights) + layer.magnitude(sparse))
    assert solution.rank <= rank


def test_the_residual_is_the_gradient_along_both_sets():
    """Against projections to all directions of S on its support, and to all B X + Y A, listed one by one."""
    layer = normal_layer(31, 40, 5, 4)
    solution = sparse_low_rank(layer.problem(NUMPY), TopK(0.5), 1, rounds=1, polish=1)
    gradient = (solution.weights - layer.weight) @ (layer.inputs.T @ layer.inputs)
    inside = np.where(solution.sparse != 0, gradient, 0.0)
    rights = [np.outer(solution.left[:, 0], unit).ravel() for unit in np.eye(5)]
    lefts = [np.outer(unit, solution.right[0]).ravel() for unit in np.eye(4)]
    directions = np.array(rights + lefts).T
    tangent = directions @ np.linalg.lstsq(directions, gradient.ravel(), rcond=None)[0]
    size = np.linalg.norm(layer.weight @ (layer.inputs.T @ layer.inputs))
    expected = np.hypot(np.linalg.norm(inside), np.linalg.norm(tangent)) / size
    assert solution.certificate.residual == pytest.approx(expected, rel=1e-6) and expected > 1e-4


def test_units_and_order(xp):
    """Channels in other units, and rows in another order, give the same weights in those."""
    layer = normal_layer(32, 40, 8, 6)
    plain = xp.numpy(sparse_low_rank(layer.problem(xp), TopK(0.5), 1).weights)
    scaled = sparse_low_rank(layer.scaled(inputs=1e3, weight=1e-3).problem(xp), TopK(0.5), 1)
    np.testing.assert_allclose(xp.numpy(scaled.weights) * 1e3, plain, rtol=1e-6, atol=1e-9)
    turned = sparse_low_rank(layer.permuted(rows=slice(None, None, -1)).problem(xp), TopK(0.5), 1)
    np.testing.assert_allclose(xp.numpy(turned.weights)[::-1], plain, rtol=1e-6, atol=1e-9)


def test_watched():
    """A callback ends it after a round, with a certificate of what it has seen."""
    seen = []

    def watch(step, weights, certificate):
        seen.append((step, certificate.objective))
        return step == 2

    solution = sparse_low_rank(normal_layer(33, 40, 8, 6).problem(NUMPY), TopK(0.5), 1, callback=watch)
    assert solution.status is Status.STOPPED and [step for step, _ in seen] == [1, 2]
    assert solution.certificate.objective == pytest.approx(seen[-1][1], rel=1e-12)


# -- budgets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (40, 96), (100, 7)])
@pytest.mark.parametrize("pattern", [TopK(0.5), TopK(0.3), TopK(0.5, per_row=True)], ids=str)
@pytest.mark.parametrize("share", [0.05, 0.25, 0.6])
def test_a_divided_budget_is_not_exceeded(shape, pattern, share):
    """S and L together hold no more numbers than the pattern keeps, and in a matrix as a whole exactly as many."""
    rows, width = shape
    kept = rows * width - pattern.zeros(rows * width) if not pattern.per_row else rows * (width - pattern.zeros(width))
    if kept < rows + width:
        with pytest.raises(ValueError, match="a matrix of rank 1 takes"):
            divided_budget(pattern, shape, share)
        return
    part, rank = divided_budget(pattern, shape, share)
    score = np.random.default_rng(0).random(shape)
    total = int(part.select(score).sum()) + rank * (rows + width)
    assert total <= kept and rank == max(1, min(int(share * kept) // (rows + width), rows, width))
    assert total == kept or (pattern.per_row and kept - total < rows)


def test_the_rank_that_a_pattern_leaves_room_for():
    """50 % of 40 x 96 are 1920 numbers: 14 times 136 fit."""
    assert rank_within(TopK(0.5), (40, 96)) == 14 == rank_within(NM(2, 4), (40, 96))
    assert rank_within(TopK(0.5), (2, 2)) == 1
    with pytest.raises(TypeError, match="give rank"):
        rank_within(object(), (2, 2))


@pytest.mark.parametrize("bad, message", [({"rounds": 0}, "rounds"), ({"polish": -1}, "polish")])
def test_options(bad, message):
    with pytest.raises(ValueError, match=f"{message} must be a whole number"):
        sparse_low_rank(Quadratic(np.eye(2), np.ones((2, 2))), 0.5, 1, **bad)
