"""TASP, Secs. 1 and 2.2: the kernel of SignGD, and the loss along its flow (claims T1, T2)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.grids import grids
from gramian.proofs.kit.rational import dot, exact
from gramian.proofs.tasp.tiny_networks import Network, flat, kernel, leaky, networks, rational_network, samples, sign

__all__ = ["T1", "T2"]

PAPER = "TASP"
STEP = 1e-30j  # of complex steps: exact to rounding, as nothing is subtracted
Gradient = tuple[Any, Any]


class Batch(NamedTuple):
    """inputs: (N, d). targets: y (N,), of the loss L = 1/2 sum (f(x_k) - y_k)^2."""

    network: Network
    inputs: np.ndarray
    targets: np.ndarray

    @property
    def gradients(self) -> list[Gradient]:
        return [self.network.gradient(x) for x in self.inputs]

    @property
    def residuals(self) -> np.ndarray:
        """dL / df(x_k)."""
        return np.asarray(np.array([self.network.value(x) for x in self.inputs]) - self.targets)


@st.composite
def batches(draw: st.DrawFn, count: int | None = None) -> Batch:
    network = draw(networks())
    count = draw(st.integers(1, 3)) if count is None else count
    return Batch(network, draw(samples(network, count)), draw(grids((count,)))[0])


def size(gradient: Gradient) -> float:
    return float(np.sum(np.abs(flat(gradient))))


# --- T1: the kernel --------------------------------------------------------------------------------------------------


def is_the_effect_of_a_sign_step(batch: Batch, formula: Callable[[Gradient, Gradient], float]) -> None:
    """d/dt f(x; W + t sign grad f(z)) = Theta(x, z), and |Theta(x, z)| <= Theta(x, x) = |grad f(x)|_1."""
    at, stepped = batch.gradients
    moved = batch.network.moved(STEP, (sign(stepped[0]), sign(stepped[1]))).value(batch.inputs[0])
    np.testing.assert_allclose(formula(at, stepped), moved.imag / abs(STEP), rtol=0, atol=1e-12 * (1 + size(at)))
    np.testing.assert_allclose(formula(at, at), size(at), rtol=1e-12)
    assert abs(formula(at, stepped)) <= formula(at, at) * (1 + 1e-12) + 1e-12


def kernel_matrix(network: Network, inputs: list[list[int]]) -> list[list[Any]]:
    gradients = [network.gradient(np.array(exact(x), dtype=object)) for x in inputs]
    return [[kernel(at, stepped) for stepped in gradients] for at in gradients]


def spectrum_is_complex() -> None:
    """One ReLU unit with W1 = (0, 1)^T, W2 = (0, 2), v = (0, 1) and the inputs (-1, 2) and (2, 1) has Theta = [[8, 4], [-1,
    7]]."""
    theta = kernel_matrix(rational_network([[0], [1]], [[0, 2]], [0, 1]), [[-1, 2], [2, 1]])
    assert theta == [[8, 4], [-1, 7]]
    assert (theta[0][0] - theta[1][1]) ** 2 + 4 * theta[0][1] * theta[1][0] == -15, "discriminant"


def symmetric_part_is_indefinite() -> None:
    """For the gradients (-3, 2, 3) and (-2, 3, 2) of W1, at W1 = 0, Theta = [[8, 8], [7, 7]], and the determinant of its
    symmetric part is -1/4."""
    network = rational_network([[0], [0], [0]], [[2, 0, 0]], [1, 0, 0], leaky(Fraction(1, 2)))
    theta = kernel_matrix(network, [[-3, 2, 3], [-2, 3, 2]])
    assert theta == [[8, 8], [7, 7]]
    assert theta[0][0] * theta[1][1] - (theta[0][1] + theta[1][0]) ** 2 / 4 == Fraction(-1, 4)


T1 = Claim(
    "T1",
    f"{PAPER}, Secs. 1 and 2.2",
    "Theta(x, z) = <grad f(x), sign grad f(z)> is the NTK of SignGD; its spectrum tells what a unit contributes to training",
    Verdict.CONDITIONAL,
    "Theta(x, z) is how fast f(x) rises along sign grad f(z), Theta(x, x) = |grad f(x)|_1 and |Theta(x, z)| <= Theta(x, x). "
    "Between inputs it is no kernel: not symmetric, its symmetric part can be indefinite and its eigenvalues complex.",
    (
        Property(
            "Theta(x, z) = d/dt f(x; W + t sign grad f(z)), at most Theta(x, x) = |grad f(x)|_1",
            batches(count=2),
            is_the_effect_of_a_sign_step,
            lambda at, stepped: float(kernel(at, stepped)),
            {
                "sign at the other input": lambda at, stepped: float(kernel(stepped, at)),
                "the kernel of SGD": lambda at, stepped: float(flat(at) @ flat(stepped)),
                "both signs": lambda at, stepped: float(sign(flat(at)) @ sign(flat(stepped))),
            },
        ),
    ),
    (
        Counterexample("complex eigenvalues", spectrum_is_complex),
        Counterexample("indefinite symmetric part", symmetric_part_is_indefinite),
    ),
)


# --- T2: the loss along the sign flow --------------------------------------------------------------------------------

Rate = Callable[[np.ndarray, list[Gradient]], float]  # residuals dL/df_k and gradients of f_k, to dL/dt at eta = 1


def loss_gradient(residuals: np.ndarray, gradients: list[Gradient]) -> np.ndarray:
    return np.asarray(np.sum([residual * flat(gradient) for residual, gradient in zip(residuals, gradients)], axis=0))


def is_the_rate_of_the_loss(batch: Batch, formula: Rate) -> None:
    """The formula is dL/dt for W' = - sign(sum of dL/df_k grad f_k), which is measured by a complex step along it."""
    parts = [
        np.sum([residual * gradient[part] for residual, gradient in zip(batch.residuals, batch.gradients)], axis=0)
        for part in (0, 1)
    ]
    moved = batch.network.moved(STEP, (-sign(parts[0]), -sign(parts[1])))
    loss = sum(0.5 * (moved.value(x) - target) ** 2 for x, target in zip(batch.inputs, batch.targets))
    scale = 1 + sum(abs(residual) * size(gradient) for residual, gradient in zip(batch.residuals, batch.gradients))
    rate = formula(batch.residuals, batch.gradients)
    np.testing.assert_allclose(rate, np.imag(loss) / abs(STEP), rtol=0, atol=1e-11 * scale)


