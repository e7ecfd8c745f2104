"""Which directions of a model's stream are kept: those that hold most of it at all places together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gramian.solvers.units.stream_basis import StreamBasis, channel_basis, principal_basis

__all__ = ["ChooseBasis", "check_basis", "slice_stream"]

BASES = {"principal": principal_basis, "channels": channel_basis}

ChooseBasis = Callable[[Sequence[Any], int], StreamBasis]


def slice_stream(grams: Sequence[Any], kept: int, *, basis: str = "principal") -> StreamBasis:
    """argmin of sum_l |X_l - X_l Q Q^T|^2 over Q with Q^T Q = I_k: SliceGPT with one basis of the stream for all places.

    X_l: what norm l of the dense model reads, every token scaled to length one, as the norm scales it. A model whose norms are
    RMSNorms computes the same in any basis Q of its stream once their gains are folded into the operators that read them; what
    is lost is what the stream has outside of the k directions that are kept. They are the principal ones of the summed Gram
    matrices, and no others lose less (Ky Fan). SliceGPT (Ashkboos et al. 2024) has such a basis for every place, which loses
    less and needs a matrix in every shortcut, which no stock class has: what that would lose is in the report. With one basis
    for all the model is the stock one with a smaller `hidden_size`. k is the width whose parameters are nearest to what
    `--ratio` asks for; `--round-to 64` keeps a multiple of 64. Nothing is refitted. Tied embeddings become two matrices.

    basis: with `channels`, Q has columns of the identity alone, so that the channels of most energy stay as they are: what
    LLM-Pruner calls channel-wise pruning, by another score.
    """
    return BASES[basis](grams, kept)


def check_basis(*, basis: str = "principal") -> None:
    """Raise ValueError for a basis of no such name."""
    if basis not in BASES:
        raise ValueError(f"basis must be one of {', '.join(BASES)} but is {basis!r}")
