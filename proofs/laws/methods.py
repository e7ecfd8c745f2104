"""Laws of a pruning method, any `method(problem, pattern) -> Solution`.

They do not say how good it should be, for no method finds the best mask. What it returns has to be what it says it is, to
satisfy the pattern whatever ties, and to depend on nothing but the layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from gramian.proofs.kit.backends import NUMPY, backends
from gramian.proofs.kit.models import best_of_all_supports
from gramian.proofs.kit.strategies import PATTERNS, Layer, full, layers, patterns
from gramian.proofs.laws.law import Law
from gramian.solvers import Support
from gramian.solvers.backend._xp import namespace

__all__ = ["IMPROVER_LAWS", "METHOD_LAWS", "ORDER_LAWS", "WIDTH", "Pruning", "from_the_largest"]

ROUNDING = 1e-9
WIDTH = 4  # what the number of channels is a multiple of, for patterns in groups


class Pruning(NamedTuple):
    """method: what is held to the laws. patterns: those that it is for; None is every kind of pattern there is."""

    method: Any
    patterns: st.SearchStrategy[Any] | None = None

    @property
    def drawn(self) -> st.SearchStrategy[Any]:
        kinds = [patterns(kind, WIDTH) for kind in PATTERNS]
        return st.one_of(*kinds) if self.patterns is None else self.patterns


def the_pattern_holds(method: Any, layer: Layer, pattern: Any) -> None:
    """The weights are finite and of the layer's shape and dtype, and the pattern admits their mask."""
    point = np.asarray(method(layer.problem(NUMPY), pattern).weights)
    assert point.shape == layer.weight.shape, f"weights are {point.shape} but the layer's are {layer.weight.shape}"
    assert point.dtype == np.float64, f"weights are {point.dtype} for a float64 problem"
    assert np.all(np.isfinite(point)), f"weights are {point}"
    assert pattern.admits(point != 0), f"{point} does not satisfy {pattern}"


def the_certificate_is_of_what_is_returned(method: Any, layer: Layer, pattern: Any) -> None:
    """Loss, relative error and residual are those of the weights on the data, the violation is none, and a bound, if one is
    stated, is not above the best of all masks."""
    solution = method(layer.problem(NUMPY), pattern)
    certificate, point = solution.certificate, np.asarray(solution.weights)
    loss, slack = layer.loss(point), ROUNDING * (layer.magnitude(point) + layer.magnitude(layer.weight))
    assert abs(certificate.objective - loss) <= slack, f"the objective is {loss}, not {certificate.objective}"
    stated = certificate.relative_error * layer.energy if layer.energy > 0 else loss
    assert abs(stated - loss) <= slack, f"the relative error is {certificate.relative_error}, of a loss of {loss}"
    assert certificate.violation == 0, f"its own certificate says that it violates the pattern, by {certificate.violation}"
    start = float(np.linalg.norm(layer.outputs.T @ layer.inputs))
    if certificate.residual is not None and start > 0:
        slope = (layer.inputs @ point.T - layer.outputs).T @ layer.inputs
        size = ROUNDING * np.linalg.norm(layer.inputs) * np.sqrt(layer.magnitude(point) + layer.magnitude(layer.weight))
        inside, most = np.linalg.norm(slope[point != 0]), np.linalg.norm(slope)  # a kept weight may be zero by nature
        stated = certificate.residual * start
        assert inside - size <= stated <= most + size, f"|grad f| on the support is {inside}, in all {most}, not {stated}"
    if certificate.bound > -np.inf:
        least = best_of_all_supports(layer.inputs, layer.outputs, pattern.admits)
        assert certificate.bound <= least + slack, f"the bound is {certificate.bound}, but {least} is reached"


def what_satisfies_the_pattern_is_kept(method: Any, layer: Layer, pattern: Any) -> None:
    """Where X* = X, weights that satisfy the pattern already are answered without any loss."""
    sparse = Layer(layer.inputs, np.where(pattern.select(np.abs(layer.weight)), layer.weight, 0.0))
    loss = sparse.loss(method(sparse.problem(NUMPY), pattern).weights)
    assert loss <= 1e-9 * sparse.magnitude(sparse.weight), (
        f"{sparse.weight} satisfies {pattern}, but is answered with a loss of {loss}"
    )


def it_repeats_itself_and_changes_nothing(method: Any, layer: Layer, pattern: Any) -> None:
    """The same problem gives the same bits twice, and is the same afterwards."""
    problem = layer.problem(NUMPY)
    held = (problem.gram, problem.anchor, problem.slope, problem.floor)
    before = [None if array is None else array.copy() for array in held]
    one, other = (method(problem, pattern).weights for _ in range(2))
    np.testing.assert_array_equal(one, other, err_msg="twice the same problem, two answers")
    for array, kept in zip(held, before):
        np.testing.assert_array_equal(array, kept, err_msg="the problem was changed")


