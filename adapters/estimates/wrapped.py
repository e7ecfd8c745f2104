"""What factors A, S and B take that are kept until a model is saved with them."""

from __future__ import annotations

import math
from typing import Any

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.methods.wrapped_methods import saves_wrapped
from gramian.adapters.targets import shape_of

__all__ = ["factor_numbers"]


def factor_numbers(model: Any, config: PruneConfig, plan: object) -> tuple[int, int]:
    """How many numbers the cores of all operators hold, and how many the blocks around them; none where none are kept."""
    method = config.recipe
    if not isinstance(plan, tuple) or not saves_wrapped(method, config.options):
        return 0, 0
    block = {**method.defaults, **config.options}.get("block", 1)
    shapes = [shape_of(model, name) for name in plan[0]]
    blocks = sum(-(-side // min(block, side)) * min(block, side) ** 2 for shape in shapes for side in shape)
    return sum(map(math.prod, shapes)), blocks
