"""The order of hidden channels, which a model does not notice, chosen for n:m sparsity, which counts channels in groups of m.

A hidden channel is a row of the operators that produce it and a column of the one that consumes it. All of them in another
order compute the same, but groups of m consecutive inputs of the consumer hold other channels together.
"""

from __future__ import annotations

import numpy as np

from gramian.solvers.backend._xp import Array, assignment, device, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import whole
from gramian.solvers.core.patterns import NM
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.support.obs import DAMPING, inverse_factor

__all__ = ["channel_order", "kept_score", "removal_scores"]

ENOUGH = 1e-4  # of the score of all weights: a sweep that gains less ends the search


def removal_scores(problem: Quadratic) -> Array:
    """Return w_ij^2 / [(G + D)^-1]_jj, (q, p): what removing a weight costs where the others of its row make up for it.

    It is the score of optimal brain surgeon, with SparseGPT's damping D.
    """
    factor, _ = inverse_factor(problem, DAMPING)
    return problem.double.anchor**2 / namespace(factor).sum(factor**2, axis=0)


def kept_score(score: Array, pattern: NM) -> float:
    """Return what n:m keeps of scores (q, p): of every m consecutive entries of a row the n largest."""
    xp = namespace(score)
    groups = xp.reshape(score, (score.shape[0], -1, pattern.group))
    return float(xp.sum(xp.sort(groups, axis=2)[:, :, pattern.group - pattern.kept :]))


@computation
def channel_order(score: Array, pattern: NM, *, sweeps: int = 4, seed: int = 0) -> np.ndarray:
    """argmax over orders of the channels of what n:m keeps of their scores, locally, from the order as it is

    One channel of every group is taken out, and they are dealt to the groups anew, one to each, so that the most is kept: an
    assignment, solved exactly. To a group whose other channels have the scores t_1 >= t_2 >= ... in a row, a channel of score
    s brings max(t_n, s) beside t_1 + ... + t_(n-1), so that the value of an assignment is a sum over its pairs. What was there
    is one of the assignments, and what is kept never falls. A sweep is m rounds, each with channels drawn anew.

    Parameters
    ----------
    score : array (q, p)
        What it costs to lose each weight, at least zero; p is a multiple of m.
    pattern : NM
        n of m.
    sweeps : int, default 4
        How many at most; fewer where one gains less than 1e-4 of all scores.
    seed : int, default 0
        Which channels are drawn.

    Returns
    -------
    numpy array (p,)
        The number of the channel at every place, those of a group ascending; 0, 1, ... where no better order was found.

    References
    ----------
    Pool and Yu 2021 search by exchanges of channels between pairs of groups; rounds of assignments are those of
    gyro-permutation (Yu et al. 2024).
    """
    sweeps, seed = whole("sweeps", sweeps), whole("seed", seed, 0)
    pattern.check(tuple(score.shape))
    xp = namespace(score)
    size, kept = pattern.group, pattern.kept
    count = score.shape[1] // size
    order = np.arange(score.shape[1]).reshape(count, size)
    best, reached = order, kept_score(score, pattern)
    if count < 2 or kept == size:
        return order.reshape(-1)
    random, everything = np.random.default_rng(seed), float(xp.sum(score))
    for _ in range(sweeps):
        for _ in range(size):
            order = np.take_along_axis(order, random.random(order.shape).argsort(axis=1), axis=1)
            others = xp.reshape(columns(score, order[:, 1:]), (score.shape[0], count, size - 1))
            bar = xp.sort(others, axis=2)[:, :, size - 1 - kept]  # t_n in every row and group
            drawn = columns(score, order[:, 0])
            value = xp.stack([xp.sum(xp.maximum(drawn, bar[:, group][:, None]), axis=0) for group in range(count)])
            order = np.concatenate([order[assignment(value), :1], order[:, 1:]], axis=1)
        gain = kept_score(columns(score, order), pattern) - reached
        if gain <= ENOUGH * everything:  # rounding gains as well
            break
        best, reached = np.sort(order, axis=1), reached + gain
    return best.reshape(-1)


def columns(score: Array, places: np.ndarray) -> Array:
    """Return the columns at these places, in their order."""
    xp = namespace(score)
    return xp.take(score, xp.asarray(places.reshape(-1), device=device(score)), axis=1)
