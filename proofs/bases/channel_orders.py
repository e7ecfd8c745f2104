"""Orders of channels for n:m sparsity (claim B3): what a channel brings to a group is a function of the two alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Property, Verdict
from gramian.proofs.kit.grids import grids
from gramian.solvers import NM

__all__ = ["B3"]


class Group(NamedTuple):
    """others: scores of the m - 1 channels that remain in a group, (q, m - 1). channel: those of the one that comes, (q,).
    kept: n, below m."""

    others: np.ndarray
    channel: np.ndarray
    kept: int


@st.composite
def groups(draw: st.DrawFn) -> Group:
    """Draw scores that mostly tie, zeros among them."""
    rows, size = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    others, channel = draw(grids((rows, size - 1), (rows, 1), values=(0.0, 1.0, 2.0, 4.0, 9.0)))
    return Group(others, channel[:, 0], draw(st.integers(1, size - 1)))


def brought(group: Group, rank: int = 0) -> float:
    """sum over rows of t_1 + ... + t_(n-1) + max(t_n, s), the others' scores t in descending order."""
    descending = -np.sort(-group.others, axis=1)
    place = min(group.kept - 1 + rank, descending.shape[1] - 1)
    bar = descending[:, place]
    return float(np.sum(descending[:, : group.kept - 1]) + np.sum(np.maximum(bar, group.channel)))


def is_what_is_kept(group: Group, formula: Callable[[Group], float]) -> None:
    """The formula is the sum of what n:m keeps of the group with the channel, wherever in it that stands."""
    for place in range(group.others.shape[1] + 1):
        whole = np.insert(group.others, place, group.channel, axis=1)
        mask = NM(group.kept, whole.shape[1]).select(whole)
        np.testing.assert_allclose(formula(group), np.sum(whole * mask), rtol=1e-12, atol=1e-12)


B3 = Claim(
    "B3",
    "gramian, solvers/support/channel_order.py",
    "a channel of scores s brings n:m sparsity t_1 + ... + t_(n-1) + max(t_n, s) in every row of a group whose other channels "
    "have the scores t_1 >= t_2 >= ..., so that dealing one channel to every group is an assignment problem",
    Verdict.HOLDS,
    properties=(
        Property(
            "sum of the n largest of (t, s) = t_1 + ... + t_(n-1) + max(t_n, s)",
            groups(),
            is_what_is_kept,
            brought,
            {
                "one rank further": lambda group: brought(group, 1),
                "the channel beside the n largest": lambda group: float(
                    np.sum(-np.sort(-group.others, axis=1)[:, : group.kept]) + np.sum(group.channel)
                ),
                "the others alone": lambda group: float(np.sum(-np.sort(-group.others, axis=1)[:, : group.kept])),
            },
        ),
    ),
)
