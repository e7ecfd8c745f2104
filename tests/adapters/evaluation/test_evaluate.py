"""`gramian.evaluate` on tiny models of every kind and every saved form."""

import copy
import json
import logging
import math

import pytest
import torch
from source_tree import ROOT
from stacked_models import WINDOWS as PAIRS
from stacked_models import stacked_model
from structured_models import TOKENS as CALIBRATION
from structured_models import pruned
from tiny import VOCABULARY, some_windows, tiny_model, tiny_tokenizer

import gramian
from gramian.adapters.evaluation.figures import Evaluation
from gramian.adapters.measure.intervals import Interval
from gramian.adapters.models.own_classes import CODE

EXAMPLE = ROOT / "benchmarks" / "examples" / "questions.jsonl"
TEXT = torch.randint(32, 127, (8, 60), generator=torch.Generator().manual_seed(0))
POINT = {"value": 1.0, "low": 1.0, "high": 1.0}
ZERO = {"value": 0.0, "low": 0.0, "high": 0.0}


def judged(model, dense=None, tokenizer=None, **options) -> Evaluation:
    return gramian.evaluate(model, tokenizer, dense=dense, progress=False, **{"windows": TEXT} | options)


def plain(found: Evaluation) -> dict:
    """The result as JSON has it."""
    return json.loads(json.dumps(found.as_dict()))


def test_identical_models_differ_in_nothing():
    model = tiny_model("llama")
    found = judged(model, copy.deepcopy(model), tiny_tokenizer(), tasks=str(EXAMPLE))
    assert found["KL(dense || model), nats per token"].model.as_dict() == ZERO
    assert found["top-1 agreement with the dense model"].model.as_dict() == POINT
    assert found["continuations of 32 tokens that are the same"].model.as_dict() == POINT
    assert found["equal tokens before the first other one, of 32"].model.as_dict() == dict.fromkeys(POINT, 32.0)
    changes = {figure.name: figure for figure in found.figures if figure.change is not None}
    assert {"perplexity", "copied, of 8 tokens", "facts found in 64 tokens", "questions.jsonl: accuracy"} <= set(changes)
    for figure in changes.values():
        assert figure.change.as_dict() == (POINT if figure.change_is == "ratio" else ZERO) and figure.dense == figure.model
    assert len(plain(found)["figures"]) == len(found.figures) and found.settings["text"]["seen_in_calibration"] is False


def test_perplexity_is_that_of_the_other_command():
    model, dense = tiny_model("qwen3"), tiny_model("qwen3", seed=1)
    found = judged(model, dense)
    ours, theirs = (gramian.perplexity(each, TEXT, progress=False) for each in (model, dense))
    row = found["perplexity"]
    assert row.model.value == pytest.approx(ours.value, rel=1e-5) and row.dense.value == pytest.approx(theirs.value, rel=1e-5)
    assert row.change.value == pytest.approx(ours.value / theirs.value, rel=1e-5)
    assert row.model.low < row.model.value < row.model.high and row.items == 8
    part = ours.losses.view(8, 59)[:, 15:31].double().mean()
    assert found["perplexity, tokens 16 to 31 of the window"].model.value == pytest.approx(math.exp(part), rel=1e-5)
    assert found.left_out["facts in text"] == "there is no tokenizer"
    assert "copying of 128 tokens" in found.left_out and "left out" in str(found)
    assert "<table>" in found._repr_html_() and repr(found).startswith("Evaluation(")


def test_the_same_seed_gives_the_same_figures():
    model, dense = tiny_model("llama"), tiny_model("llama", seed=1)
    one, other, third = (judged(model, dense, tiny_tokenizer(), seed=seed) for seed in (0, 0, 5))
    assert one == other and one.figures != third.figures
    assert one["perplexity"].model.value == third["perplexity"].model.value


@pytest.mark.parametrize("form", ["stock", "padded", "uneven"])
def test_every_saved_form(form, tmp_path, caplog):
    dense = tiny_model("llama")
    model, report = pruned(copy.deepcopy(dense), ratio=0.3)
    if form == "stock":
        gramian.save(dense, tiny_tokenizer(), tmp_path / "model")
    else:
        gramian.save(model, tiny_tokenizer(), tmp_path / "model", pad=form == "padded", report=report)
        assert (tmp_path / "model" / CODE).exists() == (form == "uneven")
    loaded, tokenizer = gramian.load(tmp_path / "model")
    with caplog.at_level(logging.WARNING, logger="gramian"):
        found = judged(loaded, dense, tokenizer, windows=CALIBRATION)
    expected = judged(dense if form == "stock" else model, dense, tokenizer, windows=CALIBRATION)
    for theirs in expected.figures:
        assert found[theirs.name].model.value == pytest.approx(theirs.model.value, rel=1e-3, abs=1e-5)
    assert found.settings["text"]["seen_in_calibration"] == ("text that it has seen" in caplog.text) == (form != "stock")
    assert (found.settings["calibration"] is None) == (form == "stock")


def test_encoders_are_judged_by_their_embeddings():
    dense = stacked_model("bert")
    model = copy.deepcopy(dense)
    same = judged(model, dense, windows=PAIRS)
    assert [figure.name for figure in same.figures] == ["cosine of embeddings", "nearest neighbours that stay"]
    assert same.figures[1].model.as_dict() == POINT and same.figures[0].model.value == pytest.approx(1.0)
    with pytest.raises(ValueError, match="predicts no tokens, so it is judged beside the dense model"):
        judged(model, windows=PAIRS)
    with pytest.raises(ValueError, match="does not continue text, so it can do no such tasks"):
        judged(model, dense, tiny_tokenizer(), windows=PAIRS, tasks=str(EXAMPLE))


def test_sequence_to_sequence_models_predict_second_halves():
    dense = stacked_model("t5")
    found = judged(copy.deepcopy(dense), dense, windows=PAIRS)
    first, second = PAIRS[:, :10], PAIRS[:, 10:]
    with torch.no_grad():
        expected = dense(input_ids=first, labels=second.contiguous()).loss
    assert found["perplexity"].model.value == pytest.approx(float(expected.exp()), rel=1e-4)
    assert "continuations and probes" in found.left_out and {each.part for each in found.figures} == {"text", "positions"}


def test_refusals():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    with pytest.raises(ValueError, match=f"vocabulary has {VOCABULARY} tokens and the dense one's 300"):
        judged(model, tiny_model("llama", vocabulary=300))
    with pytest.raises(ValueError, match="of different kinds"):
        judged(model, stacked_model("t5"))
    with pytest.raises(ValueError, match="no tokenizer, so the built-in text cannot be used"):
        gramian.evaluate(model, None)
    with pytest.raises(ValueError, match="no tokenizer, so it can do no tasks"):
        judged(model, tasks=str(EXAMPLE))
    with pytest.raises(ValueError, match="does not go with other tasks"):
        judged(model, None, tokenizer, tasks=["arc_easy", str(EXAMPLE)])
    with pytest.raises(ValueError, match="limit is 0"):
        judged(model, None, tokenizer, limit=0)
    with pytest.raises(KeyError, match="there are perplexity"):
        judged(model, windows=some_windows(3, 0))["nonsense"]


def test_a_figure_without_an_interval_prints_alone():
    assert str(Interval(0.25, math.nan, math.nan)) == "0.25" and str(Interval(1.0, 0.5, 1.5)) == "1 [0.5, 1.5]"
