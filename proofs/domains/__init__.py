"""What the toolkit itself states of calibration text of several domains, in the order of their ids."""

from __future__ import annotations

from gramian.proofs.domains.weighted_grams import D1, D2

__all__ = ["CLAIMS"]

CLAIMS = (D1, D2)
