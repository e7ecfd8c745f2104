"""TASP, Sec. 3 and Appendix A.4: what the saliency of weights and units measures (claims T7, T8, T11)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.grids import NONZERO
from gramian.proofs.kit.rational import exact
from gramian.proofs.tasp.tiny_networks import (
    RELU,
    Network,
    flat,
    kernel,
    networks,
    rational_network,
    samples,
)

__all__ = ["T7", "T8", "T11", "Case", "cases", "contributions", "point"]

PAPER = "TASP"


class Case(NamedTuple):
    """inputs: (N, d)."""

    network: Network
    inputs: np.ndarray

    @property
    def gradients(self) -> list[tuple[Any, Any]]:
        return [self.network.gradient(x) for x in self.inputs]


@st.composite
def cases(draw: st.DrawFn, of: st.SearchStrategy[Network] | None = None) -> Case:
    """Draw a network and inputs. of: what draws the network; None draws any."""
    network = draw(networks() if of is None else of)
    return Case(network, draw(samples(network, draw(st.integers(1, 3)))))


def per_unit(first: Any, second: Any) -> Any:
    """Return the sums over the incoming weights W1 (d, h) and the outgoing ones W2 (h, d) of every unit, (h,)."""
    return np.sum(first, axis=0) + np.sum(second, axis=1)


def contributions(gradient: tuple[Any, Any]) -> Any:
    """Return what each unit adds to Theta(x, x): the sum of |df/dW| over its weights, (h,)."""
    return per_unit(abs(gradient[0]), abs(gradient[1]))


def point(*values: Any) -> np.ndarray:
    return np.array(exact(list(values)), dtype=object)


# --- T7: saliency and contribution -----------------------------------------------------------------------------------


class UnitWeights(NamedTuple):
    """saliency: S_u, (h,). weights: |W| of every unit, (h, 2 d)."""

    saliency: np.ndarray
    weights: np.ndarray


def bounds_the_contribution(case: Case, formula: Callable[[UnitWeights], np.ndarray]) -> None:
    network, gradient = case.network, case.gradients[0]
    weights = np.abs(np.concatenate([network.first.T, network.second], axis=1))
    assert np.all(contributions(gradient) <= formula(UnitWeights(network.saliency(gradient), weights)) + 1e-12)


def is_blind_to_the_scale_of_a_unit(case: Case, formula: Callable[[Network, tuple[Any, Any]], np.ndarray]) -> None:
    """W1_u -> 4 W1_u, W2_u -> W2_u / 4 is the same function of x where s is ReLU."""
    scaled = Network(4 * case.network.first, case.network.second / 4, case.network.readout, case.network.activation)
    np.testing.assert_allclose(scaled.value(case.inputs[0]), case.network.value(case.inputs[0]), rtol=0, atol=1e-12)
    before, after = (formula(network, network.gradient(case.inputs[0])) for network in (case.network, scaled))
    np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-12)


def one_unit(scale: Fraction) -> tuple[Any, Any]:
    """Return saliency and contribution of the only unit, for x = v = 1, W1 = a and W2 = 1 / a."""
    network = rational_network([[scale]], [[1 / scale]], [1])
    gradient = network.gradient(point(1))
    return network.saliency(gradient)[0], contributions(gradient)[0]


def equal_saliency_any_contribution() -> None:
    """The function is the same and S = 2 at a = 1, 10 and 100, but the contributions are a + 1/a."""
    measured = [one_unit(Fraction(a)) for a in (1, 10, 100)]
    assert measured == [(2, 2), (2, Fraction(101, 10)), (2, Fraction(10001, 100))]


def zero_saliency_contributes() -> None:
    """With x = W1 = v = 1 and W2 = 0 the saliency is 0, and the unit adds 1 to Theta."""
    network = rational_network([[1]], [[0]], [1])
    gradient = network.gradient(point(1))
    assert (network.saliency(gradient)[0], contributions(gradient)[0], kernel(gradient, gradient)) == (0, 1, 1)


T7 = Claim(
    "T7",
    f"{PAPER}, Sec. 3.1 and proof of Proposition D.1",
    "low saliency S = |df/dW . W| means a small contribution to Theta; pruned weights obey |W_ij| >= c as the model is "
    "pre-trained",
    Verdict.REFUTED,
    "A small gradient means a small contribution, a small saliency does not: a unit adds at most S_u / (its least |W|), but a "
    "ReLU unit can be rescaled to any large contribution without a change of f or S_u. That |W| >= c is a hypothesis, and "
    "pre-training does not provide it.",
    (
        Property(
            "a unit adds at most S_u / min |W| to Theta(x, x)",
            cases(networks(values=NONZERO)),
            bounds_the_contribution,
            lambda unit: unit.saliency / np.min(unit.weights, axis=1),
            {
                "the mean weight": lambda unit: unit.saliency / np.mean(unit.weights, axis=1),
                "the largest weight": lambda unit: unit.saliency / np.max(unit.weights, axis=1),
                "the saliency itself": lambda unit: unit.saliency,
            },
        ),
        Property(
            "ReLU: S_u does not change with W1_u -> a W1_u, W2_u -> W2_u / a",
            cases(networks(inner=(RELU,))),
            is_blind_to_the_scale_of_a_unit,
            lambda network, gradient: network.saliency(gradient),
            {
                "the contribution": lambda network, gradient: contributions(gradient),
                "the magnitudes": lambda network, gradient: per_unit(abs(network.first), abs(network.second)),
            },
        ),
    ),
    (
        Counterexample("equal saliency, any contribution", equal_saliency_any_contribution),
        Counterexample("saliency zero", zero_saliency_contributes),
    ),
)


# --- T8: groups ------------------------------------------------------------------------------------------------------


def is_conserved_through_a_unit(case: Case, formula: Callable[[Any, Any], Any]) -> None:
    """The formula, of df/dW1 and W1, is the sum of df/dW2 . W2 over the outgoing weights of every unit."""
    network, gradient = case.network, case.gradients[0]
    outgoing = np.sum(gradient[1] * network.second, axis=1)
    np.testing.assert_allclose(
        formula(gradient[0], network.first), outgoing, rtol=0, atol=1e-12 * (1 + np.max(np.abs(outgoing)))
    )


def bounds_the_lowest(saliencies: list[int], formula: Callable[[int, int, Fraction], Fraction]) -> None:
    """The formula bounds the sum of the k lowest for every k, with equality for units of equal saliency."""
    for units in (sorted(saliencies), [saliencies[0]] * len(saliencies)):
        for removed in range(len(units) + 1):
            bound = formula(removed, len(units), Fraction(sum(units)))
            assert sum(units[:removed]) <= bound
            assert units[0] != units[-1] or sum(units[:removed]) == bound


def half_of_equal_units_is_half_of_everything() -> None:
    """Of four equal units behind a linear readout 50 % are pruned: eps is half of the total saliency, and the kernel halves."""
    network = rational_network([[1, 1, 1, 1]], [[1], [1], [1], [1]], [1])
    gradient, after = network.gradient(point(1)), network.pruned([0, 1]).gradient(point(1))
    saliency = network.saliency(gradient)
    assert sum(saliency[:2]) * 2 == sum(saliency) == 8
    assert 2 * kernel(after, after) == kernel(gradient, gradient) == 8


T8 = Claim(
    "T8",
    f"{PAPER}, Eq. (4), Sec. 3.2 and Proposition D.1",
    "pruning the bottom v % of units by S(unit), the total pruned saliency eps is sufficiently small",
    Verdict.CONDITIONAL,
    "eps cannot be chosen: the k lowest of h units hold at most k/h of the total saliency, and that much when all are alike. "
    "With ReLU the signed sums of gradient times weight over incoming and outgoing weights of a unit are equal.",
    (
        Property(
            "the k lowest of h hold at most (k/h) of the total, all of it when they are equal",
            st.lists(st.integers(0, 20), min_size=1, max_size=8),
            bounds_the_lowest,
            lambda removed, units, total: Fraction(removed, units) * total,
            {
                "(k/h)^2": lambda removed, units, total: Fraction(removed, units) ** 2 * total,
                "all of it": lambda removed, units, total: total,
            },
        ),
        Property(
            "ReLU: sum of df/dW1 . W1 over incoming = sum of df/dW2 . W2 over outgoing weights",
            cases(networks(inner=(RELU,))),
            is_conserved_through_a_unit,
            lambda gradient, weight: np.sum(gradient * weight, axis=0),
            {
                "absolute values": lambda gradient, weight: np.sum(abs(gradient * weight), axis=0),
                "gradients alone": lambda gradient, weight: np.sum(gradient, axis=0),
            },
        ),
    ),
    (Counterexample("equal units", half_of_equal_units_is_half_of_everything),),
)


# --- T11: its relatives ----------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """An input x (d,) with its target y, for the loss L = (f(x) - y)^2 / 2."""

    network: Network
    x: np.ndarray
    target: float


@st.composite
def single_samples(draw: st.DrawFn) -> Sample:
    case = draw(cases())
    return Sample(case.network, case.inputs[0], float(draw(st.integers(-3, 3))))


def is_the_saliency_of_the_loss(sample: Sample, formula: Callable[[float, np.ndarray], np.ndarray]) -> None:
    """The formula, of dL/df and the saliencies of f, is SNIP's |dL/dW . W| of every weight, with dL/dW by complex steps."""
    network = sample.network
    weights, snip = flat((network.first, network.second)), []
    for index, weight in enumerate(weights):
        step = np.zeros(len(weights))
        step[index] = 1
        parts = (
            step[: network.first.size].reshape(network.first.shape),
            step[network.first.size :].reshape(network.second.shape),
        )
        loss = 0.5 * (network.moved(1e-30j, parts).value(sample.x) - sample.target) ** 2
        snip.append(abs(loss.imag / 1e-30 * weight))
    saliency = np.abs(flat(network.gradient(sample.x)) * weights)
    slope = float(network.value(sample.x)) - sample.target
    np.testing.assert_allclose(formula(slope, saliency), snip, rtol=0, atol=1e-12 * (1 + abs(slope) * np.max(saliency)))


