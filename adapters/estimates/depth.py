"""What a method that removes whole blocks takes: seconds for every candidate, and the walk of the refits."""

from __future__ import annotations

from typing import Any

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates.figures import EstimatedOperator, Rates
from gramian.adapters.estimates.walked import Walked
from gramian.adapters.measure.divergence import predicts_tokens
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.discovery import is_operator
from gramian.adapters.models.experts import active_weights
from gramian.adapters.models.units import width
from gramian.adapters.removal.depth import Shortening

__all__ = ["estimated_blocks", "judge_bytes", "walked_blocks"]

PATHS = 3.0  # dense, with gaps, with refits
TRIES = 2.0  # a block runs again for its problem and for the dampings that are tried


def inputs_of_refits(model: Any) -> int:
    """The most inputs that an operator has whose outputs are as wide as the stream, one of which is refitted."""
    stream = model.get_input_embeddings().embedding_dim
    found: list[Any] = [module for block in blocks_of(model) for module in block.modules() if is_operator(module)]
    return max((width(module, "inputs") for module in found if width(module, "outputs") == stream), default=stream)


def walked_blocks(model: Any, config: PruneConfig, plan: Shortening) -> Walked:
    """The walk along three paths, with one problem at a time."""
    refits, p = bool(config.own("compensate")), inputs_of_refits(model)
    runs = PATHS + TRIES if refits else PATHS - 1
    return Walked(runs, float(p * p * (len(plan.sizes) - plan.steps)) if refits else 0.0, 3 * p * p if refits else 0, 0, ())


def judge_bytes(model: Any, config: PruneConfig, windows: tuple[int, int]) -> int:
    """Bytes of what enters every block on the windows that judge, and of the dense outputs and one candidate's."""
    options = {**config.recipe.defaults, **config.options}
    tokens, size = min(options["tokens"], windows[0] * windows[1]), next(model.parameters()).element_size()
    text = model.config.get_text_config()
    outputs = text.vocab_size if predicts_tokens(model) and options["score"] != "hidden" else text.hidden_size
    stream: int = model.get_input_embeddings().embedding_dim
    states: int = tokens * stream * (len(blocks_of(model)) + 1) * size
    compared: int = 2 * min(tokens, options["positions"]) * outputs * size
    return states + compared


def estimated_blocks(
    model: Any, config: PruneConfig, plan: Shortening, rates: Rates, windows: tuple[int, int]
) -> tuple[EstimatedOperator, ...]:
    """A row for every block, with the shape of what is refitted: its share of the runs without one block or another, and, of
    those that remain, the refit."""
    options = {**config.recipe.defaults, **config.options}
    tokens = min(options["tokens"], windows[0] * windows[1])
    text = model.config.get_text_config()
    head = 2 * text.hidden_size * text.vocab_size * min(tokens, options["positions"]) if predicts_tokens(model) else 0
    blocks = list(blocks_of(model))
    forward = 4 * tokens * sum(map(active_weights, blocks))  # of all blocks, twice as long as its matrix products alone
    once = options["score"] == "block-influence"
    tried = 1 if once else plan.visits - len(plan.sizes)
    # a candidate runs the blocks behind it, half of them as a rule
    judging = (forward if once else tried * (0.5 * forward + head)) / rates.single
    p, q = inputs_of_refits(model), text.hidden_size
    refit = len(plan.dampings) * (p**3 / 3 + 6 * q * p * p) / rates.double if config.own("compensate") else 0.0
    if config.own("compensate"):
        refit += (0.5 * forward + head) / rates.single  # whether the output is nearer with it
    each, kept = judging / len(blocks), (len(blocks) - plan.steps) / len(blocks)
    return tuple(EstimatedOperator(f"{plan.path}.{number}", (q, p), each + kept * refit) for number in range(len(blocks)))
