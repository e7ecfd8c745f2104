"""The methods by name: the recipe that each one is, and how it walks a model by default."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from importlib import import_module
from typing import Any

import numpy as np

from gramian.solvers import NM, Pattern, Quadratic, Solution, dsnot, exchange, fistapruner_printed, l0_admm, sparsegpt
from gramian.solvers.support.baselines import magnitude, wanda
from gramian.solvers.support.lasso_rounding import fistapruner

__all__ = ["METHODS", "Method", "resolve"]


@dataclass(frozen=True)
class Method:
    """solve(problem, pattern, **options) -> Solution, on float64 problems, with the defaults of a run.

    calibrate_on, target, target_blend: defaults of `prune_weights`. per_row: whether an unstructured sparsity is met in every
    row or over the whole matrix. damping: the damping of the Gram, see `DampedMethod`. damps: whether damping enters what the
    method does."""

    solve: Callable[..., Solution]
    calibrate_on: str = "pruned"
    target: str = "own"
    target_blend: float = 1.0
    per_row: bool = False
    damping: float | str = 0.0
    damps: bool = True

    def bind(self, options: Mapping[str, Any]) -> Callable[[Quadratic, Pattern], Solution]:
        """The recipe with its options fixed.

        ValueError is raised at once for an option that the recipe does not have, and by a call whose answer is no Solution."""
        known, called = self.defaults, getattr(self.solve, "__name__", type(self.solve).__name__)
        for name in options:
            if name not in known:
                raise ValueError(f"{called} has no option {name!r}; it has {', '.join(known) or 'none'}")

        def solve(problem: Quadratic, pattern: Pattern) -> Solution:
            solution = self.solve(problem, pattern, **options)
            if not isinstance(solution, Solution):
                raise ValueError(f"{called} returned {type(solution).__name__}, not a gramian.solvers.Solution")
            return replace(solution, detail={name: plain(called, name, value) for name, value in solution.detail.items()})

        return solve

    def tried(self, options: Mapping[str, Any], pattern: Pattern) -> Callable[[Quadratic, Pattern], Solution]:
        """The bound recipe, after one call with a small problem.

        An option out of range and an answer that is no Solution are thus refused before long work begins."""
        solve, width = self.bind(options), pattern.group if isinstance(pattern, NM) else 2
        solve(Quadratic(np.eye(width), np.ones((1, width))), pattern)
        return solve

    @property
    def defaults(self) -> dict[str, Any]:
        """The options and their defaults: the parameters of `solve` after problem and pattern."""
        parameters = list(inspect.signature(self.solve).parameters.values())[2:]
        return {each.name: each.default for each in parameters if each.default is not each.empty}


def plain(called: str, name: str, value: Any) -> float:
    """A figure of a method's answer as a plain number for a report; ValueError is raised where it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{called} returned detail[{name!r}] of type {type(value).__name__}, not a number") from None


METHODS: dict[str, Method] = {
    "fistapruner": Method(fistapruner, calibrate_on="dense", target="block"),
    "fistapruner-printed": Method(fistapruner_printed, calibrate_on="dense", target="block"),
    "l0": Method(l0_admm, calibrate_on="pruned", target="model", target_blend=0.5, damping="auto"),
    "sparsegpt": Method(sparsegpt, calibrate_on="pruned", target="own"),
    "exchange": Method(exchange, calibrate_on="pruned", target="own"),
    "dsnot": Method(dsnot, calibrate_on="pruned", target="own", per_row=True),
    "wanda": Method(wanda, calibrate_on="pruned", target="own", per_row=True),
    "magnitude": Method(magnitude, calibrate_on="pruned", target="own", damps=False),
}


def resolve(name: str) -> Method:
    """Find the method of a name: one of METHODS, or from `module:name` a method of the user's own.

    The latter is a function `solve(problem, pattern) -> Solution`, any other callable like it, a class that makes one without
    arguments, or a Method, which also says how a model is walked. The module is imported, and so run; Python searches its own
    path for it and then the current directory. ValueError is raised for a name that is neither, for a module that cannot be
    imported, and for an object that is no such callable.
    """
    if name in METHODS:
        return METHODS[name]
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise ValueError(f"no method {name!r}; there are {', '.join(METHODS)}, and module:name for one of your own")
    if os.getcwd() not in sys.path:  # as an installed command starts without it
        sys.path.append(os.getcwd())
    try:
        found: Any = reduce(getattr, path.split("."), import_module(module))
    except Exception as error:  # whatever a module raises while it is imported
        raise ValueError(f"method {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        found = found() if isinstance(found, type) else found
        method = found if isinstance(found, Method) else Method(found)
        inspect.signature(method.solve).bind(None, None)
        json.dumps(method.defaults)  # they will stand in a report, at the end of a long run
    except (TypeError, ValueError) as error:
        raise ValueError(f"method {name!r} cannot be called as solve(problem, pattern): {error}") from error
    return method