def units_do_not_matter(method: Any, layer: Layer, pattern: Any) -> None:
    """X -> c X does not change the relative error, and neither does W -> c W."""
    expected = relative_error(method, layer, pattern)
    for moved in (layer.scaled(inputs=2.0**9), layer.scaled(inputs=2.0**-9), layer.scaled(weight=2.0**9)):
        found = relative_error(method, moved, pattern)
        assert near(found, expected), f"the error is {expected}, and {found} in other units"


def outputs_may_come_in_any_order(method: Any, layer: Layer, pattern: Any) -> None:
    """Rows of W are separate problems: in reverse order they have the same loss."""
    expected, found = (relative_error(method, each, pattern) for each in (layer, layer.permuted(slice(None, None, -1))))
    assert near(found, expected), f"the error is {expected}, and {found} with the outputs in another order"


def channels_may_come_in_any_order(method: Any, layer: Layer, pattern: Any) -> None:
    """In reverse order, which keeps groups together, channels have the same loss. Sweeps from the first to the last break this
    law."""
    turned = layer.permuted(columns=slice(None, None, -1))
    expected, found = (relative_error(method, each, pattern) for each in (layer, turned))
    assert near(found, expected), f"the error is {expected}, and {found} with the channels in another order"


def backends_agree(method: Any, layer: Layer, pattern: Any) -> None:
    """Every array library reaches the loss that numpy does, with weights that the pattern admits."""
    expected = relative_error(method, layer, pattern)
    for backend in backends()[1:]:
        point = backend.numpy(method(layer.problem(backend), pattern).weights)
        assert pattern.admits(point != 0), f"{point} does not satisfy {pattern} on {backend}"
        found = layer.loss(point) / layer.energy
        assert near(found, expected), f"the error is {expected}, and {found} on {backend}"


def it_never_raises_the_loss(improver: Any, layer: Layer, pattern: Any) -> None:
    """From weights that satisfy the pattern it goes to weights that satisfy it and whose loss is no larger."""
    problem = layer.problem(NUMPY)
    for score in (np.abs(layer.weight), np.ones_like(layer.weight)):
        start = np.where(pattern.select(score), layer.weight, 0.0)
        point = np.asarray(improver(problem, pattern, start).weights)
        assert pattern.admits(point != 0), f"{point} does not satisfy {pattern}"
        before, after = layer.loss(start), layer.loss(point)
        slack = ROUNDING * (layer.magnitude(start) + layer.magnitude(point))
        assert after <= before + slack, f"the loss rises from {before} to {after}"


def from_the_largest(improver: Any, problem: Any, pattern: Any) -> Any:
    """Return what the method gives that improves on the largest weights as they are."""
    start = Support(pattern.select(namespace(problem.anchor).abs(problem.anchor))).prox(problem.anchor, 1.0)
    return improver(problem, pattern, start)


# -- what the laws share -----------------------------------------------------------------------------------------------


def relative_error(method: Any, layer: Layer, pattern: Any) -> float:
    """Return the error from the data; of a layer without output it is the loss."""
    return layer.loss(method(layer.problem(NUMPY), pattern).weights) / layer.energy


def near(found: float, expected: float) -> bool:
    """Return whether two errors differ by no more than single precision inside a method allows."""
    return abs(found - expected) <= 1e-2 * expected + 1e-6


@st.composite
def odd(draw: st.DrawFn, candidate: Pruning) -> tuple[Any, Layer, Any]:
    """Draw any layer: singular, dead, duplicated, tied, of one row, of fewer tokens than channels. It is at most 2 x 4, for
    `product`."""
    return candidate.method, draw(layers(inputs=WIDTH, outputs=2, multiple=WIDTH)), draw(candidate.drawn)


@st.composite
def even(draw: st.DrawFn, candidate: Pruning) -> tuple[Any, Layer, Any]:
    """Draw a layer without ties whose outputs are not zero, so that rounding does not decide what is pruned."""
    rows, groups = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    width = WIDTH * groups
    star, weight, drift = draw(full((2 * width, width), (rows, width), (2 * width, width)))
    layer = Layer(star, weight, star + 0.3 * drift if draw(st.booleans()) else None)
    sizes = np.abs(weight) * np.linalg.norm(star, axis=0)
    assume(np.min(np.diff(np.sort(np.abs(weight).ravel())), initial=1) > 1e-3)
    assume(np.min(np.diff(np.sort(sizes.ravel())), initial=1) > 1e-3 and layer.energy > 0)
    return candidate.method, layer, draw(candidate.drawn)


METHOD_LAWS = (
    Law(the_pattern_holds, odd),
    Law(the_certificate_is_of_what_is_returned, odd),
    Law(what_satisfies_the_pattern_is_kept, odd),
    Law(it_repeats_itself_and_changes_nothing, odd, slow=4),
    Law(units_do_not_matter, even, slow=2),
    Law(outputs_may_come_in_any_order, even, slow=2),
    Law(backends_agree, even, slow=4),
)
ORDER_LAWS = (Law(channels_may_come_in_any_order, even, slow=2),)
IMPROVER_LAWS = (Law(it_never_raises_the_loss, odd),)
