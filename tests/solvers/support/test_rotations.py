"""Rotations inside heads: the same function, scores against their definition, derivatives, planted bases, brute force."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import rounding
from scipy.linalg import expm
from scipy.stats import ortho_group

from gramian.proofs.kit.backends import NUMPY
from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import Quadratic
from gramian.solvers.support.rotations import (
    HeadPart,
    attention_parts,
    attention_rotations,
    head_rotation,
    polar_factor,
    rotated_columns,
    rotated_gram,
    rotated_rows,
    score_gradient,
    squared_scores,
)


def random_parts(seed: int, width: int, count: int = 2) -> list[HeadPart]:
    """Parts with weights of heavy tails and inverses of condition 10 to 1000, and one whose inverse is the identity."""
    random = np.random.default_rng(seed)
    found = [HeadPart(random.normal(size=(5, width)) ** 3)]
    for number in range(count):
        basis = ortho_group.rvs(width, random_state=random) if width > 1 else np.ones((1, 1))
        found.append(
            HeadPart(random.normal(size=(7, width)) ** 3, basis @ np.diag(np.logspace(0, number + 1, width)) @ basis.T)
        )
    return found


def moved(xp, parts: list[HeadPart]) -> list[HeadPart]:
    return [HeadPart(xp.asarray(each.weight), None if each.inverse is None else xp.asarray(each.inverse)) for each in parts]


def by_definition(parts: list[HeadPart], rotation: np.ndarray) -> float:
    """The same by loops over weights, from a Gram whose block of the inverse is H, rotated and inverted."""
    total = 0.0
    for part in parts:
        gram = np.eye(len(rotation)) if part.inverse is None else np.linalg.inv(part.inverse)
        inverse, turned = np.linalg.inv(rotation.T @ gram @ rotation), part.weight @ rotation
        total += sum((weight**2 / inverse[j, j]) ** 2 for row in turned for j, weight in enumerate(row))
    return total


@pytest.mark.parametrize("width", [1, 2, 5])
def test_scores_are_those_of_the_rotated_weights_and_gram(xp, width):
    parts = random_parts(width, width)
    turn = ortho_group.rvs(width, random_state=1) if width > 1 else np.array([[-1.0]])
    assert squared_scores(moved(xp, parts), xp.asarray(turn)) == pytest.approx(by_definition(parts, turn), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_autograd(seed):
    import torch

    parts = random_parts(seed, 4)
    point = torch.from_numpy(np.random.default_rng(seed).normal(size=(4, 4))).requires_grad_()  # no orthogonal matrix
    total = torch.zeros((), dtype=torch.float64)
    for part in parts:
        inverse = torch.eye(4, dtype=torch.float64) if part.inverse is None else torch.from_numpy(part.inverse)
        total = total + ((torch.from_numpy(part.weight) @ point) ** 4 / torch.diagonal(point.T @ inverse @ point) ** 2).sum()
    total.backward()
    gradient, columns = score_gradient(parts, point.detach().numpy())
    expected = point.grad.numpy()
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    assert columns.sum() == pytest.approx(float(total.detach()))


def test_the_gradient_is_that_of_finite_differences(xp):
    parts, turn, step = random_parts(7, 3), ortho_group.rvs(3, random_state=0), 1e-5
    found = xp.numpy(score_gradient(moved(xp, parts), xp.asarray(turn))[0])
    for place in np.ndindex(3, 3):
        change = np.zeros((3, 3))
        change[place] = step
        slope = (by_scores(parts, turn + change) - by_scores(parts, turn - change)) / (2 * step)
        assert found[place] == pytest.approx(slope, rel=1e-5, abs=1e-6 * np.abs(found).max())


def by_scores(parts: list[HeadPart], point: np.ndarray) -> float:
    """F at any matrix."""
    sizes = [point.T @ (np.eye(len(point)) if part.inverse is None else part.inverse) @ point for part in parts]
    return sum(float(np.sum((part.weight @ point) ** 4 / np.diag(size) ** 2)) for part, size in zip(parts, sizes))


def test_the_polar_factor_is_the_nearest_orthogonal_matrix(xp):
    matrix = np.random.default_rng(0).normal(size=(4, 4))
    found = xp.numpy(polar_factor(xp.asarray(matrix)))
    np.testing.assert_allclose(found.T @ found, np.eye(4), atol=1e-13)
    others = ortho_group.rvs(4, size=200, random_state=0)
    assert np.all(np.sum(matrix * found) >= np.sum(matrix * others, axis=(1, 2)))


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_basis_is_found_again_from_near_it(xp, seed):
    """Every row reads one channel, and channels are uncorrelated: no rotation scores more than the one that shows it."""
    random, width = np.random.default_rng(seed), 6
    skew = random.normal(size=(width, width))
    turn = expm(0.15 * (skew - skew.T))
    planted = np.zeros((40, width))
    planted[np.arange(40), np.arange(40) % width] = random.normal(size=40)
    inverse = np.diag(random.uniform(0.2, 5, size=width))
    parts = moved(xp, [HeadPart(planted @ turn.T, turn @ inverse @ turn.T)])
    found = head_rotation(parts, steps=60)
    assert found.scores[-1] >= squared_scores(parts, xp.asarray(turn)) * (1 - 1e-9)
    np.testing.assert_allclose(np.abs(xp.numpy(found.rotation).T @ turn), np.eye(width), atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_two_channels_against_every_angle(xp, seed):
    """With H = I the scores are a constant and one wave of the angle, four periods round: one maximum, up to the order and
    signs of channels. With any H the answer is no lower than every angle near it."""
    random = np.random.default_rng(seed)
    angles = np.linspace(0, np.pi / 2, 20001)
    turns = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
    plain = [HeadPart(random.normal(size=(3, 2)))]
    everywhere = np.array([np.sum((plain[0].weight @ turn) ** 4) for turn in turns])
    found = head_rotation(moved(xp, plain), steps=500)
    assert found.scores[-1] == pytest.approx(everywhere.max(), rel=1e-6)
    parts = random_parts(seed, 2)
    found = head_rotation(moved(xp, parts), steps=500)
    first = xp.numpy(found.rotation)[:, 0]
    angle = np.arctan2(first[1], first[0])
    for away in np.linspace(-0.05, 0.05, 41):
        near = np.array([[np.cos(angle + away), -np.sin(angle + away)], [np.sin(angle + away), np.cos(angle + away)]])
        assert by_scores(parts, near) <= found.scores[-1] * (1 + 1e-6)


@given(
    layer=layers(inputs=6, multiple=6),
    value=layers(inputs=3),
    heads=st.sampled_from([1, 2, 3]),
    power=st.sampled_from([-20, 0, 20]),
)
@settings(max_examples=40)
def test_any_attention_gets_orthogonal_rotations_and_scores_that_only_rise(xp, layer: Layer, value: Layer, heads, power):
    """Singular, dead, duplicated, tied and badly scaled layers; values with as many rows as the heads have channels."""
    width = 6 // heads
    rows = np.resize(value.weight, (6, value.weight.shape[1]))
    output, inner = layer.scaled(inputs=2.0**power).problem(xp), Layer(value.inputs, rows, value.dense).problem(xp)
    for own, other in ((output, inner), (output, None), (None, inner)):
        rotations = xp.numpy(attention_rotations(own, other, heads=heads, groups=heads))
        assert rotations.shape == (heads, width, width)
        np.testing.assert_allclose(rotations.transpose(0, 2, 1) @ rotations, np.broadcast_to(np.eye(width), rotations.shape),
                                   atol=1e-12)  # fmt: skip
        for parts in attention_parts(own, other, heads, heads):
            if parts:
                scores = head_rotation(parts).scores
                assert all(after > before for before, after in pairwise(scores))


@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (3, 3), (6, 1)])
def test_the_product_of_output_and_values_is_unchanged(xp, heads, groups):
    random, width = np.random.default_rng(heads), 12 // heads
    output, value = random.normal(size=(5, 12)), random.normal(size=(groups * width, 7))
    problems = normal_layer(1, 60, 12, 5), normal_layer(2, 60, 7, groups * width)
    rotations = attention_rotations(problems[0].problem(xp), problems[1].problem(xp), heads=heads, groups=groups)
    turned = xp.numpy(rotated_columns(xp.asarray(output), rotations, heads))
    rows = xp.numpy(rotated_rows(xp.asarray(value), rotations, groups))
    assert not np.allclose(turned, output, atol=1e-3)
    for head in range(heads):
        own, shared = slice(head * width, (head + 1) * width), head * groups // heads
        there = slice(shared * width, (shared + 1) * width)
        magnitude = float(np.max(np.abs(output[:, own]) @ np.abs(value[there]))) * width**2
        before, after = output[:, own] @ value[there], turned[:, own] @ rows[there]
        assert np.abs(after - before).max() <= rounding(6 * width, magnitude)


def test_a_rotated_gram_is_that_of_rotated_inputs(xp):
    layer = normal_layer(5, 50, 8, 3)
    rotations = attention_rotations(layer.problem(xp), None, heads=4, groups=2)
    turned = xp.numpy(rotated_columns(xp.asarray(layer.inputs), rotations, 4))
    gram = xp.numpy(rotated_gram(layer.problem(xp).gram, rotations, 4))
    np.testing.assert_allclose(gram, turned.T @ turned, atol=1e-10 * np.abs(gram).max())
    np.testing.assert_array_equal(gram, gram.T)


def test_scores_are_those_of_optimal_brain_surgeon():
    """The least loss with one weight removed and the rest of its row refitted, relative to the energy, from the data."""
    layer, value = normal_layer(3, 400, 4, 2), normal_layer(4, 400, 3, 4)
    for own, other in ((layer, None), (None, value)):
        problem, rotation = (own or other).problem(NUMPY), np.eye(2)
        expected = 0.0
        for row in range(problem.shape[0]):
            for place in range(problem.shape[1]):
                rest = [k for k in range(problem.shape[1]) if k != place]
                damped = problem.gram + 0.01 * np.mean(np.diag(problem.gram)) * np.eye(problem.shape[1])
                coupled = np.linalg.solve(damped[np.ix_(rest, rest)], damped[rest, place])
                weight = problem.anchor[row, place]
                expected += (weight**2 * (damped[place, place] - damped[place, rest] @ coupled) / (2 * problem.energy)) ** 2
        parts = attention_parts(None if own is None else problem, None if other is None else problem, 2, 2)
        assert sum(squared_scores(each, rotation) for each in parts) == pytest.approx(expected)


def test_what_cannot_be_rotated_is_refused():
    output, value = (Quadratic(np.eye(width), np.ones((4, width))) for width in (6, 3))
    with pytest.raises(ValueError, match="neither an output nor a value projection"):
        attention_parts(None, None, 1, 1)
    with pytest.raises(ValueError, match="6 inputs, which 4 heads do not divide"):
        attention_parts(output, None, 4, 4)
    with pytest.raises(ValueError, match="3 heads cannot share 2 groups"):
        attention_parts(output, None, 3, 2)
    with pytest.raises(ValueError, match="4 outputs but 2 groups of 3 channels need 6"):
        attention_parts(output, value, 2, 2)
    with pytest.raises(ValueError, match="at least one HeadPart"):
        head_rotation([])
    with pytest.raises(ValueError, match="steps must be a whole number"):
        head_rotation([HeadPart(np.eye(2))], steps=0)
