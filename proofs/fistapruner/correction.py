"""FISTAPruner, Eq. (4a), Eq. (18) and Section 3.1: error correction and the gradient it needs (claims F3, F17b, F18)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.fistapruner.printed import fractional
from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.references import exact_lasso, lasso_objective
from gramian.proofs.kit.strategies import Layer, layers, points
from gramian.solvers import FISTA, L1

__all__ = ["F3", "F17B", "F18"]


# -- F3: the gradient --------------------------------------------------------------------------------------------------


@st.composite
def moves(draw: st.DrawFn) -> tuple[Layer, np.ndarray, np.ndarray]:
    """Draw a layer whose inputs drifted, a point, and a move from it."""
    layer = draw(layers(inputs=4, shifted=True))
    return layer, draw(points(layer)), draw(points(layer))


def is_the_derivative(instance: tuple[Layer, np.ndarray, np.ndarray], gradient: Callable[..., np.ndarray]) -> None:
    """f(V + D) = f(V) + <grad f(V), D> + 1/2 |D X*|^2, where f is computed by its definition."""
    layer, point, move = instance
    rise = layer.loss(point + move) - layer.loss(point) - 0.5 * float(np.sum((layer.inputs @ move.T) ** 2))
    slack = 1e-10 * (layer.magnitude(point) + layer.magnitude(point + move) + layer.magnitude(move))
    assert abs(rise - float(np.sum(gradient(layer, point) * move))) <= slack


def printed_gradient(layer: Layer, point: np.ndarray) -> np.ndarray:
    """Eq. (4a): W_k X X*^T - W X X*^T."""
    dense = layer.inputs if layer.dense is None else layer.dense
    return np.asarray((point - layer.weight) @ (dense.T @ layer.inputs))


def toolkit_step(layer: Layer, weight: float, point: np.ndarray) -> np.ndarray:
    problem, solver = layer.problem(np), FISTA()
    return np.asarray(solver.weights(solver.step(problem, L1(weight), solver.init(problem, L1(weight), point))))


def step_with(gradient: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Return one proximal step along another gradient."""

    def step(layer: Layer, weight: float, point: np.ndarray) -> np.ndarray:
        length = 1 / (layer.problem(np).lipschitz or 1.0)
        return np.asarray(L1(weight).prox(point - length * gradient(layer, point), length))

    return step


@st.composite
def stops(draw: st.DrawFn) -> tuple[Layer, float, np.ndarray]:
    """Draw a layer whose inputs drifted, a lambda >= 0, and a point."""
    layer = draw(layers(inputs=3, outputs=2, shifted=True, scales=(1.0,)))
    return layer, draw(st.sampled_from([0.0, 0.01, 0.3, 0.9])) * layer.largest, draw(points(layer))


def rests_at_the_optimum_only(instance: tuple[Layer, float, np.ndarray], step: Callable[..., np.ndarray]) -> None:
    """A LASSO solution is a fixed point; a point that does not move is a LASSO solution."""
    layer, weight, point = instance
    optimum, least = exact_lasso(layer.inputs, layer.outputs, weight)
    assert np.max(np.abs(step(layer, weight, optimum) - optimum)) <= 1e-8 * (1 + np.max(np.abs(optimum)))
    for candidate in (point, layer.weight):
        if np.array_equal(step(layer, weight, candidate), candidate):
            reached = lasso_objective(layer.inputs, layer.outputs, weight, candidate)
            assert reached - least <= 1e-8 * (1 + layer.magnitude(candidate))


def printed_map(start: Fraction, steps: int) -> list[Fraction]:
    """Eq. (4a) at lambda = 0 for X* = 1, X = 3, W = 1, where L = 1: w -> w - (3 w - 3)."""
    points = [start]
    for _ in range(steps):
        points.append(points[-1] - (points[-1] * 3 * 1 - 1 * 3 * 1) / 1)
    return points


def never_leaves_the_dense_weights() -> None:
    assert printed_map(Fraction(1), 5) == [1] * 6
    assert (Fraction(1) * 1 - 1 * 3) * 1 == -2  # the gradient there; the optimum is 3


