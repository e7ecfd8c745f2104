"""Greedy Output Approximation: Towards Efficient Structured Pruning for LLMs Without Retraining (Li, Dong and Lei 2024).

Its claims stand in the order of their ids.
"""

from __future__ import annotations

from gramian.proofs.greedy_output.head_divergence import G1, G4
from gramian.proofs.greedy_output.head_pruning import G2, G3, G13
from gramian.proofs.greedy_output.module_scores import G8, G12
from gramian.proofs.greedy_output.modules import G11
from gramian.proofs.greedy_output.recovery import G9, G10
from gramian.proofs.greedy_output.second_moments import G5, G6, G7

__all__ = ["CLAIMS"]

CLAIMS = (G1, G2, G3, G4, G5, G6, G7, G8, G9, G10, G11, G12, G13)
