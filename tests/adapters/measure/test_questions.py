"""Questions from files: what is read, what is refused, and choices ranked as plain code and lm-eval rank them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from source_tree import ROOT
from tiny import tiny_model, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from gramian.adapters.data.question_files import Question, read_questions
from gramian.adapters.measure.questions import answered, continuation_likelihoods, continuations_of, split_tokens

EXAMPLE = ROOT / "benchmarks" / "examples" / "questions.jsonl"


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Characters, of which `a b`, `t h` and the like merge where they meet, so that a boundary can be inside a token; a begin
    token before every text."""
    letters = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.:?\n,"
    merges = [("a", "b"), ("t", "h"), ("th", "e"), (" ", "c"), ("o", "l"), ("e", " ")]
    words = ["<s>", "<unk>", *letters, *("".join(pair) for pair in merges)]
    bpe = models.BPE(vocab={word: place for place, word in enumerate(words)}, merges=merges, unk_token="<unk>")
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\x00", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


PAIRS = [
    ("The opposite of hot is", " cold"),
    ("Which one?\nAnswer:", " the cat, or a dog"),
    ("a", "b"),  # one token together
    ("ends with a blank ", "cold"),
    ("the", " c"),
    ("", "the whole"),
    ("two blanks  ", " three"),
]
TOKENIZERS = {"bytes": tiny_tokenizer, "merges": merging_tokenizer}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_likelihoods_are_those_of_lm_eval_and_of_plain_code(name):
    from lm_eval.models.huggingface import HFLM

    tokenizer, model = TOKENIZERS[name](), tiny_model("llama")
    pairs = [pair for pair in PAIRS if name == "bytes" or pair != ("a", "b")]  # of which lm-eval has no token left
    continuations = [split_tokens(tokenizer, *pair) for pair in pairs]
    ours = continuation_likelihoods(model, continuations, batch=3, progress=False)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2)
    theirs = [each[0] for each in harness.loglikelihood([SimpleNamespace(args=pair) for pair in pairs], disable_tqdm=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    for (context, continuation), found in zip(pairs, ours):
        whole = tokenizer(context + continuation)["input_ids"]
        before = len(tokenizer(context.rstrip())["input_ids"])
        if not context and name == "bytes":
            whole, before = [tokenizer.bos_token_id, *whole], 1
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(dim=-1)
        expected = sum(float(logs[place - 1, whole[place]]) for place in range(max(before, 1), len(whole)))
        assert found == pytest.approx(expected, rel=1e-4)


def test_a_continuation_without_tokens_is_refused():
    with pytest.raises(ValueError, match="there are no tokens of 'b' after its context"):
        split_tokens(merging_tokenizer(), "a", "b")
    with pytest.raises(ValueError, match="neither"):
        tokenizer = tiny_tokenizer()
        tokenizer.bos_token = tokenizer.eos_token = None
        split_tokens(tokenizer, "", "x")


def test_the_example_is_read():
    questions = read_questions(EXAMPLE)
    assert len(questions) == 8 and questions[0].context == "Question: Which of these is a metal?\nAnswer:"
    assert questions[2] == Question(3, "The opposite of hot is", ("cold", "round", "early", "loud"), 0)
    assert questions[2].continuation("cold") == " cold"
    assert (
        Question(1, "x ", ("a", "b"), 0).continuation("a") == "a"
        and Question(1, "x", (" a", "b"), 0).continuation(" a") == " a"
    )


GOOD = {"context": "x", "choices": ["a", "b"], "answer": 0, "id": 7}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"no JSON \("),
        ("[1]", "a JSON list"),
        (json.dumps({"choices": ["a", "b"], "answer": 0}), "neither question nor context"),
        (json.dumps(GOOD | {"question": "y"}), "both question and context"),
        (json.dumps(GOOD | {"context": 3}), "context is 3, expected a text"),
        (json.dumps(GOOD | {"choices": ["a"]}), "choices have to be a list of two texts or more"),
        (json.dumps(GOOD | {"choices": ["a", " "]}), "choices .*, none of them empty"),
        (json.dumps(GOOD | {"choices": ["a", "a"]}), "two choices are the same"),
        (json.dumps(GOOD | {"answer": 2}), "answer is 2, expected the number of one of 2 choices"),
        (json.dumps(GOOD | {"answer": True}), "answer is True"),
        (json.dumps(GOOD | {"answer": "a"}), "answer is 'a'"),
    ],
)
def test_a_bad_line_is_named(line, message, tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n\n{line}\n{json.dumps(GOOD)}\n")
    with pytest.raises(ValueError, match=rf"questions\.jsonl, line 3: {message}"):
        read_questions(file)


def test_files_that_hold_none(tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")
    with pytest.raises(ValueError, match="holds no questions"):
        read_questions(empty)
    with pytest.raises(FileNotFoundError, match="no file of questions"):
        read_questions(tmp_path / "missing.jsonl")
    empty.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="not UTF-8 text"):
        read_questions(empty)


def test_what_does_not_fit_in_the_context_is_named():
    question = Question(4, "x" * 130, ("a", "b"), 0)
    with pytest.raises(ValueError, match="file, line 4: 132 tokens, but the model's context has 128"):
        continuations_of(tiny_model("llama"), tiny_tokenizer(), [question], "file")


def test_ranks_with_and_without_lengths():
    questions = [Question(1, "x", ("aa", "bbbb"), 1), Question(2, "x", ("a", "b", "cc"), 0)]
    plain, normalised = answered(questions, np.array([-3.0, -4.0, -2.0, -2.0, -5.0]))
    assert plain.tolist() == [0.0, 1.0] and normalised.tolist() == [1.0, 1.0]
