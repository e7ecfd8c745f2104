"""Choices of questions ranked by their log-likelihood after the context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.data.context import context_of
from gramian.adapters.data.question_files import Question
from gramian.adapters.measure.next_tokens import NextTokens, likelihoods
from gramian.adapters.models.tokenizer_trials import trial
from gramian.progress import bar

__all__ = ["Continuation", "answered", "continuation_likelihoods", "continuations_of", "split_tokens"]


@dataclass(frozen=True)
class Continuation:
    """ids: the tokens of a context and what follows it. first: the number of the first token of what follows, at least 1."""

    ids: tuple[int, ...]
    first: int


def split_tokens(tokenizer: PreTrainedTokenizerBase, context: str, continuation: str) -> Continuation:
    """Where the tokens of a context end and those of its continuation begin, as lm-eval has it.

    Both are tokenised as one text, blanks at the end of the context as a part of the continuation, and the context has as many
    of the tokens as it has alone. Special tokens that the tokeniser puts before a text are there; for a context without tokens
    the begin token is, or else the end token. ValueError where there is neither, and for a continuation without tokens.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    plain: list[int] = tokenizer(kept + continuation, add_special_tokens=False, verbose=False)["input_ids"]
    lead = leading_tokens(tokenizer)
    if not kept:
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if start is None:
            raise ValueError("a context without tokens needs a begin or an end token, and the tokenizer has neither")
        lead, before = [start], 0
    else:
        before = len(tokenizer(kept, add_special_tokens=False, verbose=False)["input_ids"])
    first = len(lead) + before
    if first >= len(lead) + len(plain) or first < 1:
        raise ValueError(f"there are no tokens of {continuation!r} after its context")
    return Continuation((*lead, *plain), first)


def leading_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that a tokeniser puts before a text."""
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a")["input_ids"]
    return next((whole[:place] for place in range(len(whole)) if whole[place : place + len(plain)] == plain), [])


def continuations_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question], source: str
) -> list[Continuation]:
    """Tokens of every choice of every question, in order. ValueError, with the line, where they do not fit in the context."""
    found: list[Continuation] = []
    most = context_of(model)
    with trial(tokenizer, f"the tokenizer {tokenizer.name_or_path}".rstrip()) as attempt:
        for question in questions:
            attempt("\n".join([question.context, *question.choices]))
            for choice in question.choices:
                try:
                    each = split_tokens(tokenizer, question.context, question.continuation(choice))
                except ValueError as error:
                    raise ValueError(f"{source}, line {question.line}: {error}") from error
                if most is not None and len(each.ids) > most:
                    raise ValueError(
                        f"{source}, line {question.line}: {len(each.ids)} tokens, but the model's context has {most}"
                    )
                found.append(each)
    return found


@torch.no_grad()
def continuation_likelihoods(
    model: PreTrainedModel, continuations: Sequence[Continuation], *, batch: int = 8, progress: bool = True
) -> np.ndarray:
    """sum of log p(w_t | w_0, ..., w_(t-1)) over the tokens of every continuation, (n,), by a causal model in evaluation mode.

    Texts of about the same length go together, with padding at their ends, which no token before it sees."""
    order = sorted(range(len(continuations)), key=lambda place: -len(continuations[place].ids))
    predictor = NextTokens.of(model, torch.tensor([continuations[order[0]].ids[:8]]))
    found = np.zeros(len(continuations))
    with bar(len(order), "choices", "choice", progress) as done:
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            some = [continuations[place] for place in places]
            rows = torch.zeros((len(some), len(some[0].ids)), dtype=torch.int64)
            predicted = torch.zeros(rows.shape, dtype=torch.bool)
            for row, mask, each in zip(rows, predicted, some):
                row[: len(each.ids)] = torch.tensor(each.ids)
                mask[each.first : len(each.ids)] = True
            logs, _ = likelihoods(predictor, rows, predicted)
            for place, part in zip(places, logs.double().split(predicted.sum(dim=1).tolist())):
                found[place] = float(part.sum())
            done.update(len(some))
    return found


def answered(questions: Sequence[Question], likelihood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the true choice of every question is the likeliest, and whether it is by log-likelihood over the number of its
    characters, each (questions,). Of equal choices the first counts."""
    plain: list[bool] = []
    normalised: list[bool] = []
    first = 0
    for question in questions:
        logs = likelihood[first : first + len(question.choices)]
        first += len(question.choices)
        lengths = np.array([len(choice) for choice in question.choices])
        plain.append(int(np.argmax(logs)) == question.answer)
        normalised.append(int(np.argmax(logs / lengths)) == question.answer)
    return np.array(plain, dtype=np.float64), np.array(normalised, dtype=np.float64)
