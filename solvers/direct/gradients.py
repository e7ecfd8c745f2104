"""Least squares on supports by conjugate gradients, all rows at once, where that takes less than factorising row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gramian.solvers.backend._xp import Array, cholesky, device, namespace, on_host, solve_triangular, to_numpy

__all__ = [
    "DEVICE", "PROCESSOR", "Rates", "conjugate_gradients", "gradients_pay", "promising", "regular_inverse", "row_seconds",
]  # fmt: skip

TOL = 1e-12  # |residual| <= TOL |gradient| ends a row
BETWEEN = 10  # steps between looks at the residuals, for which a device has to be waited for
FEWEST = 30  # steps that a layer takes at least, with the inverse of its Gram matrix to help; 50 to 140 are usual
PLAIN = 500  # steps that it is expected to take without; 150 to 800 are usual
INVERTING = 3.0  # products of the Gram's size that its inverse takes
WASTE = 0.08  # of the time of factorisations, the most that may be spent on finding out that they are the better choice
PILOT = 8  # rows that show the pace of a layer
REGULAR = 1e10  # of an inverse of a matrix of unit diagonal, entries below which tell that the matrix is regular


@dataclass(frozen=True)
class Rates:
    """How fast a machine is: multiply-adds a second of factorisations and of products, and seconds of a step besides them.

    They are constants, not measured in a run, so that a run makes the same choices, and the same bytes, every time.
    """

    factor: float
    product: float
    step: float
    entry: float


PROCESSOR = Rates(factor=4e10, product=5.5e10, step=0.0, entry=1.5e-8)  # two cores
DEVICE = Rates(factor=7e10, product=2e13, step=8e-4, entry=1e-11)  # an H100; small factorisations do not fill it


def rates_of(array: Array) -> Rates:
    """Return the rates of where an array lives."""
    return PROCESSOR if on_host(array) else DEVICE


def row_seconds(gram: Array, bundles: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """Return what every row costs if it is factorised (q,); rows (b, m) of a bundle share b factorisations."""
    found = np.zeros(sum(rows.size for rows, _ in bundles))
    for rows, size in bundles:
        found[rows] = size**3 / 3 / rows.shape[1] / rates_of(gram).factor
    return found


def step_seconds(gram: Array, rows: int, products: int) -> float:
    """Return what a step of all rows costs, with so many products of the Gram's size."""
    rates, width = rates_of(gram), gram.shape[0]
    entries: float = rows * width * (products * width / rates.product + rates.entry)
    return rates.step + entries


def gradients_pay(gram: Array, factorising: np.ndarray, inverse: bool) -> bool:
    """Return whether conjugate gradients may take less time than to factorise all rows, at the costs given (q,).

    inverse: whether they would be preconditioned. Then the inverse has to be worth its time even if it turns out that they do
    not.
    """
    steps, products = (FEWEST, 2) if inverse else (PLAIN, 1)
    before = INVERTING * gram.shape[0] ** 3 / rates_of(gram).product if inverse else 0.0
    total = float(factorising.sum())
    return before <= WASTE * total and before + steps * step_seconds(gram, factorising.size, products) < total


def promising(gram: Array, mask: Array, gradient: Array, factorising: np.ndarray, inverse: Array) -> bool:
    """Return whether some rows, at the pace of their first steps, suggest that all of them take less time so than by
    factorisations."""
    xp = namespace(gram, mask, gradient)
    rows = xp.arange(min(PILOT, gradient.shape[0]), device=device(gradient)) * gradient.shape[0] // PILOT
    masks, begun = xp.take(mask, rows, axis=0), xp.take(gradient, rows, axis=0)
    never = np.full(begun.shape[0], math.inf)  # no row of the pilot is given up
    change, _ = conjugate_gradients(gram, masks, begun, never, inverse=inverse, most=2 * BETWEEN)
    residual = xp.where(masks, begun + change @ gram, xp.zeros_like(begun))
    length, scale = (xp.sum(each * each, axis=1) for each in (residual, begun))
    largest = float(xp.max(length / xp.where(scale > 0, scale, xp.ones_like(scale))))
    more = expected_steps(2 * BETWEEN, math.sqrt(largest)) if largest > TOL**2 else 0.0
    return (2 * BETWEEN + more) * step_seconds(gram, factorising.size, 2) < float(factorising.sum())


def regular_inverse(gram: Array) -> Array | None:
    """Return G^-1 where G, of unit diagonal, is regular. Then so is every G_KK, whose eigenvalues are between those of G."""
    xp = namespace(gram)
    factor, exists = cholesky(gram)
    if not exists:
        return None
    root = solve_triangular(factor, xp.eye(gram.shape[0], dtype=gram.dtype, device=device(gram)), upper=False)
    inverse = root.T @ root
    return inverse if float(xp.max(xp.abs(inverse))) < REGULAR else None


def conjugate_gradients(
    gram: Array, mask: Array, gradient: Array, factorising: np.ndarray, *, inverse: Array | None = None, most: int = 5000
) -> tuple[Array, np.ndarray]:
    """Return rows d with d_P = 0 and G_KK d_K = -gradient_K, and which of them are found (q,)

    Every row is its own iteration, and all of them take one product `D G` a step, from zero. They are preconditioned by
    (G^-1)_KK where `inverse` is given; without it they go towards the d of least norm. A row is found at |residual| <= TOL
    |gradient|. The search ends after `most` steps, or as soon as the rows that are not found, at the pace seen so far, would be
    factorised sooner, at the costs `factorising` (q,) in seconds. What is done depends on the numbers alone, not on a clock.
    """
    xp = namespace(gram, mask, gradient)
    zero = xp.zeros_like(gradient)

    def preconditioned(residual: Array) -> Array:
        return residual if inverse is None else xp.where(mask, residual @ inverse, zero)

    change, residual = zero, -gradient
    ahead = preconditioned(residual)
    direction, size = ahead, xp.sum(residual * ahead, axis=1, keepdims=True)
    length = begun = xp.sum(residual * residual, axis=1, keepdims=True)
    scale = xp.where(begun > 0, begun, xp.ones_like(begun))
    pace = step_seconds(gram, gradient.shape[0], 1 if inverse is None else 2)
    for step in range(most + 1):
        going = length > TOL**2 * begun
        if step % BETWEEN == 0 or step == most:
            left = to_numpy(going)[:, 0]
            more = expected_steps(step, math.sqrt(float(xp.max(length / scale))))
            if not left.any() or step == most or more * pace > factorising[left].sum():
                break
        product = xp.where(mask, direction @ gram, zero)
        curvature = xp.sum(direction * product, axis=1, keepdims=True)
        falling = going & (curvature > 0)  # a row that went on after its end would drift along the null space
        far = xp.where(falling, size / xp.where(falling, curvature, xp.ones_like(size)), xp.zeros_like(size))
        change, residual = change + far * direction, residual - far * product
        ahead = preconditioned(residual)
        following = xp.sum(residual * ahead, axis=1, keepdims=True)
        direction = ahead + following / xp.where(size > 0, size, xp.ones_like(size)) * direction
        size, length = following, xp.sum(residual * residual, axis=1, keepdims=True)
    return change, ~left


def expected_steps(done: int, residual: float) -> float:
    """Return how many more steps it takes to TOL at the pace at which `done` steps came to a relative residual."""
    if done == 0:
        return 0.0
    return done * (math.log(TOL) / math.log(residual) - 1) if 0 < residual < 1 else math.inf
