"""Non-negative least squares, with scikit-learn's conventions."""

from __future__ import annotations

from typing import Any, Self

from gramian.solvers.regression.conventions import LinearEstimator
from gramian.solvers.regression.penalised import fitted
from gramian.solvers.regression.shared_gram import Penalty

__all__ = ["NonNegativeLeastSquares"]


class NonNegativeLeastSquares(LinearEstimator):
    """argmin_{v, b} 1/(2 n) sum_i c_i (x_i v + b - y_i)^2 subject to v >= 0, n = sum_i c_i

    This is scikit-learn's LinearRegression(positive=True). All targets share one Gram matrix, and X may be sparse.

    Parameters
    ----------
    fit_intercept : bool, default True
        Whether b, of any sign, is fitted; else it is 0.
    warm_start : bool, default False
        Whether a fit starts from `coef_` of the one before.
    max_iter : int, default 10000
        The most steps of the solver.
    tol : float, default 1e-9
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
    >>> model.coef_.round(6).tolist(), round(model.intercept_, 6)
    ([3.0, 2.0, 0.0, 0.0], 7.0)
    """

    def __init__(
        self, *, fit_intercept: bool = True, warm_start: bool = False, max_iter: int = 10_000, tol: float = 1e-9
    ) -> None:
        self.fit_intercept = fit_intercept
        self.warm_start = warm_start
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to inputs X (N, p), dense or sparse, targets y (N,) or (N, q), and weights of rows (N,) or None."""
        return fitted(self, Penalty(0.0, 1.0, positive=True), X, y, sample_weight)  # type: ignore[no-any-return]
