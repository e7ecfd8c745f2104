"""What a method that removes units takes: working arrays and seconds for one module, gradients of the whole model."""

from __future__ import annotations

from typing import Any

from torch import nn

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates.figures import EstimatedOperator, Rates
from gramian.adapters.methods.unit_sets import UnitSet
from gramian.adapters.models.stacks import blocks_in
from gramian.adapters.models.units import operator, width
from gramian.adapters.removal.plan import Removal
from gramian.solvers.units.unit_exchange import BETWEEN

__all__ = ["GRADIENTS", "estimated_modules", "gradient_bytes", "mask_bytes", "relaxation_seconds", "working_bytes"]

STEP = 1.2e-3  # seconds in which the compensated score removes one unit, besides its products
PRODUCTS = {"compensated": 25, "box": 25, "newton": 8}  # of two matrices of the Gram's size that a score takes
# Passes through the model that a method's scores take for every window, counted in forward passes (a backward pass is two), and
# arrays of all its weights beside them, in float32.
GRADIENTS = {
    "tasp": (3, 0), "snip": (3, 1), "llm-pruner": (3, 2), "grasp": (9, 2), "ntk-sap": (6, 2), "synflow": (0, 4), "px": (2, 6),
}  # fmt: skip
PER_BLOCK = 34  # numbers that a block keeps for the backward pass, for every token and entry of its input
WORKING = (8, 10)  # arrays of the Gram's size and of the weight's beside a problem, float64, scoring or compensating


def estimated_modules(model: Any, config: PruneConfig, removal: Removal, rates: Rates) -> tuple[EstimatedOperator, ...]:
    """A row for every consumer, with the time that its module takes."""
    rows = []
    for unit_set in removal.unit_sets:
        shape = consumer_shape(model, unit_set.name)
        spent = module_seconds(unit_set, shape, score_of(config), removal.compensation, rates)
        if config.refit_producers:
            spent += producer_seconds(model, unit_set, shape, rates)
        if config.swap_search:
            spent += swap_seconds(shape, rates)
        rows.append(EstimatedOperator(unit_set.name, shape, spent))
    return tuple(rows)


def score_of(config: PruneConfig) -> str:
    """The name of the score."""
    return str({**config.recipe.defaults, **config.options}.get("score", config.method))


def relaxes(config: PruneConfig) -> bool:
    """Whether one relaxation of all modules says how much is removed from each."""
    return config.own("allocation") == "loss" and score_of(config) != "compensated"


def working_bytes(shape: tuple[int, int]) -> int:
    """Bytes that a module takes beside its moments."""
    q, p = shape
    return 8 * (WORKING[0] * p**2 + (WORKING[1] + 1) * q * p)


def mask_bytes(config: PruneConfig, removal: Removal) -> int:
    """Bytes of the mask problems of all modules, if one relaxation of them all is solved."""
    return sum(8 * unit_set.removable**2 for unit_set in removal.unit_sets) if relaxes(config) else 0


def relaxation_seconds(config: PruneConfig, removal: Removal, rates: Rates) -> float:
    """The time of that relaxation: one factorisation of every module a step."""
    operations = sum(PRODUCTS["box"] * 2 * unit_set.removable**3 for unit_set in removal.unit_sets)
    return operations / rates.double if relaxes(config) else 0.0


def gradient_bytes(model: Any, method: str, length: int) -> int:
    """Bytes that gradients of the whole model and one window's activations take."""
    layers, (_, copies) = list(blocks_in(model).values()), GRADIENTS[method]
    hidden, vocabulary = model.get_input_embeddings().embedding_dim, model.config.get_text_config().vocab_size
    activations: int = 4 * length * (PER_BLOCK * hidden * len(layers) + 3 * vocabulary)
    return activations + 4 * copies * sum(each.numel() for layer in layers for each in layer.parameters())


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
