"""What a pruning run would take: its operators, the memory at its peak and its time, before any of it is done.

Memory and time are estimated to within a factor of two. Memory counts the arrays that pruning keeps, not those that loading a
file briefly needs. Time divides operations by the rate of one matrix product measured here and now, so a machine that is busy
later takes longer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.measure.likelihood import VOCABULARY
from gramian.adapters.methods.registry import METHODS
from gramian.adapters.models.families import blocks_of, family_of
from gramian.adapters.models.layers import Layer
from gramian.adapters.models.stacks import blocks_in
from gramian.adapters.run.forward import TOKENS_PER_BATCH
from gramian.adapters.targets import patterns_of
from gramian.solvers.direct.restricted import BATCH_BYTES
from gramian.solvers.support.shrinkage import PILOT_ROWS, STRENGTHS
from gramian.tables import table

__all__ = ["Estimate", "EstimatedOperator", "Rates", "peak_memory", "estimate_pruning"]

LIBRARIES = 600 * 2**20  # bytes that Python, torch and transformers take before any model
PASSES = 2.0  # a block takes about twice as long as its matrix products alone
SELECTION = 1.2e-7  # seconds to rank one weight among others
COLUMN = 4e-4  # seconds a column of the SparseGPT sweep takes besides its products
EIGEN = 20.0  # products of a Gram's size that its eigendecomposition takes
SHORTENED = 0.5  # the part of FISTAPruner's inner steps that is made, since its budget halves at failures

# Working arrays of a method beside its problem, float64: how many are of the Gram's size, how many of the weight's.
WORKING = {"fistapruner": (4, 11), "l0": (6, 10), "sparsegpt": (4, 7), "wanda": (0, 8), "magnitude": (0, 8)}


@dataclass(frozen=True)
class Rates:
    """Operations per second of matrix products in float32 and float64; a multiply-add counts as two."""

    single: float
    double: float

    @classmethod
    def measured(cls, device: torch.device, size: int = 768, seconds: float = 0.1) -> Rates:
        """Measure products on `device` for about `seconds` in each precision."""
        found = []
        for dtype in (torch.float32, torch.float64):
            matrix = torch.ones(size, size, dtype=dtype, device=device)
            float((matrix @ matrix)[0, 0])  # the first product also starts threads
            products, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < seconds or products == 0:
                float((matrix @ matrix)[0, 0])  # reading one number waits for the GPU
                products += 1
            found.append(2 * size**3 * products / elapsed)
        return cls(*found)


@dataclass(frozen=True)
class EstimatedOperator:
    """One operator: its name, the shape of its weight (q, p), and the seconds its solver takes."""

    name: str
    shape: tuple[int, int]
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a run would take. memory: bytes by what holds them, all at once at the peak. seconds: by what takes them, solvers
    included."""

    operators: tuple[EstimatedOperator, ...]
    memory: Mapping[str, int]
    seconds: Mapping[str, float]
    rates: Rates

    @property
    def peak(self) -> int:
        """Bytes at the peak."""
        return sum(self.memory.values())

    @property
    def duration(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())

    def __repr__(self) -> str:
        return f"Estimate({len(self.operators)} operators, {self.peak / 2**20:.0f} MiB at the peak, {self.duration:.0f} s)"

    def __str__(self) -> str:
        """Tables with a row per operator, and of where memory and time go."""
        operators = [[o.name, f"{o.shape[0]}x{o.shape[1]}", f"{o.seconds:.1f}"] for o in self.operators]
        memory = [[name, f"{size / 2**20:.0f}"] for name, size in {**self.memory, "peak": self.peak}.items()]
        seconds = [[name, f"{spent:.0f}"] for name, spent in {**self.seconds, "total": self.duration}.items()]
        weights = sum(math.prod(o.shape) for o in self.operators)
        return "\n".join(
            [
                table(["operator", "shape", "solver s"], operators),
                f"{len(operators)} operators, {weights:,} weights\n",
                table(["memory at the peak", "MiB"], memory),
                "",
                table(["time", "s"], seconds),
                f"\nThese are estimates, from {self.rates.single / 1e9:.0f} (float32) and {self.rates.double / 1e9:.0f} "
                "(float64) GFLOP/s measured just now; expect them within a factor of two.",
            ]
        )


