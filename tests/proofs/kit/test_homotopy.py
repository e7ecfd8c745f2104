"""The homotopy: optimality conditions in rational arithmetic, sign enumeration, ties, and floats beside Fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import assume, given, settings

from gramian.proofs.kit.exact_rows import Row, interior, rows, shares
from gramian.proofs.kit.homotopy import LassoPath, lasso_homotopy, positive_cone
from gramian.proofs.kit.rational import matmul, rank, solve
from gramian.proofs.kit.references import cvxpy_lasso, exact_lasso, exact_zeros, lasso_objective


def check_optimal(row: Row, weight: Fraction, point: tuple[Fraction, ...]) -> None:
    """c_j = lambda sign(v_j) on the support, |c_j| <= lambda off it, c = q - v G: exactly."""
    for value, target, fitted in zip(point, row.cross, matmul(row.gram, list(point)), strict=True):
        if value:
            assert target - fitted == (weight if value > 0 else -weight)
        else:
            assert abs(target - fitted) <= weight


def everywhere(path: LassoPath, share: Fraction) -> list[Fraction]:
    top = path.knots[0] if path.knots else Fraction(1)
    return [*path.knots, *interior(path, share), Fraction(0), 2 * top]


@given(row=rows(width=5), share=shares)
@settings(max_examples=150)
def test_optimal_everywhere(row: Row, share: Fraction):
    """Singular Grams, ties, dead and duplicate channels, fewer tokens than channels: on knots, between them, at 0."""
    for weight in everywhere(row.path, share):
        check_optimal(row, weight, row.path.weights(weight))


@given(row=rows(width=5, definite=True), share=shares)
def test_shape_of_the_path(row: Row, share: Fraction):
    path = row.path
    assert list(path.knots) == sorted(set(path.knots), reverse=True)
    assert not path.knots or path.knots[0] == max(map(abs, row.cross))
    assert all(above.lower == below.upper for above, below in pairwise(path.segments))
    assert not path.segments or path.segments[-1].lower == 0
    for above, below in pairwise(path.segments):  # continuous
        assert above.at(above.lower) == below.at(below.upper)
    for segment, count in zip(path.segments, path.counts[1:], strict=True):
        for weight in (segment.lower + share * (segment.upper - segment.lower), (segment.lower + segment.upper) / 2):
            signs = tuple((entry > 0) - (entry < 0) for entry in path.weights(weight))
            assert signs == segment.signs and path.zeros(weight) == count
    for knot, (above, below), jump in zip(path.knots, pairwise(path.counts), path.jumps, strict=True):
        assert path.zeros(knot) >= max(above, below) and jump == path.zeros(knot) - below >= 0
    assert list(path.weights(Fraction(0))) == solve(row.gram, row.cross)  # least squares


@given(row=rows(width=4), share=shares)
def test_against_sign_enumeration(row: Row, share: Fraction):
    inputs, outputs = row.layer.inputs, row.layer.outputs
    for weight in everywhere(row.path, share):
        point = np.array([row.path.weights(weight)], dtype=float)
        _, least = exact_lasso(inputs, outputs, float(weight))
        assert lasso_objective(inputs, outputs, float(weight), point) == pytest.approx(least, rel=1e-9, abs=1e-9)


@given(row=rows(width=4, definite=True), share=shares)
def test_zeros_against_sign_enumeration(row: Row, share: Fraction):
    for weight in interior(row.path, share):
        assert exact_zeros(row.layer.inputs, row.layer.outputs, float(weight))[0] == row.path.zeros(weight)


def test_against_an_interior_point_method():
    rng = np.random.default_rng(0)
    inputs, outputs = rng.normal(size=(12, 6)), rng.normal(size=(12, 1))
    path = lasso_homotopy((inputs.T @ inputs).tolist(), (inputs.T @ outputs)[:, 0].tolist())
    for weight in (0.03 * path.knots[0], 0.4 * path.knots[0]):
        reached = lasso_objective(inputs, outputs, weight, np.array([path.weights(weight)]))
        assert reached == pytest.approx(cvxpy_lasso(inputs, outputs, weight), rel=1e-6)


@given(row=rows(width=5, definite=True, largest=50))
def test_floats_follow_fractions(row: Row):
    assume(row.path.knots)
    gaps = [above - below for above, below in pairwise((*row.path.knots, Fraction(0)))]
    assume(min(gaps) > row.path.knots[0] / 10**7)  # closer knots are one knot in floats
    gram, cross = [[float(entry) for entry in line] for line in row.gram], [float(entry) for entry in row.cross]
    path = lasso_homotopy(gram, cross)
    assert path.counts == row.path.counts
    np.testing.assert_allclose(path.knots, [float(knot) for knot in row.path.knots], rtol=1e-6)
    for weight in interior(row.path, Fraction(1, 2)):
        expected = [float(entry) for entry in row.path.weights(weight)]
        np.testing.assert_allclose(path.weights(float(weight)), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("tokens", [3, 20])
def test_floats_on_unequal_channels(scale: float, tokens: int):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        inputs = scale * rng.normal(size=(tokens, 4)) * np.logspace(0, -3, 4)
        outputs = scale * rng.normal(size=(tokens, 1))
        path = lasso_homotopy((inputs.T @ inputs).tolist(), (inputs.T @ outputs)[:, 0].tolist())
        assert path.width - path.counts[-1] <= tokens
        for segment in path.segments:
            weight = 0.5 * (segment.upper + segment.lower)
            reached = lasso_objective(inputs, outputs, weight, np.array([path.weights(weight)]))
            assert reached <= exact_lasso(inputs, outputs, weight)[1] * (1 + 1e-9)


def test_a_path_known_by_hand():
    path = lasso_homotopy([[5, 2], [2, 1]], [Fraction(3, 2), Fraction(6, 5)])
    assert path.knots == (Fraction(3, 2), 1, Fraction(9, 10), Fraction(3, 10))
    assert path.counts == (2, 1, 0, 1, 0) and path.jumps == (1, 1, 0, 1)
    assert [segment.signs for segment in path.segments] == [(1, 0), (1, 1), (0, 1), (-1, 1)]
    assert path.weights(0) == (Fraction(-9, 10), 3) and path.weights(Fraction(5, 4)) == (Fraction(1, 20), 0)


def test_ties_and_duplicates():
    assert lasso_homotopy([[1, 0], [0, 1]], [1, -1]).counts == (2, 0)
    twins = lasso_homotopy([[2, 2], [2, 2]], [3, 3])  # one channel twice: one copy carries the weight
    assert twins.counts == (2, 1) and sum(twins.weights(1)) == 1
    assert lasso_homotopy([[1, 0], [0, 0]], [1, 0]).counts == (2, 1)  # a dead channel
    assert lasso_homotopy([[1, 0], [0, 0]], [0, 0]).segments == ()
    assert lasso_homotopy([[4]], [2.0]).weights(1.0) == (0.25,)
    assert all(isinstance(knot, Fraction) for knot in lasso_homotopy(np.array([[4]]), np.array([2])).knots)


@given(row=rows(width=4), share=shares)
def test_never_more_nonzeros_than_rank(row: Row, share: Fraction):
    for weight in interior(row.path, share):
        support = [j for j, entry in enumerate(row.path.weights(weight)) if entry]
        assert not support or rank([[row.gram[i][j] for j in support] for i in support]) == len(support)


@given(row=rows(width=4, definite=True, largest=2))
def test_positive_cone_is_the_condition_on_every_subset(row: Row):
    """(S G_AA S)^-1 1 >= 0 for all A and S, by enumeration."""
    width = len(row.gram)
    holds = True
    for size in range(1, width + 1):
        for chosen in combinations(range(width), size):
            block = [[row.gram[i][j] for j in chosen] for i in chosen]
            for signs in product((1, -1), repeat=size):
                moves = solve(block, [Fraction(sign) for sign in signs])
                holds = holds and all(sign * move >= 0 for sign, move in zip(signs, moves, strict=True))
    assert positive_cone(row.gram) == holds


@given(row=rows(width=4, definite=True, largest=2))
def test_no_weight_leaves_under_the_positive_cone(row: Row):
    assume(positive_cone(row.gram))
    for above, below in pairwise(row.path.segments):
        assert all(new == old for new, old in zip(below.signs, above.signs) if old)


def test_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="2 entries, so gram must be 2 x 2"):
        lasso_homotopy([[1]], [1, 2])
    with pytest.raises(ValueError, match="at least 0"):
        lasso_homotopy([[1]], [1]).weights(Fraction(-1))
    with pytest.raises(ValueError, match="singular"):
        positive_cone([[1, 1], [1, 1]])
    with pytest.raises(ArithmeticError, match="optimality conditions"):
        lasso_homotopy([[0, 0], [0, 1]], [2, 1])  # q is not in the range of G
