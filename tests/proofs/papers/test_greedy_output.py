"""The claims about Greedy Output Approximation, and the closed forms that they use."""

from __future__ import annotations

import numpy as np
import pytest
from rounding import rounding
from scipy.integrate import quad
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm

from gramian.proofs.greedy_output import CLAIMS
from gramian.proofs.greedy_output.gaussian_moments import (
    gated_relu_moment,
    gaussian_mean,
    gelu,
    gelu_second_moment,
    pair_mean,
    relu,
    relu_cross_moment,
    silu,
)
from gramian.proofs.greedy_output.head_divergence import head_distance


def test_every_entry_is_there():
    assert [claim.id for claim in CLAIMS] == [f"G{number}" for number in range(1, 13 + 1)]


@pytest.mark.parametrize("function", [lambda x: gelu(x) ** 2, lambda x: silu(x) ** 2, lambda x: relu(x) ** 2])
@pytest.mark.parametrize("variance", [1e-4, 1.0, 50.0])
def test_quadrature_against_scipy(function, variance):
    deviation = variance**0.5
    halves = [
        quad(lambda x: function(x) * norm.pdf(x, 0, deviation), *ends)[0]
        for ends in ((-11 * deviation, 0), (0, 11 * deviation))
    ]
    assert gaussian_mean(function, variance) == pytest.approx(sum(halves), rel=1e-8)


def test_closed_forms_against_samples():
    """A million seeded draws: the means are within five standard errors of the formulas."""
    rng = np.random.default_rng(0)
    first, noise = rng.normal(size=(2, 10**6))
    for correlation in (-0.6, 0.0, 0.8):
        second = correlation * first + (1 - correlation**2) ** 0.5 * noise
        for drawn, exact in (
            (relu(first) * relu(second), relu_cross_moment(correlation)),
            (first**2 * relu(second) ** 2, gated_relu_moment(correlation)),
            (gelu(2 * second) ** 2, gelu_second_moment(4.0)),
        ):
            assert abs(np.mean(drawn) - exact) <= 5 * np.std(drawn) / 1000


def test_pairs_at_full_correlation():
    """Where the two kinks fall together: E relu(a)^2 = 1/2, E relu(a) relu(-a) = 0."""
    for correlation, expected in ((1.0, 0.5), (-1.0, 0.0)):
        assert pair_mean(lambda a, b: relu(a) * relu(b), 2, correlation) == pytest.approx(expected, abs=rounding(128, 1.0))


def test_heads_of_bernoulli_rows():
    """Shares .2, .4, .64: Algorithm 1 at tau = .2 prunes the middle head too, the only one that resembles the first."""
    rows = [np.array([[share, 1 - share]]) for share in (0.2, 0.4, 0.64)]
    distances = [head_distance(rows[i], rows[j]) for i, j in ((0, 1), (1, 2), (0, 2))]
    assert distances == pytest.approx([0.1554, 0.1707, 0.3215], abs=1e-4)
    assert distances[0] == pytest.approx(jensenshannon(rows[0][0], rows[1][0]))