def estimate_pruning(
    model: Any,
    windows: tuple[int, int],
    config: PruneConfig,
    *,
    heldout: int = 0,
    evaluated: int = 0,
    rates: Rates | None = None,
) -> Estimate:
    """Estimate what a run with these settings, of a method that zeroes weights, would take; `model` is unchanged.

    windows: how many calibration windows there are, and how many tokens in each. heldout, evaluated: how many more such
    windows errors and perplexity (before and after) are measured on. rates: measured within a quarter of a second where they
    are not given. Nothing is known of a method of the user's own, so it is counted as SparseGPT. Errors are those of
    `patterns_of`.
    """
    method, jobs, options = config.method, config.jobs, config.options
    calibrate_on, target, damping = config.own("calibrate_on"), config.own("target"), config.own("damping") or 0.0
    names = list(patterns_of(model, config)[0])
    device = next(model.parameters()).device
    rates = rates or Rates.measured(device)
    shapes = {name: layer_shape(model, name) for name in names}
    operators = [
        EstimatedOperator(name, shape, solver_seconds(method, shape, options, rates, heldout > 0, damping, config.refit))
        for name, shape in shapes.items()
    ]

    # For each block: widths of what flows into its stages, and what part of the block is computed before each stage.
    family, blocks = family_of(model), blocks_of(model)
    length = windows[1]
    tokens = (windows[0] + heldout) * length
    kept_widths, moment_entries, moment_operations, replays = 0, 0, 0.0, 0.0
    for index in range(len(blocks)):
        widths, starts, done = [], [], 0
        for stage in family.stages:
            stage_names = [f"{family.blocks}.{index}.{operator}" for operator in stage]
            if chosen := [name for name in stage_names if name in shapes]:
                widths.append(shapes[chosen[0]][1])
                starts.append(done)
            done += sum(math.prod(layer_shape(model, name)) for name in stage_names)
        squares = [width**2 for width in widths]
        # A product A^T A takes half the operations of a general one.
        if target == "own":  # all stages of a block are streamed at once
            moment_entries = max(moment_entries, sum(squares))
            moment_operations += tokens * sum(squares)
        elif squares:  # stages follow one another, with G, C and E; on dense inputs nothing has changed before the first
            kept_widths = max(kept_widths, sum(widths))
            moment_entries = max(moment_entries, 3 * max(squares))
            moment_operations += tokens * (4 * sum(squares) - (3 * squares[0] if calibrate_on == "dense" else 0))
            replays += sum(starts) / done / len(blocks)

    hidden_width = model.get_input_embeddings().embedding_dim
    vocabulary = model.config.get_text_config().vocab_size
    bytes_each = next(model.parameters()).element_size()
    at_once, stacks = min(jobs, len(blocks)), device.type != "cpu"
    streams = 2 if calibrate_on == "dense" else (4 if target == "model" else 3)
    if jobs > 1:  # every block that is worked on has its own
        streams = at_once + 2
    pruning = {
        "hidden states between blocks": streams * tokens * hidden_width * bytes_each,
        "operator inputs kept for the target": at_once * tokens * kept_widths * bytes_each,
        "moments of one block, float64": at_once * (2 if heldout else 1) * moment_entries * 8,
        f"working arrays of {method}": at_once * max(working_bytes(method, shape, stacks) for shape in shapes.values()),
        "one batch inside a block": at_once * 16 * max(TOKENS_PER_BATCH, length) * max(map(max, shapes.values())),
    }
    memory = peak_memory(model, pruning, length if evaluated else 0)

    block_weights = sum(each.numel() for each in blocks.parameters())
    forward = PASSES * 2 * (block_weights + 2 * length * hidden_width * len(blocks))  # operations per token
    passes = 1 + replays + (calibrate_on == "pruned") + (jobs > 1)
    seconds = {
        "forward passes": tokens * forward * passes / rates.single,
        "moments": moment_operations / rates.double,
        "solvers": sum(operator.seconds for operator in operators),
    }
    if evaluated:
        seconds["perplexity, dense and pruned"] = (
            2 * evaluated * length * (forward + 2 * hidden_width * vocabulary) / rates.single
        )
    return Estimate(tuple(operators), memory, seconds, rates)


