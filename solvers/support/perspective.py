"""The perspective relaxation of least squares over supports: weights that may be kept in part, by ADMM for all rows at once."""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, clip, device, namespace, solve_positive
from gramian.solvers.backend.precision import full_precision
from gramian.solvers.core.patterns import NM, TopK
from gramian.solvers.core.problem import Quadratic

__all__ = ["relaxed_point"]

PENALTY = 4.0  # of ADMM, where the curvature of what is separable is 1 / z, one or more
RELAXED = 1.6
ROOT_STEPS = 3  # of Newton's method for the level, which starts from that of the step before


@full_precision()
def relaxed_point(
    problem: Quadratic, pattern: TopK | NM, split: Array, usual: Array, start: Array, steps: int
) -> tuple[Array, Array]:
    """argmin_V,Z sum_i 1/2 (v_i - w_i) M (v_i - w_i)^T + <slope_i, v_i - w_i> + 1/2 sum_j d_j (v_ij^2 / z_ij - 2 v_ij w_ij)

    subject to Z in the convex hull of the pattern's masks, M = G - diag(d), by ADMM in coordinates v'_j = sqrt(d_j) v_j

    A weight costs 1/2 d_j v^2 / z where it is kept in part, so that keeping half of it costs twice as much. Where Z is a mask
    this is the loss but for a constant; so the minimum bounds it, and what is linear there is a good place to bound it from.
    M meets one penalty in one inverse, and every step is one product of its size in float32. The penalty of channel j is in
    proportion to d_j, but where d_j is smaller than usual to what is usual, or such channels would hardly move. What is
    separable, 1/2 v^2 / z, has the proximal map at steps t_j

        v_j = y_j z_j / (z_j + t_j),   z_j = clip(a |y_j| - t_j, 0, 1),   a such that z that compete add up to the count,

    the root of a piecewise linear function, for which few steps of Newton's method do. Nothing that is proven rests on how
    nearly this converges.

    problem: in float64. split: d (p,), zero on dead channels, of which no weight is kept, and positive elsewhere. usual: (p,),
    what d is as a rule, in its units. start: V (q, p). Returned are V, float64, and (p,) the slope of the minimum in d,
    1/2 sum_i v_ij^2 (1 / z_ij - 1).
    """
    xp = namespace(problem.anchor)
    alive = split > 0
    scale = xp.sqrt(xp.where(alive, split, xp.ones_like(split)))
    live = xp.astype(alive, split.dtype)
    work, _ = problem.rescaled(scale)
    identity = xp.eye(split.shape[0], dtype=split.dtype, device=device(split))
    penalty = xp.where(alive, PENALTY * xp.maximum(xp.ones_like(split), usual / scale**2), xp.ones_like(split))
    raised = work.gram + identity * (penalty - live)
    inverse, regular = solve_positive(raised[None, :, :], identity[None, :, :])
    nothing = xp.zeros_like(split)
    if not bool(xp.all(regular)):
        return xp.zeros_like(problem.anchor), nothing
    inverse, penalty = xp.astype(inverse[0, :, :], xp.float32), xp.astype(penalty, xp.float32)
    anchor = xp.astype(work.anchor * live, xp.float32)
    linear = None if work.slope is None else xp.astype(work.slope * live, xp.float32)
    groups = Competition(pattern, problem.shape)
    sparse, dual = xp.astype(start * (scale * live), xp.float32), xp.zeros_like(anchor)
    offset, pull = 1 / penalty, anchor / penalty
    level: Array | None = None
    for _ in range(steps):
        change = penalty * (sparse - dual - anchor)
        smooth = anchor + (change if linear is None else change - linear) @ inverse
        dual += RELAXED * smooth
        dual += (1 - RELAXED) * sparse
        target = dual + pull
        share, level = groups.shares(xp.abs(target), offset, level)
        sparse = target * (share / (share + offset))
        dual -= sparse
    spread = (target / (share + offset)) ** 2 * (share * (1 - share))
    worth = 0.5 * xp.sum(xp.astype(spread, xp.float64), axis=0) / xp.where(alive, split, xp.ones_like(split))
    return xp.astype(sparse, xp.float64) / scale * live, worth * live


class Competition:
    """Which weights compete, and for how many places: all, those of a row, or those of a group."""

    def __init__(self, pattern: TopK | NM, shape: tuple[int, int]) -> None:
        rows, width = shape
        if isinstance(pattern, NM):
            self.shape: tuple[int, ...] = (rows, width // pattern.group, pattern.group)
            self.kept = pattern.kept
        else:
            self.shape = shape if pattern.per_row else (1, rows * width)
            self.kept = self.shape[1] - pattern.zeros(self.shape[1])

    def shares(self, sizes: Array, offset: Array, level: Array | None) -> tuple[Array, Array]:
        """Return z = clip(a |y| - t, 0, 1) with sums of nearly the count, and the levels a.

        sizes: |y| (q, p). offset: t (p,). level: where to begin.
        """
        xp = namespace(sizes)
        flat, offset = xp.reshape(sizes, self.shape), xp.reshape(xp.broadcast_to(offset, sizes.shape), self.shape)
        size = flat.shape[-1]
        mean = xp.sum(flat, axis=-1, keepdims=True) / size
        unit = 1 / xp.where(mean > 0, mean, xp.ones_like(mean))
        level = unit if level is None else level
        for _ in range(ROOT_STEPS):
            raw = flat * level - offset
            share = clip(raw, 0.0, 1.0)
            moving = xp.sum(xp.where(share == raw, flat, xp.zeros_like(flat)), axis=-1, keepdims=True)
            missing = self.kept - xp.sum(share, axis=-1, keepdims=True)
            move = missing / xp.where(moving > 0, moving, 1e-6 / unit)
            level = clip(level + clip(move, -0.5 * level, level), 0.0, 1e4 * unit)
        return xp.reshape(clip(flat * level - offset, 0.0, 1.0), sizes.shape), level
