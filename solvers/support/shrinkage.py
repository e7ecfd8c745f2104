"""How much to trust a Gram matrix that was estimated from few tokens: a ridge on the change of the weights, chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from gramian.solvers.backend._xp import Array, as_floating, device, namespace
from gramian.solvers.backend.computing import computation
from gramian.solvers.backend.options import number, shown
from gramian.solvers.backend.printed import digits, extent
from gramian.solvers.core.patterns import Pattern, PatternLike, counted_pattern
from gramian.solvers.core.problem import Quadratic
from gramian.solvers.direct.restricted import refit
from gramian.solvers.support.obs import sparsegpt

__all__ = ["LOCAL", "STRENGTHS", "TYPICAL", "Pilots", "Shrinkage", "empirical_ridge", "estimated", "pilot_rows"]

TYPICAL = 6.0  # tokens that are worth one independent one: neighbours are alike and activations are heavy-tailed
STRENGTHS = (0.0, 1.0, 3.0, 6.0, 12.0, 24.0)
PILOT_ROWS = 64
PRIOR_ROWS = 8  # how many rows the average channel counts for in the spread of every channel


class Pilots:
    """How pilots are refitted; several processes may share that."""

    def exact(self, pilot: Quadratic, mask: Array) -> Array:
        """Return the best weights on a mask of the pilot, row by row."""
        return refit(pilot, mask).weights

    def agreed(self, value: float) -> float:
        """Return the figure that all go by."""
        return value


LOCAL = Pilots()


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """Hold a ridge on the change of the weights, and how it was chosen.

    Parameters
    ----------
    ridge : array (p,)
        What `problem.damped` takes, zero on dead channels.
    strength : float
        The multiple of the Gaussian ridge that this is.
    heldout : tuple of (float, float), default ()
        (strength, held-out loss of the pilot) for every strength that was tried.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Shrinkage
    >>> Shrinkage(np.zeros(8), 6.0)
    Shrinkage(8 channels, strength 6)
    """

    ridge: Array
    strength: float
    heldout: tuple[tuple[float, float], ...] = ()

    def __repr__(self) -> str:
        tried = f" of {len(self.heldout)} tried" if self.heldout else ""
        return f"Shrinkage({extent(self.ridge)} channels, strength {digits(self.strength)}{tried})"


@computation
def empirical_ridge(
    problem: Quadratic,
    pattern: PatternLike,
    tokens: float,
    *,
    heldout: Quadratic | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> Shrinkage:
    """ridge_j = strength * sigma^2 / tau_j^2, the ridge of an empirical Bayes estimate of the change V - W

    With outputs `X W^T` missed by Gaussian errors of variance sigma^2, and changes of channel j Gaussian around zero with
    variance tau_j^2, the most probable V minimises `f(V) + 1/2 sum_j ridge_j |V_j - W_j|^2` at strength 1. Both variances
    are read off a pilot: some rows, pruned by SparseGPT and refitted. sigma^2 is its mean squared error per token and
    output, tau_j^2 the mean square of its changes in channel j (over kept weights, and drawn a little to the average in
    coordinates v_j sqrt(G_jj)). A channel whose weights have to move much is thus held less.

    Tokens are neither independent nor Gaussian, so they count for less than their number: `strength` is how many make
    one. With `heldout` it is the one of `strengths` at which the loss of the pilot's refit is least there, searched for
    downhill from their middle, since that loss has one minimum as a rule; without it, TYPICAL.

    Parameters
    ----------
    problem : Quadratic
        f.
    pattern : TopK, NM, str or float
        What the pilot is pruned to; "2:4" and a sparsity will do.
    tokens : float
        How many tokens the Gram was made of. Its scale does not matter, so a mean will do; the ridge scales as the Gram.
    heldout : Quadratic, optional
        The problem of the same layer on other tokens.
    strengths : sequence of float
        What is tried on the held-out problem.

    Returns
    -------
    Shrinkage
        The ridge, its strength, and the held-out losses.

    Raises
    ------
    ValueError
        For tokens or strengths out of range, and for a held-out problem of another shape.
    TypeError
        For a held-out problem that is no Quadratic, and for a pattern that SparseGPT does not take.

    Examples
    --------
    >>> import numpy as np
    >>> from gramian.solvers import Quadratic, TopK, empirical_ridge, refit
    >>> rng = np.random.default_rng(0)
    >>> problem = Quadratic.from_data(rng.normal(size=(64, 8)), rng.normal(size=(4, 8)))
    >>> found = empirical_ridge(problem, TopK(0.5), 64)
    >>> found.strength, found.ridge.shape, bool((found.ridge > 0).all())
    (6.0, (8,), True)
    """
    tokens, pattern = number("tokens", tokens, "[1, inf)"), counted_pattern(pattern, problem.shape, "empirical_ridge")
    strengths = [number("a strength", strength) for strength in strengths]
    if not strengths:
        raise ValueError("there are no strengths to choose from")
    if heldout is not None and not isinstance(heldout, Quadratic):
        raise TypeError(f"the held-out problem must be a Quadratic but is {shown(heldout)}")
    if heldout is not None and heldout.shape != problem.shape:
        raise ValueError(f"the held-out problem's weight is {heldout.shape} but the problem's weight is {problem.shape}")
    return estimated(problem, pattern, tokens, heldout, strengths, LOCAL)


def pilot_rows(outputs: int) -> list[int]:
    """Return the outputs by which a ridge is chosen, all of them where they are few. Of these alone the same are chosen."""
    count = min(PILOT_ROWS, outputs)
    return [number * outputs // count for number in range(count)]


def estimated(
    problem: Quadratic,
    pattern: Pattern,
    tokens: float,
    heldout: Quadratic | None,
    strengths: Sequence[float],
    pilots: Pilots,
) -> Shrinkage:
    """Return what `empirical_ridge` does, whose arguments are checked already."""
    xp = namespace(problem.anchor)
    rows = pilot_rows(problem.shape[0])
    count, chosen = len(rows), xp.asarray(rows, device=device(problem.anchor))
    pilot = problem.double.rows(chosen)
    mask = sparsegpt(pilot, pattern).weights != 0
    refitted = pilots.exact(pilot, mask)
    kept = xp.astype(mask, xp.float64)
    squares = ((refitted - pilot.anchor) * pilot.unit_scale * kept) ** 2
    average = xp.sum(squares) / xp.maximum(xp.sum(kept), xp.asarray(1.0, device=device(kept)))
    spread = (xp.sum(squares, axis=0) + PRIOR_ROWS * average) / (xp.sum(kept, axis=0) + PRIOR_ROWS)
    if not pilots.agreed(float(average)) > 0:  # nothing had to change: nothing is known of how much it might
        return Shrinkage(xp.zeros_like(problem.diagonal), 0.0)
    variance = 2 * max(0.0, pilot.loss(refitted)) / (count * tokens)
    ridge = variance / spread * pilot.diagonal  # none on a dead channel, or it would cost something to prune it
    if heldout is None:
        return Shrinkage(as_floating(TYPICAL * ridge, like=problem.anchor), TYPICAL)
    other = heldout.double.rows(chosen)

    @cache
    def loss(strength: float) -> float:
        """Return the held-out loss of the pilot's refit."""
        return pilots.agreed(other.loss(pilots.exact(pilot.damped(strength * ridge), mask) if strength else refitted))

    best, tried = downhill(loss, sorted(set(strengths)))
    return Shrinkage(as_floating(best * ridge, like=problem.anchor), best, tuple((each, loss(each)) for each in tried))


def downhill(loss: Callable[[float], float], ladder: Sequence[float]) -> tuple[float, list[float]]:
    """Return a number of an increasing ladder whose neighbours' losses are no smaller, and all that were tried, in order.

    It starts in the middle. A loss with one minimum, as those of ridges are, needs few of its values.
    """
    place, tried = len(ladder) // 2, {len(ladder) // 2}
    while True:
        beside = [near for near in (place - 1, place + 1) if 0 <= near < len(ladder)]
        better = place
        for near in beside:
            tried.add(near)
            if loss(ladder[near]) < loss(ladder[place]):
                better = near
                break
        if better == place:
            return ladder[place], [ladder[each] for each in sorted(tried)]
        place = better
