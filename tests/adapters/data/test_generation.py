"""Text sampled from the model: the model's own distribution, seeded, kept to be used again; and the picture of heads."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from stacked_models import STACKED, stacked_model
from tiny import BEGIN, FAMILIES, VOCABULARY, tiny_model, tiny_tokenizer

from gramian.adapters import calibration, draw_heads
from gramian.adapters.data import generation
from gramian.adapters.data.generation import sampled_tokens
from gramian.adapters.data.sources import token_file


def sampled(model, tokenizer=None, **changed):
    return sampled_tokens(model, tokenizer, **{"samples": 3, "length": 9, "seed": 5, "progress": False} | changed)


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_token_is_drawn_from_what_the_model_says_of_the_text_before(model_type, begins, monkeypatch):
    """Replayed without a cache, with the same random numbers."""
    monkeypatch.setattr(generation, "WINDOWS_PER_BATCH", 2)
    model = tiny_model(model_type)
    if not begins:
        model.config.bos_token_id = None
    windows = sampled(model).windows
    assert windows.shape == (3, 10 if begins else 9) and windows.dtype == torch.int64
    generator = torch.Generator().manual_seed(5)
    for rows in windows.split(2):
        first = torch.randint(VOCABULARY, (len(rows), 1), generator=generator)
        assert rows[:, :1].equal(torch.full_like(first, BEGIN) if begins else first)
        for place in range(1, rows.shape[1]):
            with torch.no_grad():
                logits = model(input_ids=rows[:, :place], use_cache=False).logits[:, -1]
            levels = torch.rand((len(rows), 1), generator=generator, dtype=torch.float64)
            assert rows[:, place].equal((logits.double().softmax(-1).cumsum(-1) <= levels).sum(-1))


def test_the_seed_decides(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    one, again, other = sampled(model, tokenizer), sampled(model, tokenizer), sampled(model, tokenizer, seed=6)
    assert one.windows.equal(again.windows) and not one.windows.equal(other.windows)
    assert one.source == "self" and one.seed == 5 and bool((one.windows[:, 0] == BEGIN).all())
    same = calibration("self", tokenizer, samples=3, length=9, seed=5, model=model)
    assert same.windows.equal(one.windows) and same.digest == one.digest
    (tmp_path / "tokens.safetensors").write_bytes(token_file(one.windows))
    read = calibration(str(tmp_path / "tokens.safetensors"), None, samples=3, length=1, seed=0)
    assert read.windows.equal(one.windows)


def test_frequencies_are_the_probabilities():
    model = tiny_model("gpt2")
    count = 1500
    windows = sampled(model, samples=count, length=1).windows
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[BEGIN]])).logits[0, -1].double().softmax(-1).numpy()
    found = np.bincount(windows[:, 1], minlength=VOCABULARY) / count
    assert np.all(np.abs(found - expected) <= 6 * np.sqrt(expected * (1 - expected) / count) + 1 / count)


def test_bad_samples():
    model = tiny_model("opt")
    with pytest.raises(ValueError, match="windows of 129 tokens, a begin token included, do not fit in the model's context"):
        sampled(model, length=128)
    with pytest.raises(ValueError, match="'self' needs the model"):
        calibration("self", None, samples=1, length=4, seed=0)
    model.config.bos_token_id = VOCABULARY
    with pytest.raises(ValueError, match=f"the begin token {VOCABULARY} is outside the model's vocabulary of {VOCABULARY}"):
        sampled(model)
    model.config.bos_token_id = BEGIN
    for name in STACKED:
        with pytest.raises(ValueError, match="does not continue text"):
            sampled(stacked_model(name))
    with torch.no_grad():
        model.lm_head.weight.mul_(float("inf"))
    with pytest.raises(ValueError, match="logits hold NaN or Inf"):
        sampled(model)


def test_the_picture_shows_every_head_and_every_pair_that_is_similar(tmp_path):
    distances = np.full((5, 5), 0.5)
    np.fill_diagonal(distances, 0)
    for one, other, apart in ((0, 3, 0.1), (3, 4, 0.19), (1, 2, 0.2)):
        distances[one, other] = distances[other, one] = apart
    drawing = ElementTree.parse(draw_heads(distances, tmp_path / "heads.svg", tau=0.2)).getroot()
    shapes = {kind: list(drawing.iter(f"{{http://www.w3.org/2000/svg}}{kind}")) for kind in ("circle", "line", "text")}
    centres = {text.text: (text.get("x"), text.get("y")) for text in shapes["text"]}
    assert sorted(centres) == list("01234") and len(set(centres.values())) == 5
    ends = {frozenset([(line.get("x1"), line.get("y1")), (line.get("x2"), line.get("y2"))]) for line in shapes["line"]}
    assert ends == {frozenset([centres["0"], centres["3"]]), frozenset([centres["3"], centres["4"]])}
    colours = {text.text: circle.get("fill") for text, circle in zip(shapes["text"], shapes["circle"])}
    assert colours["0"] == colours["3"] == colours["4"] != colours["1"] == colours["2"]


@pytest.mark.parametrize("begins", [True, False])
def test_windows_that_begin_as_those_of_a_text(begins, monkeypatch):
    """Replayed without a cache: prompts are parts of the windows, evenly apart, and what follows is the model's."""
    monkeypatch.setattr(generation, "WINDOWS_PER_BATCH", 4)
    model, windows = tiny_model("llama"), torch.arange(36).reshape(3, 12) % VOCABULARY
    if begins:
        windows[:, 0] = BEGIN
    found = generation.going_on(model, windows, 7, 4, seed=5, progress=False)
    assert found.shape == (7, 12)
    starts = [1, 3, 5] if begins else [0, 2, 5]
    for number, row in enumerate(found):
        start = starts[number // 3]
        assert row[begins : 4 + begins].equal(windows[number % 3, start : start + 4])
        assert not begins or row[0] == BEGIN
    generator = torch.Generator().manual_seed(5)
    for rows in found.split(4):
        for place in range(4 + begins, 12):
            with torch.no_grad():
                logits = model(input_ids=rows[:, :place], use_cache=False).logits[:, -1]
            levels = torch.rand((len(rows), 1), generator=generator, dtype=torch.float64)
            assert rows[:, place].equal((logits.double().softmax(-1).cumsum(-1) <= levels).sum(-1))
