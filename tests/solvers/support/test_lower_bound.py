"""The bound of the loss of any support: against every support in rational numbers, cvxpy, closed forms, branch and bound."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from branch_and_bound import best_row
from every_support import best_loss, exact_losses, losses_of
from hypothesis import given, settings
from hypothesis import strategies as st
from least_squares import USUAL
from rounding import rounding

from gramian.proofs import laws
from gramian.proofs.kit.backends import NUMPY
from gramian.proofs.kit.convex import cvxpy
from gramian.proofs.kit.strategies import PATTERNS, Layer, layers, normal_layer, patterns, per_channel
from gramian.solvers import (
    NM,
    Quadratic,
    SupportBound,
    TopK,
    bounded,
    dual_bound,
    empirical_ridge,
    l0_admm,
    l0_bound,
    magnitude,
)
from gramian.solvers.support.perspective import relaxed_point

QUICK = {"steps": 15, "splits": 2}
ALL = (*USUAL, TopK(0.25, per_row=True), TopK(0.9), NM(3, 4))


def damped(layer: Layer, xp: Any = NUMPY, share: float = 0.05, dtype: str = "float64") -> Quadratic:
    problem = layer.problem(xp, dtype)
    return problem.damped(share * problem.diagonal)


# -- never above what is reached -----------------------------------------------------------------------------------------


@given(layer=layers(inputs=4, outputs=2, multiple=4), share=st.sampled_from([1e-12, 1e-6, 0.01, 0.3, 10.0]), data=st.data())
@settings(max_examples=100)
def test_never_above_the_best_support_in_rational_numbers(layer, share, data):
    """Not by the last bit: f and its least value on every support are rational functions of the floats of the problem. Any
    ridge, ill-conditioned, dead, duplicate and tied channels, units of 1e-6 and 1e6, any d and any U as well."""
    pattern = data.draw(patterns(data.draw(st.sampled_from(sorted(PATTERNS, key=str))), layer.weight.shape[1]))
    alive = np.any(layer.inputs != 0, axis=0)
    if not alive.any():
        return
    problem = layer.problem(NUMPY)
    problem = problem.damped(share * np.where(alive, problem.diagonal, 1.0) * data.draw(per_channel(layer, (1.0, 0.1))))
    best = best_loss(exact_losses(problem), pattern, layer.weight.shape[1])
    found = l0_bound(problem, pattern, steps=20, splits=2)
    seed = np.random.default_rng(data.draw(st.integers(0, 99)))
    anywhere = problem.anchor + seed.normal(size=problem.anchor.shape)
    for bound in (found, dual_bound(problem, pattern, seed.uniform(0, 1.2) * found.split, anywhere)):
        assert bound.total == -np.inf or Fraction(bound.total) <= best


@pytest.mark.parametrize("condition, drift, share", [(2.0, 0.0, 0.85), (5.0, 0.3, 0.65)])
@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_between_nothing_and_the_best_of_every_support(xp, pattern, condition, drift, share):
    """And at a good share of it, which is the less the more alike channels are."""
    ratios, width = [], 8
    for seed in range(2):
        problem = damped(normal_layer(300 + seed, 40, width, 3, condition=condition, drift=drift), xp)
        held = Quadratic(*(None if each is None else xp.numpy(each) for each in arrays(problem)))
        best = best_loss(losses_of(held), pattern, width)
        bound = l0_bound(problem, pattern, steps=30)
        assert 0 < bound.total <= best
        ratios.append(bound.total / best)
        if bound.rows is not None:
            rows = xp.numpy(bound.rows)
            least = [best_loss([line], pattern, width) for line in losses_of(held)]
            assert rows.shape == (3,) and np.all(rows <= least)
            assert bound.total <= np.sum(rows) <= bound.total * (1 + 1e-12)
        else:
            assert isinstance(pattern, TopK) and not pattern.per_row
    assert np.mean(ratios) > share


def arrays(problem: Quadratic) -> tuple[Any, ...]:
    return problem.gram, problem.anchor, problem.slope, problem.floor


@pytest.mark.parametrize("seed", range(3))
def test_fourteen_channels(seed):
    problem = damped(normal_layer(310 + seed, 60, 14, 2, condition=20.0))
    losses = losses_of(problem)
    for pattern in (TopK(0.5), TopK(0.5, per_row=True), NM(1, 2)):
        best = best_loss(losses, pattern, 14)
        assert 0.5 * best < l0_bound(problem, pattern).total <= best


# -- as good as it should be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drift", [0.0, 1.0])
@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_exact_where_channels_are_orthogonal(xp, pattern, drift):
    """There the loss is separable: pruning v_j costs 1/2 G_jj v_j^2 of the minimiser v."""
    rng = np.random.default_rng(320)
    diagonal, weight, slope = rng.uniform(0.01, 10, size=12), rng.normal(size=(3, 12)), drift * rng.normal(size=(3, 12))
    floor = np.sum(slope**2 / diagonal, axis=1)
    given = (np.diag(diagonal), weight, slope, floor) if drift else (np.diag(diagonal), weight)
    optimum = weight - slope / diagonal
    cost = 0.5 * diagonal * optimum**2
    lost = np.sum(np.where(pattern.select(cost), 0.0, cost))
    expected = lost + np.sum(floor) - 0.5 * np.sum(slope**2 / diagonal)
    bound = l0_bound(Quadratic(*map(xp.asarray, given)), pattern)
    assert expected * (1 - 1e-2) <= bound.total <= expected + rounding(100, expected)
    nearly = xp.asarray((1 - 1e-9) * diagonal)  # nothing can be proven of a rest that is zero
    exact = dual_bound(Quadratic(*map(xp.asarray, given)), pattern, nearly, xp.asarray(optimum))
    assert expected * (1 - 1e-8) <= exact.total <= expected + rounding(100, expected)


@pytest.mark.parametrize("pattern", [TopK(0.5, per_row=True), TopK(0.5), NM(2, 4)], ids=str)
@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_the_best_point_is_the_minimum_of_the_relaxation(pattern, drift):
    """Of cvxpy, for one d: no U has a higher bound, and the one that is found comes within 0.1 %."""
    layer = normal_layer(330, 40, 8, 2, condition=5.0, drift=drift)
    problem = damped(layer)
    split = 0.5 * np.linalg.eigvalsh(problem.gram)[0] * np.linspace(0.5, 1, 8)
    least = relaxation(problem, pattern, split)
    point, _ = relaxed_point(problem, pattern, split, split, problem.anchor, 400)
    assert least * (1 - 1e-3) < dual_bound(problem, pattern, split, point).total <= least * (1 + 1e-5)
    rng = np.random.default_rng(330)
    for scale in (1.0, 0.1, 0.01):
        other = point + scale * rng.normal(size=point.shape)
        assert dual_bound(problem, pattern, split, other).total <= least * (1 + 1e-5)


def relaxation(problem: Quadratic, pattern: Any, split: np.ndarray) -> float:
    """min over V and Z of the perspective relaxation, and what is constant in it."""
    cp = cvxpy()
    rows, width = problem.shape
    point, share = cp.Variable((rows, width)), cp.Variable((rows, width), nonneg=True)
    left = np.linalg.cholesky(problem.gram - np.diag(split))
    change = point - problem.anchor
    loss = 0.5 * cp.sum_squares(change @ left) + 0.5 * float(np.sum(split * problem.anchor**2))
    loss -= cp.sum(cp.multiply(split * problem.anchor, point))
    for row in range(rows):
        for j in range(width):
            loss += 0.5 * split[j] * cp.quad_over_lin(point[row, j], share[row, j])
    if problem.slope is not None:
        loss += cp.sum(cp.multiply(problem.slope, change)) + float(np.sum(problem.floor))
    limits = [share <= 1]
    if isinstance(pattern, NM):
        groups = range(0, width, pattern.group)
        limits += [cp.sum(share[:, j : j + pattern.group], axis=1) <= pattern.kept for j in groups]
    elif pattern.per_row:
        limits.append(cp.sum(share, axis=1) <= width - pattern.zeros(width))
    else:
        limits.append(cp.sum(share) <= rows * width - pattern.zeros(rows * width))
    model = cp.Problem(cp.Minimize(loss), limits)
    model.solve(solver=cp.CLARABEL)
    return float(model.value)


def test_another_split_does_better_than_equal_parts():
    """Channels of very different use to the others: their own d brings the bound up."""
    layer = normal_layer(340, 80, 12, 4, condition=30.0)
    problem, pattern = damped(layer, share=0.01), TopK(0.5, per_row=True)
    equal = np.full(12, np.linalg.eigvalsh(problem.gram)[0] * (1 - 1e-9))
    point, _ = relaxed_point(problem, pattern, equal, equal, problem.anchor, 200)
    alike = dual_bound(problem, pattern, equal, point).total
    one, three = (l0_bound(problem, pattern, splits=splits).total for splits in (1, 3))
    assert 0 < alike < one <= three


# -- any layer -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_units_do_not_matter(xp, pattern):
    """To the bit in powers of two, and to what float32 steps make of it in others."""
    layer = normal_layer(350, 60, 12, 4, drift=0.2)
    expected = l0_bound(damped(layer, xp), pattern, **QUICK).total
    assert l0_bound(damped(layer.scaled(2.0**-20, 2.0**9), xp), pattern, **QUICK).total == expected * 2.0**-22
    for unit in (1e-6, 1e6):
        assert l0_bound(damped(layer.scaled(unit), xp), pattern, **QUICK).total == pytest.approx(expected * unit**2, rel=1e-3)


@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_channels_in_their_own_units(pattern):
    layer = normal_layer(351, 60, 12, 4)
    channels = np.logspace(-6, 6, 12)
    expected = l0_bound(damped(layer), pattern, **QUICK).total
    assert l0_bound(damped(layer.scaled(channels, 1 / channels)), pattern, **QUICK).total == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_dead_channels_cost_nothing(xp, pattern):
    layer = normal_layer(352, 60, 12, 4)
    inputs, weight = layer.inputs.copy(), layer.weight.copy()
    dead = np.arange(12) % 4 == 1
    inputs[:, dead], weight[:, dead] = 0, 1e3
    problem = damped(Layer(inputs, weight), xp)
    bound = l0_bound(problem, pattern, **QUICK)
    found = l0_admm(problem, pattern).certificate.objective
    assert 0 < bound.total <= found and np.all((xp.numpy(bound.split) == 0) == dead)
    assert bound.total > 0.4 * found


@pytest.mark.parametrize("pattern", USUAL, ids=str)
def test_a_singular_gram(xp, pattern):
    """A loss is at least zero; with a slope that is all but known, and nothing is said."""
    for tokens in (5, 1):
        layer = normal_layer(353, tokens, 12, 3)
        bound = l0_bound(layer.problem(xp), pattern, **QUICK)
        assert bound.total == 0 and np.all(xp.numpy(bound.split) == 0)
        drifted = normal_layer(353, tokens, 12, 3, drift=0.3)
        assert l0_bound(drifted.problem(xp), pattern, **QUICK).total == -np.inf
    nothing = Quadratic(xp.asarray(np.zeros((4, 4))), xp.asarray(np.ones((2, 4))))
    assert l0_bound(nothing, pattern).total == 0


def test_an_indefinite_gram_has_no_bound(xp):
    """It is no Gram of any data, and its loss is not bounded below."""
    gram = np.array([[1.0, 2.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    problem = Quadratic(xp.asarray(gram), xp.asarray(np.ones((2, 4))), trusted=True)
    for pattern in USUAL:
        assert l0_bound(problem, pattern).total == -np.inf
        assert dual_bound(problem, pattern, xp.asarray(np.full(4, 0.5)), problem.anchor).total == -np.inf


def test_a_split_that_is_too_large_is_no_split(xp):
    problem = damped(normal_layer(354, 40, 8, 2), xp)
    least = float(np.linalg.eigvalsh(xp.numpy(problem.gram))[0])
    for factor, known in ((1 - 1e-9, True), (1 + 1e-9, False)):
        found = dual_bound(problem, TopK(0.5), xp.asarray(np.full(8, factor * least)), problem.anchor)
        assert (np.all(xp.numpy(found.split) > 0)) == known
    bad = xp.asarray(np.array([np.nan, *np.ones(7)]))
    assert dual_bound(problem, TopK(0.5), bad, problem.anchor).total == 0
    assert dual_bound(problem, TopK(0.5), 0.1 * xp.asarray(np.full(8, least)), problem.anchor * np.inf).total == 0


@pytest.mark.parametrize("shape", [(1, 8), (5, 1), (1, 1)])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.99])
def test_one_row_and_one_column(xp, shape, sparsity):
    problem = damped(normal_layer(355, 20, shape[1], shape[0]), xp)
    losses = losses_of(Quadratic(xp.numpy(problem.gram), xp.numpy(problem.anchor)))
    for pattern in (TopK(sparsity), TopK(sparsity, per_row=True)):
        best = best_loss(losses, pattern, shape[1])
        slack = rounding(30, problem.energy)  # a best loss of zero is rounding, and may have either sign
        assert 0.5 * best - slack <= l0_bound(problem, pattern, **QUICK).total <= best + slack


@pytest.mark.parametrize("pattern", [TopK(0.5), NM(2, 4)], ids=str)
@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e6])
def test_float32(xp, pattern, unit):
    layer = normal_layer(356, 80, 16, 5, drift=0.2).scaled(unit)
    single = damped(layer, xp, dtype="float32")
    expected = l0_bound(damped(layer, xp), pattern, **QUICK).total
    found = l0_bound(single, pattern, **QUICK).total
    assert found == pytest.approx(expected, rel=1e-2)
    assert found <= l0_admm(single, pattern).certificate.objective


def test_the_problem_is_left_alone_and_the_answer_repeats(xp):
    problem = damped(normal_layer(357, 30, 8, 3, drift=0.2), xp)
    before = [xp.numpy(each).copy() for each in arrays(problem)]
    first, second = (l0_bound(problem, TopK(0.5), **QUICK) for _ in range(2))
    for each, held in zip(arrays(problem), before):
        np.testing.assert_array_equal(xp.numpy(each), held)
    assert first.total == second.total
    again = dual_bound(problem, TopK(0.5), first.split, first.point)
    assert again.total == pytest.approx(first.total, rel=1e-9)


# -- with an answer ------------------------------------------------------------------------------------------------------


def test_an_answer_has_a_gap(xp):
    problem = damped(normal_layer(360, 60, 12, 4), xp)
    for pattern in (TopK(0.5), NM(2, 4)):
        answer = l0_admm(problem, pattern)
        solution = bounded(problem, pattern, answer, **QUICK)
        assert solution.weights is answer.weights and solution.status is answer.status
        certificate = solution.certificate
        assert certificate.bound == l0_bound(problem, pattern, **QUICK).total
        assert certificate.objective == answer.certificate.objective and certificate.residual is None
        assert 0 <= certificate.relative_gap < 0.5 and "gap" in repr(solution)


def test_the_gap_is_of_the_problem_that_is_named():
    """The answer of a damped problem, certified on that problem and on the one without: either has its own loss and bound."""
    problem = normal_layer(361, 60, 12, 4).problem(NUMPY)
    ridged = problem.damped(empirical_ridge(problem, TopK(0.5), 60).ridge)
    answer = l0_admm(ridged, TopK(0.5))
    for each in (problem, ridged):
        certificate = bounded(each, TopK(0.5), answer).certificate
        assert certificate.objective == each.loss(answer.weights) and certificate.bound == l0_bound(each, TopK(0.5)).total


def certified(problem: Quadratic, pattern: Any) -> Any:
    return bounded(problem, pattern, l0_admm(problem, pattern), steps=10, splits=1)


def test_what_is_bounded_is_a_method_still():
    """Its certificate is of what it returns, and its bound is below every support, on any layer without any ridge."""
    laws.check_method(certified, examples=8)


class Whole:
    """A pattern that admits everything."""

    def check(self, shape):
        pass

    def select(self, score):
        return score == score

    largest = select


@pytest.mark.parametrize("options", [{"steps": 0}, {"splits": 0}])
def test_bad_arguments(xp, options):
    problem = normal_layer(362, 12, 6, 2).problem(xp)
    with pytest.raises(ValueError, match=r"(steps|splits) must be a whole number of at least 1 but is 0"):
        l0_bound(problem, TopK(0.5), **options)


def test_what_cannot_be_bounded_is_named(xp):
    problem = normal_layer(363, 12, 6, 2).problem(xp)
    with pytest.raises(ValueError, match=r"pattern 2:4 needs a multiple of 4 inputs but weight is \(2, 6\)"):
        l0_bound(problem, NM(2, 4))
    with pytest.raises(TypeError, match=r"l0_bound takes TopK and NM, .* but got "):
        l0_bound(problem, Whole())
    with pytest.raises(ValueError, match=r"d is \(5,\) and the point \(2, 6\) but the problem's weight is \(2, 6\)"):
        dual_bound(problem, TopK(0.5), problem.diagonal[:5], problem.anchor)
    with pytest.raises(ValueError, match=r"the weights are \(2, 6\) and must be \(2, 6\) and satisfy the pattern 50%"):
        bounded(problem, TopK(0.5), magnitude(problem, TopK(0.0)))
    assert isinstance(l0_bound(problem, TopK(0.5)), SupportBound)


# -- branch and bound ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width, kept", [(8, 4), (12, 3), (14, 7)])
@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_branch_and_bound_finds_the_best_of_every_support(width, kept, drift):
    """Its nodes are bounded by `l0_bound`: were one too high, the best would be cut off."""
    problem = damped(normal_layer(370 + width, 3 * width, width, 1, condition=10.0, drift=drift), share=0.02)
    best, nodes = best_row(problem, kept)
    expected = best_loss(losses_of(problem), TopK(1 - kept / width, per_row=True), width)
    assert best == pytest.approx(expected, rel=1e-9, abs=2e-9 * problem.energy)
    assert nodes < 2**width / 8


@pytest.mark.parametrize("kept", [12, 6])
def test_twenty_four_channels(kept):
    """2.7 million supports are too many to try: the bound, the best, and what ADMM found stand in this order."""
    problem = damped(normal_layer(380, 72, 24, 1, condition=10.0), share=0.02)
    pattern = TopK(1 - kept / 24, per_row=True)
    best, nodes = best_row(problem, kept, steps=15)
    found, bound = l0_admm(problem, pattern).certificate.objective, l0_bound(problem, pattern).total
    assert 0.4 * best < bound <= best * (1 + 1e-9) and best <= found * (1 + 1e-9) and found < 1.2 * best
    assert nodes < 1000
