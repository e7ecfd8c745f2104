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
from gramian.adapters.data.domains import Domains
from gramian.adapters.data.labelled import given_examples
from gramian.adapters.models.examples import IGNORED, Examples, Rows
from gramian.versions import versions

__all__ = ["Tokens", "TokensLike", "check_windows", "plain_windows", "provenance", "samples_of", "unlabelled", "windows_of"]

EXPECTED = (
    "expected integers of shape (n, length): a tensor, an array, nested lists, a mapping with input_ids, or an iterable of "
    "such windows or batches"
)
TEXT = "gramian.calibration turns text into windows of tokens"
ONE_LENGTH = "cut the text into windows of one length, without padding, as gramian.calibration does"


@dataclass(frozen=True)
class Tokens:
    """Windows of token ids, int64 (n, length), or (n, length + 1) with a begin token, and where they came from.

    `seed` is the seed that picked these windows among more, or None where nothing was picked. Of texts with labels, `labels`
    are (n,), a class or a number for each, or (n, t), tokens, with -100 where nothing is predicted; `mask`, bool (n, length),
    is then over the tokens, with padding after them, and `types` are `token_type_ids`, if there are any. `domains` says which
    windows are of which text, and what each text weighs, where they are of several.
    """

    windows: torch.Tensor
    source: str
    seed: int | None = None
    mask: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    types: torch.Tensor | None = None
    domains: Domains | None = None

    @property
    def digest(self) -> str:
        """Short SHA-256 of shape and ids, and of mask and labels: two reports with the same digest used the same tokens."""
        ids = self.windows.to("cpu", torch.int64).contiguous()
        found = hashlib.sha256(repr(tuple(ids.shape)).encode() + ids.numpy().astype("<i8").tobytes())
        for name in ("mask", "labels", "types"):
            if (each := getattr(self, name)) is not None:
                kind = "<f8" if each.is_floating_point() else "<i8"
                found.update(f"{name} {tuple(each.shape)}".encode() + each.cpu().numpy().astype(kind).tobytes())
        if self.domains is not None:
            found.update(repr(self.domains).encode())
        return found.hexdigest()[:16]

    def part(self, some: slice | torch.Tensor) -> Tokens:
        """Some of the windows, with all that belongs to them."""
        rest = {name: None if (each := getattr(self, name)) is None else each[some] for name in ("mask", "labels", "types")}
        places = torch.arange(len(self.windows))[some].tolist()
        domains = None if self.domains is None else self.domains.part(places)
        return Tokens(self.windows[some], self.source, self.seed, **rest, domains=domains)

    def by_length(self) -> list[Rows]:
        """The windows, domain by domain; or, of texts with labels, those that are equally long and have labels that are,
        without padding, in the order in which the lengths first come."""
        if self.domains is not None:
            return [self.windows[self.domains.of(number)] for number, count in enumerate(self.domains.counts) if count]
        if self.labels is None:
            return [self.windows]
        counts = [self.windows.shape[1]] * len(self.windows) if self.mask is None else self.mask.sum(dim=1).tolist()
        widths = [0] * len(counts)
        if self.labels.ndim == 2:
            places = torch.arange(1, self.labels.shape[1] + 1, device=self.labels.device)
            widths = torch.where(self.labels == IGNORED, 0, places).amax(dim=1).tolist()
        groups: dict[tuple[int, int], list[int]] = {}
        for place, sizes in enumerate(zip(counts, widths)):
            groups.setdefault(sizes, []).append(place)
        return [self.examples(places, *sizes) for sizes, places in groups.items()]

    def examples(self, places: list[int], length: int, width: int) -> Examples:
        """The texts at some places, cut to their tokens, and their labels to theirs."""
        assert self.labels is not None
        labels = self.labels[places] if self.labels.ndim == 1 else self.labels[places, :width]
        types = None if self.types is None else self.types[places, :length]
        return Examples(self.windows[places, :length], labels, types)

    def __repr__(self) -> str:
        if self.windows.ndim != 2:  # what `check_windows` refuses can still be printed
            return f"Tokens(a tensor of shape {tuple(self.windows.shape)}, {self.source})"
        count, length = self.windows.shape
        if self.labels is not None:
            return f"Tokens({count} texts with labels, of at most {length} tokens, {self.source}, sha256 {self.digest})"
        domains = "" if self.domains is None else f"domains {self.domains}, "
        return f"Tokens({count} windows of {length} tokens, {domains}{self.source}, sha256 {self.digest})"


