"""What a removal of units would do: its modules, its peak memory and its time, before any of it is done."""

from __future__ import annotations

from typing import Any

from torch import nn

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates import PASSES, Estimate, EstimatedOperator, Rates, peak_memory
from gramian.adapters.methods.unit_sets import UnitSet
from gramian.adapters.models.stacks import blocks_in, walks_by_block
from gramian.adapters.models.tasks import kind_of
from gramian.adapters.models.unit_groups import operator, unit_groups_of, width
from gramian.adapters.removal.plan import plan_removal
from gramian.adapters.run.forward import TOKENS_PER_BATCH
from gramian.solvers.units.unit_exchange import BETWEEN

__all__ = ["estimate_removal"]

STEP = 1.2e-3  # seconds in which the compensated score removes one unit, besides its products
PRODUCTS = {"compensated": 25, "box": 25, "newton": 8}  # of two matrices of the Gram's size that a score takes
# Passes through the model that a method's scores take for every window, counted in forward passes (a backward pass is two), and
# arrays of all its weights beside them, in float32.
GRADIENTS = {
    "tasp": (3, 0), "snip": (3, 1), "llm-pruner": (3, 2), "grasp": (9, 2), "ntk-sap": (6, 2), "synflow": (0, 4), "px": (2, 6),
}  # fmt: skip
PER_BLOCK = 34  # numbers that a block keeps for the backward pass, for every token and entry of its input
WORKING = (8, 10)  # arrays of the Gram's size and of the weight's beside a problem, float64, scoring or compensating


def estimate_removal(
    model: Any,
    windows: tuple[int, int],
    config: PruneConfig,
    *,
    heldout: int = 0,
    evaluated: int = 0,
    rates: Rates | None = None,
) -> Estimate:
    """Estimate what a run with these settings would do to `model`, which is not changed.

    The operators of the estimate are the consumers. windows, heldout, evaluated, rates and the errors raised are as in
    `estimate_pruning`; `target_blend` and `damping` are checked, and change no estimate."""
    recipe, method, refit_producers = config.recipe, config.method, config.refit_producers
    removal = plan_removal(model, config)
    settings = {**recipe.defaults, **config.options}
    score = str(settings["score"]) if "score" in settings else method
    allocation = config.own("allocation")
    device = next(model.parameters()).device
    rates = rates or Rates.measured(device)
    shapes = {unit_set.name: consumer_shape(model, unit_set.name) for unit_set in removal.unit_sets}
    operators = []
    for unit_set in removal.unit_sets:
        spent = module_seconds(unit_set, shapes[unit_set.name], score, removal.compensation, rates)
        if refit_producers:
            spent += producer_seconds(model, unit_set, shapes[unit_set.name], rates)
        if config.swap_search:
            spent += swap_seconds(shapes[unit_set.name], rates)
        operators.append(EstimatedOperator(unit_set.name, shapes[unit_set.name], spent))

    drifting = removal.calibrate_on == "pruned"  # the second walk then follows two paths, and keeps the inputs of the dense one
    gathers = recipe.inputs or allocation == "loss"
    relaxing = allocation == "loss" and score != "compensated"
    layers, length, by_block = list(blocks_in(model).values()), windows[1], walks_by_block(model)
    fitted, tokens = windows[0] * length, (windows[0] + heldout) * length
    squares = sum(p**2 for _, p in shapes.values())
    together = "one block" if by_block else "all modules"
    squares_together = squares / len({unit_set.unit_group.block for unit_set in removal.unit_sets}) if by_block else squares
    widest = max(p for _, p in shapes.values())
    hidden_width = model.get_input_embeddings().embedding_dim
    vocabulary = model.config.get_text_config().vocab_size
    bytes_each = next(model.parameters()).element_size()
    working = max(8 * (WORKING[0] * p**2 + (WORKING[1] + 1) * q * p) for q, p in shapes.values())
    kept_width = (
        sum(unit_group.units * unit_group.size for unit_group in unit_groups_of(model).values()) / len(layers)
        + 2 * hidden_width * refit_producers
    )
    parts = 1 + bool(heldout)
    pruning = {
        "hidden states between blocks": (5 if drifting else 3) * tokens * hidden_width * bytes_each if by_block else 0,
        "operator inputs kept for the target": int(tokens * kept_width * bytes_each) if drifting else 0,
        f"moments of {together}, float64": parts * 8 * (3 * widest**2 if drifting else int(squares_together)),
        "mask problems of all modules": sum(8 * unit_set.removable**2 for unit_set in removal.unit_sets) if relaxing else 0,
        f"working arrays of {method}": working,
        "one batch inside a block": 16 * max(TOKENS_PER_BATCH, length) * max(map(max, shapes.values())),
    }
    passes, copies = GRADIENTS.get(method, (0, 0))
    block_weights = sum(each.numel() for layer in layers for each in layer.parameters())
    if method in GRADIENTS:
        activations = 4 * length * (PER_BLOCK * hidden_width * len(layers) + 3 * vocabulary)
        gradients = {"gradients and activations of one window": activations + 4 * copies * block_weights}
        pruning = max(pruning, gradients, key=lambda held: sum(held.values()))
    memory = peak_memory(model, pruning, length if evaluated and kind_of(model.config) == "causal" else 0)

    forward = PASSES * 2 * (block_weights + 2 * length * hidden_width * len(layers))  # operations per token
    looks = 2 * (recipe.prepare is not None and not passes)  # statistics that are no gradients take up to two runs of the model
    walked = fitted * (gathers + looks) + tokens * (
        1 + (1 + (1 + 2 * refit_producers) * len(shapes) / (2 * len(layers))) * drifting
    )
    seconds = {
        "forward passes": forward * walked / rates.single,
        **({"gradients": (forward + 2 * hidden_width * vocabulary) * fitted * passes / rates.single} if passes else {}),
        # a product A^T A takes half the operations of a general one
        "moments": squares * (fitted * gathers + tokens * (4 if drifting else 1)) / rates.double,
        "solvers": sum(each.seconds for each in operators),
    }
    if relaxing:  # one factorisation of every module a step
        seconds["joint relaxation"] = (
            sum(PRODUCTS["box"] * 2 * unit_set.removable**3 for unit_set in removal.unit_sets) / rates.double
        )
    if evaluated:
        seconds["perplexity, dense and pruned"] = (
            2 * evaluated * length * (forward + 2 * hidden_width * vocabulary) / rates.single
        )
    return Estimate(tuple(operators), memory, seconds, rates)