def peak_memory(model: Any, pruning: Mapping[str, int], evaluated_length: int) -> dict[str, int]:
    """Bytes by holder at the worst moment: while pruning, or while the logits of windows of `evaluated_length` tokens (0 for
    none) are in memory, since the two are never there together. Of blocks that are streamed, whose weights are not there yet,
    the largest counts."""
    vocabulary = model.config.get_text_config().vocab_size
    logits = {"logits for perplexity": 3 * 4 * evaluated_length * min(VOCABULARY, vocabulary)}
    peak = pruning if sum(pruning.values()) >= sum(logits.values()) else logits
    held = {each: each.numel() * each.element_size() for each in {*model.parameters(), *model.buffers()}}
    streamed = max(sum(held[each] for each in block.parameters() if each.is_meta) for block in blocks_in(model).values())
    return {
        "Python and its libraries": LIBRARIES if next(model.parameters()).device.type == "cpu" else 0,
        "model": sum(size for each, size in held.items() if not each.is_meta),
        **({"one block, streamed": streamed} if streamed else {}),
        **{holder: size for holder, size in peak.items() if size},
    }


def layer_shape(model: Any, name: str) -> tuple[int, int]:
    """The shape (q, p) of an operator's weight."""
    rows, columns = Layer(name, model.get_submodule(name)).weight.shape
    return rows, columns


def working_bytes(method: str, shape: tuple[int, int], stacks: bool = False) -> int:
    """Bytes that a method holds beside the moments: its working arrays and the weight in float64. stacks: whether rows are
    refitted many at a time, as they are off the CPU."""
    grams, weights = WORKING.get(method, WORKING["sparsegpt"])
    row = 2 * shape[1] ** 2  # bytes of a Gram of half of the channels
    factorised = (3 * min(BATCH_BYTES, shape[0] * row) if stacks else row) if method == "l0" else 0
    if method == "exchange":  # tableaus of as many rows as fit, each of twice the squared number of kept channels
        factorised = min(BATCH_BYTES, 2 * shape[0] * row)
    return 8 * (grams * shape[1] ** 2 + (weights + 1) * math.prod(shape)) + factorised


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
        evaluation += sweep + min(q, PILOT_ROWS) * (1 + len(STRENGTHS)) * exact
    chosen: dict[str, Any] = {**METHODS[method].defaults, **options} if method in ("l0", "fistapruner") else {}
    if method == "l0":
        steps: float = chosen["steps"]
        stages: float = steps / chosen["stage"]
        step = product / rates.single + ranking
        return evaluation + EIGEN * 2 * p**3 / rates.single + stages * 2 * p**3 / rates.single + steps * step + q * exact
    if method != "fistapruner":
        return evaluation + (direct if method in ("wanda", "magnitude") else sweep)
    one_lambda: float = SHORTENED * chosen["inner_steps"] * product / rates.single + 2 * product / rates.double + ranking
    start = {"sparsegpt": sweep, "dense": 0.0}.get(chosen["warm_start"], direct)
    lambdas: float = chosen["max_lambdas"]
    return evaluation + start + 6 * p**3 / rates.single + lambdas * one_lambda
