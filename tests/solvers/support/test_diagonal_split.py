"""The diagonal under a Gram matrix: against a semidefinite program, and proven in rational numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gramian.proofs.kit.convex import cvxpy
from gramian.proofs.kit.rational import exact
from gramian.proofs.kit.strategies import layers, normal_layer
from gramian.solvers.support.diagonal_split import conditional_split, diagonal_split, proven_split


def unit_gram(seed: int, width: int, condition: float = 10.0) -> np.ndarray:
    inputs = normal_layer(seed, 4 * width, width, 1, condition=condition).inputs
    inputs = inputs / np.linalg.norm(inputs, axis=0)
    return inputs.T @ inputs


def semidefinite(matrix: list[list[Fraction]]) -> bool:
    """Whether a rational matrix is positive semidefinite, by elimination: no negative pivot, and none of zero beside others."""
    rest = [list(row) for row in matrix]
    for j in range(len(rest)):
        if rest[j][j] < 0 or (rest[j][j] == 0 and any(rest[j][k] != 0 for k in range(j, len(rest)))):
            return False
        for i in range(j + 1, len(rest)):
            if rest[j][j] != 0:
                factor = rest[i][j] / rest[j][j]
                rest[i] = [a - factor * b for a, b in zip(rest[i], rest[j])]
    return True


@pytest.mark.parametrize("width, condition", [(1, 1.0), (6, 3.0), (12, 30.0), (20, 300.0)])
def test_near_the_semidefinite_program(xp, width, condition):
    """Within 5 % of its optimum, and inside; from what channels have for themselves, which is inside too."""
    cp = cvxpy()
    gram = unit_gram(400, width, condition)
    for seed in range(3):
        price = np.random.default_rng(seed).uniform(0.01, 1, size=width)
        start = conditional_split(xp.asarray(gram))
        assert np.linalg.eigvalsh(gram - np.diag(xp.numpy(start)))[0] > 0
        split = xp.numpy(diagonal_split(xp.asarray(gram), xp.asarray(price), start))
        diagonal = cp.Variable(width, nonneg=True)
        model = cp.Problem(cp.Maximize(price @ diagonal), [gram - cp.diag(diagonal) >> 0])
        model.solve(solver=cp.CLARABEL)
        assert 0.95 * model.value <= price @ split <= model.value * (1 + 1e-6)
        assert np.all(split > 0) and np.linalg.eigvalsh(gram - np.diag(split))[0] > 0


def test_a_diagonal_gram_is_taken_whole(xp):
    split = xp.numpy(diagonal_split(xp.asarray(np.eye(5)), xp.asarray(np.ones(5)), xp.asarray(np.full(5, 0.5))))
    assert np.all(split > 0.9) and np.all(split <= 1)


def test_a_start_outside_is_returned(xp):
    start = xp.asarray(np.full(4, 2.0))
    assert diagonal_split(xp.asarray(np.eye(4)), xp.asarray(np.ones(4)), start) is start


@given(layer=layers(inputs=5, outputs=1), share=st.sampled_from([0.0, 1e-15, 1e-12, 1e-6, 0.1]), data=st.data())
@settings(max_examples=200)
def test_what_is_proven_is_so_in_rational_numbers(layer, share, data):
    """For d at the border, where rounding decides: G singular, d the smallest eigenvalue or a little more."""
    gram = layer.inputs.T @ layer.inputs
    gram = np.array(gram + share * np.diag(np.diag(gram)))
    least = max(0.0, float(np.linalg.eigvalsh(gram)[0]))
    split = np.full(len(gram), least * data.draw(st.sampled_from([1 + 1e-12, 1.0, 1 - 1e-15, 1 - 1e-12, 0.5, 0.0])))
    proven = proven_split(gram, split)
    if proven is not None:
        assert np.all(proven <= split) and semidefinite(rest(gram, proven))


def rest(gram: np.ndarray, split: np.ndarray) -> list[list[Fraction]]:
    """G - diag(d) of the symmetric part of G, exactly."""
    entries, diagonal = exact(gram), exact(split)
    size = range(len(entries))
    return [[(entries[i][j] + entries[j][i]) / 2 - (diagonal[i] if i == j else 0) for j in size] for i in size]


def test_little_is_lost_to_rounding(xp):
    for width, unit in ((30, 1.0), (30, 1e-6), (200, 1e6)):
        gram = unit_gram(401, width) * unit
        split = np.full(width, (1 - 1e-6) * float(np.linalg.eigvalsh(gram)[0]))
        proven = xp.numpy(proven_split(xp.asarray(gram), xp.asarray(split)))
        assert np.all(proven < split) and np.all(split - proven <= 4 * width**2 * np.finfo(float).eps * unit)


def test_nothing_is_proven_of_what_is_not(xp):
    gram = xp.asarray(np.array([[1.0, 1.0], [1.0, 1.0]]))
    assert proven_split(gram, xp.asarray(np.full(2, 0.1))) is None
    assert proven_split(xp.asarray(np.array([[0.0, 1.0], [1.0, 4.0]])), xp.asarray(np.zeros(2))) is None
    assert proven_split(gram, xp.asarray(np.array([np.nan, 0.0]))) is None
    dead = proven_split(xp.asarray(np.diag([0.0, 1.0])), xp.asarray(np.array([0.5, 0.5])))
    assert xp.numpy(dead)[0] == 0 and 0.49 < xp.numpy(dead)[1] < 0.5
