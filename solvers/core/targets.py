"""Regression on targets: the moments of inputs with what they are to match, centred, streamed over batches in float64."""

from __future__ import annotations

import numpy as np

from gramian.solvers.backend._xp import Array, cholesky, device, namespace, same_library, solve_triangular
from gramian.solvers.backend.printed import kind
from gramian.solvers.backend.sparse import SparseRows
from gramian.solvers.backend.threads import Crew, crew
from gramian.solvers.core.sums import ProductSum
from gramian.solvers.core.target_rows import DenseRows, TargetData

__all__ = ["TargetMoments", "anchored", "moments_of"]

# Of the unit-diagonal Gram, where the loss is anchored. Where targets are fitted to 1e-8 of their size, rounding of f is
# 1e-9 of f from there, and more than all of f from zero. A smaller ridge helps good fits further, but on a Gram of condition
# 1e18 and noisy targets the anchor is then so far away that rounding at sparse weights is 1e-6 of f (1e-10), beside 1e-10 of f
# (1e-6) and 1e-13 of f (zero).
RIDGE = 1e-6


class TargetMoments:
    """sum_i c_i (x_i - m) (x_i - m)^T, and likewise of targets y_i with inputs and with themselves, for weighted means m

    All that least squares on targets needs of its data, intercept or not, summed over batches in float64. Every batch is
    centred by its own mean, and batches are joined by adding n_a n_b / (n_a + n_b) (m_a - m_b) (m_a - m_b)^T (Chan, Golub and
    LeVeque 1983): squares are only ever added, so that data far from zero lose no digits, whatever their order. All is told
    from the mean of the first batch, so that means, too, have the digits of what varies. A feature that holds one number only
    is exactly zero when centred: a dead channel, and not one of rounding errors. `Quadratic.from_target_moments` makes the
    problem of them.

    Parameters
    ----------
    width : int
        p, the number of inputs.
    targets : int, default 1
        q, the number of targets.

    Attributes
    ----------
    rows : int
        How many rows of positive weight there were.
    weight : float
        n, the sum of weights, which is the number of rows where they are 1.
    mean : array (p,) or None
        The weighted mean of the inputs, or None before the first batch.
    target_mean : array (q,) or None
        That of the targets.
    gram : array (p, p) or None
        The Gram matrix of the centred inputs.
    cross : array (q, p) or None
        Centred targets times centred inputs.
    energy : array (q,) or None
        Sums of squares of the centred targets.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import L1, Quadratic, TargetMoments, lasso
    >>> rng = np.random.default_rng(0)
    >>> moments = TargetMoments(8)
    >>> for inputs in rng.normal(size=(4, 16, 8)):
    ...     moments.update(inputs, 3 * inputs[:, 0] + 5)
    >>> moments
    TargetMoments(8 inputs, 1 targets, 64 rows, float64, numpy)
    >>> solution = lasso(Quadratic.from_target_moments(moments, intercept=True), L1(moments.weight * 0.01))
    >>> solution.weights.round(2).tolist(), moments.intercept(solution.weights).round(2).tolist()
    ([[2.98, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]], [5.0])
    """

    def __init__(self, width: int, targets: int = 1) -> None:
        self.width, self.targets = width, targets
        self.rows = 0
        self.weight = 0.0
        self.squares = ProductSum(square=True)
        self.origin: Array | None = None  # a mean is its origin plus its offset
        self.offset: Array | None = None
        self.target_origin: Array | None = None
        self.target_offset: Array | None = None
        self.cross: Array | None = None
        self.energy: Array | None = None

    @property
    def gram(self) -> Array | None:
        """The Gram matrix of the centred inputs."""
        return self.squares.value

    @property
    def mean(self) -> Array | None:
        """The weighted mean of the inputs."""
        return None if self.origin is None else self.origin + self.offset

    @property
    def target_mean(self) -> Array | None:
        """That of the targets."""
        return None if self.target_origin is None else self.target_origin + self.target_offset

    def __repr__(self) -> str:
        seen = "no rows" if self.mean is None else f"{self.rows} rows, {kind(self.mean)}"
        return f"TargetMoments({self.width} inputs, {self.targets} targets, {seen})"

    def update(self, inputs: Array, targets: Array, weights: Array | None = None) -> None:
        """Add a batch of rows.

        inputs: X, (N, p), of any array library or of scipy.sparse. targets: Y, (N,) or (N, q). weights: c, (N,), at least zero;
        a row of weight zero counts for nothing, whatever it holds. ValueError is raised, before anything is added, for shapes
        that do not fit, for NaN and Inf, and for weights below zero.
        """
        data = TargetData.of(inputs, targets, weights)
        if data.shape != (self.targets, self.width):
            found = f"the inputs have {data.shape[1]} columns and the targets {data.shape[0]}"
            raise ValueError(f"{found} but these moments are of {self.width} and {self.targets}")
        if self.mean is not None:
            same_library(data.targets, self.mean, ("the targets", "what came before"))
        for block in data.blocks():
            self.add(*block)

    def add(self, rows: DenseRows | SparseRows, targets: Array, weights: Array | None) -> None:
        """Add rows of positive weights, which were checked."""
        xp, count = namespace(targets), rows.shape[0]
        each = xp.ones((count,), dtype=xp.float64, device=device(targets)) if weights is None else weights
        total, aims = float(xp.sum(each)), DenseRows(targets)
        if self.origin is None or self.target_origin is None:
            self.origin = first_mean(rows, each, total)
            self.target_origin = first_mean(aims, each, total)
        rows, aims = rows.minus(self.origin), aims.minus(self.target_origin)
        offset, target_offset = rows.sums(each) / total, aims.sums(each) / total
        rows, aims = rows.minus(offset), aims.minus(target_offset)
        weighted = aims.values * each[:, None]
        with crew(targets, count * self.width**2) as every:
            if isinstance(rows, SparseRows):
                self.squares.add(rows, rows, every, rows.gram(weights))
            else:
                scaled = rows.values if weights is None else rows.values * xp.sqrt(weights)[:, None]
                self.squares.add(scaled, scaled, every)
            self.join(count, total, offset, target_offset, rows.under(weighted), xp.sum(weighted * aims.values, axis=0), every)

    def join(
        self, rows: int, weight: float, offset: Array, target_offset: Array, cross: Array, energy: Array, every: Crew
    ) -> None:
        """Count others in, whose squares were added already: add their products, and what their means are apart."""
        if self.offset is None or self.target_offset is None or self.cross is None or self.energy is None:
            self.offset, self.target_offset, self.cross, self.energy = offset, target_offset, cross, energy
        else:
            both = self.weight + weight
            step, target_step = offset - self.offset, target_offset - self.target_offset
            factor, share = self.weight / both * weight, weight / both
            scaled = factor**0.5 * step[None, :]
            self.squares.add(scaled, scaled, every)
            self.cross = self.cross + cross + factor * target_step[:, None] * step[None, :]
            self.energy = self.energy + energy + factor * target_step**2
            self.offset, self.target_offset = self.offset + share * step, self.target_offset + share * target_step
        self.rows, self.weight = self.rows + rows, self.weight + weight

    def merged(self, other: TargetMoments) -> TargetMoments:
        """Return the moments of both sets of rows together; ValueError is raised for other numbers of inputs or targets."""
        if (self.width, self.targets) != (other.width, other.targets):
            sizes = f"{self.width} inputs and {self.targets} targets, the others {other.width} and {other.targets}"
            raise ValueError(f"moments add up only for the same inputs and targets: these have {sizes}")
        every_target = np.arange(self.targets)
        both, gram, other_gram = self.targets_of(every_target), self.gram, other.gram
        if gram is None or self.origin is None or self.target_origin is None:
            return other.targets_of(every_target)
        if other_gram is None or other.origin is None or other.target_origin is None:
            return both
        both.squares = ProductSum(square=True, total=gram + other_gram)
        offset = other.offset + (other.origin - self.origin)
        target_offset = other.target_offset + (other.target_origin - self.target_origin)
        with crew(both.cross, 0) as every:
            both.join(other.rows, other.weight, offset, target_offset, other.cross, other.energy, every)
        return both

    def targets_of(self, chosen: np.ndarray) -> TargetMoments:
        """Return the moments of some of the targets, by their indices."""
        found = TargetMoments(self.width, len(chosen))
        found.rows, found.weight, found.squares = self.rows, self.weight, ProductSum(True, self.gram)
        found.origin, found.offset = self.origin, self.offset
        if self.cross is not None:
            xp = namespace(self.cross)
            index = xp.asarray(chosen, device=device(self.cross))
            found.target_origin, found.target_offset, found.cross, found.energy = (
                xp.take(array, index, axis=0) for array in (self.target_origin, self.target_offset, self.cross, self.energy)
            )
        return found

    def sums(self, intercept: bool) -> tuple[Array, Array, Array]:
        """Return gram (p, p), cross (q, p) and energy (q,): centred with an intercept, and without one about zero.

        ValueError is raised where no row was seen.
        """
        gram, mean, aim = self.gram, self.mean, self.target_mean
        if gram is None or mean is None or aim is None or self.cross is None or self.energy is None:
            raise ValueError("no rows were seen: give some, with a weight above zero, before asking for their moments")
        if intercept:
            return gram, self.cross, self.energy
        n = self.weight
        far = n * mean
        return gram + far[:, None] * mean[None, :], self.cross + aim[:, None] * far, self.energy + n * aim**2

    def intercept(self, weights: Array) -> Array:
        """Return the best intercepts b = m_y - V m_x, (q,), for weights V (q, p)."""
        if self.mean is None or self.target_mean is None:
            raise ValueError("no rows were seen: give some, with a weight above zero, before asking for intercepts")
        return self.target_mean - weights @ self.mean

    def centred(self, rows: DenseRows | SparseRows, targets: Array) -> tuple[DenseRows | SparseRows, Array]:
        """Return rows and targets minus the means."""
        assert self.origin is not None and self.offset is not None
        return rows.minus(self.origin).minus(self.offset), targets - self.target_origin - self.target_offset


