"""What a run takes that several processes share: the work, memory and traffic of each, and the critical path through all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates.figures import Estimate, EstimatedOperator
from gramian.adapters.estimates.walked import walked
from gramian.adapters.estimates.weights import bytes_given
from gramian.adapters.models.block_lists import run_paths
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.passes.planned import plan_of, zeroing
from gramian.adapters.passes.row_parts import rows_compete
from gramian.adapters.passes.weights import ZeroWeights
from gramian.adapters.run.forward import batches_in
from gramian.adapters.run.ranks import Ranks, Shares
from gramian.tables import table

__all__ = ["SharedEstimate", "shared_estimate"]


@dataclass(frozen=True)
class SharedEstimate:
    """What every one of `ranks` processes takes. alone: the seconds of one process without others. seconds: by what takes them,
    on the critical path, which waits for the slowest process at every exchange. work: the part of all work that the busiest
    process does. memory: bytes at the peak. traffic: bytes that a process receives at most."""

    ranks: int
    alone: float
    seconds: Mapping[str, float]
    work: float
    memory: int
    traffic: int

    @property
    def duration(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())

    @property
    def speedup(self) -> float:
        """Times as fast as one process."""
        return self.alone / self.duration

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return {
            "ranks": self.ranks,
            "seconds_alone": self.alone,
            "seconds": dict(self.seconds),
            "critical_path": self.duration,
            "speedup": self.speedup,
            "work": self.work,
            "memory": self.memory,
            "traffic": self.traffic,
        }

    def __str__(self) -> str:
        """A table of what each process takes."""
        rows = [[name, f"{spent:.1f}"] for name, spent in {**self.seconds, "critical path": self.duration}.items()]
        return "\n".join(
            [
                table([f"{self.ranks} processes, each", "s"], rows),
                f"one process alone takes {self.alone:.1f} s: these are {self.speedup:.2f} times as fast; each has at most "
                f"{100 * self.work:.1f} % of the work, holds {self.memory / 2**30:.2f} GiB at the peak, and "
                f"receives {self.traffic / 2**30:.2f} GiB",
            ]
        )


def shared_estimate(
    model: Any,
    windows: tuple[int, int],
    config: PruneConfig,
    ranks: int,
    bandwidth: float,
    base: Estimate,
    *,
    heldout: int = 0,
) -> SharedEstimate:
    """What each of `ranks` processes would take for a run that takes one alone what `base` says, without perplexity.

    Batches are shared in groups. On pruned inputs moments are shared with the batches, and then the operators of a stage, or of
    a block where the operators' own output is the target, and their rows where the method has a form for parts of them, with
    what these need of one another; on dense inputs every process has a block of its own, with all batches. windows, heldout:
    as in `estimate`. bandwidth: bytes a second that a process receives.

    ValueError for methods that remove units or experts, which several processes solve for alike.
    """
    if config.recipe.granularity != "weights":
        raise ValueError(f"{config.method!r} removes units, which every process solves for alike: leave the processes out")
    plan, paths = plan_of(model, config), run_paths(model)
    assert isinstance(plan, tuple)
    each = zeroing(model, paths, config, plan[0], 0)
    walk = walked(each, model, paths)
    samples, length = windows
    tokens = (samples + heldout) * length
    counts = batches_in(samples, length), batches_in(heldout, length)
    shares = Shares(Ranks(0, ranks), counts)
    pieces, load = shares.pieces, [0.0] * ranks
    for batch in range(sum(counts)):
        part, _ = shares.place(batch)
        load[shares.owner(shares.group(batch))] += (samples, heldout)[part] / counts[part]
    busiest = max(load) / (samples + heldout)
    forward, moments = base.seconds["forward passes"], base.seconds["moments"]
    operators = {operator.name: operator for operator in base.operators}
    solvers = {name: operator.seconds for name, operator in operators.items()}
    hidden = tokens * model.get_input_embeddings().embedding_dim * next(model.parameters()).element_size()
    received = 1 - 1 / ranks
    weights = storage_dtype(model).itemsize * sum(math.prod(operator.shape) for operator in base.operators)
    sums = 8 * walk.entries  # of one block or stage, and as `entries` count them at most
    if each.follows == "dense":
        rounds = -(-each.stop // ranks)
        seconds = {
            "forward passes": forward * (busiest + rounds / each.stop if ranks > 1 else 1),
            "moments": moments * rounds / each.stop,
            "solvers": sum(
                max(
                    sum(solvers[name] for stage in each.wanted(index) for name in stage)
                    for index in range(first, min(first + ranks, each.stop))
                )
                for first in range(0, each.stop, ranks)
            ),
        }
        traffic = received * (weights + hidden * each.stop)
        kept = 1.0
    else:
        stages = list(pools(each))
        owners = {
            name: theirs
            for names in stages
            for name, theirs in zip(names, each.owners([(name, operators[name].shape) for name in names], ranks))
        }
        seconds = {
            "forward passes": forward * busiest,
            "moments": moments * busiest,
            "solvers": sum(slowest([operators[name] for name in names], [owners[name] for name in names]) for names in stages),
        }
        traffic = received * (weights + len(pieces) * 8 * walk.operations)  # an entry of moments is an operation of a token
        for compete in (False, True):
            some = [name for name in operators if len(set(owners[name])) > 1 and rows_compete(each.patterns[name]) == compete]
            shapes = [operators[name].shape for name in some]
            traffic += received * bytes_given(config.method, config.options, shapes, compete)
        kept = busiest
        if refits := base.seconds.get("refits of blocks", 0.0):  # the first process does it, and is given what all have run
            seconds["refits of blocks"] = refits
            traffic += received * 2 * hidden * each.stop
    if ranks > 1:
        seconds["exchange"] = traffic / bandwidth
    alone = forward + moments + sum(solvers.values()) + seconds.get("refits of blocks", 0.0)
    scaled = {"hidden states between blocks", "operator inputs kept for the target"}
    memory = sum(size * (kept if name in scaled else 1) for name, size in base.memory.items())
    memory += (max(map(pieces.count, pieces)) if ranks > 1 else 0) * sums
    busy = sum(spent for name, spent in seconds.items() if name != "exchange")
    return SharedEstimate(ranks, alone, seconds, busy / alone, int(memory), int(traffic) if ranks > 1 else 0)


def pools(each: ZeroWeights) -> Iterator[list[str]]:
    """Operators that are solved for at the same time: those of a block, or of a stage."""
    for index in range(each.stop):
        stages = each.wanted(index)
        yield from ([[name for stage in stages for name in stage]] if each.target == "own" else stages)


def slowest(operators: Sequence[EstimatedOperator], owners: Sequence[Sequence[int]]) -> float:
    """The seconds of the process that has most to do. owners: of the parts of each operator's rows. Each does by itself what is
    done with the Gram matrix alone, or its turns of it."""
    load = dict[int, float]()
    for operator, theirs in zip(operators, owners):
        rows = (operator.seconds - operator.fixed - operator.turned) / len(theirs)
        for owner in set(theirs):
            spent = operator.fixed + operator.turned / len(set(theirs)) + theirs.count(owner) * rows
            load[owner] = load.get(owner, 0.0) + spent
    return max(load.values(), default=0.0)
