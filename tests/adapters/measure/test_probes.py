"""A model trained for seconds to copy beside one that is random, and facts in text."""

import numpy as np
import pytest
import torch
from tiny import BEGIN, VOCABULARY, tiny_model, tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from gramian.adapters.measure.probes import DEPTHS, WORDS, copies, copying, finding, needles

SYMBOLS, LENGTH = 8, 6
TEXT = torch.randint(32, 127, (600,), generator=torch.Generator().manual_seed(3))


def small(vocabulary: int, layers: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=32, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
            max_position_embeddings=64, rope_theta=100.0, bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip


def test_copies_are_random_and_seeded():
    rows = copies([5, 7, 9], 1, 4, 6, 0)
    assert rows.shape == (6, 9) and (rows[:, 0] == 1).all() and rows[:, 1:5].equal(rows[:, 5:])
    assert set(rows[:, 1:].flatten().tolist()) == {5, 7, 9}
    assert copies([5, 7, 9], 1, 4, 6, 0).equal(rows) and not copies([5, 7, 9], 1, 4, 6, 1).equal(rows)
    assert copies([5, 7, 9], None, 4, 6, 0).equal(rows[:, 1:])


def test_a_model_that_was_trained_to_copy_copies():
    model = small(SYMBOLS)
    steps = 150
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    for step in range(steps):
        rows = copies(range(SYMBOLS), None, LENGTH, 32, 1000 + step)
        logits = model(input_ids=rows, use_cache=False).logits[:, LENGTH:-1]
        torch.nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, LENGTH + 1 :]).backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    held = copies(range(SYMBOLS), None, LENGTH, 32, 0)
    share, logs = copying(model.eval(), held, LENGTH)
    assert share.shape == (32,) and share.mean() > 0.9 and logs.mean() > -0.5
    other, others = copying(small(SYMBOLS).eval(), held, LENGTH)
    assert other.mean() < 0.35 and others.mean() < -1.5


def test_copying_beside_whole_logits():
    model, rows = tiny_model("qwen3"), copies(range(100), BEGIN, 6, 3, 0)
    share, logs = copying(model, rows, 6)
    with torch.no_grad():
        found = model(input_ids=rows).logits.double().log_softmax(dim=-1)
    expected = np.array([[float(found[row, place - 1, rows[row, place]]) for place in range(8, 13)] for row in range(3)])
    np.testing.assert_allclose(logs, expected.mean(axis=1), rtol=1e-5)
    hits = [[int(found[row, place - 1].argmax()) == int(rows[row, place]) for place in range(8, 13)] for row in range(3)]
    np.testing.assert_allclose(share, np.mean(hits, axis=1))


def test_a_fact_stands_at_its_depth_and_is_asked_for_at_the_end():
    tokenizer = tiny_tokenizer()
    probe = needles(tokenizer, BEGIN, TEXT, 60, 2, 0)
    assert probe is not None and len(probe.rows) == 2 * len(DEPTHS) and probe.answers.unique().numel() == len(WORDS)
    for place, (row, true) in enumerate(zip(probe.rows, probe.true.tolist())):
        text = tokenizer.decode(row[1:])
        fact = f" The secret word is {WORDS[true]}. "
        assert row[0] == BEGIN and text.count(fact) == 1
        assert text.endswith(f" The secret word is {WORDS[true][0]}") and row[-1] == probe.answers[true]
        assert abs(text.index(fact) / 60 - DEPTHS[place // 2]) < 0.1
    again = needles(tokenizer, BEGIN, TEXT, 60, 2, 0)
    assert again is not None and again.rows.equal(probe.rows)


def test_ranks_are_those_of_whole_logits():
    tokenizer, model = tiny_tokenizer(), tiny_model("llama")
    probe = needles(tokenizer, BEGIN, TEXT, 40, 3, 0)
    won, logs = finding(model, probe, batch=2)
    with torch.no_grad():
        found = model(input_ids=probe.rows).logits[:, -2].double().log_softmax(dim=-1)
    for place, true in enumerate(probe.true.tolist()):
        ranked = [float(found[place, answer]) for answer in probe.answers]
        assert won[place] == (np.argmax(ranked) == true)
        assert logs[place] == pytest.approx(ranked[true], rel=1e-5)
    assert VOCABULARY > 256 and won.mean() < 0.7


def test_answers_that_no_token_tells_apart():
    """A tokeniser that knows one word only."""

    def tokenizer(text, add_special_tokens):
        return {"input_ids": [0] * len(text.split())}

    assert needles(tokenizer, None, TEXT, 20, 1, 0) is None
