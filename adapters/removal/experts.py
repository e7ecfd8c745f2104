"""plan_thinning(model, config): how many experts every mixture of a model keeps, before any work."""

from __future__ import annotations

import math
from dataclasses import dataclass

from transformers import PreTrainedModel

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.models.mixtures import Mixing, expert_key, mixtures_of
from gramian.adapters.removal.amount import amount_of, block_parameters
from gramian.adapters.removal.plan import DAMPING
from gramian.adapters.targets import check_finite

__all__ = ["Thinning", "plan_thinning"]


@dataclass(frozen=True, eq=False)
class Thinning:
    """mixtures: of the model by the full name of their experts. keep: how many experts remain of each, the same number of all,
    since stock classes build as many everywhere. key: where the configuration states how many there are. damping: of refits."""

    mixtures: dict[str, Mixing]
    keep: int
    key: str
    damping: float


def plan_thinning(model: PreTrainedModel, config: PruneConfig) -> Thinning:
    """Plan how many experts go: the number whose parameters are nearest to the ratio of those inside the blocks, at least one
    of every group, or the least that a budget asks for.

    ValueError: no mixtures, or mixtures of several sizes; a ratio that leaves fewer than answer a token; settings that choose
    among mixtures; weights that are not finite.
    """
    mixtures = mixtures_of(model)
    if config.include is not None or config.exclude is not None or config.blocks is not None:
        raise ValueError(
            f"{config.method!r} removes as many experts of every mixture, so that stock classes load the model: leave include, "
            "exclude and blocks out"
        )
    sizes = sorted({each.count for each in mixtures.values()})
    if len(sizes) > 1:
        raise ValueError(
            f"mixtures of {' and '.join(map(str, sizes))} experts cannot keep as many each, as {config.method!r} does"
        )
    first = next(iter(mixtures.values()))
    inside, each = block_parameters(model), sum(mixture.size for mixture in mixtures.values())
    least, step = max(mixture.least for mixture in mixtures.values()), first.groups
    most = (first.count - least) * each / inside
    amount = amount_of(model, config)
    if amount > most * inside or least >= first.count:
        raise ValueError(
            f"a ratio of {amount / inside:g} is out of reach: {int(1e4 * most) / 1e4:g} is the largest, as {least} of "
            f"{first.count} experts must remain ({first.active} answer every token"
            + (f", in {step} groups)" if step > 1 else ")")
        )
    steps = amount / (each * step)
    keep = max(least, first.count - step * max(1, round(steps) if config.budget is None else math.ceil(steps)))
    check_finite(model)
    damping = DAMPING if config.damping is None else float(config.damping)
    return Thinning(mixtures, keep, expert_key(model, first.count, keep), damping)
