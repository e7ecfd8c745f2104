"""What a model does with its context, tried without any data set: whether it copies, and whether it finds a fact again.

    copying   random tokens, and the same again: how often the next token of the second time is the likeliest
    needle    a fact is put at a depth into other text, and asked for at its end: how often it wins against other answers

Both are drawn with a seed, for windows of several lengths. Lengths that do not fit in the context are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.measure.next_tokens import NextTokens, likelihoods

__all__ = ["COPIED", "DEPTHS", "FILLED", "Needles", "copies", "copying", "finding", "needles"]

COPIED = (8, 32, 128)  # tokens that are copied
FILLED = (64, 128, 256)  # tokens of the text that holds a fact
DEPTHS = (0.1, 0.5, 0.9)  # where in the text it is
# Answers among which one is true. Their first letters differ, so that some token of theirs does, whatever the tokeniser.
WORDS = ("apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "hammer")
FACT, QUESTION = " The secret word is{}. ", " The secret word is"


def copies(vocabulary: Sequence[int], begin: int | None, length: int, items: int, seed: int) -> torch.Tensor:
    """Random tokens r of a vocabulary, twice: windows (items, 2 length), or with a begin token before them."""
    generator = torch.Generator().manual_seed(seed)
    known = torch.tensor(vocabulary)
    drawn = known[torch.randint(len(known), (items, length), generator=generator)]
    start = [torch.full((items, 1), begin)] if begin is not None else []
    return torch.cat([*start, drawn, drawn], dim=1)


@torch.no_grad()
def copying(model: PreTrainedModel, rows: torch.Tensor, length: int) -> tuple[np.ndarray, np.ndarray]:
    """How well a model in evaluation mode predicts r_2, ..., r_length the second time that they come.

    Returned are, for every window (items,), the share of those tokens that it finds likeliest, and their mean log p."""
    predictor = NextTokens.of(model, rows[:1, :8])
    predicted = torch.zeros(rows.shape, dtype=torch.bool)
    predicted[:, rows.shape[1] - length + 1 :] = True
    logs, hits = likelihoods(predictor, rows, predicted)
    means = [each.double().view(len(rows), -1).mean(dim=1).numpy() for each in (hits, logs)]
    return means[0], means[1]


@dataclass(frozen=True)
class Needles:
    """rows: windows (items, length) that end with the token asked for. answers: one token for each of WORDS, (words,).
    true: the number of the answer that each window holds, (items,)."""

    rows: torch.Tensor
    answers: torch.Tensor
    true: torch.Tensor


def needles(
    tokenizer: PreTrainedTokenizerBase, begin: int | None, filler: torch.Tensor, length: int, items: int, seed: int
) -> Needles | None:
    """Put a fact into `length` tokens of other text at every one of DEPTHS, `items` times each; None where the tokeniser gives
    two answers the same first token that tells answers apart.

    filler: tokens of text (some,), of which there are at least `length`."""
    spelt = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in WORDS]
    shared = 0
    while all(len(each) > shared + 1 and each[shared] == spelt[0][shared] for each in spelt):
        shared += 1
    answers = [each[shared] for each in spelt]
    if len(set(answers)) < len(answers):
        return None
    question: list[int] = tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    generator = np.random.default_rng(seed)
    rows: list[list[int]] = []
    true: list[int] = []
    for depth in DEPTHS:
        for _ in range(items):
            which, start = int(generator.integers(len(WORDS))), int(generator.integers(len(filler) - length + 1))
            text = filler[start : start + length].tolist()
            fact: list[int] = tokenizer(FACT.format(f" {WORDS[which]}"), add_special_tokens=False)["input_ids"]
            cut = round(depth * length)
            rows.append([*text[:cut], *fact, *text[cut:], *question, *spelt[which][:shared], answers[which]])
            true.append(which)
    longest = max(map(len, rows))
    start_tokens = [] if begin is None else [begin]
    # Words of several tokens make rows of several lengths: the shorter begin with more of the text.
    whole = [[*start_tokens, *filler[: longest - len(row)].tolist(), *row] for row in rows]
    return Needles(torch.tensor(whole), torch.tensor(answers), torch.tensor(true))


@torch.no_grad()
def finding(model: PreTrainedModel, probe: Needles, batch: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Whether a model in evaluation mode finds the true answer likelier than every other, (items,), and its log p, (items,)."""
    predictor = NextTokens.of(model, probe.rows[:1, :8])
    won: list[torch.Tensor] = []
    logs: list[torch.Tensor] = []
    for rows, true in zip(probe.rows.split(batch), probe.true.split(batch)):
        predicted = torch.zeros(rows.shape, dtype=torch.bool)
        predicted[:, -1] = True
        logits = torch.cat(list(predictor.logits(rows, predicted))).cpu()
        found = logits.log_softmax(dim=1)[:, probe.answers]
        logs.append(found.gather(1, true[:, None]).squeeze(1))
        won.append(found.argmax(dim=1) == true)
    return torch.cat(won).double().numpy(), torch.cat(logs).double().numpy()
