"""Codes improved one by one while the loss falls."""

from __future__ import annotations

from gramian.solvers.backend._xp import Array, copied, namespace
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.quantised.grids import Grid
from gramian.solvers.quantised.result import best_values

__all__ = ["better_rows", "descended"]

BLOCK = 64  # columns whose moves reach the other gradients by one product


def descended(problem: Quadratic, codes: Array, spread: Array, grid: Grid, mask: Array, rounds: int) -> Array:
    """c_ij <- argmin_c f(V with v_ij = s c) for the columns j = 1..p in turn, in all rows at once, codes (q, p) in float64

    A code moves only where f falls by more than rounding, so that no row's loss rises. It ends where no code moves, which is
    coordinate-wise optimality, or after `rounds` turns.

    spread: the scales (q, p), each repeated over its group. mask: codes outside it remain as they are.
    """
    problem = problem.double
    curvature, width = problem.diagonal, codes.shape[1]
    for _ in range(rounds):
        weights = codes * spread
        slack = 4 * problem.rounding(weights).gradient
        _, gradient = problem.value_and_gradient(weights)
        gradient, before = copied(gradient), codes
        codes = copied(codes)
        for first in range(0, width, BLOCK):
            last = min(first + BLOCK, width)
            here = copied(gradient[:, first:last].T)
            moves = 0 * here
            for j in range(first, last):
                scale, code, slope = spread[:, j], codes[:, j], here[j - first, :]
                move = grid.nearest(best_values(code * scale, slope, curvature[j]), scale) - code
                step = move * scale
                gain = -step * (slope + 0.5 * curvature[j] * step)
                moved = mask[:, j] & (gain > namespace(step).abs(step) * slack[:, j])
                step = namespace(step).where(moved, step, 0 * step)
                codes[:, j] = namespace(code).where(moved, code + move, code)
                here += problem.gram[first:last, j][:, None] * step[None, :]
                moves[j - first, :] = step
            if last < width:
                gradient[:, last:] += moves.T @ problem.gram[first:last, last:]
        codes = better_rows(problem, codes, before, spread)
        if not bool(namespace(codes).any(codes != before)):
            break
    return codes


def better_rows(problem: Quadratic, codes: Array, others: Array, spread: Array) -> Array:
    """Return, row by row, codes where their loss is lower and the other ones elsewhere, (q, p)."""
    losses, known = (problem.value_and_gradient(each * spread)[0] for each in (codes, others))
    return namespace(codes).where((losses < known)[:, None], codes, others)
