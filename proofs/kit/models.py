"""The convex problems of the toolkit as models of cvxpy, and their combinatorial counterparts by trying everything.

They are written from the data, by definition, and use nothing of the solvers. The models return minima: compare those, never
minimisers. (The LASSO stands in `references` as `cvxpy_lasso`, with an exact enumeration beside it.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from gramian.proofs.kit.convex import cvxpy, minimum
from gramian.proofs.kit.references import support_least_squares

__all__ = ["Masked", "best_mask", "best_of_all_supports", "cvxpy_least_squares", "cvxpy_masks"]


def cvxpy_least_squares(
    inputs: np.ndarray,
    outputs: np.ndarray,
    *,
    support: np.ndarray | None = None,
    equalities: tuple[np.ndarray, np.ndarray] | None = None,
    ridge: tuple[np.ndarray, np.ndarray] | None = None,
) -> float:
    """min_V 1/2 |X V^T - Y|^2 + 1/2 sum_ij r_j (V_ij - W_ij)^2 subject to V = 0 off the support and V A^T = D.

    inputs: X (N, p). outputs: Y (N, q). support: boolean (q, p). equalities: A (m, p) and D (q, m). ridge: r (p,), W (q, p).
    """
    cp = cvxpy()
    weights = cp.Variable((outputs.shape[1], inputs.shape[1]))
    loss = 0.5 * cp.sum_squares(inputs @ weights.T - outputs)
    limits = [] if support is None else [cp.multiply(weights, ~support) == 0]
    if equalities is not None:
        limits.append(weights @ equalities[0].T == equalities[1])
    if ridge is not None:
        loss = loss + 0.5 * cp.sum_squares((weights - ridge[1]) @ np.diag(np.sqrt(ridge[0])))
    return minimum(loss, limits)


class Masked(NamedTuple):
    """One module whose units are to be masked. inputs: X (N, p). weight: W (q, p). outputs: Y (N, q). cost: that of each of
    its units (m,), of p / m consecutive channels each. scale: the importance of the module, divided by what its loss is
    relative to."""

    inputs: np.ndarray
    weight: np.ndarray
    outputs: np.ndarray
    cost: np.ndarray
    scale: float = 1.0


def cvxpy_masks(modules: Sequence[Masked], budget: float, penalty: float = float("inf"), box: bool = True) -> float:
    """min_z sum_m scale_m / 2 |X_m diag(z_m) W_m^T - Y_m|^2 subject to sum_m <c_m, z_m> = budget, and 0 <= z <= 1 with `box`.

    penalty: the price of half the squared excess over the budget, which stands in place of the constraint where it is finite.
    """
    cp = cvxpy()
    total = float(sum(np.sum(module.cost) for module in modules))
    size = sum(module.scale * float(np.sum(module.outputs**2)) for module in modules) or 1.0  # keeps numbers near one
    loss: Any = 0.0
    spent: Any = 0.0
    limits: list[Any] = []
    for module in modules:
        units, channels = len(module.cost), module.weight.shape[1]
        mask = cp.Variable(units)
        spread = np.kron(np.eye(units), np.ones((channels // units, 1))) @ mask
        root = np.sqrt(module.scale / size)
        for row, output in zip(module.weight, module.outputs.T):
            loss = loss + cp.sum_squares((root * module.inputs * row) @ spread - root * output)
        spent = spent + (module.cost / total) @ mask
        limits += [mask >= 0, mask <= 1] if box else []
    excess = spent - budget / total
    if penalty == float("inf"):
        limits.append(excess == 0)
    else:
        loss = loss + penalty * total**2 / size * cp.square(excess)
    return minimum(0.5 * loss, limits) * size


def best_mask(loss: Callable[[np.ndarray], float], cost: np.ndarray, budget: float) -> tuple[float, np.ndarray]:
    """Return the least loss(z) over 0/1 masks z (m,) with <c, z> <= budget, and the first mask that has it; all 2^m are
    tried."""
    masks = np.array(list(product((0.0, 1.0), repeat=len(cost))))
    within = masks[masks @ cost <= budget * (1 + 1e-12)]
    losses = [loss(mask) for mask in within]
    first = int(np.argmin(losses))
    return float(losses[first]), within[first]


def best_of_all_supports(inputs: np.ndarray, outputs: np.ndarray, admits: Callable[[np.ndarray], Any]) -> float:
    """Return the least 1/2 |X V^T - Y|^2 over V (q, p) whose support `admits` accepts; all 2^(q p) are tried, so keep q p <=
    12."""
    rows, width = outputs.shape[1], inputs.shape[1]
    lines = list(product((True, False), repeat=width))
    losses = []  # by row, then by its support
    for row in range(rows):
        alone = outputs[:, row : row + 1]
        losses.append([support_least_squares(inputs, alone, np.array([line]))[1] for line in lines])
    least = np.inf
    for choice in product(range(len(lines)), repeat=rows):
        if admits(np.array([lines[k] for k in choice])):
            least = min(least, sum(losses[row][k] for row, k in enumerate(choice)))
    return float(least)
