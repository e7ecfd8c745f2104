"""FISTAPruner: Layer-wise Post-training Pruning for Large Language Models. Its claims, in the order of their ids."""

from __future__ import annotations

from gramian.proofs.fistapruner.correction import F3, F17B, F18
from gramian.proofs.fistapruner.fista_iteration import F4, F5
from gramian.proofs.fistapruner.lasso_model import F1, F2, F17
from gramian.proofs.fistapruner.lasso_path import F6, F7, F16
from gramian.proofs.fistapruner.lasso_search import F8, F9, F10
from gramian.proofs.fistapruner.rounding import F11, F12, F13
from gramian.proofs.fistapruner.sparsity_patterns import F14, F15

__all__ = ["CLAIMS"]

CLAIMS = (F1, F2, F3, F4, F5, F6, F7, F8, F9, F10, F11, F12, F13, F14, F15, F16, F17, F17B, F18)
