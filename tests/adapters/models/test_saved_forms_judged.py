"""A task of lm-eval on all three forms of saved models: its answers are those of plain code on the model that was saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from shrunk_models import uneven, uniform
from tiny_models import tiny_model, tiny_tokenizer

from gramian.adapters import save
from gramian.adapters.models.shrink import shrink_model

QUESTIONS = [
    {"query": "1 + 1 =", "choices": [" 2", " 11", " none"], "gold": 0},
    {"query": "The sky is", "choices": [" green", " blue"], "gold": 1},
    {"query": "A B C", "choices": [" D", " Z", " 7", " ?"], "gold": 0},
    {"query": "left or", "choices": [" right", " left again"], "gold": 0},
]
TASK = """
task: of_our_own
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}"
doc_to_target: gold
doc_to_choice: choices
target_delimiter: ""
metric_list:
  - metric: acc
"""


def shrunk(choose):
    model = tiny_model("llama")
    shrink_model(model, choose(model))
    return model


def likelihoods(model) -> list[list[float]]:
    """log p(choice | question), each of them from a forward of its own."""
    tokenizer, found = tiny_tokenizer(), []
    for question in QUESTIONS:
        first = tokenizer(question["query"])["input_ids"]
        row = []
        for choice in question["choices"]:
            second = tokenizer(choice)["input_ids"]
            with torch.no_grad():
                logs = model(input_ids=torch.tensor([first + second])).logits[0].double().log_softmax(-1)
            row.append(sum(float(logs[len(first) - 1 + place, token]) for place, token in enumerate(second)))
        found.append(row)
    return found


@pytest.mark.filterwarnings("ignore")  # of lm-eval and of what it imports
@pytest.mark.parametrize("form", ["stock", "padded", "uneven"])
def test_lm_eval_runs_a_task_on_every_form(form, tmp_path, monkeypatch):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    model = shrunk(uniform if form == "stock" else uneven)
    save(model, tiny_tokenizer(), tmp_path / "model", pad=form == "padded")
    (tmp_path / "tasks").mkdir()
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
    Path(tmp_path, "tasks", "of_our_own.yaml").write_text(TASK.format(data=data))
    judged = HFLM(
        pretrained=str(tmp_path / "model"), device="cpu", dtype="float32", batch_size=2, trust_remote_code=form == "uneven"
    )
    done = simple_evaluate(
        judged, tasks=["of_our_own"], task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        bootstrap_iters=0, log_samples=True,
    )  # fmt: skip
    expected = likelihoods(model)
    samples = sorted(done["samples"]["of_our_own"], key=lambda each: each["doc_id"])
    given = [[float(value) for value, _ in each["filtered_resps"]] for each in samples]
    assert [len(row) for row in given] == [3, 2, 4, 2]
    for row, own in zip(given, expected):
        assert row == pytest.approx(own, abs=1e-3)
    right = [max(range(len(row)), key=row.__getitem__) == each["gold"] for row, each in zip(expected, QUESTIONS)]
    assert done["results"]["of_our_own"]["acc,none"] == sum(right) / len(right)
