"""What the toolkit itself states of bases inside a model: rotations of heads, orders of channels. In the order of their ids."""

from __future__ import annotations

from gramian.proofs.bases.channel_orders import B3
from gramian.proofs.bases.head_rotations import B1, B2

__all__ = ["CLAIMS"]

CLAIMS = (B1, B2, B3)