def first_mean(rows: DenseRows | SparseRows, weights: Array, total: float) -> Array:
    """Return the weighted mean (p,), which of a column that holds one number only is that number, to the last bit."""
    same, first = rows.constants()
    return namespace(weights).where(same, first, rows.sums(weights) / total)


def moments_of(data: TargetData) -> TargetMoments:
    """Return the moments of all rows."""
    found = TargetMoments(data.shape[1], data.shape[0])
    for block in data.blocks():
        found.add(*block)
    return found


def anchored(
    data: TargetData, moments: TargetMoments, intercept: bool, anchor: Array | None = None
) -> tuple[Array, Array, Array, Array]:
    """Return (gram, anchor, slope, floor) of 1/2 sum_i c_i |V x_i + b - y_i|^2 from a second pass over the rows.

    moments: of these rows. anchor: None for the least squares with a ridge of 1e-6. The loss and the gradient at the anchor
    are those of its residuals y - A x, and not differences of large numbers: a good fit keeps its digits.
    """
    gram, cross, _ = moments.sums(intercept)
    anchor = ridge_solution(gram, cross) if anchor is None else anchor
    xp = namespace(data.targets)
    slope, floor = xp.zeros_like(anchor), xp.zeros_like(anchor[:, 0])
    for rows, targets, weights in data.blocks():
        if intercept:
            rows, targets = moments.centred(rows, targets)
        residual = targets - rows.times(anchor)
        weighted = residual if weights is None else residual * weights[:, None]
        slope, floor = slope - rows.under(weighted), floor + 0.5 * xp.sum(weighted * residual, axis=0)
    return gram, anchor, slope, floor


def ridge_solution(gram: Array, cross: Array) -> Array:
    """argmin_V 1/2 V G V^T - <V, C> + 1/2 r sum_j G_jj V_j^2, r = RIDGE, (q, p), or zero where rounding leaves no factor."""
    xp = namespace(gram)
    diagonal = xp.linalg.diagonal(gram)
    scale = xp.sqrt(xp.where(diagonal > 0, diagonal, xp.ones_like(diagonal)))
    work = gram / scale / scale[:, None] + RIDGE * xp.eye(gram.shape[0], dtype=gram.dtype, device=device(gram))
    factor, found = cholesky(work)
    if not found:
        return xp.zeros_like(cross)
    lower = solve_triangular(factor, (cross / scale).T, upper=False)
    return solve_triangular(factor.T, lower, upper=True).T / scale
