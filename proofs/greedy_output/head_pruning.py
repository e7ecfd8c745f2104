"""Greedy Output Approximation, Algorithm 1: which heads the scan of a divergence matrix prunes, which stand for them, and how
many they are as tau grows (claims G2, G3, G13)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.grids import grids
from gramian.solvers.units import redundancy

__all__ = ["G2", "G3", "G13"]

PAPER = "Greedy Output Approximation"


class Divergences(NamedTuple):
    """matrix: symmetric with a zero diagonal, (h, h). threshold: tau. Entries are whole numbers, so that ties with tau are the
    rule."""

    matrix: np.ndarray
    threshold: float


@st.composite
def divergence_matrices(draw: st.DrawFn) -> Divergences:
    heads = draw(st.integers(1, 6))
    upper = np.triu(draw(grids((heads, heads), values=(0.0, 1.0, 2.0, 3.0, 4.0)))[0], 1)
    return Divergences(upper + upper.T, float(draw(st.integers(1, 4))))


@st.composite
def one_hot_heads(draw: st.DrawFn) -> Divergences:
    """Draw heads that look at one key per row: D_ij is the fraction of rows in which they differ, in units of sqrt(ln 2)."""
    rows = draw(st.integers(2, 6))
    (keys,) = draw(grids((draw(st.integers(2, 6)), rows), values=(0.0, 1.0)))
    return Divergences(np.mean(keys[:, None] != keys[None], axis=-1), draw(st.sampled_from([1.5, 2.5])) / rows)


def scan(matrix: Any, threshold: Any, record: bool = False) -> list[int]:
    """Run Algorithm 1 as printed, rows before columns. record: whether `edges`, which the printed algorithm only reads, is
    written too."""
    pruned: list[int] = []
    edges: set[tuple[int, int]] = set()
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            if matrix[i][j] < threshold and (i, j) not in edges and (j, i) not in edges and i != j:
                if record:
                    edges.add((i, j))
                if i not in pruned and j not in pruned:
                    pruned.append(i)
    return pruned


def similar_to_a_later_head(instance: Divergences) -> list[int]:
    """C = {i : D_ij < tau for some j > i}."""
    return list(map(int, redundancy.scan(*instance)))


def is_the_scan(instance: Divergences, formula: Callable[[Divergences], list[int]]) -> None:
    pruned = formula(instance)
    assert pruned == scan(*instance), "not what the scan returns"
    assert pruned == scan(*instance, record=True), "not what the scan that writes edges returns"
    for i, j in combinations(set(range(len(instance.matrix))) - set(pruned), 2):
        assert instance.matrix[i, j] >= instance.threshold, "two kept heads are similar"


G2 = Claim(
    "G2",
    f"{PAPER}, Algorithm 1",
    "scanning D in R^{h x h} row by row, candidate i is appended when D_ij < tau and neither i nor j is in C: no two similar "
    "heads are kept",
    Verdict.HOLDS,
    properties=(
        Property(
            "C = {i : min over j > i of D_ij < tau}, with or without recorded edges, for symmetric D",
            divergence_matrices(),
            is_the_scan,
            similar_to_a_later_head,
            {
                "similar to an earlier head": lambda instance: [
                    i for i, row in enumerate(instance.matrix) if np.any(row[:i] < instance.threshold)
                ],
                "similar to any other head": lambda instance: [
                    i for i, row in enumerate(instance.matrix) if np.any(np.delete(row, i) < instance.threshold)
                ],
                "ties with tau count": lambda instance: [
                    i for i, row in enumerate(instance.matrix) if np.any(row[i + 1 :] <= instance.threshold)
                ],
            },
        ),
    ),
)


def keep_unless_similar_to_a_kept_head(instance: Divergences) -> list[int]:
    """Return the heads of a greedy maximal independent set, in the order of the heads; these are kept."""
    return list(map(int, redundancy.representatives(*instance, np.ones(len(instance.matrix)))))


def stands_for_every_head(instance: Divergences, formula: Callable[[Divergences], list[int]]) -> None:
    every_head_has_one_that_stands_for_it(instance, formula(instance))


def every_head_has_one_that_stands_for_it(instance: Divergences, kept: list[int]) -> None:
    near = instance.matrix < instance.threshold
    assert all(not near[i, j] for i, j in combinations(kept, 2)), "two kept heads are similar"
    assert all(near[i, kept].any() for i in range(len(near)) if i not in kept), "a pruned head has no similar kept head"


def chain_bounds_the_distance(instance: Divergences, formula: Callable[[int, float], float]) -> None:
    """From a pruned head one goes to its last similar head, again and again. Indices rise, so a kept head is reached."""
    pruned = scan(*instance)
    for start in pruned:
        here, links = start, 0
        while here in pruned:
            here, links = int(np.flatnonzero(instance.matrix[here] < instance.threshold)[-1]), links + 1
        assert instance.matrix[start, here] < formula(links, instance.threshold) + 1e-12


def hamming(words: list[str]) -> list[list[Fraction]]:
    """Return D, in units of sqrt(ln 2), of heads that look at one key per row: the fraction of rows in which they differ."""
    return [[Fraction(sum(a != b for a, b in zip(u, v)), len(u)) for v in words] for u in words]


def below_a_fifth(distance: Fraction) -> bool:
    """distance * sqrt(ln 2) < 0.20, the threshold of Fig. 3. It is exact, as squares are compared and 2/3 < ln 2 < 7/10."""
    limit = Fraction(1, 25) / distance**2 if distance else Fraction(1)
    assert limit <= Fraction(2, 3) or limit >= Fraction(7, 10)
    return limit >= Fraction(7, 10)


def one_head_stays_at_the_largest_distance() -> None:
    """Each of six heads differs from the next in one of five rows: tau = 0.20 keeps the last, and nothing like the first."""
    distances = hamming(["0" * (5 - k) + "1" * k for k in range(6)])
    matrix = [[0 if below_a_fifth(entry) else 1 for entry in row] for row in distances]
    assert scan(matrix, 1) == [0, 1, 2, 3, 4]
    assert distances[0][5] == 1, "not disjoint"


def order_of_the_heads_decides() -> None:
    """Each of five leaves is one row away from a hub: five heads are pruned or one, depending on where the hub stands."""
    leaves = ["0" * k + "1" + "0" * (4 - k) for k in range(5)]
    assert scan(hamming([*leaves, "00000"]), Fraction(3, 10)) == [0, 1, 2, 3, 4]
    assert scan(hamming(["00000", *leaves]), Fraction(3, 10)) == [0]


G3 = Claim(
    "G3",
    f"{PAPER}, Sec. 3.2.2 and Algorithm 1",
    "heads in C are redundant: what a pruned head extracts, a similar head (D_ij < tau) that is kept extracts too",
    Verdict.REFUTED,
    "The similar head may be pruned later. A pruned head reaches a kept one over similar heads of rising index, so the two are "
    "less than (number of links) tau apart, and every connected component keeps its last head. Keeping a head unless it is "
    "similar to one already kept (a greedy maximal independent set) does what is said: no two kept heads are similar, and a "
    "pruned head has a similar kept one.",
    (
        Property(
            "the greedy maximal independent set is independent and dominating",
            divergence_matrices(),
            stands_for_every_head,
            keep_unless_similar_to_a_kept_head,
            {
                "Algorithm 1": lambda instance: [i for i in range(len(instance.matrix)) if i not in scan(*instance)],
                "all heads": lambda instance: list(range(len(instance.matrix))),
                "last head only": lambda instance: [len(instance.matrix) - 1],
            },
        ),
        Property(
            "a pruned head is less than (links) tau away from the kept head at the end of its chain",
            one_hot_heads(),
            chain_bounds_the_distance,
            lambda links, threshold: links * threshold,
            {"one link always": lambda links, threshold: threshold},
        ),
    ),
    (
        Counterexample("a chain of six heads at tau = 0.20", one_head_stays_at_the_largest_distance),
        Counterexample("a star, relabelled", order_of_the_heads_decides),
    ),
)


class Thresholds(NamedTuple):
    """matrix: as in `Divergences`. weights: of the heads, (h,). thresholds: tau, ascending."""

    matrix: np.ndarray
    weights: np.ndarray
    thresholds: tuple[float, ...]


@st.composite
def rising_thresholds(draw: st.DrawFn) -> Thresholds:
    matrix, _ = draw(divergence_matrices())
    (weights,) = draw(grids((len(matrix),), values=(0.0, 1.0, 2.0)))
    return Thresholds(matrix, weights, (1.0, 2.0, 3.0, 4.0, 5.0))


def removed(rule: str) -> Callable[[np.ndarray, float, np.ndarray], list[int]]:
    """What `redundant` removes by one of its rules."""
    return lambda matrix, threshold, weights: list(map(int, redundancy.redundant(matrix, threshold, weights, rule)))


def not_representative(matrix: np.ndarray, threshold: float, weights: np.ndarray) -> list[int]:
    """What is left of a greedy maximal independent set that is chosen anew, heaviest first, for every tau."""
    return sorted({*range(len(matrix))} - set(map(int, redundancy.representatives(matrix, threshold, weights))))


def only_grows(instance: Thresholds, formula: Callable[[np.ndarray, float, np.ndarray], list[int]]) -> None:
    before: set[int] = set()
    for threshold in instance.thresholds:
        after = set(formula(instance.matrix, threshold, instance.weights))
        assert before <= after, f"at tau = {threshold:g} a head is kept that was removed at a smaller tau"
        before = after


def grows_and_is_stood_for(instance: Thresholds, formula: Callable[[np.ndarray, float, np.ndarray], list[int]]) -> None:
    only_grows(instance, formula)
    for threshold in instance.thresholds:
        kept = sorted({*range(len(instance.matrix))} - set(formula(instance.matrix, threshold, instance.weights)))
        every_head_has_one_that_stands_for_it(Divergences(instance.matrix, threshold), kept)


G13 = Claim(
    "G13",
    f"{PAPER}, Algorithm 1 and Table 2",
    "the threshold tau says how many heads are pruned, and a larger one never prunes fewer (LLaMA-7B: 88 at 0.16, 204 at 0.19)",
    Verdict.HOLDS,
    "For the scan as printed. Where every pruned head has to have a similar kept one (G3), a greedy maximal independent set "
    "chosen anew for every tau may prune fewer at a larger tau: a hub that stood for many is pruned in favour of one heavier "
    "head, and what it stood for is kept. Heads that are kept farthest from all before first are such a set too, and of them "
    "the pruned ones only grow.",
    (
        Property(
            "what the scan prunes only grows with tau",
            rising_thresholds(),
            only_grows,
            removed("scan"),
            {"an independent set chosen anew": not_representative},
        ),
        Property(
            "farthest first: what is pruned only grows with tau, and each pruned head has a similar kept one",
            rising_thresholds(),
            grows_and_is_stood_for,
            removed("independent"),
            {
                "an independent set chosen anew": not_representative,
                "Algorithm 1": removed("scan"),
                "ties with tau count": lambda matrix, threshold, weights: removed("independent")(
                    matrix, threshold + 0.5, weights
                ),
            },
        ),
    ),
)
