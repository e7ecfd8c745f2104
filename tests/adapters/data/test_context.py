"""The length of windows that nobody chose: 512 tokens, or what the model's context holds beside a begin token."""

from __future__ import annotations

import pytest
from stacked_models import stacked_model
from tiny import LENGTH, tiny_model, tiny_tokenizer

from gramian.adapters.data.context import context_of, usual_length
from gramian.adapters.data.sources import calibration
from gramian.adapters.data.texts import read_texts
from gramian.adapters.data.tokens import check_windows

TOKENIZER = tiny_tokenizer()


def without_begin():
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = None
    return tokenizer


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt"])
def test_a_begin_token_takes_a_place_of_the_context(model_type):
    model = tiny_model(model_type)
    assert context_of(model) == 128
    assert usual_length(model, TOKENIZER) == 127 and usual_length(model, without_begin()) == 128
    assert usual_length(model, None) == 127  # the begin token is then that of the configuration
    model.config.bos_token_id = None
    assert usual_length(model, None) == 128
    assert [usual_length(model, TOKENIZER, most=most) for most in (1, 126, 128, 1024)] == [1, 126, 127, 127]


def test_a_longer_context_or_none_leaves_the_usual_length():
    model = tiny_model("llama")
    for context, length in ((512, 511), (513, 512), (4096, 512)):
        model.config.max_position_embeddings = context
        assert usual_length(model, TOKENIZER) == length
    assert context_of(stacked_model("t5")) is None and usual_length(stacked_model("t5"), TOKENIZER) == 512
    assert usual_length(None, TOKENIZER) == 512 and usual_length(None, None, most=LENGTH) == LENGTH


def test_calibration_draws_windows_of_the_usual_length():
    model = tiny_model("llama")
    drawn = calibration("builtin", TOKENIZER, samples=2, model=model)
    assert drawn.windows.shape == (2, 128)  # with the begin token
    check_windows(model, drawn.windows)
    assert calibration("builtin", TOKENIZER, samples=2).windows.shape == (2, 513)
    assert calibration("builtin", TOKENIZER, samples=2, length=9, model=model).windows.shape == (2, 10)


def test_a_run_reads_windows_of_the_usual_length(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog " * 20)
    read = read_texts(tiny_model("llama"), TOKENIZER, "builtin", samples=2, length=None, seed=0, heldout=3, evaluate=text)
    shapes = [each.shape for each in (read.calibration.windows, read.heldout, read.evaluated)]
    assert shapes == [(2, 128), (3, 128), (880 // 127, 128)]
