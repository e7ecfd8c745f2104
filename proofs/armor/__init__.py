"""ARMOR: High-Performance Semi-Structured Pruning via Adaptive Matrix Factorization (2025).

Its claims stand in the order of their ids.
"""

from __future__ import annotations

from gramian.proofs.armor.factors import A1, A2

__all__ = ["CLAIMS"]

CLAIMS = (A1, A2)
