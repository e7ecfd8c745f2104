"""Numerical Pruning, Lemmas 1 and 9, Section 3.2 and Facts 6 to 8: error bounds and what they rest on (claims N1, N3, N19)."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.rational import dot, exact, matmul
from gramian.proofs.kit.references import central_gradient
from gramian.proofs.kit.strategies import Layer, layers, small
from gramian.proofs.numerical_pruning.compensation import Pruned, pruned_layers

__all__ = ["CLAIMS"]

PAPER = "Numerical Pruning"

# -- Lemma 1: bounds for a radius R >= |X|, a weight (D, D') and k pruned rows ------------------------------------------


def column_bound(radius: float, weight: np.ndarray, pruned: np.ndarray) -> np.ndarray:
    """R |W_{P,i}|_2 of every column i."""
    return np.asarray(radius * np.linalg.norm(weight[pruned], axis=0))


def check_columns(case: Pruned, bound: Any) -> None:
    """|X W_i - X (M o W_i)|_2 is at most that, and equal to it for X = R I."""
    radius, kept = np.linalg.norm(case.inputs, 2), ~case.pruned
    slack = 1e-12 * np.sqrt(case.scale)
    errors = np.linalg.norm(case.inputs @ case.weight - case.inputs @ (kept[:, None] * case.weight), axis=0)
    assert np.all(errors <= bound(radius, case.weight, case.pruned) + slack)
    errors = np.linalg.norm(radius * case.weight - radius * (kept[:, None] * case.weight), axis=0)
    assert_allclose(bound(radius, case.weight, case.pruned), errors, rtol=0, atol=slack)


def share_bound(radius: float, weight: np.ndarray, ratio: float) -> float:
    """sqrt(rho) R |W|_F."""
    return float(np.sqrt(ratio) * radius * np.linalg.norm(weight))


def check_least_rows(case: Pruned, bound: Any) -> None:
    """|X_P W_P|_F for P the k rows of least norm is at most that, with equality for X = I and a constant W."""
    width, radius = len(case.weight), np.linalg.norm(case.inputs, 2)
    order = np.argsort(np.linalg.norm(case.weight, axis=1))
    for count in range(1, width + 1):
        error = np.linalg.norm(case.inputs[:, order[:count]] @ case.weight[order[:count]])
        assert error <= bound(radius, case.weight, count / width) + 1e-12 * np.sqrt(case.scale)
        constant = np.ones_like(case.weight)
        assert_allclose(np.linalg.norm(constant[:count]), bound(1.0, constant, count / width))


def check_random_rows(case: Pruned, bound: Any) -> None:
    """The mean of |X W_i - X (M o W_i)|_2^2 over all masks of k zeros is at most bound^2, with equality for X = R I."""
    width, radius = len(case.weight), np.linalg.norm(case.inputs, 2)
    count = len(case.gone)
    for inputs in (case.inputs, radius * np.eye(width)):
        errors = [inputs[:, list(rows)] @ case.weight[list(rows)] for rows in combinations(range(width), count)]
        mean, most = (
            np.mean(np.sum(np.square(errors), axis=1), axis=0),
            [bound(radius, column, count / width) ** 2 for column in case.weight.T],
        )
        assert np.all(mean <= np.array(most) + 1e-12 * case.scale)
    assert_allclose(mean, most, rtol=0, atol=1e-12 * case.scale)


def check_lemma() -> None:
    """With X = I_2, R = 1 and M = (0, 1), W_i = (1, 0)^T gives 1 > 1/2, and even the mask of least error on W_i = (1, 1)^T
    gives 1 > 1/sqrt(2). |1 - M|_2 for M = (0, 0) is sqrt(2), which is neither rho D = 2 nor rho = 1, as the last step of the
    proof has it."""
    for column in ([1, 0], [1, 1]):
        error = [value * gone for value, gone in zip(exact(column), (1, 0), strict=True)]
        assert dot(error, error) == 1 > Fraction(1, 2) ** 2 * dot(exact(column), exact(column))
    squared = dot(exact([1, 1]), exact([1, 1]))
    assert squared == 2 and squared not in (2**2, 1**2)


# -- normalised inputs -------------------------------------------------------------------------------------------------


def norm_ranges(tokens: int, width: int) -> dict[str, tuple[float, float]]:
    """Return the least and the largest |X| of an (N, D) input, by what it was divided by."""
    rank = min(tokens, width)
    return {
        "spectral": (1.0, 1.0),
        "Frobenius": (1 / np.sqrt(rank), 1.0),
        "token": (np.sqrt(tokens / rank), np.sqrt(tokens)),
        "RMS": (np.sqrt(tokens * width / rank), np.sqrt(tokens * width)),
    }


def check_norms(layer: Layer, ranges: Any) -> None:
    """Both ends are attained: the upper one by N equal tokens, the lower one by rows of I wherever these share N evenly."""
    inputs = layer.inputs + np.eye(*layer.inputs.shape) * np.all(layer.inputs == 0, axis=1)[:, None]
    inputs[np.all(inputs == 0, axis=1), 0] = 1.0
    tokens, width = inputs.shape
    found = ranges(tokens, width)
    equal, even = np.tile(inputs[:1], (tokens, 1)), np.eye(width)[np.arange(tokens) % width]
    shared_evenly = tokens <= width or tokens % width == 0
    for matrix, end in ((inputs, None), (equal, 1), (even, 0 if shared_evenly else None)):
        rows = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        sizes = {
            "spectral": matrix / np.linalg.norm(matrix, 2),
            "Frobenius": matrix / np.linalg.norm(matrix),
            "token": rows,
            "RMS": np.sqrt(width) * rows,
        }
        for name, normalised in sizes.items():
            size, (least, most) = np.linalg.norm(normalised, 2), found[name]
            assert least * (1 - 1e-12) <= size <= most * (1 + 1e-12), name
            if end is not None:
                assert_allclose(size, found[name][end], rtol=1e-9, err_msg=name)


def check_unit_tokens() -> None:
    """Four tokens v = (3/5, 4/5) have norm 1 and give |X v| = 2, so |X| >= 2 > 1."""
    token = exact(["3/5", "4/5"])
    assert dot(token, token) == 1
    output = matmul([token] * 4, token)
    assert dot(output, output) == 4


# -- Facts 6 to 8 ------------------------------------------------------------------------------------------------------


class Facts(NamedTuple):
    """Vectors a and b (d,), and matrices A and B (n, d) and C (d, d)."""

    a: np.ndarray
    b: np.ndarray
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    n, d = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shapes = (d,), (d,), (n, d), (n, d), (d, d)
    return Facts(*(draw(arrays(float, shape, elements=small, fill=st.nothing())) for shape in shapes))


def product_norms(a: np.ndarray, b: np.ndarray, A: np.ndarray) -> tuple[float, float]:
    """Return |a|_inf |b|_2, which is at most |a|_2 |b|_2, and |A| |b|_2."""
    return float(np.max(np.abs(a)) * np.linalg.norm(b)), float(np.linalg.norm(A, 2) * np.linalg.norm(b))


def check_norms_of_products(case: Facts, bounds: Any) -> None:
    """|a o b|_2 and |A b|_2 are at most those, the first of which is at most |a|_2 |b|_2. Both are attained, by a constant a
    and by the first right singular vector of A."""
    hadamard, product = bounds(case.a, case.b, case.A)
    assert np.linalg.norm(case.a * case.b) <= hadamard + 1e-12
    assert hadamard <= np.linalg.norm(case.a) * np.linalg.norm(case.b) + 1e-12
    assert np.linalg.norm(case.A @ case.b) <= product + 1e-12
    top, constant = np.linalg.svd(case.A)[2][0], np.full(len(case.a), 2.0)
    assert_allclose(bounds(constant, case.b, case.A)[0], np.linalg.norm(constant * case.b), atol=1e-12)
    assert_allclose(bounds(top, top, case.A)[1], np.linalg.norm(case.A @ top), atol=1e-12)


def outer_sum(case: Facts) -> np.ndarray:
    """sum of A_i B_i^T over the columns i."""
    return np.asarray(np.sum([np.outer(*columns) for columns in zip(case.A.T, case.B.T, strict=True)], axis=0))


def check_algebra(case: Facts, formulas: Any) -> None:
    """The formulas are diag(a) C diag(b) and A B^T."""
    hadamard, outer = formulas(case)
    assert_allclose(hadamard, np.diag(case.a) @ case.C @ np.diag(case.b), atol=1e-12)
    assert_allclose(outer, case.A @ case.B.T, atol=1e-12)


def check_calculus(case: Facts, formulas: Any) -> None:
    """The formulas are the derivatives of a o b and <a, b> in a and of A b in b; differences are exact for what is linear."""
    hadamard, inner, product = formulas(case)
    units = np.eye(len(case.a))
    assert_allclose(hadamard, np.transpose([(case.a + unit) * case.b - case.a * case.b for unit in units]), atol=1e-12)
    assert_allclose(inner, [(case.a + unit) @ case.b - case.a @ case.b for unit in units], atol=1e-12)
    assert_allclose(product, np.transpose([case.A @ (case.b + unit) - case.A @ case.b for unit in units]), atol=1e-12)


def check_chain_rule(case: Facts, derivative: Any) -> None:
    """The formula is d(1/2 |y|^2) / da for y = C a + b."""

    def loss(a: np.ndarray) -> float:
        return 0.5 * float(np.sum((case.C @ a + case.b) ** 2))

    assert_allclose(derivative(case.a, case.C @ case.a + case.b, case.C), central_gradient(loss, case.a, 1.0), atol=1e-9)


def check_printed_chain_rule() -> None:
    """For b = 2 a in R at a = 1, 1/2 b^2 = 2 a^2 has the derivative 4, but a^T db/da = 2."""
    slope = (2 * Fraction(3, 2) ** 2 - 2 * Fraction(1, 2) ** 2) / (Fraction(3, 2) - Fraction(1, 2))
    assert slope == 4 != 1 * 2


CLAIMS = (
    Claim(
        "N1",
        f"{PAPER}, Lemmas 1 and 9",
        "|X W_i - X (M o W_i)|_2 <= rho R |W_i|_2 for |X| <= R and M in {0, 1}^D with rho D zeros; |1_D - M|_2 = rho D.",
        Verdict.REFUTED,
        "|1_D - M|_2 = sqrt(rho D), and the error is at most R |W_{P,i}|_2 <= R |W_i|_2, where no factor below 1 does for any "
        "rho > 0. Good masks have the rate sqrt(rho): |X_P W_P|_F <= sqrt(rho) R |W|_F for the rows of least norm, and for a "
        "random mask the mean of the squared error is at most rho R^2 |W_i|_2^2. All of these are attained (X = R I, W "
        "constant).",
        (
            Property(
                "any mask",
                pruned_layers(),
                check_columns,
                column_bound,
                {
                    "the printed rho R |W_i|": lambda radius, weight, pruned: (
                        np.mean(pruned) * radius * np.linalg.norm(weight, axis=0)
                    ),
                    "sqrt(rho) for any mask": lambda radius, weight, pruned: (
                        np.sqrt(np.mean(pruned)) * radius * np.linalg.norm(weight, axis=0)
                    ),
                    "the kept rows": lambda radius, weight, pruned: column_bound(radius, weight, ~pruned),
                },
            ),
            Property(
                "the rows of least norm",
                pruned_layers(),
                check_least_rows,
                share_bound,
                {
                    "rho for sqrt(rho)": lambda radius, weight, ratio: share_bound(radius, weight, ratio**2),
                    "sqrt(rho D)": lambda radius, weight, ratio: share_bound(radius, weight, ratio * len(weight)),
                },
            ),
            Property(
                "random rows",
                pruned_layers(inputs=5),
                check_random_rows,
                share_bound,
                {"rho for sqrt(rho)": lambda radius, weight, ratio: share_bound(radius, weight, ratio**2)},
            ),
        ),
        (Counterexample("two channels", check_lemma),),
    ),
    Claim(
        "N3",
        f"{PAPER}, Section 3.2",
        "With the normalisation of the input X (N, D), the norm of the normalised X is at most 1.",
        Verdict.CONDITIONAL,
        "It is for X / |X| and X / |X|_F. Tokens of norm 1 give sqrt(N / min(N, D)) <= |X| <= sqrt(N), which is more than 1 "
        "whenever N > D, as in any calibration; RMS normalisation, with tokens of norm sqrt(D), gives sqrt(D) times that. All "
        "bounds are attained.",
        (
            Property(
                "the range of |X|",
                layers(tokens=10, inputs=6, outputs=1, shifted=False),
                check_norms,
                norm_ranges,
                {
                    "tokens at most 1": lambda n, d: norm_ranges(n, d) | {"token": (0.0, 1.0)},
                    "RMS at most sqrt(N)": lambda n, d: norm_ranges(n, d) | {"RMS": (1.0, np.sqrt(n))},
                    "tokens at least sqrt(N / D)": lambda n, d: norm_ranges(n, d) | {"token": (np.sqrt(n / d), np.sqrt(n))},
                },
            ),
        ),
        (Counterexample("four equal tokens", check_unit_tokens),),
    ),
    Claim(
        "N19",
        f"{PAPER}, Facts 6, 7 and the first three of Fact 8",
        "|a o b|_2 <= |a|_2 |b|_2; |A b|_2 <= |A| |b|_2; diag(a) C diag(b) = (a b^T) o C; A B^T = sum_i A_i B_i^T (columns); "
        "d(a o b)/da_j = b_j e_j; d<a, b>/da_j = b_j; dAb/db = A.",
        Verdict.HOLDS,
        "It holds as printed. The sharper |a o b|_2 <= |a|_inf |b|_2 is what the proof of Lemma 9 needs, where |1_D - M|_inf "
        "= 1.",
        (
            Property(
                "norms",
                facts(),
                check_norms_of_products,
                product_norms,
                {
                    "the largest entry of both": lambda a, b, A: (
                        np.max(np.abs(a)) * np.max(np.abs(b)),
                        product_norms(a, b, A)[1],
                    ),
                    "the mean entry of a": lambda a, b, A: (np.mean(np.abs(a)) * np.linalg.norm(b), product_norms(a, b, A)[1]),
                    "the Frobenius norm of A": lambda a, b, A: (
                        product_norms(a, b, A)[0],
                        np.linalg.norm(A) * np.linalg.norm(b),
                    ),
                },
            ),
            Property(
                "algebra",
                facts(),
                check_algebra,
                lambda case: (np.outer(case.a, case.b) * case.C, outer_sum(case)),
                {
                    "b a^T": lambda case: (np.outer(case.b, case.a) * case.C, outer_sum(case)),
                    "rows for columns": lambda case: (np.outer(case.a, case.b) * case.C, sum(map(np.outer, case.A, case.B))),
                },
            ),
            Property(
                "derivatives",
                facts(),
                check_calculus,
                lambda case: (np.diag(case.b), case.b, case.A),
                {
                    "a_j e_j": lambda case: (np.diag(case.a), case.b, case.A),
                    "a_j": lambda case: (np.diag(case.b), case.a, case.A),
                    "A^T": lambda case: (np.diag(case.b), case.b, case.A.T),
                },
            ),
        ),
    ),
    Claim(
        "N19b",
        f"{PAPER}, Fact 8, the last",
        "d(1/2 |b|_2^2)/da = a^T db/da.",
        Verdict.REFUTED,
        "The derivative is b^T db/da, which is what Lemma 12 uses.",
        (
            Property(
                "the chain rule",
                facts(),
                check_chain_rule,
                lambda a, y, slope: y @ slope,
                {
                    "the printed a^T": lambda a, y, slope: a @ slope,
                    "transposed": lambda a, y, slope: slope @ y,
                },
            ),
        ),
        (Counterexample("b = 2 a", check_printed_chain_rule),),
    ),
)
