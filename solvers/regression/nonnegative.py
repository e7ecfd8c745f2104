"""Non-negative least squares, with scikit-learn's conventions."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from gramian.solvers.regression.conventions import LinearEstimator
from gramian.solvers.regression.penalised import fitted
from gramian.solvers.regression.shared_gram import Penalty

__all__ = ["NonNegativeLeastSquares"]

ROUNDING = 1e-14  # of numbers of size one
FLAT = 1e-7  # of unit vectors of the null space: an entry below is none


class NonNegativeLeastSquares(LinearEstimator):
    """argmin_{v, b} 1/(2 n) sum_i c_i (x_i v + b - y_i)^2 subject to v >= 0, n = sum_i c_i

    This is scikit-learn's LinearRegression(positive=True). All targets share one Gram matrix, and X may be sparse. Where the
    minimiser is not unique, the columns of nonzero coefficients are linearly independent, and so no more than rows.

    Parameters
    ----------
    fit_intercept : bool, default True
        Whether b, of any sign, is fitted; else it is 0.
    warm_start : bool, default False
        Whether a fit starts from `coef_` of the one before.
    max_iter : int, default 10000
        The most steps of the solver.
    tol : float, default 1e-12
        The relative duality gap of every target at which it stops.

    Attributes
    ----------
    coef_ : array (p,), or (q, p) for targets (N, q)
        v, in the dtype of X.
    intercept_ : float, or array (q,)
        b.
    dual_gap_ : float, or array (q,)
        An upper bound of objective - optimum, of the coefficients as they are stored.
    certificate_ : Certificate
        What is proven of all targets together, in sums over rows: divide by n for the objective above.
    n_iter_ : int
        Steps of the solver for all targets, and one for a start from zero.
    n_features_in_ : int
        p.
    feature_names_in_ : array (p,)
        Names of the columns, where X has some.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers.regression import NonNegativeLeastSquares
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 4))
    >>> model = NonNegativeLeastSquares().fit(X, X @ [3, 2, 0, 0] + 7)
    >>> model.coef_.round(6).tolist(), round(float(model.intercept_), 6)
    ([3.0, 2.0, 0.0, 0.0], 7.0)
    """

    def __init__(
        self, *, fit_intercept: bool = True, warm_start: bool = False, max_iter: int = 10_000, tol: float = 1e-12
    ) -> None:
        self.fit_intercept = fit_intercept
        self.warm_start = warm_start
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to inputs X (N, p), dense or sparse, targets y (N,) or (N, q), and weights of rows (N,) or None."""
        return fitted(self, Penalty(0.0, 1.0, positive=True), X, y, sample_weight, basic)  # type: ignore[no-any-return]


def basic(gram: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return rows v >= 0 of the same predictions as others, with a nonsingular G on the support of each.

    A row moves along the null space of G on its support until a coefficient is zero; the null space is then one dimension
    smaller. It moves so that sum_j v_j sqrt(G_jj) falls most, or where that is constant, so that its last coefficient does:
    directions that rounding does not choose.
    """
    found = weights.copy()
    for row in found:
        support = np.flatnonzero(row)
        scale = np.sqrt(np.diag(gram)[support])
        values, vectors = np.linalg.eigh(gram[np.ix_(support, support)] / scale / scale[:, None])
        idle = vectors[:, values <= ROUNDING * support.size * values[-1:]]  # orthonormal
        while idle.shape[1]:
            way = idle @ idle.sum(axis=0)
            if np.abs(way).max() <= ROUNDING * support.size:
                way = idle @ idle[np.abs(idle).max(axis=1) > FLAT][-1]
            way = way if (way > 0).any() else -way
            steps = np.full(support.size, np.inf)
            np.divide(row[support] * scale, way, out=steps, where=way > 0)
            gone = int(np.argmin(steps))
            row[support] = np.maximum(row[support] - steps[gone] * way / scale, 0)
            row[support[gone]] = 0
            reflection = idle[gone] / np.linalg.norm(idle[gone])  # to one axis, which is left out
            reflection[0] += np.copysign(1.0, reflection[0])
            idle = idle - np.outer(idle @ reflection, reflection) * (2 / (reflection @ reflection))
            support, scale, idle = np.delete(support, gone), np.delete(scale, gone), np.delete(idle[:, 1:], gone, axis=0)
    return found
