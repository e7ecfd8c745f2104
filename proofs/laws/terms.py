"""Laws of a convex term h: of its proximal map and whatever else it offers, and of the certificate it leads to.

What a term may have is said by the Protocol `Term`. No law needs more than its `prox`, and no law knows which term it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from gramian.proofs.kit.backends import NUMPY, backends
from gramian.proofs.kit.references import exact_lasso, proximal_descent
from gramian.proofs.kit.strategies import Layer, layers, points, spectral_layers, weights
from gramian.proofs.laws.law import Law
from gramian.solvers import FISTA, L1, Certificate, Status, certify, solve

__all__ = ["TERM_LAWS", "TermsOf", "backends_agree", "best_known", "closes", "objective", "proven", "regular"]

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
    """u = p + step r with r in the subdifferential of h at p, h(p) + h*(r) = <p, r> (Moreau), so that h* is no larger than it
    has to be and h = h**. For a norm h° (r) <= 1. For an affine set r has no part along the set."""
    found = term.prox(point, step)
    rest, size = point - found, 1 + float(np.sum(point**2))
    inner, own = together(term, np.sum(found * rest, axis=1)), together(term, step * values(term, found))
    if hasattr(term, "polar"):
        polar = np.asarray(term.polar(chopped(rest, size)))
        lost = np.asarray(term.polar(np.where(chopped(rest, size) != 0, 2**-52 * np.abs(point), 0.0)))  # in u - p
        most = step * (1 + ROUNDING) + ROUNDING + np.where(np.isfinite(lost), lost, 0.0)
        assert np.all(polar <= most), f"u - prox(u) = {rest} has the polar {polar}, above {step}"
        assert np.max(np.abs(inner - own)) <= ROUNDING * size, f"<p, u - p> is {inner}, not {own}"
    elif hasattr(term, "conjugate"):
        slope = chopped(rest, size) / step
        limit = np.asarray(term.limit(slope)) if hasattr(term, "limit") else np.full(len(slope), np.inf)
        assert np.all(limit >= 1 - ROUNDING), f"u - prox(u) = {rest} is out of the domain of the conjugate: {limit}"
        conjugate = together(term, np.asarray(term.conjugate(np.minimum(1, limit)[:, None] * slope)))
        off = np.abs(own + step * conjugate - inner)
        assert np.max(off) <= ROUNDING * size * (1 + step), f"h(p) + h*(r) - <p, r> is {off}"
    if hasattr(term, "tangent"):
        along = term.tangent(rest)
        assert np.max(np.abs(along)) <= ROUNDING * size, f"u - prox(u) = {rest} has the part {along} along the set"


def products_are_bounded(term: Any, point: np.ndarray, other: np.ndarray, step: float) -> None:
    """<g, v> <= h°(g) h(v) for a norm, and <g, v> <= h(v) + h*(g) for any h, the inequalities that certificates rest on; h is
    convex, and h* finite up to the limit."""
    inside = point if feasible(term, point) else term.prox(point, step)
    inner, size = together(term, np.sum(inside * other, axis=1)), together(term, values(term, inside))
    if hasattr(term, "polar"):
        polar = np.asarray(term.polar(other))[: len(inner)]
        finite = np.isfinite(polar)
        bound = polar[finite] * size[finite]
        assert np.all(inner[finite] <= bound * (1 + ROUNDING) + ROUNDING), f"{inner} > {polar} {size}"
    if hasattr(term, "conjugate"):
        bound = size + together(term, np.asarray(term.conjugate(other)))
        assert np.all(inner <= bound + ROUNDING * (1 + np.abs(inner))), f"<g, v> is {inner}, above h(v) + h*(g) = {bound}"
        if hasattr(term, "limit"):
            limit = np.minimum(2, np.asarray(term.limit(other)))
            reached = np.asarray(term.conjugate(limit[:, None] * other))
            assert np.all(np.isfinite(reached)), f"h* is {reached} at the limit {limit}"
    if hasattr(term, "value"):
        middle = value(term, (point + other) / 2)
        ends = (value(term, point) + value(term, other)) / 2
        assert middle <= ends * (1 + ROUNDING) + ROUNDING, f"h is {middle} in the middle, but {ends} on average at the ends"


def free_weights_do_not_matter(term: Any, point: np.ndarray, other: np.ndarray, step: float) -> None:
    """h is the same whatever the weights that it is said to say nothing of, and its prox leaves them as they are."""
    free = term.free(point) if hasattr(term, "free") else None
    if free is not None:
        moved = np.where(free, other, point)
        before, after = value(term, point), value(term, moved)
        assert abs(before - after) <= ROUNDING * (1 + abs(before)), f"h is {before}, and {after} with other free weights"
        found = term.prox(moved, step)
        assert np.all(np.abs(found - moved)[free] <= ROUNDING * (1 + np.abs(moved[free]))), f"prox moves free weights: {found}"


def coordinates_change_nothing(term: Any, point: np.ndarray, other: np.ndarray, step: float) -> None:
    """rescaled(s) at v' = s v is what the term is at v, in its value, in its polar and its conjugate at g' = g / s, and in what
    is feasible; a term that ties channels to each other refuses."""
    scale = np.array([1.0, 4.0, 0.5, 2.0])[np.arange(point.shape[1]) % 4]
    try:
        moved = term.rescaled(scale)
    except ValueError:
        assert not getattr(term, "channel_steps", False), "a term that takes a step per channel has other coordinates too"
        return
    for weight in (point, other, term.prox(point, step)):
        before, after = value(term, weight), value(moved, weight * scale)
        assert abs(before - after) <= ROUNDING * (1 + abs(before)), f"h is {before}, and {after} in other coordinates"
        assert feasible(term, weight) == feasible(moved, weight * scale), f"{weight} is feasible in one of two coordinates"
    for name in ("polar", "conjugate"):
        if hasattr(term, name):
            np.testing.assert_allclose(getattr(moved, name)(other / scale), getattr(term, name)(other), rtol=1e-12)
    back = moved.prox(term.prox(point, step) * scale, 0.0 if hasattr(term, "value") else step) / scale
    assert feasible(term, back), "a feasible point is moved in other coordinates"


def prox_takes_a_step_per_channel(term: Any, point: np.ndarray, other: np.ndarray, step: float) -> None:
    """With steps d (p,) it is the prox in the metric 1 / d: sum (u - p)(v - p) / d <= h(v) - h(p), which `FISTA(scaled=True)`
    takes for granted of a term that says `channel_steps`."""
    if not getattr(term, "channel_steps", False):
        return
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
        for name, arguments in (
            ("prox", (step,)),
            ("value", ()),
            ("polar", ()),
            ("conjugate", ()),
            ("limit", ()),
            ("tangent", ()),
            ("violation", ()),
        ):
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


def certificate_closes(term: Any, layer: Layer) -> None:
    """On layers of condition number 5 FISTA meets a gap, or a residual, of 1e-7, free weights included."""
    solution = solve(layer.problem(NUMPY), term, FISTA(), tol=1e-7, max_steps=3000)
    measure = solution.certificate.measure
    assert solution.status is Status.CONVERGED, f"{solution.status.value}: {measure}, {solution.certificate}"


# -- what the laws share -----------------------------------------------------------------------------------------------


def value(term: Any, point: np.ndarray) -> float:
    """Return h, which is zero for the indicator of a set: whether a point is in the set is `feasible`."""
    return float(np.sum(values(term, point)))


def values(term: Any, point: np.ndarray) -> np.ndarray:
    """Return h per row, (q,)."""
    return np.asarray(term.value(point)) if hasattr(term, "value") else np.zeros(len(point))


def together(term: Any, rows: np.ndarray) -> np.ndarray:
    """Return what is true of every row, (q,), or of their sum, (1,), if h couples them."""
    return np.sum(rows, keepdims=True) if getattr(term, "couples_rows", False) else rows


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


def regular(rank: int | None = None) -> st.SearchStrategy[Layer]:
    """Draw a layer, singular or not, of whose G the eigenvalues that are not zero are within a factor of 25."""
    return st.booleans().flatmap(lambda moved: spectral_layers(rank=rank, condition=5.0, shifted=moved))


def closes(term: Any, layer: Layer) -> bool:
    """Return whether the relative gap can close: where a certificate is a gap, a loss of zero that is not met exactly is never
    relatively small, and a dual point has to exist."""
    if not hasattr(term, "polar") and not hasattr(term, "conjugate"):
        return True
    rival = best_known(layer, term, layer.weight)
    if objective(layer, term, rival) <= 1e-6 * layer.energy and certify(layer.problem(NUMPY), term, layer.weight).gap > 0:
        return False
    if not hasattr(term, "limit"):
        return True
    problem = layer.problem(NUMPY)
    point = term.dual(problem, rival) if hasattr(term, "dual") else rival
    gradient = problem.gradient(point)
    free = term.free(point) if hasattr(term, "free") else None
    return bool(np.all(np.asarray(term.limit(-gradient if free is None else np.where(free, 0, -gradient))) > 0.5))


@st.composite
def on_a_regular_layer(draw: st.DrawFn, terms_of: TermsOf) -> tuple[Any, Layer]:
    """Draw a term and a layer on which its gap can close."""
    layer = draw(regular())
    term = draw(terms_of(layer.weight.shape))
    assume(closes(term, layer))
    return term, layer


TERM_LAWS = (
    *(
        Law(holds, alone)
        for holds in (
            prox_is_optimal,
            prox_is_firmly_nonexpansive,
            prox_and_its_conjugate_make_up_the_point,
            products_are_bounded,
            free_weights_do_not_matter,
            coordinates_change_nothing,
            prox_takes_a_step_per_channel,
            backends_agree,
        )
    ),
    Law(certificate_is_honest, on_a_layer),
    Law(certificate_closes, on_a_regular_layer, slow=2),
)
