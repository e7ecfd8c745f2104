"""The exponent of the tail of a spectrum (claim H1), and sparsities by it (claim H2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.solvers.levels.heavy_tails import SPREAD, hill_exponent, tail_sparsities

__all__ = ["H1", "H2"]

ALPHA = "AlphaPruning"


# --- H1: the exponent -------------------------------------------------------------------------------------------------


class Pareto(NamedTuple):
    """weight: W, with as eigenvalues of W^T W those that a density l^-alpha has in the mean of logarithms, and zeros."""

    weight: np.ndarray
    alpha: float


@st.composite
def paretos(draw: st.DrawFn) -> Pareto:
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    count, alpha = draw(st.integers(2, 9)), draw(st.sampled_from([1.5, 2.0, 3.0, 6.0]))
    rows, columns = count + draw(st.integers(0, 2 * count)), count + draw(st.integers(0, 2 * count))
    logs = np.cumsum(1 / np.arange(count, 0, -1))[::-1] / (alpha - 1)  # ln l_i, the mean of the i-th largest of n
    values = np.exp((logs - logs.max()) / 2)
    left, right = (np.linalg.qr(rng.normal(size=(side, count)))[0] for side in (rows, columns))
    scale = draw(st.sampled_from([1.0, 1e-6, 1e6]))
    return Pareto(scale * (left * values) @ right.T, alpha)


def estimate(
    weight: np.ndarray, *, power: float = 2.0, above: int = 0, plus: float = 1.0, rounding: bool = False, ratios: bool = True
) -> float:
    """plus + k / sum_(i <= k) power ln(s_i / s_(k + 1 - above)), by singular values. rounding: what that leaves of zeros is
    kept. ratios: whether sizes are compared, or taken as they are."""
    values = np.linalg.svd(weight, compute_uv=False)
    values = values[values > (0 if rounding else values[0] * 1e-12)]
    k = len(values) // 2
    total = float(np.sum(power * np.log(values[:k] / (values[k - above] if ratios else 1.0))))
    return plus + k / total if total else np.inf


def is_the_exponent(case: Pareto, formula: Callable[[np.ndarray], float]) -> None:
    """alpha is met whatever the unit of W, its bases, and how many rows or columns add nothing."""
    found = formula(case.weight)
    assert abs(found - case.alpha) <= 1e-6 * case.alpha, f"{found} is not {case.alpha}"


H1 = Claim(
    "H1",
    f"{ALPHA}, PL_Alpha_Hill",
    "alpha = 1 + k / sum_(i = 1..k) ln(l_(n-i+1) / l_(n-k)) with eigenvalues l of W^T W in ascending order and k = n / 2 "
    "estimates the exponent of a density l^-alpha of eigenvalues: it is exact where the logarithm of every eigenvalue is its "
    "mean over draws, (1/i + ... + 1/n) / (alpha - 1) + const for the i-th largest, whatever unit and bases W has, and zeros",
    Verdict.HOLDS,
    properties=(
        Property(
            "ln l_i = (1/i + ... + 1/n) / (alpha - 1) + const has the exponent alpha",
            paretos(),
            is_the_exponent,
            hill_exponent,
            {
                "singular values for eigenvalues": lambda weight: estimate(weight, power=1.0),
                "ratios to l_k": lambda weight: estimate(weight, above=1),
                "without the 1": lambda weight: estimate(weight, plus=0.0),
                "zeros kept as rounding has them": lambda weight: estimate(weight, rounding=True),
                "sizes for ratios": lambda weight: estimate(weight, ratios=False),
            },
        ),
    ),
)


# --- H2: sparsities ---------------------------------------------------------------------------------------------------


class Tails(NamedTuple):
    """exponents, sizes and sparsities of blocks."""

    exponents: tuple[float, ...]
    sizes: tuple[int, ...]
    sparsities: tuple[float, ...]


@st.composite
def tails(draw: st.DrawFn) -> Tails:
    count = draw(st.integers(1, 6))

    def drawn(each: st.SearchStrategy[float]) -> tuple[float, ...]:
        return tuple(draw(st.lists(each, min_size=count, max_size=count)))

    exponents = drawn(st.sampled_from([1.5, 2.0, 3.0, 5.0, float("inf")]))
    sizes = tuple(int(each) for each in drawn(st.integers(1, 9)))
    same = draw(st.sampled_from([0.1, 0.5, 0.7, 0.9, 0.99]))
    return Tails(exponents, sizes, drawn(st.sampled_from([same, same, same, 0.0])))


Divide = Callable[[Sequence[float], Sequence[int], Sequence[float]], Sequence[float]]


def spread(tails: Tails) -> np.ndarray:
    """S0 (1 - tau + 2 tau (a - min a) / (max a - min a)), the printed band."""
    given = np.asarray(tails.exponents)
    finite = given[np.isfinite(given)]
    given = np.minimum(given, finite.max()) if len(finite) else np.zeros_like(given)
    span = np.ptp(given)
    place = (given - given.min()) / span if span > 0 else np.full_like(given, 0.5)
    return np.asarray(np.asarray(tails.sparsities) * (1 - SPREAD + 2 * SPREAD * place))


def meets_the_total(case: Tails, divide: Divide) -> None:
    """The total is met, sparsities are in [0, 1), rise with alpha, and what is not cut off is a multiple of the band."""
    found = np.asarray(divide(*case))
    size, plain, band = np.asarray(case.sizes), np.asarray(case.sparsities), spread(case)
    assert np.all((found >= 0) & (found < 1))
    assert abs(size @ found - size @ plain) <= 1e-7 * max(size @ plain, 1e-9), "the total"
    assert np.all(found[plain == 0] == 0)
    free = (plain > 0) & (found < 1 - 1e-6)
    if np.any(free):
        factors = found[free] / band[free]
        assert np.ptp(factors) <= 1e-7 * factors.max(), "one factor for all that is not cut off"
        assert np.all(band[(plain > 0) & ~free] * factors.max() >= 1 - 1e-5), "what is cut off would be above 1"


def scaled(exponents: Sequence[float], sizes: Sequence[int], sparsities: Sequence[float], *, cut: bool) -> list[float]:
    """The band times what brings its total to that of S0, or times 1, cut off at 1 and left there."""
    size, plain = np.asarray(sizes), np.asarray(sparsities)
    band = spread(Tails(tuple(exponents), tuple(sizes), tuple(sparsities)))
    factor = float(size @ plain) / float(size @ band) if cut and np.any(plain > 0) else 1.0
    return [min(float(each), 1 - 1e-9) for each in factor * band]


def lighter(exponents: Sequence[float], sizes: Sequence[int], sparsities: Sequence[float]) -> list[float]:
    """The heavier a tail, the sparser its block."""
    finite = [each for each in exponents if np.isfinite(each)]
    return tail_sparsities([-min(each, max(finite, default=0.0)) for each in exponents], sizes, sparsities)


def printed_factor_leaves_the_unit_interval() -> None:
    """Nine of ten weights in the block with the heavier tail, S = 7/10 and tau = 3/10."""
    low, high, total = Fraction(49, 100), Fraction(91, 100), Fraction(7, 10)
    factor = total / (Fraction(9, 10) * low + Fraction(1, 10) * high)
    assert factor * high > 1  # no sparsity at all, and further from S than the band [S (1 - tau), S (1 + tau)]
    found = tail_sparsities([2.0, 4.0], [9, 1], [0.7, 0.7])
    assert found[1] < 1 and abs(9 * found[0] + found[1] - 7) < 1e-9


H2 = Claim(
    "H2",
    f"{ALPHA}, the mapping from alpha to sparsities",
    "phi_i = eta [(alpha_i - alpha_min) / (alpha_max - alpha_min) (s_2 - s_1) + s_1], with eta such that the total is that of "
    "S, are sparsities between S (1 - tau) and S (1 + tau)",
    Verdict.CONDITIONAL,
    "eta moves the band, and can move it above 1; sparsities meet the total, are below 1 and rise with alpha where eta is "
    "found with what is above 1 cut off, and all others are eta times the band",
    properties=(
        Property(
            "sum n_k S_k = sum n_k S0_k, S_k < 1, and S_k = min(1, eta times the band)",
            tails(),
            meets_the_total,
            tail_sparsities,
            {
                "eta = 1": lambda *case: scaled(*case, cut=False),
                "cut off after eta is found": lambda *case: scaled(*case, cut=True),
                "the heavier the sparser": lighter,
                "every block alike": lambda exponents, sizes, sparsities: list(sparsities),
            },
        ),
    ),
    counterexamples=(Counterexample("a small block with a light tail", printed_factor_leaves_the_unit_interval),),
)
