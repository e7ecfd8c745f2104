"""Moments of what reaches a stage of a block: of the batches that are fitted and held out, along one path or two."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch

from gramian.adapters.models.layers import Layer
from gramian.adapters.run.hooks import feed
from gramian.adapters.run.mixtures import Mixture
from gramian.adapters.run.partial_moments import PartialMoments
from gramian.adapters.run.ranks import Shares
from gramian.solvers import Moments

__all__ = ["Gathered", "MomentCollector"]


@dataclass(frozen=True)
class Gathered:
    """What one operator is fitted to and evaluated on.

    calibration: of all batches that calibrate. split: of those that are fitted and those that choose the damping, where both
    are. evaluated: those on which its error is reported. heldout: those that it never saw, if any. detail: figures for its row
    of the report. domains: moments of single domains, by what errors on them are called.
    """

    calibration: Moments
    split: tuple[Moments, Moments] | None
    evaluated: Moments
    heldout: Moments | None
    detail: Mapping[str, float] = field(default_factory=dict)
    domains: Mapping[str, Moments] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, str]:
        """The figures as the metadata of a problem file."""
        return {name: f"{value:.0f}" for name, value in self.detail.items()}


class MomentCollector:
    """Moments of one stage of a block: of the batches that are fitted, of those that choose the damping, and of the rest.

    Where the target is the operators' own output the inputs go straight into the moments. Else they are kept until the pruned
    path has reached the stage too, and both enter together; a batch of which other tokens reach the stage there, as happens to
    experts that are modules, has the operators' own output as its target.

    name: the layer that errors name. parts: how many batches are fitted, and how many choose the damping. keep: whether inputs
    wait for the pruned path. target_blend: see `settle`. home: the device on which inputs are kept, None for the one on which
    they come. shares: of the batches, where other processes run some.
    mixture: of the domains, where there are several.
    """

    def __init__(
        self,
        name: str,
        parts: tuple[int, ...],
        keep: bool,
        target_blend: float = 1.0,
        home: torch.device | None = None,
        shares: Shares = Shares(),
        mixture: Mixture | None = None,
    ) -> None:
        self.mixture = mixture
        self.name, self.target_blend, self.home, self.ends = name, target_blend, home, list(accumulate(parts))
        self.kept: dict[int, torch.Tensor] | None = {} if keep else None
        self.source: torch.device | None = None  # the device on which inputs came
        self.partial = PartialMoments(shares)

    @property
    def moments(self) -> dict[int, Moments]:
        """By part: 0 is fitted, 1 chooses the damping, 2 is held out."""
        if self.partial.shares.ranks.alone:
            self.partial.gather()
        return self.partial.sums if self.mixture is None else self.mixture.mixed(self.partial.sums, len(self.ends))

    @property
    def domains(self) -> dict[str, Moments]:
        """Of every domain alone, by what errors on them are called; nothing where there is one text."""
        return {} if self.mixture is None else self.mixture.apart(self.partial.sums, len(self.ends))

    def receive(self, batch: int, inputs: torch.Tensor) -> None:
        """Take what reaches the stage in one batch."""
        if self.kept is not None:
            self.source = inputs.device
            self.kept[batch] = inputs if self.home is None else inputs.to(self.home)
        else:
            self.add(batch, inputs, None)

    def settle(self, star: Any, needed: Collection[int] | None = None) -> None:
        """Pair the kept inputs, target_blend X + (1 - target_blend) X*, with the pruned path's X* = `star`, or with themselves
        where that is None. needed: the numbers of the processes that go on with the moments, None for all."""
        kept, self.kept = self.kept or {}, None
        if star is None:
            for batch, inputs in kept.items():
                self.add(batch, inputs.to(self.source), None)
        else:
            for batch, pruned in enumerate(star):
                if pruned is None:
                    continue
                dense = kept.pop(batch, pruned).to(pruned.device)
                if dense.shape != pruned.shape:
                    dense = pruned
                if self.target_blend != 1:  # in float32 at least, since rounding would be a drift of its own
                    precise = torch.promote_types(dense.dtype, torch.float32)
                    dense = self.target_blend * dense.to(precise) + (1 - self.target_blend) * pruned
                self.add(batch, pruned, dense)
        self.partial.gather(needed)

    def add(self, batch: int, inputs: torch.Tensor, dense: torch.Tensor | None) -> None:
        """Add one batch to the moments of its part."""
        if not inputs.numel():
            return
        part = bisect_right(self.ends, batch)
        kind = part if self.mixture is None else self.mixture.kind(part, batch)
        feed(self.name, self.partial.of(kind, batch, inputs.shape[-1]), inputs, dense)

    def so_far(self) -> Moments | None:
        """Moments of what the batches that calibrate have brought, whether it waits for the pruned path or not; None where that
        was no token. Of several processes each has to ask."""
        if self.kept is None:
            return self.calibration if {0, 1}.intersection(self.moments) else None
        seen = MomentCollector(self.name, (self.ends[-1],), False, shares=self.partial.shares, mixture=self.mixture)
        for batch, inputs in self.kept.items():
            if batch < self.ends[-1]:
                seen.add(batch, inputs.to(self.source), None)
        seen.partial.gather()
        return seen.moments.get(0)

    @property
    def calibration(self) -> Moments:
        """Moments of all batches that calibrate: those that are fitted and those that choose the damping."""
        fitted, choosing = self.moments.get(0), self.moments.get(1)
        found = choosing if fitted is None else fitted if choosing is None else fitted.merged(choosing)
        assert found is not None
        return found

    def of(self, layer: Layer) -> Gathered:
        """What an operator of the stage is fitted to, all of them alike: without any token, as an expert that is a module may
        be, to as many as it has inputs that are uncorrelated and alike."""
        fitted, choosing, heldout = (self.moments.get(part) for part in range(3))
        if fitted is None and choosing is None:
            width = layer.weight.shape[1]
            feed(self.name, lent := Moments(width), torch.eye(width, device=layer.weight.device))
            return Gathered(lent, None, lent, heldout, {"routed_tokens": 0.0, "borrowed_tokens": float(width)})
        calibration = self.calibration
        split = None if fitted is None or choosing is None else (fitted, choosing)
        return Gathered(calibration, split, calibration, heldout, domains=self.domains)
