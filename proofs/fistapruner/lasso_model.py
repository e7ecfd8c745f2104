"""FISTAPruner, Section 3.1 and Appendices A and B: the LASSO model and its soft threshold (claims F1, F2, F17)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from gramian.proofs.fistapruner.printed import soft_threshold
from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.references import exact_lasso, lasso_objective
from gramian.proofs.kit.strategies import Layer, fractions, layers, points
from gramian.solvers import FISTA, L1, certify, solve

__all__ = ["F1", "F2", "F17"]


# -- F1: the model -----------------------------------------------------------------------------------------------------


@st.composite
def models(draw: st.DrawFn) -> tuple[Layer, float, np.ndarray, np.ndarray]:
    """Draw a layer, a lambda and two points."""
    layer = draw(layers(inputs=4, scales=(1.0,)))
    return layer, draw(fractions) * (layer.largest or 1.0), draw(points(layer)), draw(points(layer))


def block_form(layer: Layer, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A = diag(X*^T, ..., X*^T); x holds the rows of W* one after another, and b those of W X."""
    return np.kron(np.eye(len(weights)), layer.inputs), weights.reshape(-1), layer.outputs.T.reshape(-1)


def is_one_lasso(instance: tuple[Layer, float, np.ndarray, np.ndarray], form: Callable[..., Any]) -> None:
    """1/2 |A x - b|^2 + lambda |x|_1 is Eq. (3), whether that is computed from X* or from the Gram."""
    layer, weight, point, _ = instance
    matrix, vector, target = form(layer, point)
    assert matrix.shape == (target.size, vector.size) == (layer.outputs.size, point.size)
    value = 0.5 * np.sum((matrix @ vector - target) ** 2) + weight * np.sum(np.abs(vector))
    slack = 1e-11 * (layer.magnitude(point) + value)
    assert abs(value - lasso_objective(layer.inputs, layer.outputs, weight, point)) <= slack
    assert abs(value - certify(layer.problem(np), L1(weight), point).objective) <= slack


def curves_up(instance: tuple[Layer, float, np.ndarray, np.ndarray], objective: Callable[..., float]) -> None:
    """F((U + V) / 2) <= (F(U) + F(V)) / 2 - 1/8 |(U - V) X*|^2."""
    layer, weight, one, other = instance
    ends = [objective(layer, weight, point) for point in (one, other)]
    curve = float(np.sum((layer.inputs @ (one - other).T) ** 2)) / 8
    slack = 1e-11 * (layer.magnitude(one) + layer.magnitude(other) + sum(ends))
    assert objective(layer, weight, (one + other) / 2) <= sum(ends) / 2 - curve + slack


def toolkit_solution(layer: Layer, weight: float) -> np.ndarray:
    return np.asarray(solve(layer.problem(np), L1(weight), FISTA(), tol=1e-8, max_steps=3000).weights)


def solves_row_by_row(instance: tuple[Layer, float], solver: Callable[[Layer, float], np.ndarray]) -> None:
    """Each row of the joint solution is a LASSO solution of its own, at the same lambda."""
    layer, share = instance
    assume(layer.largest > 0)
    weight = share * layer.largest
    found = solver(layer, weight)
    for row in range(len(found)):
        alone = replace(layer, weight=layer.weight[[row]])
        _, least = exact_lasso(alone.inputs, alone.outputs, weight)
        reached = lasso_objective(alone.inputs, alone.outputs, weight, found[[row]])
        assert reached - least <= 1e-6 * layer.energy


def shared_by_solutions(instance: tuple[Layer, float], invariant: Callable[[Layer, np.ndarray], Any]) -> None:
    """Where the last channel occurs twice, its weight may stand on either copy or on both, and all of these points are
    optimal."""
    layer, share = instance
    assume(layer.largest > 0)
    weight = share * layer.largest
    optimum, least = exact_lasso(layer.inputs, layer.outputs, weight)
    twice = Layer(layer.inputs[:, [*range(layer.inputs.shape[1]), -1]], np.pad(layer.weight, ((0, 0), (0, 1))), layer.dense)
    if twice.dense is not None:
        twice = replace(twice, dense=np.pad(twice.dense, ((0, 0), (0, 1))))
    first = np.pad(optimum, ((0, 0), (0, 1)))
    both = np.concatenate([optimum[:, :-1], optimum[:, -1:] / 2, optimum[:, -1:] / 2], axis=1)
    for point in (first, both):
        assert abs(lasso_objective(twice.inputs, layer.outputs, weight, point) - least) <= 1e-9 * (1 + least)
    np.testing.assert_allclose(invariant(twice, first), invariant(twice, both), rtol=0, atol=1e-9 * (1 + least))


