"""Texts with labels: in every form that users have them in, and from files of JSON Lines."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_models import BEGIN, END, STACKS, VOCABULARY, stacked_model, tiny_model, tiny_tokenizer
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForSequenceClassification, BatchEncoding

from gramian.adapters import calibration, perplexity
from gramian.adapters.data.tokens import Tokens, samples_of, windows_of

TOKENIZER = tiny_tokenizer()
IDS, LABELS = [[5, 6, 7], [8, 9], [3, 4, 5]], [[1, 2], [3], [4, 5]]
MAPPINGS = [{"input_ids": ids, "labels": labels} for ids, labels in zip(IDS, LABELS)]
BATCH = {
    "input_ids": torch.tensor([[5, 6, 7, 99], [8, 9, 99, 99], [3, 4, 5, 99]]),
    "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]]),
    "labels": torch.tensor([[1, 2, -100], [3, -100, -100], [4, 5, -100]]),
}
FORMS = {
    "mappings": MAPPINGS,
    "mappings of tensors": [{name: torch.tensor(each) for name, each in one.items()} for one in MAPPINGS],
    "mappings of arrays": [{name: np.array(each) for name, each in one.items()} for one in MAPPINGS],
    "generator": (each for each in MAPPINGS),
    "batch": BATCH,
    "encoding": BatchEncoding(BATCH),
    "batches": [{name: each[:2] for name, each in BATCH.items()}, {name: each[2:] for name, each in BATCH.items()}],
    "batch of lists of tensors": {name: [torch.tensor(one[name]) for one in MAPPINGS] for name in ("input_ids", "labels")},
    "loader": DataLoader(MAPPINGS, batch_size=None),
}


def classifier(classes: int = 3, **names):
    config = AutoConfig.for_model("bert", **STACKS["bert"][1], vocab_size=VOCABULARY, num_labels=classes, **names)
    return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize("given", FORMS.values(), ids=FORMS)
def test_every_form_is_the_same_texts(given):
    taken = windows_of(given)
    assert taken.windows.tolist() == [[5, 6, 7], [8, 9, 0], [3, 4, 5]]
    assert taken.mask.tolist() == [[True] * 3, [True, True, False], [True] * 3]
    assert taken.labels.tolist() == [[1, 2], [3, -100], [4, 5]]
    assert [each.ids.tolist() for each in taken.by_length()] == [[[5, 6, 7], [3, 4, 5]], [[8, 9]]]
    assert [each.labels.tolist() for each in samples_of(taken)] == [[[1, 2]], [[3]], [[4, 5]]]
    assert "3 texts with labels, of at most 3 tokens" in repr(taken)


def test_labels_that_say_nothing_are_left_out():
    windows = torch.arange(12).view(3, 4)
    taken = windows_of([{"input_ids": each, "labels": each.clone()} for each in windows])
    assert taken.labels is None and taken.digest == Tokens(windows, "elsewhere").digest
    with pytest.raises(ValueError, match="texts with labels, expected windows of one length"):
        perplexity(tiny_model("llama"), MAPPINGS, progress=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([MAPPINGS[0], {"input_ids": [1, 2]}], "have labels in entry 0 and none in entry 1"),
        ([{**MAPPINGS[0], "attention_mask": [0, 1, 1]}], "of text 0 must be ones over its tokens"),
        ([{**MAPPINGS[0], "attention_mask": [0, 0, 0]}], "one at least"),
        ([{**MAPPINGS[0], "labels": [-100, -100]}], "the labels of text 0 are all -100, so nothing is predicted"),
        ([{**MAPPINGS[0], "labels": "good"}], "the labels of text 0 are 'good', expected token ids"),
        ([MAPPINGS[0], {**MAPPINGS[1], "labels": 3}], "mix texts that have one label with texts that have several"),
        ({**BATCH, "labels": torch.tensor([1, 2])}, "a batch of 3 texts with 2 labels"),
        ([{"labels": 1, "text": "a"}], "have labels but no input_ids; there are labels, text"),
    ],
)
def test_what_is_no_text_with_a_label_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        windows_of(given)


# -- files -------------------------------------------------------------------------------------------------------------


def written(tmp_path, *records) -> str:
    file = tmp_path / "texts.jsonl"
    file.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in records) + "\n", encoding="utf-8")
    return str(file)


def read(file: str, model, samples: int = 2, length: int = 16, **settings) -> Tokens:
    return calibration(file, TOKENIZER, samples=samples, length=length, model=model, **settings)


def test_classes_by_number_and_name(tmp_path):
    file = written(tmp_path, {"text": "ab", "label": 2}, "", {"text": "abcdefghijklmnopqrstuvwxyz", "label": "good"})
    found = read(file, classifier(id2label={0: "bad", 1: "good", 2: "other"}, label2id={"bad": 0, "good": 1, "other": 2}))
    assert found.labels.tolist() == [2, 1] and found.mask.sum(dim=1).tolist() == [2, 16]
    assert found.windows[0, :2].tolist() == TOKENIZER("ab")["input_ids"] and found.source == file
    numbers = read(written(tmp_path, {"text": "a", "label": 0.5}, {"text": "b", "label": 2}), classifier(classes=1))
    assert numbers.labels.tolist() == [0.5, 2.0] and numbers.labels.is_floating_point()


def test_texts_that_answer_texts(tmp_path):
    file = written(tmp_path, {"source": "abc", "target": "x"}, {"source": "d", "target": "yz"})
    pairs = read(file, stacked_model("t5"))
    ours = [TOKENIZER(text_target=text)["input_ids"] for text in ("x", "yz")]
    assert [[each for each in row if each != -100] for row in pairs.labels.tolist()] == ours
    joined = read(file, tiny_model("llama"))  # one text after the other, of which the second is predicted
    assert joined.windows[0, :5].tolist() == [*TOKENIZER("abc")["input_ids"], *TOKENIZER("x")["input_ids"], END]
    assert joined.labels[0].tolist()[:5] == [-100, -100, -100, *TOKENIZER("x")["input_ids"], END]
    assert BEGIN not in joined.windows[0].tolist() or TOKENIZER("a")["input_ids"][0] == BEGIN


def test_a_choice_among_more_is_made_by_the_seed(tmp_path):
    file = written(tmp_path, *({"text": chr(97 + place), "label": place % 3} for place in range(20)))
    one, two, again = (read(file, classifier(), samples=6, seed=seed) for seed in (1, 2, 1))
    assert len(one.windows) == 6 and one.digest == again.digest != two.digest and one.seed == 1
    with pytest.raises(ValueError, match="holds 20 texts, fewer than the 30 requested"):
        read(file, classifier(), samples=30)


@pytest.mark.parametrize(
    ("records", "model", "message"),
    [
        ([{"text": "a"}], classifier, r"line 1 has the keys text, expected .*; plain text goes in a file by another name"),
        (["[1]"], classifier, "line 1 has a list, expected"),
        (['{"text": "a"'], classifier, "line 1 is no JSON"),
        (
            [{"text": "a", "label": 0}, {"text": "a", "text_pair": "b", "label": 0}],
            classifier,
            "line 2 has the keys .* first line",
        ),
        ([{"text": 3, "label": 0}], classifier, "line 1: text is '3', expected text"),
        ([{"text": "a", "label": None}], classifier, "line 1: label is None, expected a class by number or name"),
        ([{"text": "a", "label": "none"}], classifier, "line 1: the model knows no label 'none'; it has LABEL_0, LABEL_1"),
        (
            [{"text": "a", "label": 3}],
            classifier,
            "line 1: label is 3, but BertForSequenceClassification has the classes 0 to 2",
        ),
        (
            [{"source": "a", "target": "b"}],
            classifier,
            "has source and target, but BertForSequenceClassification predicts a label",
        ),
        (
            [{"text": "a", "label": 0}],
            lambda: stacked_model("t5"),
            "has a label, but T5ForConditionalGeneration answers with text",
        ),
        ([{"source": "a" * 20, "target": "b"}], lambda: tiny_model("llama"), "which leaves none of 16 for the target"),
        ([""], classifier, "is empty, expected a line for each text"),
    ],
)
def test_what_is_no_file_of_such_texts_is_refused(records, model, message, tmp_path):
    with pytest.raises(ValueError, match=message) as found:
        read(written(tmp_path, *records), model())
    assert "texts.jsonl" in str(found.value) and "\n" not in str(found.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "texts.jsonl").write_bytes(b'{"text": "\xff", "label": 0}\n')
    with pytest.raises(ValueError, match="is not UTF-8 text after line 0"):
        read(str(tmp_path / "texts.jsonl"), classifier())