def doubles_its_distance() -> None:
    assert printed_map(Fraction(1, 2), 6) == [Fraction(1, 2), 2, -1, 5, -7, 17, -31]
    points = printed_map(Fraction(1, 2), 60)
    assert all(abs(after - 1) == 2 * abs(before - 1) for before, after in pairwise(points))


F3 = Claim(
    "F3",
    "FISTAPruner, Eq. (4a) and Appendix B",
    "W_k+1/3 = W_k - (W_k X X*^T - W X X*^T) / L is a gradient step on 1/2 |W_k X* - W X|_F^2, W_k and W (m, n), X and X* "
    "(n, p).",
    Verdict.REFUTED,
    "The gradient is W_k X* X*^T - W X X*^T, as Appendix B derives before it prints the step. As printed the dense weights "
    "are a fixed point at lambda = 0 for every X*, so correction does nothing, and the iteration may diverge.",
    (
        Property(
            "the gradient is the derivative of the loss",
            moves(),
            is_the_derivative,
            lambda layer, point: layer.problem(np).gradient(point),
            {
                "Eq. (4a) as printed": printed_gradient,
                "no correction": lambda layer, point: (point - layer.weight) @ (layer.inputs.T @ layer.inputs),
                "twice": lambda layer, point: 2 * layer.problem(np).gradient(point),
            },
        ),
        Property(
            "fixed points of a step are the solutions",
            stops(),
            rests_at_the_optimum_only,
            toolkit_step,
            {
                "Eq. (4a) as printed": step_with(printed_gradient),
                "lambda not divided by L": lambda layer, weight, point: toolkit_step(
                    layer, weight * (layer.problem(np).lipschitz or 1.0), point
                ),
            },
        ),
    ),
    (
        Counterexample("X* = 1, X = 3, W = 1: rests at 1, the optimum is 3", never_leaves_the_dense_weights),
        Counterexample("the same from 1/2: 2, -1, 5, -7, 17, ...", doubles_its_distance),
    ),
)


# -- F17b: what deep layers minimise -----------------------------------------------------------------------------------


@st.composite
def evaluated(draw: st.DrawFn) -> tuple[Layer, np.ndarray]:
    """Draw a layer whose inputs drifted, X* != X, and a point."""
    layer = draw(layers(inputs=4, outputs=2, shifted=True))
    return layer, draw(points(layer))


def drops_what_is_kept(instance: tuple[Layer, np.ndarray], bound: Callable[..., float]) -> None:
    """||W* (X + D) - W X| - |W* D - W X|| <= |W* X| in Frobenius norms, where D = X* - X."""
    layer, point = instance
    dense = layer.inputs if layer.dense is None else layer.dense
    drift = layer.inputs - dense
    full, dropped = (np.linalg.norm(inputs @ point.T - layer.outputs) for inputs in (layer.inputs, drift))
    slack = 1e-9 * (np.sqrt(layer.magnitude(point)) + np.linalg.norm(dense @ point.T))
    assert abs(full - dropped) <= bound(dense, drift, point, layer.weight) + slack


def equal_weights_no_drift() -> None:
    """With W* = W and X* = X = 1 the left side is 0, and the right side is |W X|^2."""
    weight, inputs, drift = Fraction(3), Fraction(1), Fraction(0)
    assert (weight * (inputs + drift) - weight * inputs) ** 2 == 0
    assert (weight * drift - weight * inputs) ** 2 == 9


F17B = Claim(
    "F17b",
    "FISTAPruner, Eq. (18)",
    "|W* (X + D) - W X|_F^2 is about |W* D - W X|_F^2 in deep layers, W* (m, n), X and D (n, p).",
    Verdict.REFUTED,
    "The step drops W* X and keeps W X, which is of the same size. The two norms (not squared) differ by at most |W* X|_F.",
    (
        Property(
            "what the dropped term can do",
            evaluated(),
            drops_what_is_kept,
            lambda dense, drift, point, weight: float(np.linalg.norm(dense @ point.T)),
            {
                "equality": lambda dense, drift, point, weight: 0.0,
                "|W* D|": lambda dense, drift, point, weight: float(np.linalg.norm(drift @ point.T)),
                "|(W* - W) X|": lambda dense, drift, point, weight: float(np.linalg.norm(dense @ (point - weight).T)),
            },
        ),
    ),
    (Counterexample("W* = W without drift: 0 against |W X|^2", equal_weights_no_drift),),
)


