"""Regressions with a ridge, a price of weights, and weights that may not be negative: what they are, and others' solvers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

EPOCHS = 20  # of scikit-learn, between looks at its answer where it has no criterion of its own
DISTRIBUTIONS = {"scipy": "scipy", "scikit-learn": "sklearn", "skglm": "skglm", "celer": "celer", "OSQP": "osqp"}
DISTRIBUTIONS |= {"Clarabel": "clarabel", "HiGHS": "highspy"}  # name: module


@dataclass(frozen=True)
class Model:
    """1/2 |R (v - w)|^2 + l1 |v|_1 + l2 / 2 |v|^2, over v >= 0 if `positive`."""

    l1: float
    l2: float
    positive: bool

    def objectives(self, design: Design, weight: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Per row, infinite where a weight is negative that may not be."""
        change = points - weight
        found = 0.5 * np.sum((change @ design.gram) * change, axis=1)
        found += self.l1 * np.abs(points).sum(axis=1) + 0.5 * self.l2 * np.sum(points**2, axis=1)
        return np.where(self.positive & np.any(points < 0, axis=1), np.inf, found)

    def bounds(self, design: Design, weight: np.ndarray, points: np.ndarray) -> np.ndarray:
        """What no row's objective can be less than, by weak duality at these points, from the Gram and the weights alone.

        For any u min_v f(v) + h(v) >= f(u) - <grad f(u), u> - h*(-grad f(u)). With a ridge h* is finite everywhere, and u is
        the point. Else u is the point with its residuals scaled, or, where weights are positive, moved along Z, Z G = E > 0.
        """
        gradient = (points - weight) @ design.gram
        losses = 0.5 * np.sum(gradient * (points - weight), axis=1)
        inner = np.sum(gradient * points, axis=1)
        pull = -gradient if self.positive else np.abs(gradient)
        if self.l2:
            return losses - inner - np.sum(np.maximum(pull - self.l1, 0) ** 2, axis=1) / (2 * self.l2)
        scale = np.minimum(1, self.l1 / np.maximum(pull.max(axis=1), 1e-300))
        bound = (2 * scale - scale**2) * losses - scale * inner
        if not self.positive:
            return bound
        direction, rise = design.lift
        height = np.maximum((pull - self.l1) / rise, 0).max(axis=1)
        return np.maximum(bound, losses - inner - height * (points @ rise) - 0.5 * height**2 * (direction @ rise))


class Design:
    """R of a Gram R^T R, which is factorised before anything is timed."""

    def __init__(self, gram: np.ndarray) -> None:
        self.gram = np.ascontiguousarray(gram)

    @cached_property
    def root(self) -> np.ndarray:
        """R (r, p), columns contiguous."""
        values, vectors = np.linalg.eigh(self.gram)
        kept = values > len(values) * np.finfo(float).eps * values[-1]
        return np.asfortranarray(np.sqrt(values[kept])[:, None] * vectors[:, kept].T)

    @cached_property
    def lift(self) -> tuple[np.ndarray, np.ndarray]:
        """Z with Z G of the size of the channels, and Z G."""
        norms = np.sqrt(np.diag(self.gram))
        live = np.flatnonzero(norms)
        scaled = self.gram[np.ix_(live, live)] / norms[live] / norms[live, None]
        direction, rise = np.zeros(len(norms)), np.ones(len(norms))  # the gradient of a dead channel is zero
        direction[live] = np.linalg.solve(scaled, np.ones(len(live))) / norms[live]
        rise[live] = direction @ self.gram[:, live]
        return direction, rise


@dataclass(frozen=True)
class Row:
    """A row to solve: its dense weights w, and of its optimum v the objective and |v|_1, from which tolerances come."""

    weight: np.ndarray
    objective: float
    norm: float


Solve = Callable[[Row, float], np.ndarray]  # (row, relative gap) -> v


