"""Duality gaps of least squares and a convex term, from the term's polar or conjugate."""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.terms import Term
from gramian.solvers.core.unpenalised import settled

__all__ = ["duality_gaps", "loss_size"]


def duality_gaps(problem: Quadratic, term: Term, weights: Array, losses: Array, penalty: Array) -> tuple[Array, Array]:
    """f(V) + h(V) - (s (2 - s) f(U) - s <g, U> - h*(-s g)),   g = grad f(U)

    per row (q,), or of all rows together (1,) if h couples them, and the size of the numbers that it is the sum of. For every U
    and s the bracket bounds min f + h from below, since s times the residual of U is a dual point: f is a sum of squares.

    U is V, or what the term's `dual` makes of it, with the weights that h says nothing of at their minimum (`settled`), so that g
    is zero there. By how much that is missed is added to the gap, and to the sizes of the other entries of g, as which the
    polar or the conjugate must increase. For a norm h* = 0 while |s| h°(g) <= 1, and the best s is clip(1 - <g, U> / (2 f),
    -1 / h°, 1 / h°). Otherwise s is 1, or the term's `limit` where that is less. losses, penalty: f(V) and h(V) per row.
    """
    xp = namespace(weights)
    together = getattr(term, "couples_rows", False)
    dual = getattr(term, "dual", None)
    point = weights if dual is None else xp.astype(dual(problem, weights), xp.float64)
    free = term.free(point) if hasattr(term, "free") else None
    missed = xp.zeros_like(losses)
    if free is not None:
        point, missed = settled(problem, point, free)
    below, gradient = problem.value_and_gradient(point)
    stray = xp.isinf(missed)  # only s = 0 is left
    missed = xp.where(stray, xp.zeros_like(missed), missed)
    held, steep = xp.zeros_like(losses), gradient
    if free is not None:
        scale = xp.sqrt(problem.diagonal)
        nothing = xp.zeros_like(gradient)
        gradient = xp.where(free, nothing, gradient)
        wider = missed[:, None] * scale
        steep = xp.where(free, nothing, gradient + xp.where(gradient < 0, -wider, wider))
        held = xp.sum(xp.where(free, nothing, xp.abs(point)) * scale, axis=1)
    products = gradient * point
    inner = xp.sum(products, axis=1)
    sizes = loss_size(problem, weights) + loss_size(problem, point) + xp.abs(penalty) + xp.sum(xp.abs(products), axis=1)
    limit = xp.where(stray, xp.zeros_like(missed), largest_scale(term, steep))
    rest = losses - below + penalty
    if together:
        below, inner, sizes, rest, missed, held = (
            xp.sum(array, axis=0, keepdims=True) for array in (below, inner, sizes, rest, missed, held)
        )
        limit = xp.min(limit, axis=0, keepdims=True)
    if hasattr(term, "polar"):
        s, conjugate = best_scale(limit, below, inner), xp.zeros_like(below)
    else:
        s = xp.where(limit < 1, limit, xp.ones_like(limit))
        conjugate = term.conjugate(-s[:, None] * steep)
        conjugate = xp.sum(conjugate, axis=0, keepdims=True) if together else conjugate
    added = xp.abs(s * (2 - s)) * 0.5 * missed * missed + xp.abs(s) * missed * held
    return rest + (1 - s) ** 2 * below + s * inner + conjugate + added, sizes + xp.abs(conjugate)


def largest_scale(term: Term, gradient: Array) -> Array:
    """Return the largest s for which h*(-s g) is finite per row, (q,), as far as the term says."""
    xp = namespace(gradient)
    unbounded = xp.full_like(gradient[:, 0], float("inf"))
    if hasattr(term, "polar"):
        polar = term.polar(gradient)
        return xp.where(polar > 0, 1 / xp.where(polar > 0, polar, xp.ones_like(polar)), unbounded)
    return term.limit(-gradient) if hasattr(term, "limit") else unbounded


def best_scale(limit: Array, losses: Array, inner: Array) -> Array:
    """Return s = clip(1 - <g, u> / (2 f), -limit, limit), which is the best dual point of a norm."""
    xp = namespace(losses)
    positive = losses > 0
    best = 1 - inner / (2 * xp.where(positive, losses, xp.ones_like(losses)))
    best = xp.where(positive, best, xp.ones_like(best))
    return xp.where(best > limit, limit, xp.where(best < -limit, -limit, best))


def loss_size(problem: Quadratic, weights: Array) -> Array:
    """Return the size per row, (q,), of the numbers that a loss is the sum of, which determines its rounding."""
    xp = namespace(weights)
    change = xp.abs(weights - problem.anchor)
    size = xp.sum(change * xp.sqrt(problem.diagonal), axis=1) ** 2  # |d_i G_ij d_j| <= |d_i| |d_j| sqrt(G_ii G_jj)
    if problem.slope is None or problem.floor is None:
        return size
    return size + xp.abs(problem.floor) + xp.sum(xp.abs(problem.slope) * change, axis=1)


def row_gaps(term: Term, weights: Array, losses: Array, gradient: Array, penalty: Array) -> Array:
    """Return the duality gap per row, (q,); rows separate, so each has its own best dual point."""
    inner = namespace(weights).sum(gradient * weights, axis=1)
    scale = best_scale(largest_scale(term, gradient), losses, inner)
    return (1 - scale) ** 2 * losses + penalty + scale * inner
