"""Tasks of lm-eval, from task files and data of our own: nothing of it is on a network."""

import copy
import json

import numpy as np
import pytest
import torch
from structured_models import pruned
from tiny import tiny_model, tiny_tokenizer

import gramian
from gramian.adapters.measure.named_tasks import check_tasks, task_figures

TASK = """
task: opposites
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
doc_to_text: "The opposite of {{{{word}}}} is"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
"""
DOCUMENTS = [
    {"word": "hot", "choices": ["cold", "round", "a large tree"], "answer": 0},
    {"word": "up", "choices": ["left", "down", "over the hill"], "answer": 1},
    {"word": "wet", "choices": ["blue", "a little", "dry"], "answer": 2},
    {"word": "old", "choices": ["new", "very old indeed", "grey"], "answer": 0},
    {"word": "near", "choices": ["here", "far"], "answer": 1},
]
WINDOWS = torch.randint(32, 127, (4, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "tasks").mkdir()
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f"{json.dumps(each)}\n" for each in DOCUMENTS))
    (tmp_path / "tasks" / "opposites.yaml").write_text(TASK.format(data=data))
    (tmp_path / "tasks" / "gone.yaml").write_text(TASK.format(data=tmp_path / "gone.jsonl").replace("opposites", "gone"))
    return tmp_path / "tasks"


@torch.no_grad()
def scores(model, tokenizer) -> tuple[list[bool], list[bool]]:
    """Whether every document is answered, by log-likelihood and by that over the number of characters."""
    plain, normalised = [], []
    for each in DOCUMENTS:
        context, logs = f"The opposite of {each['word']} is", []
        for choice in each["choices"]:
            ids = tokenizer(f"{context} {choice}")["input_ids"]
            found = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
            first = len(tokenizer(context)["input_ids"])
            logs.append(sum(float(found[place - 1, ids[place]]) for place in range(first, len(ids))))
        plain.append(int(np.argmax(logs)) == each["answer"])
        lengths = [len(choice) for choice in each["choices"]]
        normalised.append(int(np.argmax(np.array(logs) / lengths)) == each["answer"])
    return plain, normalised


def test_a_task_is_scored_by_lm_eval_with_pairs_of_documents(folder, capfd):
    tokenizer, model = tiny_tokenizer(), tiny_model("llama")
    dense = tiny_model("llama", seed=3)
    found = gramian.evaluate(
        model, tokenizer, dense=dense, windows=WINDOWS, tasks=["opposites"], task_folder=folder, progress=False
    )
    for place, metric in enumerate(("acc", "acc_norm")):
        row = found[f"opposites: {metric}"]
        ours, theirs = scores(model, tokenizer)[place], scores(dense, tokenizer)[place]
        assert row.items == len(DOCUMENTS) and row.part == "tasks"
        assert row.model.value == pytest.approx(np.mean(ours)) and row.dense.value == pytest.approx(np.mean(theirs))
        assert row.change.value == pytest.approx(np.mean(ours) - np.mean(theirs))
        assert row.change.low <= row.change.value <= row.change.high
    assert capfd.readouterr() == ("", "")  # lm-eval is silent
    few = gramian.evaluate(
        copy.deepcopy(model), tokenizer, windows=WINDOWS, tasks="opposites", task_folder=folder, limit=2, progress=False
    )
    assert few["opposites: acc"].items == 2 and few["opposites: acc"].dense is None


@pytest.mark.parametrize("pad", [True, False])
def test_models_that_were_made_smaller_do_tasks(pad, folder, tmp_path):
    """Padded to widths that stock classes have, and with widths that differ."""
    narrow, report = pruned(tiny_model("llama"), ratio=0.3)
    model, tokenizer = gramian.load(gramian.save(narrow, tiny_tokenizer(), tmp_path / "model", pad=pad, report=report))
    found = task_figures(model, tokenizer, "opposites", check_tasks(["opposites"], folder))
    expected = scores(narrow, tokenizer)
    assert {row.metric: row.value for row in found} == pytest.approx(
        {"acc": np.mean(expected[0]), "acc_norm": np.mean(expected[1])}
    )


def test_a_task_without_its_data_is_named_in_one_sentence(folder, no_network):
    with pytest.raises(ValueError, match=r"the task 'gone' cannot be evaluated: .*gone\.jsonl") as caught:
        check_tasks(["opposites", "gone"], folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no folder of tasks"):
        check_tasks(["opposites"], folder / "missing")


def test_tasks_of_lm_eval_itself(folder, monkeypatch):
    """One that it has, whose data is on the hub, and one that it does not have."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="the task 'arc_easy' cannot be evaluated: ") as caught:
        check_tasks(["arc_easy"])
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"no task 'arc_eazy' \(did you mean 'arc_easy'\?\): lm-eval has \d+ tasks"):
        check_tasks(["arc_eazy"])
