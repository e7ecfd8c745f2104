"""Greedy Output Approximation, Sec. 3.2.3: the second-moment score of inner channels (claims G5, G6, G7).

A depth-2 module is f(x) = B s(A x). A (h, d) has the rows A_i, B (o, h) has the columns B_i, and channel i of the h has one of
each.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.greedy_output.gaussian_moments import (
    gaussian_mean,
    gelu,
    gelu_second_moment,
    pair_mean,
    relu,
    relu_cross_moment,
    silu,
)
from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.grids import grids
from gramian.proofs.kit.rational import exact, matmul, transpose

__all__ = ["G5", "G6", "G7", "correlations", "joint_error", "scores", "squared_norm", "total_score"]

PAPER = "Greedy Output Approximation"

correlations = st.integers(-20, 20).map(lambda k: k / 20)


class Channels(NamedTuple):
    """first: A (h, d). second: B (o, h). inputs: X (N, d)."""

    first: np.ndarray
    second: np.ndarray
    inputs: np.ndarray

    @property
    def moment(self) -> np.ndarray:
        """Sigma = X^T X / N, (d, d): the second moment, which is the covariance only where the mean is zero."""
        return np.asarray(self.inputs.T @ self.inputs / len(self.inputs))


@st.composite
def channels(draw: st.DrawFn) -> Channels:
    inner, width, outputs, tokens = (draw(st.integers(1, top)) for top in (4, 3, 3, 5))
    return Channels(*draw(grids((inner, width), (outputs, inner), (tokens, width))))


def squared_norm(array: Any) -> float:
    return float(np.sum(np.asarray(array) ** 2))


# --- G5: linear activation -------------------------------------------------------------------------------------------

Score = Callable[[np.ndarray, np.ndarray, np.ndarray], float]  # (A_P, B_P, Sigma) to a number


def scores(first: np.ndarray, second: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Eq. (3): M_i = |B_i|^2 A_i Sigma A_i^T for every channel, (h,)."""
    return np.asarray(np.sum(second**2, axis=0) * np.einsum("id,de,ie->i", first, moment, first))


def total_score(first: np.ndarray, second: np.ndarray, moment: np.ndarray) -> float:
    return float(np.sum(scores(first, second, moment)))


def joint_error(first: np.ndarray, second: np.ndarray, moment: np.ndarray) -> float:
    """1^T [(B^T B) o (A Sigma A^T)] 1."""
    return float(np.sum((second.T @ second) * (first @ moment @ first.T)))


def measured(instance: Channels) -> float:
    """Return the mean over tokens of |B A x|^2, which is what removing all of these channels at once costs."""
    return squared_norm(instance.inputs @ instance.first.T @ instance.second.T) / len(instance.inputs)


def is_the_error_of_each_channel(instance: Channels, formula: Score) -> None:
    for i in range(len(instance.first)):
        alone = instance._replace(first=instance.first[i : i + 1], second=instance.second[:, i : i + 1])
        np.testing.assert_allclose(formula(alone.first, alone.second, alone.moment), measured(alone), rtol=1e-12, atol=1e-9)


def is_the_error_of_the_set(instance: Channels, formula: Score) -> None:
    np.testing.assert_allclose(formula(*instance[:2], instance.moment), measured(instance), rtol=1e-12, atol=1e-9)


def bounds_the_error_of_the_set(instance: Channels, formula: Score) -> None:
    bound = formula(*instance[:2], instance.moment)
    assert measured(instance) <= bound + 1e-9
    first, second = np.repeat(instance.first[:1], 3, axis=0), np.repeat(instance.second[:, :1], 3, axis=1)
    same = Channels(first, second, instance.inputs)
    np.testing.assert_allclose(formula(*same[:2], same.moment), measured(same), rtol=1e-12, atol=1e-9)


def sum_of_scores_against_the_truth() -> None:
    """With B_1 = B_2 = 1 and Sigma = 1 the scores add up to 2, but A_2 = -A_1 costs nothing and A_2 = A_1 costs 4."""
    for second_row, truth in ((-1, 0), (1, 4)):
        first, second, inputs = exact([[1], [second_row]]), exact([[1, 1]]), exact([[1], [-1]])
        outputs = matmul(matmul(inputs, transpose(first)), transpose(second))
        assert sum(output[0] ** 2 for output in outputs) / 2 == truth
        variance = sum(row[0] ** 2 for row in inputs) / 2
        total = sum(second[0][i] ** 2 * first[i][0] ** 2 * variance for i in range(2))
        assert total == 2 != truth


