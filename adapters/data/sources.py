"""Token windows that a model is calibrated or evaluated on.

The token ids t of a whole text, without special tokens, are cut into consecutive windows

    w_i = (begin, t[i L], ..., t[(i + 1) L - 1]),   i = 0, 1, ....

The tail is dropped. The tokeniser's begin token, if it has one, stands before every window, so that each window looks to the
model like the start of a document.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.data.context import usual_length
from gramian.adapters.data.generation import sampled_tokens
from gramian.adapters.data.source_names import check_source
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.files import write_bytes
from gramian.progress import bar

__all__ = ["builtin_text", "calibration", "file_windows", "text_windows", "write_tokens"]


def builtin_text(part: Literal["calibration", "heldout"] = "calibration") -> str:
    """Read English text that ships with Python: the language reference in `pydoc_data.topics`, topics in sorted order.

    Every fourth topic is held out, the others are for calibration. Topics quote each other, so every paragraph is used
    once, and no held-out paragraph is used for calibration. The text differs between Python versions.
    """
    if part not in ("calibration", "heldout"):
        raise ValueError(f"part is {part!r}, expected 'calibration' or 'heldout'")
    from pydoc_data.topics import topics

    def paragraphs(names: list[str]) -> dict[str, None]:
        pieces = (piece.strip("\n") for name in names for piece in topics[name].split("\n\n"))
        return dict.fromkeys(piece for piece in pieces if piece)

    names = sorted(topics)
    heldout = paragraphs(names[3::4])
    return "\n\n".join(heldout if part == "heldout" else (each for each in paragraphs(names) if each not in heldout))


def text_windows(text: str, tokenizer: PreTrainedTokenizerBase, length: int) -> torch.Tensor:
    """Cut a text into consecutive windows of `length` tokens: int64 (n, length + 1), or (n, length) without a begin token.

    ValueError if the text is empty or shorter than one window.
    """
    return cut(ids_of(text, tokenizer), tokenizer, length)


def file_windows(path: Path, tokenizer: PreTrainedTokenizerBase | None, length: int) -> torch.Tensor:
    """Cut a UTF-8 file into windows as `text_windows` does; a ValueError names the file."""
    if tokenizer is None:
        raise ValueError(f"the model has no tokenizer, so {path} cannot be read")
    try:
        return text_windows(path.read_text(encoding="utf-8"), tokenizer, length)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def calibration(
    source: str,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    samples: int,
    length: int | None = None,
    seed: int = 0,
    vocabulary: int | None = None,
    model: PreTrainedModel | None = None,
) -> Tokens:
    """Draw `samples` windows of `length` tokens from a named source of text.

    A source that holds more windows than `samples` has `seed` pick them, without replacement; they are kept in text order.

    Parameters
    ----------
    source : str
        One of

        - `builtin`: English text that ships with Python (`builtin_text`);
        - `self`: text sampled from `model`, which no other source needs, with `seed`;
        - `FILE.txt`, any file that is not safetensors: UTF-8 text;
        - `FILE.safetensors`: one integer tensor `tokens` of shape (n, length), which is used as it is;
        - `hf:DATASET[:CONFIG][:SPLIT]`: the `text` column of a hub dataset, read from its beginning until there are enough
          tokens. The split is `train` unless another is named; an empty CONFIG names a split only.
    tokenizer : PreTrainedTokenizerBase or None
        The model's tokeniser, as `load` returns it; None will do for a safetensors file and for `self`.
    samples : int
        How many windows to draw.
    length : int, optional
        Tokens in a window, without the begin token that a tokeniser may put before it: by default 512, or as many as fit in
        the context of `model` with the begin token, where that is fewer. A safetensors file has its own.
    seed : int
        Seed of the choice of windows, or of the text sampled from the model.
    vocabulary : int, optional
        Number of tokens that the model knows; where it is given, token ids are checked against it.
    model : PreTrainedModel, optional
        The model that the windows are for, whose context bounds their default length. The source `self` samples text from it,
        so that it has to be a causal one.

    Returns
    -------
    Tokens
        The windows, int64 (samples, length), or (samples, length + 1) with a begin token, and where they came from.

    Raises
    ------
    ValueError
        A source with fewer windows than `samples`, a damaged or empty one, text without a tokeniser, a token id outside
        [0, vocabulary), `self` without a model or with one that does not continue text.
    FileNotFoundError
        A source that is neither a name nor a file.
    OSError
        A dataset that cannot be read.
    ImportError
        A dataset, where the package `datasets` is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import gramian, torch
    >>> from safetensors.torch import save_file
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = Path(folder.name) / "tokens.safetensors"
    >>> save_file({"tokens": torch.arange(40).reshape(8, 5)}, file)
    >>> tokens = gramian.calibration(str(file), None, samples=3, length=5, seed=1)
    >>> tokens.windows.shape
    torch.Size([3, 5])
    >>> folder.cleanup()
    """
    if length is None:
        length = usual_length(model, tokenizer)
    if samples < 1 or length < 1:
        raise ValueError(f"samples is {samples} and length is {length}, both must be at least 1")
    if source == "self":
        if model is None:
            raise ValueError("the source 'self' needs the model that the text is sampled from: give model=")
        return sampled_tokens(model, tokenizer, samples=samples, length=length, seed=seed)
    windows = read_windows(source, tokenizer, samples, length)
    check_ids(windows, vocabulary, source)
    if len(windows) < samples:
        raise ValueError(
            f"{source} holds {len(windows)} windows of {windows.shape[1]} tokens, fewer than the {samples} requested: "
            "ask for fewer or shorter ones, or give more text"
        )
    if len(windows) == samples:
        return Tokens(windows, source)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    return Tokens(windows[order[:samples].sort().values], source, seed)


def write_tokens(path: Path, windows: torch.Tensor) -> None:
    """Write a file that `calibration` reads; it appears complete or not at all."""
    write_bytes(path, save({"tokens": windows.contiguous()}))


def read_windows(source: str, tokenizer: PreTrainedTokenizerBase | None, samples: int, length: int) -> torch.Tensor:
    """Read all windows of a source, of a dataset at least `samples` of them."""
    check_source(source)
    path = Path(source).expanduser()
    if path.suffix == ".safetensors":
        return read_token_file(path)
    if tokenizer is None:
        raise ValueError(
            f"the model has no tokenizer, so the text of {source} cannot be used: give the tokens themselves as "
            "FILE.safetensors, an integer tensor `tokens` of shape (n, length)"
        )
    if source.startswith("hf:"):
        return cut(read_dataset(source, tokenizer, samples * length), tokenizer, length)
    if source == "builtin":
        return text_windows(builtin_text(), tokenizer, length)
    return file_windows(path, tokenizer, length)


def ids_of(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a text, without special tokens."""
    # The text is longer than the model's context on purpose, so verbose=False leaves out the warning.
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
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


