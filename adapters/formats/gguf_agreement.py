"""Whether a GGUF file computes what the model computes, run by llama.cpp.

Prompts of several lengths are continued greedily by llama.cpp. Given the same tokens before it, every token t of a continuation
has to be the one that the model finds likeliest, max_v log p(v) - log p(t) <= e, and its log-probability the model's,
|log q(t) - log p(t)| <= e: e = 0.02 for weights in float32, and 0.2 where they are in half precision, to which llama.cpp rounds
what it multiplies them by.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.data.context import begin_token, context_of
from gramian.adapters.data.sources import builtin_text
from gramian.adapters.data.windows import token_ids
from gramian.adapters.formats.gguf_conversion import reason, run_child

__all__ = ["Continuations", "check_gguf"]

LENGTHS = (2, 12, 48)
LONGEST = 1024  # tokens of a prompt that is made longer for the sake of a sliding window
NEW = 16  # tokens of a continuation
TEXT = "The quick brown fox jumps over the lazy dog, doesn't it? 12 345 times;\n\n  and again."


class Continuations(NamedTuple):
    """How many tokens were compared, how many of them are exactly the model's own, the others being ties within the tolerance;
    of how many the log-probability was compared too, and the largest difference, in nats; the prompts' lengths; the tolerance;
    and how many tokens a text has, with the begin token, for llama.cpp and for the model's tokeniser."""

    compared: int
    equal: int
    known: int
    difference: float
    prompts: tuple[int, ...]
    tolerance: float
    text_tokens: tuple[int, int]


def check_gguf(file: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, storage: torch.dtype) -> Continuations:
    """Continue prompts by the file and compare with the model. ValueError where they disagree, or where llama.cpp cannot run
    the file."""
    given, tolerance = prompts(model, tokenizer), 0.02 if storage == torch.float32 else 0.2
    request = {
        "file": str(file), "prompts": given, "text": TEXT, "tokens": NEW, "threads": torch.get_num_threads(),
        "context": max(max(map(len, given)) + NEW, 256),
    }  # fmt: skip
    code, output, errors = run_child("gguf_runtime_child.py", [], json.dumps(request))
    if code or not output:
        raise ValueError(f"llama.cpp cannot run what its converter wrote: {reason(errors, code)}")
    answer: dict[str, Any] = json.loads(output)
    compared = equal = known = 0
    largest = 0.0
    for prompt, continuation in zip(given, answer["continuations"]):
        for place, (behind, difference) in enumerate(compare(model, prompt, continuation)):
            largest = max(largest, difference)
            if not max(behind, difference) <= tolerance:
                raise ValueError(
                    f"the GGUF file is another model: run by llama.cpp it continues a prompt of {len(prompt)} tokens, at token "
                    f"{place + 1}, with one that is {behind:.3f} nats behind the model's own and {difference:.3f} nats off in "
                    f"its log-probability, where {tolerance} is rounding"
                )
            compared, equal, known = compared + 1, equal + (behind == 0), known + (continuation[place][1] is not None)
    if not compared:
        raise ValueError("llama.cpp continues no prompt by any token, so that the GGUF file cannot be checked")
    own = len(token_ids([TEXT], tokenizer)) + (begin_token(model, tokenizer) is not None)
    return Continuations(compared, equal, known, largest, tuple(map(len, given)), tolerance, (answer["text_tokens"], own))


@torch.no_grad()
def compare(
    model: PreTrainedModel, prompt: list[int], continuation: list[tuple[int, float | None]]
) -> list[tuple[float, float]]:
    """For every token of a continuation, given all before it: how far it is behind the likeliest, and by how much its
    log-probability differs, 0 where that is not known, in nats."""
    ids = torch.tensor([[*prompt, *(token for token, _ in continuation)]], device=model.device)
    answer: Any = model(input_ids=ids, use_cache=False)
    logs = answer.logits[0, len(prompt) - 1 :].double().log_softmax(dim=-1)
    found = []
    for row, (token, given) in zip(logs, continuation):
        own = float(row[token])
        found.append((float(row.max()) - own, 0.0 if given is None else abs(own - given)))
    return found


def prompts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Beginnings of text that ships with Python, held out, of several lengths, one of them longer than a sliding window."""
    context = context_of(model) or LONGEST
    sliding = getattr(model.config.get_text_config(), "sliding_window", None) or 0
    wanted = [*LENGTHS, *([sliding + 8] if 0 < sliding < LONGEST else [])]
    lengths = sorted({max(1, min(each, context - NEW)) for each in wanted})
    ids = token_ids([builtin_text("heldout")[: 40 * sum(lengths)]], tokenizer)
    begin = begin_token(model, tokenizer)
    found, place = [], 0
    for length in lengths:
        start = [] if begin is None else [begin]
        found.append([*start, *ids[place : place + length - len(start)]] or ids[:1])
        place += length
    return found
