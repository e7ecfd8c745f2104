"""Load a model's tokeniser, or say what is missing for it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from gramian.adapters.models.places import Place
from gramian.adapters.models.tokenizer_trials import check_tokenizer

__all__ = ["load_tokenizer"]

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
PIECES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")  # what the library reads with two packages more
PACKAGES = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}


def load_tokenizer(place: Place, trust_remote_code: bool) -> PreTrainedTokenizerBase | None:
    """Load a model's tokeniser; None where the model has none."""
    if place.local and not place.gguf and not any((Path(place.name) / file).exists() for file in TOKENIZERS):
        return None
    file = {"gguf_file": place.gguf} if place.gguf else {}
    if place.local and not place.gguf:
        check_tokenizer(Path(place.name) / TOKENIZERS[0])
        need_sentencepiece(Path(place.name))
    try:
        return AutoTokenizer.from_pretrained(place.name, trust_remote_code=trust_remote_code, **file)
    except (OSError, ValueError):
        if place.local:
            raise
        return None


def need_sentencepiece(folder: Path) -> None:
    """Raise ImportError for a tokeniser whose only form needs a package that is not installed."""
    if (folder / TOKENIZERS[0]).is_file():
        return
    found = next((name for name in PIECES if in_protobuf(folder / name)), None)
    missing = [package for package, module in PACKAGES.items() if not installed(module)]
    if found and missing:
        raise ImportError(
            f"{folder / found} is a tokeniser of SentencePiece, and {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed: pip install {' '.join(missing)}"
        )


def in_protobuf(file: Path) -> bool:
    """Whether a file begins like a model of SentencePiece; those of tiktoken, which have the same name, are text."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(1) == b"\n"


def installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
