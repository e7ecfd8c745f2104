"""Least squares with few nonzero coefficients, with scikit-learn's conventions."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from gramian.solvers.core.certificate import certify
from gramian.solvers.core.patterns import TopK
from gramian.solvers.core.target_rows import TargetData
from gramian.solvers.core.terms import Support
from gramian.solvers.regression.conventions import LinearEstimator, checked_rows
from gramian.solvers.regression.shared_gram import SharedGram
from gramian.solvers.support.exchange import exchange_weights
from gramian.solvers.support.l0 import l0_admm

__all__ = ["L0Regression"]


class L0Regression(LinearEstimator):
    """min_{v, b} 1/(2 n) sum_i c_i (x_i v + b - y_i)^2 + 1/2 alpha |v|^2 subject to |v|_0 <= k, for every target

    The problem is not convex. The support is found by ADMM (`l0_admm`) and improved until no exchange of a nonzero for a zero
    helps (`exchange_weights`), or rounds run out; the coefficients are the best ones on it. Targets share one Gram matrix, and
    each has its own support. Of p features at most `n_nonzero_coefs` have a coefficient.

    Parameters
    ----------
    n_nonzero_coefs : int, optional
        k. None is a tenth of the features, at least one, as in scikit-learn's OrthogonalMatchingPursuit.
    alpha : float, default 0.0
        A ridge, for features that nearly depend on each other.
    fit_intercept : bool, default True
        Whether b is fitted; else it is 0.
    max_rounds : int, default 10
        The most rounds of exchanges.

    Attributes
    ----------
    coef_ : array (p,), or (q, p) for targets (N, q)
        v, in the dtype of X.
    intercept_ : float, or array (q,)
        b.
    certificate_ : Certificate
        The loss, a sum over rows, and the KKT residual on the support, of all targets together.
    swap_optimal_ : bool
        Whether it is known that no exchange of one coefficient helps, of any target.
    n_features_in_ : int
        p.
    feature_names_in_ : array (p,)
        Names of the columns, where X has some.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers.regression import L0Regression
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 8))
    >>> model = L0Regression(2).fit(X, X @ [3, 0, 0, -2, 0, 0, 0, 0] + 7)
    >>> model.coef_.round(6).tolist(), round(float(model.intercept_), 6)
    ([3.0, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0], 7.0)
    """

    def __init__(
        self,
        n_nonzero_coefs: int | None = None,
        *,
        alpha: float = 0.0,
        fit_intercept: bool = True,
        max_rounds: int = 10,
    ) -> None:
        self.n_nonzero_coefs = n_nonzero_coefs
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.max_rounds = max_rounds

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to inputs X (N, p), dense or sparse, targets y (N,) or (N, q), and weights of rows (N,) or None."""
        X, y, weights = checked_rows(self, X, y, sample_weight)
        width = X.shape[1]
        kept = max(1, width // 10) if self.n_nonzero_coefs is None else self.n_nonzero_coefs
        if not 1 <= kept <= width:
            raise ValueError(f"n_nonzero_coefs must be from 1 to the number of features, {width}, but is {kept}")
        if not 0 <= self.alpha < float("inf"):
            raise ValueError(f"alpha must be finite and at least zero but is {self.alpha}")
        shared = SharedGram.of(TargetData.of(X, y, weights), self.fit_intercept)
        ridge = shared.n * self.alpha
        problem, pattern = shared.problem.ridged(ridge), TopK(1 - kept / width, per_row=True)
        found = exchange_weights(problem, pattern, l0_admm(problem, pattern).weights, rounds=self.max_rounds)
        coefficients = found.weights.astype(X.dtype)
        exact = coefficients.astype(np.float64)
        self.certificate_ = certify(shared.at(exact).ridged(ridge), Support(exact != 0), exact)
        self.swap_optimal_ = found.detail["swap_optimal"] == 1
        self.keep(shared, coefficients, y.ndim == 1)
        return self
