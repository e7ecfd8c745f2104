"""Laws of a loss, of whatever makes a `Quadratic` from a layer's data, `build(inputs, weight, dense)`.

Everything is compared with the definition, f(V) = 1/2 |X* V^T - X W^T|_F^2, computed from the data in numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.backends import Backend, backends
from gramian.proofs.kit.strategies import Layer, layers, per_channel, points
from gramian.proofs.laws.law import Law
from gramian.solvers import Quadratic

__all__ = ["PROBLEM_LAWS", "Build"]

Build = Callable[[Any, Any, Any], Quadratic]  # inputs X* (N, p), weight W (q, p), dense X (N, p) or None

ROUNDING = 1e-11


def built(build: Build, layer: Layer, backend: Backend) -> Quadratic:
    dense = None if layer.dense is None else backend.asarray(layer.dense)
    return build(backend.asarray(layer.inputs), backend.asarray(layer.weight), dense)


def loss_is_that_of_the_data(build: Build, layer: Layer, point: np.ndarray) -> None:
    """The loss of every row and the loss of zero are those of the data, on every backend."""
    expected, slack = layer.row_losses(point), ROUNDING * layer.magnitude(point)
    for backend in backends():
        problem = built(build, layer, backend)
        found = backend.numpy(problem.row_losses(backend.asarray(point)))
        assert np.max(np.abs(found - expected)) <= slack, f"losses are {found} but should be {expected} ({backend})"
        assert abs(problem.energy - layer.energy) <= slack, f"the loss of zero is {problem.energy}, not {layer.energy}"


def gradient_is_that_of_the_data(build: Build, layer: Layer, point: np.ndarray) -> None:
    """grad f(V) = (X* V^T - X W^T)^T X*, also at the dense weights and where X* != X."""
    expected = (layer.inputs @ point.T - layer.outputs).T @ layer.inputs
    size = np.linalg.norm(layer.inputs) * np.sqrt(layer.magnitude(point))
    for backend in backends():
        found = backend.numpy(built(build, layer, backend).gradient(backend.asarray(point)))
        assert np.max(np.abs(found - expected)) <= ROUNDING * size, f"the gradient is {found} but should be {expected}"


def curvature_is_bounded(build: Build, layer: Layer) -> None:
    """L is at least the largest eigenvalue of G, so that steps of 1 / L are safe, and at most p times that."""
    problem, widest = built(build, layer, backends()[0]), float(np.linalg.norm(layer.inputs, 2)) ** 2
    assert widest * (1 - 1e-12) <= problem.lipschitz <= widest * len(problem.gram) * (1 + 1e-9)


def a_ridge_is_on_the_change_and_counts_once(build: Build, layer: Layer, point: np.ndarray, ridge: np.ndarray) -> None:
    """damped(mu) adds 1/2 sum_j mu_j |V_j - W_j|^2 to the loss and its gradient to the gradient; a second time it adds as much
    again."""
    problem, change = built(build, layer, backends()[0]), point - layer.weight
    mu = ridge * np.sum(layer.inputs**2)
    added, slack = 0.5 * np.sum(mu * change**2), ROUNDING * (layer.magnitude(point) + np.sum(mu * change**2))
    for damped, times in ((problem.damped(mu), 1), (problem.damped(mu).damped(mu), 2)):
        found = damped.loss(point) - layer.loss(point)
        assert abs(found - times * added) <= slack, f"a ridge added {times} times adds {found}, not {times * added}"
        slope = damped.gradient(point) - problem.gradient(point)
        size = np.linalg.norm(layer.inputs) * np.sqrt(layer.magnitude(point)) + np.max(np.abs(mu * change))
        assert np.max(np.abs(slope - times * mu * change)) <= ROUNDING * size


def coordinates_change_nothing(build: Build, layer: Layer, point: np.ndarray, scale: np.ndarray) -> None:
    """rescaled(s) has at v' = s v the loss of v, and the unit-diagonal one has a unit diagonal."""
    problem = built(build, layer, backends()[0])
    expected, slack = layer.loss(point), ROUNDING * layer.magnitude(point)
    for moved, used in (problem.rescaled(scale), problem.rescaled()):
        found = moved.loss(point * used)
        assert abs(found - expected) <= slack, f"the loss is {found} in other coordinates but {expected} in its own"
    alive = problem.diagonal > 0
    np.testing.assert_allclose(problem.rescaled()[0].diagonal, np.where(alive, 1.0, 0.0), rtol=0, atol=1e-12)


def evaluated(build: Build) -> st.SearchStrategy[tuple[Any, ...]]:
    return layers().flatmap(lambda layer: st.tuples(st.just(build), st.just(layer), points(layer)))


def with_channels(values: tuple[float, ...]) -> Callable[[Build], st.SearchStrategy[tuple[Any, ...]]]:
    """Draw cases with one more array, of these values, one per channel."""

    def given(build: Build) -> st.SearchStrategy[tuple[Any, ...]]:
        return evaluated(build).flatmap(lambda case: per_channel(case[1], values).map(lambda array: (*case, array)))

    return given


PROBLEM_LAWS = (
    Law(loss_is_that_of_the_data, evaluated),
    Law(gradient_is_that_of_the_data, evaluated),
    Law(curvature_is_bounded, lambda build: st.tuples(st.just(build), layers())),
    Law(a_ridge_is_on_the_change_and_counts_once, with_channels((1.0, 0.0, 0.1))),
    Law(coordinates_change_nothing, with_channels((1.0, 0.5, 4.0))),
)
