"""FISTA: accelerated proximal gradient with restart (Beck and Teboulle 2009; FISTAPruner Eq. 4)."""

from __future__ import annotations

from dataclasses import dataclass

from gramian.solvers.backend._xp import Array, full, namespace
from gramian.solvers.backend.options import flag
from gramian.solvers.backend.threads import by_rows
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.core.terms import Term
from gramian.solvers.l1.fused import proximal_step

__all__ = ["FISTA", "advanced"]


@dataclass(frozen=True, eq=False)
class FistaState:
    """Hold what FISTA carries from step to step."""

    point: Array  # x_k, the prox point: exactly sparse, and the one that is returned
    ahead: Array  # y_k, where the next gradient is taken
    momentum: Array  # t_k, (q, 1): every row runs its own


@dataclass(frozen=True)
class FISTA:
    """argmin_V f(V) + h(V), by accelerated proximal gradient steps with restart

        x_{k+1} = prox_{h/L}(y_k - grad f(y_k) / L),   t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2,
        y_{k+1} = x_{k+1} + (t_k - 1) / t_{k+1} (x_{k+1} - x_k),

    with objective - optimum <= 2 L |x_0 - x*|^2 / (k + 1)^2 when `restart` is off. It is a `Solver` for `solve`.

    Parameters
    ----------
    restart : bool, default True
        A row whose momentum points uphill (<y_k - x_{k+1}, x_{k+1} - x_k> > 0, O'Donoghue and Candes 2015) starts its
        momentum anew. Rows are separate problems, so each decides for itself.
    scaled : bool, default False
        The step of channel j is 1 / (L' G_jj), where L' bounds the largest eigenvalue of the unit-diagonal Gram. This is the
        same iteration as in coordinates v'_j = v_j sqrt(G_jj), for the same problem. On layers, whose channels differ much in
        size, it needs 3 to 10 times fewer steps; the bound above then holds with L' and the norm of v'.
        The term must have the proximal map of such a step, in the metric 1 / step, and say so with `channel_steps = True`.
    split : bool, default False
        Whether gradients of float32 problems are formed by three products of TF32 operands, within 3 * 2^-22 |V - W| |G|
        (`Quadratic.split_gradient`), for GPUs whose tensor cores do that in less time than one product in float32. Certificates
        are computed in float64 either way.

    Notes
    -----
    There are two departures from FISTAPruner's Eq. (4) as printed. Its (4d) takes the momentum from the extrapolated point,
    which loses the O(1/k^2) rate (counterexample: G = diag(1, 1/800)); here it is taken between prox points. And it returns
    the extrapolated point, which has no exact zeros; here the prox point is returned. The gradient uses X* on both
    sides, where (4a) prints X once, so that error correction has an effect.

    References
    ----------
    Beck and Teboulle 2009; FISTAPruner, Eq. (4).

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import FISTA, L1, Quadratic, solve
    >>> problem = Quadratic(np.eye(2), np.array([[3.0, 0.5]]))
    >>> solution = solve(problem, L1(1.0), FISTA(scaled=True))
    >>> solution.weights.round(4).tolist(), solution.status.name
    ([[2.0, 0.0]], 'CONVERGED')
    """

    restart: bool = True
    scaled: bool = False
    split: bool = False

    def __post_init__(self) -> None:
        for name in ("restart", "scaled", "split"):
            object.__setattr__(self, name, flag(name, getattr(self, name)))

    def init(self, problem: Quadratic, term: Term, start: Array) -> FistaState:
        """Return the state at `start`, without momentum; TypeError is raised for a scaled step of a term that has none."""
        if self.scaled and not getattr(term, "channel_steps", False):
            name = type(term).__name__
            raise TypeError(
                f"FISTA(scaled=True) takes a step per channel but {name} does not say channel_steps = True: if its prox is "
                "that in the metric 1 / step for a step (p,), say so, else use FISTA()"
            )
        return FistaState(start, start, full((problem.shape[0], 1), 1.0, problem.anchor))

    def step(self, problem: Quadratic, term: Term, state: FistaState) -> FistaState:
        """Return the state after one step."""
        lipschitz = problem.unit_lipschitz if self.scaled else problem.lipschitz
        step = 1 / lipschitz if lipschitz > 0 else 1.0  # G = 0: any step, the gradient is zero
        steps = step / problem.unit_scale**2 if self.scaled else step
        split = self.split and problem.anchor.dtype == namespace(problem.anchor).float32
        gradient = problem.split_gradient(state.ahead) if split else problem.gradient(state.ahead)
        return FistaState(*proximal_step(term, state.ahead, gradient, state.point, state.momentum, steps, restart=self.restart))

    def weights(self, state: FistaState) -> Array:
        """Return x_k, which is exactly sparse."""
        return state.point


def advanced(problem: Quadratic, term: Term, start: Array, steps: int, solver: FISTA) -> Array:
    """Return x_k after `steps` steps from `start`; on a CPU some rows at a time, on every thread.

    term: one whose weights are the same for every row. Rows are separate problems, so that nothing else changes.
    """

    def run(rows: slice) -> Array:
        part = problem.part(rows)
        state = solver.init(part, term, start[rows, :])
        for _ in range(steps):
            state = solver.step(part, term, state)
        return solver.weights(state)

    _ = problem.unit_lipschitz if solver.scaled else problem.lipschitz  # which parts then know
    if solver.split:
        _ = problem.halves
    return by_rows(run, problem.anchor, steps * problem.shape[0] * problem.shape[1] ** 2)
