"""Our estimators, with their own tolerances, under the names and options of scikit-learn's, for its own tests.

Options that choose among scikit-learn's ways of solving (`precompute`, `selection`, `random_state`, `copy_X`, `check_input`,
`n_jobs`, `verbose`) are accepted and change nothing. What makes use of ours is counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from gramian.solvers import regression

USED: Counter[str] = Counter()


class ElasticNet(regression.ElasticNet):
    def __init__(
        self,
        alpha=1.0,
        *,
        l1_ratio=0.5,
        fit_intercept=True,
        precompute=False,
        max_iter=10_000,
        copy_X=True,
        tol=1e-12,
        warm_start=False,
        positive=False,
        random_state=None,
        selection="cyclic",
    ):
        super().__init__(
            alpha,
            l1_ratio=l1_ratio,
            fit_intercept=fit_intercept,
            positive=positive,
            warm_start=warm_start,
            max_iter=max_iter,
            tol=tol,
        )
        self.precompute, self.copy_X, self.random_state, self.selection = precompute, copy_X, random_state, selection

    def fit(self, X, y, sample_weight=None, check_input=True):
        USED["ElasticNet"] += 1
        return super().fit(X, y, sample_weight)


class Lasso(regression.Lasso):
    def __init__(
        self,
        alpha=1.0,
        *,
        fit_intercept=True,
        precompute=False,
        copy_X=True,
        max_iter=10_000,
        tol=1e-12,
        warm_start=False,
        positive=False,
        random_state=None,
        selection="cyclic",
    ):
        super().__init__(
            alpha, fit_intercept=fit_intercept, positive=positive, warm_start=warm_start, max_iter=max_iter, tol=tol
        )
        self.precompute, self.copy_X, self.random_state, self.selection = precompute, copy_X, random_state, selection

    def fit(self, X, y, sample_weight=None, check_input=True):
        USED["Lasso"] += 1
        return super().fit(X, y, sample_weight)


class ElasticNetCV(regression.ElasticNetCV):
    def __init__(
        self,
        *,
        l1_ratio=0.5,
        eps=1e-3,
        alphas=100,
        fit_intercept=True,
        precompute="auto",
        max_iter=10_000,
        tol=1e-12,
        cv=None,
        copy_X=True,
        verbose=0,
        n_jobs=None,
        positive=False,
        random_state=None,
        selection="cyclic",
    ):
        super().__init__(
            l1_ratio=l1_ratio,
            eps=eps,
            alphas=alphas,
            fit_intercept=fit_intercept,
            positive=positive,
            cv=cv,
            max_iter=max_iter,
            tol=tol,
        )
        self.precompute, self.copy_X, self.random_state, self.selection = precompute, copy_X, random_state, selection
        self.n_jobs, self.verbose = n_jobs, verbose

    def fit(self, X, y, sample_weight=None):
        USED["ElasticNetCV"] += 1
        return super().fit(X, y, sample_weight)


class LassoCV(regression.LassoCV):
    def __init__(
        self,
        *,
        eps=1e-3,
        alphas=100,
        fit_intercept=True,
        precompute="auto",
        max_iter=10_000,
        tol=1e-12,
        copy_X=True,
        cv=None,
        verbose=False,
        n_jobs=None,
        positive=False,
        random_state=None,
        selection="cyclic",
    ):
        super().__init__(
            eps=eps, alphas=alphas, fit_intercept=fit_intercept, positive=positive, cv=cv, max_iter=max_iter, tol=tol
        )
        self.precompute, self.copy_X, self.random_state, self.selection = precompute, copy_X, random_state, selection
        self.n_jobs, self.verbose = n_jobs, verbose

    def fit(self, X, y, sample_weight=None):
        USED["LassoCV"] += 1
        return super().fit(X, y, sample_weight)


def enet_path(
    X,
    y,
    *,
    l1_ratio=0.5,
    eps=1e-3,
    alphas=100,
    precompute="auto",
    copy_X=True,
    positive=False,
    check_input=True,
    max_iter=10_000,
    tol=1e-12,
) -> Any:
    """(alphas, coefficients, gaps), without an intercept."""
    USED["enet_path"] += 1
    path = regression.elastic_net_path(
        X, y, l1_ratio=l1_ratio, eps=eps, alphas=alphas, fit_intercept=False, positive=positive, max_iter=max_iter, tol=tol
    )
    return path.alphas, path.coefficients, path.dual_gaps


def lasso_path(X, y, **options) -> Any:
    """The same for the Lasso."""
    return enet_path(X, y, l1_ratio=1.0, **options)


OURS = (ElasticNet, ElasticNetCV, Lasso, LassoCV, enet_path, lasso_path)
