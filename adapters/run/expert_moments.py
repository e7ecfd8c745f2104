"""Moments of packed experts: of the tokens that were routed to each, and of those that an expert with few borrows from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate

import torch

from gramian.adapters.models.experts import Packed
from gramian.adapters.models.layers import Layer
from gramian.adapters.run.hooks import feed
from gramian.adapters.run.mixtures import Mixture
from gramian.adapters.run.moments import Gathered, MomentCollector
from gramian.adapters.run.ranks import Shares
from gramian.adapters.run.routing import Routed, forced
from gramian.solvers import Moments

__all__ = ["Collector", "ExpertMoments", "collector_of"]

FORCED = 2048  # tokens, at most, that are forced through an expert from which the router held them back
CALIBRATE = (0, 1)  # parts: batches that are fitted, and those that choose the damping; part 2 is held out


class ExpertMoments:
    """Moments of every expert of one parameter.

    An expert whose matrix has p inputs and to which n_e < p calibration tokens were routed has a singular Gram matrix G_e. It
    borrows as if p - n_e more tokens of the average kind had reached it:

        G = G_e + w G_s,   w = (p - n_e) / n_s,

    where G_s is the shared Gram matrix of n_s tokens; an expert with p tokens or more borrows nothing. Where the inputs are
    what enters the experts module, the shared tokens are all of those. Where they are hidden channels of the expert itself,
    they are at most `FORCED` of those, spread over the calibration batches, each forced through this expert. The same w holds
    for the batches that choose the damping. Held-out moments borrow nothing, and nor does the error that is reported, unless
    no token at all was routed to the expert.

    names: of the experts, by number. parts: how many batches are fitted, and how many choose the damping; others are held out.
    home: the device on which inputs wait. Until p of them have come, an expert's inputs are kept as they are, since they then
    take less memory than their Gram matrix.
    """

    def __init__(
        self,
        packed: Packed,
        names: Mapping[int, str],
        parts: tuple[int, ...],
        home: torch.device | None = None,
        shares: Shares = Shares(),
    ) -> None:
        self.shares, self.mine = shares, dict[int, Routed]()
        self.packed, self.names, self.parts, self.home, self.ends = packed, dict(names), parts, home, list(accumulate(parts))
        self.numbers = {name: number for number, name in self.names.items()}
        self.moments: dict[tuple[int, int], Moments] = {}  # by number and part
        self.waiting: dict[tuple[int, int], list[torch.Tensor]] = {}
        self.shared: dict[tuple[int | None, int], Moments] = {}  # by number, None for what all experts share, and part
        self.entered: dict[int, list[torch.Tensor]] = {part: [] for part in CALIBRATE}
        self.name = next(iter(self.names.values()))  # the operator that errors about shared tokens name

    def receive(self, batch: int, routed: Routed) -> None:
        """Take what reaches the experts in one batch, or keep it until other processes have it too."""
        if self.shares.ranks.alone:
            self.take(batch, routed)
        else:
            self.mine[batch] = routed

    def take(self, batch: int, routed: Routed) -> None:
        """Add what reaches the experts in one batch; batches come in order."""
        part = bisect_right(self.ends, batch)
        for number in self.names:
            if number in routed.inputs:
                self.wait(number, part, routed.inputs[number])
        if part not in CALIBRATE:
            return
        if self.packed.hidden:
            some = spread(routed.entered, -(-FORCED // sum(self.parts)))
            self.entered[part].append(some if self.home is None else some.to(self.home))
        else:
            feed(self.name, self.shared.setdefault((None, part), Moments(self.packed.width)), routed.entered)

    def wait(self, number: int, part: int, inputs: torch.Tensor) -> None:
        """Keep an expert's inputs until there are as many as its matrix has columns."""
        waiting = self.waiting.setdefault((number, part), [])
        waiting.append(inputs if self.home is None else inputs.to(self.home))
        if sum(len(each) for each in waiting) >= self.packed.width:
            self.add(number, part)

    def add(self, number: int, part: int) -> None:
        """Add the inputs that wait to the expert's moments."""
        inputs = torch.cat(self.waiting.pop((number, part))).to(self.packed.parameter.device)
        feed(self.names[number], self.moments.setdefault((number, part), Moments(self.packed.width)), inputs)

    def settle(self, replayed: Iterable[Routed | None] | None, needed: Collection[int] | None = None) -> None:
        """Take what reached the experts on the path that is followed, unless it was received, and force tokens through those
        that have to borrow: the experts' weights must be those of the dense model still, or those of this path."""
        for batch, routed in enumerate(replayed or ()):
            if routed is not None:
                self.receive(batch, routed)
        for batch in range(0 if self.shares.ranks.alone else sum(self.shares.parts)):
            found = self.shares.ranks.share(self.mine.pop(batch, None), self.shares.owner(self.shares.group(batch)))
            if found is not None:
                self.take(batch, found)
        for number, part in list(self.waiting):
            self.add(number, part)
        if not self.packed.hidden:
            return
        for number in self.names:
            for part in CALIBRATE if self.borrowed(self.routed(number)) else ():
                if self.entered[part]:
                    tokens = torch.cat(self.entered[part]).to(self.packed.parameter.device)
                    moments = self.shared.setdefault((number, part), Moments(self.packed.width))
                    feed(self.names[number], moments, forced(self.packed, number, tokens))
        self.entered = {part: [] for part in CALIBRATE}

    def routed(self, number: int) -> int:
        """How many calibration tokens were routed to an expert."""
        return sum(self.moments[number, part].tokens for part in CALIBRATE if (number, part) in self.moments)

    def borrowed(self, routed: int) -> int:
        """How many tokens an expert borrows to which so many were routed: those that it lacks for as many as its matrix has
        inputs."""
        return max(0, self.packed.width - routed)

    def of(self, layer: Layer) -> Gathered:
        """What one of the experts is fitted to. ValueError where no token came near it."""
        name = layer.name
        number = self.numbers[name]
        routed = self.routed(number)
        shared = {part: self.shared.get((number if self.packed.hidden else None, part)) for part in CALIBRATE}
        tokens = sum(each.tokens for each in shared.values() if each is not None)
        borrowed = self.borrowed(routed)
        if borrowed and not tokens:
            raise ValueError(f"{name}: no calibration token entered the experts module")
        weight = borrowed / tokens if borrowed else 0.0
        own = {part: self.moments.get((number, part)) for part in CALIBRATE}
        parts = [blended(own[part], shared[part], weight) for part in CALIBRATE]
        fitted, choosing = parts
        seen = merged(own[0], own[1])
        calibration = merged(fitted, choosing)
        assert calibration is not None  # since there are routed or shared tokens
        return Gathered(
            calibration,
            None if fitted is None or choosing is None else (fitted, choosing),
            calibration if seen is None else seen,
            self.moments.get((number, 2)),
            {"routed_tokens": float(routed), "borrowed_tokens": float(borrowed)},
        )


