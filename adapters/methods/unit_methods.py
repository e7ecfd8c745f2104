"""The structured methods by name: how each scores the units of a module, and how it prunes a model by default.

Scores are for units (hidden channels, heads or key/value groups), one array per module, and the largest are kept longest. The
allocation decides how many units are removed from each module.
"""

from __future__ import annotations

import numpy as np

from gramian.adapters.methods import saliency_methods as saliency
from gramian.adapters.methods.coarse_to_fine import check_within, coarse_to_fine
from gramian.adapters.methods.method import Method
from gramian.adapters.methods.output_approximation import check_moments, check_options, greedy_output, look_at_heads
from gramian.adapters.methods.types import ScoreContext, UnitScores
from gramian.adapters.methods.vocabulary import SCORES
from gramian.solvers import MaskProblem, Quadratic, head_scores, newton_score, relaxed_mask
from gramian.solvers.backend._xp import to_numpy
from gramian.solvers.units.compensated import greedy_removal
from gramian.solvers.units.mask import SILENT

__all__ = ["UNIT_METHODS"]


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


UNIT_METHODS: dict[str, Method] = {
    "numerical": Method(numerical, "units", settings={"compensate": True, "allocation": "loss"}),
    "flap": Method(
        flap, "units", settings={"compensate": True, "allocation": "score", "calibrate_on": "dense"}, damps=False,
        compensation="bias",
    ),
    "greedy-output": Method(
        greedy_output, "units", look_at_heads, {"compensate": True}, damps=False, check=check_options, suits=check_moments,
        compares_heads=True,
    ),
    "wanda-sp": Method(wanda_sp, "units", damps=False),
    "cfsp": Method(
        coarse_to_fine, "units", settings={"allocation": "angles"}, damps=False, modules="channels", check=check_within,
    ),
    "magnitude-l1": Method(magnitude_l1, "units", damps=False, inputs=False),
    "magnitude-l2": Method(magnitude_l2, "units", damps=False, inputs=False),
    "random": Method(random, "units", damps=False, inputs=False),
    **{
        name: Method(
            gathered, "units", prepare, {"allocation": "score"}, damps=False, inputs=False, modules="channels",
            check=saliency.check, suits=suits, gradients="predictions" if suits is saliency.predicts else "outputs",
        )
        for name, prepare, suits in (
            ("tasp", saliency.tasp, saliency.predicts), ("snip", saliency.snip, saliency.predicts),
            ("grasp", saliency.grasp, saliency.predicts), ("llm-pruner", saliency.llm_pruner, saliency.predicts),
            ("synflow", saliency.synflow, None), ("ntk-sap", saliency.ntk_sap, None), ("px", saliency.px, saliency.activates),
        )
    },
}  # fmt: skip
