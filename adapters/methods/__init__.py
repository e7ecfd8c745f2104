"""The methods by name: which recipe each is, and how it walks a model unless told otherwise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gramian.adapters.methods.baselines import magnitude, wanda
from gramian.adapters.methods.fistapruner import fistapruner
from gramian.solvers import Pattern, Quadratic, Solution, l0_admm, sparsegpt

__all__ = ["METHODS", "Method"]


@dataclass(frozen=True)
class Method:
    """solve(problem, pattern, **options) -> Solution, on float64 problems. inputs, correction: defaults of `prune`.
    per_row: whether an unstructured sparsity is met in every row or over the whole matrix. damping: of the Gram, see
    `Estimate`."""

    solve: Callable[..., Solution]
    inputs: str
    correction: str
    per_row: bool = False
    damping: float | str = 0.0

    def bind(self, options: Mapping[str, Any]) -> Callable[[Quadratic, Pattern], Solution]:
        """The recipe with its options fixed; ValueError for an option it does not have."""
        known = self.defaults
        for name in options:
            if name not in known:
                raise ValueError(f"{self.solve.__name__} has no option {name!r}; it has {', '.join(known) or 'none'}")
        return partial(self.solve, **options)

    @property
    def defaults(self) -> dict[str, Any]:
        """Its options and their defaults: the parameters after problem and pattern."""
        parameters = list(inspect.signature(self.solve).parameters.values())[2:]
        return {parameter.name: parameter.default for parameter in parameters}


METHODS: dict[str, Method] = {
    "fistapruner": Method(fistapruner, inputs="dense", correction="layer"),
    "l0": Method(l0_admm, inputs="pruned", correction="model", damping="auto"),
    "sparsegpt": Method(sparsegpt, inputs="pruned", correction="none"),
    "wanda": Method(wanda, inputs="pruned", correction="none", per_row=True),
    "magnitude": Method(magnitude, inputs="pruned", correction="none"),
}
