"""How many parameters a run removes: a part of those inside the blocks, or what a budget asks for."""

from __future__ import annotations

from transformers import PreTrainedModel

from gramian.adapters.config.budgets import read_budget
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.models.experts import active_weights
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.models.shrink import count_parameters
from gramian.adapters.models.stacks import blocks_in

__all__ = ["amount_of", "block_parameters"]


def block_parameters(model: PreTrainedModel) -> int:
    """The number of parameters inside the blocks, norms and biases included."""
    return sum(parameter.numel() for block in blocks_in(model).values() for parameter in block.parameters())


def amount_of(model: PreTrainedModel, config: PruneConfig) -> float:
    """The parameters to remove.

    ValueError: a budget that the model meets as it is, one of what the method does not change, one without the blocks."""
    inside = block_parameters(model)
    if config.own("ratio") is None and config.budget is None:
        return 0.0  # as many heads as are similar, whatever their parameters are
    if config.budget is None:
        amount = float(config.own("ratio")) * inside
        whole = abs(amount - round(amount)) <= 1e-9 * inside  # a count of parameters over all of them, but for rounding
        return round(amount) if whole else amount
    kind, wanted = read_budget(config.budget)
    present = count_parameters(model)
    if kind == "active":
        if config.recipe.modules == "experts":
            raise ValueError(
                f"budget={config.budget!r} does not go with {config.method!r}: as many experts answer a token however many "
                "remain; give params or bytes"
            )
        present -= inside - sum(map(active_weights, blocks_in(model).values()))
    if kind == "bytes":
        wanted //= storage_dtype(model).itemsize
    if wanted >= present:
        raise ValueError(f"budget={config.budget!r} is met already: the model has {present:,} of {wanted:,} parameters")
    if present - wanted >= inside:
        raise ValueError(
            f"budget={config.budget!r} is out of reach: {present - inside:,} parameters are outside the blocks, where nothing "
            f"is removed, and {wanted:,} may remain"
        )
    return float(present - wanted)
