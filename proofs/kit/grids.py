"""Arrays of small whole numbers to draw instances from: sparse, tied ones that shrink well, and full ones from a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

__all__ = ["NONZERO", "WHOLE", "attention_maps", "grids"]

WHOLE = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
NONZERO = (-3.0, -2.0, -1.0, 1.0, 2.0, 3.0)


@st.composite
def grids(draw: st.DrawFn, *shapes: tuple[int, ...], values: Sequence[float] = WHOLE) -> list[np.ndarray]:
    """Draw one array of these values per shape. Arrays that are drawn entry by entry mostly repeat one value, hence the
    seed."""
    if draw(st.booleans()):
        return [draw(arrays(float, shape, elements=st.sampled_from(values))) for shape in shapes]
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return [rng.choice(values, size=shape) for shape in shapes]


@st.composite
def attention_maps(draw: st.DrawFn, *shape: int) -> np.ndarray:
    """Draw rows that sum to one, (..., rows, keys), with zeros; they are causal or not."""
    (counts,) = draw(grids(shape, values=(0.0, 1.0, 2.0, 3.0)))
    if draw(st.booleans()):
        counts = counts * np.tri(shape[-2], shape[-1])
    counts[..., 0] += counts.sum(axis=-1) == 0
    return np.asarray(counts / counts.sum(axis=-1, keepdims=True))
