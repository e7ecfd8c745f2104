"""Laws of a layer plug-in: what turns a module of a model into a problem and writes the answer back.

`plug_in(name, module)` has `weight` (q, p), `moments`, `problem()` and `assign(weights, dtype)`. The modules are made by
`build(weight, bias)`: here `linear` and `conv1d`, whose parameters are each other's transposes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.backends import backends
from gramian.proofs.kit.strategies import full, weights
from gramian.proofs.laws.law import Law

__all__ = ["LAYER_LAWS", "Plugging", "conv1d", "linear"]

Build = Callable[[np.ndarray, bool], Any]  # from W and whether to add a bias, a module with `weight` and `bias`


class Plugging(NamedTuple):
    """plug_in: what is held to the laws. build: makes the modules that it is for, from W (q, p) and whether to add a bias."""

    plug_in: Callable[[str, Any], Any]
    build: Build


def linear(weight: np.ndarray, bias: bool) -> Any:
    """x W^T + b, where the parameter is W (q, p)."""
    return filled(torch().nn.Linear(weight.shape[1], weight.shape[0], bias=bias), weight)


def conv1d(weight: np.ndarray, bias: bool) -> Any:
    """x W^T + b by the module of GPT-2, where the parameter is W^T (p, q). It always has a bias, which is zero unless one is
    wanted."""
    pytorch_utils: Any = import_module("transformers.pytorch_utils")
    module = filled(pytorch_utils.Conv1D(weight.shape[0], weight.shape[1]), weight.T)
    if not bias:
        module.bias.zero_()
    return module


def filled(module: Any, parameter: np.ndarray) -> Any:
    module.requires_grad_(False)
    module.weight.copy_(tensor(parameter))
    if module.bias is not None:
        module.bias.copy_(tensor(np.arange(1.0, len(module.bias) + 1)))
    return module


def torch() -> Any:
    """Return the library, which is imported when the first module is built: the laws of anything else do without it."""
    return import_module("torch")


def tensor(array: np.ndarray) -> Any:
    """Return a copy of the array in torch."""
    return torch().from_numpy(np.array(array, order="C"))


def weight_is_outputs_by_inputs(plug_in: Any, build: Build, weight: np.ndarray, bias: bool, inputs: np.ndarray) -> None:
    """The module computes x W^T + b for the W that the plug-in shows."""
    module = build(weight, bias)
    shown = np.asarray(plug_in("layer", module).weight)
    assert shown.shape == weight.shape, f"the weight is {shown.shape}, not (outputs, inputs) = {weight.shape}"
    constant = run(module, 0 * inputs)
    np.testing.assert_allclose(run(module, inputs) - constant, inputs @ shown.T, rtol=0, atol=near(inputs, shown))


def the_problem_is_that_of_the_module(plug_in: Any, build: Build, weight: np.ndarray, bias: bool, inputs: np.ndarray) -> None:
    """With the moments of X the loss of V is 1/2 |module(X) - module with V (X)|^2, and it remains so once V is written."""
    module = build(weight, bias)
    layer = plug_in("layer", module)
    layer.moments.update(inputs)
    problem, other = layer.problem(), np.flip(weight, axis=1) + 1.0
    dense = run(module, inputs)
    assert problem.loss(np.asarray(problem.anchor)) == 0, "the loss of the dense weights is not zero"
    for _ in range(2):
        stated = float(problem.loss(other))
        layer.assign(other)
        expected = 0.5 * float(np.sum((run(module, inputs) - dense) ** 2))
        slack = 1e-3 * expected + near(inputs, other) ** 2
        assert abs(stated - expected) <= slack, f"the problem's loss is {stated} but the module's outputs change by {expected}"


def what_is_written_is_what_is_read(plug_in: Any, build: Build, weight: np.ndarray, bias: bool, inputs: np.ndarray) -> None:
    """Weights of any array library are written into the same parameter, and change neither the bias nor anything else; a
    module's own weight, written back, changes no bit."""
    other = np.flip(weight, axis=1) - 0.5
    for backend in backends():
        module = build(weight, bias)
        parameter, constant = module.weight, run(module, 0 * inputs)
        layer = plug_in("layer", module)
        before = parameter.clone()
        layer.assign(layer.weight.clone())
        assert parameter.equal(before), "writing the weight that is there changes it"
        layer.assign(backend.asarray(other))
        assert module.weight is parameter, "the parameter was replaced, not written to"
        np.testing.assert_array_equal(layer.weight, other.astype(np.float32), err_msg=f"read back ({backend})")
        np.testing.assert_array_equal(run(module, 0 * inputs), constant, err_msg="the bias changed")
        np.testing.assert_allclose(run(module, inputs) - constant, inputs @ other.T, rtol=0, atol=near(inputs, other))


def it_is_rounded_as_it_will_be_stored(plug_in: Any, build: Build, weight: np.ndarray, bias: bool, inputs: np.ndarray) -> None:
    """assign(V, bfloat16) writes what a checkpoint in bfloat16 would hold, in the parameter's own dtype."""
    module = build(weight, bias)
    layer, other = plug_in("layer", module), weight / 3
    layer.assign(other, torch().bfloat16)
    expected = tensor(other).bfloat16().float()
    assert module.weight.dtype == torch().float32
    np.testing.assert_array_equal(layer.weight, expected, err_msg="not rounded to bfloat16")


def bad_weights_are_refused_and_change_nothing(
    plug_in: Any, build: Build, weight: np.ndarray, bias: bool, inputs: np.ndarray
) -> None:
    """Weights of another shape (the transpose, a row more), NaN and infinity raise ValueError."""
    module = build(weight, bias)
    layer, before = plug_in("layer", module), module.weight.clone()
    bad = [np.vstack([weight, weight[:1]]), np.where(np.eye(*weight.shape) > 0, np.nan, weight), weight + np.inf]
    if weight.shape[0] != weight.shape[1]:
        bad.append(weight.T.copy())
    for other in bad:
        try:
            layer.assign(other)
        except ValueError:
            assert module.weight.equal(before), f"{other} is refused, and written"
        else:
            raise AssertionError(f"{other} is accepted for weights {weight.shape}")


def run(module: Any, inputs: np.ndarray) -> np.ndarray:
    """Return what the module makes of the inputs, in float64."""
    return np.asarray(module(tensor(inputs).float()).double().numpy())


def near(inputs: np.ndarray, weight: np.ndarray) -> float:
    """Return how much rounding a product in single precision may have."""
    return 1e-5 * (1 + float(np.linalg.norm(inputs) * np.linalg.norm(weight)))


@st.composite
def plugged(draw: st.DrawFn, candidate: Plugging) -> tuple[Any, ...]:
    """Draw the plug-in, the module's maker, W, whether there is a bias, and X; all numbers are of single precision."""
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    weight, (inputs,) = draw(weights(shape)), draw(full((draw(st.integers(1, 4)), shape[1])))
    single = (weight.astype(np.float32).astype(float), inputs.astype(np.float32).astype(float))
    return candidate.plug_in, candidate.build, single[0], draw(st.booleans()), single[1]


LAYER_LAWS = tuple(
    Law(holds, plugged)
    for holds in (
        weight_is_outputs_by_inputs,
        the_problem_is_that_of_the_module,
        what_is_written_is_what_is_read,
        it_is_rounded_as_it_will_be_stored,
        bad_weights_are_refused_and_change_nothing,
    )
)
