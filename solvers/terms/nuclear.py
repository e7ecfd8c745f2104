"""The nuclear norm, which lowers the rank of all rows together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from gramian.solvers.backend._xp import Array, full, namespace
from gramian.solvers.core.prices import checked_number, where_zero
from gramian.solvers.terms.squares import over

__all__ = ["Nuclear"]


@dataclass(frozen=True, eq=False)
class Nuclear:
    """h(V) = lambda sum_k sigma_k(V), the sum of singular values

    Rows are no longer separate problems: the certificate is one of all of them. A step takes a singular value decomposition,
    for which a GPU is waited for.

    Parameters
    ----------
    weight : float
        lambda >= 0.

    Raises
    ------
    ValueError
        Unless lambda is one number, finite and at least zero.

    Notes
    -----
    The proximal map is closed only for one step, so that `FISTA(scaled=True)` refuses the term.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import FISTA, Nuclear, Quadratic, solve
    >>> problem = Quadratic(np.eye(2), np.array([[3.0, 0.0], [0.0, 0.5]]))
    >>> solve(problem, Nuclear(1.0), FISTA(), tol=1e-12).weights.round(6).tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """

    weight: float
    couples_rows = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", checked_number(self.weight, "the weight of a nuclear norm"))

    def value(self, weights: Array) -> Array:
        """Return numbers (q,) that add up to h: lambda times the diagonal of (V V^T)^(1/2)."""
        xp = namespace(weights)
        left, values, _ = xp.linalg.svd(weights, full_matrices=False)
        return self.weight * xp.sum(left * left * values, axis=1)

    def prox(self, weights: Array, step: float) -> Array:
        """argmin_V 1/2 |V - U|^2 + step h(V): every singular value is lowered by step * lambda, to zero at most."""
        if getattr(step, "ndim", 0):
            raise ValueError("Nuclear has a proximal map for one step only, not for a step per channel")
        xp = namespace(weights)
        if not bool(xp.all(xp.isfinite(weights))):  # has no decomposition
            return weights
        left, values, right = xp.linalg.svd(weights, full_matrices=False)
        return (left * over(values, step * self.weight)) @ right

    def polar(self, gradient: Array) -> Array:
        """Return h°(g) = sigma_1(g) / lambda, where 0 / 0 is 0, for every row (q,), raised by its rounding."""
        xp = namespace(gradient)
        largest = float(xp.max(xp.linalg.svdvals(gradient)))
        room = 1 + 8 * sum(gradient.shape) * float(xp.finfo(gradient.dtype).eps)
        found = largest * room / self.weight if self.weight > 0 else (float("inf") if largest > 0 else 0.0)
        return full((gradient.shape[0],), found, gradient)

    def free(self, weights: Array) -> Array | None:
        """Return all weights if lambda is zero, else None."""
        return where_zero(self.weight, weights)

    def rescaled(self, scale: Array) -> NoReturn:
        """Raise ValueError: in coordinates `scale * v` this is no nuclear norm."""
        raise ValueError("Nuclear ties channels to each other and has no form in other coordinates: solve in the problem's own")
