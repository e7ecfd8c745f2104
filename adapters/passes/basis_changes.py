"""Bases inside a block, changed before it is pruned so that less is lost: heads are turned, channels come in another order.

A change is chosen from the moments that the block is pruned by, written to both sides, and what was gathered of the consumer's
inputs is turned with it. The block computes what it did, and what follows knows of nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from gramian.adapters.devices import solver_array, tensor_of
from gramian.adapters.models.inner_bases import InnerBasis, change_columns, change_rows, turned, undone
from gramian.adapters.models.layers import Layer
from gramian.adapters.run.expert_moments import Collector
from gramian.adapters.run.moments import Gathered, MomentCollector
from gramian.adapters.run.naming import naming
from gramian.adapters.run.ranks import Ranks
from gramian.adapters.targets import orders_matter
from gramian.solvers import NM, Moments, Pattern, Quadratic
from gramian.solvers.core.sums import ProductSum
from gramian.solvers.support.channel_order import channel_order, removal_scores
from gramian.solvers.support.rotations import attention_rotations

__all__ = ["BasisChange", "BasisChanges"]


@dataclass(frozen=True, eq=False)
class BasisChange:
    """A basis and its change: orthogonal matrices (groups, size, size) in float64, or orders (groups, size), on the CPU."""

    basis: InnerBasis
    change: torch.Tensor

    def write(self, model: Any, dtype: torch.dtype) -> None:
        """Change what is stored, in place, rounded to the dtype of the checkpoint."""
        change_columns(model, self.basis, self.change, dtype)
        change_rows(model, self.basis, self.change, dtype)

    def back(self, inputs: torch.Tensor | None) -> torch.Tensor | None:
        """Inputs of the changed consumer, (..., p), as those of the consumer as it was."""
        if inputs is None:
            return None
        change = undone(self.change).to(inputs.device)
        flat = inputs.flatten(0, -2)
        if change.is_floating_point():  # in float32 at least, since rounding would be a drift of its own
            flat = flat.to(torch.promote_types(inputs.dtype, torch.float32))
            change = change.to(flat.dtype)
        return turned(flat, change, self.basis.heads).reshape(inputs.shape)

    def gathered(self, found: Gathered) -> Gathered:
        """What was gathered of the consumer as it was, as that of the changed one."""
        done: dict[int, Moments] = {}

        def once(moments: Moments | None) -> Any:
            return None if moments is None else done.setdefault(id(moments), self.moments(moments))

        split = None if found.split is None else (once(found.split[0]), once(found.split[1]))
        evaluated, heldout = once(found.evaluated), once(found.heldout)
        domains = {name: self.moments(moments) for name, moments in found.domains.items()}
        return replace(
            found, calibration=once(found.calibration), split=split, evaluated=evaluated, heldout=heldout, domains=domains
        )

    def moments(self, before: Moments) -> Moments:
        """R^T G R, R^T C R, R^T E R, and the sums over tokens turned alike."""
        after = Moments(before.width)
        after.mass = before.mass
        after.squares = ProductSum(square=True, total=self.both_sides(before.require(), True))
        if before.cross is not None and before.drift is not None:
            after.crosses = ProductSum(total=self.both_sides(before.cross, False))
            after.drifts = ProductSum(square=True, total=self.both_sides(before.drift, True))
        after.total, after.shift = self.vector(before.total), self.vector(before.shift)
        return after

    def both_sides(self, array: Any, symmetric: bool) -> Any:
        """R^T M R of any library's array, exactly symmetric where M is."""
        matrix = tensor_of(array)
        change = self.change.to(matrix.device)
        found = turned(turned(matrix, change, self.basis.heads).T, change, self.basis.heads).T
        return solver_array((0.5 * (found + found.T) if symmetric else found).contiguous())

    def vector(self, array: Any) -> Any:
        """R^T v, None for None."""
        if array is None:
            return None
        row = tensor_of(array)[None]
        return solver_array(turned(row, self.change.to(row.device), self.basis.heads)[0])


