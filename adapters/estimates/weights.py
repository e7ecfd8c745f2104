"""What a method that zeroes weights takes for one operator: working arrays and seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gramian.adapters.estimates.figures import Rates
from gramian.adapters.methods.registry import METHODS
from gramian.solvers.direct.factorised import BATCH_BYTES
from gramian.solvers.support.shrinkage import PILOT_ROWS

__all__ = ["bytes_given", "inverse_seconds", "solver_seconds", "working_bytes"]

SELECTION = 1.2e-8  # seconds to rank one weight among others
COLUMN = 4e-4  # seconds a column of the SparseGPT sweep takes besides its products
TRIED = 4  # refits of the pilot: of itself, and at the strengths that are tried as a rule
LAMBDAS = 60  # that Algorithm 1 as printed tries as a rule, whatever it may
EIGEN = 20.0  # products of a Gram's size that its eigendecomposition takes

WHITENING, SINGULAR = 5.0, 16.0  # that in float64 alone, and products (q, p) by (p, min(q, p)) that singular values take
ITERATIVE = ("l0", "fistapruner", "fistapruner-printed", "armor", "sparse-low-rank")
SWEEP = 22.0  # products V G in float64 that a sweep of ARMOR takes
USED = 0.7  # of the sweeps, before one gains too little

# Working arrays of a method beside its problem, float64: how many are of the Gram's size, how many of the weight's.
WORKING = {
    "fistapruner": (4, 11), "l0": (6, 10), "sparsegpt": (4, 7), "wanda": (0, 8), "magnitude": (0, 8), "armor": (5, 16),
    "sparse-low-rank": (9, 14),
}  # fmt: skip


def working_bytes(method: str, shape: tuple[int, int], stacks: bool = False) -> int:
    """Bytes that a method holds beside the moments: its working arrays and the weight in float64. stacks: whether rows are
    refitted many at a time, as they are off the CPU."""
    grams, weights = WORKING.get(method, WORKING["sparsegpt"])
    row = 2 * shape[1] ** 2  # bytes of a Gram of half of the channels
    factorised = (3 * min(BATCH_BYTES, shape[0] * row) if stacks else row) if method == "l0" else 0
    if method == "exchange":  # tableaus of as many rows as fit, each of twice the squared number of kept channels
        factorised = min(BATCH_BYTES, 2 * shape[0] * row)
    return 8 * (grams * shape[1] ** 2 + (weights + 1) * math.prod(shape)) + factorised


def bytes_given(method: str, options: Mapping[str, Any], shapes: Sequence[tuple[int, int]], compete: bool) -> float:
    """Bytes, at most, that processes give each other which share the rows of operators: inverses, and where rows compete scores
    as often as the method chooses, of which the CPU's give a small part."""
    if method != "l0":
        return 0.0
    chosen: dict[str, Any] = {**METHODS[method].defaults, **options}
    steps: float = chosen["steps"]
    stages: float = steps / chosen["stage"]
    scores = steps * sum(map(math.prod, shapes)) if compete else 0.0
    return 4 * (scores + stages * sum(inputs**2 for _, inputs in shapes))


def inverse_seconds(method: str, inputs: int, options: Mapping[str, Any], rates: Rates) -> float:
    """Of `solver_seconds`, what the inverses of an operator's stages take, which processes that share rows make by turns."""
    if method != "l0":
        return 0.0
    chosen: dict[str, Any] = {**METHODS[method].defaults, **options}
    stages: float = chosen["steps"] / chosen["stage"]
    return stages * 2 * inputs**3 / rates.single


def solver_seconds(
    method: str,
    shape: tuple[int, int],
    options: Mapping[str, Any],
    rates: Rates,
    heldout: bool,
    damping: float | str = 0.0,
    refit: bool = False,
) -> float:
    """Time to solve one operator and to evaluate the result, in matrix products, rankings, sweeps and factorisations."""
    q, p = shape
    product = 2 * q * p * p  # V G
    evaluation = (4 + 2 * heldout) * product / rates.double
    ranking = SELECTION * q * p
    direct = ranking + 2 * product / rates.double
    sweep = direct + 4 * p**3 / rates.double + COLUMN * p
    exact = (p / 2) ** 3 / 3 * 2 / rates.double  # weights of one row, half of them kept
    evaluation += q * exact if refit else 0.0
    if damping == "auto":
        evaluation += sweep + min(q, PILOT_ROWS) * TRIED * exact
    chosen: dict[str, Any] = {**METHODS[method].defaults, **options} if method in ITERATIVE else {}
    if method == "l0":
        steps: float = chosen["steps"]
        step = product / rates.single + ranking
        inverses = inverse_seconds(method, p, options, rates)
        return evaluation + EIGEN * 2 * p**3 / rates.single + inverses + steps * step + q * exact
    singular = SINGULAR * 2 * q * p * min(q, p) / rates.double
    if method == "low-rank":
        return evaluation + WHITENING * 2 * p**3 / rates.double + singular
    if method == "sparse-low-rank":
        rounds: float = chosen["rounds"]
        alone = solver_seconds(chosen["support"], shape, {}, rates, heldout) - (4 + 2 * heldout) * product / rates.double
        refits = chosen["polish"] * q * exact
        spectral = WHITENING * 2 * p**3 / rates.double + (rounds + chosen["polish"]) * singular
        spent: float = evaluation + (1 + rounds) * alone + refits + spectral
        return spent
    if method not in ITERATIVE:
        return evaluation + (direct if method in ("wanda", "magnitude") else sweep)
    if method == "armor":
        begun = solver_seconds(chosen["warm_start"], shape, {}, rates, heldout, damping)
        sweeps: float = chosen["sweeps"]
        return begun + USED * sweeps * SWEEP * product / rates.double
    one_lambda: float = chosen["inner_steps"] * product / rates.single + 2 * product / rates.double + ranking
    start = {"sparsegpt": sweep, "dense": 0.0}.get(chosen["warm_start"], direct)
    lambdas: float = min(chosen["max_lambdas"], LAMBDAS)
    return evaluation + start + 6 * p**3 / rates.single + lambdas * one_lambda
