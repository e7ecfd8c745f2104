"""A program: in a process that cannot import gramian, models that it saved are loaded, run, trained, saved and loaded again.

Its arguments are directories of models, each with `expected.safetensors` beside it: token windows, and what the model answers.
Trainer's checkpoint of each is left in `FOLDER-trained`, with its answer in `FOLDER-trained.safetensors`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any


class Absent(MetaPathFinder):
    """Finds nothing of gramian, wherever it may be installed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        if name.partition(".")[0] == "gramian":
            raise ImportError("gramian is absent here")


sys.meta_path.insert(0, Absent())

import torch  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import (  # noqa: E402
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Trainer,
    TrainingArguments,
)


def answer(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits, or hidden states of a model without a head."""
    with torch.no_grad():
        found = model(input_ids=ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}))
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


def loader_of(folder: Path) -> Any:
    """The auto class of a directory."""
    document = json.loads((folder / "config.json").read_text())
    (own,) = document["architectures"]
    if document["auto_map"]["AutoModel"].endswith(f".{own}"):
        return AutoModel
    return AutoModelForSeq2SeqLM if own.endswith("ForConditionalGeneration") else AutoModelForCausalLM


def check_refused(factory: Any, folder: Path) -> None:
    """Without trust, the library says that it needs it, and of which directory."""
    for trust in (False, None):
        try:
            factory.from_pretrained(folder, trust_remote_code=trust)
        except ValueError as error:
            assert "Please pass the argument `trust_remote_code=True`" in str(error) and str(folder) in str(error), error
        else:
            raise AssertionError(f"{folder} loads without trust")


def check_generated(model: Any, ids: torch.Tensor) -> None:
    """With a cache and without one the same tokens follow, from the same scores."""
    done = [
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, min_new_tokens=8, do_sample=False, use_cache=use_cache,
            output_logits=True, return_dict_in_generate=True,
        )
        for use_cache in (True, False)
    ]  # fmt: skip
    assert done[0].sequences.equal(done[1].sequences)
    torch.testing.assert_close(done[0].logits, done[1].logits, rtol=1e-4, atol=1e-4)


def check_saved(model: Any, folder: Path) -> None:
    """The code is there as it was, and no file lets stock classes read what they cannot build."""
    code = Path(str(folder).removesuffix("-trained").removesuffix("-again"), "modeling_gramian.py")
    assert (folder / "modeling_gramian.py").read_bytes() == code.read_bytes()
    document = json.loads((folder / "config.json").read_text())
    assert "allow_global" not in json.dumps(document) and document["architectures"] == [type(model).__name__]


def check_likelihood(folder: Path, model: Any) -> None:
    """lm-eval's model gives the sum of log probabilities."""
    judged: Any = HFLM(pretrained=str(folder), trust_remote_code=True, device="cpu", dtype="float32", batch_size=1)
    assert type(judged.model).__name__ == type(model).__name__ and judged.backend == "causal"
    ((given, _),) = judged.loglikelihood([Instance("loglikelihood", {}, ("12 34", " 56 78"), 0)], disable_tqdm=True)
    first, second = judged._encode_pair("12 34", " 56 78")
    scores = answer(model, torch.tensor([first + second])).log_softmax(-1)[0]
    expected = sum(float(scores[len(first) + place - 1, token]) for place, token in enumerate(second))
    assert abs(given - expected) < 1e-3 * abs(expected), (given, expected)


def check(folder: Path) -> None:
    """Everything, of one directory."""
    held, factory = load_file(folder.with_name(f"{folder.name}-expected.safetensors")), loader_of(folder)
    ids, expected = held["ids"], held["answer"]
    check_refused(factory, folder)
    model = factory.from_pretrained(folder, trust_remote_code=True).eval()
    assert answer(model, ids).equal(expected)
    trunk = AutoModel.from_pretrained(folder, trust_remote_code=True)
    shapes = {name: tuple(each.shape) for name, each in model.base_model.named_parameters()}
    assert shapes == {name: tuple(each.shape) for name, each in trunk.base_model.named_parameters()}
    again = folder.with_name(f"{folder.name}-again")
    model.save_pretrained(again)
    check_saved(model, again)
    assert answer(factory.from_pretrained(again, trust_remote_code=True).eval(), ids).equal(expected)
    if factory is AutoModel:
        return
    check_generated(model, ids)
    if factory is AutoModelForCausalLM:
        check_likelihood(folder, model)
    trained = folder.with_name(f"{folder.name}-trained")
    settings = TrainingArguments(
        str(trained), max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True, disable_tqdm=True,
        learning_rate=0.1, save_strategy="steps", save_steps=1,
    )  # fmt: skip
    Trainer(model, settings, train_dataset=[{"input_ids": row, "labels": row} for row in ids]).train()
    changed = answer(model.eval(), ids)
    assert not changed.equal(expected)
    (trained / "checkpoint-1").rename(checkpoint := folder.with_name(f"{folder.name}-checkpoint"))
    loaded = factory.from_pretrained(checkpoint, trust_remote_code=True).eval()
    assert answer(loaded, ids).equal(changed)
    save_file({"ids": ids, "answer": changed}, folder.with_name(f"{folder.name}-checkpoint-expected.safetensors"))


if __name__ == "__main__":
    for each in sys.argv[1:]:
        check(Path(each))
    assert not any(name.partition(".")[0] == "gramian" for name in sys.modules)