Collector = MomentCollector | ExpertMoments


def collector_of(
    stage: Sequence[Layer],
    parts: tuple[int, ...],
    keep: bool,
    target_blend: float = 1.0,
    home: torch.device | None = None,
    shares: Shares = Shares(),
    mixture: Mixture | None = None,
) -> Collector:
    """What gathers the inputs of a stage: once for operators that share them, and apart for packed experts, whose inputs are
    never paired with the pruned path's, since tokens are routed otherwise there. Experts count
    every token alike, whatever the mixture. The rest is as in `MomentCollector`."""
    site = stage[0].site
    if isinstance(site, Packed):
        return ExpertMoments(site, {layer.expert[1]: layer.name for layer in stage if layer.expert}, parts, home, shares)
    return MomentCollector(stage[0].name, parts, keep, target_blend, home, shares, mixture)


def spread(tokens: torch.Tensor, count: int) -> torch.Tensor:
    """At most `count` of the tokens, evenly."""
    return tokens[:: -(-len(tokens) // count)] if len(tokens) > count else tokens


def merged(one: Moments | None, other: Moments | None) -> Moments | None:
    """The moments of both, of which None stands for no token."""
    return other if one is None else one if other is None else one.merged(other)


def blended(own: Moments | None, shared: Moments | None, weight: float) -> Moments | None:
    """The moments `own` + weight * `shared`."""
    if shared is None or not weight:
        return own
    return merged(own, shared.scaled(weight))
