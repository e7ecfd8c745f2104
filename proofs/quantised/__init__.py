"""What the toolkit states of quantised weights, in the order of their ids."""

from __future__ import annotations

from gramian.proofs.quantised.one_sweep import C1, C2

__all__ = ["CLAIMS"]

CLAIMS = (C1, C2)
