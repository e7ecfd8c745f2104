"""Texts as windows of tokens.

The token ids t of a text, without special tokens, are cut into consecutive windows

    w_i = (begin, t[i L], ..., t[(i + 1) L - 1]),   i = 0, 1, ....

The tail is dropped. The tokeniser's begin token, if it has one, stands before every window, so that each window looks to the
model like the start of a document. A tokeniser takes hundreds of bytes for every character that it is given at once, so texts
of more than two million characters are read in pieces.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import torch
from transformers import PreTrainedTokenizerBase

from gramian.adapters.models.tokenizer_trials import trial

__all__ = ["cut", "file_windows", "pieces_of", "text_windows", "token_ids"]

WHOLE = 2**21  # characters of a text that is taken at once
PIECE = 2**18  # and of a piece of a longer one


def text_windows(text: str, tokenizer: PreTrainedTokenizerBase, length: int) -> torch.Tensor:
    """Cut a text into consecutive windows of `length` tokens: int64 (n, length + 1), or (n, length) without a begin token.

    ValueError if the text is empty or shorter than one window, and as `token_ids` raises it.
    """
    return cut(token_ids(pieces_of(io.StringIO(text), len(text)), tokenizer), tokenizer, length)


def file_windows(path: Path, tokenizer: PreTrainedTokenizerBase | None, length: int, enough: int | None = None) -> torch.Tensor:
    """Cut a UTF-8 file into windows as `text_windows` does; a ValueError names the file.

    enough: how many tokens will do, so that no more of the file is read than the piece that they end in.
    """
    if tokenizer is None:
        raise ValueError(f"the model has no tokenizer, so {path} cannot be read")
    try:
        with path.open(encoding="utf-8") as file:
            return cut(token_ids(pieces_of(file, path.stat().st_size), tokenizer, enough), tokenizer, length)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {first_bad(path)})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def first_bad(path: Path) -> int:
    """The place of the first byte of a file that is not UTF-8; the reader of a file knows only where it reads."""
    try:
        return len(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        return error.start


def pieces_of(stream: IO[str], size: int) -> Iterator[str]:
    """Read a text of about `size` characters, where it is long in pieces that end with a line, unless its lines are as long as
    pieces."""
    most = max(1, size) if size <= WHOLE else PIECE
    while piece := stream.read(most):
        yield piece + stream.readline(most)


def token_ids(
    pieces: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    enough: int | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> list[int]:
    """Token ids of a text, piece after piece, without special tokens, until there are `enough`, if that is given.

    advance: is told how many have come. ValueError for a tokeniser that cannot take the text within bounds of time and memory.
    """
    ids: list[int] = []
    with trial(tokenizer, f"the tokenizer {tokenizer.name_or_path}".rstrip()) as attempt:
        for piece in pieces:
            attempt(piece)
            # Pieces are longer than the model's context on purpose, so verbose=False leaves out the warning.
            fresh: list[int] = tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"]
            ids += fresh
            advance(len(fresh))
            if enough is not None and len(ids) >= enough:
                break
    return ids


def cut(ids: list[int], tokenizer: PreTrainedTokenizerBase, length: int) -> torch.Tensor:
    """Cut token ids into windows, each after the begin token."""
    if length < 1:
        raise ValueError(f"length is {length}, must be at least 1")
    count = len(ids) // length
    if count == 0:
        what = "the text is empty" if not ids else f"the text has {len(ids)} tokens"
        raise ValueError(f"{what}, one window needs {length}: give more text, or use a smaller length")
    windows = torch.tensor(ids[: count * length], dtype=torch.int64).view(count, length)
    if tokenizer.bos_token_id is None:
        return windows
    return torch.cat([windows.new_full((count, 1), tokenizer.bos_token_id), windows], dim=1)
