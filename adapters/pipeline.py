"""Weights are zeroed block by block: every operator is given its problem, and the solution is written back and evaluated."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from gramian.adapters.data.problem_files import write_problem
from gramian.adapters.data.tokens import Tokens, check_windows, provenance
from gramian.adapters.devices import current_device, solver_array, where
from gramian.adapters.methods.registry import Method, resolve
from gramian.adapters.models.families import blocks_of, family_of, operator_names
from gramian.adapters.models.layers import Layer
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.report import OperatorReport, Report
from gramian.adapters.run.blocks import BlockCall, batches_of, enter, inputs_of, run_block
from gramian.adapters.run.moments import MomentCollector
from gramian.adapters.run.placement import Placement
from gramian.solvers import NM, Pattern, Support, TopK, certify, parse_pattern
from gramian.solvers.support.damped import CalibrationSplit, DampedMethod, check_damping

__all__ = ["prune_weights"]

CHOOSING = 4  # one batch in this many chooses the damping


@dataclass(frozen=True)
class Job:
    """Settings that all blocks of one run share."""

    stages: tuple[tuple[str, ...], ...]
    blocks_path: str
    chosen: frozenset[str]
    solve: DampedMethod
    pattern: Pattern
    calibrate_on: str
    target: str
    target_blend: float
    parts: tuple[int, ...]  # how many batches are fitted, and how many choose the damping; the rest are held out for the report
    dtype: torch.dtype
    advance: Callable[[], object]
    problems: Path | None

    def named(self, index: int, operator: str) -> str:
        """The full name of an operator of block `index`."""
        return f"{self.blocks_path}.{index}.{operator}"

    def wanted(self, index: int, stage: tuple[str, ...]) -> list[str]:
        """The operators of a stage that are to be pruned."""
        return [operator for operator in stage if self.named(index, operator) in self.chosen]


def prune_weights(
    model: Any,
    tokens: Tokens | torch.Tensor,
    *,
    method: str = "fistapruner",
    sparsity: float | None = None,
    pattern: str | Pattern | None = None,
    options: Mapping[str, Any] | None = None,
    calibrate_on: str | None = None,
    target: str | None = None,
    target_blend: float | None = None,
    damping: float | str | None = None,
    refit: bool = False,
    heldout: Tokens | torch.Tensor | None = None,
    include: str | None = None,
    exclude: str | None = None,
    jobs: int = 1,
    device: str | torch.device | Placement | None = None,
    problems: Path | None = None,
    progress: bool = True,
) -> Report:
    """argmin_V 1/2 |X* V^T - X W^T|_F^2 over V of a pattern, for every linear operator inside the blocks of a causal model.

    The model is pruned in place. tokens: calibration windows (n, length), integers. pattern: `"2:4"`, a Pattern, or None for
    `sparsity` of every operator, 0.5 by default (grouped as the method does: by row for Wanda, over the whole matrix
    otherwise). options: keywords of the method, such as `{"warm_start": "wanda"}`. heldout: windows like `tokens` on which
    errors are reported too. problems: an empty directory for problem files, one per operator as it was solved, with slope and
    floor where X* != X.

    damping: how far the estimated Gram is trusted, see `DampedMethod`: a number, "auto" (a quarter of the calibration batches,
    if there are four or more, then chooses its strength and is fitted afterwards), or None for the method's own. refit:
    whether to solve for the best weights on the method's support.

    calibrate_on: what enters a block, `dense` (activations of the dense model; blocks are then independent, and `jobs` of them
    are pruned at once with the same result) or `pruned` (activations of the blocks pruned so far). target: where the X of an
    operator's target X W^T comes from; with `own`, X is the operator's own input (one pass over the dense block); with
    `block`, X comes from the dense block on the same block inputs and X* from the partly pruned one (FISTAPruner, Section
    3.1); with `model`, X comes from the dense model. target_blend: how far the target goes there, from 0, X* W^T, to 1: X is
    replaced by (1 - target_blend) X* + target_blend X. Each is the method's own by default.

    device: where blocks are worked on, one at a time, if not where the model is, which may then be larger than the device's
    memory (`Placement`); what passes between blocks remains with the model.

    The checkpoint's dtype is that of `model.config.dtype`; weights are rounded to it before they are evaluated. ValueError:
    before any work for bad arguments, and, naming the layer, for NaN or Inf in weights or activations.
    """
    started = time.perf_counter()
    recipe = resolve(method)
    calibrate_on, target = calibrate_on or recipe.calibrate_on, target or recipe.target
    target_blend, damping = target_of(recipe, target, target_blend, damping, refit)
    if calibrate_on not in ("dense", "pruned"):
        raise ValueError(f"calibrate_on must be 'dense' or 'pruned' but is {calibrate_on!r}")
    if target not in ("own", "block", "model"):
        raise ValueError(f"target must be 'own', 'block' or 'model' but is {target!r}")
    if jobs < 1 or (jobs > 1 and calibrate_on == "pruned"):
        raise ValueError(
            f"jobs is {jobs}: at least 1, and only 1 when calibrate_on='pruned', where a block needs its predecessors"
        )
    if jobs > 1 and device is not None:
        raise ValueError(f"jobs is {jobs} but only one block at a time visits a device: leave out jobs or device={device!r}")
    placement = device if isinstance(device, Placement) else Placement(device)
    if pattern is not None and sparsity is not None:
        raise ValueError(f"sparsity={sparsity} and pattern={str(pattern)!r} are both given: a pattern has its own sparsity")
    if pattern is None:
        pattern = TopK(0.5 if sparsity is None else sparsity, per_row=recipe.per_row)
    elif isinstance(pattern, str):
        pattern = parse_pattern(pattern)
    given = tokens if isinstance(tokens, Tokens) else Tokens(tokens, "a tensor")
    check_windows(model, given.windows, "calibration windows")
    apart = heldout.windows if isinstance(heldout, Tokens) else heldout
    if apart is not None:
        check_windows(model, apart, "held-out windows")
    names = operator_names(model, include, exclude)
    check_weights(model, names, pattern)
    solve = recipe.tried(options or {}, pattern)
    batches = batches_of(given.windows)
    choosing = len(batches) // CHOOSING if damping == "auto" else 0
    parts = (len(batches) - choosing, choosing)
    if apart is not None:
        batches += batches_of(apart)
    if problems is not None:
        problems.mkdir(parents=True, exist_ok=True)
    family = family_of(model)
    last = max(int(name.removeprefix(f"{family.blocks}.").split(".")[0]) for name in names)
    blocks = list(blocks_of(model))[: last + 1]
    results: list[list[OperatorReport]] = []
    place = placement.device or next(model.parameters()).device
    bars = tqdm(total=len(names), desc=method, unit="operator", disable=not progress)
    with eval_mode(model), current_device(place), placement, bars as bar:
        job = Job(
            family.stages, family.blocks, frozenset(names), DampedMethod(solve, damping, refit), pattern, calibrate_on, target,
            target_blend, parts, storage_dtype(model), bar.update, problems,
        )  # fmt: skip
        dense, calls = enter(model, batches)
        entering = dense
        if jobs == 1:
            for index, block in enumerate(blocks):
                placement.take(block)
                rows, dense, entering = prune_block(job, index, block, calls[index], dense, entering)
                results.append(rows)
        else:
            results = prune_in_parallel(job, blocks, calls, dense, jobs)
    settings: dict[str, Any] = {
        "method": method,
        "pattern": str(pattern),
        "options": {**recipe.defaults, **(options or {})},
        "calibrate_on": calibrate_on,
        "target": target,
        "target_blend": None if target == "own" else target_blend,
        "damping": damping,
        "refit": refit,
        "include": include,
        "exclude": exclude,
        "jobs": jobs,
        **provenance(given, apart, job.dtype),
        **where(place, model.dtype),
    }
    return Report(tuple(row for rows in results for row in rows), settings, time.perf_counter() - started)


def target_of(
    recipe: Method, target: str, target_blend: float | None, damping: float | str | None, refit: bool
) -> tuple[float, float | str]:
    """Return the target blend and the damping, the method's own where none is given. ValueError where one is out of range, and
    where one would change nothing."""
    if target_blend is not None and not 0 < target_blend <= 1:
        raise ValueError(
            f"target_blend must be above 0 and at most 1 but is {target_blend}: for the operator's own "
            "output there is target='own'"
        )
    if target_blend not in (None, 1) and target == "own":
        raise ValueError(
            f"target_blend is {target_blend}, but with target='own' there is nothing to blend: leave one of them out"
        )
    if damping is not None:
        check_damping(damping)
        if damping != 0 and not (recipe.damps or refit):
            raise ValueError(f"damping is {damping!r}, but the method knows no inputs and solves for nothing: add refit=True")
    return recipe.target_blend if target_blend is None else target_blend, recipe.damping if damping is None else damping


def prune_in_parallel(
    job: Job, blocks: list[nn.Module], calls: list[BlockCall], hidden: list[torch.Tensor], jobs: int
) -> list[list[OperatorReport]]:
    """Prune independent blocks at once: on dense inputs a block's work depends on nothing but its weights and inputs."""

    def rows_of(index: int, inputs: list[torch.Tensor]) -> list[OperatorReport]:
        with current_device(inputs[0].device):  # every thread has a current device of its own
            return prune_block(job, index, blocks[index], calls[index], inputs, inputs)[0]

    threads = torch.get_num_threads()
    futures: list[Future[list[OperatorReport]]] = []
    with ThreadPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        try:
            for index, block in enumerate(blocks):
                following = run_block(block, calls[index], hidden)  # this runs before the block is handed over and changes
                if index >= jobs:
                    futures[index - jobs].result()  # memory holds hidden states of no more blocks than are worked on
                futures.append(pool.submit(rows_of, index, hidden))
                hidden = following
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@torch.no_grad()
def prune_block(
    job: Job, index: int, block: nn.Module, call: BlockCall, dense: list[torch.Tensor], entering: list[torch.Tensor]
) -> tuple[list[OperatorReport], list[torch.Tensor], list[torch.Tensor]]:
    """Prune one block in place. The result is its reports, and the hidden states that enter the next block on the dense path
    and on the path that is calibrated on."""
    stages = [stage for stage in job.stages if job.wanted(index, stage)]
    source = dense if job.target == "model" else entering
    targets: dict[tuple[str, ...], MomentCollector] = {
        stage: MomentCollector(
            job.named(index, stage[0]),
            job.parts,
            keep=job.target != "own",
            target_blend=job.target_blend,
            home=source[0].device,
        )
        for stage in stages
    }
    receivers = {block.get_submodule(stage[0]): targets[stage].receive for stage in stages}
    leaving = run_block(block, call, source, receivers)
    del receivers  # they refer to the collectors that `targets` gives up
    rows: list[OperatorReport] = []
    for stage in stages:
        collector = targets.pop(stage)
        first = block.get_submodule(stage[0])
        layers = [Layer(job.named(index, name), block.get_submodule(name)) for name in job.wanted(index, stage)]
        if job.target != "own":
            moved = bool(rows) or source is not entering
            star = inputs_of(first, block, call, entering) if moved else None
            collector.settle(star)
        rows.extend(prune_layer(job, layer, collector) for layer in layers)
        del collector, layers  # their memory is free before the next stage's moments are formed
    if job.calibrate_on == "dense":
        return rows, leaving, leaving
    following = run_block(block, call, entering)
    return rows, leaving if job.target == "model" else following, following


