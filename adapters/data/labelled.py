"""Texts with labels in the forms that users have them in, as tokens of one length with a mask over the padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gramian.adapters.models.examples import IGNORED

__all__ = ["Labelled", "given_examples", "padded"]

LABELS = ("labels", "label")  # what collators and data sets call them


@dataclass(frozen=True, eq=False)
class Labelled:
    """Token ids, int64 (n, length), whatever stands after the tokens; mask, bool (n, length), over the tokens; labels (n,) or
    (n, t); types (n, length), or None."""

    windows: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    types: torch.Tensor | None = None


def given_examples(batches: Sequence[Any], what: str) -> Labelled | None:
    """Read mappings that have labels: single texts, as data sets give them, and batches, as collators do.

    batches: what was given, item by item. None where they have no labels, or none but the tokens themselves, as data sets for
    language models do; they are then windows like any other. ValueError: labels in some items alone, padding before the tokens,
    a text without tokens or whose labels are all -100, labels that are no numbers, or as many as there are not texts.
    """
    found = [isinstance(each, Mapping) and any(each.get(name) is not None for name in LABELS) for each in batches]
    if not any(found):
        return None
    if not all(found):
        raise ValueError(f"{what} have labels in entry {found.index(True)} and none in entry {found.index(False)}")
    texts = [text for batch in batches for text in texts_of(batch, what)]
    if all(isinstance(each["labels"], list) and each["labels"] == each["ids"] and all(each["mask"]) for each in texts):
        return None
    return padded(texts, what)


def texts_of(batch: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    """The texts of one batch, or the one text that it is, as plain lists of their tokens, mask, labels and types."""
    if "input_ids" not in batch:
        raise ValueError(f"{what} have labels but no input_ids; there are {', '.join(map(str, batch))}")
    label = next(name for name in LABELS if batch.get(name) is not None)
    ids, labels = plain(batch["input_ids"]), plain(batch[label])
    mask, types = plain(batch.get("attention_mask")), plain(batch.get("token_type_ids"))
    if not isinstance(ids, list) or not ids:
        raise ValueError(f"{what} have input_ids without tokens")
    if not isinstance(ids[0], list):  # one text
        ids, labels, mask, types = [ids], [labels], None if mask is None else [mask], None if types is None else [types]
    if not isinstance(labels, list) or len(labels) != len(ids):
        count = len(labels) if isinstance(labels, list) else 1
        raise ValueError(f"{what} have a batch of {len(ids)} texts with {count} labels, expected one for each")
    masks = [[1] * len(each) for each in ids] if mask is None else mask
    kinds = [None] * len(ids) if types is None else types
    rows = zip(ids, masks, labels, kinds, strict=True)
    return [{"ids": one, "mask": kept, "labels": each, "types": kind} for one, kept, each, kind in rows]


def plain(values: Any) -> Any:
    """Lists and numbers in place of tensors and arrays, also of those in a list."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return [plain(each) for each in values] if isinstance(values, list | tuple) else values


def padded(texts: Iterable[Mapping[str, Any]], what: str) -> Labelled:
    """Put texts side by side: ids and labels of any length, or one label each. Errors are those of `given_examples`."""
    ids: list[list[int]] = []
    labels: list[Any] = []
    types: list[list[int] | None] = []
    for place, text in enumerate(texts):
        count = sum(map(bool, text["mask"]))
        if not count or not all(text["mask"][:count]) or len(text["mask"]) != len(text["ids"]):
            raise ValueError(
                f"{what}: the attention_mask of text {place} must be ones over its tokens, one at least, and zeros over the "
                "padding after them: tokenise with padding_side='right'"
            )
        ids.append(text["ids"][:count])
        types.append(None if text["types"] is None else text["types"][:count])
        labels.append(trimmed(text["labels"], f"{what}: the labels of text {place}"))
    if len({isinstance(each, list) for each in labels}) != 1 or len({each is None for each in types}) != 1:
        raise ValueError(f"{what} mix texts that have one label with texts that have several, or with and without token types")
    counts = torch.tensor([len(each) for each in ids])
    mask = torch.arange(int(counts.max()))[None] < counts[:, None]
    windows = filled(ids, 0)
    answers = filled(labels, IGNORED) if isinstance(labels[0], list) else torch.tensor(labels)
    return Labelled(windows, mask, answers, None if types[0] is None else filled([each or [] for each in types], 0))


def trimmed(labels: Any, what: str) -> Any:
    """One number, or a list of tokens without the padding at its end."""
    if isinstance(labels, list) and len(labels) == 1 and not isinstance(labels[0], int):
        labels = labels[0]  # a number in a column of its own
    if isinstance(labels, int | float):
        return labels
    if not isinstance(labels, list) or not all(type(each) is int for each in labels):
        raise ValueError(f"{what} are {str(labels)[:40]!r}, expected token ids, one class as a whole number, or one number")
    last = max((place for place, each in enumerate(labels) if each != IGNORED), default=-1)
    if last < 0:
        raise ValueError(f"{what} are all {IGNORED}, so nothing is predicted: leave the text out")
    return labels[: last + 1]


def filled(rows: Sequence[Sequence[int]], rest: int) -> torch.Tensor:
    """Rows of any length as int64 (n, longest), with `rest` after the shorter ones."""
    whole = torch.full((len(rows), max(map(len, rows))), rest, dtype=torch.int64)
    for place, row in enumerate(rows):
        whole[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return whole
