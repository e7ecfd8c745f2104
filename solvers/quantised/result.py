"""What quantisation returns: codes, scales, and what can be proven of them."""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, namespace
from gramian.solvers.backend.printed import digits, extent, fraction_of_zeros
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution
from gramian.solvers.quantised.grids import Grid

__all__ = ["CodeCertificate", "Quantised", "certify_codes"]


@dataclass(frozen=True)
class CodeCertificate:
    """What is proven of codes, scales and mask held: f of the dequantised weights, and what one code could still save

    Parameters
    ----------
    objective : float
        f(V), of the damped problem, in squared outputs.
    movable : int
        Kept codes of which another value lowers f, all others held, by more than rounding. None is coordinate-wise optimality.
    largest_gain : float
        The most that one such move saves, in squared outputs.
    feasible : bool
        Whether all codes are on the grid, those outside the mask zero, and all scales positive.

    Examples
    --------
    >>> from gramian.solvers import CodeCertificate
    >>> CodeCertificate(objective=2.0, movable=0, largest_gain=0.0, feasible=True).optimal
    True
    """

    objective: float
    movable: int
    largest_gain: float
    feasible: bool

    @property
    def optimal(self) -> bool:
        """Return whether no single code can be moved to a better value."""
        return self.feasible and self.movable == 0


@dataclass(frozen=True, eq=False)
class Quantised:
    """Hold weights as codes times scales, zero outside a mask.

    Parameters
    ----------
    codes : array (q, p) of int8
        Whole numbers c, zero outside the mask.
    scales : array (q, groups)
        s > 0, in the dtype of the problem, with 8 significant bits.
    grid : Grid
        Bits, and the inputs that share a scale.
    mask : array (q, p) of bool
        True where a weight is kept; its code may still be zero.
    solution : Solution
        The dequantised weights s c, with their status and the certificate of the problem that was given.
    certificate : CodeCertificate
        What is proven of the codes.

    Attributes
    ----------
    weights : array (q, p)
        s c.
    loss : float
        f(s c), of the problem that was given.
    bytes : int
        What codes and scales take when they are stored.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import NM, Quadratic, quantise
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 32)), rng.normal(size=(4, 32)))
    >>> found = quantise(problem, NM(2, 4), bits=4, group=32)
    >>> found.bytes, bool(found.mask.sum(axis=1).max() <= 16)
    (72, True)
    """

    codes: Array
    scales: Array
    grid: Grid
    mask: Array
    solution: Solution
    certificate: CodeCertificate

    @property
    def weights(self) -> Array:
        """Return the dequantised weights (q, p)."""
        return self.solution.weights

    @property
    def loss(self) -> float:
        """Return f of the dequantised weights."""
        return self.solution.certificate.objective

    @property
    def bytes(self) -> int:
        """Return what codes and scales take when they are stored."""
        return self.grid.bytes((self.codes.shape[0], self.codes.shape[1]))

    def __repr__(self) -> str:
        grid = f"{self.grid.bits} bits, groups of {self.grid.group}, {digits(self.bytes)} bytes"
        return f"Quantised({extent(self.codes)}, {grid}, {fraction_of_zeros(self.codes)})"


def certify_codes(problem: Quadratic, codes: Array, scales: Array, grid: Grid, mask: Array) -> CodeCertificate:
    """gain_ij = f(V) - min_c f(V with v_ij = s c), for all codes at once and in float64

    f is a parabola in v_ij, of curvature G_jj and slope g_ij, so that the best code is the one nearest to v_ij - g_ij / G_jj.
    """
    problem = problem.double
    xp = namespace(problem.gram)
    spread = xp.astype(grid.spread(scales, codes.shape[1]), xp.float64)
    whole = xp.astype(codes, xp.float64)
    weights = whole * spread
    losses, gradient = problem.value_and_gradient(weights)
    better = grid.nearest(best_values(weights, gradient, problem.diagonal), spread)
    move = xp.where(mask, better - whole, xp.zeros_like(whole)) * spread
    gain = -move * (gradient + 0.5 * move * problem.diagonal)
    rounding = problem.rounding(weights)
    real = gain > 4 * xp.abs(move) * rounding.gradient
    feasible = (whole >= grid.lowest) & (whole <= grid.highest) & (mask | (whole == 0)) & (spread > 0)
    largest = float(xp.max(xp.where(real, gain, xp.zeros_like(gain))))
    return CodeCertificate(float(xp.sum(losses)), int(xp.count_nonzero(real)), largest, bool(xp.all(feasible)))


def best_values(weights: Array, gradient: Array, curvature: Array) -> Array:
    """Return v - g / h, the minimum of f along each weight; weights that f does not see remain. curvature: like the weights, or
    broadcast to them."""
    xp = namespace(weights)
    seen = curvature > 0
    return xp.where(seen, weights - gradient / xp.where(seen, curvature, xp.ones_like(curvature)), weights)
