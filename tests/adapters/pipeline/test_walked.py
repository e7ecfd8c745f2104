"""What a pass says that it takes is what its walk does: every product of a run is counted, and every byte of a journal."""

import math
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from tiny import tiny_model
from torch import nn

from gramian.adapters import PruneConfig
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.estimates import refits
from gramian.adapters.estimates.runs import disk_space, walks_of
from gramian.adapters.passes import block_fits
from gramian.adapters.passes.planned import plan_of
from gramian.adapters.pipeline import run
from gramian.adapters.run import moments
from gramian.adapters.run.blocks import InMemory
from gramian.adapters.run.hooks import feed
from gramian.adapters.run.journal import Journal

WINDOWS = torch.arange(4 * 24).reshape(4, 24) % 50
CASES = [
    {"method": "wanda", "calibrate_on": calibrate_on, "target": target}
    for calibrate_on, target in (
        ("dense", "own"),
        ("dense", "block"),
        ("pruned", "own"),
        ("pruned", "block"),
        ("pruned", "model"),
    )
] + [
    {"method": "wanda", "include": "down_proj"},
    {"method": "wanda", "blocks": slice(1)},
    {"method": "magnitude-l1", "allocation": "score", "calibrate_on": "dense"},
    {"method": "magnitude-l1", "allocation": "score"},
    {"method": "flap"},
    {"method": "magnitude-l1", "allocation": "score", "refit_producers": True},
    {"method": "magnitude-l1", "allocation": "score", "include": "mlp"},
]


@contextmanager
def counted(model):
    """Multiply-adds of the operators inside the blocks while a context is open."""
    found, handles = SimpleNamespace(products=0), []

    def hook(module, args, output):
        found.products += args[0].numel() // args[0].shape[-1] * module.weight.numel()

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and ".layers." in f".{name}":
            handles.append(module.register_forward_hook(hook))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def test_refits_take_what_is_said(monkeypatch):
    """Forward passes, of which the first block, where nothing has drifted, has one less."""
    monkeypatch.setattr(block_fits, "PATIENCE", 9)
    products = []
    for refit in ("none", "block"):
        model = tiny_model("llama")
        with counted(model) as found:
            run(
                InMemory(model), Tokens(WINDOWS, "test"), PruneConfig("wanda", refit=refit), heldout=WINDOWS[:2], progress=False
            )
        products.append(found.products)
    weights = sum(each.weight.numel() for each in model.model.layers.modules() if isinstance(each, nn.Linear))
    tokens, apart = WINDOWS.numel(), WINDOWS[:2].numel()
    forward = refits.token_runs(tokens, apart) - refits.BACKWARD * block_fits.EPOCHS * tokens * 3 / 4 - (tokens + apart) / 2
    assert products[1] - products[0] == forward * weights


def test_a_journal_holds_whole_blocks_that_are_refitted(tmp_path):
    config = PruneConfig("wanda", refit="block", blocks=slice(1))
    model = tiny_model("gemma3_text")
    plan, journal = plan_of(model, config), Journal(tmp_path / "journal", {})
    space = disk_space(model, config, plan)
    journal.start()
    run(InMemory(model), Tokens(WINDOWS, "test"), config, journal=journal, progress=False)
    (file,) = tmp_path.rglob("*.safetensors")
    with safe_open(file, "np") as opened:
        names = [name.removeprefix("tensor/") for name in opened.keys()]
        tensors = sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())
    assert sorted(names) == sorted(f"model.layers.0.{name}" for name, _ in model.model.layers[0].named_parameters())
    assert space == 4 * (tensors + sum(each.numel() for each in model.parameters()))
    journal.release()


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(value) for value in case.values()))
def test_walks_do_what_their_passes_say(case, monkeypatch, tmp_path):
    model, config = tiny_model("llama"), PruneConfig(**case)
    plan, blocks = plan_of(model, config), InMemory(model)
    walks = [walk for _, walk in walks_of(model, blocks.paths, config, plan)]
    weights = sum(
        each.weight.numel() for block in model.model.layers for each in block.modules() if isinstance(each, nn.Linear)
    )
    space, parameters = disk_space(model, config, plan), sum(each.numel() for each in model.parameters())
    streamed = []

    def fed(name, collected, inputs, dense=None, weight=1.0):
        width = inputs.shape[-1]
        streamed.append(inputs.numel() // width * width**2 * (1 if dense is None else 4))
        feed(name, collected, inputs, dense, weight)

    monkeypatch.setattr(moments, "feed", fed)
    monkeypatch.setattr("gramian.adapters.run.hooks.feed", fed)
    journal = Journal(tmp_path / "journal", {})
    journal.start()
    with counted(model) as found:
        run(blocks, Tokens(WINDOWS, "test"), config, journal=journal, progress=False)
    # what is not exact: norms count as weights of a block, and producers that nothing has drifted before are not refitted
    close = 0.15 if config.refit_producers else 0.02
    assert found.products / WINDOWS.numel() == pytest.approx(sum(walk.runs for walk in walks) * weights, rel=close)
    assert sum(streamed) / WINDOWS.numel() == pytest.approx(sum(walk.operations for walk in walks), rel=close)
    tensors = 0
    for file in tmp_path.rglob("*.safetensors"):
        with safe_open(file, "np") as opened:
            tensors += sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys() if name.endswith("weight"))
    assert space == 4 * (tensors + parameters)
    journal.release()
