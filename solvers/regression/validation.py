"""Lasso and elastic net whose alpha is chosen by cross-validation, with scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from sklearn.model_selection import check_cv

from gramian.solvers.core.solution import Solution
from gramian.solvers.core.target_rows import TargetData
from gramian.solvers.core.targets import TargetMoments, moments_of
from gramian.solvers.regression.conventions import LinearEstimator, check_limits, checked_rows, warn_unless_converged
from gramian.solvers.regression.shared_gram import Penalty, SharedGram, alpha_grid

__all__ = ["ElasticNetCV", "LassoCV"]

HELD_BYTES = 2**30  # that the Gram matrices of all folds may take; more of them are formed from rows, fold by fold

Folds = Sequence[tuple[np.ndarray, np.ndarray]]  # indices of rows to fit, and of rows to aside by


class ElasticNetCV(LinearEstimator):
    """`ElasticNet` at the alpha and l1_ratio of least mean squared error on rows left out, averaged over folds

    Every target chooses its own from a common grid. Where the folds are parts of the rows, each of which is left out once,
    their Gram matrices are formed once: those of all other folds add up to what a fold is fitted on.

    Parameters
    ----------
    l1_ratio : float or sequence of float, default 0.5
        As of `ElasticNet`; of several the best is chosen.
    eps : float, default 1e-3
        The last alpha of a grid, relative to the first.
    alphas : int or sequence of float, default 100
        How many, from the least at which all coefficients are zero; or which ones.
    fit_intercept, positive : bool
        As of `ElasticNet`.
    cv : int, splitter, iterable or None
        As of scikit-learn; None is five folds.
    max_iter : int, default 10000
        The most steps at each alpha.
    tol : float, default 1e-12
        As of `ElasticNet`.

    Attributes
    ----------
    alpha_, l1_ratio_ : float, or array (q,)
        What was chosen.
    alphas_ : array (a,), or (r, a) for r values of l1_ratio
        The grid, largest first.
    mse_path_ : array (a, folds), (r, a, folds), and with a first axis (q,) for targets (N, q)
        The mean squared error on the rows left out.
    coef_ : array (p,), or (q, p) for targets (N, q)
        v, in the dtype of X, fitted to all rows.
    intercept_ : float, or array (q,)
        b.
    dual_gap_ : float, or array (q,)
        An upper bound of objective - optimum, of the coefficients as they are stored.
    n_iter_ : int
        Steps of the solver in that fit, of all targets.
    n_features_in_ : int
        p.
    feature_names_in_ : array (p,)
        Names of the columns, where X has some.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers.regression import ElasticNetCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 5))
    >>> model = ElasticNetCV(l1_ratio=[0.5, 1.0], alphas=10).fit(X, X @ [3, -2, 0, 0, 0] + rng.normal(size=100))
    >>> model.mse_path_.shape, int((model.coef_ != 0).sum()) >= 2
    ((2, 10, 5), True)
    """

    def __init__(
        self,
        *,
        l1_ratio: float | Sequence[float] = 0.5,
        eps: float = 1e-3,
        alphas: int | Sequence[float] = 100,
        fit_intercept: bool = True,
        positive: bool = False,
        cv: Any = None,
        max_iter: int = 10_000,
        tol: float = 1e-12,
    ) -> None:
        self.l1_ratio = l1_ratio
        self.eps = eps
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.cv = cv
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to inputs X (N, p), dense or sparse, targets y (N,) or (N, q), and weights of rows (N,) or None."""
        self.l1_ratio_ = chosen(self, np.atleast_1d(self.l1_ratio), X, y, sample_weight)
        return self