def kernel_rate(residuals: np.ndarray, gradients: list[Gradient]) -> float:
    """As printed: - dL/df^T Theta dL/df."""
    theta = np.array([[kernel(at, stepped) for stepped in gradients] for at in gradients])
    return -float(residuals @ theta @ residuals)


def half_signed_rate(residuals: np.ndarray, gradients: list[Gradient]) -> float:
    """- dL/df^T Theta sign(dL/df), which is right for one sample."""
    theta = np.array([[kernel(at, stepped) for stepped in gradients] for at in gradients])
    return -float(residuals @ theta @ np.sign(residuals))


def is_the_first_step_of_adam(values: np.ndarray, formula: Callable[[np.ndarray, float, float], np.ndarray]) -> None:
    """m / sqrt(v) with m = (1 - b1) g, v = (1 - b2) g^2 and both divided by their bias 1 - b^1; sign(0) = 0 is left out."""
    gradient = values[values != 0]
    for first, second in ((0.9, 0.999), (0.9, 0.95)):
        np.testing.assert_allclose(formula(gradient, first, second), np.sign(gradient), rtol=1e-12)


def one_sample_counts_its_slope_twice() -> None:
    """With x = 1, W1 = 2, W2 = v = 1 and L = f^2 / 2 one has f = 2 and grad f = (1, 2), so dL/dt = -6; as printed it would be
    -2 . 3 . 2 = -12."""
    network, x = rational_network([[2]], [[1]], [1]), np.array(exact([1]), dtype=object)
    gradient, slope = network.gradient(x), network.value(x)
    rate = -slope * (flat(gradient) @ sign(slope * flat(gradient)))
    assert (rate, -slope * kernel(gradient, gradient) * slope) == (-6, -12)
    moved = network.moved(Fraction(-1, 1000), (sign(gradient[0]), sign(gradient[1])))
    assert abs((moved.value(x) ** 2 - slope**2) / 2 * 1000 - rate) < Fraction(1, 100)


def no_kernel_fits_a_batch() -> None:
    """One weight has the slopes (2, -1) at two samples: -dL/dt = |2 g1 - g2| is 1, 0, 1 at g = (1, 1), (1, 2), (1, 3). g^T K
    sign(g) is linear in g > 0, so the middle would be the mean of the ends; g^T K g would be four times as large at 2 g."""
    slopes = Fraction(2), Fraction(-1)

    def rate(*residuals: int) -> Fraction:
        return abs(dot(slopes, residuals))

    assert [rate(1, 1), rate(1, 2), rate(1, 3)] == [1, 0, 1]
    assert rate(2, 2) == 2 * rate(1, 1)


T2 = Claim(
    "T2",
    f"{PAPER}, Sec. 2.2",
    "W' = -eta sign(grad f^T dL/df) gives L' = -eta dL/df^T [grad f sign(grad f)^T] dL/df, for vector outputs too",
    Verdict.REFUTED,
    "L' = -eta |sum over k of dL/df_k grad f_k|_1, and -eta |dL/df| Theta(x, x) for one scalar output: the slope of the loss "
    "counts once. The sign of a sum does not factor, so for a batch or a vector output no kernel gives the rate. Adam's first "
    "step without epsilon is -eta sign(gradient).",
    (
        Property(
            "L' = - |sum over k of dL/df_k grad f_k|_1",
            batches(),
            is_the_rate_of_the_loss,
            lambda residuals, gradients: -float(np.sum(np.abs(loss_gradient(residuals, gradients)))),
            {
                "as printed": kernel_rate,
                "the sign of one slope at a time": half_signed_rate,
                "sum of the samples' rates": lambda residuals, gradients: (
                    -float(sum(abs(residual) * size(gradient) for residual, gradient in zip(residuals, gradients)))
                ),
            },
        ),
        Property(
            "Adam's first step is the sign of the gradient",
            st.integers(1, 4).flatmap(lambda count: grids((count,))).map(lambda drawn: drawn[0]),
            is_the_first_step_of_adam,
            lambda g, first, second: ((1 - first) * g / (1 - first)) / np.sqrt((1 - second) * g**2 / (1 - second)),
            {
                "no bias correction": lambda g, first, second: (1 - first) * g / np.sqrt((1 - second) * g**2),
                "root left out": lambda g, first, second: g / g**2,
            },
        ),
    ),
    (
        Counterexample("one sample", one_sample_counts_its_slope_twice),
        Counterexample("two samples", no_kernel_fits_a_batch),
    ),
)
