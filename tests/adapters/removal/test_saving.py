"""Pruned models saved and loaded again: by stock classes where those can build them, biases of compensation included."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from rounding import rounding_of
from structured_models import GATED, exact, generated, in_blocks, kept_columns, logits, pruned, rows_of, same_model, seen
from structured_models import TOKENS as CALIBRATION
from tiny import FAMILIES, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM

from gramian.adapters import load, save
from gramian.adapters.models.own_classes import CODE
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import operator
from gramian.adapters.models.widths import unstated_widths


@pytest.mark.parametrize("model_type", FAMILIES)
def test_saved_models_load_and_generate(model_type, tmp_path):
    model, report = pruned(tiny_model(model_type))
    out = save(model, tiny_tokenizer(), tmp_path / "model", report=report.to_dict())
    loaded, tokenizer = load(out)
    assert tokenizer is not None and same_model(loaded, model) and logits(loaded).equal(logits(model))
    assert generated(loaded).equal(generated(model))
    record = json.loads((out / "gramian.json").read_text())
    assert record["parameters"][1] == sum(each.numel() for each in {*loaded.parameters()})
    wide = AutoModelForCausalLM.from_pretrained(save(model, None, tmp_path / "wide", pad=True))
    torch.testing.assert_close(logits(wide), logits(model), rtol=0, atol=rounding_of(model, logits))
    assert generated(wide).equal(generated(model))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_equal_widths_load_with_stock_classes(model_type, tmp_path):
    model = tiny_model(model_type)
    layers = model.config.num_hidden_layers
    channel = 3 * 32 if model_type in GATED else 2 * 32 + 1
    ratio = layers * 8 * channel / in_blocks(model)
    model, _ = pruned(model, method="magnitude-l1", include=r"down_proj|fc2|mlp\.c_proj", ratio=ratio, compensate=True)
    assert {unit_group.units for unit_group in unit_groups_of(model).values() if unit_group.size == 1} == {40}
    out = save(model, None, tmp_path / "model")
    assert not (out / CODE).exists()
    assert logits(AutoModelForCausalLM.from_pretrained(out)).equal(logits(model))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_bias_of_flap_is_the_mean_of_what_was_removed(model_type):
    dense = exact(model_type)
    model, report = pruned(copy.deepcopy(dense), method="flap", ratio=0.4)
    wide = seen(dense, CALIBRATION)
    touched = [row for row in report.modules if row.units[1] < row.units[0]]
    for row in report.modules:
        x, y = wide[row.name]
        kept, weight = kept_columns(dense, model, row.name), rows_of(dense, row.name)
        assert np.array_equal(rows_of(model, row.name), weight[:, kept])
        before, after = (operator(each, row.name).bias for each in (dense, model))
        if row not in touched:
            assert (before is None) == (after is None) and (before is None or before.equal(after))
            continue
        gone = np.setdiff1d(np.arange(x.shape[1]), kept)
        change = after.numpy() - (0.0 if before is None else before.numpy())
        np.testing.assert_allclose(change, weight[:, gone] @ x[:, gone].mean(axis=0), rtol=1e-9, atol=1e-12)
        error = ((x[:, kept] @ weight[:, kept].T + change - y) ** 2).sum() / (y**2).sum()
        assert row.relative_error == pytest.approx(error, rel=1e-8) and error < row.masked_error
    assert touched


def test_a_bias_on_pruned_inputs_cancels_the_mean_error():
    dense = exact("llama")
    model, report = pruned(copy.deepcopy(dense), method="flap", calibrate_on="pruned", ratio=0.4)
    wide, narrow = seen(dense, CALIBRATION), seen(model, CALIBRATION)
    for row in report.modules:
        bias = operator(model, row.name).bias
        error = narrow[row.name][1] + (0.0 if bias is None else bias.numpy()) - wide[row.name][1]
        if bias is not None:
            assert np.abs(error.mean(axis=0)).max() < 1e-10
        assert row.relative_error == pytest.approx((error**2).sum() / (wide[row.name][1] ** 2).sum(), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_biases_survive_saving_and_loading(model_type, tmp_path):
    model, report = pruned(tiny_model(model_type), method="flap", ratio=0.35)
    added = {row.name for row in report.modules if row.units[1] < row.units[0]} if model_type in GATED else set()
    assert {name for name, width in unstated_widths(model).items() if width.bias} == added
    out = save(model, None, tmp_path / "model")
    loaded, _ = load(out)
    assert same_model(loaded, model) and logits(loaded).equal(logits(model))
    assert generated(loaded).equal(generated(model))
    again = save(loaded, None, tmp_path / "again")
    for name in ("model.safetensors", "config.json", CODE):
        assert (out / name).read_bytes() == (again / name).read_bytes(), name
    if added:
        with pytest.raises(ValueError, match=r"has a bias, which \w*ForCausalLM cannot have"):
            save(model, None, tmp_path / "wide", pad=True)
        assert not (tmp_path / "wide").exists()
    else:
        wide = AutoModelForCausalLM.from_pretrained(save(model, None, tmp_path / "wide", pad=True))
        torch.testing.assert_close(logits(wide), logits(model), rtol=0, atol=rounding_of(model, logits))


def test_equal_widths_with_biases_are_refused_by_stock_classes(tmp_path):
    """They would load the model without its biases, and say so in a log at most."""
    model = tiny_model("llama")
    ratio = 2 * (8 * 96 - 32) / in_blocks(model)  # eight channels of each block, for which it gets a bias
    model, _ = pruned(model, method="flap", include="down_proj", ratio=ratio, allocation="equal")
    assert {unit_group.units for unit_group in unit_groups_of(model).values() if unit_group.size == 1} == {40}
    out = save(model, None, tmp_path / "model")
    assert model.config.intermediate_size == 48 and logits(load(out)[0]).equal(logits(model))
    with pytest.raises(ValueError, match="pass the argument `trust_remote_code=True`"):
        AutoModelForCausalLM.from_pretrained(out, trust_remote_code=False)


def test_a_bias_that_is_stated_but_not_there(tmp_path):
    model, _ = pruned(tiny_model("llama"))
    out = save(model, None, tmp_path / "model")
    document = json.loads((out / "config.json").read_text())
    described = document["uneven_units"][0]
    described["biases"] = [True, False]
    (out / "config.json").write_text(json.dumps(document))
    name = f"model.layers.0.{described['consumer']}"
    with pytest.raises(ValueError, match=f"weights are missing: {name}.bias"):
        load(out)
