"""The claims about TASP, and the gradients that they use."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import rounding

from gramian.proofs.kit.grids import grids
from gramian.proofs.tasp import CLAIMS
from gramian.proofs.tasp.tiny_networks import (
    GELU,
    IDENTITY,
    RELU,
    SIGMOID,
    SILU,
    TANH,
    Network,
    flat,
    leaky,
    networks,
    rational_network,
    samples,
    softplus,
)

ACTIVATIONS = (RELU, GELU, SILU, TANH, SIGMOID, IDENTITY)
HEADS = (IDENTITY, TANH, leaky(0.1), softplus(0.5), softplus(20.0))


def test_every_entry_is_there():
    assert [claim.id for claim in CLAIMS] == [f"T{number}" for number in range(1, 11 + 1)]


@settings(max_examples=150, deadline=None)
@given(network=networks(ACTIVATIONS, HEADS), data=st.data())
def test_gradients_against_complex_steps(network, data):
    (x,) = data.draw(samples(network, 1))
    directions = tuple(data.draw(grids(network.first.shape, network.second.shape)))
    measured = network.moved(1e-30j, directions).value(x).imag / 1e-30
    gradient = flat(network.gradient(x))
    scale = 1 + np.sum(np.abs(gradient * flat(directions)))
    assert measured == pytest.approx(gradient @ flat(directions), abs=1e-12 * scale)


@pytest.mark.parametrize("activation", ACTIVATIONS + HEADS, ids=lambda activation: activation.name)
def test_slopes_against_differences(activation):
    places = np.array([-30.0, -3.0, -1.1, -0.2, 0.3, 0.9, 4.0, 30.0])
    step = 1e-6
    measured = (activation.value(places + step) - activation.value(places - step)) / (2 * step)
    np.testing.assert_allclose(activation.slope(places), measured, rtol=0, atol=1e-7)
    assert np.all(np.isfinite(activation.value(np.array([-1e4, 0.0, 1e4]))))


def test_fractions_stay_fractions():
    """Floats agree to rounding: fewer than 16 operations, and sums of numbers that are 2.5 times the sum at most."""
    network = rational_network([[1, "1/3"]], [["2/7"], [-2]], ["1/2"], RELU, leaky(Fraction(1, 10)))
    x = np.array([Fraction(5, 3)], dtype=object)
    gradient = network.gradient(x)
    values = [network.value(x), *flat(gradient), *network.saliency(gradient)]
    assert all(isinstance(value, Fraction) for value in values)
    floats = Network(*(part.astype(float) for part in (network.first, network.second, network.readout)), RELU, leaky(0.1))
    np.testing.assert_allclose(flat(gradient).astype(float), flat(floats.gradient(x.astype(float))), rtol=rounding(16, 2.5))