class LassoCV(LinearEstimator):
    """`Lasso` at the alpha of least mean squared error on rows left out, averaged over folds

    This is `ElasticNetCV` with l1_ratio = 1, which says more.

    Parameters
    ----------
    eps : float, default 1e-3
        The last alpha of a grid, relative to the first.
    alphas : int or sequence of float, default 100
        How many, from the least at which all coefficients are zero; or which ones.
    fit_intercept, positive : bool
        As of `Lasso`.
    cv : int, splitter, iterable or None
        As of scikit-learn; None is five folds.
    max_iter : int, default 10000
        The most steps at each alpha.
    tol : float, default 1e-12
        As of `Lasso`.

    Attributes
    ----------
    alpha_ : float, or array (q,)
        What was chosen.
    alphas_ : array (a,)
        The grid, largest first.
    mse_path_ : array (a, folds), or (q, a, folds) for targets (N, q)
        The mean squared error on the rows left out.
    coef_ : array (p,), or (q, p) for targets (N, q)
        v, in the dtype of X, fitted to all rows.
    intercept_ : float, or array (q,)
        b.
    dual_gap_ : float, or array (q,)
        An upper bound of objective - optimum, of the coefficients as they are stored.
    n_iter_ : int
        Steps of the solver in that fit, of all targets.
    n_features_in_ : int
        p.
    feature_names_in_ : array (p,)
        Names of the columns, where X has some.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers.regression import LassoCV
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 5))
    >>> model = LassoCV(alphas=10).fit(X, X @ [3, -2, 0, 0, 0] + rng.normal(size=100))
    >>> model.mse_path_.shape, int((model.coef_ != 0).sum()) >= 2
    ((10, 5), True)
    """

    def __init__(
        self,
        *,
        eps: float = 1e-3,
        alphas: int | Sequence[float] = 100,
        fit_intercept: bool = True,
        positive: bool = False,
        cv: Any = None,
        max_iter: int = 10_000,
        tol: float = 1e-12,
    ) -> None:
        self.eps = eps
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.cv = cv
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to inputs X (N, p), dense or sparse, targets y (N,) or (N, q), and weights of rows (N,) or None."""
        chosen(self, np.ones(1), X, y, sample_weight)
        return self


Estimator = Any  # an estimator of the settings above; scikit-learn has no types


def chosen(estimator: Estimator, ratios: np.ndarray, X: Any, y: Any, sample_weight: Any) -> Any:
    """Fit the estimator at the best alpha of the best l1_ratio, and return that ratio, of one target or of each."""
    check_limits(estimator.tol, estimator.max_iter)
    X, y, weights = checked_rows(estimator, X, y, sample_weight)
    grid = given_alphas(estimator.alphas)
    single = y.ndim == 1
    folds = list(check_cv(estimator.cv).split(X, y))
    kept = np.arange(X.shape[0]) if weights is None else np.flatnonzero(weights > 0)
    data = TargetData.of(X, y, weights)
    folds = [(among(kept, fit), among(kept, aside)) for fit, aside in folds]
    moments, fitted_moments = shared_moments(data, folds)
    shared = SharedGram.of(data, estimator.fit_intercept, moments)
    grids = [
        alpha_grid(shared, estimator.alphas, float(ratio), estimator.eps, estimator.positive) if grid is None else grid
        for ratio in ratios
    ]
    penalties = [
        [Penalty(float(alpha), float(ratio), estimator.positive) for alpha in alphas] for ratio, alphas in zip(ratios, grids)
    ]
    solutions: list[Solution] = []
    errors = np.stack(
        [
            fold_errors(
                SharedGram.of(data.rows(fit), estimator.fit_intercept, part), data.rows(aside), penalties, estimator, solutions
            )
            for (fit, aside), part in zip(folds, fitted_moments)
        ],
        axis=-1,
    )  # targets, ratios, alphas, folds
    means = errors.mean(axis=-1).reshape(len(errors), -1)
    best = np.argmin(means, axis=1)
    flat = [penalty for along in penalties for penalty in along]
    coefficients, gaps, steps = np.zeros(shared.problem.shape), np.zeros(len(errors)), 0
    for place in np.unique(best):
        rows = np.flatnonzero(best == place)
        alone = SharedGram.of(data.targets_of(rows), estimator.fit_intercept, moments.targets_of(rows))
        solution = alone.solved(flat[place], None, estimator.tol, estimator.max_iter)
        coefficients[rows] = solution.weights.astype(X.dtype)
        gaps[rows] = alone.certified(coefficients[rows], flat[place])[1]
        steps += solution.steps + 1
        solutions.append(solution)
    warn_unless_converged(solutions, estimator.tol)
    estimator.n_iter_ = steps
    estimator.alphas_ = grids[0] if len(grids) == 1 or grid is not None else np.stack(grids)
    found = np.array([flat[place].alpha for place in best]), np.array([flat[place].l1_ratio for place in best])
    errors = errors[:, 0] if len(ratios) == 1 else errors
    estimator.alpha_, ratio, estimator.mse_path_ = (each[0] if single else each for each in (*found, errors))
    estimator.dual_gap_ = gaps[0] / shared.n if single else gaps / shared.n
    estimator.keep(shared, coefficients.astype(X.dtype), single)
    return ratio


def given_alphas(alphas: int | Sequence[float]) -> np.ndarray | None:
    """Return alphas in falling order, or None where only their number is given."""
    if isinstance(alphas, int | np.integer):
        if alphas < 1:
            raise ValueError(f"there must be at least one alpha but alphas is {alphas}")
        return None
    for place, alpha in enumerate(alphas):
        if not isinstance(alpha, int | float | np.number):
            raise TypeError(f"alphas[{place}] must be an instance of float, not {type(alpha).__name__}")
        if not alpha >= 0:
            raise ValueError(f"alphas[{place}] == {alpha}, must be >= 0.0.")
    return np.sort(np.asarray(alphas, dtype=np.float64))[::-1]


def among(kept: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return where rows are among those that are kept, without those that are not."""
    place = np.searchsorted(kept, rows)
    place = np.minimum(place, kept.size - 1)
    return np.asarray(place[kept[place] == rows])