def consumer_shape(model: nn.Module, name: str) -> tuple[int, int]:
    """(q, p): outputs and inputs of a consumer."""
    module = operator(model, name)
    return width(module, "outputs"), width(module, "inputs")


def producer_seconds(model: nn.Module, unit_set: UnitSet, shape: tuple[int, int], rates: Rates) -> float:
    """The time to fit one module's producers and, once more, its consumer."""
    names = [f"{unit_set.unit_group.block}.{path}" for path, _ in unit_set.unit_group.structure.producers]
    fits = [(width(operator(model, name), "outputs"), width(operator(model, name), "inputs")) for name in names]
    return sum(5 * 2 * p**3 + 4 * 2 * q * p * p for q, p in [*fits, shape]) / rates.double


def module_seconds(unit_set: UnitSet, shape: tuple[int, int], score: str, compensation: str, rates: Rates) -> float:
    """The time to score one module's units, to compensate for the removed ones, and to evaluate the result."""
    q, p = shape
    product = 2 * q * p * p  # V G
    scoring = PRODUCTS.get(score, 0) * 2 * p**3 / rates.double + (
        STEP * len(unit_set.scored) if score == "compensated" else 0.0
    )
    refitting = (5 * 2 * p**3 + 4 * product) / rates.double if compensation == "weights" else 0.0
    return scoring + refitting + 4 * product / rates.double


def swap_seconds(shape: tuple[int, int], rates: Rates) -> float:
    """The time of one round of swaps, which compares half of the kept units with the other half and updates the tableau."""
    q, p = shape
    return BETWEEN * (q * p**2 / 2 + 4 * p**2) / rates.double
