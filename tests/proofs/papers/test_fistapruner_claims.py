"""FISTAPruner's ledger: every claim is as its verdict says, and every wrong formula is caught."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from gramian.proofs.fistapruner import CLAIMS
from gramian.proofs.fistapruner.printed import algorithm_one, fractional, hard_threshold, iterate, printed
from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import FISTA, L1, NM, TopK


def test_every_entry_is_there_once():
    assert [claim.id for claim in CLAIMS] == [*(f"F{k}" for k in range(1, 18)), "F17b", "F18"]


def test_the_printed_iteration_differs_in_its_momentum_alone():
    """With Beck and Teboulle's momentum `iterate` is the toolkit's FISTA; as printed it agrees for two prox points."""
    layer = normal_layer(0, 20, 5, 2)
    problem, term, solver = layer.problem(np), L1(0.5), FISTA(restart=False)
    state, expected = solver.init(problem, term, layer.weight), []
    for _ in range(30):
        state = solver.step(problem, term, state)
        expected.append(solver.weights(state))
    gram, cross = layer.inputs.T @ layer.inputs, layer.outputs.T @ layer.inputs
    setting = (gram, cross, 0.5, problem.lipschitz, layer.weight, 30)
    published = iterate(*setting, lambda prox, previous, ahead, now, then: prox + (now - 1) / then * (prox - previous))
    np.testing.assert_allclose([prox for prox, _ in published], expected, atol=1e-10)
    wrong = [prox for prox, _ in iterate(*setting, printed)]
    np.testing.assert_allclose(wrong[:2], expected[:2], atol=1e-10)
    assert np.max(np.abs(np.array(wrong) - expected)) > 1e-3


def test_fractions_and_floats_iterate_alike():
    gram, cross, start = [[2, 1], [1, 3]], [[4, -1]], [[1, 1]]
    exact = iterate(fractional(gram), fractional(cross), Fraction(1, 3), Fraction(4), fractional(start), 12)
    rough = iterate(*(np.array(values, dtype=float) for values in (gram, cross)), 1 / 3, 4.0, np.array(start, dtype=float), 12)
    assert all(isinstance(entry, Fraction) for pair in exact for point in pair for entry in point.flat)
    for pair, other in zip(exact, rough, strict=True):
        np.testing.assert_allclose(np.array(pair, dtype=float), np.array(other), atol=1e-6)


def test_hard_threshold_is_the_patterns():
    weights = np.random.default_rng(1).normal(size=(3, 8))
    for rounded, pattern in ((hard_threshold(weights, 2, 4), NM(2, 4)), (hard_threshold(weights, 6), TopK(0.75))):
        np.testing.assert_array_equal(rounded, np.where(pattern.select(np.abs(weights)), weights, 0.0))


def test_algorithm_one_improves_a_sparse_start():
    """As printed it does work from a sparse start, when lambda_0 suits the layer: errors fall and the pattern holds."""
    layer = normal_layer(2, 40, 8, 4, condition=30.0)
    start = hard_threshold(layer.weight, 16)
    best, visits = algorithm_one(layer.inputs, layer.outputs, start, lambda weights: hard_threshold(weights, 16), upper=1.0)
    assert np.count_nonzero(best) <= 16
    assert layer.loss(best) < 0.9 * layer.loss(start)
    assert layer.loss(best) == pytest.approx(min(visit.error for visit in visits) ** 2 / 2)
