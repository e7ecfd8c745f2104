"""TASP, Propositions 3.1 and D.1 as printed, and the steps of their proof (claims T3, T4)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.rational import exact
from gramian.proofs.tasp.kernel_bounds import (
    Pruning,
    absolute,
    jumps_behind_a_head,
    kept_and_pruned,
    prunings,
    rounding,
    zero_saliency_moves_the_kernel,
)
from gramian.proofs.tasp.tiny_networks import (
    GELU,
    IDENTITY,
    RELU,
    SIGMOID,
    SILU,
    Activation,
    Network,
    flat,
    leaky,
    networks,
    rational_network,
    sign,
    softplus,
)

__all__ = ["T3", "T4"]

PAPER = "TASP"
SQUARE = Activation("square", lambda s: s * s / 2, lambda s: s)  # a head whose slope changes sign
HEADS = (IDENTITY, SQUARE, softplus(1.0), softplus(5.0), leaky(0.1))


# --- T3: not O(eps) --------------------------------------------------------------------------------------------------


def leaky_heads_leave_no_linear_bound() -> None:
    """The head has the slope d below zero: eps = 4 d and every |W| >= c = 1, but the kernel moves by 2 - 5 d. Nor is that
    below sqrt(2 d h) (eps / c + G) = 2 (4 d + G) with G = |grad f(x)|_2 = sqrt(7) d."""
    for slope in (Fraction(1, 10), Fraction(1, 100), Fraction(1, 1000)):
        eps, squared_norm, moved = jumps_behind_a_head(leaky(slope))
        assert (eps, squared_norm, moved) == (4 * slope, 7 * slope**2, 2 - 5 * slope)
        assert (moved / 2 - eps) ** 2 > squared_norm and moved > 2 * eps


def smooth_heads_are_no_remedy() -> None:
    """For log(1 + exp(k s)) / k, eps = 1.8e-4 and 8.2e-9 at k = 10 and 20, but the kernel moves by 1.9997 and 2.0000."""
    network = Network(np.ones((1, 2)), np.array([[1.0], [-2.0]]), np.ones(1))
    for sharpness, eps in ((10.0, 1.8e-4), (20.0, 8.2e-9)):
        smooth = Network(network.first, network.second, network.readout, RELU, softplus(sharpness))
        case = Pruning(smooth, np.ones(1), np.ones(1), [1])
        assert abs(case.pruned_saliency(case.x) / eps - 1) < 0.02
        assert abs(case.change(case.x, case.x) - 2) < 4e-4


T3 = Claim(
    "T3",
    f"{PAPER}, Propositions 3.1 and D.1",
    "pruning units of total saliency eps, each pruned |W_ij| >= c: |Theta~ - Theta| <= sqrt(2 d h) (eps / c + G) = O(eps), "
    "|grad f| <= G",
    Verdict.REFUTED,
    "A bound with a constant term is not O(eps), and no O(eps) is true of whatever follows H: behind a head in a flat part "
    "all saliencies are tiny, and removing a unit may lead out of it. The statement is true with a linear readout (T5), and "
    "behind a smooth head with a constant that grows like 1 / |slope| of the head (T6).",
    counterexamples=(
        Counterexample("piecewise linear heads: no constant, and the printed bound fails", leaky_heads_leave_no_linear_bound),
        Counterexample("saliency zero", zero_saliency_moves_the_kernel),
        Counterexample("smooth heads", smooth_heads_are_no_remedy, exact=False),
    ),
)


# --- T4: the steps of the proof --------------------------------------------------------------------------------------


def is_bounded_by_what_changes(case: Pruning, formula: Callable[[float, float], float]) -> None:
    """The formula, of the sum of |grad f| over P and of |grad~ f - grad f|_1 over the kept weights, bounds the change of the
    kernel."""
    before = kept_and_pruned(case.network, case.units, case.network.gradient(case.x))
    after = kept_and_pruned(case.network, case.units, case.pruned.gradient(case.x))
    bound = formula(absolute(before[1]), absolute(after[0] - before[0]))
    assert abs(case.change(case.x, case.x)) <= bound + rounding(case)


def two_norm_is_not_the_sum() -> None:
    """With one unit, x = W1 = W2 = v = 1 and f = H, the gradients (1, 1) vanish; the 2-norm of the change is sqrt 2, the sum
    is 2."""
    network, x = rational_network([[1]], [[1]], [1], RELU), np.array(exact([1]), dtype=object)
    before = flat(network.gradient(x))
    change = flat(network.pruned([0]).gradient(x)) - before
    assert (change @ change, sum(abs(before)) ** 2) == (2, 4)


def kept_gradients_move() -> None:
    """Behind a leaky head, x = 1, W1 = (1, 1), W2 = (1, -2)^T: |change|_2^2 = 1.67 exceeds (sum over P)^2 = 0.09."""
    network = rational_network([[1, 1]], [[1], [-2]], [1], RELU, leaky(Fraction(1, 10)))
    x = np.array(exact([1]), dtype=object)
    before, after = network.gradient(x), network.pruned([1]).gradient(x)
    change = flat(after) - flat(before)
    total = sum(abs(kept_and_pruned(network, [1], before)[1]))
    assert (change @ change, total**2) == (Fraction(167, 100), Fraction(9, 100))


def kept_signs_flip() -> None:
    """With f = H^2 / 2, d = 1 and h = 2 both kept signs flip, and |sign~ - sign|_2^2 = 10 exceeds 2 d h = 4."""
    network, x = rational_network([[1, 1]], [[1], [-2]], [1], RELU, SQUARE), np.array(exact([1]), dtype=object)
    change = sign(flat(network.pruned([1]).gradient(x))) - sign(flat(network.gradient(x)))
    assert change @ change == 10


def smooth_activations_are_steeper_than_one() -> None:
    """The largest slope of GELU is 1.1289, at sqrt 2, and that of SiLU is 1.0998, at 2.3994."""
    for activation, place, slope in ((GELU, np.sqrt(2), 1.1289), (SILU, 2.3994, 1.0998)):
        measured = activation.value(place + 1e-30j).imag / 1e-30
        assert abs(measured - slope) < 1e-4 and abs(activation.slope(place) - measured) < 1e-12


def zeroed_units_keep_a_gradient() -> None:
    """For the sigmoid s(0) = 1/2, so df/dW2 of a unit that is set to zero is 1/2."""
    network = Network(np.ones((1, 1)), np.ones((1, 1)), np.ones(1), SIGMOID).pruned([0])
    assert flat(network.gradient(np.ones(1))).tolist() == [0.0, 0.5]


T4 = Claim(
    "T4",
    f"{PAPER}, proof of Proposition D.1",
    "(i) |grad~ f - grad f|_2 = sum over P of |grad f|; (ii) |sign grad~ - sign grad|_2 = |sign grad_P|_2 <= sqrt(2 d h); s is "
    "1-Lipschitz",
    Verdict.REFUTED,
    "(i), with <=, and (ii) hold only if no kept gradient changes and s(0) = 0; signs may differ by 2 each. GELU and SiLU "
    "have slopes up to 1.1289 and 1.0998. At x = z neither a sign term nor sqrt(2 d h) is needed: |Theta~ - Theta| <= sum "
    "over P of |grad f| + |grad~ f - grad f|_1 over the kept weights.",
    (
        Property(
            "|Theta~ - Theta|(x, x) <= sum over P |grad f| + |grad~ f - grad f|_1 over the kept weights",
            prunings(networks(heads=HEADS)),
            is_bounded_by_what_changes,
            lambda gone, moved: gone + moved,
            {
                "kept gradients do not move": lambda gone, moved: gone,
                "pruned gradients do not count": lambda gone, moved: moved,
                "the larger of the two": max,
            },
        ),
    ),
    (
        Counterexample("(i) is no equality", two_norm_is_not_the_sum),
        Counterexample("(i) is no inequality where kept gradients move", kept_gradients_move),
        Counterexample("(ii) where kept signs flip", kept_signs_flip),
        Counterexample("GELU and SiLU are not 1-Lipschitz", smooth_activations_are_steeper_than_one, exact=False),
        Counterexample("a unit set to zero keeps a gradient", zeroed_units_keep_a_gradient),
    ),
)
