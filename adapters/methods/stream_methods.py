"""Which directions of a model's stream are kept: those that hold most of it at all places together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gramian.solvers.units.stream_basis import StreamBasis, principal_basis

__all__ = ["ChooseBasis", "slice_stream"]

ChooseBasis = Callable[[Sequence[Any], int], StreamBasis]


def slice_stream(grams: Sequence[Any], kept: int) -> StreamBasis:
    """argmin of sum_l |X_l - X_l Q Q^T|^2 over Q with Q^T Q = I_k: SliceGPT with one basis of the stream for all places.

    X_l: what norm l of the dense model reads, every token scaled to length one, as the norm scales it. A model whose norms are
    RMSNorms computes the same in any basis Q of its stream once their gains are folded into the operators that read them; what
    is lost is what the stream has outside of the k directions that are kept. They are the principal ones of the summed Gram
    matrices, and no others lose less (Ky Fan). SliceGPT (Ashkboos et al. 2024) has such a basis for every place, which loses
    less and needs a matrix in every shortcut, which no stock class has: what that would lose is in the report. With one basis
    for all the model is the stock one with a smaller `hidden_size`. k is the width whose parameters are nearest to what
    `--ratio` asks for; `--round-to 64` keeps a multiple of 64. Nothing is refitted. Tied embeddings become two matrices.
    """
    return principal_basis(grams, kept)