def shared_moments(data: TargetData, folds: Folds) -> tuple[TargetMoments, Iterator[TargetMoments]]:
    """Return the moments of all rows, and for every fold those of the rows that it is fitted on.

    Where every row is left out once and else fitted on, they are sums of the moments of folds; else each has its own pass over
    the rows. Moments are added and never subtracted, which would leave rounding of what was large.
    """
    count = data.targets.shape[0]
    left_out = np.concatenate([aside for _, aside in folds]) if folds else np.zeros(0, dtype=int)
    partition = left_out.size == count and np.unique(left_out).size == count
    whole = partition and all(
        fit.size + aside.size == count and np.intersect1d(fit, aside).size == 0 and np.unique(fit).size == fit.size
        for fit, aside in folds
    )
    if not whole or len(folds) < 2 or len(folds) * data.shape[1] ** 2 * 8 > HELD_BYTES:
        return moments_of(data), (moments_of(data.rows(fit)) for fit, _ in folds)
    parts = [moments_of(data.rows(aside)) for _, aside in folds]
    everything = TargetMoments(data.shape[1], data.shape[0])
    for part in parts:
        everything = everything.merged(part)
    return everything, all_but_one(parts, TargetMoments(data.shape[1], data.shape[0]))


def all_but_one(parts: Sequence[TargetMoments], others: TargetMoments) -> Iterator[TargetMoments]:
    """Iterate over the sums of others and all parts but one: k log k sums for k parts."""
    if len(parts) == 1:
        yield others
        return
    half = len(parts) // 2
    for inside, outside in ((parts[:half], parts[half:]), (parts[half:], parts[:half])):
        rest = others
        for part in outside:
            rest = rest.merged(part)
        yield from all_but_one(inside, rest)


def fold_errors(
    shared: SharedGram, left_out: TargetData, penalties: list[list[Penalty]], estimator: Estimator, solutions: list[Solution]
) -> np.ndarray:
    """Return mean squared errors on rows left out, (targets, ratios, alphas), and add to the solutions that they are of."""
    found = []
    for along in penalties:
        path = list(shared.path(along, None, estimator.tol, estimator.max_iter))
        found.append([squared_error(shared, left_out, solution.weights) for solution in path])
        solutions += path
    return np.moveaxis(np.array(found), 2, 0)


def squared_error(shared: SharedGram, left_out: TargetData, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean squared error of every target, (q,)."""
    intercepts = shared.moments.intercept(weights) if shared.intercept else np.zeros(len(weights))
    total, count = np.zeros(len(weights)), 0.0
    for rows, targets, each in left_out.blocks():
        squares = (rows.times(weights) + intercepts - targets) ** 2
        total += squares.sum(axis=0) if each is None else each @ squares
        count += len(targets) if each is None else each.sum()
    return np.asarray(total / count)
