"""What a saved model can do where there is no gramian: a script that is run in its own process, given a folder and answers.

    python benchmarks/common/without_gramian.py FOLDER ANSWERS.safetensors WORK

ANSWERS holds `tokens`, and the `logits` that the model gave for them when it was saved. WORK is an empty directory. One line of
JSON says for every try that it `works`, or the reason why not; stock classes are tried before code beside the model is trusted.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments


def loaded(folder: Path) -> tuple[Any, str]:
    """The model, and by what it loads: `stock` classes, or `remote code`. What it raises last is raised where by neither."""
    try:
        found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
        return found.eval(), "stock"
    except Exception:
        found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=True)
        return found.eval(), "remote code"


@torch.no_grad()
def apart(model: Any, answers: dict[str, torch.Tensor]) -> float:
    """How far logits are from those that were saved, relative to the largest."""
    return float((model(input_ids=answers["tokens"]).logits - answers["logits"]).abs().max() / answers["logits"].abs().max())


@torch.no_grad()
def cache_agrees(model: Any, tokens: torch.Tensor) -> bool:
    """Whether greedy continuations are the same with a cache and without."""
    how = {"attention_mask": torch.ones_like(tokens), "max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    return bool(torch.equal(*(model.generate(tokens, use_cache=cache, **how) for cache in (True, False))))


def trained(model: Any, tokens: torch.Tensor, work: Path) -> Path:
    """Take one step of Trainer, which saves a checkpoint; return its folder."""
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=1,
        save_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model=model, args=arguments, train_dataset=[{"input_ids": row, "labels": row} for row in tokens]).train()
    model.eval()
    return work / "checkpoint-1"


def evaluated(model: Any, folder: Path) -> float:
    """The log-likelihood that the harness's HFLM gives a continuation."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    judge = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu", batch_size=1)
    requests = [Instance("loglikelihood", {}, ("The quick brown fox", " jumps"), 0)]
    return float(judge.loglikelihood(requests, disable_tqdm=True)[0][0])


def tried(work: Callable[[], Any]) -> Any:
    """What comes of a try, or one line that says why nothing does."""
    try:
        return work()
    except Exception as error:  # whatever it is, it is the result
        return {"reason": f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"}


def main(folder: Path, answers: dict[str, torch.Tensor], work: Path) -> dict[str, Any]:
    """Everything that is tried, in turn."""
    model, way = loaded(folder)
    tokens, found = answers["tokens"], {"loads": way, "apart": tried(lambda: apart(model, answers))}
    found["cache"] = tried(lambda: cache_agrees(model, tokens[:, :12]))
    found["harness"] = tried(lambda: evaluated(model, folder))

    def saved_again() -> float:
        model.save_pretrained(work / "again")
        return apart(loaded(work / "again")[0], answers)

    def checkpoint() -> float:
        place = trained(model, tokens, work / "trainer")
        with torch.no_grad():
            now = {"tokens": tokens, "logits": model(input_ids=tokens).logits}
        return apart(loaded(place)[0], now)

    found["saved again"] = tried(saved_again)
    found["trainer"] = tried(checkpoint)
    return found


if __name__ == "__main__":
    sys.modules["gramian"] = None  # type: ignore[assignment]  # whatever imports it fails
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    place, given, empty = map(Path, sys.argv[1:])
    print(json.dumps(tried(lambda: main(place, load_file(given), empty))))
