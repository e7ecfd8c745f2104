"""TASP, Proposition D.1 as it can be proven: how far pruning units moves the SignGD kernel (claims T5, T6).

Theta(x, z) = <grad f(x), sign grad f(z)> over the weights W1 and W2, and Theta~ is that of the network with the units P set to
zero. S_u is the saliency of unit u, Eq. (4), and eps is the sum of S_u over P.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.grids import NONZERO, grids
from gramian.proofs.kit.rational import exact
from gramian.proofs.tasp.tiny_networks import (
    GELU,
    RELU,
    TANH,
    Activation,
    Network,
    flat,
    kernel,
    networks,
    rational_network,
    samples,
    softplus,
)
from gramian.solvers.units.kernel_bounds import linear_bound, smooth_bound

__all__ = ["T5", "T6", "Pruning", "jumps_behind_a_head", "kept_and_pruned", "prunings"]

PAPER = "TASP"


class Pruning(NamedTuple):
    """x, z: inputs (d,). units: P, the indices of the units that are removed."""

    network: Network
    x: np.ndarray
    z: np.ndarray
    units: list[int]

    @property
    def pruned(self) -> Network:
        return self.network.pruned(self.units)

    def change(self, x: np.ndarray, z: np.ndarray) -> float:
        """Theta~(x, z) - Theta(x, z)."""
        after, before = self.pruned, self.network
        return float(kernel(after.gradient(x), after.gradient(z)) - kernel(before.gradient(x), before.gradient(z)))

    @property
    def smallest(self) -> float:
        """Return c, the least |W_ij| of the pruned weights."""
        return float(np.min(np.abs(flat((self.network.first[:, self.units], self.network.second[self.units])))))

    def pruned_saliency(self, x: np.ndarray) -> float:
        return float(np.sum(self.network.saliency(self.network.gradient(x))[self.units]))


@st.composite
def prunings(draw: st.DrawFn, of: st.SearchStrategy[Network] | None = None) -> Pruning:
    """Draw a network, two inputs and at least one unit to remove. of: what draws the network; None draws any."""
    network = draw(networks() if of is None else of)
    x, z = draw(samples(network, 2))
    mask = draw(grids((network.units,), values=(0.0, 1.0)))[0]
    mask[draw(st.integers(0, network.units - 1))] = 1
    return Pruning(network, x, z, np.flatnonzero(mask).tolist())


def kept_and_pruned(network: Network, units: list[int], gradient: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return the entries of a gradient that belong to weights of kept units, and those that belong to weights of pruned
    ones."""
    kept = np.setdiff1d(np.arange(network.units), units)
    first, second = gradient
    return flat((first[:, kept], second[kept])), flat((first[:, units], second[units]))


def absolute(values: Any) -> float:
    return float(np.sum(np.abs(values)))


def rounding(case: Pruning) -> float:
    return 1e-12 * (1 + absolute(flat(case.network.gradient(case.x))) + absolute(flat(case.pruned.gradient(case.x))))


# --- the simplest network on which the proposition fails ---------------------------------------------------------------


def jumps_behind_a_head(head: Activation) -> tuple[Any, Any, Any]:
    """x = 1, W1 = (1, 1), W2 = (1, -2)^T, v = 1: the head sees -1, and it sees +1 without the second unit.

    Returns eps, |grad f|_2^2 and Theta~ - Theta.
    """
    network, x = rational_network([[1, 1]], [[1], [-2]], [1], RELU, head), np.array(exact([1]), dtype=object)
    assert (network.score(x), network.pruned([1]).score(x)) == (-1, 1)
    before, after = network.gradient(x), network.pruned([1]).gradient(x)
    return network.saliency(before)[1], flat(before) @ flat(before), kernel(after, after) - kernel(before, before)


def zero_saliency_moves_the_kernel() -> None:
    """A ReLU head is off, so eps = 0, but the kernel goes from 0 to 2."""
    assert jumps_behind_a_head(RELU) == (0, 0, 2)


# --- T5, T6: what is true --------------------------------------------------------------------------------------------

Exact = Callable[[np.ndarray, np.ndarray], float]  # gradients of the pruned weights at x and z, to Theta~ - Theta


def is_the_change_of_the_kernel(case: Pruning, formula: Exact) -> None:
    at, stepped = (kept_and_pruned(case.network, case.units, case.network.gradient(point))[1] for point in (case.x, case.z))
    np.testing.assert_allclose(formula(at, stepped), case.change(case.x, case.z), rtol=0, atol=rounding(case))


def bounds_the_change_of_the_kernel(case: Pruning, formula: Callable[[Pruning], float]) -> None:
    assert abs(case.change(case.x, case.z)) <= formula(case) + rounding(case)


