"""What a module at another level changes, from one gradient (claim E3).

Modules are rows w (p,) with inputs X (n, p); at level i a module is the least-squares fit of X w on a support, and supports of
higher levels lie within those of lower ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Property, Verdict
from gramian.solvers.levels.level_budget import Choice
from gramian.solvers.levels.level_prices import level_prices

__all__ = ["E3"]

Prices = Callable[[Sequence[np.ndarray], Sequence[np.ndarray], Choice], Sequence[np.ndarray]]


class Modules(NamedTuple):
    """gradients, levels: by module, g and the weights at every level. errors: |X v - X w|^2 / |X w|^2. curvatures: c."""

    levels: list[np.ndarray]
    gradients: list[np.ndarray]
    errors: list[np.ndarray]
    curvatures: np.ndarray
    choice: Choice


@st.composite
def modules(draw: st.DrawFn) -> Modules:
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    count, width = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    curvatures = 1 + generator.random(count)  # alike enough for none to be drawn up to what is usual
    levels, gradients, errors, choice = [], [], [], []
    for curvature in curvatures:
        inputs, weight = generator.normal(size=(width + 3, width)), generator.normal(size=width)
        order, energy = generator.permutation(width), float(np.sum((inputs @ weight) ** 2))
        weights = np.zeros((width + 1, width))
        for level in range(width):
            kept = order[: width - level]
            weights[level, kept] = np.linalg.lstsq(inputs[:, kept], inputs @ weight, rcond=None)[0]
        own = draw(st.integers(1, width))
        change = inputs @ (weights[own] - weight)
        levels.append(weights)
        gradients.append(2 * curvature * inputs.T @ change / energy)
        errors.append(np.sum(((weights - weight) @ inputs.T) ** 2, axis=1) / energy)
        choice.append(own)
    return Modules(levels, gradients, errors, curvatures, tuple(choice))


def are_the_changes(case: Modules, prices: Prices) -> None:
    """Those of D = sum_k c_k e_k when one module alone goes to another level."""
    slopes = [(each - each[own]) @ gradient for each, gradient, own in zip(case.levels, case.gradients, case.choice)]
    for found, error, curvature, own in zip(
        prices(slopes, case.errors, case.choice), case.errors, case.curvatures, case.choice
    ):
        assert np.allclose(found, curvature * (error - error[own]), rtol=0, atol=1e-9)


def slopes_alone(slopes: Sequence[np.ndarray], errors: Sequence[np.ndarray], choice: Choice) -> Sequence[np.ndarray]:
    """Without what the gradient does not see."""
    return slopes


def without_the_half(slopes: Sequence[np.ndarray], errors: Sequence[np.ndarray], choice: Choice) -> Sequence[np.ndarray]:
    """c = <g, V - W> / e."""
    return [2 * found - slope for found, slope in zip(level_prices(slopes, errors, choice), slopes)]


def lower_levels_as_lower(slopes: Sequence[np.ndarray], errors: Sequence[np.ndarray], choice: Choice) -> Sequence[np.ndarray]:
    """e(j) - e(i) without its absolute value."""
    found = level_prices(slopes, errors, choice)
    return [
        slope + (each - slope) * np.sign(error - error[own])
        for each, slope, error, own in zip(found, slopes, errors, choice)
    ]  # fmt: skip


E3 = Claim(
    "E3",
    "gramian, solvers/levels/level_prices.py",
    "D = sum_k c_k e_k(V_k) changes by <g, V(j) - V(i)> + c |e(j) - e(i)|, c = <g, V(i) - W> / (2 e(i)), if one module alone "
    "goes to level j, where levels are exact fits on nested supports",
    Verdict.HOLDS,
    properties=(
        Property(
            "the estimates are the changes",
            modules(),
            are_the_changes,
            level_prices,
            {
                "the gradient alone": slopes_alone,
                "without the half": without_the_half,
                "without the absolute value": lower_levels_as_lower,
            },
        ),
    ),
)