# -- F18: correction ---------------------------------------------------------------------------------------------------


def toolkit_minimiser(layer: Layer) -> np.ndarray:
    """W - slope G^+, where the gradient of the toolkit's loss vanishes."""
    problem = layer.problem(np)
    slope = problem.gradient(problem.anchor)
    return np.asarray(problem.anchor - slope @ np.linalg.pinv(problem.gram, rcond=1e-10, hermitian=True))


def fits_best(instance: tuple[Layer, np.ndarray], minimiser: Callable[[Layer], np.ndarray]) -> None:
    """(V X* - W X) X*^T = 0, so no weights fit better, the dense ones included."""
    layer, point = instance
    found = minimiser(layer)
    size = float(np.linalg.norm(layer.inputs)) * np.sqrt(layer.magnitude(layer.weight) + layer.magnitude(found))
    assert np.linalg.norm((layer.inputs @ found.T - layer.outputs).T @ layer.inputs) <= 1e-8 * size
    for other in (point, layer.weight, 0 * point):
        assert layer.loss(found) <= layer.loss(other) + 1e-9 * layer.magnitude(layer.weight)


def target_of_its_own(layer: Layer) -> np.ndarray:
    """Return the least-squares weights for W X*, which leave the correction out."""
    return np.asarray(np.linalg.lstsq(layer.inputs, layer.inputs @ layer.weight.T, rcond=1e-10)[0].T)


def gram_of_the_dense(layer: Layer) -> np.ndarray:
    """W X X*^T (X X^T)^+: the cross moment is right, and the Gram is wrong."""
    dense = layer.inputs if layer.dense is None else layer.dense
    return np.asarray(layer.outputs.T @ layer.inputs @ np.linalg.pinv(dense.T @ dense, rcond=1e-10, hermitian=True))


def worse_after_relu() -> None:
    """With X = (-3, 2), X* = (1, 1) and w = 1 correction takes w to -1/2. It takes the error from 17 to 25/2, but the error
    after a ReLU from 2 to 4."""
    dense, star, weight = fractional([-3, 2]), fractional([1, 1]), Fraction(1)
    corrected = (star @ dense) * weight / (star @ star)
    assert corrected == Fraction(-1, 2)

    def error(value: Fraction, activation: Callable[[Any], Any]) -> Fraction:
        total: Fraction = ((activation(value * star) - activation(weight * dense)) ** 2).sum()
        return total

    assert error(weight, lambda z: z) == 17 and error(corrected, lambda z: z) == Fraction(25, 2)
    assert error(weight, lambda z: np.maximum(z, 0)) == 2 and error(corrected, lambda z: np.maximum(z, 0)) == 4


F18 = Claim(
    "F18",
    "FISTAPruner, Section 3.1",
    "Comparing W X with W* X*, X* what the pruned predecessors deliver, accounts for cumulative error and minimises output "
    "discrepancies; W, W* (m, n), X, X* (n, p).",
    Verdict.CONDITIONAL,
    "It does for the operator's own output: min_V |V X* - W X|_F <= |W X* - W X|_F, attained by W X X*^T (X* X*^T)^+. Nothing "
    "follows for what comes after the next activation.",
    (
        Property(
            "the corrected weights fit no worse than any others",
            evaluated(),
            fits_best,
            toolkit_minimiser,
            {
                "W X* as the target": target_of_its_own,
                "the Gram of X instead of X*": gram_of_the_dense,
                "the dense weights": lambda layer: layer.weight,
            },
        ),
    ),
    (Counterexample("better before a ReLU, worse after it", worse_after_relu),),
)
