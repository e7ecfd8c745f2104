"""Moments from float32 products: how far from float64, what stays exact, and that solvers live with the rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import FISTA, L1, Moments, Quadratic, TopK, certify, l0_admm, refit, solve, sparsegpt
from gramian.solvers.core import moments as module

UNIT = 2.0**-24


def both(xp, star, dense=None, weights=None, dtype="float32", batches=1):
    """Moments of the same tokens with float32 and with float64 products."""
    found = []
    for products in ("float32", "float64"):
        moments = Moments(star.shape[1])
        for part in np.array_split(np.arange(len(star)), batches):
            rows = [None if each is None else xp.asarray(each[part], dtype) for each in (star, dense, weights)]
            moments.update(*rows, products=products)
        found.append(moments)
    return found


def deviation(xp, left, right, single, double):
    """The largest entry of |found - expected|_ij / sqrt(left_ii right_jj)."""
    scale = np.sqrt(np.outer(np.diagonal(xp.numpy(left)), np.diagonal(xp.numpy(right))))
    return np.max(np.abs(xp.numpy(single) - xp.numpy(double)) / np.where(scale > 0, scale, np.inf))


def ill_conditioned(tokens: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Channels of scales 1e-3 to 1e3 with means, mixed by a matrix of condition 1e3, one dead, one channel twice; and a
    dense counterpart a thousandth away."""
    rng = np.random.default_rng(seed)
    mix = np.linalg.qr(rng.normal(size=(width, width)))[0] * np.geomspace(1, 1e-3, width)
    star = (rng.normal(size=(tokens, width)) @ mix + 0.5 * rng.normal(size=width)) * np.geomspace(1e-3, 1e3, width)
    star[:, 3], star[:, 5] = 0.0, star[:, 4]
    return star, star * (1 + 1e-3 * rng.normal(size=star.shape))


def test_error_against_float64(xp):
    """The bound that is promised, and what is usual: a few units of rounding, as signs differ."""
    tokens = 3000
    star, dense = ill_conditioned(tokens, 48, 0)
    single, double = both(xp, star, dense, batches=2)
    expected = (double.gram, double.drift)
    found = {
        "gram": deviation(xp, double.gram, double.gram, single.gram, double.gram),
        "drift": deviation(xp, double.drift, double.drift, single.drift, double.drift),
        "cross": deviation(xp, *expected[::-1], single.cross, double.cross),
    }
    for name, value in found.items():
        assert 0 < value < (tokens / 2 + 2) * UNIT, (name, value)
        assert value < 2e-6, (name, value)


def test_long_batches_are_summed_in_slices(xp, monkeypatch):
    """Ones and a large token: a single float32 sum would stop counting at 2^24."""
    star = np.full((400, 2), 1.0)
    star[0, :] = 4096.0  # its square is 2^24
    monkeypatch.setattr(module, "TOKENS_PER_PRODUCT", 64)
    single, double = both(xp, star)
    assert np.max(np.abs(xp.numpy(single.gram) - xp.numpy(double.gram))) <= 64
    assert single.gram.dtype == xp.dtype("float64") and single.tokens == 400
    np.testing.assert_array_equal(xp.numpy(single.total), [4096 + 399] * 2)


@pytest.mark.parametrize("weighted", [False, True])
def test_what_stays_exact(xp, weighted):
    star, dense = ill_conditioned(90, 12, 1)
    weights = np.arange(90) % 4 / 2 if weighted else None
    single, double = both(xp, star, dense, weights, batches=3)
    for name in ("gram", "drift"):
        matrix = xp.numpy(getattr(single, name))
        np.testing.assert_array_equal(matrix, matrix.T)
        assert np.all(np.diagonal(matrix) >= 0) and not matrix[3].any()
    assert single.tokens == double.tokens
    for name in ("total", "shift"):
        np.testing.assert_allclose(xp.numpy(getattr(single, name)), xp.numpy(getattr(double, name)), rtol=1e-5, atol=1e-6)


