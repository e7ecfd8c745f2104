"""The structured methods by name: how each scores the units of a module, and how it prunes a model by default.

Scores are for units (hidden channels, heads or key/value groups), one array per module, and the largest are kept longest. The
allocation decides how many units are removed from each module.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gramian.adapters.methods import saliency_methods as saliency
from gramian.adapters.methods.output_approximation import check_moments, check_options, greedy_output, look_at_heads
from gramian.adapters.methods.types import ModelContext, ScoreContext, UnitScores
from gramian.adapters.methods.vocabulary import SCORES
from gramian.solvers import MaskProblem, Quadratic, head_scores, newton_score, relaxed_mask
from gramian.solvers.backend._xp import to_numpy
from gramian.solvers.units.compensated import greedy_removal
from gramian.solvers.units.mask import SILENT

if TYPE_CHECKING:
    from torch import nn

    from gramian.adapters.methods.unit_sets import UnitSet

__all__ = ["STRUCTURED_METHODS", "StructuredMethod", "structured_method"]


def numerical(module: ScoreContext, *, score: str = "compensated", penalty: float | None = None) -> UnitScores:
    """z = argmin 1/2 |X diag(1 - z) W^T|^2 over relaxed masks of a budget is the score of the units (Numerical Pruning).

    score: `newton` is the paper's, z of the penalised problem for inputs of spectral norm 1 (`newton_score`, its `penalty`
    1 by default), averaged over the channels of a head. `box` is z of the exact relaxation (`relaxed_mask`). `compensated`
    is not z but the prices of greedy removal when the other weights are solved for anew (`greedy_removal`): the pipeline does
    solve for them, and the paper's mask does not foresee it.
    """
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)} but is {score!r}")
    if penalty is not None and (score != "newton" or not penalty > 0):
        raise ValueError(f"penalty is {penalty}: it goes with score='newton', and is positive")
    problem = module.inputs()
    if score == "compensated":
        return compensated(module, problem)
    if score == "newton":
        channels = MaskProblem.from_problem(problem, normalise="spectral")
        relaxed = newton_score(channels, module.keep * channels.total, penalty=penalty or 1.0)
        return UnitScores(to_numpy(head_scores(relaxed.keep, module.count)), relaxed=relaxed, energy=channels.energy)
    if module.jointly:
        return UnitScores(None)
    units = MaskProblem.from_problem(problem, groups=module.count)
    relaxed = relaxed_mask(units, module.keep * units.total)
    return UnitScores(to_numpy(relaxed.keep), relaxed=relaxed, energy=units.energy)


def compensated(module: ScoreContext, problem: Quadratic) -> UnitScores:
    """Prices of greedy removal from the damped problem, in loss per parameter; `relative` divides by the plain energy."""
    path = greedy_removal(problem.damped(module.damping * problem.diagonal), groups=module.count, cost=module.cost)
    prices = to_numpy(path.prices) * path.energy  # they come relative to the energy of the damped problem
    alone = 0.5 * float(np.sum(to_numpy(problem.anchor) ** 2 @ to_numpy(problem.diagonal)))
    silent = problem.energy <= SILENT * alone  # the outputs of its channels cancel, so their removal costs nothing
    return UnitScores(prices, relative=0.0 * prices if silent else prices / problem.energy)


def random(module: ScoreContext, *, seed: int = 0) -> UnitScores:
    """Uniform random numbers, a floor for every other score."""
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number of at least 0 but is {seed!r}")
    return UnitScores(np.random.default_rng([seed, module.position]).random(module.count))


def magnitude_l1(module: ScoreContext) -> UnitScores:
    """sum |w| over all weights removed with the unit, in every operator of the module."""
    return UnitScores(module.magnitudes(1))


def magnitude_l2(module: ScoreContext) -> UnitScores:
    """sqrt(sum w^2) over all weights removed with the unit, in every operator of the module."""
    return UnitScores(np.sqrt(module.magnitudes(2)))


def wanda_sp(module: ScoreContext) -> UnitScores:
    """sum_ij |W_ij| |X_j|_2 over the unit's columns j of the consumer and all its outputs i.

    It is the sum of Wanda's scores (as in An et al., Fluctuation-based Adaptive Structured Pruning, 2024)."""
    problem = module.inputs()
    weight, diagonal = to_numpy(problem.anchor), to_numpy(problem.diagonal)
    return UnitScores(module.per_unit(np.abs(weight).sum(axis=0) * np.sqrt(diagonal)))


def flap(module: ScoreContext) -> UnitScores:
    """var(X_j) |W_j|^2 for column j of the consumer, standardised over the module, then averaged over the unit's columns.

    The variance is what remains of a removed channel once its mean is in the bias. Standardised scores are ranked over all
    modules (An et al., Fluctuation-based Adaptive Structured Pruning, 2024: WIFV, AL-AM, with costs as parameters).
    """
    problem, mean = module.inputs(), module.mean
    assert mean is not None
    variance = np.maximum(to_numpy(problem.diagonal) / module.tokens - mean**2, 0.0)
    fluctuation = variance * (to_numpy(problem.anchor) ** 2).sum(axis=0)
    spread = float(fluctuation.std())
    standard = (fluctuation - fluctuation.mean()) / (spread or 1.0)
    return UnitScores(module.per_unit(standard) * module.count / len(standard))


