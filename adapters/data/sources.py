"""Token windows that calibrate or judge a model.

A text t becomes the token ids of the whole text, without special tokens, cut into consecutive windows

    w_i = (begin, t[i L], ..., t[(i + 1) L - 1]),   i = 0, 1, ...,

the tail dropped and the tokeniser's begin token (if it has one) put before every window, so that each window looks to
the model like the start of a document.
"""

import textwrap
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.data.generation import sampled_tokens
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.files import write_bytes

SOURCES = "builtin, FILE.txt, FILE.safetensors, self (sampled from the model) or hf:DATASET[:CONFIG][:SPLIT]"


def builtin_text(part: Literal["calibration", "heldout"] = "calibration") -> str:
    """English text that ships with Python: the language reference in `pydoc_data.topics`, topics in sorted order.

    Every fourth topic is held out, the others are for calibration. Topics quote each other, so every paragraph is used
    once, and held-out paragraphs never calibrate. The text differs between Python versions.
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
    """All consecutive windows of `length` tokens: int64 (n, length + 1), or (n, length) without a begin token.

    ValueError if the text is empty or shorter than one window.
    """
    return _windows(_ids(text, tokenizer), tokenizer, length)


def file_windows(path: Path, tokenizer: PreTrainedTokenizerBase | None, length: int) -> torch.Tensor:
    """`text_windows` of a UTF-8 file; a ValueError names it."""
    if tokenizer is None:
        raise ValueError(f"the model has no tokenizer, so {path} cannot be read")
    try:
        return text_windows(path.read_text(encoding="utf-8"), tokenizer, length)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_source(source: str) -> None:
    """Raise FileNotFoundError if a calibration source is neither a name nor a file."""
    if source not in ("builtin", "self") and not source.startswith("hf:") and not Path(source).expanduser().is_file():
        raise FileNotFoundError(f"no calibration text {source!r}: expected {SOURCES}")


def calibration(
    source: str,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    samples: int,
    length: int,
    seed: int,
    vocabulary: int | None = None,
    model: PreTrainedModel | None = None,
) -> Tokens:
    """`samples` windows of `length` tokens from a named source.

    - `builtin`: `builtin_text()`.
    - `self`: sampled from `model`, which no other source needs, with `seed` (`sampled_tokens`).
    - `FILE.txt` (any file that is not safetensors): UTF-8 text.
    - `FILE.safetensors`: one integer tensor `tokens` of shape (n, length), used as it is: neither `length` nor the
      tokeniser matters, which may be None.
    - `hf:DATASET[:CONFIG][:SPLIT]`: the `text` column of a hub dataset (split `train` unless named; leave CONFIG empty
      to name only a split), read from its beginning until there are enough tokens.

    Of more windows than `samples`, `seed` picks which, without replacement, kept in text order; of fewer, ValueError.
    Token ids outside [0, vocabulary) raise ValueError.
    """
    if samples < 1 or length < 1:
        raise ValueError(f"samples is {samples} and length is {length}, both must be at least 1")
    if source == "self":
        if model is None:
            raise ValueError("the source 'self' needs the model that the text is sampled from: give model=")
        return sampled_tokens(model, tokenizer, samples=samples, length=length, seed=seed)
    windows = _read(source, tokenizer, samples, length)
    _check_ids(windows, vocabulary, source)
    if len(windows) < samples:
        raise ValueError(
            f"{source} holds {len(windows)} windows of {windows.shape[1]} tokens, fewer than the {samples} asked for: "
            "lower --samples or --length, or give more text"
        )
    if len(windows) == samples:
        return Tokens(windows, source)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    return Tokens(windows[order[:samples].sort().values], source, seed)


def write_tokens(path: Path, windows: torch.Tensor) -> None:
    """A file that `calibration` reads, complete or not at all."""
    write_bytes(path, save({"tokens": windows.contiguous()}))


def _read(source: str, tokenizer: PreTrainedTokenizerBase | None, samples: int, length: int) -> torch.Tensor:
    check_source(source)
    path = Path(source).expanduser()
    if path.suffix == ".safetensors":
        return _token_file(path)
    if tokenizer is None:
        raise ValueError(
            f"the model has no tokenizer, so the text of {source} cannot be used: give the tokens themselves as "
            "FILE.safetensors, an integer tensor `tokens` of shape (n, length)"
        )
    if source.startswith("hf:"):
        return _windows(_dataset_ids(source, tokenizer, samples * length), tokenizer, length)
    if source == "builtin":
        return text_windows(builtin_text(), tokenizer, length)
    return file_windows(path, tokenizer, length)


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    # verbose=False: the text is longer than the model's context on purpose, no need to warn about it
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _windows(ids: list[int], tokenizer: PreTrainedTokenizerBase, length: int) -> torch.Tensor:
    if length < 1:
        raise ValueError(f"length is {length}, must be at least 1")
    count = len(ids) // length
    if count == 0:
        what = "the text is empty" if not ids else f"the text has {len(ids)} tokens"
        raise ValueError(f"{what}, one window needs {length}: give more text or lower --length")
    windows = torch.tensor(ids[: count * length], dtype=torch.int64).view(count, length)
    if tokenizer.bos_token_id is None:
        return windows
    return torch.cat([windows.new_full((count, 1), tokenizer.bos_token_id), windows], dim=1)


def _token_file(path: Path) -> torch.Tensor:
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


def _dataset_ids(source: str, tokenizer: PreTrainedTokenizerBase, enough: int) -> list[int]:
    """Ids of a dataset's `text` column, rows a blank line apart, read as a stream until there are `enough`."""
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
        with tqdm(total=enough, desc=f"reading {name}", unit="token", leave=False) as bar:
            for row in rows:
                if "text" not in row:
                    raise ValueError(f"its columns are {sorted(row)}, expected one named 'text'")
                fresh = _ids(row["text"] + "\n\n", tokenizer)
                ids += fresh
                bar.update(len(fresh))
                if len(ids) >= enough:
                    break
    except Exception as error:  # whatever a dataset's reader or the network raises, the user sees one line
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(f"dataset {source} cannot be read: {textwrap.shorten(str(error), 300)}") from error
    return ids


def _check_ids(windows: torch.Tensor, vocabulary: int | None, source: str) -> None:
    lowest, highest = int(windows.min()), int(windows.max())
    if lowest < 0:
        raise ValueError(f"{source} holds the negative token {lowest}")
    if vocabulary is not None and highest >= vocabulary:
        raise ValueError(
            f"{source} holds token {highest}, the model's vocabulary has {vocabulary} tokens, 0 to {vocabulary - 1}"
        )
