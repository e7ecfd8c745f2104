"""ARMOR as a run calls it: with the form in which its answer is saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gramian.adapters.methods.method import Method
from gramian.solvers import Pattern, Quadratic, WrappedSolution, armor
from gramian.solvers.support.starts import check_choice

__all__ = ["armor_saved", "saves_wrapped"]

FORMS = {"dense": False, "wrapped": True}


def armor_saved(
    problem: Quadratic,
    pattern: Pattern,
    *,
    block: int = 32,
    sweeps: int = 30,
    warm_start: str = "l0",
    save: str = "dense",
) -> WrappedSolution:
    """min f(A S B) subject to S satisfying the pattern, A and B block-diagonal, by sweeps over S, B and A (ARMOR)

    block: the rows of a block of A and of B. sweeps: the most sweeps, each of which solves for S, for better supports of it,
    for B and for A, so that the loss never rises. warm_start: the method that they start from, whose answer is S between
    A = B = I: l0, magnitude, wanda, sparsegpt or fistapruner. save: `dense`, A S B as one matrix without zeros, which stock
    classes and other formats load; or `wrapped`, the core with its zeros and the blocks of A and B, of which a small file of
    code beside the model (trust_remote_code=True; gramian.load needs no trust) builds operators that compute A (S (B x)).
    """
    check_choice("save", save, FORMS)
    solution = armor(problem, pattern, block=block, sweeps=sweeps, warm_start=warm_start)
    if not FORMS[save]:
        return replace(solution, factors=None)
    counts = solution.detail
    kept = problem.shape[0] * problem.shape[1] - counts["core_zeros"] + counts["wrapper_parameters"]
    return replace(solution, detail={**counts, "parameters": kept})


def saves_wrapped(method: Method, options: Mapping[str, Any]) -> bool:
    """Whether what a method finds is saved as A, S and B."""
    return method.wrapped and {**method.defaults, **options}.get("save") == "wrapped"