G5 = Claim(
    "G5",
    f"{PAPER}, Eqs. (2) and (3)",
    "importance of inner channel i of B s(A X), s linear, X ~ N(0, Sigma): M_i = |B_i|_2^2 (A_i^T Sigma A_i)",
    Verdict.CONDITIONAL,
    "M_i = E|B_i A_i^T X|^2 is the output error of removing channel i alone; this needs no Gaussian, and no zero mean if "
    "Sigma = E X X^T. A set P costs 1^T [(B^T B) o (A Sigma A^T)]_PP 1, of which sum M_i is the diagonal. It is all of it "
    "where the B_i are orthogonal or the hidden units uncorrelated. The cost is at most |P| sum M_i, which equal channels "
    "attain.",
    (
        Property(
            "M_i = E |B_i A_i^T X|^2, whatever the distribution of X",
            channels(),
            is_the_error_of_each_channel,
            total_score,
            {
                "|B_i| not squared": lambda a, b, moment: float(np.sqrt(np.sum(b**2)) * np.sum((a @ moment) * a)),
                "square root of the second factor": lambda a, b, moment: float(
                    np.sum(b**2) * np.sqrt(np.maximum(np.sum((a @ moment) * a), 0))
                ),
                "Sigma left out": lambda a, b, moment: squared_norm(a) * squared_norm(b),
                "variances of the inputs only": lambda a, b, moment: total_score(a, b, np.diag(np.diag(moment))),
            },
        ),
        Property(
            "a set costs 1^T [(B^T B) o (A Sigma A^T)] 1",
            channels(),
            is_the_error_of_the_set,
            joint_error,
            {"the sum of the scores": total_score},
        ),
        Property(
            "a set of k costs at most k sum M_i, attained by equal channels",
            channels(),
            bounds_the_error_of_the_set,
            lambda a, b, moment: len(a) * total_score(a, b, moment),
            {"the sum of the scores": total_score, "k^2": lambda a, b, moment: len(a) ** 2 * total_score(a, b, moment)},
        ),
    ),
    (Counterexample("two channels that cancel, two that agree", sum_of_scores_against_the_truth),),
)


# --- G6: other activations -------------------------------------------------------------------------------------------


def is_half_for_symmetric_inputs(values: np.ndarray, formula: Callable[[float], float]) -> None:
    """The formula, of E h^2, is E relu(h)^2 for h uniform on the values and their negatives."""
    both = np.concatenate([values, -values])
    np.testing.assert_allclose(formula(float(np.mean(both**2))), np.mean(relu(both) ** 2), rtol=1e-12)


def matches_the_cross_moment(correlation: float, formula: Callable[[float], float]) -> None:
    moment = pair_mean(lambda first, second: relu(first) * relu(second), 2, correlation)
    np.testing.assert_allclose(formula(correlation), moment, rtol=0, atol=1e-12)


def square_of(activation: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray) -> np.ndarray:
    return activation(inputs) ** 2


def matches_the_moment_of_gelu(variance: float, formula: Callable[[float], float]) -> None:
    value = formula(variance)
    np.testing.assert_allclose(value, gaussian_mean(lambda x: gelu(x) ** 2, variance), rtol=1e-10)
    for activation in (gelu, silu):  # x g(x) with g(x) + g(-x) = 1: E = v/4 + E x^2 (g - 1/2)^2, and |g - 1/2| <= 1/2
        moment = gaussian_mean(partial(square_of, activation), variance)
        assert variance / 4 * (1 - 1e-12) <= moment <= variance / 2 * (1 + 1e-12)


def gelu_of_a_small_input_has_half_of_it() -> None:
    """At v = 1/100, E gelu^2 = v/4 + E x^2 (Phi - 1/2)^2 <= v/4 + E x^4 / (2 pi) < v/4 + v^2/2 (as 3 < pi), which is 0.255
    v."""
    variance = Fraction(1, 100)
    density_squared = Fraction(1, 6)  # (Phi(x) - 1/2)^2 <= x^2 / (2 pi) < x^2 / 6
    assert variance / 4 + density_squared * 3 * variance**2 == Fraction(255, 1000) * variance < variance / 2


def gelu_flips_a_ranking() -> None:
    """|B|^2 v is 1.5 at v = 1/100 against 1 at v = 9: by the scores the first is larger, by the errors the second."""
    errors = [weight * gelu_second_moment(variance) for weight, variance in ((150.0, 0.01), (1 / 9, 9.0))]
    measured = [w * gaussian_mean(lambda x: gelu(x) ** 2, v) for w, v in ((150.0, 0.01), (1 / 9, 9.0))]
    np.testing.assert_allclose(errors, measured, rtol=1e-10)
    assert errors[0] < errors[1]


def shifted_inputs_are_not_halved() -> None:
    """For h = 1 or 3 relu changes nothing: E relu(h)^2 = 5, and half of the second moment is 5/2."""
    values = exact([1, 3])
    assert sum(max(h, Fraction(0)) ** 2 for h in values) / 2 == 5
    assert sum(h**2 for h in values) / 4 == Fraction(5, 2)