def scipy(design: Design, model: Model) -> Solve | None:
    """Lawson and Hanson's active set, exact, for non-negative least squares alone; a ridge is rows of the design."""
    from scipy.optimize import nnls

    if not model.positive or model.l1 or model.l2:
        return None
    matrix = np.ascontiguousarray(design.root)
    return lambda row, gap: nnls(matrix, matrix @ row.weight, maxiter=100 * len(matrix))[0]


def scikit_learn(design: Design, model: Model) -> Solve:
    """The kernel of `ElasticNet(precompute=G, positive=...)` without its checks of arguments. Ends at a gap of tol |R w|^2.

    Without a price that gap is never finite. Then epochs are run until the answer's own objective is close to the optimal one,
    which is known here.
    """
    from sklearn.linear_model._cd_fast import enet_coordinate_descent_gram as kernel

    gram, rng = design.gram, np.random.RandomState(0)

    def solve(row: Row, gap: float) -> np.ndarray:
        cross = gram @ row.weight
        energy = float(row.weight @ cross)
        target = np.array([math.sqrt(energy)])  # only its norm is used
        point = np.zeros(len(cross))
        if model.l1 or model.l2:
            tol = gap * row.objective / energy
            return kernel(point, model.l1, model.l2, gram, cross, target, 10**6, tol, rng, False, model.positive)[0]
        for _ in range(10**6 // EPOCHS):
            point = kernel(point, 0.0, 0.0, gram, cross, target, EPOCHS, 0.0, rng, False, model.positive)[0]
            change = point - row.weight
            if 0.5 * change @ (gram @ change) <= (1 + gap) * row.objective:
                break
        return point

    return solve


def skglm(design: Design, model: Model) -> Solve:
    """Working sets and Anderson extrapolation. Ends at a largest violation of the conditions; times |v|_1 it bounds a gap."""
    from skglm.datafits import Quadratic as Loss
    from skglm.penalties import L1_plus_L2, PositiveConstraint
    from skglm.solvers import AndersonCD
    from skglm.utils.jit_compilation import compiled_clone

    matrix, tokens = design.root, len(design.root)
    total = model.l1 + model.l2
    term = L1_plus_L2(total / tokens, model.l1 / total, model.positive) if total else PositiveConstraint()
    loss, term = compiled_clone(Loss()), compiled_clone(term)

    def solve(row: Row, gap: float) -> np.ndarray:
        tol = gap * row.objective / row.norm / tokens
        solver = AndersonCD(tol=tol, max_iter=1000, max_epochs=100_000, fit_intercept=False)
        return solver.solve(matrix, matrix @ row.weight, loss, term)[0]

    return solve


def celer(design: Design, model: Model) -> Solve | None:
    """Working sets and dual extrapolation, for weights that have a price. Ends at a gap of tol |R w|^2."""
    from celer import celer_path

    if not model.l1 or (model.positive and model.l2):
        return None
    matrix, total = design.root, model.l1 + model.l2

    def solve(row: Row, gap: float) -> np.ndarray:
        target, alphas = matrix @ row.weight, [total / len(matrix)]
        options = {"tol": gap * row.objective / float(target @ target), "max_iter": 20, "max_epochs": 2000}
        ratio, positive = model.l1 / total, model.positive
        return celer_path(matrix, target, "lasso", alphas=alphas, l1_ratio=ratio, positive=positive, **options)[1][:, 0]

    return solve


def program(design: Design, model: Model) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray], Callable[[Any], np.ndarray]]:
    """P, q of a row, and the point of a solution x: min_x 1/2 x P x + q x over x >= 0, where v = x, or v = x_1 - x_2."""
    gram, width = design.gram + model.l2 * np.eye(len(design.gram)), len(design.gram)
    if model.positive:
        return gram, lambda weight: model.l1 - design.gram @ weight, lambda x: np.maximum(x, 0)

    def linear(weight: np.ndarray) -> np.ndarray:
        cross = design.gram @ weight
        return np.concatenate([model.l1 - cross, model.l1 + cross])

    return np.block([[gram, -gram], [-gram, gram]]), linear, lambda x: np.maximum(x[:width], 0) - np.maximum(x[width:], 0)


