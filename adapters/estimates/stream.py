"""What a method that narrows the stream takes: moments at every norm, their eigenvalues, and the weights in the other basis."""

from __future__ import annotations

from typing import Any

from gramian.adapters.estimates.figures import EstimatedOperator, Rates
from gramian.adapters.estimates.walked import Walked
from gramian.adapters.removal.stream import Narrowing, removed

__all__ = ["estimated_norms", "movable_share", "stream_bytes", "walked_stream"]

EIGENVALUES = 4.0  # times p^3 operations, of which half run at the rate of a product
EIGENVECTORS = 20.0  # the same with eigenvectors


def walked_stream(plan: Narrowing) -> Walked:
    """The one walk over the dense model, to whose operators nothing is written before its end."""
    places, width = len(plan.parts.norms), plan.parts.width
    return Walked(1.0, float(places * width**2), 0, 0, ())


def stream_bytes(model: Any, plan: Narrowing, heldout: bool) -> dict[str, int]:
    """Bytes of moments at all norms, and of the narrowed model beside the dense one."""
    places, width = len(plan.parts.norms), plan.parts.width
    size = sum(each.numel() * each.element_size() for each in model.parameters())
    return {
        "moments of the stream at every norm, float64": places * (1 + heldout) * width**2 * 8,
        "the narrowed model beside the dense one": size * plan.width // width,
    }


def estimated_norms(model: Any, plan: Narrowing, rates: Rates) -> tuple[EstimatedOperator, ...]:
    """A row for every norm: the eigenvalues of its own moments, and its share of the common basis and of turning weights."""
    places, width = len(plan.parts.norms), plan.parts.width
    turning = 2 * plan.width * sum(each.numel() for each in model.parameters())
    shared = (EIGENVECTORS * width**3 + turning) / places
    seconds = (EIGENVALUES * width**3 + shared) / rates.double
    return tuple(EstimatedOperator(name, (plan.width, width), seconds) for name in plan.parts.norms)


def movable_share(model: Any, plan: Narrowing, inside: int) -> float:
    """The share of the parameters inside the blocks that a width changes."""
    return removed(model, plan.parts, 0) / inside
