"""Mask problems that more than one test file needs."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.strategies import Layer
from gramian.solvers.units.mask import MaskProblem


def from_matrix(xp, matrix, linear=None, cost=None) -> MaskProblem:
    """The problem of this A, b = 0 and c = 1 by default."""
    matrix = np.array(matrix, dtype=float)
    linear = np.zeros(matrix.shape[0]) if linear is None else np.array(linear, dtype=float)
    cost = np.ones(matrix.shape[0]) if cost is None else np.array(cost, dtype=float)
    return MaskProblem(xp.asarray(matrix), xp.asarray(linear), 0.0, xp.asarray(cost))


def from_paper(xp, inputs, weight) -> MaskProblem:
    """The problem of the paper's X (N, D) and W (D, D'), or a vector for D' = 1."""
    inputs, weight = np.array(inputs, dtype=float), np.array(weight, dtype=float)
    weight = weight[:, None] if weight.ndim == 1 else weight
    return MaskProblem.from_problem(Layer(inputs, weight.T.copy()).problem(xp))


def all_masks(width: int) -> np.ndarray:
    """Every 0/1 mask, (2^m, m), as numbers."""
    return np.array(list(product((0.0, 1.0), repeat=width)))


def costs(data, width: int) -> np.ndarray:
    unit = data.draw(st.sampled_from([1.0, 1e6, 1e-3]), label="unit of cost")
    return unit * np.array(data.draw(st.lists(st.sampled_from([1.0, 1.0, 2.0, 170.0]), min_size=width, max_size=width)))


def absolute(problem: MaskProblem, relative: float) -> float:
    """A penalty given in units of the loss per squared total cost."""
    return relative * problem.size / problem.total**2 if problem.size > 0 else float("inf")
