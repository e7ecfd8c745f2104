"""Which of several like things to do without, by their distances: D (n, n), symmetric, zero on the diagonal.

Two are similar when D_ij < threshold. Everything here is combinatorial and small, on numpy arrays.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "RULES",
    "apart",
    "cover",
    "farthest_first",
    "redundant",
    "redundant_first",
    "representatives",
    "scan",
    "similarity_groups",
]

RULES = ("independent", "scan")


def scan(distances: np.ndarray, threshold: float) -> np.ndarray:
    """C = {i : D_ij < threshold for some j > i}, ascending: what Algorithm 1 of Greedy Output Approximation removes.

    No two that are kept are similar, but what an element was similar to may be removed too: in a chain of similar neighbours
    only the last is kept. It is here for comparison; `representatives` is what the algorithm is meant to find.
    """
    later = np.triu(checked(distances) < threshold, 1)
    return np.flatnonzero(later.any(axis=1))


def representatives(distances: np.ndarray, threshold: float, weights: np.ndarray) -> np.ndarray:
    """Return a maximal independent set, ascending: i is kept unless one that is kept already is similar to it, heaviest first.

    Among equals the first is kept. No two that are kept are similar, and each that is removed is similar to one that is kept.
    """
    similar = checked(distances) < threshold
    kept: list[int] = []
    for place in heaviest_first(weights):
        if not similar[place, kept].any():
            kept.append(int(place))
    return np.sort(np.array(kept, dtype=np.int64))


def similarity_groups(distances: np.ndarray, threshold: float) -> tuple[tuple[int, ...], ...]:
    """Return the connected components of the graph with an edge wherever D_ij < threshold.

    Each is ascending, and they are in order of their firsts.
    """
    similar = checked(distances) < threshold
    component = np.arange(len(similar))
    for one, other in zip(*np.nonzero(np.triu(similar, 1))):
        component[component == component[other]] = component[one]
    groups = {name: np.flatnonzero(component == name).tolist() for name in component}
    return tuple(sorted(tuple(group) for group in groups.values()))


def farthest_first(distances: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an order (n,) that goes on with whatever is farthest from all before it, and these distances (n,).

    It starts with the heaviest, at distance inf; among equals the heaviest comes first, then the first. Whatever the number
    k that is kept, the first k are a maximal independent set for every threshold t with radius[k] < t <= radius[k - 1]: no
    two of them are closer than radius[k - 1], and every other is within radius[k] of one of them. So a number chooses its
    threshold, and the sets are nested (Gonzalez, 1985: no k cover twice as well).
    """
    distances = checked(distances)
    order, radii = np.empty(len(distances), dtype=np.int64), np.empty(len(distances))
    nearest = np.full(len(distances), np.inf)
    rank = np.argsort(heaviest_first(weights))
    for place in range(len(distances)):
        chosen = np.lexsort((rank, -nearest))[0]
        order[place], radii[place] = chosen, nearest[chosen]
        nearest = np.minimum(nearest, distances[chosen])
        nearest[order[: place + 1]] = -np.inf  # never again
    return order, radii


def apart(distances: np.ndarray, threshold: float, weights: np.ndarray) -> np.ndarray:
    """Return a maximal independent set, ascending, that loses members alone as the threshold grows: nested in it.

    It is what `farthest_first` takes before everything is nearer than the threshold. No two that are kept are similar, each
    that is removed is similar to one that is kept, and a larger threshold never removes fewer. Of `representatives` the last
    does not hold: where one more pair becomes similar, the heavier of the two may be kept in place of one that was similar to
    many.
    """
    order, radii = farthest_first(distances, weights)
    return np.sort(order[radii >= threshold])


def redundant(distances: np.ndarray, threshold: float, weights: np.ndarray, rule: str = "independent") -> np.ndarray:
    """Return what can be done without, ascending; it grows with the threshold, element by element.

    With the rule `independent` each is similar to one of those that are left, which are `apart`; with `scan` it is what
    Algorithm 1 of Greedy Output Approximation removes as it is printed.
    """
    if rule == "scan":
        return scan(distances, threshold)
    return np.setdiff1d(np.arange(len(distances)), apart(distances, threshold, weights))


def cover(distances: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """min over kept k of D_ik, (n,): how far everything is from what is kept."""
    least: np.ndarray = checked(distances)[:, kept].min(axis=1)
    return least


def redundant_first(
    distances: np.ndarray, weights: np.ndarray, threshold: float | None, rule: str = "independent"
) -> np.ndarray:
    """Return scores (n,), larger = kept longer: what is redundant is removed first, then the least of weights >= 0.

    What is redundant is removed the nearest to what is kept first, with scores -1 / (1 + distance) below zero; the weights are
    the scores of the others. Redundant is what is not among the `representatives` (rule `independent`) or what `scan` removes.
    threshold None: all but the heaviest may be removed for what remains of them, in the order of `farthest_first`, so that any
    number has its threshold.
    """
    distances, weights = checked(distances), np.asarray(weights, dtype=np.float64)
    if weights.shape != distances.shape[:1] or not np.all(weights >= 0):
        raise ValueError(f"weights must be {distances.shape[0]} numbers of at least 0, one for each row of the distances")
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)} but is {rule!r}")
    scores = weights.copy()
    if threshold is None:
        order, radii = farthest_first(distances, weights)
        removed, nearest = order[1:], radii[1:]
    else:
        kept = np.setdiff1d(np.arange(len(distances)), scan(distances, threshold))
        if rule == "independent":
            kept = representatives(distances, threshold, weights)
        removed = np.setdiff1d(heaviest_first(weights), kept, assume_unique=True)
        nearest = cover(distances, kept)[removed]
        farthest = np.argsort(-nearest, kind="stable")
        removed, nearest = removed[farthest], nearest[farthest]
    last = 0.0
    for place, distance in zip(removed, nearest):  # strictly falling, also among equals
        last = scores[place] = min(-1 / (1 + distance), np.nextafter(last, -np.inf))
    return scores


def heaviest_first(weights: np.ndarray) -> np.ndarray:
    """Return places by falling weight, among equals the first first."""
    return np.argsort(-np.asarray(weights, dtype=np.float64), kind="stable")


def checked(distances: np.ndarray) -> np.ndarray:
    """Raise ValueError unless the distances are a square symmetric matrix of numbers >= 0 with a zero diagonal."""
    distances = np.asarray(distances, dtype=np.float64)
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(f"distances must be a square matrix but are {distances.shape}")
    if not (np.array_equal(distances, distances.T) and np.all(distances >= 0) and not distances.diagonal().any()):
        raise ValueError("distances must be symmetric, at least 0 (so no NaN) and 0 on the diagonal")
    return distances
