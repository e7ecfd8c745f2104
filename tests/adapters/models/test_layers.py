"""One operator as a problem and back: orientation, dtypes, ties, and what may not be written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rounding import rounding_of_loss
from tiny import VOCABULARY, tiny_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from gramian.adapters import Layer, capture
from gramian.adapters.devices import all_finite
from gramian.proofs.kit import strategies
from gramian.solvers import TopK, sparsegpt

WIDTH, OUTPUTS = 12, 8


def pair(seed: int = 0) -> tuple[nn.Linear, Conv1D, torch.Tensor]:
    """The same map as Linear and as Conv1D, and tokens for it."""
    generator = torch.Generator().manual_seed(seed)
    linear, conv = nn.Linear(WIDTH, OUTPUTS), Conv1D(OUTPUTS, WIDTH)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(OUTPUTS, WIDTH, generator=generator))
        linear.bias.copy_(torch.randn(OUTPUTS, generator=generator))
        conv.weight.copy_(linear.weight.T)
        conv.bias.copy_(linear.bias)
    return linear, conv, torch.randn(4, 10, WIDTH, generator=generator)


def captured(module: nn.Module, inputs: torch.Tensor) -> Layer:
    model = nn.Sequential(module)
    with capture(model, ["0"]) as layers:
        model(inputs)
    return layers["0"]


def test_a_layer_is_one_line():
    linear, _, inputs = pair()
    assert repr(captured(linear, inputs)) == "Layer(0, 8 outputs x 12 inputs, 40 tokens)"


@pytest.mark.parametrize("place", [0, 1], ids=["Linear", "Conv1D"])
def test_weight_and_inputs_reproduce_the_output(place):
    *modules, inputs = pair()
    module = modules[place]
    layer = captured(module, inputs)
    with torch.no_grad():
        torch.testing.assert_close(inputs @ layer.weight.T + module.bias, module(inputs))
    problem = layer.problem()
    np.testing.assert_array_equal(layer.problem(rows=[3, 1]).anchor, problem.anchor[[3, 1]])
    tokens = inputs.reshape(-1, WIDTH).double().numpy()
    weight = layer.weight.double().numpy()
    assert problem.shape == (OUTPUTS, WIDTH) and problem.slope is None
    np.testing.assert_array_equal(problem.anchor, weight)
    other = weight + np.random.default_rng(1).normal(size=weight.shape)
    slack = rounding_of_loss(strategies.Layer(tokens, weight), other)
    np.testing.assert_allclose(problem.loss(other), 0.5 * np.sum((tokens @ (other - weight).T) ** 2), rtol=0, atol=slack)
    np.testing.assert_allclose(problem.energy, 0.5 * np.sum((tokens @ weight.T) ** 2), rtol=0, atol=slack)


def test_linear_and_conv1d_agree():
    linear, conv, inputs = pair()
    layers = [captured(module, inputs) for module in (linear, conv)]
    problems = [layer.problem() for layer in layers]
    np.testing.assert_array_equal(problems[0].gram, problems[1].gram)
    np.testing.assert_array_equal(problems[0].anchor, problems[1].anchor)
    solutions = [sparsegpt(problem, TopK(0.5)) for problem in problems]
    np.testing.assert_array_equal(solutions[0].weights, solutions[1].weights)
    for layer, solution in zip(layers, solutions):
        layer.assign(solution.weights)
    assert linear.weight.equal(conv.weight.T) and (linear.weight == 0).sum() == OUTPUTS * WIDTH // 2
    torch.testing.assert_close(linear(inputs), conv(inputs))


def test_fused_projection_of_gpt2_is_one_layer():
    model = tiny_model("gpt2")
    name = "transformer.h.1.attn.c_attn"
    module = model.get_submodule(name)
    kept: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _, args, output: kept.extend([args[0], output]))
    with torch.no_grad(), capture(model, [name]) as layers:
        model(input_ids=torch.arange(30).view(2, 15))
    handle.remove()
    layer = layers[name]
    assert layer.weight.shape == (96, 32) and layer.moments.tokens == 30
    torch.testing.assert_close(kept[0] @ layer.weight.T + module.bias, kept[1])
    tokens = kept[0].reshape(-1, 32).double().numpy()
    np.testing.assert_allclose(layer.problem().gram, tokens.T @ tokens, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("place", [0, 1], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_write_back_then_read_is_the_identity(place, dtype):
    *modules, inputs = pair()
    module = modules[place].to(dtype)
    parameter, before = module.weight, module.weight.detach().clone()
    layer = captured(module, inputs.to(dtype))
    layer.assign(layer.problem().anchor)
    assert module.weight is parameter and module.weight.dtype == dtype and module.weight.detach().equal(before)
    other = (layer.weight.T.contiguous().T * 2).double()  # of another memory layout
    layer.assign(other)
    np.testing.assert_array_equal(layer.problem().anchor, other.numpy())
    assert parameter.requires_grad and parameter.is_leaf


@pytest.mark.parametrize("given", ["float32", "float64", "torch float32", "torch float64", "torch bfloat16", "read-only"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arrays_of_any_kind_are_rounded_to_the_parameter(given, dtype):
    linear, _, _ = pair()
    linear = linear.to(dtype)
    values = torch.randn(OUTPUTS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    array = {
        "float32": values.float().numpy(),
        "float64": values.numpy(),
        "torch float32": values.float(),
        "torch float64": values,
        "torch bfloat16": values.bfloat16(),
        "read-only": np.asfortranarray(values.numpy()),
    }[given]
    if given == "read-only":
        array.flags.writeable = False
    Layer("it", linear).assign(array)
    assert linear.weight.detach().equal(torch.as_tensor(np.array(array) if isinstance(array, np.ndarray) else array).to(dtype))


def test_the_checkpoint_s_dtype_comes_before_the_parameter_s():
    linear, _, _ = pair()
    values = torch.randn(OUTPUTS, WIDTH, generator=torch.Generator().manual_seed(3))
    layer = Layer("it", linear)
    layer.assign(values.double().numpy(), torch.bfloat16)
    assert layer.weight.equal(values.bfloat16().float()) and not layer.weight.equal(values)


def broken(value: float, shape: tuple[int, int] = (OUTPUTS, WIDTH)) -> np.ndarray:
    array = np.ones(shape)
    array[-1, -1] = value
    return array


@pytest.mark.parametrize("place", [0, 1], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((WIDTH, OUTPUTS)), r"weights are \(12, 8\) but the\.layer is \(8, 12\)"),
        (np.ones((1, WIDTH)), r"weights are \(1, 12\)"),  # would broadcast
        (np.ones(WIDTH), r"weights are \(12,\)"),
        (broken(float("nan")), "the.layer hold NaN or Inf"),
        (broken(float("inf")), "NaN or Inf"),
        (torch.from_numpy(broken(float("-inf"))), "NaN or Inf"),
    ],
)
def test_what_may_not_be_written_changes_nothing(place, array, message):
    *modules, _ = pair()
    before = modules[place].weight.detach().clone()
    with pytest.raises(ValueError, match=message):
        Layer("the.layer", modules[place]).assign(array)
    assert modules[place].weight.detach().equal(before)


@pytest.mark.parametrize("stored", [None, torch.float16])
def test_weights_that_overflow_the_stored_dtype_are_refused(stored):
    linear, _, _ = pair()
    if stored is None:
        linear = linear.half()
    before = linear.weight.detach().clone()
    with pytest.raises(ValueError, match="it"):
        Layer("it", linear).assign(broken(1e6), stored)
    assert linear.weight.detach().equal(before)


@pytest.mark.parametrize("place", [0, 1], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_problem_does_not_change_when_its_answer_is_written(place, dtype):
    *modules, inputs = pair()
    layer = captured(modules[place].to(dtype), inputs.to(dtype))
    problem = layer.problem()
    anchor = problem.anchor.copy()
    layer.assign(np.zeros_like(anchor))
    np.testing.assert_array_equal(problem.anchor, anchor)
    np.testing.assert_array_equal(layer.problem().anchor, 0)  # a new problem is about the new weights


def test_a_non_contiguous_weight():
    linear, _, inputs = pair()
    expected = captured(linear, inputs).problem()
    strided = torch.zeros(WIDTH, 2 * OUTPUTS)
    linear.weight = nn.Parameter(strided[:, ::2].T.copy_(linear.weight.detach()))
    assert not linear.weight.is_contiguous()
    layer = captured(linear, inputs)
    np.testing.assert_array_equal(layer.problem().anchor, expected.anchor)
    layer.assign(2 * expected.anchor)
    np.testing.assert_array_equal(linear.weight.detach().numpy(), 2 * expected.anchor)
    assert not strided[:, 1::2].any()  # only the parameter's own elements


@pytest.mark.parametrize("model_type", ["gpt2", "qwen2", "gemma3_text"])
def test_a_tied_weight_stays_tied(model_type):
    model = tiny_model(model_type)
    embedding = model.get_input_embeddings()
    assert model.lm_head.weight is embedding.weight
    with torch.no_grad(), capture(model, ["lm_head"]) as layers:
        model(input_ids=torch.arange(12).view(1, 12))
    layer = layers["lm_head"]
    values = np.random.default_rng(0).normal(size=(VOCABULARY, 32)).astype(np.float32)
    layer.assign(values)
    assert model.lm_head.weight is embedding.weight
    np.testing.assert_array_equal(embedding.weight.detach().numpy(), values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_moments_of_half_precision_tokens_are_exact(dtype):
    """Sums of products of small multiples of 1/8 have no rounding in float64; in half precision they would."""
    rng = np.random.default_rng(2)
    tokens = rng.integers(-16, 17, size=(3, 500, WIDTH)) / 8
    weight = rng.integers(-16, 17, size=(OUTPUTS, WIDTH)) / 8
    linear = nn.Linear(WIDTH, OUTPUTS, dtype=dtype)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
    problem = captured(linear, torch.from_numpy(tokens).to(dtype)).problem()
    flat = tokens.reshape(-1, WIDTH)
    assert problem.gram.dtype == problem.anchor.dtype == np.float64
    np.testing.assert_array_equal(problem.gram, flat.T @ flat)
    np.testing.assert_array_equal(problem.anchor, weight)
    change = rng.integers(-16, 17, size=weight.shape) / 8
    assert problem.loss(weight + change) == 0.5 * np.sum((flat @ change.T) ** 2)


def test_only_linear_maps_are_layers():
    for module in (nn.ReLU(), nn.LayerNorm(4), nn.Embedding(5, 4), nn.Conv2d(1, 1, 2), nn.Conv1d(1, 1, 2), nn.Sequential()):
        with pytest.raises(ValueError, match=f"odd is a {type(module).__name__}"):
            Layer("odd", module)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_not_finite_is_seen(value, dtype):
    whole = torch.randn(24, 17, generator=torch.Generator().manual_seed(0)).to(dtype)
    for laid in (whole, whole.T, whole[:, ::2], whole[0]):
        assert all_finite(laid)
        for place in (0, -1):
            bad = laid.clone()
            bad[(place,) * bad.ndim] = value
            assert not all_finite(bad)
    assert all_finite(torch.empty(0, 3, dtype=dtype)) and all_finite(torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_has_no_problem(value):
    linear, _, inputs = pair()
    layer = captured(linear, inputs)
    with torch.no_grad():
        linear.weight[2, 3] = value
    with pytest.raises(ValueError, match="weight of 0 holds NaN or Inf"):
        layer.problem()


def test_a_layer_that_saw_nothing_says_so():
    linear, _, _ = pair()
    with pytest.raises(ValueError, match="no tokens were seen"):
        Layer("it", linear).problem()
