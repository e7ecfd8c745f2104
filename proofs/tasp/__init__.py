"""TASP: Preserving Training Dynamics in Transformers via NTK-aware Structured Pruning (Ai, Wei and He 2025).

Its claims stand in the order of their ids.
"""

from __future__ import annotations

from gramian.proofs.tasp.kernel_bounds import T5, T6
from gramian.proofs.tasp.kernel_proof import T3, T4
from gramian.proofs.tasp.kernels import T1, T2
from gramian.proofs.tasp.saliency import T7, T8, T11
from gramian.proofs.tasp.unit_pruning import T9, T10

__all__ = ["CLAIMS"]

CLAIMS = (T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11)
