"""Which experts of a mixture to do without, weighed by what the mixture gives when it routes without them.

A mixture answers a token t with sum_j w_tj F_t,i(tj): the outputs F_t (experts x width) of the experts i(tj) that its router
chooses, by its weights. Without an expert the router chooses and weighs anew, so that no score of a single expert says what its
removal costs. All that the loss needs of the outputs are products of each token's with one another and with its target, which
are computed once:

    f(S) = 1/2 sum_t |sum_j w_tj(S) F_t,i(tj,S) - y_t|^2 = 1/2 sum_t (w' K_t w - 2 w' b_t + |y_t|^2)

with K_t = F_t F_t' and b_t = F_t y_t.

Everything here is on numpy arrays in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["ExpertChoice", "Mixture", "Route", "remove_experts", "routing_frequency", "routing_saliency"]

Route = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # of kept experts, to experts (tokens, k) and weights (tokens, k)


@dataclass(frozen=True, eq=False)
class Mixture:
    """The outputs of all experts for some tokens, as far as a loss needs them.

    grams: K_t (tokens, experts, experts). products: b_t (tokens, experts). energies: |y_t|^2 (tokens,). groups: in how many
    groups of consecutive experts, of the same size, the router looks for them. ValueError: shapes that do not fit together,
    numbers that are not finite, groups that do not divide the experts.
    """

    grams: np.ndarray
    products: np.ndarray
    energies: np.ndarray
    groups: int = 1

    def __post_init__(self) -> None:
        tokens, experts = self.products.shape
        if self.grams.shape != (tokens, experts, experts) or self.energies.shape != (tokens,):
            raise ValueError(
                f"products are {self.products.shape}, tokens by experts, but grams are {self.grams.shape} and energies "
                f"{self.energies.shape}"
            )
        if not (np.isfinite(self.grams).all() and np.isfinite(self.products).all() and np.isfinite(self.energies).all()):
            raise ValueError("outputs of experts are NaN or infinite")
        if self.groups < 1 or experts % self.groups:
            raise ValueError(f"{experts} experts cannot be in {self.groups} groups of the same size")

    @classmethod
    def of_outputs(cls, outputs: np.ndarray, targets: np.ndarray, groups: int = 1) -> Mixture:
        """Outputs F (tokens, experts, width) and targets y (tokens, width), in their products."""
        outputs, targets = np.asarray(outputs, dtype=np.float64), np.asarray(targets, dtype=np.float64)
        if outputs.ndim != 3 or targets.shape != (outputs.shape[0], outputs.shape[2]):
            raise ValueError(f"outputs are {outputs.shape}, tokens by experts by width, but targets are {targets.shape}")
        products = np.matmul(outputs, targets[:, :, None])[:, :, 0]
        return cls(outputs @ outputs.swapaxes(1, 2), products, (targets**2).sum(axis=1), groups)

    @property
    def experts(self) -> int:
        """How many experts there are."""
        return int(self.products.shape[1])

    def loss(self, chosen: np.ndarray, weights: np.ndarray) -> float:
        """1/2 sum_t |sum_j w_tj F_t,i(tj) - y_t|^2 for the experts i and weights w of every token, both (tokens, k)."""
        tokens = np.arange(len(chosen))[:, None]
        pairs = self.grams[tokens[:, :, None], chosen[:, :, None], chosen[:, None, :]]
        squares = np.einsum("tj,tjk,tk->", weights, pairs, weights)
        total = squares - 2 * np.sum(weights * self.products[tokens, chosen]) + self.energies.sum()
        return 0.5 * max(float(total), 0.0)


@dataclass(frozen=True, eq=False)
class ExpertChoice:
    """Which experts are kept, ascending, and what that costs.

    loss: f(S) of them. energy: 1/2 sum_t |y_t|^2, the loss of no output at all. removed: the others, in the order in which they
    went, ascending after exchanges. losses: the loss after each removal, of one expert from every group. exchanges: how many
    kept experts were exchanged for removed ones afterwards; where exchanges were asked for, no other one lowers the loss.
    """

    kept: np.ndarray
    loss: float
    energy: float
    removed: tuple[int, ...]
    losses: tuple[float, ...]
    exchanges: int

    @property
    def relative_error(self) -> float:
        """loss / energy; 0 where there is no energy."""
        return self.loss / self.energy if self.energy > 0 else 0.0


def remove_experts(mixture: Mixture, route: Route, keep: int, *, exchanges: bool = False) -> ExpertChoice:
    """argmin_S f(S) over S with `keep` experts, the same number in every group, approximately: one expert goes at a time.

    Whichever costs the least goes next, the mixture routed anew without each candidate; among equals the first. With groups one
    goes from each at a time, chosen group by group while those of the others that are used least, or were chosen before, go
    with it. exchanges: afterwards any kept expert is exchanged for a removed one of its group while that lowers the loss, so
    that no exchange would.

    Parameters
    ----------
    mixture : Mixture
        The experts' outputs for some tokens, and the targets.
    route : callable
        `route(kept)` gives for every token the experts that the router chooses among those kept, numbered as all of them are,
        and their weights, both (tokens, k).
    keep : int
        How many remain, a multiple of the groups, at least one.
    exchanges : bool
        Whether exchanges follow.

    Returns
    -------
    ExpertChoice

    Raises
    ------
    ValueError
        A number to keep that is out of range or no multiple of the groups; a route to experts that are not kept.
    """
    experts, groups = mixture.experts, mixture.groups
    if not groups <= keep <= experts or keep % groups:
        raise ValueError(f"keep is {keep}, must be from {groups} to {experts} and a multiple of the {groups} groups of experts")
    size = experts // groups
    kept, removed, losses = list(range(experts)), list[int](), list[float]()

    def loss_of(candidate: Sequence[int]) -> float:
        return routed_loss(mixture, route, np.array(candidate))

    while len(kept) > keep:
        usage = np.bincount(route(np.array(kept))[0].reshape(-1), minlength=experts)
        members = [[each for each in kept if each // size == group] for group in range(groups)]
        going = [min(group, key=lambda each: (usage[each], each)) for group in members]
        for group in range(groups):
            others = {*going[:group], *going[group + 1 :]}
            found = {each: loss_of([other for other in kept if other not in {each, *others}]) for each in members[group]}
            going[group] = min(found, key=lambda each: (found[each], each))
        kept = [each for each in kept if each not in going]
        removed += going
        losses.append(found[going[-1]])
    loss = losses[-1] if losses else loss_of(kept)
    count = 0
    while exchanges and (better := next(improved(kept, removed, size, loss_of, loss), None)) is not None:
        kept, loss = better
        removed = [each for each in range(experts) if each not in kept]
        count += 1
    return ExpertChoice(np.array(kept), loss, 0.5 * float(mixture.energies.sum()), tuple(removed), tuple(losses), count)


def improved(
    kept: Sequence[int], removed: Sequence[int], size: int, loss_of: Callable[[Sequence[int]], float], loss: float
) -> Iterator[tuple[list[int], float]]:
    """Yield the sets with a lower loss that one exchange inside a group leads to, with their losses."""
    for out in kept:
        for other in sorted(removed):
            if out // size == other // size:
                candidate = sorted([*(each for each in kept if each != out), other])
                found = loss_of(candidate)
                if found < loss * (1 - 1e-9):  # more than rounding, so that it ends
                    yield candidate, found


def routed_loss(mixture: Mixture, route: Route, kept: np.ndarray) -> float:
    """f(S) of the kept experts; ValueError for a route to others."""
    chosen, weights = route(kept)
    if not np.isin(chosen, kept).all():
        raise ValueError(f"the route leads to experts that are not kept: {sorted(set(np.unique(chosen)) - set(kept.tolist()))}")
    return mixture.loss(chosen, weights)


def routing_frequency(mixture: Mixture, chosen: np.ndarray) -> np.ndarray:
    """How often each expert is chosen, (experts,), larger for those that are kept longer."""
    return np.bincount(chosen.reshape(-1), minlength=mixture.experts).astype(np.float64)


def routing_saliency(mixture: Mixture, chosen: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """mean over the tokens that are routed to an expert of w_te |F_te|, (experts,); 0 for those that no token is routed to.

    The score of REAP (router-weighted expert activation pruning).
    """
    norms = np.sqrt(np.maximum(np.diagonal(mixture.grams, axis1=1, axis2=2), 0.0))
    each = weights * norms[np.arange(len(chosen))[:, None], chosen]
    total = np.bincount(chosen.reshape(-1), weights=each.reshape(-1), minlength=mixture.experts)
    means: np.ndarray = total / np.maximum(routing_frequency(mixture, chosen), 1)
    return means
