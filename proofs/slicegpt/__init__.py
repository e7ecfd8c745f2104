"""SliceGPT: a stream in another basis, and in fewer directions. In the order of their ids."""

from __future__ import annotations

from gramian.proofs.slicegpt.stream_bases import S1, S2

__all__ = ["CLAIMS"]

CLAIMS = (S1, S2)
