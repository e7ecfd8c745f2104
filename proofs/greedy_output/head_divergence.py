"""Greedy Output Approximation, Sec. 3.2.2: what Eq. (1) measures between attention heads, and what a head carries besides
(claims G1, G4)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from scipy.special import entr, rel_entr

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.grids import attention_maps, grids
from gramian.proofs.kit.rational import exact, matmul

__all__ = ["G1", "G4", "head_distance"]

PAPER = "Greedy Output Approximation"


@st.composite
def three_heads(draw: st.DrawFn) -> np.ndarray:
    """Draw the attention maps of three heads, (3, rows, keys)."""
    return np.asarray(draw(attention_maps(3, draw(st.integers(1, 4)), draw(st.integers(1, 4)))))


def row_divergences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1/2 KL(P | M) + 1/2 KL(Q | M) per row in nats, where M = (P + Q) / 2 and 0 log 0 = 0."""
    middle = (first + second) / 2
    return np.asarray(np.maximum(0.5 * np.sum(rel_entr(first, middle) + rel_entr(second, middle), axis=-1), 0))


def head_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Eq. (1): the mean over rows of the square root of the Jensen-Shannon divergence."""
    return float(np.mean(np.sqrt(row_divergences(first, second))))


def is_the_mean_js_distance(heads: np.ndarray, formula: Callable[[np.ndarray, np.ndarray], float]) -> None:
    distances = np.array([[formula(first, second) for second in heads] for first in heads])
    for i, j in combinations(range(len(heads)), 2):
        middle = entr((heads[i] + heads[j]) / 2).sum(-1)  # the divergence is also H(M) - (H(P) + H(Q)) / 2
        rows = np.maximum(middle - (entr(heads[i]).sum(-1) + entr(heads[j]).sum(-1)) / 2, 0)
        np.testing.assert_allclose(distances[i, j], np.mean(np.sqrt(rows)), rtol=0, atol=1e-7)
    np.testing.assert_allclose(distances, distances.T, rtol=0, atol=1e-12)
    assert np.all(np.diag(distances) <= 1e-12)
    assert np.all(distances <= np.sqrt(np.log(2)) + 1e-12)
    assert np.all(distances[:, None, :] <= distances[:, :, None] + distances[None, :, :] + 1e-12)


def overlapping_bits(disjoint: Fraction) -> Fraction:
    """Return the Jensen-Shannon divergence in bits of (1-t, t, 0) and (1-t, 0, t), whose ratios to the middle are 1 or 2."""
    first, second = [1 - disjoint, disjoint, Fraction(0)], [1 - disjoint, Fraction(0), disjoint]
    bits = Fraction(0)
    for p, q in zip(first, second):
        for mass in (p, q):
            if mass:
                ratio = mass / ((p + q) / 2)
                assert ratio in (1, 2)
                bits += mass / 2 * (0 if ratio == 1 else 1)
    return bits


def roots_order_heads_differently() -> None:
    """There are two rows each. For the disjoint masses (1, 0) against (4/9, 4/9) the mean divergences are 1/2 > 4/9, but the
    means of the roots are 1/2 < 2/3."""
    first, second = (Fraction(1), Fraction(0)), (Fraction(4, 9), Fraction(4, 9))
    roots = {Fraction(1): Fraction(1), Fraction(0): Fraction(0), Fraction(4, 9): Fraction(2, 3)}
    assert all(roots[t] ** 2 == overlapping_bits(t) for t in first + second)
    assert sum(map(overlapping_bits, first)) > sum(map(overlapping_bits, second))
    assert sum(roots[t] for t in first) < sum(roots[t] for t in second)


G1 = Claim(
    "G1",
    f"{PAPER}, Eq. (1)",
    "D_ij = 1/(N s) sum over N x s rows of sqrt(KL(P|M)/2 + KL(Q|M)/2), M = (P+Q)/2, is the average Jensen-Shannon divergence",
    Verdict.REFUTED,
    "D is the average of its square root, the Jensen-Shannon distance. With 0 log 0 = 0 (causal masks need it) D is symmetric, "
    "zero for equal heads, obeys the triangle inequality and is at most sqrt(ln 2) = 0.8326, reached on disjoint supports. The "
    "order of pairs, and what a threshold tau means, are not those of the average divergence.",
    (
        Property(
            "a bounded metric on heads, the mean Jensen-Shannon distance",
            three_heads(),
            is_the_mean_js_distance,
            head_distance,
            {
                "no square root: the average divergence": lambda p, q: float(np.mean(row_divergences(p, q))),
                "root of the mean": lambda p, q: float(np.sqrt(np.mean(row_divergences(p, q)))),
                "against each other, not against the middle": lambda p, q: float(
                    np.mean(np.sqrt(0.5 * np.sum(rel_entr(p, q) + rel_entr(q, p), axis=-1)))
                ),
                "without the halves": lambda p, q: float(np.mean(np.sqrt(2 * row_divergences(p, q)))),
            },
        ),
    ),
    (Counterexample("the average divergence orders two pairs of heads the other way", roots_order_heads_differently),),
)


class Heads(NamedTuple):
    """attention: P (2, s, s). inputs: X (s, d). value: W_V (2, d, d_h). output: W_O (2, d_h, d)."""

    attention: np.ndarray
    inputs: np.ndarray
    value: np.ndarray
    output: np.ndarray

    @property
    def outputs(self) -> np.ndarray:
        """P X W_V W_O of each head, (2, s, d)."""
        return np.asarray(self.attention @ self.inputs @ self.value @ self.output)


@st.composite
def equal_heads(draw: st.DrawFn) -> Heads:
    """Draw two heads with one attention map, so that D = 0, and with values of their own."""
    tokens, width, inner = draw(st.integers(1, 4)), draw(st.integers(2, 3)), draw(st.integers(1, 2))
    attention = draw(attention_maps(tokens, tokens))
    return Heads(np.stack([attention] * 2), *draw(grids((tokens, width), (2, width, inner), (2, inner, width))))


def merging_error(heads: Heads, keep: int | None = None) -> float:
    """sum over k > d_h of sigma_k(P X S)^2 with S = W_V^1 W_O^1 + W_V^2 W_O^2: the error of both heads in one of width d_h."""
    both = np.linalg.svd(heads.outputs.sum(axis=0), compute_uv=False)
    return float(np.sum(both[heads.value.shape[-1] if keep is None else keep :] ** 2))


def is_the_best_single_head(heads: Heads, formula: Callable[[Heads], float]) -> None:
    """W_V = S V_k, W_O = V_k^T reaches it, V_k the leading right singular vectors of P X S, and nothing of rank k is below
    it."""
    inner, target = heads.value.shape[-1], heads.outputs.sum(axis=0)
    mixed, joint = heads.attention[0] @ heads.inputs, (heads.value @ heads.output).sum(axis=0)
    leading = np.linalg.svd(target)[2][:inner].T
    size = 1 + float(np.sum(target**2))
    error = formula(heads)
    reached = float(np.sum((mixed @ (joint @ leading) @ leading.T - target) ** 2))
    np.testing.assert_allclose(error, reached, rtol=0, atol=1e-10 * size)
    for head in (0, 1):  # keep one head as it is, which is what Algorithm 1 does
        lost = float(np.sum((heads.outputs[head] - target) ** 2))
        np.testing.assert_allclose(lost, np.sum(heads.outputs[1 - head] ** 2), rtol=0, atol=1e-10 * size)
        assert error <= lost + 1e-10 * size


def equal_attention_loses_any_amount() -> None:
    """P = [[1, 0], [1/2, 1/2]] and X = (2, 4)^T in both heads, W_V = 1 and t: what is lost with the second is t P X = t (2,
    3)^T."""
    mixed = matmul(exact([[1, 0], ["1/2", "1/2"]]), exact([[2], [4]]))
    for value in exact([1, 1000]):
        outputs = [matmul(mixed, [[weight]]) for weight in (Fraction(1), value)]
        dense = [first[0] + second[0] for first, second in zip(*outputs)]
        assert [total - first[0] for total, first in zip(dense, outputs[0])] == [2 * value, 3 * value]


G4 = Claim(
    "G4",
    f"{PAPER}, Sec. 3.2.2",
    "removing redundant heads, D_ij < tau, does not lead to significant information loss and needs no remedy",
    Verdict.REFUTED,
    "With head i the output P_i X W_V^i W_O^i is removed entirely, which D does not see. Where P_i = P_j one head of width "
    "d_h can carry W_V^i W_O^i + W_V^j W_O^j if its rank is at most d_h; otherwise the error of the best one is made of the "
    "singular values of the pair's output beyond d_h.",
    (
        Property(
            "two heads of equal attention in one: error = sum of sigma_k^2 beyond d_h",
            equal_heads(),
            is_the_best_single_head,
            merging_error,
            {
                "nothing is lost": lambda heads: 0.0,
                "the removed head is lost": lambda heads: float(np.sum(heads.outputs[1] ** 2)),
                "one singular value more": lambda heads: merging_error(heads, heads.value.shape[-1] - 1),
            },
        ),
    ),
    (Counterexample("equal attention, any loss", equal_attention_loses_any_amount),),
)