def is_synflow(case: Case, formula: Callable[[np.ndarray], np.ndarray]) -> None:
    """The formula, of what each unit contributes to f(1; |W|), is the saliency at |W| and x = 1 with ReLU."""
    given = case.network
    network = Network(abs(given.first), abs(given.second), abs(given.readout), RELU)
    ones = np.ones(len(network.first))
    np.testing.assert_allclose(
        formula(network.contributions(ones)), network.saliency(network.gradient(ones)), rtol=1e-12, atol=1e-12
    )


def residuals_reorder_units() -> None:
    """Each of two units is on in one sample: the saliencies are 4 and 2, but with dL/df = 1 and 3 there SNIP gives 4 and 6."""
    network = rational_network([[1, 0], [0, 1]], [[2, 0], [1, 0]], [1, 0])
    gradients = [network.gradient(point(*x)) for x in ((1, 0), (0, 1))]
    assert list(sum(network.saliency(gradient) for gradient in gradients)) == [4, 2]
    slopes = exact([1, 3])
    loss = tuple(sum(slope * gradient[part] for slope, gradient in zip(slopes, gradients)) for part in (0, 1))
    assert list(network.saliency((loss[0], loss[1]))) == [4, 6]


T11 = Claim(
    "T11",
    f"{PAPER}, Appendix A.4",
    "S_SNIP = |dL/dW . W| and S_SynFlow = |df(1; |W|)/d|W|| |W| are scores of their own beside S = |df/dW . W|",
    Verdict.CONDITIONAL,
    "For one sample and scalar f, S_SNIP = |dL/df| S, which has the same ranking unless dL/df = 0. Over a batch SNIP weighs "
    "samples by dL/df, and the rankings differ. S_SynFlow is S at |W| and x = 1; with ReLU a unit has twice its share of f(1; "
    "|W|).",
    (
        Property(
            "one sample: S_SNIP = |dL/df| S",
            single_samples(),
            is_the_saliency_of_the_loss,
            lambda slope, saliency: abs(slope) * saliency,
            {
                "signed": lambda slope, saliency: slope * saliency,
                "squared": lambda slope, saliency: slope**2 * saliency,
                "left out": lambda slope, saliency: saliency,
            },
        ),
        Property(
            "SynFlow: twice the unit's share of f(1; |W|)",
            cases(),
            is_synflow,
            lambda shares: 2 * shares,
            {"once": lambda shares: shares, "of the whole": lambda shares: 2 * np.sum(shares) + 0 * shares},
        ),
    ),
    (Counterexample("two samples", residuals_reorder_units),),
)
