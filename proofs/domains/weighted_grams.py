"""Grams of several domains with a weight each (claim D1), and the weights of a layer that are best by them (claim D2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.solvers import Moments, Quadratic, refit

__all__ = ["D1", "D2"]


class Mixture(NamedTuple):
    """texts: inputs X_d (N_d, p) of every domain. shares: w_d, which sum to 1. weight: W (q, p). mask: what is kept of it."""

    texts: tuple[np.ndarray, ...]
    shares: tuple[float, ...]
    weight: np.ndarray
    mask: np.ndarray


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    count, width = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    texts = tuple(
        rng.normal(size=(width + draw(st.integers(0, 12)), width)) @ rng.normal(size=(width, width)) for _ in range(count)
    )
    parts = [draw(st.integers(1, 9)) for _ in range(count)]
    weight = rng.normal(size=(2, width))
    return Mixture(texts, tuple(part / sum(parts) for part in parts), weight, rng.integers(0, 2, size=weight.shape) == 1)


Factors = Callable[[Sequence[int], Sequence[float]], Sequence[float]]


def per_token(counts: Sequence[int], shares: Sequence[float]) -> list[float]:
    """f_d = w_d N / N_d, how often a token of each domain counts."""
    return [share * sum(counts) / count for count, share in zip(counts, shares)]


def mixed(case: Mixture, factors: Factors) -> Moments:
    """Moments in which every token counts by the factor of its domain."""
    moments = Moments(case.weight.shape[1])
    for text, factor in zip(case.texts, factors([len(text) for text in case.texts], case.shares)):
        moments.update(text, weights=np.full(len(text), factor))
    return moments


# --- D1: one Gram of many ---------------------------------------------------------------------------------------------


def is_the_mean(case: Mixture, factors: Factors) -> None:
    """The Gram is N times the mean of those of single tokens, domains weighted by w; tokens count N in all, and sums of a
    domain that are formed first and scaled then are the same."""
    moments, total = mixed(case, factors), sum(len(text) for text in case.texts)
    expected = total * sum(share * text.T @ text / len(text) for share, text in zip(case.shares, case.texts))
    np.testing.assert_allclose(np.asarray(moments.gram), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    assert abs(moments.mass - total) <= 1e-9 * total
    parts = []
    for text, factor in zip(case.texts, factors([len(text) for text in case.texts], case.shares)):
        part = Moments(case.weight.shape[1])
        part.update(text)
        parts.append(part.scaled(factor))
    for part in parts[1:]:
        parts[0] = parts[0].merged(part)
    np.testing.assert_allclose(np.asarray(parts[0].gram), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


D1 = Claim(
    "D1",
    "gramian, adapters/data/domains.py",
    "where a token of domain d counts w_d N / N_d times, the Gram is N sum_d w_d G_d / N_d, whatever the numbers of tokens N_d "
    "are, and tokens count N = sum_d N_d in all",
    Verdict.HOLDS,
    properties=(
        Property(
            "sum_d f_d G_d = N sum_d w_d G_d / N_d with f_d = w_d N / N_d",
            mixtures(),
            is_the_mean,
            per_token,
            {
                "w_d alone": lambda counts, shares: list(shares),
                "every token alike": lambda counts, shares: [1.0] * len(counts),
                "the mean of domains, not times N": lambda counts, shares: [
                    share / count for count, share in zip(counts, shares)
                ],
                "N / N_d to the wrong side": lambda counts, shares: [
                    share * count / sum(counts) for count, share in zip(counts, shares)
                ],
            },
        ),
    ),
)


# --- D2: what is best -------------------------------------------------------------------------------------------------


def depends_on_shares_alone(case: Mixture, factors: Factors) -> None:
    """The best weights on a mask are those of least squares on rows of sqrt(w_d / N_d) X_d, and remain what they are when a
    domain's text is given twice and all weights are multiplied by one number."""
    found = np.asarray(refit(Quadratic.from_moments(mixed(case, factors), case.weight), case.mask).weights)
    rows = np.concatenate([np.sqrt(share / len(text)) * text for share, text in zip(case.shares, case.texts)])
    expected = np.zeros_like(case.weight)
    for row, (mask, weight) in enumerate(zip(case.mask, case.weight)):
        expected[row, mask] = np.linalg.lstsq(rows[:, mask], rows @ weight, rcond=None)[0]
    scale = np.linalg.norm(rows @ case.weight.T) + 1e-300
    assert np.linalg.norm(rows @ (found - expected).T) <= 1e-6 * scale, "another argmin"
    again = case._replace(texts=(np.tile(case.texts[0], (3, 1)), *case.texts[1:]), shares=tuple(7 * w for w in case.shares))
    other = np.asarray(refit(Quadratic.from_moments(mixed(again, factors), case.weight), case.mask).weights)
    assert np.linalg.norm(rows @ (found - other).T) <= 1e-6 * scale, "numbers of windows matter"


def windows_that_count_alike_move_the_argmin() -> None:
    """One output w = (1, 1), the first weight kept. Inputs (1, 1) in domain a and (1, -1) in domain b, of equal shares."""

    def best(windows_of_a: int, windows_of_b: int, a: Fraction, b: Fraction) -> Fraction:
        squares = windows_of_a * a + windows_of_b * b  # G_11
        products = windows_of_a * a - windows_of_b * b  # G_12
        return 1 + products / squares  # v_1 = w_1 + G_12 / G_11 w_2

    one, half = Fraction(1), Fraction(1, 2)
    assert best(1, 1, one, one) == 1
    assert best(3, 1, one, one) == Fraction(3, 2)  # every window alike: more text of a has another argmin
    assert best(3, 1, half, half) == Fraction(3, 2)  # nor do shares help that are per window, and not divided by N_d
    assert best(3, 1, half * 4 / 3, half * 4) == 1  # shares of tokens: the argmin of one window each


D2 = Claim(
    "D2",
    "gramian, adapters/data/domains.py",
    "the best weights of a layer depend on w_d by their ratios alone, and on how much text of a domain there is not at all",
    Verdict.CONDITIONAL,
    "they do where a token of domain d counts w_d N / N_d times; where each window counts w_d times, or all alike, the best "
    "weights move with the numbers of windows",
    properties=(
        Property(
            "argmin_V sum_d w_d / N_d |X_d (V - W)^T|^2 on a mask, the same for 7 w and for X_1 three times over",
            mixtures(),
            depends_on_shares_alone,
            per_token,
            {
                "w_d alone": lambda counts, shares: list(shares),
                "every token alike": lambda counts, shares: [1.0] * len(counts),
            },
        ),
    ),
    counterexamples=(Counterexample("(1, 1) three times and (1, -1) once", windows_that_count_alike_move_the_argmin),),
)
