"""Operators A S B in a model: what they compute, what is saved of them, what is counted, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expert_models import expert_model
from safetensors.numpy import load_file as read_arrays
from safetensors.torch import load_file, save_file
from tiny import WINDOWS, run, tensors, tiny_model, tiny_tokenizer
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

import gramian
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.estimates.runs import disk_space
from gramian.adapters.estimates.wrapped import factor_numbers
from gramian.adapters.formats import exporting
from gramian.adapters.formats.packed_checkpoint import export_packed
from gramian.adapters.models.modeling_gramian import WrappedLinear
from gramian.adapters.models.own_classes import is_stock
from gramian.adapters.models.saving import save
from gramian.adapters.models.wrapped_operators import wrapped_in
from gramian.adapters.passes.planned import plan_of
from gramian.adapters.pipeline import run as drive
from gramian.adapters.run.blocks import InMemory
from gramian.adapters.run.journal import Journal

pytestmark = pytest.mark.usefixtures("small_batches")
OWN: dict[str, Any] = {"target": "own", "target_blend": None, "damping": 0.01}
OPTIONS: dict[str, Any] = {"block": 10, "sweeps": 1, "warm_start": "sparsegpt"}  # 10 divides neither 32 nor 48
EPS = float(torch.finfo(torch.float32).eps)


def pruned(name: str = "llama", sparsity: Any = "2:4", **settings: Any):
    model = tiny_model(name)
    form = settings.pop("save", "wrapped")
    return model, run(model, method="armor", sparsity=sparsity, options={**OPTIONS, "save": form}, **OWN, **settings)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=WINDOWS).logits


def by_hand(blocks: torch.Tensor, length: int) -> np.ndarray:
    """A block-diagonal matrix, (length, length), in float64."""
    count, size, _ = blocks.shape
    whole = np.zeros((count * size, count * size))
    for number, block in enumerate(blocks.detach().double().numpy()):
        place = slice(number * size, (number + 1) * size)
        whole[place, place] = block
    return whole[:length, :length]


def factors_in(stored: dict[str, torch.Tensor], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, S and B of an operator in a file."""
    core = stored[f"{name}.core.weight"].double().numpy()
    return by_hand(stored[f"{name}.left"], core.shape[0]), core, by_hand(stored[f"{name}.right"], core.shape[1])


@pytest.mark.parametrize("sizes", [(7, 5, 3, 2), (8, 8, 4, 2), (1, 6, 1, 6), (5, 1, 5, 1), (6, 9, 1, 9)])
@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_a_wrapped_operator_computes_its_product(sizes, kind):
    """Each of p, b and a terms is rounded once or twice: |y - A S B x| <= 2 (b + p + a) eps |A| |S| |B| |x|, and a bias."""
    rows, width, left, right = sizes
    generator = torch.Generator().manual_seed(0)
    operator = kind(width, rows) if kind is nn.Linear else kind(rows, width)
    operator.bias = nn.Parameter(torch.randn(rows, generator=generator))
    inputs = torch.randn(3, 4, width, generator=generator)
    module = WrappedLinear(operator, left, right)
    torch.testing.assert_close(module(inputs), operator(inputs), rtol=width * EPS, atol=width * EPS)  # between identities
    with torch.no_grad():
        for parameter in (module.core.weight, module.left, module.right):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))  # past the ends too, where nothing counts
    parts = by_hand(module.left, rows), module.core.weight.detach().double().numpy(), by_hand(module.right, width)
    outer, core, inner = parts
    product, x, bias = outer @ core @ inner, inputs.double().numpy(), operator.bias.detach().double().numpy()
    assert np.abs(module.product().numpy() - product).max() <= 1e-12 * np.abs(product).max()
    assert module.weight.shape == (rows, width) and (module.in_features, module.out_features) == (width, rows)
    size = np.abs(x) @ (np.abs(outer) @ np.abs(core) @ np.abs(inner)).T + np.abs(bias)
    found = module(inputs).detach().double().numpy()
    assert (np.abs(found - (x @ product.T + bias)) <= 2 * (left + width + right + 1) * EPS * size).all()
    assert module(inputs[:, :0]).shape == (3, 0, rows)


