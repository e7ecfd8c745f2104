"""Lower bounds of f + h that hold in exact arithmetic, although everything they are made of was rounded.

What float64 computes of f and of its gradient g at a point U is off by what `Rounding` says, and G, which should be positive
semidefinite, has a least eigenvalue (with its diagonal scaled to one, D_j = sqrt(G_jj)) of at least `curvature` = c. So for
V = U + e

    f(V) = f(U) + <g, e> + 1/2 e G e >= f(U) + <g, e> + c / 2 |D e|^2.

Where c > 0, as for every Gram that is definite in exact arithmetic and not only nearly, the bounds below hold for all V. A
Gram that is singular to rounding may have c < 0, and f no minimum at all: then they hold for all V in whose rows f is not
negative, as it is in none that data has. Of a Gram that is indefinite nothing is known.
"""

from __future__ import annotations

from typing import Any

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.rounding import Rounding, gamma
from gramian.solvers.core.unpenalised import settled

__all__ = ["conjugate_bounds", "norm_bounds", "row_gaps"]

LOCAL = 4.0  # times the distances between the points at hand: how far a bound reaches where nothing else limits V


def row_gaps(term: Any, weights: Array, losses: Array, gradient: Array, penalty: Array) -> Array:
    """Return the duality gap per row, (q,), but for rounding; rows separate, so each has its own best dual point."""
    inner = namespace(weights).sum(gradient * weights, axis=1)
    scale = best_scale(losses, inner, term.polar(gradient))
    return (1 - scale) ** 2 * losses + penalty + scale * inner


def best_scale(losses: Array, inner: Array, polar: Array) -> Array:
    """Return s = clip(1 - <g, v> / (2 f), -1 / h°(g), 1 / h°(g)), (q,), by which the residual is the best dual point."""
    xp = namespace(losses)
    limit = 1 / xp.where(polar > 0, polar, xp.ones_like(polar))
    limit = xp.where(polar > 0, limit, xp.full_like(polar, float("inf")))
    positive = losses > 0
    best = 1 - inner / (2 * xp.where(positive, losses, xp.ones_like(losses)))
    best = xp.where(positive, best, xp.ones_like(best))
    return xp.where(best > limit, limit, xp.where(best < -limit, -limit, best))


def norm_bounds(
    problem: Quadratic, term: Any, weights: Array, losses: Array, gradient: Array, penalty: Array, rounding: Rounding
) -> Array:
    """min_v f(v) + h(v) >= s (2 - s) f(V) - s <g, V> per row, (q,), for a norm h and any s with |s| h°(g) <= 1, less rounding

    f(v) + h(v) >= f(v) - s <g, v>, which is the right side and (1 - s)^2 f(u), u = V + (v - V) / (1 - s), where f(u) >= 0. g is
    computed: what it is off by is added to its polar. f(u) may be negative by rounding: see `below_zero`. Zero is a bound too.
    """
    xp, width = namespace(weights), weights.shape[1]
    relative = gamma(width + 16)
    polar = (term.polar(gradient) + term.polar(rounding.gradient)) * (1 + relative)
    products = gradient * weights
    inner, size = xp.sum(products, axis=1), xp.sum(xp.abs(products), axis=1)
    scale = best_scale(losses, inner, polar)
    length, share = xp.abs(scale), xp.abs(scale * (2 - scale))
    slack = share * rounding.loss + length * xp.sum(xp.abs(weights) * rounding.gradient, axis=1)
    slack = slack + relative * (share * xp.abs(losses) + length * size)
    reach = losses
    if not problem.curvature > 0:
        ratio = term.polar(norms_of(problem, weights)) * (1 + relative)
        limited = xp.isfinite(ratio)
        reach = (losses + rounding.loss + penalty * (1 + relative)) * xp.where(limited, ratio, xp.ones_like(ratio))
        reach = xp.where(limited, reach, ratio)
    found = scale * (2 - scale) * losses - scale * inner - slack - below_zero(problem, weights, scale, reach)
    least = below_zero(problem, weights, xp.zeros_like(scale), reach) if problem.curvature > 0 else xp.zeros_like(scale)
    found = xp.where(found > -least, found, -least + 0 * found)  # NaN is kept
    return found - rounding.loss - relative * penalty  # by which f(V) + h(V) may be more than it seems


def norms_of(problem: Quadratic, weights: Array) -> Array:
    """Return D, in the shape of the weights."""
    xp = namespace(weights)
    return xp.broadcast_to(xp.sqrt(problem.diagonal), weights.shape)


