"""FISTAPruner, Theorem 1 and Appendix C: the LASSO along lambda (claims F6, F7, F16).

s(lambda) is the fraction of zeros of W*(lambda), and N(lambda) is their number. The paths are exact, in rational arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.exact_rows import Row, interior, rows, shares
from gramian.proofs.kit.homotopy import LassoPath, lasso_homotopy, positive_cone
from gramian.proofs.kit.rational import dot, exact, identity, matmul, solve
from gramian.proofs.kit.references import exact_zeros, lasso_objective
from gramian.proofs.kit.strategies import Layer
from gramian.solvers import lasso_path

__all__ = ["F6", "F7", "F16"]

# -- F6: s is a step function ------------------------------------------------------------------------------------------


def steps_between_knots(instance: tuple[Row, Fraction], zeros: Callable[[LassoPath, Row, Fraction], Any]) -> None:
    """The count equals that of sign enumeration. It is an integer, and the same at every lambda between two knots."""
    row, share = instance
    layer = row.layer
    for weight, count in zip(interior(row.path, share), row.path.counts[1:]):
        assert zeros(row.path, row, weight) == count
        assert exact_zeros(layer.inputs, layer.outputs, float(weight))[0] == count


def interpolated_zeros(path: LassoPath, row: Row, weight: Fraction) -> Fraction:
    """Return s as Theorem 1 imagines it: the counts at the knots, joined continuously."""
    ends = [(Fraction(0), path.counts[-1]), *((knot, path.zeros(knot)) for knot in reversed(path.knots))]
    between: Fraction = next(
        low + (high - low) * (weight - left) / (right - left)
        for (left, low), (right, high) in pairwise(ends)
        if left <= weight < right
    )
    return between


def moves_continuously(row: Row, weights: Callable[[LassoPath, Fraction], Any]) -> None:
    """|v(a) - v(b)| <= steepest slope |a - b| across every knot."""
    steepest = max((abs(entry) for segment in row.path.segments for entry in segment.slope), default=Fraction(0))
    for knot in row.path.knots:
        near = knot / 10**9
        left, right = weights(row.path, knot - near), weights(row.path, knot + near)
        assert max(abs(a - b) for a, b in zip(left, right)) <= 2 * near * steepest


def refitted(path: LassoPath, weight: Fraction) -> tuple[Fraction, ...]:
    """Return the least-squares weights on the support of v(lambda): the path without its shrinkage."""
    return next((s.level for s in path.segments if s.lower <= weight < s.upper), (Fraction(0),) * path.width)


def half_cannot_be_had() -> None:
    path = lasso_homotopy([[1, 0], [0, 1]], [1, 1])
    taken = {*path.counts, *(path.zeros(knot) for knot in path.knots), path.zeros(Fraction(0))}
    assert path.knots == (1,) and taken == {0, 2}
    assert all(abs(Fraction(count, 2) - Fraction(1, 2)) > Fraction(49, 100) for count in taken)


# -- F7: s is not monotone ---------------------------------------------------------------------------------------------


def falls_from_one_to_zero() -> None:
    path = lasso_homotopy([[5, 2], [2, 1]], [Fraction(3, 2), Fraction(6, 5)])  # X = [[2, 1], [1, 0]], w = (-9/10, 3)
    assert path.knots == (Fraction(3, 2), 1, Fraction(9, 10), Fraction(3, 10)) and path.counts == (2, 1, 0, 1, 0)
    assert path.weights(Fraction(1, 2)) == (0, Fraction(7, 10))
    assert path.weights(Fraction(19, 20)) == (Fraction(1, 20), Fraction(3, 20))


def falls_on_unit_channels() -> None:
    gram = exact([[1, 0, "7/10"], [0, 1, "6/10"], ["7/10", "6/10", 1]])
    path = lasso_homotopy(gram, matmul(gram, [Fraction(-2), Fraction(-4), Fraction(5)]))
    assert path.knots == (Fraction(3, 2), 1, Fraction(5, 6), Fraction(5, 8), Fraction(15, 88))
    assert path.counts == (3, 2, 1, 0, 1, 0)


def monotone(path: LassoPath) -> bool:
    """Return whether N never falls as lambda grows, from below a knot to the knot and from there to above it."""
    return all(
        below <= path.zeros(knot) <= above for knot, (above, below) in zip(path.knots, pairwise(path.counts), strict=True)
    )


def returning(gram: list[list[Fraction]]) -> list[Fraction]:
    """Return the q of a row whose path has no zero at lambda = 1 and one zero at 1/2, for a G^-1 that is not diagonally
    dominant.

    With s_j = 1 and s_k = -sign (G^-1)_jk the weight j moves by (G^-1 s)_j < 0 as lambda falls. It starts half of that from
    zero, while the others start far away, and q = v G + s makes this v optimal at lambda = 1.
    """
    width = len(gram)
    inverse = solve(gram, identity(width))
    j = min(range(width), key=lambda j: 2 * inverse[j][j] - sum(map(abs, inverse[j])))
    signs = [Fraction(1 if k == j or inverse[j][k] <= 0 else -1) for k in range(width)]
    far = 1 + max(sum(map(abs, row)) for row in inverse)
    point = [abs(dot(inverse[j], signs)) / 2 if k == j else far * signs[k] for k in range(width)]
    return [a + b for a, b in zip(matmul(gram, point), signs)]


def returning_row(row: Row) -> Row:
    """Return the same inputs with weights whose path wanders, if any path of these inputs does."""
    return Row(row.star, row.star, solve(row.gram, returning(row.gram)))


def monotone_for_every_weight(row: Row, condition: Callable[[list[list[Fraction]]], bool]) -> None:
    """If the condition holds, no path falls; if it does not, the path that was made to fall does."""
    worst = lasso_homotopy(row.gram, returning(row.gram))
    if condition(row.gram):
        assert monotone(row.path) and monotone(worst)
    else:
        assert not monotone(worst)


sizes, values = st.integers(1, 9).map(Fraction), st.integers(-4, 4).map(Fraction)


def soft(value: Fraction, threshold: Fraction) -> Fraction:
    return max(abs(value) - threshold, Fraction(0)) * (1 if value > 0 else -1)


def closed_form(instance: tuple[list[tuple[Fraction, Fraction]], Fraction], shrink: Callable[..., Fraction]) -> None:
    """Where G is diagonal every weight is on its own, v_j = soft(w_j, lambda / G_jj)."""
    channels, share = instance
    width = len(channels)
    gram = [[channels[i][0] * (i == j) for j in range(width)] for i in range(width)]
    path = lasso_homotopy(gram, [size * value for size, value in channels])
    for weight in [*path.knots, *interior(path, share)]:
        assert list(path.weights(weight)) == [shrink(value, weight, size) for size, value in channels]
    assert monotone(path)


# -- F16: what is monotone ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """The fit 1/2 |v X* - y|^2, the norm |v|_1 and the optimum F*, at one lambda."""

    fit: Fraction
    norm: Fraction
    optimum: Fraction


def figures(row: Row, weight: Fraction) -> Figures:
    point = row.path.weights(weight)
    fit, norm = row.error(point) / 2, sum(map(abs, point), Fraction(0))
    return Figures(fit, norm, fit + weight * norm)


def zeros_for_fit(row: Row, weight: Fraction) -> Figures:
    """Return what Theorem 1 has in mind, that it is the number of zeros which grows with lambda."""
    return Figures(Fraction(row.path.zeros(weight)), figures(row, weight).norm, figures(row, weight).optimum)


def whole_square(row: Row, weight: Fraction) -> Figures:
    found = figures(row, weight)
    return Figures(found.fit, found.norm, found.optimum + found.fit)


def monotone_and_concave(instance: tuple[Row, Fraction], measure: Callable[[Row, Fraction], Figures]) -> None:
    """As lambda grows the fit grows, |v|_1 falls, and F* grows along a concave curve of slope |v|_1."""
    row, share = instance
    if not row.path.knots:
        return
    weights = sorted({*row.path.knots, *interior(row.path, share), 2 * row.path.knots[0]})
    for (low, before), (high, after) in pairwise([(weight, measure(row, weight)) for weight in weights]):
        assert before.fit <= after.fit and before.norm >= after.norm
        assert after.norm * (high - low) <= after.optimum - before.optimum <= before.norm * (high - low)


def scales_with_the_layer(instance: tuple[Row, Fraction], lambdas: Callable[[Fraction], tuple[Fraction, Fraction]]) -> None:
    """v(c^2 G, c^2 q; b lambda) = v(G, q; lambda) and v(G, c q; a lambda) = c v(G, q; lambda), where (a, b) = lambdas(c)."""
    row, unit = instance
    with_weight, with_inputs = lambdas(unit)
    louder = lasso_homotopy(row.gram, [unit * entry for entry in row.cross])
    gram, cross = [[unit**2 * entry for entry in line] for line in row.gram], [unit**2 * entry for entry in row.cross]
    for weight in interior(row.path, Fraction(1, 3)):
        point = row.path.weights(weight)
        assert louder.weights(with_weight * weight) == tuple(unit * entry for entry in point)
        assert lasso_homotopy(gram, cross).weights(with_inputs * weight) == point


def toolkit_path(layer: Layer, weights: list[float]) -> list[np.ndarray]:
    return [point.solution.weights for point in lasso_path(layer.problem(np), weights, tol=1e-10)]


def follows_the_path(row: Row, solver: Callable[[Layer, list[float]], list[np.ndarray]]) -> None:
    weights = interior(row.path, Fraction(1, 2))
    for weight, point in zip(weights, solver(row.layer, [float(weight) for weight in weights])):
        optimum = figures(row, weight).optimum
        reached = lasso_objective(row.layer.inputs, row.layer.outputs, float(weight), point)
        assert float(optimum) * (1 - 1e-9) <= reached <= float(optimum) * (1 + 1e-9)


F6 = Claim(
    "F6",
    "FISTAPruner, Theorem 1 and Appendix C",
    "s(lambda), the sparsity of argmin_W* 1/2 |W* X* - W X|_F^2 + lambda sum_i |W*_i|_1 with W* (m, n), is a continuous "
    "function of lambda on [0, M], because the solution is.",
    Verdict.REFUTED,
    "n m s(lambda) is an integer, constant between finitely many knots. Where X* X*^T is positive definite W*(lambda) is "
    "continuous and piecewise linear, but its number of zeros is not continuous, and takes no value in between.",
    (
        Property(
            "the count is constant between knots",
            st.tuples(rows(definite=True), shares),
            steps_between_knots,
            lambda path, row, weight: path.zeros(weight),
            {
                "s joined continuously between knots": interpolated_zeros,
                "the closed form of orthogonal channels": lambda path, row, weight: sum(
                    abs(value) <= weight for value in row.cross
                ),
            },
        ),
        Property(
            "W*(lambda) is continuous",
            rows(definite=True),
            moves_continuously,
            lambda path, weight: path.weights(weight),
            {"refitted on its support": refitted},
        ),
    ),
    (Counterexample("X = I, w = (1, 1): s is 0 or 1, never within 0.49 of 1/2", half_cannot_be_had),),
)

F7 = Claim(
    "F7",
    "FISTAPruner, Appendix C",
    "s(lambda) is non-decreasing in lambda.",
    Verdict.REFUTED,
    "For a positive definite G = X* X*^T, s is non-decreasing for every W and X if and only if G^-1 is diagonally "
    "dominant (the positive cone condition). That covers diagonal G, where W*_ij = soft(W_ij, lambda / G_jj), and two "
    "channels of equal norm; three channels of equal norm are not enough.",
    (
        Property(
            "monotone for every W exactly when G^-1 is diagonally dominant",
            rows(definite=True, largest=2),
            monotone_for_every_weight,
            positive_cone,
            {
                "every G": lambda gram: True,
                "channels of equal norm": lambda gram: len({gram[j][j] for j in range(len(gram))}) == 1,
                "G itself diagonally dominant": lambda gram: all(
                    2 * line[j] >= sum(map(abs, line)) for j, line in enumerate(gram)
                ),
            },
        ),
        Property(
            "diagonal G: the closed form",
            st.tuples(st.lists(st.tuples(sizes, values), min_size=1, max_size=4), shares),
            closed_form,
            lambda value, weight, size: soft(value, weight / size),
            {
                "lambda not divided by G_jj": lambda value, weight, size: soft(value, weight),
                "hard threshold": lambda value, weight, size: value if abs(value) > weight / size else Fraction(0),
            },
        ),
    ),
    (
        Counterexample("G = [[5, 2], [2, 1]]: 2, 1, 0, 1, 0 zeros as lambda falls", falls_from_one_to_zero),
        Counterexample("three channels of unit norm: 3, 2, 1, 0, 1, 0 zeros", falls_on_unit_channels),
    ),
)

F16 = Claim(
    "F16",
    "FISTAPruner, Section 3.4",
    "A larger lambda gives more sparsity and potentially more output error, a smaller lambda less of both.",
    Verdict.CONDITIONAL,
    "As lambda grows the output error never falls, |W*|_1 never grows, and the optimum of Eq. (3) grows and is concave with "
    "derivative |W*|_1. Sparsity may fall. W*(lambda) scales: (W, lambda) -> (c W, c lambda) multiplies it by c, and (X, X*, "
    "lambda) -> (c X, c X*, c^2 lambda) does not change it.",
    (
        Property(
            "what is monotone, and the slope of the optimum",
            st.tuples(st.one_of(rows(), rows(definite=True, largest=2).map(returning_row)), shares),
            monotone_and_concave,
            figures,
            {
                "the number of zeros for the error": zeros_for_fit,
                "all at twice the lambda": lambda row, weight: figures(row, 2 * weight),
                "the square without its half": whole_square,
            },
        ),
        Property(
            "equivariance",
            st.tuples(rows(), st.sampled_from([Fraction(1, 7), Fraction(2), Fraction(10**6)])),
            scales_with_the_layer,
            lambda unit: (unit, unit**2),
            {
                "lambda as the inputs": lambda unit: (unit, unit),
                "lambda squared with the weights": lambda unit: (unit**2, unit**2),
                "lambda fixed": lambda unit: (Fraction(1), Fraction(1)),
            },
        ),
        Property(
            "the toolkit's path reaches the exact optimum at every lambda",
            rows(definite=True),
            follows_the_path,
            toolkit_path,
            {
                "solutions in reverse order": lambda layer, weights: toolkit_path(layer, weights[::-1]),
                "half of every lambda": lambda layer, weights: toolkit_path(layer, [0.5 * weight for weight in weights]),
            },
            slow=6,
        ),
    ),
    (Counterexample("a larger lambda with fewer zeros", falls_from_one_to_zero),),
)
