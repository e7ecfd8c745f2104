"""Windows in every form that users have them in become the same tensor, or are refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from transformers import BatchEncoding

from gramian.adapters.data.tokens import Tokens, windows_of

WINDOWS = torch.arange(24).reshape(4, 6)
ONES = torch.ones_like(WINDOWS)


class Rows(list):
    """What `datasets.Dataset` shows of itself: named columns, and rows that are dictionaries."""

    column_names = ("input_ids", "attention_mask", "text")


class Indexed:
    """A dataset of which only the length and each item can be read."""

    def __len__(self) -> int:
        return len(WINDOWS)

    def __getitem__(self, index: int) -> torch.Tensor:
        return WINDOWS[index % len(WINDOWS)]  # which never says that it ends


def row(window: torch.Tensor, **more) -> dict:
    return {"text": "a text", "input_ids": window.tolist(), "attention_mask": [1] * len(window)} | more


FORMS = {
    "tensor": WINDOWS,
    "int32": WINDOWS.int(),
    "uint8": WINDOWS.to(torch.uint8),
    "lists": WINDOWS.tolist(),
    "tuples": tuple(map(tuple, WINDOWS.tolist())),
    "lists of numpy integers": [list(window) for window in WINDOWS.numpy()],
    "lists of tensors without axes": [list(window) for window in WINDOWS],
    "array": WINDOWS.numpy(),
    "array of uint16": WINDOWS.numpy().astype(np.uint16),
    "array of big-endian integers": WINDOWS.numpy().astype(">i4"),
    "array of lists": np.array([None, *WINDOWS.tolist()], dtype=object)[1:],
    "mapping": {"input_ids": WINDOWS, "attention_mask": ONES},
    "mapping of lists": {"input_ids": WINDOWS.tolist(), "attention_mask": ONES.tolist()},
    "mapping of tuples": {"input_ids": tuple(map(tuple, WINDOWS.tolist())), "attention_mask": None},
    "encoding": BatchEncoding({"input_ids": WINDOWS.numpy(), "attention_mask": ONES.numpy()}),
    "list of windows": list(WINDOWS),
    "list of arrays": list(WINDOWS.numpy()),
    "list of batches": [WINDOWS[:1], WINDOWS[1:]],
    "list of nested batches": [WINDOWS[:1].tolist(), WINDOWS[1:].tolist()],
    "list of mappings": [{"input_ids": window[None], "attention_mask": ONES[:1]} for window in WINDOWS],
    "pairs": [(window[None], window[None] + 100) for window in WINDOWS],
    "pairs of lists": [(window.tolist(), (window + 100).tolist()) for window in WINDOWS],
    "generator": (window for window in WINDOWS),
    "dataset": Rows(row(window) for window in WINDOWS),
    "dataset of tensors": TensorDataset(WINDOWS, WINDOWS + 100),
    "dataset without an iterator": Indexed(),
    "loader of tensors": DataLoader(TensorDataset(WINDOWS), batch_size=3),
    "loader of pairs": DataLoader(TensorDataset(WINDOWS, WINDOWS + 100), batch_size=3),
    "loader of windows": DataLoader(list(WINDOWS), batch_size=3),
    "loader of mappings": DataLoader([{"input_ids": window} for window in WINDOWS], batch_size=3),
    "loader of mappings with labels": DataLoader([({"input_ids": window}, 100) for window in WINDOWS], batch_size=2),
    "loader of lists of mappings": DataLoader([row(window) for window in WINDOWS], batch_size=3, collate_fn=list),
}


@pytest.mark.parametrize("given", FORMS.values(), ids=FORMS)
def test_every_form_is_the_same_windows(given):
    taken = windows_of(given)
    assert taken.windows.dtype == torch.int64 and taken.windows.tolist() == WINDOWS.tolist()
    assert taken.digest == Tokens(WINDOWS, "elsewhere").digest


def test_where_windows_came_from():
    tokens = Tokens(WINDOWS, "text.txt", 3)
    assert windows_of(tokens) is tokens
    assert windows_of(WINDOWS).windows is WINDOWS
    assert [windows_of(given).source for given in (WINDOWS, WINDOWS.tolist(), FORMS["encoding"], FORMS["loader of pairs"])] == [
        "a tensor", "a given list", "a given BatchEncoding", "a given DataLoader",
    ]  # fmt: skip
    assert windows_of(WINDOWS.to("meta")).windows.device.type == "meta"


def test_what_is_taken_of_an_array_is_a_copy():
    array = WINDOWS.numpy().copy()
    array.setflags(write=False)
    taken = windows_of(array).windows
    taken[0, 0] = 7
    assert array[0, 0] == 0


PADDED = torch.tensor([[1, 1, 1, 1, 1, 1]] * 3 + [[0, 1, 1, 1, 1, 1]])
REFUSED = {
    "text": ("the quick brown fox", r"text or a path \('the quick.*gramian.calibration turns text"),
    "texts": (["the quick", "brown fox"], r"'the quick'.*gramian.calibration"),
    "path": (Path("text.txt"), r"'text.txt'.*gramian.calibration"),
    "rows of text": ([{"text": "the quick"}], r"a dict with the keys \['text'\].*input_ids.*gramian.calibration"),
    "splits": ({"train": WINDOWS}, r"keys \['train'\]"),
    "padding": ({"input_ids": WINDOWS, "attention_mask": PADDED}, "attention_mask with zeros.*padding: cut the text"),
    "padding in lists": (BatchEncoding({"input_ids": WINDOWS.tolist(), "attention_mask": PADDED.tolist()}), "padding"),
    "padding in a row": ([row(WINDOWS[0]), row(WINDOWS[1], attention_mask=[1, 1, 1, 1, 1, 0])], "padding"),
    "lengths": ([[1, 2, 3], [4, 5, 6], [7, 8]], "3 tokens in entry 0 and 2 in entry 2: cut the text into windows of one"),
    "lengths of tensors": ([WINDOWS[:2], WINDOWS[2:, :5]], "6 tokens in entry 0 and 5 in entry 1"),
    "lengths in a mapping": ({"input_ids": [[1, 2], [3]]}, "2 tokens in entry 0 and 1 in entry 1"),
    "a single list": ([1, 2, 3], "hold a number, 1, where there should be a window"),
    "a single tensor": (WINDOWS[0], r"shape \(6,\).*one window is of shape \(1, length\)"),
    "a single text's tokens": ({"input_ids": [1, 2, 3]}, r"shape \(3,\)"),
    "three axes": (WINDOWS[None], r"shape \(1, 4, 6\), expected integers of shape \(n, length\)"),
    "three axes in a list": ([WINDOWS[None]], r"shape \(1, 4, 6\)"),
    "floats": (WINDOWS.float(), r"torch.float32 of shape \(4, 6\), expected integers"),
    "booleans": (WINDOWS > 3, "torch.bool"),
    "array of floats": (WINDOWS.numpy() / 2, "float64"),
    "lists of floats": (WINDOWS.double().tolist(), "torch.float"),
    "lists with a text": ([[1, "2"]], "a list that is not of token ids"),
    "lists with none": ([[1, None]], "a list that is not of token ids"),
    "too large": ([[1, 2**70]], "a list that is not of token ids"),
    "nothing": ([], "windows are empty"),
    "no window": ({"input_ids": []}, "windows are empty"),
    "none": (None, "of type NoneType, expected integers"),
    "a model": (torch.nn.Linear(2, 2), "of type Linear"),
    "objects": ([object()], "a value of type object"),
    "columns": (DataLoader(WINDOWS.tolist(), batch_size=3), r"list of 6 tensors of shape \(3,\), as a DataLoader makes"),
    "columns of a mapping": (DataLoader([row(window) for window in WINDOWS], batch_size=3), "windows may be its columns"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_other_forms_are_refused(given, message):
    with pytest.raises(ValueError, match=message) as refused:
        windows_of(given, "held-out windows" if message.startswith("text") else "windows")
    assert str(refused.value).startswith("held-out windows " if message.startswith("text") else "windows ")
