"""Numerical Pruning for Efficient Autoregressive Models (Shen et al., arXiv 2412.12441): its claims, in the order of their
ids.

`relaxed_mask`, `mask_box` and `mask_order` hold what the paper says of its numerical score, `global_pruning` and
`module_pruning` what it says of heads and modules, `compensation` and `damping` what it says of the weights that are kept, and
`bounds` its error bounds with the facts that they rest on.
"""

from __future__ import annotations

from gramian.proofs.kit.claims import Claim
from gramian.proofs.numerical_pruning import (
    bounds,
    compensation,
    damping,
    global_pruning,
    mask_box,
    mask_order,
    module_pruning,
    relaxed_mask,
)

__all__ = ["CLAIMS"]


def number(claim: Claim) -> tuple[int, str]:
    """N15b comes after N15, which comes after N9."""
    return int(claim.id[1:].rstrip("b")), claim.id


FILES = (bounds, relaxed_mask, mask_box, mask_order, global_pruning, module_pruning, compensation, damping)
CLAIMS = tuple(sorted((claim for file in FILES for claim in file.CLAIMS), key=number))
