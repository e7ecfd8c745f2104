"""Windows of token ids, in every form that they are given in: where they came from, whether a model can read them, and what a
report records of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from transformers import PreTrainedModel

from gramian.adapters.data.context import context_of
from gramian.versions import versions

__all__ = ["Tokens", "TokensLike", "check_windows", "provenance", "windows_of"]

EXPECTED = (
    "expected integers of shape (n, length): a tensor, an array, nested lists, a mapping with input_ids, or an iterable of "
    "such windows or batches"
)
TEXT = "gramian.calibration turns text into windows of tokens"
ONE_LENGTH = "cut the text into windows of one length, without padding, as gramian.calibration does"


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


TokensLike: TypeAlias = Tokens | torch.Tensor | np.ndarray | Mapping[str, Any] | Iterable[Any]  # what `windows_of` takes


def windows_of(given: TokensLike, what: str = "windows") -> Tokens:
    """Take windows in any form that holds them, and make them int64 (n, length); `Tokens` are returned as they are.

    given: a tensor, an array, nested lists or tuples of integers; a mapping with `input_ids`, such as a `BatchEncoding`; or an
    iterable of windows (length,) and batches (n, length) in these forms: a list, a `DataLoader`, a `datasets.Dataset`. Of a
    batch (inputs, targets) the inputs are taken. A tensor stays on its device. what: how errors call the windows.

    ValueError: text, no integers, padding, windows of several lengths, another shape.
    """
    if isinstance(given, Tokens):
        return given
    if isinstance(given, torch.Tensor):
        return Tokens(matrix(ids_of(given, what), what), "a tensor")
    if isinstance(given, np.ndarray | Mapping):
        rows = matrix(ids_of(given, what), what)
    else:
        rows = stacked([ids_of(inputs_of_batch(each, what), what) for each in items_of(given, what)], what)
    return Tokens(rows, f"a given {type(given).__name__}")


def items_of(given: Any, what: str) -> Iterable[Any]:
    """Iterate over what is no array or mapping; a dataset without an iterator goes by its length."""
    refuse_text(given, what)
    if hasattr(given, "__iter__"):
        return given  # type: ignore[no-any-return]
    if hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        return (given[index] for index in range(len(given)))
    raise ValueError(f"{what} are of type {type(given).__name__}, {EXPECTED}")


def inputs_of_batch(batch: Any, what: str) -> Any:
    """Take the inputs of a batch (inputs, targets), which is a tuple, or a list once a `DataLoader` has put it together."""
    if not isinstance(batch, tuple | list) or not batch or is_number(batch[0]):
        return batch
    first = batch[0]
    if isinstance(batch, tuple) or len(batch) == 1:
        return first
    if isinstance(first, Mapping):
        return batch if all(isinstance(each, Mapping) for each in batch) else first
    return first if isinstance(first, torch.Tensor) and first.ndim > 1 else batch


def ids_of(piece: Any, what: str) -> torch.Tensor:
    """Read the ids of one window, (length,), or of several, (n, length), as int64."""
    refuse_text(piece, what)
    if isinstance(piece, Mapping):
        if "input_ids" not in piece:
            raise ValueError(f"{what} are a {type(piece).__name__} with the keys {list(piece)}, {EXPECTED}; {TEXT}")
        if piece.get("attention_mask") is not None and has_zero(piece["attention_mask"]):
            raise ValueError(f"{what} have an attention_mask with zeros, so some tokens are padding: {ONE_LENGTH}")
        return ids_of(piece["input_ids"], what)
    if isinstance(piece, torch.Tensor):
        if piece.is_floating_point() or piece.is_complex() or piece.dtype == torch.bool:
            raise ValueError(f"{what} are {piece.dtype} of shape {tuple(piece.shape)}, {EXPECTED}")
        return piece.to(torch.int64)
    if isinstance(piece, np.ndarray) and piece.dtype != object:
        if piece.dtype.kind not in "iu":
            raise ValueError(f"{what} are {piece.dtype} of shape {piece.shape}, {EXPECTED}")
        return torch.from_numpy(piece.astype(np.int64))
    if is_number(piece):
        raise ValueError(f"{what} hold a number, {piece}, where there should be a window of them: {EXPECTED}")
    if not isinstance(piece, list | tuple | np.ndarray):
        raise ValueError(f"{what} hold a value of type {type(piece).__name__}, {EXPECTED}")
    if len(piece) and is_number(piece[0]):
        return ids_of(tensor_of(piece, what), what)
    if len(piece) > 1 and isinstance(piece[0], torch.Tensor):
        raise ValueError(
            f"{what} hold a batch that is a list of {len(piece)} tensors of shape {tuple(piece[0].shape)}, as a DataLoader "
            "makes of lists, and windows may be its columns: let the dataset give tensors (with_format('torch')), or stack them"
        )
    return stacked([ids_of(each, what) for each in piece], what)


def tensor_of(numbers: Any, what: str) -> torch.Tensor:
    """Read one window that is a list of numbers."""
    try:
        return torch.tensor(list(numbers))
    except (TypeError, ValueError, RuntimeError) as error:  # something among the numbers is none, or is too large
        raise ValueError(f"{what} hold a list that is not of token ids ({error}), {EXPECTED}") from error


def stacked(pieces: list[torch.Tensor], what: str) -> torch.Tensor:
    """Put windows (length,) and batches (n, length) together as (n, length)."""
    if not pieces:
        raise ValueError(f"{what} are empty, {EXPECTED}")
    rows = [matrix(piece[None] if piece.ndim == 1 else piece, what) for piece in pieces]
    for index, each in enumerate(rows):
        if each.shape[1] != rows[0].shape[1]:
            raise ValueError(
                f"{what} have several lengths: there are {rows[0].shape[1]} tokens in entry 0 and {each.shape[1]} in entry "
                f"{index}: {ONE_LENGTH}"
            )
    return torch.cat([each.to(rows[0].device) for each in rows])


def matrix(ids: torch.Tensor, what: str) -> torch.Tensor:
    """Return ids of shape (n, length), and refuse those of another."""
    if ids.ndim != 2:
        hint = ", and one window is of shape (1, length)" if ids.ndim < 2 else ""
        raise ValueError(f"{what} are of shape {tuple(ids.shape)}, {EXPECTED}{hint}")
    return ids


def refuse_text(given: Any, what: str) -> None:
    """Raise ValueError for text, or a path to one."""
    if isinstance(given, str | bytes | os.PathLike):
        raise ValueError(f"{what} are text or a path ({str(given)[:40]!r}), {EXPECTED}; {TEXT}")


def is_number(value: Any) -> bool:
    """Tell whether a value is one number: Python's, numpy's, or a tensor without axes."""
    return isinstance(value, int | float) or (hasattr(value, "ndim") and value.ndim == 0)


def has_zero(mask: Any) -> bool:
    """Tell whether an attention mask, an array or nested lists, has a zero."""
    if isinstance(mask, torch.Tensor | np.ndarray) and mask.dtype != object:
        return bool((mask == 0).any())
    return any(has_zero(each) for each in mask) if isinstance(mask, list | tuple | np.ndarray) else bool(mask == 0)


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
    context = context_of(model)
    if context is not None and windows.shape[1] > context:
        raise ValueError(
            f"{what} have {windows.shape[1]} tokens, a begin token included, but the model's context has {context}: "
            "use a smaller length"
        )