TokensLike: TypeAlias = Tokens | torch.Tensor | np.ndarray | Mapping[str, Any] | Iterable[Any]  # what `windows_of` takes


def windows_of(given: TokensLike, what: str = "windows") -> Tokens:
    """Take windows in any form that holds them, and make them int64 (n, length); `Tokens` are returned as they are.

    given: a tensor, an array, nested lists or tuples of integers; a mapping with `input_ids`, such as a `BatchEncoding`; or an
    iterable of windows (length,) and batches (n, length) in these forms: a list, a `DataLoader`, a `datasets.Dataset`. Of a
    batch (inputs, targets) the inputs are taken. A tensor stays on its device. what: how errors call the windows.

    Mappings that have `labels` too, or `label`, are texts with labels, of any lengths, padded where `attention_mask` is zero;
    so are lists of them. Labels that are the tokens themselves say nothing, and are left out.

    ValueError: text, no integers, padding without labels, windows of several lengths, another shape.
    """
    if isinstance(given, Tokens):
        return given
    kind = type(given).__name__
    if not isinstance(given, torch.Tensor | np.ndarray):
        given = given if isinstance(given, Mapping) else list(items_of(given, what))
        labelled = given_examples([given] if isinstance(given, Mapping) else given, what)
        if labelled is not None:
            found = {name: getattr(labelled, name) for name in ("mask", "labels", "types")}
            return Tokens(labelled.windows, f"a given {kind}", **found)
    if isinstance(given, torch.Tensor):
        return Tokens(matrix(ids_of(given, what), what), "a tensor")
    if isinstance(given, np.ndarray | Mapping):
        rows = matrix(ids_of(given, what), what)
    else:
        rows = stacked([ids_of(inputs_of_batch(each, what), what) for each in given], what)
    return Tokens(rows, f"a given {kind}")


def plain_windows(given: TokensLike, what: str = "windows") -> torch.Tensor:
    """Windows (n, length) without labels; ValueError for texts that have them, which may be padded."""
    return unlabelled(given, what).windows


def unlabelled(given: TokensLike, what: str = "windows") -> Tokens:
    """The same with where they come from; ValueError for texts with labels, which may be padded."""
    found = windows_of(given, what)
    if found.labels is not None:
        raise ValueError(f"{what} are texts with labels, expected windows of one length, as gramian.calibration makes of text")
    return found


def samples_of(given: torch.Tensor | Tokens) -> list[Rows]:
    """Windows or texts one by one, each in rows of its own, (1, length)."""
    if isinstance(given, torch.Tensor) or given.labels is None:
        windows = given if isinstance(given, torch.Tensor) else given.windows
        return list(windows.split(1))
    return [given.part(slice(place, place + 1)).by_length()[0] for place in range(len(given.windows))]


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


def provenance(given: Tokens, heldout: Tokens | None, recovery: Tokens | None, dtype: torch.dtype) -> dict[str, Any]:
    """Settings that a report records of any run: the windows it read, the checkpoint's dtype, threads and versions."""

    def origin(tokens: Tokens) -> dict[str, Any]:
        return {"source": tokens.source, "seed": tokens.seed, "sha256": tokens.digest}

    several = {} if given.domains is None else {"domains": domains_recorded(given.domains, heldout)}
    own = {} if recovery is None else {"recovery": {"windows": list(recovery.windows.shape), **origin(recovery)}}
    return {
        "windows": list(given.windows.shape),
        "calibration": origin(given),
        **several,
        **own,
        "heldout": None if heldout is None else {"windows": list(heldout.windows.shape), "sha256": heldout.digest},
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": dict(versions()),
    }


def domains_recorded(domains: Domains, heldout: Tokens | None) -> list[dict[str, Any]]:
    """What a report records of domains: their names, weights and windows, and how often a token of each counts."""
    apart = None if heldout is None or heldout.domains is None else heldout.domains.counts
    rows = zip(domains.names, domains.weights, domains.counts, domains.factors)
    return [
        {
            "name": name,
            "weight": weight,
            "windows": count,
            "factor": factor,
            "heldout_windows": None if apart is None else apart[place],
        }
        for place, (name, weight, count, factor) in enumerate(rows)
    ]


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
