"""One entry of each of several lists so that their sum is nearest to an amount: widths of modules under a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["nearest_choice"]


def nearest_choice(
    amounts: Sequence[np.ndarray], distances: Sequence[np.ndarray], wanted: float, *, at_least: bool = False
) -> list[int] | None:
    """argmin over one place i_k in every list k of (max(|S - wanted|, t), D, |S - wanted|), compared in that order.

    S = sum_k amounts_k[i_k] is what the choice amounts to and D = sum_k distances_k[i_k] how far it is from what would be
    best. t is half of a step of the finest list: a sum within t is as near as that list can bring it, so that among those
    choices D decides. With `at_least` only S >= wanted is admitted, and t is the whole step. Choices with S <= 0, which change
    nothing, are not admitted. The step of a list is its largest gap, the finest list that whose step is least.

    amounts, distances: for each list, (n_k,) numbers each. The answer is exact; it is found by branch and bound over all lists
    but the longest, which is searched as a whole, with the distances of the others in ascending order. Among equal choices the
    first of the longest list is taken. None where no choice is admitted.
    """
    order = sorted(range(len(amounts)), key=lambda place: len(amounts[place]))
    lists = [(np.asarray(amounts[place], dtype=np.float64), np.asarray(distances[place], dtype=np.float64)) for place in order]
    steps = [float(np.diff(np.sort(each)).max()) for each, _ in lists if len(each) > 1]
    step = min(steps, default=0.0)
    tolerance = step if at_least else step / 2
    # What the lists from each place on can still add, and the least distance that they add.
    least, most, near = (np.zeros(len(lists) + 1) for _ in range(3))
    for place in reversed(range(len(lists))):
        found, far = lists[place]
        least[place], most[place] = least[place + 1] + found.min(), most[place + 1] + found.max()
        near[place] = near[place + 1] + far.min()
    best: tuple[float, float, float] = (np.inf, np.inf, np.inf)
    answer: list[int] | None = None

    def search(chosen: list[int], amount: float, distance: float) -> None:
        nonlocal best, answer
        place = len(chosen)
        under, over = wanted - amount - most[place], amount + least[place] - wanted
        if at_least and under > 0:
            return
        if (max(under, over, tolerance), distance + near[place]) > best[:2]:
            return
        found, far = lists[place]
        if place < len(lists) - 1:
            for entry in np.argsort(far, kind="stable").tolist():
                search([*chosen, entry], amount + found[entry], distance + far[entry])
            return
        sums = amount + found
        misses = np.abs(sums - wanted)
        admitted = (sums > 0) & ((sums >= wanted) | (not at_least))
        if not admitted.any():
            return
        beyond = np.where(admitted, np.maximum(misses, tolerance), np.inf)
        entry = first_of(beyond, far, misses)
        key = (float(beyond[entry]), distance + float(far[entry]), float(misses[entry]))
        if key < best:
            best, answer = key, [*chosen, entry]

    search([], 0.0, 0.0)
    if answer is None:
        return None
    places = [0] * len(lists)
    for place, entry in zip(order, answer):
        places[place] = entry
    return places


def first_of(beyond: np.ndarray, far: np.ndarray, misses: np.ndarray) -> int:
    """The place of the least (beyond, far, miss)."""
    places = np.flatnonzero(beyond == beyond.min())
    places = places[far[places] == far[places].min()]
    return int(places[misses[places].argmin()])
