"""float32 products as three of TF32 operands: how near they are, that they need all three, and that answers are as good."""

from __future__ import annotations

import numpy as np
import pytest

from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import FISTA, L1, Quadratic, Status, solve
from gramian.solvers.backend.split import halves, split_product

UNIT = 2.0**-11  # of TF32


def drawn(seed: int, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Normal numbers over six orders of magnitude, with zeros among them."""
    draw = np.random.default_rng(seed)
    values = scale * draw.normal(size=shape) * 10.0 ** draw.uniform(-6, 0, size=shape)
    values[draw.random(shape) < 0.1] = 0.0
    return values.astype(np.float32)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_halves_are_numbers_of_tf32(xp, scale):
    array = drawn(0, (40, 30), scale)
    high, low = (xp.numpy(half) for half in halves(xp.asarray(array)))
    for half in (high, low):
        assert not np.any(half.view(np.uint32) & 0x1FFF)  # 13 of the 23 bits that are stored
    assert np.all(np.abs(array.astype(np.float64) - high) <= UNIT * np.abs(array))
    assert np.all(np.abs(array.astype(np.float64) - high - low.astype(np.float64)) <= UNIT**2 * np.abs(array))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("inner", [1, 7, 600])
def test_products_are_within_the_bound(xp, scale, inner):
    left, right = drawn(1, (9, inner), scale), drawn(2, (inner, 11), 1.0)
    found = xp.numpy(split_product(xp.asarray(left), halves(xp.asarray(right)))).astype(np.float64)
    exact, size = left.astype(np.float64) @ right.astype(np.float64), np.abs(left).astype(np.float64) @ np.abs(right)
    off = np.abs(found - exact)
    assert np.all(off <= (3 * UNIT**2 + (inner + 3) * 2.0**-24) * size)


def test_all_three_products_are_needed(xp):
    """Without one of them the error is some 2^-12, a thousand times the bound."""
    left, right = drawn(3, (20, 50), 1.0), drawn(4, (50, 20), 1.0)
    (high, low), (other, rest) = (
        [half.astype(np.float64) for half in map(xp.numpy, halves(xp.asarray(each)))] for each in (left, right)
    )
    exact, size = left.astype(np.float64) @ right, np.abs(left).astype(np.float64) @ np.abs(right)
    bound = 3 * UNIT**2 * size
    whole = high @ other + high @ rest + low @ other
    assert np.all(np.abs(whole - exact) <= bound)
    for part in (high @ other, high @ other + high @ rest, high @ other + low @ other):
        assert np.max(np.abs(part - exact) / bound) > 20


def test_only_float32_is_split(xp):
    with pytest.raises(ValueError, match="split in float32"):
        halves(xp.asarray(np.ones((2, 2))))


@pytest.mark.parametrize("scaled", [True, False])
def test_fista_ends_with_the_same_certificate(xp, scaled):
    layer = normal_layer(81, 60, 24, 5, condition=10.0, drift=0.3)
    problem, term = layer.problem(xp).astype(xp.asarray(np.float32(1.0)).dtype), L1(0.1 * layer.largest)
    plain, split = (solve(problem, term, FISTA(scaled=scaled, split=each), tol=1e-5, max_steps=3000) for each in (False, True))
    assert plain.status is split.status is Status.CONVERGED
    assert split.certificate.relative_gap <= 1e-5
    assert split.certificate.objective == pytest.approx(plain.certificate.objective, rel=2e-5)


def test_float64_is_not_split(xp):
    layer = normal_layer(82, 40, 12, 3)
    points = [
        xp.numpy(solve(layer.problem(xp), L1(0.1 * layer.largest), FISTA(split=each), tol=1e-9).weights)
        for each in (False, True)
    ]
    np.testing.assert_array_equal(*points)


def test_parts_share_the_halves():
    problem = Quadratic(np.eye(4, dtype=np.float32), np.ones((6, 4), dtype=np.float32))
    whole = problem.halves
    assert problem.part(slice(0, 3)).halves is whole