def test_half_precision_is_multiplied_as_it_is():
    """Products of bfloat16 or float16 numbers need at most 22 bits: only sums round, and here they do not."""
    rng = np.random.default_rng(2)
    for half in (torch.bfloat16, torch.float16):
        inputs = torch.from_numpy(rng.integers(-16, 17, size=(500, 6)) / 8).to(half)
        moments = Moments(6)
        moments.update(inputs, inputs * 0.5, products="float32")
        expected = inputs.double().T @ inputs.double()
        assert torch.equal(moments.gram, expected) and torch.equal(moments.drift, expected / 4)


def test_the_difference_is_taken_before_it_is_rounded(xp):
    star, dense = np.array([[1.0]]), np.array([[1.0 - 2.0**-40]])
    moments = Moments(1)
    moments.update(xp.asarray(star), xp.asarray(dense), products="float32")
    assert float(moments.drift[0, 0]) == 2.0**-80 and float(moments.cross[0, 0]) == 2.0**-40


def test_losses_of_either_agree(xp):
    """Energy, loss and the floor of a problem with drift: consistent among each other, and near the float64 ones."""
    star, dense = ill_conditioned(600, 24, 3)
    weight = np.random.default_rng(4).normal(size=(5, 24)) / np.geomspace(1e-3, 1e3, 24)
    problems = [Quadratic.from_moments(each, xp.asarray(weight)) for each in both(xp, star, dense)]
    for values in zip(*[(each.energy, each.loss(each.anchor), float(xp.module.sum(each.floor))) for each in problems]):
        assert values[0] == pytest.approx(values[1], rel=1e-5) and values[0] > 0
    np.testing.assert_allclose(xp.numpy(problems[0].slope), xp.numpy(problems[1].slope), rtol=1e-4, atol=1e-4)


SOLVERS = {
    "refit": lambda problem: refit(problem, TopK(0.5).select(abs(problem.anchor))),
    "damped": lambda problem: refit(problem.damped(0.01 * problem.diagonal), TopK(0.5).select(abs(problem.anchor))),
    "sparsegpt": lambda problem: sparsegpt(problem, TopK(0.5)),
    "l0": lambda problem: l0_admm(problem, TopK(0.5)),
    "fista": lambda problem: solve(problem, L1(0.05), FISTA(), tol=1e-4, max_steps=2000),
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("kind", ["fewer tokens than channels", "ill-conditioned"])
def test_solvers_live_with_the_rounding(kind, name):
    """A singular Gram can come out slightly indefinite. Judged on the float64 Gram the answer is as good, and its own
    certificate is finite."""
    if kind == "ill-conditioned":
        star = ill_conditioned(400, 40, 5)[0]
        weight = np.random.default_rng(6).normal(size=(8, 40)) / np.geomspace(1e-3, 1e3, 40)
    else:
        layer = normal_layer(7, 25, 40, 8)
        star, weight = layer.inputs, layer.weight
    single, double = (Moments(40) for _ in range(2))
    single.update(star.astype(np.float32), products="float32")
    double.update(star.astype(np.float32))
    if kind != "ill-conditioned":
        assert np.linalg.eigvalsh(single.gram)[0] < 0 < np.linalg.eigvalsh(single.gram)[-1]
    rounded, exact = (Quadratic.from_moments(each, weight) for each in (single, double))
    answer, reference = SOLVERS[name](rounded), SOLVERS[name](exact)
    assert np.all(np.isfinite(answer.weights))
    errors = [exact.relative_error(each.weights) for each in (answer, reference)]
    assert errors[0] <= 1.02 * errors[1] + 1e-4, (errors, answer.status)
    assert np.isfinite(certify(rounded, L1(0.05), answer.weights).gap) if name == "fista" else True


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_what_float32_cannot_hold_is_refused(xp):
    moments = Moments(2)
    for star, dense in ((np.full((2, 2), 1e20), None), (np.full((2, 2), 1e15), np.full((2, 2), -1e20))):
        with pytest.raises(ValueError, match=r"too large for float32 products.*take products='float64'"):
            moments.update(xp.asarray(star), None if dense is None else xp.asarray(dense), products="float32")
    with pytest.raises(ValueError, match="products must be 'float64' or 'float32' but is 'tf32'"):
        moments.update(xp.asarray(np.ones((2, 2))), products="tf32")
    assert moments.gram is None and moments.tokens == 0
    moments.update(xp.asarray(np.full((2, 2), 1e20)))
    assert float(moments.gram[0, 0]) == 2e40