def prune_layer(job: Job, layer: Layer, collector: MomentCollector) -> OperatorReport:
    """Solve one operator's problem, write the rounded answer back, and evaluate what is stored."""
    started = time.perf_counter()
    moments, fitted = collector.calibration, collector.moments[0]
    choosing, apart = collector.moments.get(1), collector.moments.get(2)
    problem = layer.problem(moments)
    heldout = None if apart is None else layer.problem(apart)
    split = None if choosing is None else (layer.problem(fitted), layer.problem(choosing), fitted.tokens)
    if job.problems is not None:
        metadata = {"operator": layer.name, "calibrate_on": job.calibrate_on, "target": job.target}
        file = job.problems / f"{layer.name}.safetensors"
        write_problem(file, problem, tokens=moments.tokens, metadata=metadata)
    try:
        solution = job.solve(problem, job.pattern, CalibrationSplit(moments.tokens, split))
    except ValueError as error:
        raise ValueError(f"{layer.name}: {error}") from error
    layer.assign(solution.weights, job.dtype)
    stored = solver_array(layer.weight.to(torch.float64))
    mask = stored != 0
    if not job.pattern.admits(mask):
        raise RuntimeError(f"{layer.name}: the solution does not satisfy the pattern {job.pattern}")
    certificate = certify(problem, Support(mask), stored)
    job.advance()
    return OperatorReport(
        name=layer.name,
        shape=problem.shape,
        pattern=str(job.pattern),
        sparsity=1 - float(mask.sum()) / (problem.shape[0] * problem.shape[1]),
        relative_error=certificate.relative_error,
        heldout_error=None if heldout is None else heldout.relative_error(stored),
        residual=certificate.residual or 0.0,
        status=solution.status.value,
        seconds=time.perf_counter() - started,
        detail=dict(solution.detail),
    )


def check_weights(model: nn.Module, names: list[str], pattern: Pattern) -> None:
    """Raise ValueError for a layer that the pattern does not divide, or a parameter that is not finite, naming it."""
    for name in names:
        weight = Layer(name, model.get_submodule(name)).weight
        if isinstance(pattern, NM):
            try:
                pattern.check((weight.shape[0], weight.shape[1]))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    for name, parameter in model.named_parameters():
        if not parameter.is_meta and not bool(torch.isfinite(parameter).all()):  # streamed parameters are checked when read
            raise ValueError(f"{name} holds NaN or Inf")
