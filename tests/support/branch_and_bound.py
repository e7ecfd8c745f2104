"""The best support of one row by branch and bound, whose nodes are smaller problems that `l0_bound` bounds."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

import numpy as np

from gramian.solvers import Quadratic, TopK, l0_bound


def without(problem: Quadratic, channel: int) -> Quadratic:
    """The problem of the other channels where v_j = 0."""
    rest, weight = np.arange(problem.shape[1]) != channel, problem.anchor[:, channel]
    slope, floor, across = start(problem)
    floor = floor - slope[:, channel] * weight + 0.5 * problem.gram[channel, channel] * weight**2
    slope = slope[:, rest] - weight[:, None] * across[channel, rest]
    return Quadratic(across[np.ix_(rest, rest)], problem.anchor[:, rest], slope, floor)


def keeping(problem: Quadratic, channel: int) -> Quadratic:
    """The problem of the other channels where v_j is the best for them."""
    rest, own = np.arange(problem.shape[1]) != channel, problem.gram[channel, channel]
    slope, floor, across = start(problem)
    floor = floor - slope[:, channel] ** 2 / (2 * own)
    slope = slope[:, rest] - slope[:, channel, None] * across[channel, rest] / own
    gram = across[np.ix_(rest, rest)] - np.outer(across[channel, rest], across[channel, rest]) / own
    return Quadratic(gram, problem.anchor[:, rest], slope, floor)


def start(problem: Quadratic) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    slope = np.zeros_like(problem.anchor) if problem.slope is None else problem.slope
    floor = np.zeros(len(problem.anchor)) if problem.floor is None else problem.floor
    return slope, floor, problem.gram


def least_on(problem: Quadratic, kept: np.ndarray) -> float:
    """min f over one row v that is zero off the channels `kept`."""
    energy, gradient = problem.at_zero
    right = gradient[0, kept]
    return float(energy[0] - 0.5 * right @ np.linalg.solve(problem.gram[np.ix_(kept, kept)], right))


def best_row(problem: Quadratic, kept: int, *, steps: int = 40, tolerance: float = 1e-9) -> tuple[float, int]:
    """min f over one row with `kept` weights at most, to the tolerance times f(0), and how many nodes it took.

    The node whose bound is least comes first. A channel is decided at a node: kept, which its best weight takes out of the
    problem (a Schur complement), or pruned. Every node tries the support of the largest weights of its dual point.
    """
    nodes, order, best = 0, count(), np.inf
    slack = tolerance * float(problem.at_zero[0][0])
    heap = [(-np.inf, next(order), problem, kept)]
    while heap and heap[0][0] < best - slack:
        _, _, node, places = heappop(heap)
        width = node.shape[1]
        nodes += 1
        if places in (0, width):
            best = min(best, least_on(node, np.arange(width)[:places]))
            continue
        bound = l0_bound(node, TopK(1 - places / width), steps=steps, splits=1)
        size = np.abs(bound.point[0]) * np.sqrt(node.diagonal)
        best = min(best, least_on(node, np.sort(np.argsort(-size)[:places])))
        if bound.total >= best - slack:
            continue
        channel = int(np.argsort(-size)[places - 1])  # the least certain of what would be kept
        heappush(heap, (bound.total, next(order), keeping(node, channel), places - 1))
        heappush(heap, (bound.total, next(order), without(node, channel), places))
    return best, nodes
