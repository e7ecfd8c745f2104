"""AlphaPruning: Using Heavy-Tailed Self Regularization Theory for Improved Layer-wise Pruning of LLMs (Lu et al. 2024).

Its claims stand in the order of their ids.
"""

from __future__ import annotations

from gramian.proofs.alphapruning.tails import H1, H2

__all__ = ["CLAIMS"]

CLAIMS = (H1, H2)