def independent_relu_units_do_not_add() -> None:
    """For two independent units h = -1 or 1 and B = (1, 1), E (relu + relu)^2 = 3/2, while the scores are 1/2 + 1/2."""
    pairs = [(first, second) for first in exact([-1, 1]) for second in exact([-1, 1])]
    together = sum((max(a, Fraction(0)) + max(b, Fraction(0))) ** 2 for a, b in pairs) / 4
    assert together == Fraction(3, 2) != Fraction(1, 2) * 2


G6 = Claim(
    "G6",
    f"{PAPER}, Sec. 3.2.3",
    "for ReLU the score has a factor 1/2; GeLU and SiLU are equivalent to ReLU",
    Verdict.REFUTED,
    "1/2 is exact for ReLU of a symmetric pre-activation (not of a shifted one), and for one channel: even independent units "
    "have the cross moment s_i s_j / (2 pi). GeLU and SiLU lie between v/4 and v/2: E gelu^2 / v is 0.250 as v -> 0, 0.425 at "
    "v = 1 (SiLU 0.356) and 0.494 at v = 9. So they are within a factor 2 of ReLU, but channels of unequal variance can "
    "change places.",
    (
        Property(
            "E relu(h)^2 = E h^2 / 2 for h symmetric about zero",
            st.integers(1, 5).flatmap(lambda count: grids((count,))).map(lambda drawn: drawn[0]),
            is_half_for_symmetric_inputs,
            lambda moment: 0.5 * moment,
            {"no factor": lambda moment: moment, "1/4": lambda moment: 0.25 * moment},
        ),
        Property(
            "Gaussian units: E relu(a) relu(b) = [sqrt(1 - c^2) + c (pi - arccos c)] / (2 pi)",
            correlations,
            matches_the_cross_moment,
            relu_cross_moment,
            {
                "nothing across channels": lambda c: 0.0 if c < 1 else 0.5,
                "half the covariance": lambda c: 0.5 * c,
                "arccos c for its supplement": lambda c: float((np.sqrt(1 - c * c) + c * np.arccos(c)) / (2 * np.pi)),
            },
        ),
        Property(
            "E gelu^2 in closed form; GeLU and SiLU between v/4 and v/2",
            st.integers(-8, 12).map(lambda k: 2.0**k),
            matches_the_moment_of_gelu,
            gelu_second_moment,
            {
                "as ReLU": lambda v: 0.5 * v,
                "first term only": lambda v: v / 4 + v / (2 * np.pi) * np.arcsin(v / (1 + v)),
                "1 + v under both roots": lambda v: v / 4 + v / (2 * np.pi) * (np.arcsin(v / (1 + v)) + 2 * v / (1 + v) ** 1.5),
            },
        ),
    ),
    (
        Counterexample("GeLU of a small pre-activation", gelu_of_a_small_input_has_half_of_it),
        Counterexample("GeLU ranks two channels the other way", gelu_flips_a_ranking, exact=False),
        Counterexample("ReLU of a shifted pre-activation", shifted_inputs_are_not_halved),
        Counterexample("scores of independent ReLU units do not add", independent_relu_units_do_not_add),
    ),
)


# --- G7: the identity for Sigma --------------------------------------------------------------------------------------


def is_the_loss_of_the_weights(instance: Channels, formula: Score) -> None:
    """|B_i A_i^T|_F^2 is the change of the product of the weights, and is the same after A_i -> c A_i, B_i -> B_i / c."""
    eye = np.eye(instance.first.shape[1])
    for i in range(len(instance.first)):
        row, column = instance.first[i : i + 1], instance.second[:, i : i + 1]
        value = formula(row, column, eye)
        np.testing.assert_allclose(value, squared_norm(column @ row), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(formula(4 * row, column / 4, eye), value, rtol=1e-12, atol=1e-12)


G7 = Claim(
    "G7",
    f"{PAPER}, Sec. 3.2.3",
    "with Sigma_X the identity, the score degenerates to a function approximation (of the weights alone)",
    Verdict.HOLDS,
    properties=(
        Property(
            "M_i = |A_i|^2 |B_i|^2 = |B_i A_i^T|_F^2, unchanged by A_i -> c A_i, B_i -> B_i / c",
            channels(),
            is_the_loss_of_the_weights,
            total_score,
            {
                "sum instead of product": lambda a, b, moment: squared_norm(a) + squared_norm(b),
                "not squared": lambda a, b, moment: float(np.sqrt(squared_norm(a) * squared_norm(b))),
                "outputs only": lambda a, b, moment: squared_norm(b),
            },
        ),
    ),
)
