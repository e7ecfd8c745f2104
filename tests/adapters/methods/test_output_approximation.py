"""Greedy Output Approximation in the pipeline: second moments against definitions, and which heads are removed."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from structured_models import GATED, TOKENS, exact, pruned, rows_of, seen
from tiny import FAMILIES, names_of

from gramian.adapters import prune
from gramian.adapters.methods.output_approximation import between_units, consumer_moments
from gramian.adapters.methods.unit_moments import channel_moments, head_moments
from gramian.adapters.methods.unit_sets import unit_set_of
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.proofs.greedy_output.gaussian_moments import gelu, gelu_second_moment, relu, silu
from gramian.solvers import Moments, Quadratic
from gramian.solvers.units.gaussian import gaussian_means


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


# -- Gaussian means ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [relu, gelu, silu, tanh_gelu])
def test_quadrature_against_scipy(activation):
    means = np.array([0.0, 0.0, 0.0, 0.3, -1.0, 5.0, -3.0, 40.0, -0.001])
    deviations = np.array([0.01, 1.0, 60.0, 1.0, 0.5, 2.0, 9.0, 1e-3, 1e-4])
    found = gaussian_means(lambda x: activation(x) ** 2, means, deviations**2)
    for k, (mean, deviation) in enumerate(zip(means, deviations)):
        zero = float(np.clip(-mean / deviation, -11, 11))
        edges = sorted({-11.0, -4.0, 0.0, 4.0, 11.0, zero, max(-11.0, zero - 0.3), min(11.0, zero + 0.3)})
        for power in range(3):

            def integrand(z, m=mean, s=deviation, p=power):
                return activation(m + s * z) ** 2 * z**p * norm.pdf(z)

            pieces = [quad(integrand, *ends, epsabs=0, limit=100)[0] for ends in pairwise(edges)]
            assert found[power, k] == pytest.approx(sum(pieces), rel=1e-8, abs=1e-8 * found[0, k])


def test_closed_forms_and_constants():
    variance = np.array([1e-4, 1.0, 9.0, 1e4])
    zero = np.zeros(4)
    np.testing.assert_allclose(gaussian_means(lambda x: relu(x) ** 2, zero, variance)[0], variance / 2, rtol=1e-12)
    expected = [gelu_second_moment(v) for v in variance]
    np.testing.assert_allclose(gaussian_means(lambda x: gelu(x) ** 2, zero, variance)[0], expected, rtol=1e-10)
    ratio, root = np.array([0.7]), np.array([1.3])  # E relu(x)^2 = (m^2 + s^2) Phi(m / s) + m s phi(m / s)
    exactly = (0.7**2 + 1.3**2) * norm.cdf(0.7 / 1.3) + 0.7 * 1.3 * norm.pdf(0.7 / 1.3)
    assert gaussian_means(lambda x: relu(x) ** 2, ratio, root**2)[0, 0] == pytest.approx(exactly, rel=1e-12)
    constant = gaussian_means(silu, np.array([2.0]), np.zeros(1))[:, 0]
    np.testing.assert_allclose(constant, silu(2.0) * np.array([1, 0, 1]), atol=1e-12)
    with pytest.raises(ValueError, match="variances at least 0"):
        gaussian_means(relu, zero, variance - 1)


# -- second moments of units -------------------------------------------------------------------------------------------

ACTIVATIONS = {"opt": relu, "gpt2": tanh_gelu, "gemma3_text": tanh_gelu}


def hidden(model, unit_group, inputs: np.ndarray) -> np.ndarray:
    """(N, units), by hand."""
    linear = []
    for path, _ in unit_group.structure.producers:
        offset = getattr(model.get_submodule(f"{unit_group.block}.{path}"), "bias", None)
        linear.append(inputs @ rows_of(model, f"{unit_group.block}.{path}").T + (0 if offset is None else offset.numpy()))
    active = ACTIVATIONS.get(model.config.model_type, silu)(linear[0])
    return active if len(linear) == 1 else active * linear[1]


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "opt", "gpt2"])
def test_gaussian_moments_are_means_over_gaussian_inputs(model_type):
    model = exact(model_type)
    unit_group = unit_groups_of(model)[names_of(model, "channels")[1]]
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(12_000, 32)) @ generator.normal(size=(32, 32)) / 4 + generator.normal(size=32)
    inputs = np.concatenate([inputs, 2 * inputs.mean(axis=0) - inputs])  # their mean is exact
    moments = Moments(32)
    moments.update(inputs)
    norms = (rows_of(model, unit_group.name) ** 2).sum(axis=0)
    squares = norms * hidden(model, unit_group, inputs) ** 2
    error = squares.std(axis=0) / np.sqrt(len(inputs))
    found = channel_moments(model, unit_group, moments, "gaussian")
    assert np.all(np.abs(found - squares.mean(axis=0)) < 6 * error) and np.all(error < 0.2 * found)
    standard = norms * hidden(model, unit_group, generator.normal(size=(20_000, 32))) ** 2
    error = standard.std(axis=0) / np.sqrt(len(standard))
    assert np.all(np.abs(channel_moments(model, unit_group, None, "identity") - standard.mean(axis=0)) < 6 * error)


@pytest.mark.parametrize("model_type", ["llama", "opt", "gpt2"])
def test_the_printed_product(model_type):
    model = exact(model_type)
    unit_group = unit_groups_of(model)[names_of(model, "channels")[0]]
    inputs = np.random.default_rng(1).normal(size=(50, 32)) + 1
    moments = Moments(32)
    moments.update(inputs)
    second, norms = inputs.T @ inputs / 50, (rows_of(model, unit_group.name) ** 2).sum(axis=0)
    expected = 0.5
    for path, _ in unit_group.structure.producers:
        expected = expected * norms * np.array([row @ second @ row for row in rows_of(model, f"{unit_group.block}.{path}")])
    before = channel_moments(model, unit_group, moments, "product")
    np.testing.assert_allclose(before, expected, rtol=1e-9)
    truth = channel_moments(model, unit_group, moments, "gaussian")
    model.get_submodule(unit_group.name).weight.mul_(3)
    power = 4 if model_type in GATED else 2  # of a second moment it is 2
    np.testing.assert_allclose(channel_moments(model, unit_group, moments, "product"), 3**power * before, rtol=1e-9)
    np.testing.assert_allclose(channel_moments(model, unit_group, moments, "gaussian"), 9 * truth, rtol=1e-9)


@pytest.mark.parametrize("heads", ["groups", "per_kv_group"])
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "opt", "gpt2"])
def test_moments_of_heads_without_data(model_type, heads):
    model = exact(model_type)
    unit_group = unit_groups_of(model)[names_of(model, "heads")[0]]
    unit_set = unit_set_of(model, unit_group, heads)
    name = f"{unit_group.block}.{unit_group.structure.producers[-1][0]}"
    values, output = rows_of(model, name), rows_of(model, unit_group.name)
    offset = model.get_submodule(name).bias
    values = np.column_stack([values, np.zeros(len(values)) if offset is None else offset.numpy()])
    values = values[-unit_group.groups * unit_group.size :].reshape(unit_group.groups, unit_group.size, -1)
    losses = [
        np.linalg.norm(output[:, unit * unit_group.size : (unit + 1) * unit_group.size] @ values[unit // unit_group.members])
        ** 2
        for unit in range(unit_group.units)
    ]
    np.testing.assert_allclose(
        head_moments(model, unit_set), [sum(losses[unit] for unit in units) for units in unit_set.scored], rtol=1e-9
    )


@pytest.mark.parametrize("units", [12, 4, 1])
def test_moments_of_the_consumers_inputs(units):
    generator = np.random.default_rng(2)
    inputs, weight = generator.normal(size=(9, 12)), generator.normal(size=(5, 12))
    inputs[:, 4], inputs[:, 7] = 0, inputs[:, 6]
    problem, size = Quadratic.from_data(inputs, weight), 12 // units
    wholes, alone = [], []
    for unit in range(units):
        columns = range(unit * size, (unit + 1) * size)
        wholes.append(np.sum((inputs[:, columns] @ weight[:, columns].T) ** 2))
        alone.append(sum(np.sum(np.outer(inputs[:, c], weight[:, c]) ** 2) for c in columns))
    np.testing.assert_allclose(consumer_moments(problem, units), wholes, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(consumer_moments(problem, units, whole=False), alone, rtol=1e-10, atol=1e-12)


def test_groups_are_as_far_apart_as_their_heads():
    points = np.random.default_rng(3).normal(size=(6, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    units = np.arange(6).reshape(3, 2)
    for i, one in enumerate(units):
        for j, other in enumerate(units):
            there = max(min(distances[a, b] for b in other) for a in one)
            back = max(min(distances[a, b] for a in one) for b in other)
            assert between_units(distances, units)[i, j] == max(there, back)
    assert np.array_equal(between_units(distances, np.arange(6)[:, None]), distances)


# -- the method --------------------------------------------------------------------------------------------------------


def kept_heads(dense, model, name: str) -> set[int]:
    """The heads kept, found by the columns of a consumer whose other weights were not solved for."""
    before, after = rows_of(dense, name).T, rows_of(model, name).T
    where = {column.tobytes(): place for place, column in enumerate(before)}
    return {where[column.tobytes()] // unit_groups_of(dense)[name].size for column in after}


@pytest.mark.parametrize("model_type", ["opt", "gpt2", "llama"])
def test_similar_heads_are_removed_first(model_type):
    dense = exact(model_type, **({"num_key_value_heads": 4} if model_type == "llama" else {}))
    names = names_of(dense, "heads")
    for name in names:  # head 3 attends to what head 1 attends to, and adds most of all
        unit_group = unit_groups_of(dense)[name]
        for path, levels in unit_group.structure.producers:
            module = dense.get_submodule(f"{unit_group.block}.{path}")
            for section in range(len(levels) if model_type == "gpt2" else 1):
                if path.endswith("v_proj") or section == 2:
                    continue
                start, size = section * 4 * unit_group.size, unit_group.size
                tensors = [module.weight.T if model_type == "gpt2" else module.weight, module.bias]
                for tensor in tensors if module.bias is not None else tensors[:1]:
                    tensor[start + 3 * size : start + 4 * size] = tensor[start + size : start + 2 * size]
        consumer = dense.get_submodule(name).weight
        columns = slice(3 * unit_group.size, 4 * unit_group.size)
        (consumer if model_type == "gpt2" else consumer.T)[columns].mul_(20)
    model, report = pruned(copy.deepcopy(dense), method="greedy-output", include="o_proj|out_proj|c_proj", exclude="mlp",
                           ratio=0.05, options={"tau": 0.01}, compensate=False, allocation="score", blocks="1:")  # fmt: skip
    for row in report.modules:
        assert row.groups_of_heads == ((0,), (1, 3), (2,)) and row.units == (4, 3)
        assert kept_heads(dense, model, row.name) == {0, 2, 3}
    assert "similar heads 1, 3" in str(report) and report.to_dict()["modules"][0]["groups_of_heads"] == ((0,), (1, 3), (2,))
    model, report = pruned(copy.deepcopy(dense), method="greedy-output", include="o_proj|out_proj|c_proj", exclude="mlp",
                           ratio=0.05, options={"tau": 0}, compensate=False, allocation="score", blocks="1:")  # fmt: skip
    wide = seen(dense, TOKENS)
    for row in report.modules:
        assert row.groups_of_heads == ()
        inputs, weight = wide[row.name][0], rows_of(dense, row.name)
        heads = [slice(k * unit_group.size, (k + 1) * unit_group.size) for k in range(4)]
        losses = [np.sum((inputs[:, head] @ weight[:, head].T) ** 2) for head in heads]
        assert {0, 1, 2, 3} - kept_heads(dense, model, row.name) == {int(np.argmin(losses))}


@pytest.mark.parametrize("moment", ["gaussian", "product", "identity"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_moment_prunes_every_family(model_type, moment):
    options = {"moment": moment, "tau": None}
    _, report = pruned(exact(model_type), method="greedy-output", options=options, allocation="score")
    assert all(np.isfinite(row.relative_error) for row in report.modules) and 0.3 <= report.ratio < 0.31


def test_without_data_the_tokens_decide_nothing():
    models = []
    for tokens in (TOKENS, TOKENS.flip(0, 1) // 2):
        model = exact("qwen3")
        prune(model, tokens, method="greedy-output", ratio=0.3, options={"moment": "identity", "tau": 0},
                         compensate=False, progress=False)  # fmt: skip
        models.append(model.state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": -1}, "tau must be a distance of at least 0"),
        ({"tau": "x"}, "tau must be a distance"),
        ({"similar": "all"}, "similar must be one of independent, scan but is 'all'"),
        ({"moment": "fourth"}, "moment must be one of empirical, gaussian, product, identity but is 'fourth'"),
        ({"threshold": 1}, "greedy_output has no option 'threshold'; it has tau, similar, moment"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        pruned(exact("opt"), method="greedy-output", options=options)