def below_zero(problem: Quadratic, weights: Array, scale: Array, reach: Array) -> Array:
    """Return what (1 - s)^2 f(u) of `norm_bounds` may be below zero by, per row, (q,).

    With U = V_0, next to the minimiser of f, it is at least (1 - s)^2 f(V_0) + (1 - s) <g_0, e> + c / 2 |D e|^2 for e = (1 - s)
    (u - V_0) = (v - V_0) - s (V - V_0). reach: a bound of |D v|, (q,): sum_j D_j |v_j| <= h°(D) h(v), and h(v) <= f(V) + h(V)
    for every v that is worth a look. It is of no use where c > 0.
    """
    xp = namespace(weights)
    if problem.curvature > 0 and problem.slope is None:  # then f is nowhere below zero
        return xp.zeros_like(scale)
    curvature, (origin, losses, gradient) = problem.curvature, problem.origin
    rounding, norms = problem.rounding(origin), norms_of(problem, weights)
    pull = xp.abs(gradient) + rounding.gradient
    pull = xp.sqrt(xp.sum((pull / xp.where(norms > 0, norms, xp.ones_like(norms))) ** 2, axis=1))  # |g_0 / D|
    away = xp.abs(1 - scale)
    if curvature > 0:
        least = losses - rounding.loss - 0.5 * pull**2 / curvature
        return away**2 * xp.where(least < 0, -least, xp.zeros_like(least))
    apart, start = (xp.sqrt(xp.sum((norms * array) ** 2, axis=1)) for array in (weights - origin, origin))
    anchored = xp.sqrt(xp.sum((norms * weights) ** 2, axis=1))
    reach = xp.where(xp.isfinite(reach), reach, LOCAL * (apart + start + anchored)) + start + xp.abs(scale) * apart
    found = away * pull * reach - 0.5 * curvature * reach**2 - away**2 * (losses - rounding.loss)
    return xp.where(found < 0, xp.zeros_like(found), found)


def conjugate_bounds(problem: Quadratic, term: Any, weights: Array) -> tuple[Array, Array]:
    """min_v f(v) + h(v) >= f(U) - <w, U> - h*(-w) per row, (q,), with w near grad f(U), and what rounding may take from it

    f(v) >= f(U) + <g, v - U> by convexity, and h(v) >= <-w, v> - h*(-w). w is g as it was computed, but zero where h says
    nothing (`free`), and lowered to where h* is finite: by `limit`, or for a norm, whose h* is zero there, to a polar of one.
    What it is off by is some r: then <r, v - U> + c / 2 |D (v - U)|^2 remains, which is at least -|r / D|^2 / (2 c), or, where
    c < 0, at least -|r / D| R + c / 2 R^2 for all v with |D (v - U)| <= R, four times the distances between U, V and W.

    So U is chosen that r is little: of the point itself, or what `dual` makes of it, the weights that h says nothing of are put
    at their minimum, and then it is moved towards V_0, where the gradient is next to nothing, until h* is finite.
    """
    xp, width = namespace(weights), weights.shape[1]
    point = xp.astype(term.dual(problem, weights), xp.float64) if getattr(term, "dual", None) is not None else weights
    free = term.free(point) if hasattr(term, "free") else None
    point = settled(problem, point, free)
    share = reached(term, held(problem.gradient(point), free))
    if bool(xp.any(share < 1)):
        origin = problem.origin[0]
        point = settled(problem, origin + share[:, None] * (point - origin), free)
    losses, gradient = problem.value_and_gradient(point)
    slope = held(gradient, free)
    slope = slope * reached(term, slope)[:, None]
    rounding, norms = problem.rounding(point), norms_of(problem, weights)
    products = slope * point
    conjugate = xp.zeros_like(losses) if hasattr(term, "polar") else term.conjugate(-slope)
    size = xp.abs(losses) + xp.sum(xp.abs(products), axis=1) + xp.abs(conjugate)
    off = (rounding.gradient + xp.abs(gradient - slope)) / xp.where(norms > 0, norms, xp.ones_like(norms))
    off = xp.sum(off**2, axis=1)  # |r / D|^2
    if problem.curvature > 0:
        tilt = 0.5 * off / problem.curvature
    else:
        here, there = (xp.sqrt(xp.sum((norms * array) ** 2, axis=1)) for array in (weights - point, weights))
        reach = LOCAL * (rounding.length + here + there)
        tilt = xp.sqrt(off) * reach - 0.5 * problem.curvature * reach**2
    found, slack = losses - xp.sum(products, axis=1) - conjugate, rounding.loss + gamma(width + 16) * size + tilt
    if problem.curvature > 0 and problem.slope is None:  # then f is nowhere below zero, and h nowhere below -h*(0)
        zero = xp.zeros_like(slope)
        least = xp.zeros_like(found) if hasattr(term, "polar") else -term.conjugate(zero)
        found = xp.where(found < least, least, found)
        slack = xp.where(slack > found - least, found - least, slack)
    return found, slack


def held(gradient: Array, free: Array | None) -> Array:
    """Return the gradient with zeros on the weights that a term says nothing of."""
    return gradient if free is None else namespace(gradient).where(free, 0 * gradient, gradient)


def reached(term: Any, gradient: Array) -> Array:
    """Return the largest s <= 1 for which h*(-s g) is finite per row, (q,), as far as the term says; one for all if it couples
    rows."""
    xp = namespace(gradient)
    share = xp.ones_like(gradient[:, 0])
    if hasattr(term, "polar"):
        polar = term.polar(gradient) * (1 + gamma(gradient.shape[1] + 16))
        share = 1 / xp.where(polar > 1, polar, share)
    elif hasattr(term, "limit"):
        limit = term.limit(-gradient)
        share = xp.where(limit < 1, limit, share)
    return xp.min(share) + 0 * share if getattr(term, "couples_rows", False) else share