def osqp(design: Design, model: Model) -> Solve:
    """ADMM for quadratic programs, with the factorisation of one problem for all rows, from one row's answer to the next."""
    import osqp
    from scipy import sparse

    hessian, linear, point = program(design, model)
    size, solver = len(hessian), osqp.OSQP()
    solver.setup(
        P=sparse.csc_matrix(np.triu(hessian)),
        q=np.zeros(size),
        A=sparse.identity(size, format="csc"),
        l=np.zeros(size),
        u=np.full(size, np.inf),
        verbose=False,
        polishing=False,
        max_iter=200_000,
        check_termination=25,
    )

    def solve(row: Row, gap: float) -> np.ndarray:
        tol = math.sqrt(gap) * 0.1
        solver.update_settings(eps_abs=tol * row.objective / row.norm, eps_rel=tol)
        solver.update(q=linear(row.weight))
        return point(solver.solve().x)

    return solve


def clarabel(design: Design, model: Model) -> Solve:
    """An interior point method for cone programs."""
    import clarabel
    from scipy import sparse

    hessian, linear, point = program(design, model)
    size = len(hessian)
    upper, settings = sparse.csc_matrix(np.triu(hessian)), clarabel.DefaultSettings()
    settings.verbose = False
    identity, cones = -sparse.identity(size, format="csc"), [clarabel.NonnegativeConeT(size)]

    def solve(row: Row, gap: float) -> np.ndarray:
        settings.tol_gap_rel = settings.tol_feas = min(gap, 1e-6)
        settings.tol_gap_abs = gap * row.objective
        solver = clarabel.DefaultSolver(upper, linear(row.weight), identity, np.zeros(size), cones, settings)
        return point(np.asarray(solver.solve().x))

    return solve


def highs(design: Design, model: Model) -> Solve:
    """An active set method for quadratic programs, exact."""
    import highspy

    hessian, linear, point = program(design, model)
    size = len(hessian)
    lower = np.tril(hessian)
    places = [np.flatnonzero(lower[:, j]) for j in range(size)]
    starts = np.concatenate([[0], np.cumsum([len(place) for place in places])]).astype(np.int32)
    values = np.concatenate([lower[place, j] for j, place in enumerate(places)])

    def solve(row: Row, gap: float) -> np.ndarray:
        solver = highspy.Highs()
        solver.setOptionValue("output_flag", False)
        solver.setOptionValue("time_limit", 60.0)
        solver.setOptionValue("qp_regularization_value", 0.0)
        model_ = highspy.HighsModel()
        linear_part = model_.lp_
        linear_part.num_col_, linear_part.num_row_ = size, 0
        linear_part.col_cost_ = linear(row.weight)
        linear_part.col_lower_, linear_part.col_upper_ = np.zeros(size), np.full(size, highspy.kHighsInf)
        quadratic = model_.hessian_
        quadratic.dim_, quadratic.format_ = size, highspy.HessianFormat.kTriangular
        quadratic.start_, quadratic.index_, quadratic.value_ = starts, np.concatenate(places).astype(np.int32), values
        solver.passModel(model_)
        solver.run()
        return point(np.array(solver.getSolution().col_value))

    return solve


PEERS: dict[str, Callable[[Design, Model], Solve | None]] = {
    "scipy": scipy,
    "scikit-learn": scikit_learn,
    "skglm": skglm,
    "celer": celer,
    "OSQP": osqp,
    "Clarabel": clarabel,
    "HiGHS": highs,
}


def peer(name: str, design: Design, model: Model) -> Solve | None:
    """A solver by its name, or None where it has no such model."""
    warnings.simplefilter("ignore")  # whether it has converged is checked elsewhere
    return PEERS[name](design, model)
