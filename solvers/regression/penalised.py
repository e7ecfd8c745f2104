"""Lasso and elastic net with scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from gramian.solvers.core.target_rows import TargetData
from gramian.solvers.regression.conventions import LinearEstimator, check_limits, checked_rows, warn_unless_converged
from gramian.solvers.regression.shared_gram import Penalty, SharedGram

__all__ = ["ElasticNet", "Lasso", "fitted"]


class ElasticNet(LinearEstimator):
    """argmin_{v, b} 1/(2 n) sum_i c_i (x_i v + b - y_i)^2 + alpha (l1_ratio |v|_1 + 1/2 (1 - l1_ratio) |v|^2), n = sum_i c_i

    The objective is scikit-learn's, for every target. All targets share one Gram matrix, in float64, which is all that is kept
    of X while it is solved; X may be sparse. The Gram is dense, p^2 numbers for p features.

    Parameters
    ----------
    alpha : float, default 1.0
        The weight of the penalty; 0 is least squares.
    l1_ratio : float, default 0.5
        The part of the L1 norm in it, from 0 to 1.
    fit_intercept : bool, default True
        Whether b is fitted, unpenalised; else it is 0.
    positive : bool, default False
        Whether v >= 0.
    warm_start : bool, default False
        Whether a fit starts from `coef_` of the one before.
    max_iter : int, default 10000
        The most steps of the solver, after which a ConvergenceWarning says how far it came.
    tol : float, default 1e-12
        The relative duality gap of every target at which it stops; it usually ends at rounding.

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
    >>> from gramian.solvers.regression import ElasticNet
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 5))
    >>> model = ElasticNet(alpha=0.1, l1_ratio=0.9).fit(X, X @ [3, -2, 0, 0, 0] + 7)
    >>> model.coef_.round(1).tolist(), round(float(model.intercept_), 1), bool(model.dual_gap_ < 1e-12)
    ([2.8, -1.9, 0.0, 0.0, 0.0], 7.0, True)
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        l1_ratio: float = 0.5,
        fit_intercept: bool = True,
        positive: bool = False,
        warm_start: bool = False,
        max_iter: int = 10_000,
        tol: float = 1e-12,
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.warm_start = warm_start
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to inputs X (N, p), dense or sparse, targets y (N,) or (N, q), and weights of rows (N,) or None."""
        return fitted(self, Penalty(self.alpha, self.l1_ratio, self.positive), X, y, sample_weight)  # type: ignore[no-any-return]


class Lasso(LinearEstimator):
    """argmin_{v, b} 1/(2 n) sum_i c_i (x_i v + b - y_i)^2 + alpha |v|_1, n = sum_i c_i

    This is `ElasticNet` with l1_ratio = 1, which says more.

    Parameters
    ----------
    alpha : float, default 1.0
        The weight of the penalty; 0 is least squares.
    fit_intercept : bool, default True
        Whether b is fitted, unpenalised; else it is 0.
    positive : bool, default False
        Whether v >= 0.
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
    >>> from gramian.solvers.regression import Lasso
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 5))
    >>> model = Lasso(alpha=0.1).fit(X, X @ [3, -2, 0, 0, 0] + 7)
    >>> model.coef_.round(1).tolist(), round(float(model.intercept_), 1), bool(model.dual_gap_ < 1e-12)
    ([2.9, -1.9, 0.0, 0.0, 0.0], 7.0, True)
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        positive: bool = False,
        warm_start: bool = False,
        max_iter: int = 10_000,
        tol: float = 1e-12,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.warm_start = warm_start
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to inputs X (N, p), dense or sparse, targets y (N,) or (N, q), and weights of rows (N,) or None."""
        return fitted(self, Penalty(self.alpha, 1.0, self.positive), X, y, sample_weight)  # type: ignore[no-any-return]


Estimator = Any  # an estimator of the settings above; scikit-learn has no types


Choice = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (gram, weights) -> weights of the same objective


def fitted(estimator: Estimator, penalty: Penalty, X: Any, y: Any, sample_weight: Any, choice: Choice | None = None) -> Any:
    """Return the estimator, fitted with a penalty; `choice` is made among several minimisers."""
    check_limits(estimator.tol, estimator.max_iter)
    X, y, row_weights = checked_rows(estimator, X, y, sample_weight)
    shared = SharedGram.of(TargetData.of(X, y, row_weights), estimator.fit_intercept)
    start = np.atleast_2d(estimator.coef_) if estimator.warm_start and hasattr(estimator, "coef_") else None
    solution = shared.solved(penalty, start, estimator.tol, estimator.max_iter)
    warn_unless_converged([solution], estimator.tol)
    weights = solution.weights if choice is None else choice(shared.problem.gram, solution.weights)
    coefficients = weights.astype(X.dtype)
    estimator.certificate_, gaps = shared.certified(coefficients.astype(np.float64), penalty)
    estimator.dual_gap_ = gaps[0] / shared.n if y.ndim == 1 else gaps / shared.n
    estimator.n_iter_ = solution.steps + (start is None)
    estimator.keep(shared, coefficients, y.ndim == 1)
    return estimator
