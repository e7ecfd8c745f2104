"""Laws of a lower bound of the loss of any support, `bound(problem, pattern) -> SupportBound`, or a float."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.backends import NUMPY, backends
from gramian.proofs.kit.models import best_of_all_supports
from gramian.proofs.kit.strategies import PATTERNS, Layer, layers, patterns, per_channel
from gramian.proofs.laws.law import Law
from gramian.proofs.laws.methods import WIDTH

__all__ = ["BOUND_LAWS"]

ROUNDING = 1e-9


def total(bound: Any, layer: Layer, ridge: np.ndarray, pattern: Any, backend: Any = NUMPY) -> float:
    """Return the bound of the damped problem of a layer."""
    found = bound(layer.problem(backend).damped(backend.asarray(ridge)), pattern)
    return float(getattr(found, "total", found))


def no_support_has_less_loss(bound: Any, layer: Layer, ridge: np.ndarray, pattern: Any) -> None:
    """1/2 |X* V^T - X W^T|^2 + 1/2 sum_j ridge_j |V_j - W_j|^2 is at least the bound for every V that the pattern admits."""
    tokens = np.diag(np.sqrt(ridge))  # a ridge is a token of every channel
    inputs, outputs = np.vstack([layer.inputs, tokens]), np.vstack([layer.outputs, tokens @ layer.weight.T])
    least = best_of_all_supports(inputs, outputs, pattern.admits)
    slack = ROUNDING * (layer.magnitude(layer.weight) + float(np.sum(outputs**2)))
    stated = total(bound, layer, ridge, pattern)
    assert stated <= least + slack, f"the bound is {stated}, but a loss of {least} is reached"


def loss_is_bounded_in_any_units(bound: Any, layer: Layer, ridge: np.ndarray, pattern: Any) -> None:
    """With X -> c X and ridge -> c^2 ridge the bound is c^2 times what it was."""
    expected = total(bound, layer, ridge, pattern)
    for unit in (2.0**9, 2.0**-9):
        found = total(bound, layer.scaled(inputs=unit), unit**2 * ridge, pattern) / unit**2
        slack = 1e-3 * abs(expected) + ROUNDING * layer.magnitude(layer.weight)
        assert found == expected or abs(found - expected) <= slack, f"the bound is {expected}, and {found} in other units"


def bounds_agree_on_every_backend(bound: Any, layer: Layer, ridge: np.ndarray, pattern: Any) -> None:
    """Every array library has the bound that numpy has, to what steps in float32 make of it."""
    expected = total(bound, layer, ridge, pattern)
    for backend in backends()[1:]:
        found = total(bound, layer, ridge, pattern, backend)
        slack = 1e-2 * abs(expected) + 1e-6 * layer.magnitude(layer.weight)
        assert found == expected or abs(found - expected) <= slack, f"the bound is {expected}, and {found} on {backend}"


@st.composite
def ridged(draw: st.DrawFn, bound: Any) -> tuple[Any, Layer, np.ndarray, Any]:
    """Draw any layer, a ridge on its channels, some of it small, and a pattern."""
    layer = draw(layers(inputs=WIDTH, outputs=2, multiple=WIDTH))
    share = draw(st.sampled_from([0.1, 1.0, 1e-3])) * draw(per_channel(layer, (1.0, 0.1)))
    energy = np.sum(layer.inputs**2, axis=0)
    pattern = draw(patterns(draw(st.sampled_from(sorted(PATTERNS, key=str))), WIDTH))
    return bound, layer, share * np.where(energy > 0, energy, np.mean(energy) or 1.0), pattern


BOUND_LAWS = (
    Law(no_support_has_less_loss, ridged),
    Law(loss_is_bounded_in_any_units, ridged, slow=2),
    Law(bounds_agree_on_every_backend, ridged, slow=4),
)
