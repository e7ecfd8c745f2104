"""Greedy Output Approximation, Appendix B: the second-moment score in gated modules and in attention (claims G8, G12)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.greedy_output.gaussian_moments import gated_relu_moment, pair_mean, relu
from gramian.proofs.greedy_output.second_moments import correlations, squared_norm, total_score
from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.grids import attention_maps, grids
from gramian.proofs.kit.rational import dot, exact, matmul, transpose

__all__ = ["G8", "G12"]

PAPER = "Greedy Output Approximation"


class Gated(NamedTuple):
    """down: D_i (o,). up: u (N,). gate: the pre-activation g (N,). All are of one inner channel."""

    down: np.ndarray
    up: np.ndarray
    gate: np.ndarray


@st.composite
def gated_channels(draw: st.DrawFn) -> Gated:
    tokens = draw(st.integers(1, 5))
    return Gated(*draw(grids((draw(st.integers(1, 3)),), (tokens,), (tokens,))))


def is_the_error_of_the_gated_channel(instance: Gated, formula: Callable[[np.ndarray, np.ndarray, np.ndarray], float]) -> None:
    activation = relu(instance.gate)
    error = squared_norm((instance.up * activation)[:, None] * instance.down) / len(instance.up)
    np.testing.assert_allclose(formula(instance.down, instance.up, activation), error, rtol=1e-12, atol=1e-12)


def matches_the_gaussian_gate(correlation: float, formula: Callable[[float], float]) -> None:
    moment = pair_mean(lambda up, gate: up**2 * relu(gate) ** 2, 4, correlation)
    np.testing.assert_allclose(formula(correlation), moment, rtol=0, atol=1e-12)


def product_ranks_the_other_way() -> None:
    """D = 2, u = g = 1 costs 4 and scores 16; D = 1, u = 3, g = 1 costs 9 and scores 9."""
    truths, products = [], []
    for down, up, gate in exact([(2, 1, 1), (1, 3, 1)]):
        truths.append(down**2 * up**2 * gate**2)
        products.append((down**2 * up**2) * (down**2 * gate**2))
    assert truths == [4, 9] and products == [16, 9]


def product_of_moments_that_never_meet() -> None:
    """With u = (1, 0) and g = (0, 1) the channel is always off, but the product of the two scores is 1/4."""
    up, gate = exact([1, 0]), exact([0, 1])
    assert sum((u * g) ** 2 for u, g in zip(up, gate)) == 0
    assert dot(up, up) / 2 * dot(gate, gate) / 2 == Fraction(1, 4)


G8 = Claim(
    "G8",
    f"{PAPER}, Appendix B, Sec. 7.2",
    "the score of channel i of W_D(W_U X . s(W_G X)) is the product of the scores of W_D W_U X and W_D s(W_G X)",
    Verdict.REFUTED,
    "The product is |D_i|^4 E[u^2] E[s(g)^2]; the second moment is |D_i|^2 E[u^2 s(g)^2], so |D_i|^2 counts once and the "
    "expectation does not factor: for unit Gaussians of correlation c and a ReLU gate it is (1 + 2c^2)/2, not 1/2.",
    (
        Property(
            "M_i = |D_i|^2 E[u^2 s(g)^2]",
            gated_channels(),
            is_the_error_of_the_gated_channel,
            lambda down, up, gate: squared_norm(down) * float(np.mean(up**2 * gate**2)),
            {
                "product of the two scores": lambda down, up, gate: (
                    squared_norm(down) ** 2 * float(np.mean(up**2) * np.mean(gate**2))
                ),
                "expectation factored": lambda down, up, gate: squared_norm(down) * float(np.mean(up**2) * np.mean(gate**2)),
                "|D_i|^4": lambda down, up, gate: squared_norm(down) ** 2 * float(np.mean(up**2 * gate**2)),
            },
        ),
        Property(
            "Gaussian up and ReLU gate: E[u^2 relu(g)^2] = (1 + 2c^2)/2",
            correlations,
            matches_the_gaussian_gate,
            gated_relu_moment,
            {
                "uncorrelated": lambda c: 0.5,
                "c^2 once": lambda c: 0.5 * (1 + c * c),
                "factor of ReLU left out": lambda c: 1 + 2 * c * c,
            },
        ),
    ),
    (
        Counterexample("the ranking flips", product_ranks_the_other_way),
        Counterexample("up and gate never on together", product_of_moments_that_never_meet),
    ),
)


# --- G12: attention --------------------------------------------------------------------------------------------------


class Head(NamedTuple):
    """attention: P (s, s). inputs: X (s, d). value: W_V (d, d_h). output: W_O (d_h, d)."""

    attention: np.ndarray
    inputs: np.ndarray
    value: np.ndarray
    output: np.ndarray


@st.composite
def heads(draw: st.DrawFn) -> Head:
    tokens, width, inner = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return Head(draw(attention_maps(tokens, tokens)), *draw(grids((tokens, width), (width, inner), (inner, width))))


def is_the_error_of_the_head(head: Head, formula: Callable[[Head, np.ndarray], float]) -> None:
    """The formula, of the head and the second moment of P X, which is what W_V sees, is the error of removing the head."""
    mixed = head.attention @ head.inputs
    moment, error = mixed.T @ mixed / len(mixed), squared_norm(mixed @ head.value @ head.output) / len(mixed)
    np.testing.assert_allclose(formula(head, moment), error, rtol=1e-12, atol=1e-9)
    sum_of_channels = total_score(head.value.T, head.output.T, moment)
    assert error <= len(head.output) * sum_of_channels + 1e-9


def head_of_opposite_channels() -> None:
    """W_V = (1, -1), W_O = (1, 1)^T: both channels score 1 and the head adds nothing to the output."""
    value, output, moment = exact([[1, -1]]), exact([[1], [1]]), Fraction(1)
    assert [output[c][0] ** 2 * value[0][c] ** 2 * moment for c in range(2)] == [1, 1]
    assert matmul(value, output) == [[0]]


def printed_scores_are_transposed() -> None:
    """With q = (0, 1) and k = (1, 0) row 1 of Q K^T is constant, so token 1 looks at both tokens alike; row 1 of K Q^T is
    not."""
    query, key = exact([[0], [1]]), exact([[1], [0]])
    first_row, printed = (matmul(left, transpose(right))[0] for left, right in ((query, key), (key, query)))
    assert first_row[0] == first_row[1], "softmax gives 1/2, 1/2"
    assert printed[0] != printed[1], "softmax gives anything but 1/2, 1/2"


G12 = Claim(
    "G12",
    f"{PAPER}, Appendix B, Sec. 7.1",
    "head i is the depth-2 module (Z W_i^V) W_i^O, Z = softmax(X W_i^K W_i^Q X^T) X: its channels score as in Eq. (3), heads "
    "operate independently",
    Verdict.REFUTED,
    "The scores are X W^Q (W^K)^T X^T / sqrt(d_h); the printed product fits only with W^Q stored (d_h, d), and then queries "
    "and keys change places. Given the attention P_i, channels do score as in Eq. (3), with Sigma the second moment of P_i X. "
    "But a head costs |Sigma^(1/2) W_V W_O|_F^2 = 1^T [(W_O W_O^T) o (W_V^T Sigma W_V)] 1, which is at most d_h sum M_c and "
    "not sum M_c, and heads have cross terms as channels have.",
    (
        Property(
            "a head costs |Sigma^(1/2) W_V W_O|_F^2 <= d_h sum M_c",
            heads(),
            is_the_error_of_the_head,
            lambda head, moment: float(np.trace(head.output.T @ head.value.T @ moment @ head.value @ head.output)),
            {
                "sum of the channels' scores": lambda head, moment: total_score(head.value.T, head.output.T, moment),
                "second moment of X": lambda head, moment: (
                    squared_norm(head.inputs @ head.value @ head.output) / len(head.inputs)
                ),
            },
        ),
    ),
    (
        Counterexample("two channels of one head cancel", head_of_opposite_channels),
        Counterexample("queries and keys change places", printed_scores_are_transposed),
    ),
)