@pytest.mark.parametrize("name", ["llama", "opt", "gemma3_text", "gpt2"])
def test_saved_loaded_and_saved_again(name, tmp_path):
    """The file has the zeros of the pattern, the report its counts; what is loaded computes what the model in memory does, to
    the bit, and merged what its rounding allows."""
    model, report = pruned(name)
    expected, names = logits(model), [row.name for row in report.operators]
    out = save(model, tiny_tokenizer(), tmp_path / "out", report=report)
    stored, document = tensors(out), json.loads((out / "gramian.json").read_text())
    for row in document["operators"]:
        core = stored[f"{row['name']}.core.weight"]
        rows, width = core.shape
        zeros = int((core == 0).sum())
        assert ((core.reshape(rows, -1, 4) != 0).sum(-1) <= 2).all() and zeros == row["detail"]["core_zeros"]
        added = sum(side // 10 * 100 + (side % 10) ** 2 for side in (rows, width))
        assert row["detail"]["wrapper_parameters"] == added and row["sparsity"] == zeros / core.numel() >= 0.5
        assert row["detail"]["parameters"] == core.numel() - zeros + added
        assert f"{row['name']}.weight" not in stored
    again, tokenizer = gramian.load(out)
    assert logits(again).equal(expected) and tokenizer is not None
    for name in names:
        assert (again.get_submodule(name).core.weight == 0).equal(stored[f"{name}.core.weight"] == 0)
    other = save(again, tokenizer, tmp_path / "other")
    for file in ("model.safetensors", "config.json", "modeling_gramian.py"):
        assert (other / file).read_bytes() == (out / file).read_bytes()
    model.save_pretrained(tmp_path / "by itself")
    assert logits(gramian.load(tmp_path / "by itself")[0]).equal(expected)
    merged, _ = gramian.load(out, merged=True)
    assert is_stock(merged) and not hasattr(merged.config, "wrapped_operators")
    # to first order every operator moves its outputs by rounding, once in each form, and later layers pass that on
    cancelled = 0.0
    for name in names:
        outer, core, inner = factors_in(stored, name)
        product = outer @ core @ inner
        weight = merged.get_submodule(name).weight.detach().double().numpy()
        weight = weight.T if isinstance(merged.get_submodule(name), Conv1D) else weight
        assert np.abs(weight - product).max() <= EPS * np.abs(product).max()
        moved = np.linalg.norm(np.abs(outer) @ np.abs(core) @ np.abs(inner), 2) / np.linalg.norm(product, 2)
        cancelled += (2 * (10 + core.shape[1] + 10) + core.shape[1]) * EPS * moved
    assert (logits(merged) - expected).abs().max() <= cancelled * expected.abs().max()
    dense = save(merged, None, tmp_path / "dense")
    assert not (dense / "modeling_gramian.py").exists()
    assert logits(AutoModelForCausalLM.from_pretrained(dense)).equal(logits(merged))


def test_dense_by_default(tmp_path):
    """A S B as one matrix, of which the wrapped form is the same to its rounding."""
    model, report = pruned(save="dense")
    wrapped, other = pruned()
    out = save(model, None, tmp_path / "dense", report=report)
    assert not (out / "modeling_gramian.py").exists() and is_stock(model) and not is_stock(wrapped)
    assert isinstance(wrapped, type(model))  # of a class of its own, derived from it
    stored = tensors(save(wrapped, None, tmp_path / "wrapped"))
    name = report.operators[0].name  # whose inputs are alike in both
    outer, core, inner = factors_in(stored, name)
    size = np.abs(outer) @ np.abs(core) @ np.abs(inner)
    found = tensors(out)[f"{name}.weight"].double().numpy()
    assert (np.abs(found - outer @ core @ inner) <= 4 * EPS * size).all()  # three factors and the product are rounded
    rows = {each.name: each for each in other.operators}
    assert report.operators[0].sparsity == 0 and rows[name].sparsity == 0.5
    assert rows[name].relative_error == pytest.approx(report.operators[0].relative_error, rel=1e-3)


def test_in_half_precision_errors_are_those_of_what_is_run(tmp_path):
    """The factors are rounded and the product is not: it is what a loaded model computes with, and what the report judges."""
    model = tiny_model("llama").to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    source = save(model, None, tmp_path / "source")
    model, _ = gramian.load(source)
    dense, _ = gramian.load(source)
    seen: list[torch.Tensor] = []
    name = "model.layers.0.mlp.up_proj"
    handle = dense.get_submodule(name).register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    logits(dense)
    handle.remove()
    report = run(model, method="armor", sparsity="2:4", options={**OPTIONS, "save": "wrapped"}, include=name, **OWN)
    out = save(model, None, tmp_path / "out", report=report)
    stored = tensors(out)
    assert stored[f"{name}.core.weight"].dtype is stored[f"{name}.left"].dtype is torch.bfloat16
    outer, core, inner = factors_in(stored, name)
    inputs, weight = seen[0].double().flatten(0, 1).numpy(), dense.get_submodule(name).weight.detach().double().numpy()
    wanted = inputs @ weight.T
    error = np.square(inputs @ (outer @ core @ inner).T - wanted).sum() / np.square(wanted).sum()
    assert report.operators[0].relative_error == pytest.approx(error, rel=1e-6)
    assert logits(gramian.load(out)[0]).equal(logits(model))


def test_beside_layers_of_different_widths(tmp_path):
    """Units go first, and what remains is wrapped: both are stated, and merging leaves the widths."""
    model = tiny_model("llama")
    run(model, method="magnitude-l1", ratio=0.3, allocation="score")
    run(model, method="armor", sparsity=0.5, options={**OPTIONS, "save": "wrapped"}, include="gate_proj", **OWN)
    out = save(model, None, tmp_path / "out")
    config = json.loads((out / "config.json").read_text())
    assert config["uneven_units"] and config["wrapped_operators"][0]["operators"] == [
        f"layers.{number}.mlp.gate_proj" for number in range(2)
    ]
    assert logits(gramian.load(out)[0]).equal(logits(model))
    merged, _ = gramian.load(out, merged=True)
    config = json.loads((save(merged, None, tmp_path / "merged") / "config.json").read_text())
    assert config["uneven_units"] and "wrapped_operators" not in config
    assert logits(gramian.load(tmp_path / "merged")[0]).equal(logits(merged))
    assert (logits(merged) - logits(model)).abs().max() <= 1e3 * EPS * logits(model).abs().max()


def test_other_formats_take_the_product(tmp_path, monkeypatch):
    model, _ = pruned()
    expected = logits(model)

    class Seen(Exception):
        pass

    def see(stage, *_):
        found = logits(AutoModelForCausalLM.from_pretrained(stage))  # of a stock class
        assert (found - expected).abs().max() <= 1e3 * EPS * expected.abs().max()
        raise Seen

    monkeypatch.setattr(exporting, "convert", see)
    with pytest.raises(Seen):
        exporting.export_gguf(model, tiny_tokenizer(), tmp_path / "out.gguf", False, False)
    assert logits(model).equal(expected) and not is_stock(model)  # as it was
    pytest.importorskip("compressed_tensors")
    with pytest.raises(ValueError, match="no Linear of the model has weights on a grid"):
        export_packed(model, None, tmp_path / "packed", 4, 32)


@pytest.mark.slow
def test_a_graph_holds_the_factors(tmp_path):
    """ONNX takes the products as they are computed; onnxruntime has run the file before it is there."""
    pytest.importorskip("onnxruntime")
    model, _ = pruned()
    document = exporting.export_onnx(model, None, tmp_path / "out.onnx", False, False)
    assert (tmp_path / "out.onnx").is_file() and document["check"]["tolerance"] <= 1e-3


def test_trained_further_the_core_has_its_zeros(tmp_path):
    model, report = pruned()
    before = logits(model)
    names = [f"{row.name}.core" for row in report.operators]
    zeros = {name: model.get_submodule(name).weight == 0 for name in names}
    text = (torch.arange(20)[:, None] + torch.arange(1, 25)) % 40  # which can be learnt
    gramian.tune(model, text, heldout=4, batch=4, at_once=2, lr=1e-3, progress=False)
    for name in names:
        assert (model.get_submodule(name).weight == 0).equal(zeros[name])
    assert not logits(model).equal(before)
    assert logits(gramian.load(save(model, None, tmp_path / "out"))[0]).equal(logits(model))


def test_the_estimate_knows_what_is_kept(tmp_path):
    """The journal holds the products that were written, and the factors; the blocks of A and B are saved besides."""
    model, options = tiny_model("llama"), {**OPTIONS, "save": "wrapped"}
    config = PruneConfig("armor", sparsity="2:4", options=options, **OWN)
    plan, journal = plan_of(model, config), Journal(tmp_path / "journal", {})
    space, parameters = disk_space(model, config, plan), sum(each.numel() for each in model.parameters())
    _, blocks = factor_numbers(model, config, plan)
    journal.start()
    drive(InMemory(model), Tokens(WINDOWS, "test"), config, journal=journal, progress=False)
    held = sum(value.size for file in (tmp_path / "journal").rglob("*.safetensors") for value in read_arrays(file).values())
    assert space == 4 * (parameters + held + blocks)
    journal.release()
    assert sum(module.left.numel() + module.right.numel() for module in wrapped_in(model).values()) == blocks


def edited(folder: Path, **values: Any) -> None:
    """Change the configuration of a directory whose files nobody vouches for."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def without(folder: Path, leaf: str, change: Any = None) -> None:
    """Leave a tensor out, or change it."""
    stored = load_file(folder / "model.safetensors")
    name = next(name for name in stored if name.endswith(leaf))
    value = stored.pop(name)
    save_file(stored if change is None else {**stored, name: change(value)}, folder / "model.safetensors", {"format": "pt"})


ONE = {"blocks": [10, 10], "operators": ["layers.0.mlp.up_proj"]}


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda folder: edited(folder, wrapped_operators=3), "describe no products"),
        (lambda folder: edited(folder, wrapped_operators=[]), "describe no products"),
        (lambda folder: edited(folder, wrapped_operators=[{**ONE, "blocks": [10, True]}]), "describe no products"),
        (lambda folder: edited(folder, wrapped_operators=[{**ONE, "operators": [3]}]), "describe no products"),
        (lambda folder: edited(folder, wrapped_operators=[{**ONE, "blocks": [10, 10**9]}]), "blocks of 1000000000 rows"),
        (
            lambda folder: edited(folder, wrapped_operators=[{**ONE, "operators": ["layers.0.mlp.no"]}]),
            "is no Linear or Conv1D",
        ),
        (lambda folder: edited(folder, wrapped_operators=[{**ONE, "operators": ["layers.0"]}]), "is no Linear or Conv1D"),
        (lambda folder: edited(folder, wrapped_operators=[{**ONE, "blocks": [5, 10]}]), "by the configuration"),
        (lambda folder: without(folder, ".left"), "left"),
        (lambda folder: without(folder, ".core.weight"), "core.weight"),
        (lambda folder: without(folder, ".right", lambda value: value[:1]), "by the configuration"),
        (lambda folder: without(folder, ".left", lambda value: value * math.nan), "NaN or Inf"),
    ],
)
def test_damaged_directories_are_refused(damage, message, tmp_path):
    model = tiny_model("llama")
    run(model, method="armor", sparsity=0.5, options={**OPTIONS, "save": "wrapped"}, include="layers.0.mlp.up_proj", **OWN)
    out = save(model, None, tmp_path / "out")
    damage(out)
    with pytest.raises(ValueError, match=message):
        gramian.load(out)


def test_what_cannot_be_wrapped_is_refused_before_any_work():
    """Experts that one parameter holds, and classes that are not of transformers; dense is what remains for both."""
    settings: dict[str, Any] = {"method": "armor", "sparsity": 0.5, **OWN}
    with pytest.raises(ValueError, match=r"is a matrix of packed experts.*save='wrapped' out"):
        run(expert_model("mixtral"), options={**OPTIONS, "save": "wrapped"}, **settings)
    model = tiny_model("llama")
    model.__class__ = type("OfSomebody", (type(model),), {})
    with pytest.raises(ValueError, match=r"OfSomebody is no class of transformers, of which alone wrapped operators are saved"):
        run(model, options={**OPTIONS, "save": "wrapped"}, **settings)
    assert run(model, options=OPTIONS, include="layers.0.mlp.up_proj", **settings).operators


def test_changed_files_are_named(tmp_path):
    model, report = pruned(include="layers.0.mlp.up_proj")
    out = save(model, None, tmp_path / "out", report=report)
    without(out, ".left", lambda value: value * 2)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        gramian.load(out)
