"""What a method that removes experts takes: the walk of its pass, and seconds for one mixture."""

from __future__ import annotations

from typing import Any

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates.figures import EstimatedOperator, Rates
from gramian.adapters.estimates.walked import Walked
from gramian.adapters.models.experts import HIDDEN
from gramian.adapters.models.layers import Layer
from gramian.adapters.models.mixtures import Mixing
from gramian.adapters.passes.experts import SAMPLE, RemoveExperts
from gramian.adapters.removal.experts import Thinning

__all__ = ["estimated_mixtures", "walked_experts"]

WAITING = 4  # times the width: what entered a mixture, its dense answers, and what is missing from them in float64


def shape_of_answers(model: Any, mixture: Mixing) -> tuple[int, int]:
    """The shape (q, p) of the matrices by which the experts of a mixture answer."""
    rows, columns = Layer.at(model, f"{mixture.name}.{HIDDEN}.0").weight.shape
    return rows, columns


def walked_experts(each: RemoveExperts, model: Any) -> Walked:
    """The walk: every block runs with taps, and again without the experts that are gone."""
    shapes = [shape_of_answers(model, mixture) for mixture in each.mixtures.values()]
    products = max(SAMPLE * mixture.count**2 for mixture in each.mixtures.values())
    names = tuple(name for index in range(each.stop) for name in each.written(index))
    return Walked(2.0, 0.0, products + max(p * p for _, p in shapes), WAITING * max(q for q, _ in shapes), names)


def estimated_mixtures(
    model: Any, config: PruneConfig, plan: Thinning, rates: Rates, tokens: float
) -> tuple[EstimatedOperator, ...]:
    """A row for every mixture: answers of all experts to a sample, one removal after the other, refits. tokens: of all text."""
    rows = []
    for mixture in plan.mixtures.values():
        q, p = shape_of_answers(model, mixture)
        sample, gone = min(SAMPLE, tokens), mixture.count - plan.keep
        spent = 2 * sample * mixture.count * mixture.size / rates.single + 2 * sample * mixture.count**2 * q / rates.double
        if config.options.get("score", "output") == "output":
            spent += gone * mixture.count * 2 * sample * mixture.count * q / rates.single
        spent += 6 * tokens * mixture.active * mixture.size / rates.single  # its answers before, after and once it is cut
        if config.own("compensate"):
            spent += tokens * mixture.active * 2 * p * (p + q) / rates.double + plan.keep * p**3 / 3 / rates.double
        rows.append(EstimatedOperator(mixture.name, (q, p), spent))
    return tuple(rows)
