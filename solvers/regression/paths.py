"""Coefficients along alpha."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gramian.extras import need
from gramian.solvers.core.target_rows import TargetData
from gramian.solvers.regression.conventions import LinearEstimator, check_limits, checked_rows, warn_unless_converged
from gramian.solvers.regression.shared_gram import Penalty, SharedGram, alpha_grid

__all__ = ["CoefficientPath", "elastic_net_path", "plot_path"]


@dataclass(frozen=True, eq=False)
class CoefficientPath:
    """Hold coefficients at every alpha of a path, largest first.

    Parameters
    ----------
    alphas : array (a,)
        The alphas.
    coefficients : array (p, a), or (q, p, a) for targets (N, q)
        v at each.
    intercepts : array (a,), or (q, a)
        b at each.
    dual_gaps : array (a,), or (q, a)
        Upper bounds of objective - optimum, in the units of `Lasso`.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers.regression import elastic_net_path
    >>> path = elastic_net_path(np.eye(3), [3.0, 1.0, 0.0], alphas=[0.5, 0.1], fit_intercept=False)
    >>> path.alphas.tolist(), path.coefficients.round(6).tolist()
    ([0.5, 0.1], [[1.5, 2.7], [0.0, 0.7], [0.0, 0.0]])
    """

    alphas: np.ndarray
    coefficients: np.ndarray
    intercepts: np.ndarray
    dual_gaps: np.ndarray


def elastic_net_path(
    X: Any,
    y: Any,
    *,
    l1_ratio: float = 1.0,
    alphas: int | Iterable[float] = 100,
    eps: float = 1e-3,
    fit_intercept: bool = True,
    positive: bool = False,
    sample_weight: Any = None,
    max_iter: int = 10_000,
    tol: float = 1e-12,
) -> CoefficientPath:
    """argmin_{v, b} of `ElasticNet` for every alpha, each started from the one before; by default of `Lasso`

    Parameters
    ----------
    X : array or sparse matrix (N, p)
        Inputs.
    y : array (N,) or (N, q)
        Targets, which share one Gram matrix.
    l1_ratio : float, default 1.0
        As of `ElasticNet`.
    alphas : int or iterable of float, default 100
        How many, from the least at which all coefficients of all targets are zero; or which ones.
    eps : float, default 1e-3
        The last of them, relative to the first.
    fit_intercept, positive : bool
        As of `ElasticNet`.
    sample_weight : array (N,), optional
        Weights of rows.
    max_iter : int, default 10000
        The most steps at each alpha.
    tol : float, default 1e-12
        As of `ElasticNet`.

    Returns
    -------
    CoefficientPath
        In order of falling alphas.

    Raises
    ------
    ValueError
        For numbers out of range, and for an l1_ratio of 0 without alphas.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers.regression import elastic_net_path
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 5))
    >>> path = elastic_net_path(X, X @ [3, -2, 0, 0, 0], alphas=4)
    >>> (path.coefficients != 0).sum(axis=0).tolist(), bool(path.dual_gaps.max() < 1e-6)
    ([0, 2, 2, 2], True)
    """
    check_limits(tol, max_iter)
    X, y, weights = checked_rows(LinearEstimator(), X, y, sample_weight)
    shared = SharedGram.of(TargetData.of(X, y, weights), fit_intercept)
    if isinstance(alphas, int):
        chosen = alpha_grid(shared, alphas, l1_ratio, eps, positive)
    else:
        chosen = np.sort(np.asarray(list(alphas), dtype=np.float64))[::-1]
    penalties = [Penalty(float(alpha), l1_ratio, positive) for alpha in chosen]
    solutions = list(shared.path(penalties, None, tol, max_iter))
    warn_unless_converged(solutions, tol)
    found = [solution.weights for solution in solutions]
    gaps = np.stack([shared.certified(weights, each)[1] for weights, each in zip(found, penalties)], axis=-1) / shared.n
    coefficients = np.stack(found, axis=-1)
    intercepts = np.stack([shared.moments.intercept(weights) * fit_intercept for weights in found], axis=-1)
    if y.ndim == 1:
        coefficients, intercepts, gaps = coefficients[0], intercepts[0], gaps[0]
    return CoefficientPath(chosen, coefficients, intercepts, gaps)


def plot_path(path: CoefficientPath, *, target: int = 0, names: Iterable[str] | None = None, axes: Any = None) -> Any:
    """Draw every coefficient that is ever nonzero against alpha, which falls from left to right on a logarithmic axis

    Parameters
    ----------
    path : CoefficientPath
        What to draw.
    target : int, default 0
        Whose coefficients, where there are several targets.
    names : iterable of str, optional
        Names of the features, for a legend.
    axes : matplotlib Axes, optional
        Where to draw; None for a new figure.

    Returns
    -------
    matplotlib Axes
        With one line for each of those coefficients.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers.regression import elastic_net_path
    >>> path = elastic_net_path(np.eye(3), [3.0, 1.0, 0.0], alphas=[0.5, 0.1], fit_intercept=False)
    >>> path.coefficients.shape  # then plot_path(path).figure.savefig("path.svg")
    (3, 2)
    """
    need("report", ("matplotlib",), "plot_path")
    from matplotlib.figure import Figure

    axes = Figure().add_subplot() if axes is None else axes
    coefficients = path.coefficients if path.coefficients.ndim == 2 else path.coefficients[target]
    labels = list(names) if names is not None else None
    for feature in np.flatnonzero((coefficients != 0).any(axis=1)):
        axes.plot(path.alphas, coefficients[feature], label=None if labels is None else labels[feature])
    axes.set_xscale("log")
    axes.set_xlim(path.alphas.max(), path.alphas.min())
    axes.set_xlabel("alpha")
    axes.set_ylabel("coefficient")
    if labels is not None:
        axes.legend()
    return axes
