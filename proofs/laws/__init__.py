"""The laws that every loss, term, pattern, solver, method and layer plug-in has to satisfy, ours and anybody's.

One line in a test holds an object of your own to them; a failure shows the smallest case found, as code that runs:

    from hypothesis import strategies as st
    from gramian.proofs import laws

    def test_my_objects():
        laws.check_method(my_method)                                       # (problem, pattern) -> Solution
        laws.check_method(my_score)                                        # (module) -> UnitScores
        laws.check_solver(MySolver())                                      # init, step, weights; or a function
        laws.check_pattern(MyPattern(0.5))                                 # select, admits, check
        laws.check_term(lambda shape: st.builds(MyTerm, st.floats(0, 9)))  # prox, and what else it has
        laws.check_bound(my_bound)                                         # (problem, pattern) -> float
        laws.check_layer(MyLayer)                                          # weight, moments, problem, assign

What each law says stands in the files of this package: `problems`, `terms`, `patterns`, `solvers`, `least_squares`, `methods`,
`bounds`, `unit_methods` and `layers`. Every law tries `examples` cases, or some laws fewer, and the same ones each time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from hypothesis import strategies as st

from gramian.proofs.kit import strategies
from gramian.proofs.laws.bounds import BOUND_LAWS
from gramian.proofs.laws.law import hold
from gramian.proofs.laws.layers import LAYER_LAWS, Plugging, conv1d, linear
from gramian.proofs.laws.least_squares import AFFINE_LAWS, LAMBDA_MAX_LAWS, REFIT_LAWS
from gramian.proofs.laws.methods import IMPROVER_LAWS, METHOD_LAWS, ORDER_LAWS, Pruning, from_the_largest
from gramian.proofs.laws.patterns import PATTERN_LAWS, Selecting
from gramian.proofs.laws.problems import PROBLEM_LAWS, Build
from gramian.proofs.laws.solvers import LASSO_LAWS, RATE_LAWS, SOLVER_LAWS, Solving
from gramian.proofs.laws.terms import TERM_LAWS, TermsOf, backends_agree
from gramian.proofs.laws.unit_methods import UNIT_METHOD_LAWS, UNIT_ORDER_LAWS, Scoring, scores_units
from gramian.solvers import L1

__all__ = [
    "check_affine",
    "check_bound",
    "check_improver",
    "check_lambda_max",
    "check_layer",
    "check_method",
    "check_pattern",
    "check_problem",
    "check_refit",
    "check_solver",
    "check_term",
]

EXAMPLES = 40


def check_problem(build: Build, *, examples: int = EXAMPLES) -> None:
    """Hold to the laws of a loss what makes a `Quadratic` as `Quadratic.from_data` does, `build(inputs, weight, dense)`.

    Its loss, gradient and curvature are those of the data, a ridge counts once, and coordinates change nothing. Raises
    AssertionError at the first law that fails, as every check here does. examples: how many cases a law tries.
    """
    hold(build, PROBLEM_LAWS, examples)


def check_term(terms_of: TermsOf, *, numpy_only: bool = False, examples: int = EXAMPLES) -> None:
    """Hold a convex term to its laws.

    Its prox is optimal and firmly non-expansive, what it says of itself fits together, and certificates that rest on it are
    honest, and close where it is solved for. terms_of: from the shape (q, p) of the weights to a strategy of terms. numpy_only:
    whether the term takes arrays of numpy alone; the other libraries that are installed are then left out.
    """
    hold(terms_of, tuple(law for law in TERM_LAWS if not (numpy_only and law.holds is backends_agree)), examples)


def check_pattern(pattern: Any, *, inputs: int = 8, examples: int = EXAMPLES) -> None:
    """Hold a sparsity pattern to its laws.

    Its count is exact even if scores tie, its mask is the best, and of equal scores the first is kept. pattern: one, or a
    strategy of them. inputs: what the number of channels is a multiple of.
    """
    patterns = pattern if isinstance(pattern, st.SearchStrategy) else st.just(pattern)
    hold(Selecting(patterns, inputs), PATTERN_LAWS, examples)


def check_solver(solver: Any, *, terms_of: TermsOf | None = None, accelerated: bool = False, examples: int = EXAMPLES) -> None:
    """Hold to its laws a solver of min_V f(V) + h(V).

    It converges to the optimum, certifies what it returns, and depends on nothing but the model. terms_of: the h it is for, as
    in `check_term`; None is L1, and adds the laws of the LASSO. accelerated: whether F(x_k) - F* <= 2 L |x_0 - x*|^2 / (k +
    1)^2 is a law too.
    """
    hold(Solving(solver, terms_of or partial(strategies.terms, L1)), SOLVER_LAWS, examples)
    if terms_of is None:
        hold(solver, LASSO_LAWS, examples)
    if accelerated:
        hold(solver, RATE_LAWS, examples)


def check_refit(refit: Any, *, examples: int = EXAMPLES) -> None:
    """Hold `refit(problem, mask, *, start)` to its laws: it is least squares on the support, and never worse than its start."""
    hold(refit, REFIT_LAWS, examples)


def check_affine(solver: Any, *, examples: int = EXAMPLES) -> None:
    """Hold `solver(problem, matrix, values)` to its law: it is least squares under every equality of V A^T = D."""
    hold(solver, AFFINE_LAWS, examples)


def check_lambda_max(lambda_max: Any, *, examples: int = EXAMPLES) -> None:
    """Hold `lambda_max(problem, *, per_row)` to its law: zero solves the LASSO from there on, and not before."""
    hold(lambda_max, LAMBDA_MAX_LAWS, examples)


def check_method(
    method: Any,
    *,
    patterns: st.SearchStrategy[Any] | None = None,
    order_matters: bool = False,
    examples: int = EXAMPLES,
) -> None:
    """Hold to its laws a pruning method, `solve(problem, pattern) -> Solution` or `score(module) -> UnitScores`.

    Weights satisfy the pattern even if scores tie, their certificate is that of what is returned, and they are a function of
    the layer alone. Scores are finite, one for each unit, and a function of the module alone. method: either function, which
    are told apart by their parameters without a default, or a `gramian.adapters.Method`. patterns: those that a method of
    weights is for; None is any. order_matters: True for a sweep over the channels, whose answer depends on which comes first,
    and for random scores. Raises ValueError for a method that gathers something from a whole model, removes whole experts or
    blocks, narrows a stream, or wraps a core.
    """
    decide = getattr(method, "decide", method)
    candidate: Scoring | Pruning
    always: tuple[Any, ...]
    in_any_order: tuple[Any, ...]
    if scores_units(method):
        if getattr(method, "prepare", None) is not None:
            raise ValueError("the method gathers something from a whole model, which the laws do not make")
        if getattr(method, "modules", "all") == "experts":
            raise ValueError("the method removes whole experts of mixtures, which the laws do not make")
        if getattr(method, "modules", "all") == "blocks":
            raise ValueError("the method removes whole blocks of models, which the laws do not make")
        if getattr(method, "modules", "all") == "stream":
            raise ValueError("the method narrows the stream of models, which the laws do not make")
        if patterns is not None:
            raise ValueError("patterns are for methods of weights, and the method is one of units")
        candidate = Scoring(decide, getattr(method, "inputs", True))
        always, in_any_order = UNIT_METHOD_LAWS, UNIT_ORDER_LAWS
    else:
        if getattr(method, "wrapped", False):
            raise ValueError("the method has its zeros in a core between wrappers, and the laws are of weights with zeros")
        candidate, always, in_any_order = Pruning(decide, patterns), METHOD_LAWS, ORDER_LAWS
    hold(candidate, always if order_matters else (*always, *in_any_order), examples)


def check_improver(improver: Any, *, patterns: st.SearchStrategy[Any] | None = None, examples: int = EXAMPLES) -> None:
    """Hold to its laws what improves on given weights, `improver(problem, pattern, start) -> Solution`.

    It is never worse than its start, and from the largest weights it is a method.
    """
    hold(Pruning(improver, patterns), IMPROVER_LAWS, examples)
    hold(Pruning(partial(from_the_largest, improver), patterns), METHOD_LAWS, examples)


def check_bound(bound: Any, *, examples: int = EXAMPLES) -> None:
    """Hold to its laws a lower bound of the loss of any support, `bound(problem, pattern)`, a number or a `SupportBound`.

    No support that the pattern admits has less loss, whatever the layer and its ridge, in any units and on every backend.
    """
    hold(bound, BOUND_LAWS, examples)


def check_layer(plug_in: Any, *, builds: tuple[Any, ...] | None = None, examples: int = 20) -> None:
    """Hold to its laws a layer plug-in, `plug_in(name, module)`: its orientation, its problem, and the way back into the
    module.

    builds: makers of the modules it is for, as `linear` and `conv1d` of `gramian.proofs.laws.layers`, which are the default.
    """
    for build in builds or (linear, conv1d):
        hold(Plugging(plug_in, build), LAYER_LAWS, examples)
