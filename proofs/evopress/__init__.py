"""EvoPress: Optimal Dynamic Model Compression via Evolutionary Search (Sieberling, Kuznedelev, Kurtic and Alistarh 2024), and
what the toolkit adds to its exchanges.

Its claims stand in the order of their ids.
"""

from __future__ import annotations

from gramian.proofs.evopress.level_prices import E3
from gramian.proofs.evopress.level_switches import E1, E2

__all__ = ["CLAIMS"]

CLAIMS = (E1, E2, E3)