T5 = Claim(
    "T5",
    f"{PAPER}, Proposition D.1, linear readout",
    "|Theta~ - Theta| <= O(eps), here for f = H v with H = s(x W1) W2",
    Verdict.CONDITIONAL,
    "With f linear in H and s(0) = 0 the gradients of different units do not see each other. So Theta~(x, z) - Theta(x, z) = "
    "- sum over P of grad f(x) sign grad f(z) exactly, in size at most the sum over P of |grad f(x)| <= eps / c: there is no "
    "sqrt(2 d h) and no G. The saliency has to be measured at x, the input whose output moves.",
    (
        Property(
            "Theta~(x, z) - Theta(x, z) = - <grad_P f(x), sign grad_P f(z)>",
            prunings(),
            is_the_change_of_the_kernel,
            lambda at, stepped: -float(at @ np.sign(stepped)),
            {
                "the other sign": lambda at, stepped: float(at @ np.sign(stepped)),
                "absolute values": lambda at, stepped: -absolute(at),
                "x and z exchanged": lambda at, stepped: -float(stepped @ np.sign(at)),
                "the kernel of SGD": lambda at, stepped: -float(at @ stepped),
            },
        ),
        Property(
            "|Theta~ - Theta| <= eps / c, eps the saliency at x",
            prunings(networks(inner=(RELU, GELU, TANH), values=NONZERO)),
            bounds_the_change_of_the_kernel,
            lambda case: linear_bound(case.pruned_saliency(case.x), case.smallest),
            {
                "saliency at z": lambda case: case.pruned_saliency(case.z) / case.smallest,
                "eps without c": lambda case: case.pruned_saliency(case.x),
                "eps / (2 c)": lambda case: case.pruned_saliency(case.x) / (2 * case.smallest),
            },
        ),
    ),
    (Counterexample("the head is not linear", zero_saliency_moves_the_kernel),),
)


class Sharp(NamedTuple):
    """What the bound behind a smooth head consists of. eps: the pruned saliency. c: the least pruned weight. slope: |phi'(s)|.
    curvature: the Lipschitz constant of phi'. kept: the sum of |ds/dW| over the kept weights."""

    eps: float
    c: float
    slope: float
    curvature: float
    kept: float


@st.composite
def soft_heads(draw: st.DrawFn) -> tuple[Pruning, float]:
    """Draw softplus heads and their sharpness. Half of the time the units that are removed are those that hold the head
    down."""
    sharpness = draw(st.sampled_from([0.5, 2.0, 5.0]))
    case = draw(prunings(networks(inner=(RELU,), heads=(softplus(sharpness),), values=NONZERO)))
    down = np.flatnonzero(case.network.contributions(case.x) < 0).tolist()
    if len(down) > 0 and draw(st.booleans()):
        case = case._replace(units=down)
    return case, sharpness


def bounds_behind_a_smooth_head(instance: tuple[Pruning, float], formula: Callable[[Sharp], float]) -> None:
    """s~ - s is the sum of the pruned contributions r_u, and S_u >= 2 |phi'| |r_u| for ReLU, of which half comes from W1 and
    half from W2."""
    case, sharpness = instance
    slope = float(case.network.head.slope(case.network.score(case.x)))
    assume(slope > 1e-100)
    kept = absolute(kept_and_pruned(case.network, case.units, case.network.gradient(case.x))[0]) / slope
    bound = formula(Sharp(case.pruned_saliency(case.x), case.smallest, slope, sharpness / 4, kept))
    assert abs(case.change(case.x, case.x)) <= bound + rounding(case)


T6 = Claim(
    "T6",
    f"{PAPER}, Proposition D.1, smooth head",
    "|Theta~ - Theta| <= O(eps), here for f = phi(H v) with s = ReLU",
    Verdict.CONDITIONAL,
    "For phi' Lipschitz with constant L and phi'(s) != 0, |Theta~ - Theta|(x, x) <= eps [1 / c + L n / (2 |phi'(s)|)], where "
    "n is the sum of |ds/dW| over the kept weights. The constant has no bound as phi flattens: small saliency and saturation "
    "look alike.",
    (
        Property(
            "|Theta~ - Theta|(x, x) <= eps [1 / c + L n / (2 |phi'(s)|)]",
            soft_heads(),
            bounds_behind_a_smooth_head,
            lambda b: smooth_bound(b.eps, b.c, b.slope, b.curvature, b.kept),
            {
                "the first term": lambda b: b.eps / b.c,
                "a constant for 1 / |phi'|": lambda b: b.eps * (1 / b.c + b.curvature * b.kept / 2),
                "eps^2": lambda b: b.eps**2 * (1 / b.c + b.curvature * b.kept / (2 * b.slope)),
            },
        ),
    ),
    (Counterexample("a head that is flat at s and not at s~", zero_saliency_moves_the_kernel),),
)
