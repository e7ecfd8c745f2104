"""Intervals by the bootstrap: how often they hold the truth, and beside scipy's."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from gramian.adapters.evaluation.figures import paired
from gramian.adapters.measure.intervals import expanded, mean_interval


@pytest.mark.parametrize("count", [8, 30])
def test_they_hold_the_mean_about_as_often_as_they_say(count):
    """300 samples of a skewed distribution with mean 1: a plain percentile interval of 8 items holds it in 84 %."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        found = mean_interval(generator.gamma(2.0, 0.5, count), 1)
        held += found.low <= 1.0 <= found.high
    assert 0.88 <= held / 300 <= 0.985


def test_they_are_scipy_s_at_the_same_level():
    values = np.random.default_rng(2).exponential(size=30)
    ours = mean_interval(values, 3)
    level = 1 - 2 * expanded(30)
    theirs = bootstrap((values,), np.mean, confidence_level=level, n_resamples=20_000, method="percentile").confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.06 * width) and ours.high == pytest.approx(theirs.high, abs=0.06 * width)


def test_few_items_make_wide_intervals():
    assert expanded(4) < expanded(20) < expanded(2000) == pytest.approx(0.025, abs=2e-4)


def test_the_interval_of_a_pair_is_that_of_its_differences():
    """Items that differ much and in the same way have a narrow interval of their change."""
    dense = np.random.default_rng(4).normal(scale=10.0, size=50)
    noise = np.random.default_rng(5).normal(scale=0.1, size=50)
    figure = paired("text", "figure", dense + 1 + noise, dense, 0)
    assert figure.change is not None and 0.9 < figure.change.low < figure.change.value < figure.change.high < 1.1
    assert figure.model.high - figure.model.low > 4
    alone = mean_interval(1 + noise, 0)
    np.testing.assert_allclose([*figure.change.as_dict().values()], [*alone.as_dict().values()], rtol=1e-9)


def test_edges():
    assert mean_interval(np.full(7, 0.1), 0).as_dict() == {"value": 0.1, "low": 0.1, "high": 0.1}
    alone = mean_interval(np.array([3.0]), 0)
    assert (alone.value, alone.low, alone.high) == (3.0, -math.inf, math.inf)
    same = paired("text", "perplexity", np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]), 0, perplexity=True)
    assert same.change is not None and same.change.as_dict() == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert same.model.value == pytest.approx(math.exp(2))
    with pytest.raises(ValueError, match="3 items of the model and 2 of the dense one"):
        paired("text", "figure", np.arange(3.0), np.arange(2.0), 0)
    one, other = (mean_interval(np.arange(9.0), seed) for seed in (0, 0))
    assert one == other != mean_interval(np.arange(9.0), 1)
