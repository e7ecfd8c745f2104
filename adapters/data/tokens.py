"""Windows of token ids: where they came from, whether a model can read them, and what a report records of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from gramian.versions import versions

__all__ = ["Tokens", "check_windows", "provenance"]


@dataclass(frozen=True)
class Tokens:
    """Windows of token ids, int64 (n, length), or (n, length + 1) with a begin token, and where they came from.

    `seed` is the seed that picked these windows among more, or None where nothing was picked.
    """

    windows: torch.Tensor
    source: str
    seed: int | None = None

    @property
    def digest(self) -> str:
        """Short SHA-256 of shape and ids: two reports with the same digest used the same tokens."""
        ids = self.windows.to("cpu", torch.int64).contiguous()
        return hashlib.sha256(repr(tuple(ids.shape)).encode() + ids.numpy().astype("<i8").tobytes()).hexdigest()[:16]

    def __repr__(self) -> str:
        if self.windows.ndim != 2:  # what `check_windows` refuses can still be printed
            return f"Tokens(a tensor of shape {tuple(self.windows.shape)}, {self.source})"
        count, length = self.windows.shape
        return f"Tokens({count} windows of {length} tokens, {self.source}, sha256 {self.digest})"


def provenance(given: Tokens, heldout: torch.Tensor | None, dtype: torch.dtype) -> dict[str, Any]:
    """Settings that a report records of any run: the windows it read, the checkpoint's dtype, threads and versions."""
    return {
        "windows": list(given.windows.shape),
        "calibration": {"source": given.source, "seed": given.seed, "sha256": given.digest},
        "heldout": None if heldout is None else {"windows": list(heldout.shape), "sha256": Tokens(heldout, "").digest},
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": dict(versions()),
    }


def check_windows(model: PreTrainedModel, windows: torch.Tensor, what: str = "windows") -> None:
    """Raise ValueError unless `windows` are integers (n, length >= 2) within the model's vocabulary and context."""
    if windows.ndim != 2 or windows.is_floating_point() or len(windows) < 1 or windows.shape[1] < 2:
        raise ValueError(
            f"{what} are {windows.dtype} of shape {tuple(windows.shape)}, expected integers of shape (n, length) "
            "with n >= 1 and length >= 2"
        )
    config = model.config.get_text_config()
    for token in (int(windows.min()), int(windows.max())):
        if not 0 <= token < config.vocab_size:
            raise ValueError(f"{what} hold token {token}, but the model's vocabulary has {config.vocab_size} tokens")
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and windows.shape[1] > context:
        raise ValueError(
            f"{what} have {windows.shape[1]} tokens, a begin token included, but the model's context has {context}: "
            "use a smaller length"
        )
