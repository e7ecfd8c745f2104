"""Greedy Output Approximation, Sec. 3.1: what pruning the channels of a depth-2 module removes (claim G11)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.greedy_output.gaussian_moments import gelu, relu
from gramian.proofs.kit.claims import Claim, Property, Verdict
from gramian.proofs.kit.grids import grids

__all__ = ["G11"]

PAPER = "Greedy Output Approximation"


class Module(NamedTuple):
    """first: A (h, d). bias: b (h,). second: B (o, h). The module is f(x) = B s(A x + b)."""

    first: np.ndarray
    bias: np.ndarray
    second: np.ndarray


class Pruning(NamedTuple):
    """inputs: X (N, d). kept: boolean (h,), with at least one True."""

    module: Module
    activation: Callable[[np.ndarray], np.ndarray]
    inputs: np.ndarray
    kept: np.ndarray


def sigmoid(value: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * value))


@st.composite
def prunings(draw: st.DrawFn) -> Pruning:
    inner, width, outputs, tokens = (draw(st.integers(1, top)) for top in (4, 3, 3, 4))
    first, bias, second, inputs = draw(grids((inner, width), (inner,), (outputs, inner), (tokens, width)))
    kept = draw(grids((inner,), values=(0.0, 1.0)))[0] > 0
    kept[draw(st.integers(0, inner - 1))] = True
    return Pruning(Module(first, bias, second), draw(st.sampled_from([relu, gelu, sigmoid])), inputs, kept)


def outputs_of(pruning: Pruning, module: Module) -> np.ndarray:
    return np.asarray(pruning.activation(pruning.inputs @ module.first.T + module.bias) @ module.second.T)


def removes_the_channels_and_nothing_else(pruning: Pruning, formula: Callable[[Module, np.ndarray], Module]) -> None:
    """The smaller module is the dense one less sum over pruned i of B_i s(A_i x + b_i)."""
    hidden = pruning.activation(pruning.inputs @ pruning.module.first.T + pruning.module.bias)
    lost = hidden[:, ~pruning.kept] @ pruning.module.second[:, ~pruning.kept].T
    smaller = outputs_of(pruning, formula(pruning.module, pruning.kept))
    np.testing.assert_allclose(smaller, outputs_of(pruning, pruning.module) - lost, rtol=0, atol=1e-12)


class Sizes(NamedTuple):
    """width: d. inner: h. removed: channels, at most min(d, h)."""

    width: int
    inner: int
    removed: int


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    width, inner = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    return Sizes(width, inner, draw(st.integers(0, min(width, inner))))


def counts_what_is_removed(size: Sizes, formula: Callable[[Sizes], tuple[Fraction, Fraction]]) -> None:
    """The formula gives the fractions of the 2 d h weights of A (h, d) and B (d, h) that are removed with inner channels, and
    with the ends of the module."""
    first, second = np.ones((size.inner, size.width)), np.ones((size.width, size.inner))
    total = first.size + second.size
    inside = first[size.removed :].size + second[:, size.removed :].size
    ends = first[:, size.removed :].size + second[size.removed :].size
    assert formula(size) == (1 - Fraction(inside, total), 1 - Fraction(ends, total))


G11 = Claim(
    "G11",
    f"{PAPER}, Sec. 3.1",
    "in a depth-2 module, pruning input channels of the second level prunes the same output channels of the first and leaves "
    "the rest of the network as it is; pruning the module's inputs and outputs instead reaches the same compression ratio",
    Verdict.HOLDS,
    properties=(
        Property(
            "without row A_i, bias b_i and column B_i, exactly B_i s(A_i x + b_i) is lost, for any s",
            prunings(),
            removes_the_channels_and_nothing_else,
            lambda module, kept: Module(module.first[kept], module.bias[kept], module.second[:, kept]),
            {
                "only A_i is removed, and B_i s(b_i) is kept": lambda module, kept: module._replace(
                    first=module.first * kept[:, None]
                ),
                "A_i and b_i are removed, and B_i s(0) is kept": lambda module, kept: module._replace(
                    first=module.first * kept[:, None], bias=module.bias * kept
                ),
                "other indices in the second level": lambda module, kept: Module(
                    module.first[kept], module.bias[kept], module.second[:, : int(kept.sum())]
                ),
            },
        ),
        Property(
            "removing k of h inner channels, or k of d inputs and outputs, removes k/h or k/d of the weights",
            sizes(),
            counts_what_is_removed,
            lambda size: (Fraction(size.removed, size.inner), Fraction(size.removed, size.width)),
            {
                "inputs and outputs compound": lambda size: (
                    Fraction(size.removed, size.inner),
                    1 - (1 - Fraction(size.removed, size.width)) ** 2,
                ),
                "half a module each": lambda size: (
                    Fraction(size.removed, 2 * size.inner),
                    Fraction(size.removed, 2 * size.width),
                ),
            },
        ),
    ),
)
