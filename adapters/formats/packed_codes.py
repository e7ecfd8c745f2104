"""Weights that are whole numbers times a scale for each group, found again in a dense model and packed as compressed-tensors.

`sparsegpt-quantised` leaves weights v = s c with a scale s of 8 significant bits, rounded to the dtype of the checkpoint. Codes
and scales are found from these weights alone, exactly or not at all, so that nothing but the model has to be carried along.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["Codes", "codes_of", "packed_words"]


class Codes(NamedTuple):
    """codes: (q, p) of int8. scales: (q, groups), in the dtype of the weights."""

    codes: torch.Tensor
    scales: torch.Tensor


def codes_of(weight: torch.Tensor, bits: int, group: int) -> Codes | None:
    """Codes c and scales s with s c, computed in the weights' dtype, equal to W (q, p) to the bit; None where there are none.

    The largest weight of a group has one of 2^(bits - 1) codes, each of which leaves one scale, or one of its neighbours in the
    dtype. A group of zeros has the scale one.
    """
    if weight.shape[1] % group:
        return None
    lines = weight.detach().cpu().reshape(-1, group)
    largest = lines.abs().argmax(dim=1, keepdim=True)
    peak, low, high = lines.gather(1, largest), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scales, codes = torch.ones_like(peak), torch.zeros_like(lines, dtype=torch.int8)
    left = torch.arange(len(lines))[(peak != 0)[:, 0]]
    for size in range(high + 1, 0, -1):
        if not len(left):
            break
        for by in (0, -1, 1):
            values = lines[left]
            scale = neighbour((peak[left].abs().double() / size).bfloat16(), by).to(weight.dtype)
            found = torch.round(values.double() / scale.double()).nan_to_num(0).clamp(low, high)
            fits = (found.to(weight.dtype) * scale == values).all(dim=1) & (scale[:, 0] > 0)
            scales[left[fits]], codes[left[fits]] = scale[fits], found[fits].to(torch.int8)
            left = left[~fits]
    if len(left):
        return None
    return Codes(codes.reshape(weight.shape), scales.reshape(weight.shape[0], -1))


def neighbour(values: torch.Tensor, by: int) -> torch.Tensor:
    """Positive numbers in bfloat16, moved by one place."""
    return (values.view(torch.int16) + by).view(torch.bfloat16)


def packed_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes (q, p), raised by 2^(bits - 1), 32 / bits of them in every word from its lowest bits up, (q, ceil(p bits / 32))."""
    each = 32 // bits
    raised = torch.nn.functional.pad(codes.to(torch.int64) + 2 ** (bits - 1), (0, -codes.shape[1] % each))
    words = raised.reshape(codes.shape[0], -1, each) << (bits * torch.arange(each))
    return words.sum(dim=2).to(torch.int32)
