"""Every solver of the package once, as a function of a problem: for tests of what must hold of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gramian.proofs.kit.backends import Backend
from gramian.solvers import (
    FISTA,
    L1,
    NM,
    Affine,
    MaskProblem,
    Quadratic,
    Support,
    TopK,
    affine_least_squares,
    allocate,
    certify,
    certify_mask,
    dsnot,
    empirical_ridge,
    exchange,
    exchange_units,
    exchange_weights,
    fistapruner,
    fistapruner_printed,
    greedy_removal,
    l0_admm,
    l0_bound,
    lambda_max,
    lasso,
    lasso_path,
    lasso_to_sparsity,
    magnitude,
    newton_score,
    refit,
    relaxed_mask,
    removal_path,
    solve,
    sparsegpt,
    threshold,
    wanda,
)

__all__ = ["CALLS", "arrays_in", "halved"]


def halved(problem: Quadratic, xp: Backend) -> Any:
    """The mask of every other weight."""
    rows, width = problem.shape
    return xp.asarray((np.arange(rows)[:, None] + np.arange(width)) % 2 == 0)


def masked(problem: Quadratic, xp: Backend) -> Any:
    return Support(halved(problem, xp)).prox(problem.anchor, 1.0)


def cut(problem: Quadratic, xp: Backend) -> Any:
    mask = MaskProblem.from_problem(problem)
    return threshold(mask, relaxed_mask(mask, mask.total / 2)).mask


CALLS: dict[str, Callable[[Quadratic, Backend], Any]] = {
    "loss": lambda problem, xp: problem.row_losses(masked(problem, xp)),
    "gradient": lambda problem, xp: problem.gradient(masked(problem, xp)),
    "lipschitz": lambda problem, xp: [problem.lipschitz, problem.unit_lipschitz],
    "certify": lambda problem, xp: certify(problem, L1(0.1), masked(problem, xp)).gap,
    "lambda_max": lambda problem, xp: lambda_max(problem),
    "lasso": lambda problem, xp: lasso(problem, L1(0.3 * lambda_max(problem))).weights,
    "lasso to rounding": lambda problem, xp: lasso(problem, L1(0.01 * lambda_max(problem)), tol=0.0).weights,
    "lasso_path": lambda problem, xp: [point.solution.weights for point in lasso_path(problem, [20.0, 2.0])],
    "lasso_to_sparsity": lambda problem, xp: lasso_to_sparsity(problem, 0.5, width=0.1).solution.weights,
    "fista": lambda problem, xp: solve(problem, L1(1.0), FISTA(), max_steps=60).weights,
    "fista scaled": lambda problem, xp: solve(problem, L1(1.0), FISTA(scaled=True), max_steps=60).weights,
    "fista split": lambda problem, xp: solve(problem, L1(1.0), FISTA(split=True), max_steps=60).weights,
    "fista support": lambda problem, xp: solve(problem, Support(halved(problem, xp)), FISTA(), max_steps=40).weights,
    "fista affine": lambda problem, xp: (
        solve(problem, Affine(*sums(problem, xp)), FISTA(), start=start(problem, xp), max_steps=40).weights
    ),
    "refit": lambda problem, xp: refit(problem, halved(problem, xp), start=masked(problem, xp)).weights,
    "refit of all": lambda problem, xp: refit(problem, halved(problem, xp) | ~halved(problem, xp)).weights,
    "affine": lambda problem, xp: affine_least_squares(problem, *sums(problem, xp)).weights,
    "magnitude": lambda problem, xp: magnitude(problem, TopK(0.5)).weights,
    "wanda": lambda problem, xp: wanda(problem, NM(2, 4)).weights,
    "wanda of all": lambda problem, xp: wanda(problem, TopK(0.0)).weights,
    "sparsegpt": lambda problem, xp: sparsegpt(problem, TopK(0.5)).weights,
    "sparsegpt of groups": lambda problem, xp: sparsegpt(problem, NM(2, 4)).weights,
    "dsnot": lambda problem, xp: dsnot(problem, TopK(0.5)).weights,
    "l0_admm": lambda problem, xp: l0_admm(problem, TopK(0.5), steps=40).weights,
    "exchange": lambda problem, xp: exchange(problem, TopK(0.5)).weights,
    "exchange_weights": lambda problem, xp: exchange_weights(problem, NM(2, 4), wanda(problem, NM(2, 4)).weights).weights,
    "l0_bound": lambda problem, xp: l0_bound(problem, NM(2, 4)).point,
    "fistapruner": lambda problem, xp: fistapruner(problem, TopK(0.5), max_lambdas=3).weights,
    "fistapruner_printed": lambda problem, xp: fistapruner_printed(problem, NM(2, 4), max_lambdas=3).weights,
    "empirical_ridge": lambda problem, xp: empirical_ridge(problem, TopK(0.5), 60, heldout=problem).ridge,
    "greedy_removal": lambda problem, xp: [greedy_removal(problem).losses, greedy_removal(problem, 4).order],
    "removal_path": lambda problem, xp: removal_path(problem, list(range(problem.shape[1]))).prices,
    "exchange_units": lambda problem, xp: exchange_units(problem, cut(problem, xp)).solution.weights,
    "relaxed_mask": lambda problem, xp: relaxed_mask(MaskProblem.from_problem(problem), 5.0).keep,
    "certify_mask": lambda problem, xp: certify_mask(MaskProblem.from_problem(problem), cut(problem, xp), 5.0).bound,
    "newton_score": lambda problem, xp: newton_score(MaskProblem.from_problem(problem, 4), 2.0).keep,
    "allocate": lambda problem, xp: list(allocate([MaskProblem.from_problem(problem)] * 2, 8.0).masks),
}


def sums(problem: Quadratic, xp: Backend) -> tuple[Any, Any]:
    """Constraints: the rows sum to one."""
    rows, width = problem.shape
    dtype = "float32" if str(problem.anchor.dtype).endswith("32") else "float64"
    return xp.asarray(np.ones((1, width)), dtype), xp.asarray(np.ones((rows, 1)), dtype)


def start(problem: Quadratic, xp: Backend) -> Any:
    """Weights that satisfy them."""
    return problem.anchor + (1 - problem.anchor.sum(1)[:, None]) / problem.shape[1] if xp.name != "strict" else problem.anchor


def arrays_in(found: Any, xp: Backend) -> list[np.ndarray]:
    """What a call returned, in numpy."""
    parts = found if isinstance(found, list) else [found]
    return [np.asarray(part) if isinstance(part, float) else xp.numpy(part) for part in parts]