def gathered(module: ScoreContext) -> UnitScores:
    """The scores that the method gathered for this module."""
    return UnitScores(module.statistics)


@dataclass(frozen=True)
class StructuredMethod:
    """score(module, **options) -> UnitScores, with what has to be gathered for it and the defaults of a run.

    needs: `inputs`, where the score needs the moments of what enters the consumers of the dense model.
    gather(context, **options) -> the statistics of every unit set, which are gathered before any module is scored.
    check(**options) raises ValueError for options that gather would refuse, and suits(model, unit_sets, **options) for models.
    damps: whether damping enters the scores. modules: `channels` where the method prunes no attention unless `include` names
    it. compensation: how the method compensates for removed units; with `weights` the consumer's other weights are solved for
    anew, with `bias` the mean of what was removed goes into the consumer's bias. The rest are defaults of `prune_units`."""

    score: Callable[..., UnitScores]
    needs: frozenset[str] = frozenset({"inputs"})
    gather: Callable[..., Sequence[Any]] | None = None
    check: Callable[..., None] | None = None
    suits: Callable[..., None] | None = None
    modules: Literal["all", "channels"] = "all"
    damps: bool = False
    compensation: Literal["weights", "bias"] = "weights"
    compensate: bool = False
    allocation: str = "uniform"
    calibrate_on: str = "pruned"

    @property
    def defaults(self) -> dict[str, Any]:
        """The options and their defaults: the keyword-only parameters of `gather` and `score`."""
        return {**keywords(self.gather), **keywords(self.score)}

    def bind(self, options: Mapping[str, Any]) -> Callable[[ScoreContext], UnitScores]:
        """The score with its options fixed.

        ValueError is raised for an option that the method does not have, and for a value that a small problem shows to be out
        of range."""
        for name in options:
            if name not in self.defaults:
                known = ", ".join(self.defaults) or "none"
                owner = self.score if keywords(self.score) or self.gather is None else self.gather
                raise ValueError(f"{owner.__name__} has no option {name!r}; it has {known}")
        if self.check is not None:
            self.check(**{name: value for name, value in options.items() if name in keywords(self.check)})
        own = {name: value for name, value in options.items() if name in keywords(self.score)}
        if self.gather is None:
            probe = Quadratic(np.eye(2), np.ones((1, 2)))
            try:
                self.score(ScoreContext(0, 2, 1.0, 0.5, lambda power: np.ones(2), probe, np.zeros(2), 2), **own)
            except TypeError as error:  # a value of the wrong kind
                raise ValueError(f"options of {self.score.__name__}: {error}") from error
        return lambda module: self.score(module, **own)

    def fit(self, model: nn.Module, unit_sets: Sequence[UnitSet], options: Mapping[str, Any]) -> None:
        """Raise ValueError for a model that the method does not suit, as far as is known without running it."""
        if self.suits is not None:
            self.suits(model, unit_sets, **{name: value for name, value in options.items() if name in keywords(self.suits)})

    def look(self, context: ModelContext, options: Mapping[str, Any]) -> Sequence[Any]:
        """The statistics gathered for every unit set, None for each where the method gathers nothing.

        ValueError is raised before long work for bad options, and for a model that the method does not suit."""
        if self.gather is None:
            return [None] * len(context.unit_sets)
        return self.gather(context, **{name: value for name, value in options.items() if name in keywords(self.gather)})


def keywords(function: Callable[..., Any] | None) -> dict[str, Any]:
    """The keyword-only parameters of a function and their defaults, none for no function."""
    parameters = inspect.signature(function).parameters.values() if function else ()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


STRUCTURED_METHODS: dict[str, StructuredMethod] = {
    "numerical": StructuredMethod(numerical, damps=True, compensate=True, allocation="loss"),
    "flap": StructuredMethod(flap, compensation="bias", compensate=True, allocation="score", calibrate_on="dense"),
    "greedy-output": StructuredMethod(
        greedy_output, gather=look_at_heads, check=check_options, suits=check_moments, compensate=True
    ),
    "wanda-sp": StructuredMethod(wanda_sp),
    "magnitude-l1": StructuredMethod(magnitude_l1, needs=frozenset()),
    "magnitude-l2": StructuredMethod(magnitude_l2, needs=frozenset()),
    "random": StructuredMethod(random, needs=frozenset()),
    **{
        name: StructuredMethod(
            gathered, frozenset(), gather, saliency.check, suits, modules="channels", allocation="score"
        )
        for name, gather, suits in (
            ("tasp", saliency.tasp, saliency.predicts), ("snip", saliency.snip, saliency.predicts),
            ("grasp", saliency.grasp, saliency.predicts), ("llm-pruner", saliency.llm_pruner, saliency.predicts),
            ("synflow", saliency.synflow, None), ("ntk-sap", saliency.ntk_sap, None), ("px", saliency.px, saliency.activates),
        )
    },
}  # fmt: skip


def structured_method(name: str) -> StructuredMethod:
    """The method called `name`; ValueError, which lists the names, is raised where there is none."""
    if name not in STRUCTURED_METHODS:
        raise ValueError(f"no structured method {name!r}; there are {', '.join(STRUCTURED_METHODS)}")
    return STRUCTURED_METHODS[name]
