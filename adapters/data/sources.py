"""Calibration windows from a named source of text, or of tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.data.context import usual_length
from gramian.adapters.data.generation import sampled_tokens
from gramian.adapters.data.hub_texts import read_dataset
from gramian.adapters.data.labelled_files import read_examples
from gramian.adapters.data.source_names import check_source, has_labels
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.data.windows import cut, file_windows, text_windows

__all__ = ["builtin_text", "calibration", "token_file"]

POOL = 2**20  # tokens of a file among which windows are picked, which a second or two of reading gives


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

    Where more windows than `samples` are read, `seed` picks among them, without replacement; they are kept in text order.

    Parameters
    ----------
    source : str
        One of

        - `builtin`: English text that ships with Python (`builtin_text`);
        - `self`: text sampled from `model`, which no other source needs, with `seed`;
        - `FILE.jsonl`: texts with labels, an object in a line, {"text": ..., "label": ...} for classifiers (with "text_pair",
          if there is one; the label by number or name), {"source": ..., "target": ...} for models that answer with text, read
          from its beginning until there are 16 times as many as are needed;
        - `FILE.txt`, any other file: UTF-8 text, read from its beginning until there are 2^20 tokens, or 16
          times those that are needed;
        - `FILE.safetensors`: one integer tensor `tokens` of shape (n, length), which is used as it is;
        - `hf:DATASET[:CONFIG][:SPLIT]`: the `text` column of a hub dataset, read from its beginning until there are enough
          tokens. The split is `train` unless another is named; an empty CONFIG names a split only.
    tokenizer : PreTrainedTokenizerBase or None
        The model's tokeniser, as `load` returns it; None will do for a safetensors file and for `self`.
    samples : int
        How many windows to draw.
    length : int, optional
        Tokens in a window, without the begin token that a tokeniser may put before it: by default 512, or as many as fit in
        the context of `model` with the begin token, where that is fewer. A safetensors file has its own. Of texts with labels
        it is the most, special tokens included, and longer ones are cut.
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
        The windows, int64 (samples, length), or (samples, length + 1) with a begin token, and where they came from; texts with
        labels, padded, with their mask.

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
    if has_labels(source):
        return labelled_texts(source, tokenizer, model, samples, length, seed)
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


def labelled_texts(
    source: str,
    tokenizer: PreTrainedTokenizerBase | None,
    model: PreTrainedModel | None,
    samples: int,
    length: int,
    seed: int,
) -> Tokens:
    """Draw `samples` texts with labels from a file, as `calibration` draws windows."""
    check_source(source)
    if tokenizer is None:
        raise ValueError(
            f"the model has no tokenizer, so the texts of {source} cannot be used: give mappings with input_ids and labels"
        )
    found = read_examples(Path(source).expanduser(), tokenizer, model, length, 16 * samples)
    whole = Tokens(found.windows, source, None, found.mask, found.labels, found.types)
    if len(whole.windows) < samples:
        raise ValueError(f"{source} holds {len(whole.windows)} texts, fewer than the {samples} requested: ask for fewer")
    if len(whole.windows) == samples:
        return whole
    order = torch.randperm(len(whole.windows), generator=torch.Generator().manual_seed(seed))
    return replace(whole.part(order[:samples].sort().values), seed=seed)


def token_file(windows: torch.Tensor) -> bytes:
    """What a file holds from which `calibration` reads these windows."""
    return save({"tokens": windows.contiguous()})


def read_windows(source: str, tokenizer: PreTrainedTokenizerBase | None, samples: int, length: int) -> torch.Tensor:
    """Read the windows of a source: all of them, or at least `samples` of a dataset, and of a file many times as many."""
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
    return file_windows(path, tokenizer, length, enough=max(POOL, 16 * samples * length))


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


def check_ids(windows: torch.Tensor, vocabulary: int | None, source: str) -> None:
    """Raise ValueError for a token id that the model does not know."""
    lowest, highest = int(windows.min()), int(windows.max())
    if lowest < 0:
        raise ValueError(f"{source} holds the negative token {lowest}")
    if vocabulary is not None and highest >= vocabulary:
        raise ValueError(
            f"{source} holds token {highest}, the model's vocabulary has {vocabulary} tokens, 0 to {vocabulary - 1}"
        )
