"""The network of TASP, Eq. (1), as small as can be: f(x) = phi(s(x W1) W2 v), its gradient and its saliency by hand.

The input is x (d,), the weights are W1 (d, h) and W2 (h, d), the readout is v (d,), and phi is a scalar head that stands for
what follows the sub-layer. Arrays may hold floats, complex numbers (a complex step differentiates to rounding) or, where the
activations are piecewise linear, Fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from scipy.special import erf

from gramian.proofs.kit.grids import WHOLE, grids
from gramian.proofs.kit.rational import exact

__all__ = [
    "GELU",
    "IDENTITY",
    "RELU",
    "SIGMOID",
    "SILU",
    "TANH",
    "Activation",
    "Network",
    "flat",
    "leaky",
    "kernel",
    "networks",
    "positive",
    "rational_network",
    "samples",
    "sign",
    "softplus",
]


@dataclass(frozen=True)
class Activation:
    """Its value and its slope act elementwise; the slope at a kink is the one from the left."""

    name: str
    value: Callable[[Any], Any]
    slope: Callable[[Any], Any]


def positive(argument: Any) -> Any:
    """Return 1 where the argument is positive, else 0; a complex argument holds its value in the real part, and a derivative
    in the other."""
    return 1 * (np.real(argument) > 0)


def logistic(argument: Any) -> Any:
    return 0.5 * (1 + np.tanh(0.5 * argument))


def normal(argument: Any) -> Any:
    return 0.5 * (1 + erf(argument / np.sqrt(2)))


def leaky(slope: Any) -> Activation:
    """x where x > 0, and slope x elsewhere."""

    def factor(argument: Any) -> Any:
        return slope + (1 - slope) * positive(argument)

    return Activation(f"leaky {slope}", lambda a: factor(a) * a, factor)


def softplus(sharpness: float) -> Activation:
    """log(1 + exp(k x)) / k, which tends to ReLU as k grows. Its slope is Lipschitz with constant k / 4."""

    def value(argument: Any) -> Any:
        size = (2 * positive(argument) - 1) * argument
        return np.log1p(np.exp(-sharpness * size)) / sharpness + positive(argument) * argument

    return Activation(f"softplus {sharpness}", value, lambda a: logistic(sharpness * a))


IDENTITY = Activation("identity", lambda a: a, lambda a: 1 + 0 * a)
RELU = Activation("relu", lambda a: positive(a) * a, positive)
GELU = Activation("gelu", lambda a: a * normal(a), lambda a: normal(a) + a * np.exp(-0.5 * a * a) / np.sqrt(2 * np.pi))
SILU = Activation("silu", lambda a: a * logistic(a), lambda a: logistic(a) * (1 + a * logistic(-a)))
TANH = Activation("tanh", np.tanh, lambda a: 1 - np.tanh(a) ** 2)
SIGMOID = Activation("sigmoid", logistic, lambda a: logistic(a) * logistic(-a))


def sign(values: Any) -> Any:
    """Return -1, 0 or 1, for Fractions too."""
    return 1 * (values > 0) - 1 * (values < 0)


def flat(parts: tuple[Any, Any]) -> Any:
    """Return the 2 d h entries that belong to W1 and W2 as one vector."""
    return np.concatenate([np.ravel(part) for part in parts])


@dataclass(frozen=True)
class Network:
    """first: W1 (d, h). second: W2 (h, d). readout: v (d,)."""

    first: Any
    second: Any
    readout: Any
    activation: Activation = RELU
    head: Activation = IDENTITY

    @property
    def units(self) -> int:
        return int(self.first.shape[1])

    def contributions(self, x: Any) -> Any:
        """s(x W1)_u (W2 v)_u of every unit, (h,), whose sum is what the head sees."""
        return self.activation.value(x @ self.first) * (self.second @ self.readout)

    def score(self, x: Any) -> Any:
        return np.sum(self.contributions(x))

    def value(self, x: Any) -> Any:
        return self.head.value(self.score(x))

    def gradient(self, x: Any) -> tuple[Any, Any]:
        """df / dW1 (d, h) = phi' x_i s'(a_u) (W2 v)_u and df / dW2 (h, d) = phi' s(a_u) v_j."""
        hidden, outer = x @ self.first, self.head.slope(self.score(x))
        first = np.outer(x, self.activation.slope(hidden) * (self.second @ self.readout))
        return outer * first, outer * np.outer(self.activation.value(hidden), self.readout)

    def moved(self, step: Any, direction: tuple[Any, Any]) -> Network:
        return replace(self, first=self.first + step * direction[0], second=self.second + step * direction[1])

    def saliency(self, gradient: tuple[Any, Any]) -> Any:
        """Eq. (4): the sum of |gradient . weight| over the incoming and outgoing weights of every unit, (h,)."""
        return np.sum(abs(gradient[0] * self.first), axis=0) + np.sum(abs(gradient[1] * self.second), axis=1)

    def pruned(self, units: Sequence[int]) -> Network:
        """Return the network whose columns of W1 and rows of W2 of these units are zero."""
        first, second = self.first.copy(), self.second.copy()
        first[:, units] = 0
        second[units] = 0
        return replace(self, first=first, second=second)

    def without(self, units: Sequence[int]) -> Network:
        """Return the smaller network, without these units."""
        return replace(self, first=np.delete(self.first, units, axis=1), second=np.delete(self.second, units, axis=0))


def kernel(at: tuple[Any, Any], stepped: tuple[Any, Any]) -> Any:
    """Theta = <grad f(x), sign grad f(z)> of two gradients."""
    return flat(at) @ sign(flat(stepped))


def rational_network(
    first: Any, second: Any, readout: Any, activation: Activation = RELU, head: Activation = IDENTITY
) -> Network:
    """Return the network in Fractions, from nested lists."""
    arrays = [np.array(exact(part), dtype=object) for part in (first, second, readout)]
    return Network(arrays[0], arrays[1], arrays[2], activation, head)


@st.composite
def networks(
    draw: st.DrawFn,
    inner: Sequence[Activation] = (RELU, GELU, SILU, TANH),
    heads: Sequence[Activation] = (IDENTITY,),
    values: Sequence[float] = WHOLE,
) -> Network:
    """Draw networks with d at most 3 and h at most 5, whose weights are halves of `values`."""
    width, units = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    first, second, readout = draw(grids((width, units), (units, width), (width,), values=values))
    return Network(0.5 * first, 0.5 * second, 0.5 * readout, draw(st.sampled_from(inner)), draw(st.sampled_from(heads)))


def samples(network: Network, count: int) -> st.SearchStrategy[np.ndarray]:
    """Draw inputs for a network, (count, d)."""
    return grids((count, len(network.first))).map(lambda drawn: 0.5 * drawn[0])