def read_token_file(path: Path) -> torch.Tensor:
    """Read the integer tensor `tokens` of a safetensors file, int64 (n, length)."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    tokens = tensors.get("tokens")
    if tokens is None:
        raise ValueError(f"{path} holds the tensors {sorted(tensors)}, expected one named 'tokens'")
    integer = not (tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool)
    if not integer or tokens.ndim != 2 or not tokens.numel():
        raise ValueError(
            f"{path}: 'tokens' is {tokens.dtype} of shape {tuple(tokens.shape)}, "
            "expected integers of shape (n, length), not empty"
        )
    return tokens.to(torch.int64)


def read_dataset(source: str, tokenizer: PreTrainedTokenizerBase, enough: int) -> list[int]:
    """Read token ids of a dataset's `text` column, its rows a blank line apart, as a stream until there are `enough`."""
    name, config, split = [*source.removeprefix("hf:").split(":"), "", ""][:3]
    if not name or source.count(":") > 3:
        raise ValueError(f"malformed calibration source {source!r}: expected hf:DATASET[:CONFIG][:SPLIT]")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(f"{source} needs the datasets package: pip install 'gramian[datasets]'") from error
    ids: list[int] = []
    try:
        rows = load_dataset(name, config or None, split=split or "train", streaming=True)
        with bar(enough, f"reading {name}", "token") as shown:
            for row in rows:
                if "text" not in row:
                    raise ValueError(f"its columns are {sorted(row)}, expected one named 'text'")
                fresh = ids_of(row["text"] + "\n\n", tokenizer)
                ids += fresh
                shown.update(len(fresh))
                if len(ids) >= enough:
                    break
    except Exception as error:  # a dataset's reader and the network raise anything, and the user gets one line
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(f"dataset {source} cannot be read: {textwrap.shorten(str(error), 300)}") from error
    return ids


def check_ids(windows: torch.Tensor, vocabulary: int | None, source: str) -> None:
    """Raise ValueError for a token id that the model does not know."""
    lowest, highest = int(windows.min()), int(windows.max())
    if lowest < 0:
        raise ValueError(f"{source} holds the negative token {lowest}")
    if vocabulary is not None and highest >= vocabulary:
        raise ValueError(
            f"{source} holds token {highest}, the model's vocabulary has {vocabulary} tokens, 0 to {vocabulary - 1}"
        )
