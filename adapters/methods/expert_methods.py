"""Which experts of a mixture are removed: by what the mixture's answer loses, or by scores of single experts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gramian.solvers.units.mixture import ExpertChoice, Mixture, Route, remove_experts, routing_frequency, routing_saliency

__all__ = ["EXPERT_SCORES", "Choose", "choose_experts"]

Choose = Callable[[Mixture, Route, int, bool], ExpertChoice]
EXPERT_SCORES = ("output", "reap", "frequency")


def choose_experts(mixture: Mixture, route: Route, keep: int, exchanges: bool, *, score: str = "output") -> ExpertChoice:
    """argmin_S sum_t |M_S(x_t) - M(x_t)|^2 over sets S of whole experts of each mixture M, routed anew without the others.

    score: `output` removes one expert at a time, whichever the answer of the mixture as it will run misses least, on a sample
    of tokens (`remove_experts`). `reap` keeps the largest means of router weight times norm of the answer over the tokens that
    are routed to an expert (REAP), and `frequency` those that are chosen most often; neither knows who takes whose place.
    """
    if score not in EXPERT_SCORES:
        raise ValueError(f"score must be one of {', '.join(EXPERT_SCORES)} but is {score!r}")
    if score == "output":
        return remove_experts(mixture, route, keep, exchanges=exchanges)
    chosen, weights = route(np.arange(mixture.experts))
    scores = routing_saliency(mixture, chosen, weights) if score == "reap" else routing_frequency(mixture, chosen)
    size = mixture.experts // mixture.groups
    best = [np.argsort(-part, kind="stable")[: keep // mixture.groups] for part in scores.reshape(mixture.groups, size)]
    kept = np.sort(np.concatenate([group * size + part for group, part in enumerate(best)]))
    loss, energy = mixture.loss(*route(kept)), 0.5 * float(mixture.energies.sum())
    removed = tuple(int(each) for each in np.setdiff1d(np.arange(mixture.experts), kept))
    return ExpertChoice(kept, loss, energy, removed, (), 0)
