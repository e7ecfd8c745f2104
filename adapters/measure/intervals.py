"""Means over items with intervals by the bootstrap, alone and of pairs.

Items (windows, prompts, questions) are drawn with replacement, as many as there are, and the mean of each draw is taken. The
interval is what lies between two quantiles of those means. With n items these are

    Phi(-+ sqrt(n / (n - 1)) t),   t the 0.975 quantile of Student's distribution with n - 1 degrees of freedom,

the percentile interval expanded for few items (Hesterberg, What Teachers Should Know About the Bootstrap, 2015): the plain one
is too narrow by sqrt((n - 1) / n), and again by as much as a normal distribution is narrower than Student's. Draws are seeded.
A difference of two models on the same items has the interval of the mean of its pairs' differences.

Where all items are equal so are all draws, and the interval is a point: of 20 questions that are all answered, say. One item
says nothing of others, and its interval is without bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

__all__ = ["LEVEL", "Interval", "draws", "expanded", "mean_interval"]

LEVEL = 0.95
DRAWS = 4000
AT_A_TIME = 2**21  # items drawn


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of an interval around it: a 95 % interval, or the quartiles, as is said where it stands;
    NaN where there are none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """For example `0.912 [0.905, 0.918]`, or the figure alone where the ends are not known."""
        if math.isnan(self.low):
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"

    def as_dict(self) -> dict[str, float]:
        """The three figures by name."""
        return {"value": self.value, "low": self.low, "high": self.high}


def expanded(count: int) -> float:
    """The lower quantile that stands for 2.5 % where there are so many items, at least 2."""
    quantile = student.ppf(0.5 + LEVEL / 2, count - 1)
    return float(norm.cdf(-math.sqrt(count / (count - 1)) * quantile))


def draws(values: np.ndarray, seed: int) -> np.ndarray:
    """Means of items (n,) drawn n at a time with replacement, DRAWS times."""
    generator, count = np.random.default_rng(seed), len(values)
    at_a_time = max(1, AT_A_TIME // count)
    sizes = [min(at_a_time, DRAWS - first) for first in range(0, DRAWS, at_a_time)]
    return np.concatenate([values[generator.integers(count, size=(size, count))].mean(axis=1) for size in sizes])


def mean_interval(values: np.ndarray, seed: int, transform: Callable[[float], float] = float) -> Interval:
    """transform(mean over items) of finite values (n,), n >= 1, with its 95 % interval. transform: an increasing function."""
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(transform(mean), transform(-math.inf), transform(math.inf))
    if (values == values[0]).all():  # whose mean need not be any of them, by rounding
        return Interval(transform(values[0]), transform(values[0]), transform(values[0]))
    low = expanded(len(values))
    ends = np.quantile(draws(values, seed), [low, 1 - low])
    return Interval(transform(mean), transform(float(ends[0])), transform(float(ends[1])))
