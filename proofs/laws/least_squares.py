"""Laws of what is computed directly: a refit on a support, least squares under equalities, and the lambda that prunes all.

The answers are compared with numpy's `lstsq` on the data, which are X* and the outputs X W^T, never a Gram matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.backends import NUMPY, backends
from gramian.proofs.kit.references import support_least_squares
from gramian.proofs.kit.strategies import Layer, equalities, layers, masks, per_channel
from gramian.proofs.laws.law import Law
from gramian.solvers import Affine, Support, certify

__all__ = ["AFFINE_LAWS", "LAMBDA_MAX_LAWS", "REFIT_LAWS"]

ROUNDING = 1e-9


# -- refit(problem, mask, *, start) ------------------------------------------------------------------------------------


def refit_is_least_squares_on_the_support(refit: Any, layer: Layer, mask: np.ndarray) -> None:
    """The weights are zero off the mask, and on it as good as those of `lstsq` on the data, on every backend; the certificate
    says the same."""
    _, best = support_least_squares(layer.inputs, layer.outputs, mask)
    for backend in backends():
        solution = refit(layer.problem(backend), backend.asarray(mask))
        point = backend.numpy(solution.weights)
        assert np.all(point[~mask] == 0), f"weights {point} are not zero off the mask"
        slack = ROUNDING * (layer.magnitude(point) + layer.magnitude(layer.weight))
        assert layer.loss(point) <= best + slack, f"the loss is {layer.loss(point)}, and the least is {best} ({backend})"
        certified_as_it_is(solution, layer, Support(mask), point, best, slack)


def refit_never_raises_the_loss(refit: Any, layer: Layer, mask: np.ndarray, more: np.ndarray) -> None:
    """The loss is not above that of the start, nor that of the masked dense weights, and on a larger support not above that on
    a smaller one."""
    problem, masked = layer.problem(NUMPY), np.where(mask, layer.weight, 0.0)
    small = refit(problem, mask).weights
    slack = ROUNDING * (layer.magnitude(masked) + layer.magnitude(small))
    assert layer.loss(small) <= layer.loss(masked) + slack, "the loss rises above that of the masked weights"
    again = refit(problem, mask, start=small).weights
    assert layer.loss(again) <= layer.loss(small) + 1e-13 * layer.magnitude(small), "the loss rises above that of the start"
    large = refit(problem, mask | more, start=small).weights
    assert layer.loss(large) <= layer.loss(small) + slack, f"the loss on {mask | more} is above that on {mask}"


def refit_ignores_order_and_units(refit: Any, layer: Layer, mask: np.ndarray, scale: np.ndarray) -> None:
    """With outputs and channels reversed, and with channels scaled, the loss is the same."""
    expected = layer.loss(refit(layer.problem(NUMPY), mask).weights)
    turned, scaled = layer.permuted(slice(None, None, -1), slice(None, None, -1)), layer.scaled(1 / scale, scale)
    slack = ROUNDING * layer.magnitude(layer.weight)
    for moved, support in ((turned, mask[::-1, ::-1].copy()), (scaled, mask)):
        found = moved.loss(refit(moved.problem(NUMPY), support).weights)
        assert abs(found - expected) <= slack, f"the loss is {found}, and {expected} before"


def refit_takes_a_ridge_on_the_change(refit: Any, layer: Layer, mask: np.ndarray, ridge: np.ndarray) -> None:
    """With problem.damped(mu) it minimises f(V) + 1/2 sum mu_j |V_j - W_j|^2, which is least squares with p more tokens, each
    of one channel j and of size sqrt(mu_j)."""
    mu = ridge * np.sum(layer.inputs**2)
    tokens = np.diag(np.sqrt(mu))
    longer = Layer(np.vstack([layer.inputs, tokens]), layer.weight, None)
    outputs = np.vstack([layer.outputs, tokens @ layer.weight.T])
    _, least = support_least_squares(longer.inputs, outputs, mask)
    point = refit(layer.problem(NUMPY).damped(mu), mask).weights
    reached = 0.5 * float(np.sum((longer.inputs @ point.T - outputs) ** 2))
    slack = ROUNDING * (layer.magnitude(point) + float(np.sum(outputs**2)))
    assert reached <= least + slack, f"loss and ridge make {reached}, and the least is {least}"


# -- affine_least_squares(problem, matrix, values) ---------------------------------------------------------------------


def every_equality_holds_and_the_rest_is_least_squares(solver: Any, layer: Layer, term: Affine) -> None:
    """V A^T = D, and the loss is that of `lstsq` within the solutions of A."""
    matrix, values = np.asarray(term.matrix), np.asarray(term.values)
    _, sizes, right = np.linalg.svd(matrix)
    null = right[int(np.sum(sizes > 1e-9)) :]
    nearest = values @ np.linalg.pinv(matrix, rcond=1e-9).T
    missing = layer.outputs - layer.inputs @ nearest.T
    found, *_ = np.linalg.lstsq(layer.inputs @ null.T, missing, rcond=1e-9)
    least = layer.loss(nearest + found.T @ null)
    for backend in backends():
        solution = solver(layer.problem(backend), backend.asarray(matrix), backend.asarray(values))
        point = backend.numpy(solution.weights)
        off = np.abs(point @ matrix.T - values)
        size = 1 + np.max(np.abs(point)) * np.max(np.abs(matrix), initial=0) * matrix.shape[1]
        assert np.max(off) <= ROUNDING * size, f"V A^T misses D by {off} ({backend})"
        slack = ROUNDING * (layer.magnitude(point) + layer.magnitude(layer.weight))
        assert layer.loss(point) <= least + slack, f"the loss is {layer.loss(point)}, and the least is {least} ({backend})"
        certified_as_it_is(solution, layer, term, point, least, slack)


def certified_as_it_is(solution: Any, layer: Layer, term: Any, point: np.ndarray, least: float, slack: float) -> None:
    """The certificate is that of the point returned: its objective and relative error are those of the data, its residual and
    violation those of `certify`, and its bound is not above what is known to be reached."""
    stated, again, loss = solution.certificate, certify(layer.problem(NUMPY), term, point), layer.loss(point)
    assert abs(stated.objective - loss) <= slack, f"the objective is {loss}, not {stated.objective}"
    assert abs(stated.relative_error * layer.energy - loss) <= slack, f"the relative error is not {stated.relative_error}"
    assert stated.bound <= least + slack, f"the bound {stated.bound} is above {least}, which is reached"
    assert stated.residual is not None and again.residual is not None, "there is no residual"
    near = stated.residual == again.residual or abs(stated.residual - again.residual) <= ROUNDING * (1 + again.residual)
    assert near, f"the residual is {again.residual}, not {stated.residual}"
    size = 1 + float(np.max(np.abs(point)))
    assert abs(stated.violation - again.violation) <= ROUNDING * size, f"it is off the set by {again.violation}"


# -- lambda_max(problem, *, per_row) -----------------------------------------------------------------------------------


def zero_is_optimal_from_there_on(lambda_max: Any, layer: Layer) -> None:
    """At lambda_max no single weight can lower 1/2 |X* v^T - y|^2 + lambda |v|_1 from v = 0, and just below it one can: weight
    j gains max(0, |<X*_j, y>| - lambda)^2 / (2 |X*_j|^2). This holds for all rows together, and for each."""
    pulls = np.abs(layer.outputs.T @ layer.inputs)
    for backend in backends():
        problem = layer.problem(backend)
        whole, rows = (backend.numpy(lambda_max(problem, per_row=each)) for each in (False, True))
        assert whole.shape == (1, 1) and rows.shape == (len(layer.weight), 1)
        for top, pull in ((whole[0, 0], pulls), *zip(rows[:, 0], pulls)):
            strongest = float(np.max(pull))
            size = 1e-11 * np.linalg.norm(layer.inputs) * np.sqrt(layer.magnitude(layer.weight))
            assert strongest <= top + size, f"at {top} a weight with the gradient {strongest} is worth having"
            assert strongest >= top - size, f"just below {top} no weight is worth having, as gradients end at {strongest}"


# -- cases -------------------------------------------------------------------------------------------------------------


@st.composite
def supports(draw: st.DrawFn, solver: Any) -> tuple[Any, Layer, np.ndarray]:
    layer = draw(layers())
    return solver, layer, draw(masks(layer.weight.shape))


def with_masks(solver: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    return supports(solver).flatmap(lambda case: masks(case[2].shape).map(lambda more: (*case, more)))


@st.composite
def with_scales(draw: st.DrawFn, solver: Any) -> tuple[Any, ...]:
    case = draw(supports(solver))
    return *case, draw(per_channel(case[1], (1.0, 0.5, 4.0)))


@st.composite
def with_ridges(draw: st.DrawFn, solver: Any) -> tuple[Any, ...]:
    case = draw(supports(solver))
    return *case, draw(per_channel(case[1], (1.0, 0.01)))


@st.composite
def constrained(draw: st.DrawFn, solver: Any) -> tuple[Any, ...]:
    layer = draw(layers())
    return solver, layer, draw(equalities(layer.weight.shape))


REFIT_LAWS = (
    Law(refit_is_least_squares_on_the_support, supports),
    Law(refit_never_raises_the_loss, with_masks),
    Law(refit_ignores_order_and_units, with_scales),
    Law(refit_takes_a_ridge_on_the_change, with_ridges),
)
AFFINE_LAWS = (Law(every_equality_holds_and_the_rest_is_least_squares, constrained),)
LAMBDA_MAX_LAWS = (Law(zero_is_optimal_from_there_on, lambda solver: layers().map(lambda layer: (solver, layer))),)
