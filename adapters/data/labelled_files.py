"""Files of texts with labels: JSON Lines, one object in a line, in one of two forms throughout.

    {"text": "...", "label": 1}                          a text and its class, by number, or by name as the model's
    {"text": "...", "text_pair": "...", "label": 0.5}    configuration has it; or a number, where the model predicts one
    {"source": "...", "target": "..."}                   a text and the text that answers it

A line holds nothing else. Texts are tokenised as the model's tokeniser does it for its own tasks, special tokens included, and
cut to a length. A causal model reads source and target as one text, and is to predict the target.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.data.labelled import Labelled, padded
from gramian.adapters.models.examples import IGNORED
from gramian.adapters.models.tasks import classifies, kind_of
from gramian.adapters.models.tokenizer_trials import trial

__all__ = ["read_examples"]

FORMS = ({"text", "label"}, {"text", "text_pair", "label"}, {"source", "target"})
EXPECTED = '{"text": ..., "label": ...}, with "text_pair" or without, or {"source": ..., "target": ...}'
LINE = 2**20  # characters: a longer one is no text with a label


def read_examples(
    path: Path, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None, length: int, most: int
) -> Labelled:
    """Read the first `most` texts of a file, of at most `length` tokens each, with their labels.

    ValueError, naming file and line: what is no object of one of the forms, another form than in the first line, a label that
    the model does not know, a form that is not what the model answers, an empty file.
    """
    texts: list[dict[str, Any]] = []
    first: set[str] = set()
    with trial(tokenizer, f"the tokenizer {tokenizer.name_or_path}".rstrip()) as attempt:
        for where, record in records_of(path):
            first = first or set(record)
            if set(record) != first:
                raise ValueError(f"{where} has the keys {', '.join(record)}, and the first line {', '.join(sorted(first))}")
            check_form(record, model, where)
            for name, text in record.items():
                if name != "label":
                    attempt(text)
            texts.append(tokens_of(record, tokenizer, model, length, where))
            if len(texts) == most:
                break
    if not texts:
        raise ValueError(f"{path} is empty, expected a line for each text, {EXPECTED}")
    return padded(texts, str(path))


def records_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file, each with the name of its line; lines without text are passed over."""
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            while line := file.readline(LINE):
                number += 1
                where = f"{path}, line {number}"
                if len(line) == LINE and not line.endswith("\n"):
                    raise ValueError(f"{where} has more than {LINE:,} characters, expected one text with its label")
                if line.strip():
                    yield where, record_of(line, where)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text after line {number}") from error


def record_of(line: str, where: str) -> dict[str, Any]:
    """One object, of one of the forms."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is no JSON: {error}") from error
    if not isinstance(record, dict) or set(record) not in FORMS:
        found = f"the keys {', '.join(record)}" if isinstance(record, dict) else f"a {type(record).__name__}"
        raise ValueError(
            f"{where} has {found}, expected {EXPECTED}; plain text goes in a file by another name, such as FILE.txt"
        )
    for name, value in record.items():
        if name == "label" and (isinstance(value, bool) or not isinstance(value, int | float | str)):
            raise ValueError(f"{where}: label is {value!r}, expected a class by number or name, or a number")
        if name != "label" and (not isinstance(value, str) or not value):
            raise ValueError(f"{where}: {name} is {str(value)[:40]!r}, expected text")
    return record


def check_form(record: Mapping[str, Any], model: PreTrainedModel | None, where: str) -> None:
    """Raise ValueError where a model answers with something else."""
    if model is None:
        return
    name = type(model).__name__
    if classifies(model) and "label" not in record:
        raise ValueError(f'{where} has source and target, but {name} predicts a label: expected {{"text": ..., "label": ...}}')
    if kind_of(model.config) == "seq2seq" and not classifies(model) and "label" in record:
        raise ValueError(f'{where} has a label, but {name} answers with text: expected {{"source": ..., "target": ...}}')


def tokens_of(
    record: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel | None,
    length: int,
    where: str,
) -> dict[str, Any]:
    """One text as ids, mask, labels and types."""
    if "label" in record:
        read = tokenizer(record["text"], record.get("text_pair"), truncation=True, max_length=length, verbose=False)
        label = class_of(record["label"], model, where)
        return text_of(read["input_ids"], label, read.get("token_type_ids"))
    if model is not None and kind_of(model.config) == "causal":
        source = tokenizer(record["source"], verbose=False)["input_ids"]
        target = tokenizer(record["target"], add_special_tokens=False, verbose=False)["input_ids"]
        target += [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        if len(source) >= length:
            raise ValueError(f"{where}: source has {len(source)} tokens, which leaves none of {length} for the target")
        ids = [*source, *target][:length]
        return text_of(ids, [IGNORED] * len(source) + ids[len(source) :], None)
    source = tokenizer(record["source"], truncation=True, max_length=length, verbose=False)["input_ids"]
    target = tokenizer(text_target=record["target"], truncation=True, max_length=length, verbose=False)["input_ids"]
    return text_of(source, target, None)


def text_of(ids: list[int], labels: Any, types: list[int] | None) -> dict[str, Any]:
    """The form that `padded` takes."""
    return {"ids": ids, "mask": [1] * len(ids), "labels": labels, "types": types}


def class_of(label: Any, model: PreTrainedModel | None, where: str) -> int | float:
    """A class by its number, or the number that a model with one output predicts."""
    names = {} if model is None else getattr(model.config, "id2label", None) or {}
    known = {str(name): int(number) for number, name in names.items()}
    if isinstance(label, str):
        if label not in known:
            raise ValueError(f"{where}: the model knows no label {label!r}; it has {', '.join(known) or 'none by name'}")
        return known[label]
    count = 0 if model is None else int(getattr(model.config, "num_labels", 0) or 0)
    if count == 1:
        return float(label)
    if model is not None and classifies(model) and label not in range(count):
        raise ValueError(f"{where}: label is {label}, but {type(model).__name__} has the classes 0 to {count - 1}")
    return label if isinstance(label, int) else float(label)
