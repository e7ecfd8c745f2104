"""V = A S B with block-diagonal A and B: each factor's best, the other two held, and the certificate of a factor.

With M = S B, N = A S and the gradient g = grad f(V), (q, p), the loss as a function of the change of one factor is

    A_r + D:  <g_r M_r^T, D> + 1/2 <D (M_r G M_r^T), D>              for every block of rows r, apart from the others
    B_c + D:  <N_c^T g_c, D> + 1/2 <(N_c^T N_c) D G_cc, D>           for one block of columns c; G couples it with the others
    S + D:    <A^T g B^T, D> + 1/2 <(A^T A) D (B G B^T), D>,  D = 0 off the support, for every block of rows apart
"""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, copied, namespace
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.support.block_products import (
    column_blocks,
    join_rows,
    pseudo_inverses,
    row_blocks,
    times_left,
    times_right,
)

__all__ = ["Factors", "Landscape", "best_left", "best_right", "residuals"]


@dataclass(frozen=True, eq=False)
class Factors:
    """V = A S B, a sparse core between two block-diagonal wrappers.

    core: S, (q, p). left: the blocks of A, (ceil(q / a), a, a). right: the blocks of B, (ceil(p / b), b, b). What a last block
    has past the end of the matrix is the identity, and counts nowhere.
    """

    core: Array
    left: Array
    right: Array

    def dense(self) -> Array:
        """Return A S B, (q, p)."""
        return times_right(times_left(self.left, self.core), self.right)

    @property
    def zeros(self) -> int:
        """Return how many weights of the core are zero."""
        xp = namespace(self.core)
        return int(xp.sum(xp.astype(self.core == 0, xp.int64)))

    @property
    def added(self) -> int:
        """Return how many parameters A and B have: the squares of the sizes of their blocks, added up."""
        sides = zip(self.core.shape, (self.left.shape[1], self.right.shape[1]))
        return sum((length // size) * size**2 + (length % size) ** 2 for length, size in sides)


def transposed(blocks: Array) -> Array:
    """Return the stack of a transposed block-diagonal matrix."""
    return namespace(blocks).matrix_transpose(blocks)


def best_left(problem: Quadratic, factors: Factors) -> Array:
    """argmin_A f(A S B), the blocks (n, a, a), in closed form; of several minimisers the one that changes A least

    A block keeps what it has where rounding lets its loss rise.
    """
    xp, size = namespace(factors.core), factors.left.shape[1]
    inner = times_right(factors.core, factors.right)
    rows = row_blocks(inner, size)
    gradient = row_blocks(problem.gradient(times_left(factors.left, inner)), size) @ transposed(rows)
    hessian = rows @ transposed(row_blocks(inner @ problem.gram, size))
    hessian = 0.5 * (hessian + transposed(hessian))
    change = -gradient @ pseudo_inverses(hessian)
    rise = xp.sum(change * (gradient + 0.5 * (change @ hessian)), axis=(1, 2))
    return factors.left + change * xp.astype(rise < 0, change.dtype)[:, None, None]


def best_right(problem: Quadratic, factors: Factors) -> Array:
    """argmin_{B_c} f(A S B) for one block c after the other, the blocks (n, b, b); each in closed form, the others held"""
    xp, size, width = namespace(factors.core), factors.right.shape[1], factors.core.shape[1]
    outer = times_left(factors.left, factors.core)
    gradient = copied(problem.gradient(times_right(outer, factors.right)))
    columns = column_blocks(outer, size)
    squares = transposed(columns) @ columns
    inverses, right = pseudo_inverses(squares), copied(factors.right)
    for block in range(right.shape[0]):
        first, last = block * size, min((block + 1) * size, width)
        count = last - first
        part, square = outer[:, first:last], squares[block, :count, :count]
        gram = problem.gram[first:last, first:last]
        slope = part.T @ gradient[:, first:last]
        change = -inverses[block, :count, :count] @ slope @ pseudo_inverses(gram[None, :, :])[0, :, :]
        rise = xp.sum(change * (slope + 0.5 * (square @ change @ gram)))
        change = change * xp.astype(rise < 0, change.dtype)
        right[block, :count, :count] += change
        gradient += (part @ change) @ problem.gram[first:last, :]
    return right


@dataclass(frozen=True, eq=False)
class Landscape:
    """The loss as a function of the change of the core, for every block of rows: its slope, its curvature, where it goes next.

    slope: A^T g B^T, (q, p). left: A^T A, (n, a, a). right: B G B^T, (p, p). diagonal: of the Hessian, (q, p).
    """

    core: Array
    slope: Array
    left: Array
    right: Array
    diagonal: Array

    @classmethod
    def of(cls, problem: Quadratic, factors: Factors) -> Landscape:
        """Return it around the core that there is."""
        xp = namespace(factors.core)
        across = times_right(problem.gram, transposed(factors.right))
        right = times_right(across.T, transposed(factors.right))
        right = 0.5 * (right + right.T)
        left = transposed(factors.left) @ factors.left
        slope = problem.gradient(factors.dense())
        slope = times_left(transposed(factors.left), times_right(slope, transposed(factors.right)))
        own = xp.reshape(xp.linalg.diagonal(left), (-1,))[: factors.core.shape[0]]
        return cls(factors.core, slope, left, right, own[:, None] * xp.linalg.diagonal(right)[None, :])

    def bent(self, change: Array) -> Array:
        """Return (A^T A) D (B G B^T), (q, p)."""
        return times_left(self.left, change) @ self.right

    def by_block(self, values: Array) -> Array:
        """Return the sum of values (q, p) over every block of rows, (n,)."""
        return namespace(values).sum(row_blocks(values, self.left.shape[1]), axis=(1, 2))

    def to_rows(self, values: Array) -> Array:
        """Return values of blocks (n,) as a column, (q, 1)."""
        xp, size = namespace(values), self.left.shape[1]
        return join_rows(xp.broadcast_to(values[:, None, None], (values.shape[0], size, 1)), self.core.shape[0])

    def rises(self, change: Array) -> Array:
        """Return by how much the loss of every block of rows rises, (n,)."""
        return self.by_block(change * (self.slope + 0.5 * self.bent(change)))

    def change_on(self, mask: Array, steps: int) -> Array:
        """argmin_D subject to S + D = 0 off the mask, (q, p), by so many steps of conjugate gradients from S on the mask

        The diagonal preconditions, and every block of rows has step lengths of its own. The loss falls with every step.
        """
        xp = namespace(self.core)
        kept = xp.astype(mask, self.core.dtype)
        alive = self.diagonal > 0
        inverse = xp.where(alive, kept, xp.zeros_like(kept)) / xp.where(alive, self.diagonal, xp.ones_like(kept))
        change = self.core * kept - self.core
        left = -(self.slope + self.bent(change)) * kept
        ahead = direction = inverse * left
        power = self.by_block(left * ahead)
        for _ in range(steps):
            bent = self.bent(direction) * kept
            length = ratio(power, self.by_block(direction * bent))
            change = change + self.to_rows(length) * direction
            left = left - self.to_rows(length) * bent
            ahead = inverse * left
            fresh = self.by_block(left * ahead)
            direction = ahead + self.to_rows(ratio(fresh, power)) * direction
            power = fresh
        return change


def ratio(above: Array, below: Array) -> Array:
    """Return above / below where below is positive, and 0 elsewhere."""
    xp = namespace(above)
    fine = below > 0
    return xp.where(fine, above / xp.where(fine, below, xp.ones_like(below)), xp.zeros_like(above))


def residuals(problem: Quadratic, factors: Factors) -> dict[str, float]:
    """Return for each factor the gradient of f(A S B) by it, relative to that at V = 0: 0 where it is the best beside others.

    The core's counts on its support alone.
    """
    xp = namespace(factors.core)
    inner, outer = times_right(factors.core, factors.right), times_left(factors.left, factors.core)
    here, start = problem.gradient(factors.dense()), problem.at_zero[1]
    support = xp.astype(factors.core != 0, factors.core.dtype)

    def left(gradient: Array) -> Array:
        size = factors.left.shape[1]
        return row_blocks(gradient, size) @ transposed(row_blocks(inner, size))

    def right(gradient: Array) -> Array:
        size = factors.right.shape[1]
        return transposed(column_blocks(outer, size)) @ column_blocks(gradient, size)

    def core(gradient: Array) -> Array:
        return times_left(transposed(factors.left), times_right(gradient, transposed(factors.right))) * support

    found = {}
    for name, along in {"left": left, "right": right, "core": core}.items():
        now, scale = (float(xp.sqrt(xp.sum(along(gradient) ** 2))) for gradient in (here, start))
        found[f"{name}_residual"] = now / scale if scale > 0 else 0.0 if now == 0 else float("inf")
    return found
