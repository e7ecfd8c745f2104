"""Local search over supports from the answer of a method of choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gramian.solvers.backend.computing import computation
from gramian.solvers.core.patterns import PatternLike, counted_pattern
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.solution import Solution
from gramian.solvers.core.watch import Callback, watched
from gramian.solvers.support.exchange import check_search, watched_exchanges
from gramian.solvers.support.l0 import l0_admm
from gramian.solvers.support.lasso_rounding import fistapruner
from gramian.solvers.support.starts import STARTS, Start, check_choice

__all__ = ["exchange"]

BEGINNINGS: Mapping[str, Start] = {**STARTS, "l0": l0_admm, "fistapruner": fistapruner}


@computation
def exchange(
    problem: Quadratic,
    pattern: PatternLike,
    *,
    start: str = "sparsegpt",
    rounds: int = 10,
    candidates: int = 64,
    widest: int = 128,
    throw: bool = False,
    time_limit: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
) -> Solution:
    """min_V f(V) subject to V satisfying the pattern, by exchanges of kept weights for pruned ones from another method's answer

    This is `exchange_weights` from the weights of `start`, with the options that it has by default. All weights are refitted
    exactly on the support that the search ends with. The loss is at most that of the start, and at most that of the start's
    support refitted, but for 1e-12 of the loss at zero.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : TopK, NM, str or float
        Which masks are allowed; "2:4" and a sparsity will do.
    start : str, default "sparsegpt"
        The method that the search starts from: `magnitude`, `wanda`, `sparsegpt`, `l0` or `fistapruner`.
    rounds : int, default 10
        The most rounds, at least 0. In a round every row makes as many exchanges as its candidates offer.
    candidates : int, default 64
        The channels of a row among which exchanges are sought at first, at least 2.
    widest : int, default 128
        The most channels of a row among which exchanges are sought, at least `candidates`. Rows are known to be swap-optimal
        only where this is the number of channels or more.
    throw, time_limit, callback, progress : optional
        As of `solve`; the start counts, and is never cut short. Every round is a step, and a check.

    Returns
    -------
    Solution
        SWAP_OPTIMAL where no exchange helps, or else SEARCHED, TIME_LIMIT or STOPPED, with the KKT residual on the support,
        which is zero but for rounding, and (round, relative error) as its history. Its detail: `start_error`, the relative
        error of the start, and that of `exchange_weights`.

    Raises
    ------
    ValueError
        For a start that is none of these, for numbers out of range, and for a pattern that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, TopK, exchange, sparsegpt
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> solution = exchange(problem, TopK(0.5))
    >>> solution.certificate.objective < sparsegpt(problem, TopK(0.5)).certificate.objective, solution.status.label
    (True, 'swap optimal')
    """
    check_choice("start", start, BEGINNINGS)
    check_search(rounds, candidates, widest)
    pattern = counted_pattern(pattern, problem.shape, "exchange")
    with watched("exchange", rounds, "round", time_limit=time_limit, callback=callback, progress=progress) as watch:
        first = BEGINNINGS[start](problem, pattern)
        found = watched_exchanges(problem, pattern, first.weights, rounds, candidates, widest, watch)
    solution = replace(found, detail={**found.detail, "start_error": first.certificate.relative_error})
    return solution.required() if throw else solution
