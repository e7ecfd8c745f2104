"""The claims that relate the papers to each other, in the order of their ids."""

from __future__ import annotations

from gramian.proofs.crossings.quantities import X1, X2, X6
from gramian.proofs.crossings.refits import X3, X4, X5

__all__ = ["CLAIMS"]

CLAIMS = (X1, X2, X3, X4, X5, X6)