@dataclass(frozen=True, eq=False)
class BasisChanges:
    """How the bases of a model are changed.

    model: that they are written to. bases: by the full name of the consumer, those that are changed. patterns: by full name, of
    the operators that are pruned. rotate: whether heads are turned. permute: whether channels of consumers with an n:m pattern
    come in another order.
    """

    model: Any
    bases: Mapping[str, InnerBasis]
    patterns: Mapping[str, Pattern]
    rotate: bool
    permute: bool

    def inside(self, prefix: str) -> list[InnerBasis]:
        """The bases in a block, whose full name with a dot is the prefix."""
        return [basis for name, basis in self.bases.items() if name.startswith(prefix)]

    def made(
        self,
        bases: Sequence[InnerBasis],
        layers: Mapping[str, Layer],
        collectors: Mapping[str, Collector],
        dtype: torch.dtype,
        ranks: Ranks,
    ) -> dict[str, BasisChange]:
        """Change bases by what has reached their operators, and return the changes by the consumers whose moments follow them.

        layers, collectors: by full name, of the operators that are pruned. dtype: of the checkpoint. ranks: the processes that
        have gathered it together, each of which writes what the first one has chosen."""
        made: dict[str, BasisChange] = {}
        for basis in bases:
            there = {name: collectors[name] for name in basis.operators if name in collectors}
            seen = {name: each.so_far() for name, each in there.items() if isinstance(each, MomentCollector)}
            with naming(basis.consumer):
                found = ranks.share(self.chosen(basis, layers.__getitem__, seen.get) if ranks.first else None)
            if found is not None:
                found.write(self.model, dtype)
                made[basis.consumer] = found
        return made

    def chosen(
        self, basis: InnerBasis, layer_of: Callable[[str], Layer], moments_of: Callable[[str], Moments | None]
    ) -> BasisChange | None:
        """The change for a basis from the moments of its operators as they are now; None where nothing says which.

        layer_of(name): an operator. moments_of(name): of those that are pruned, what calibrates; None where no token came."""
        output = problem_of(basis.consumer, None, self.patterns, layer_of, moments_of)
        change: torch.Tensor | None = None
        if self.rotate and basis.turns:
            (name, rows), *_ = basis.producers
            value = problem_of(name, rows, self.patterns, layer_of, moments_of)
            if output is not None or value is not None:
                found = attention_rotations(output, value, heads=basis.heads, groups=basis.groups)
                change = tensor_of(found).cpu()
        pattern = self.patterns.get(basis.consumer)
        if self.permute and output is not None and orders_matter(basis, pattern):
            if change is not None:
                moments = moments_of(basis.consumer)
                assert moments is not None
                after = BasisChange(basis, change).moments(moments)
                dense = tensor_of(output.anchor)
                anchor = turned(dense, change.to(dense.device), basis.heads)
                output = Quadratic(after.require(), solver_array(anchor.contiguous()), trusted=True)
            assert isinstance(pattern, NM)
            orders = torch.from_numpy(orders_of(basis, output, pattern))
            change = orders if change is None else reordered(change, orders)
        return None if change is None else BasisChange(basis, change)


def problem_of(
    name: str,
    rows: np.ndarray | None,
    patterns: Mapping[str, Pattern],
    layer_of: Callable[[str], Layer],
    moments_of: Callable[[str], Moments | None],
) -> Quadratic | None:
    """The problem of an operator, or of some of its rows, if it is pruned and tokens reached it."""
    moments = moments_of(name) if name in patterns else None
    if moments is None:
        return None
    weight = layer_of(name).weight
    weight = (weight if rows is None else weight[torch.from_numpy(rows).to(weight.device)]).to(torch.float64, copy=True)
    return Quadratic.from_moments(moments, weight if isinstance(moments.gram, torch.Tensor) else solver_array(weight))


def orders_of(basis: InnerBasis, output: Quadratic, pattern: NM) -> np.ndarray:
    """The order of the channels of every group, (groups, size), for the rows of all of its heads."""
    score = tensor_of(removal_scores(output)).unflatten(1, (basis.groups, basis.heads // basis.groups, basis.size))
    parts = [score[:, group].flatten(0, 1) for group in range(basis.groups)]
    return np.stack([channel_order(solver_array(part.contiguous()), pattern) for part in parts])


def reordered(change: torch.Tensor, orders: torch.Tensor) -> torch.Tensor:
    """Orthogonal matrices whose columns, the channels of the new basis, come in another order."""
    return torch.take_along_dim(change, orders[:, None, :], dim=2)
