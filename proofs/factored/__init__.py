"""What the toolkit itself states of weights that are sparse beside a matrix of low rank. In the order of their ids."""

from __future__ import annotations

from gramian.proofs.factored.sparse_low_rank import R1, R2

__all__ = ["CLAIMS"]

CLAIMS = (R1, R2)
