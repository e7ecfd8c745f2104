"""Laws of a convex term h: of its proximal map and whatever else it offers, and of the certificate it leads to.

A term has `prox(weights, step)` and `rescaled(scale)`; a finite one has `value` and, if it is a norm, `polar`; the indicator
of a set has `tangent` and `violation`. No law needs more, and no law knows which term it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.backends import NUMPY, backends
from gramian.proofs.kit.references import exact_lasso, proximal_descent
from gramian.proofs.kit.strategies import Layer, layers, points, weights
from gramian.proofs.laws.law import Law
from gramian.solvers import L1, Certificate, certify

__all__ = ["TERM_LAWS", "TermsOf", "best_known", "objective", "proven"]

TermsOf = Callable[[tuple[int, int]], st.SearchStrategy[Any]]  # terms for weights of a shape (q, p)

ROUNDING = 1e-10


def prox_is_optimal(term: Any, point: np.ndarray, other: np.ndarray, step: float) -> None:
    """p = prox(u) minimises 1/2 |p - u|^2 + step h(p), which means that <u - p, v - p> <= step (h(v) - h(p)) for all v."""
    found = term.prox(point, step)
    assert found.shape == point.shape, f"prox of {point.shape} weights is {found.shape}"
    assert feasible(term, found), f"prox ends outside the set, by {violation(term, found)}"
    pull, rivals = point - found, [0 * point, point, other, 2 * found, found + 0.125 * other, term.prox(other, step)]
    for rival in rivals:
        if feasible(term, rival):
            left, right = np.sum(pull * (rival - found)), step * (value(term, rival) - value(term, found))
            slack = ROUNDING * (1 + np.sum(point**2) + np.sum(other**2) + abs(right))
            assert left <= right + slack, f"prox gives {found}, but {rival} is better"


def prox_is_firmly_nonexpansive(term: Any, point: np.ndarray, other: np.ndarray, step: float) -> None:
    """|prox(u) - prox(v)|^2 <= <prox(u) - prox(v), u - v>."""
    moved = term.prox(point, step) - term.prox(other, step)
    slack = ROUNDING * (1 + np.sum(point**2) + np.sum(other**2))
    assert np.sum(moved**2) <= np.sum(moved * (point - other)) + slack, f"prox is apart by {moved}"


def prox_and_its_conjugate_make_up_the_point(term: Any, point: np.ndarray, other: np.ndarray, step: float) -> None:
    """u = p + r with r = prox of the conjugate (step h)* (Moreau). For a norm that is the projection on {h° <= step}: h°(r) <=
    step and <p, r> = step h(p). For an affine set r has no part along the set."""
    found = term.prox(point, step)
    rest, size = point - found, 1 + float(np.sum(point**2))
    if hasattr(term, "polar"):
        polar, inner = np.asarray(term.polar(chopped(rest, size))), np.sum(found * rest, axis=1)
        assert np.all(polar <= step * (1 + ROUNDING) + ROUNDING), f"u - prox(u) = {rest} has the polar {polar}, above {step}"
        assert np.max(np.abs(inner - step * np.asarray(term.value(found)))) <= ROUNDING * size, f"<p, u - p> is {inner}"
    if hasattr(term, "tangent"):
        along = term.tangent(rest)
        assert np.max(np.abs(along)) <= ROUNDING * size, f"u - prox(u) = {rest} has the part {along} along the set"


def polar_bounds_products(term: Any, point: np.ndarray, other: np.ndarray, step: float) -> None:
    """<g, v> <= h°(g) h(v) in every row, the inequality that certificates rest on; h is convex."""
    if hasattr(term, "polar"):
        polar, size = np.asarray(term.polar(other)), np.asarray(term.value(point))
        finite = np.isfinite(polar)
        inner = np.sum(point * other, axis=1)
        assert np.all(inner[finite] <= polar[finite] * size[finite] * (1 + ROUNDING) + ROUNDING), f"{inner} > {polar} {size}"
    if hasattr(term, "value"):
        middle = value(term, (point + other) / 2)
        ends = (value(term, point) + value(term, other)) / 2
        assert middle <= ends * (1 + ROUNDING) + ROUNDING, f"h is {middle} in the middle, but {ends} on average at the ends"


def coordinates_change_nothing(term: Any, point: np.ndarray, other: np.ndarray, step: float) -> None:
    """rescaled(s) at v' = s v is what the term is at v, in its value, in its polar at g' = g / s, and in what is feasible."""
    scale = np.array([1.0, 4.0, 0.5, 2.0])[np.arange(point.shape[1]) % 4]
    moved = term.rescaled(scale)
    for weight in (point, other, term.prox(point, step)):
        before, after = value(term, weight), value(moved, weight * scale)
        assert abs(before - after) <= ROUNDING * (1 + abs(before)), f"h is {before}, and {after} in other coordinates"
        assert feasible(term, weight) == feasible(moved, weight * scale), f"{weight} is feasible in one of two coordinates"
    if hasattr(term, "polar"):
        np.testing.assert_allclose(moved.polar(other / scale), term.polar(other), rtol=1e-12)
    back = moved.prox(term.prox(point, step) * scale, 0.0 if hasattr(term, "value") else step) / scale
    assert feasible(term, back), "a feasible point is moved in other coordinates"


def prox_takes_a_step_per_channel(term: Any, point: np.ndarray, other: np.ndarray, step: float) -> None:
    """With steps d (p,) it is the prox in the metric 1 / d: sum (u - p)(v - p) / d <= h(v) - h(p), which `FISTA(scaled=True)`
    takes for granted."""
    steps = step * np.array([1.0, 4.0, 0.5, 2.0])[np.arange(point.shape[1]) % 4]
    found = term.prox(point, steps)
    for rival in (0 * point, point, other, 2 * found, found + 0.125 * other, term.prox(other, steps)):
        if feasible(term, rival) and feasible(term, found):
            left, right = np.sum((point - found) * (rival - found) / steps), value(term, rival) - value(term, found)
            slack = ROUNDING * (1 + np.sum(point**2) + np.sum(other**2) + abs(right)) / min(steps)
            assert left <= right + slack, f"with steps {steps} prox gives {found}, but {rival} is better"


def backends_agree(term: Any, point: np.ndarray, other: np.ndarray, step: float) -> None:
    """Every array library gives the same numbers, in the dtype that it was given."""
    for backend in backends():
        moved = backend.moved(term)
        for name, arguments in (("prox", (step,)), ("value", ()), ("polar", ()), ("tangent", ()), ("violation", ())):
            if hasattr(term, name):
                expected = np.asarray(getattr(term, name)(point, *arguments))
                found = getattr(moved, name)(backend.asarray(point), *arguments)
                found = found if isinstance(found, float) else backend.numpy(found)
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12, err_msg=f"{name} on {backend}")
        single = moved.prox(backend.asarray(point, "float32"), step)
        assert single.dtype == backend.dtype("float32"), f"prox makes {single.dtype} of float32 on {backend}"


def certificate_is_honest(term: Any, layer: Layer, point: np.ndarray) -> None:
    """The objective is that of the data, and no point known is better than the certificate allows: see `proven`."""
    certificate = certify(layer.problem(NUMPY), term, point)
    reached, rival = objective(layer, term, point), best_known(layer, term, point)
    slack = ROUNDING * (layer.magnitude(point) + layer.magnitude(rival) + abs(reached))
    assert abs(certificate.objective - reached) <= slack, f"the objective is {reached}, not {certificate.objective}"
    if feasible(term, point):
        excess = reached - objective(layer, term, rival)
        allowed = proven(layer, certificate, point, rival)
        assert excess <= allowed + slack, f"{point} is above {rival} by {excess}, and certified to be within {allowed}"
    else:
        assert certificate.violation > 0, f"{point} is certified to be feasible"


# -- what the laws share -----------------------------------------------------------------------------------------------


def value(term: Any, point: np.ndarray) -> float:
    """Return h, which is zero for the indicator of a set: whether a point is in the set is `feasible`."""
    return float(np.sum(np.asarray(term.value(point)))) if hasattr(term, "value") else 0.0


def violation(term: Any, point: np.ndarray) -> float:
    return float(term.violation(point)) if hasattr(term, "violation") else 0.0


def feasible(term: Any, point: np.ndarray) -> bool:
    return violation(term, point) <= ROUNDING * (1 + float(np.max(np.abs(point))))


def chopped(array: np.ndarray, size: float) -> np.ndarray:
    """Return the array with zeros where nothing but rounding is left, by which a polar may divide."""
    return np.where(np.abs(array) <= 1e-14 * size, 0.0, array)


def objective(layer: Layer, term: Any, point: np.ndarray) -> float:
    """f(V) + h(V) from the data."""
    return layer.loss(point) + value(term, point)


def best_known(layer: Layer, term: Any, start: np.ndarray) -> np.ndarray:
    """Return a point of low objective: the exact optimum for L1, and otherwise where a plain proximal method arrives."""
    if isinstance(term, L1):
        return exact_lasso(layer.inputs, layer.outputs, term.weight)[0]
    return proximal_descent(layer.inputs, layer.outputs, term.prox, term.prox(start, 1.0), 200)


def proven(layer: Layer, certificate: Certificate, point: np.ndarray, rival: np.ndarray) -> float:
    """Return by how much a certificate of V allows that another point U be better.

    With a bound it is the gap. Without one it comes from the residual r, as f(V) - f(U) <= <grad f(V), V - U> <= r |grad f(0)|
    |V - U|, since V - U lies along the set.
    """
    if certificate.residual is None:
        return float(certificate.gap)
    start = float(np.linalg.norm(layer.outputs.T @ layer.inputs))
    return certificate.residual * start * float(np.linalg.norm(point - rival)) if start else 0.0


@st.composite
def alone(draw: st.DrawFn, terms_of: TermsOf) -> tuple[Any, np.ndarray, np.ndarray, float]:
    """Draw a term, two points and a step."""
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return draw(terms_of(shape)), draw(weights(shape)), draw(weights(shape)), draw(st.sampled_from([1.0, 0.25, 3.0]))


@st.composite
def on_a_layer(draw: st.DrawFn, terms_of: TermsOf) -> tuple[Any, Layer, np.ndarray]:
    """Draw a term, a layer, and a point that is feasible half of the time."""
    layer = draw(layers(inputs=4, outputs=2, scales=(1.0,)))
    term, point = draw(terms_of(layer.weight.shape)), draw(points(layer))
    return term, layer, term.prox(point, 1.0) if draw(st.booleans()) else point


TERM_LAWS = (
    *(
        Law(holds, alone)
        for holds in (
            prox_is_optimal,
            prox_is_firmly_nonexpansive,
            prox_and_its_conjugate_make_up_the_point,
            polar_bounds_products,
            coordinates_change_nothing,
            prox_takes_a_step_per_channel,
            backends_agree,
        )
    ),
    Law(certificate_is_honest, on_a_layer),
)
