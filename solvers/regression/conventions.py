"""What the estimators share of scikit-learn's conventions: data checked on the way in, attributes on the way out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted, validate_data

from gramian.solvers.core.certificate import Certificate
from gramian.solvers.core.solution import Solution, Status
from gramian.solvers.regression.shared_gram import SharedGram

__all__ = ["LinearEstimator", "check_limits", "checked_rows", "warn_unless_converged"]

FLOATS, SPARSE = [np.float64, np.float32], ["csr", "csc", "coo"]


class LinearEstimator(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Predict `X coef_^T + intercept_`."""

    coef_: np.ndarray
    intercept_: Any
    certificate_: Certificate

    def predict(self, X: Any) -> np.ndarray:
        """Return predictions (N,), or (N, q) where the targets were a matrix, for inputs X (N, p)."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=SPARSE, dtype=FLOATS, reset=False)
        found: np.ndarray = safe_sparse_dot(X, self.coef_.T) + self.intercept_
        return found

    def __sklearn_tags__(self) -> Any:
        """Say that X may be sparse."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def keep(self, shared: SharedGram, weights: np.ndarray, single: bool) -> None:
        """Set `coef_` and `intercept_` of weights (q, p) as they are stored; with a single target they lose an axis."""
        intercepts = shared.moments.intercept(weights.astype(np.float64)).astype(weights.dtype)
        self.coef_ = weights[0] if single else weights
        self.intercept_ = (intercepts[0] if single else intercepts) if shared.intercept else 0.0


def checked_rows(estimator: LinearEstimator, X: Any, y: Any, sample_weight: Any) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """Return inputs, targets (N,) or (N, q) and weights (N,) or None, as scikit-learn checks them; X in float64 or float32."""
    X, y = validate_data(estimator, X, y, accept_sparse=SPARSE, dtype=FLOATS, multi_output=True, y_numeric=True)
    y = check_array(y, ensure_2d=False, dtype=FLOATS, input_name="y")
    if sample_weight is None or isinstance(sample_weight, Real):  # one weight for all rows changes nothing
        return X, y, None
    return X, y, _check_sample_weight(sample_weight, X, dtype=np.float64)


def check_limits(tol: float, max_iter: int) -> None:
    """Raise ValueError for numbers out of range."""
    if not (isinstance(tol, Real) and tol >= 0):
        raise ValueError(f"tol must be at least zero but is {tol!r}")
    if not (isinstance(max_iter, Integral) and max_iter >= 1):
        raise ValueError(f"max_iter must be a whole number of at least one but is {max_iter!r}")


def warn_unless_converged(solutions: Sequence[Solution], tol: float) -> None:
    """Give scikit-learn's warning, once, where certificates did not meet the tolerance."""
    short = [solution for solution in solutions if solution.status in (Status.STEP_LIMIT, Status.BROKEN)]
    if short:
        worst = max(short, key=lambda solution: solution.certificate.measure)
        which = f", in {len(short)} of {len(solutions)} fits" if len(solutions) > 1 else ""
        warnings.warn(
            "Objective did not converge. You might want to increase the number of iterations. Relative duality gap: "
            f"{worst.certificate.measure:.2g}, tolerance: {tol:.2g}, after {worst.steps} steps{which}.",
            ConvergenceWarning,
            stacklevel=3,
        )