def output_and_norm(layer: Layer, weights: np.ndarray) -> np.ndarray:
    return np.append(layer.inputs @ weights.T, np.sum(np.abs(weights)))


def block_form_interleaved(layer: Layer, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.kron(layer.inputs, np.eye(len(weights))), weights.reshape(-1), layer.outputs.T.reshape(-1)


def block_form_by_tokens(layer: Layer, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    matrix, vector, _ = block_form(layer, weights)
    return matrix, vector, layer.outputs.reshape(-1)


def count_penalty(layer: Layer, weight: float, point: np.ndarray) -> float:
    return layer.loss(point) + weight * float(np.count_nonzero(point))


def root_penalty(layer: Layer, weight: float, point: np.ndarray) -> float:
    return layer.loss(point) + weight * float(np.sum(np.sqrt(np.abs(point))))


modest = st.tuples(layers(inputs=4, scales=(1.0,)), st.sampled_from([0.05, 0.2, 0.5, 0.9]))

F1 = Claim(
    "F1",
    "FISTAPruner, Eq. (3), Remark 1 and Appendix A",
    "min over W* (m, n) of 1/2 |W* X* - W X|_F^2 + lambda sum_i |W*_i|_1 is convex, and is the LASSO "
    "min_x 1/2 |A x - b|^2 + lambda |x|_1 with A = diag(X*^T, ..., X*^T) (p m, n m), x (n m,), b (p m,) by rows.",
    Verdict.HOLDS,
    properties=(
        Property(
            "Appendix A: one LASSO with a block-diagonal matrix",
            models(),
            is_one_lasso,
            block_form,
            {"blocks interleaved": block_form_interleaved, "b by tokens instead of rows": block_form_by_tokens},
        ),
        Property(
            "Remark 1: convex, with the curvature of the loss",
            models(),
            curves_up,
            lambda layer, weight, point: certify(layer.problem(np), L1(weight), point).objective,
            {"counting nonzeros": count_penalty, "square roots of magnitudes": root_penalty},
        ),
        Property(
            "rows separate, all with the same lambda",
            modest,
            solves_row_by_row,
            toolkit_solution,
            {
                "lambda shared out among rows": lambda layer, weight: toolkit_solution(layer, weight / len(layer.weight)),
                "half of lambda": lambda layer, weight: toolkit_solution(layer, weight / 2),
            },
            slow=3,
        ),
        Property(
            "all solutions share W* X* and |W*|_1, where they are many",
            st.tuples(layers(inputs=3, outputs=2, scales=(1.0,)), fractions),
            shared_by_solutions,
            output_and_norm,
            {
                "the number of zeros": lambda layer, weights: np.count_nonzero(weights == 0),
                "the weights themselves": lambda layer, weights: weights,
            },
        ),
    ),
)


# -- F2: the soft threshold --------------------------------------------------------------------------------------------

eighths = st.integers(-24, 24).map(lambda value: value / 8)
proximal = st.tuples(
    st.lists(eighths, min_size=2, max_size=6), st.integers(0, 16).map(lambda value: value / 8), st.sampled_from([0.5, 1.0, 4.0])
)


def toolkit_prox(values: np.ndarray, weight: float, lipschitz: float) -> np.ndarray:
    return np.asarray(L1(weight).prox(values[None, :], 1 / lipschitz)[0])


def is_stationary(instance: tuple[list[float], float, float], prox: Callable[..., np.ndarray]) -> None:
    """0 in L (y - z) + lambda d|y|, without rounding, because all numbers are eighths and powers of two; |z| = lambda / L
    occurs."""
    entries, weight, lipschitz = instance
    for value, found in zip(entries, prox(np.array(entries), weight, lipschitz)):
        if found == 0:
            assert lipschitz * abs(value) <= weight
        else:
            assert lipschitz * (found - value) + weight * np.sign(found) == 0


def contracts(instance: tuple[list[float], float, float], prox: Callable[..., np.ndarray]) -> None:
    """The map is odd, no entry grows, and no two entries move apart."""
    entries, weight, lipschitz = instance
    values = np.sort(np.array(entries))
    found = prox(values, weight, lipschitz)
    assert np.array_equal(prox(-values, weight, lipschitz), -found) and np.all(np.abs(found) <= np.abs(values))
    assert all(0 <= b - a <= d - c for (a, b), (c, d) in zip(pairwise(found), pairwise(values)))


def hard(values: np.ndarray, weight: float, lipschitz: float) -> np.ndarray:
    return np.where(np.abs(values) > weight / lipschitz, values, 0.0)


F2 = Claim(
    "F2",
    "FISTAPruner, Eq. (4b), Eq. (5) and Appendix B",
    "argmin_Y L/2 |Y - Z|_F^2 + lambda |Y|_1 = SoftShrinkage_{lambda / L}(Z) for Y, Z (m, n), L > 0, entry by entry: "
    "z - lambda/L above lambda/L, z + lambda/L below -lambda/L, else 0. (Appendix B's list of cases leaves out |z| = lambda/L, "
    "its result does not.)",
    Verdict.HOLDS,
    properties=(
        Property(
            "the minimiser, the boundary included",
            proximal,
            is_stationary,
            toolkit_prox,
            {
                "lambda not divided by L": lambda values, weight, lipschitz: toolkit_prox(values, weight, 1.0),
                "away from zero": lambda values, weight, lipschitz: 2 * values - toolkit_prox(values, weight, lipschitz),
                "hard threshold": hard,
                "negative entries forgotten": lambda values, weight, lipschitz: np.maximum(values - weight / lipschitz, 0),
            },
        ),
        Property(
            "a contraction",
            proximal,
            contracts,
            lambda values, weight, lipschitz: soft_threshold(values, weight / lipschitz),
            {
                "hard threshold": hard,
                "negative entries forgotten": lambda values, weight, lipschitz: np.maximum(values - weight / lipschitz, 0),
            },
        ),
    ),
)


# -- F17: the approximations -------------------------------------------------------------------------------------------

boxed = st.tuples(
    st.lists(st.fractions(-1, 1, max_denominator=6), min_size=1, max_size=4),
    st.lists(st.fractions(-1, 1, max_denominator=6), min_size=4, max_size=4),
    st.sampled_from([Fraction(1), Fraction(1, 3), Fraction(5)]),
)


def staircase(point: list[Fraction], radius: Fraction) -> list[tuple[Fraction, list[Fraction]]]:
    """Return corners c sign(x) 1[|x| > t] of the box with shares such that their mean is x, and |x|_1 / c their mean count of
    nonzeros."""
    heights = sorted({Fraction(0), *(abs(entry) / radius for entry in point), Fraction(1)})
    return [
        (high - low, [radius * (1 if entry > 0 else -1) if abs(entry) / radius > low else Fraction(0) for entry in point])
        for low, high in pairwise(heights)
    ]


def is_the_envelope(instance: Any, envelope: Callable[[list[Fraction], Fraction], Fraction]) -> None:
    """The envelope is a convex minorant of the count on |x|_inf <= c. No convex minorant is larger, as a mean of counts equals
    it."""
    shape, others, radius = instance
    point, other = [radius * entry for entry in shape], [radius * entry for entry in others[: len(shape)]]
    value = envelope(point, radius)
    assert value <= sum(entry != 0 for entry in point)
    middle = [(a + b) / 2 for a, b in zip(point, other)]
    assert envelope(middle, radius) <= (value + envelope(other, radius)) / 2
    steps = staircase(point, radius)
    assert [sum(share * corner[j] for share, corner in steps) for j in range(len(point))] == point
    assert sum(share * sum(entry != 0 for entry in corner) for share, corner in steps) == value


def nothing_on_the_whole_line() -> None:
    """x = 1 is the mean of 0 and n with shares 1 - 1/n and 1/n, whose mean count is 1/n, so the envelope at 1 is 0."""
    for far in (2, 1000, 10**9):
        share = Fraction(1, far)
        assert (1 - share) * 0 + share * far == 1 and (1 - share) * 0 + share * 1 < 1
    assert abs(Fraction(2)) > 1  # and |x| is not below the count


F17 = Claim(
    "F17",
    "FISTAPruner, Section 3.1",
    "The l1 norm is the optimal convex approximation of the l0 norm.",
    Verdict.CONDITIONAL,
    "|x|_1 / c is the convex envelope of the number of nonzeros on |x|_inf <= c, its largest convex minorant there. On all of "
    "R^n the envelope is 0, so the statement needs a bound on the weights.",
    (
        Property(
            "convex envelope on a box",
            boxed,
            is_the_envelope,
            lambda point, radius: sum(map(abs, point), Fraction(0)) / radius,
            {
                "for the unit box, on any": lambda point, radius: sum(map(abs, point), Fraction(0)),
                "squares": lambda point, radius: sum((entry**2 for entry in point), Fraction(0)) / radius**2,
                "the largest magnitude": lambda point, radius: max(map(abs, point)) / radius,
            },
        ),
    ),
    (Counterexample("without a bound every convex minorant is at most 0", nothing_on_the_whole_line),),
)
