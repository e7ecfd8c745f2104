"""The one loss, against its definition on the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rounding import rounding, rounding_of_loss

from gramian.proofs.kit.references import central_gradient
from gramian.proofs.kit.strategies import Layer, from_gram, layers, normal_layer, points
from gramian.solvers import L1, Moments, Quadratic


@given(layer=layers(), data=st.data())
def test_loss_is_the_output_error(xp, layer: Layer, data):
    point = data.draw(points(layer), label="V")
    problem, weights = layer.problem(xp), xp.asarray(point)
    slack = rounding_of_loss(layer, point)
    np.testing.assert_allclose(xp.numpy(problem.row_losses(weights)), layer.row_losses(point), rtol=0, atol=slack)
    assert abs(problem.loss(weights) - layer.loss(point)) <= slack
    assert abs(problem.energy - layer.energy) <= rounding_of_loss(layer, 0 * point)
    if layer.energy > 1e-3 * layer.magnitude(0 * point):
        assert problem.relative_error(weights) == pytest.approx(
            layer.loss(point) / layer.energy, rel=1e-9, abs=slack / layer.energy
        )


@given(layer=layers(scales=(1.0,)), data=st.data())
def test_gradient_is_the_slope_of_the_loss(xp, layer: Layer, data):
    point = data.draw(points(layer), label="V")
    problem, weights = layer.problem(xp), xp.asarray(point)
    exact = (layer.inputs @ point.T - layer.outputs).T @ layer.inputs
    size = 1 + np.max(np.abs(layer.inputs)) * np.sqrt(layer.magnitude(point))
    values, gradient = problem.value_and_gradient(weights)
    np.testing.assert_allclose(xp.numpy(gradient), exact, rtol=0, atol=1e-12 * size)
    np.testing.assert_array_equal(xp.numpy(problem.gradient(weights)), xp.numpy(gradient))
    np.testing.assert_array_equal(xp.numpy(problem.row_losses(weights)), xp.numpy(values))
    step = 1e-3
    measured = central_gradient(lambda shifted: problem.loss(xp.asarray(shifted)), point, step)
    np.testing.assert_allclose(measured, exact, rtol=0, atol=1e-12 * (1 + layer.magnitude(point)) / step)


@pytest.mark.parametrize("drift", [0.0, 0.05])
def test_float32_keeps_its_digits_near_the_dense_weights(xp, drift):
    """The raw form 1/2 <V G, V> - <V, Q> + constant subtracts numbers 1e8 times the answer; the anchored does not.

    With D = V - W its terms are 1/2 D_ij G_jk D_ik, slope_ij D_ij and floor_i. A term is D (one rounding, or two), the entry
    of G (one), two products and sums over the p inputs twice, then over the rows: less than 2 p + q + 8 roundings each."""
    layer = normal_layer(4, 512, 64, 16, condition=100.0, drift=drift)
    rng = np.random.default_rng(5)
    weight = layer.weight.astype(np.float32).astype(float)  # so that W is the same in both precisions
    layer = Layer(layer.inputs + 3.0, weight, None if layer.dense is None else layer.dense + 3.0)
    single = layer.problem(xp, "float32")
    anchor = xp.numpy(single.anchor).astype(float)
    point = (anchor + 1e-4 * rng.normal(size=anchor.shape)).astype(np.float32)
    truth = layer.problem(xp).loss(xp.asarray(point.astype(float)))
    exact, change = layer.problem(np), np.abs(point - anchor)
    size = 0.5 * np.sum((change @ np.abs(exact.gram)) * change)
    if drift:
        size += np.sum(np.abs(exact.slope) * change) + np.sum(exact.floor)
    slack = rounding(2 * 64 + 16 + 8, size, "float32")
    assert abs(single.loss(xp.asarray(point)) - truth) <= slack < 0.1 * truth
    if drift == 0:
        gram, target = (layer.inputs.T @ layer.inputs).astype(np.float32), layer.outputs.astype(np.float32)
        cross = (target.T @ layer.inputs.astype(np.float32)).astype(np.float32)
        raw = 0.5 * np.sum((point @ gram) * point) - np.sum(point * cross) + 0.5 * np.sum(target * target)
        assert abs(raw - truth) > 0.1 * truth  # or this test would prove nothing


def test_same_from_moments_in_batches(xp):
    layer = normal_layer(6, 30, 6, 3, drift=0.2)
    moments = Moments(6)
    for rows in (slice(0, 7), slice(7, 30)):
        moments.update(xp.asarray(layer.inputs[rows]), xp.asarray(layer.dense[rows]))
    streamed, direct = Quadratic.from_moments(moments, xp.asarray(layer.weight)), layer.problem(xp)
    for name in ("gram", "slope", "floor"):
        one, other = (xp.numpy(getattr(problem, name)) for problem in (streamed, direct))
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@given(layer=layers(), data=st.data())
def test_damping_is_a_ridge_on_the_change(xp, layer: Layer, data):
    point = data.draw(points(layer), label="V")
    width = point.shape[1]
    scale = max(1e-300, float(np.max(layer.inputs**2)))
    ridges = scale * np.array(data.draw(st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=width, max_size=width)))
    problem = layer.problem(xp)
    slack = 2 * rounding_of_loss(layer, point)
    for ridge, given_as in ((ridges, xp.asarray(ridges)), (ridges[:1], float(ridges[0]))):
        penalty = 0.5 * np.sum(ridge * (point - layer.weight) ** 2)
        damped = problem.damped(given_as).loss(xp.asarray(point))
        assert abs(damped - layer.loss(point) - penalty) <= slack + rounding(4 * width + 16, penalty)
    np.testing.assert_array_equal(xp.numpy(problem.gram), xp.numpy(layer.problem(xp).gram))  # the original is untouched


@given(layer=layers(), data=st.data())
def test_rescaling_changes_coordinates_not_the_model(xp, layer: Layer, data):
    point = data.draw(points(layer), label="V")
    weight = data.draw(st.sampled_from([0.0, 0.3, 2.0]), label="lambda")
    problem = layer.problem(xp)
    unit, scale = problem.rescaled()
    diagonal = np.diag(xp.numpy(unit.gram))
    dead = np.sum(layer.inputs**2, axis=0) == 0
    np.testing.assert_allclose(diagonal, np.where(dead, 0.0, 1.0), rtol=1e-12)
    moved = xp.asarray(point) * scale
    assert abs(unit.loss(moved) - problem.loss(xp.asarray(point))) <= rounding_of_loss(layer, point)
    np.testing.assert_allclose(
        xp.numpy(L1(weight).rescaled(scale).value(moved)), weight * np.sum(np.abs(point), axis=1), rtol=1e-12
    )


@given(layer=layers(inputs=8))
def test_lipschitz_bounds_the_largest_eigenvalue(xp, layer: Layer):
    problem, width = layer.problem(xp), layer.inputs.shape[1]
    gram = layer.inputs.T @ layer.inputs
    top = float(np.linalg.eigvalsh(gram)[-1])
    assert top * (1 - 1e-12) <= problem.lipschitz <= top * width ** (1 / 16) * (1 + 1e-4)
    scale = np.where(np.diag(gram) > 0, np.sqrt(np.diag(gram)), 1.0)
    unit = float(np.linalg.eigvalsh(gram / np.outer(scale, scale))[-1])
    assert unit * (1 - 1e-10) <= problem.unit_lipschitz <= unit * width ** (1 / 16) * (1 + 1e-4)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("width", [1, 64, 700])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_lipschitz_of_a_flat_spectrum(xp, dtype, width, scale):
    """The worst case of the bound, every eigenvalue equal: (scale / trace)^16 is far below what float32 can hold."""
    problem = Quadratic(xp.asarray(scale * np.eye(width), dtype), xp.asarray(np.ones((1, width)), dtype))
    assert scale * (1 - 1e-6) <= problem.lipschitz <= scale * width ** (1 / 16) * (1 + 1e-4)


def test_lipschitz_of_a_zero_gram(xp):
    assert Quadratic(xp.asarray(np.zeros((3, 3))), xp.asarray(np.ones((2, 3)))).lipschitz == 0


def test_relative_error_of_nothing(xp):
    """Zero over zero is zero, something over zero is infinite."""
    problem = from_gram(np.eye(2), np.zeros((1, 2))).problem(xp)
    assert problem.relative_error(xp.asarray(np.zeros((1, 2)))) == 0
    assert problem.relative_error(xp.asarray(np.ones((1, 2)))) == np.inf


def test_dtypes(xp):
    problem = normal_layer(7, 10, 4, 2, drift=0.1).problem(xp)
    assert problem.astype(xp.dtype("float64")) is problem and problem.double is problem
    single = problem.astype(xp.dtype("float32"))
    for name in ("gram", "anchor", "slope", "floor"):
        assert getattr(single, name).dtype == xp.dtype("float32")
        assert getattr(single.double, name).dtype == xp.dtype("float64")
        np.testing.assert_allclose(xp.numpy(getattr(single, name)), xp.numpy(getattr(problem, name)), rtol=1e-6)
    assert single.shape == problem.shape == (2, 4)
    half = Quadratic.from_data(xp.asarray(np.ones((3, 2)), "float32"), xp.asarray(np.ones((1, 2)), "float32"))
    assert half.anchor.dtype == xp.dtype("float64")  # moments are float64 whatever came in


def parts(xp, **changes):
    """The arguments of a valid problem (q = 2, p = 3, X* != X), some of them replaced."""
    valid = {"gram": np.eye(3), "anchor": np.ones((2, 3)), "slope": np.zeros((2, 3)), "floor": np.zeros(2)} | changes
    return {name: None if array is None else xp.asarray(array) for name, array in valid.items()}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"gram": np.ones((3, 2))}, r"gram must be a square matrix but is \(3, 2\)"),
        ({"gram": np.ones(3)}, r"gram must be a square matrix but is \(3,\)"),
        ({"anchor": np.ones((2, 4))}, r"gram is \(3, 3\) but weight .*\(2, 4\)"),
        ({"anchor": np.ones(3)}, r"gram is \(3, 3\) but weight .*\(3,\)"),
        ({"anchor": np.ones((2, 3, 1))}, r"gram is \(3, 3\) but weight .*\(2, 3, 1\)"),
        ({"slope": None}, "slope and floor come together"),
        ({"floor": None}, "slope and floor come together"),
        ({"slope": np.ones((3, 2))}, r"slope is \(3, 2\) but weight is \(2, 3\)"),
        ({"floor": np.ones(3)}, r"floor is \(3,\) but weight has 2 rows"),
        ({"gram": np.eye(3, dtype=np.float32)}, r"gram is .*float32 but weight is .*float64"),
        ({"slope": np.ones((2, 3), dtype=np.float32)}, r"slope is .*float32 but weight is .*float64"),
        ({"gram": np.full((3, 3), np.nan)}, "gram holds NaN or Inf"),
        ({"anchor": np.full((2, 3), np.inf)}, "weight holds NaN or Inf"),
        ({"slope": np.full((2, 3), np.nan)}, "slope holds NaN or Inf"),
        ({"floor": np.full(2, np.inf)}, "floor holds NaN or Inf"),
    ],
)
def test_bad_parts_are_named(xp, changes, message):
    Quadratic(**parts(xp))
    with pytest.raises(ValueError, match=message):
        Quadratic(**parts(xp, **changes))


def test_bad_arguments_name_both_sides(xp):
    moments = Moments(3)
    moments.update(xp.asarray(np.ones((2, 3))))
    with pytest.raises(ValueError, match=r"3 channels but weight is \(2, 4\)"):
        Quadratic.from_moments(moments, xp.asarray(np.ones((2, 4))))
    with pytest.raises(ValueError, match="no tokens were seen"):
        Quadratic.from_moments(Moments(3), xp.asarray(np.ones((2, 3))))
    problem = Quadratic(**parts(xp))
    for call in (problem.loss, problem.value_and_gradient, problem.row_losses, problem.relative_error):
        with pytest.raises(ValueError, match=r"weights are \(3,\) but the problem's weight is \(2, 3\)"):
            call(xp.asarray(np.ones(3)))


def test_backends_do_not_mix(xp):
    import torch

    other = torch.ones((2, 3)) if xp.module is not torch else np.ones((2, 3))
    with pytest.raises(TypeError):
        Quadratic(xp.asarray(np.eye(3)), other)
