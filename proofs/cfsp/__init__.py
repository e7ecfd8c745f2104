"""CFSP: An Efficient Structured Pruning Framework for LLMs with Coarse-to-Fine Activation Information (Wang et al. 2024).

Its claims stand in the order of their ids.
"""

from __future__ import annotations

from gramian.proofs.cfsp.blocks import I1, I2
from gramian.proofs.cfsp.units import I3

__all__ = ["CLAIMS"]

CLAIMS = (I1, I2, I3)
