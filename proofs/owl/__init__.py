"""Outlier Weighed Layerwise Sparsity (OWL): A Missing Secret Sauce for Pruning LLMs to High Sparsity (Yin et al. 2024).

Its claims stand in the order of their ids.
"""

from __future__ import annotations

from gramian.proofs.owl.outliers import O1, O2

__all__ = ["CLAIMS"]

CLAIMS = (O1, O2)
