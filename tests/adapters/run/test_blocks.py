"""Blocks that visit a device one at a time: the same result, one guest at any time, home again whatever happens."""

from __future__ import annotations

import copy

import pytest
import torch
from stacked_models import stacked_model
from structured_models import pruned
from tiny import FAMILIES, HELDOUT, QUICK, WINDOWS, parameters, run, same, tiny_model
from torch import nn

from gramian.adapters import devices
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.run import blocks as offload
from gramian.adapters.run.blocks import Offloaded
from gramian.adapters.run.forward import enter
from gramian.adapters.run.moments import MomentCollector

pytestmark = pytest.mark.usefixtures("small_batches")


@pytest.fixture
def moves(monkeypatch) -> list[tuple[nn.Module, str]]:
    """Every `block.to(device)`, as "away" and "home" in turns, the two devices being one on this machine."""
    found: list[tuple[nn.Module, str]] = []
    away: list[nn.Module] = []
    original = nn.Module.to

    def to(module: nn.Module, *args, **options):
        if args and isinstance(args[0], torch.device):
            if module in away:
                away.remove(module)
                found.append((module, "home"))
            else:
                away.append(module)
                found.append((module, "away"))
            assert len(away) <= 1, "two blocks are on the device"
        return original(module, *args, **options)

    monkeypatch.setattr(nn.Module, "to", to)
    return found


def trips(blocks: list[nn.Module]) -> list[tuple[nn.Module, str]]:
    return [(block, way) for block in blocks for way in ("away", "home")]


@pytest.mark.parametrize("target", ["own", "model"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_prune_is_the_same_and_every_block_goes_once(model_type, target, moves):
    plain, model = tiny_model(model_type), tiny_model(model_type)
    options = {"method": "sparsegpt", "target": target, "calibrate_on": "pruned", "heldout": HELDOUT}
    expected = run(plain, **options)
    assert not moves
    report = run(model, device="cpu", **options)
    assert moves == trips(list(blocks_of(model)))
    assert same(parameters(plain), parameters(model))
    for one, two in zip(expected.operators, report.operators, strict=True):
        assert (one.name, one.relative_error, one.heldout_error) == (two.name, two.relative_error, two.heldout_error)
    assert report.settings["device"] == "cpu" and report.settings["products"] == "float64"
    assert report.settings["solvers"] == "numpy"


def test_only_blocks_that_are_needed_go(moves):
    model = tiny_model("gemma3_text")
    run(model, method="magnitude", include=r"layers\.[01]\.", device="cpu")
    assert moves == trips(list(blocks_of(model))[:2])


@pytest.mark.parametrize("method", ["numerical", "flap", "magnitude-l2"])
def test_structured_pruning_is_the_same_and_walks_twice(method, moves):
    dense = tiny_model("llama")
    plain, expected = pruned(copy.deepcopy(dense), method=method)
    assert not moves
    model, report = pruned(copy.deepcopy(dense), method=method, device="cpu")
    blocks = list(blocks_of(model))
    assert moves == trips(blocks * 2)
    assert same(parameters(plain), parameters(model))
    assert [row.relative_error for row in report.modules] == [row.relative_error for row in expected.modules]


@pytest.mark.parametrize("granularity", ["weights", "units"])
def test_an_error_takes_the_block_home(granularity, moves, monkeypatch):
    model = tiny_model("llama")

    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(MomentCollector, "receive", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(model, method="wanda", device="cpu") if granularity == "weights" else pruned(model, device="cpu")
    assert moves[-1][1] == "home" and len(moves) % 2 == 0


@pytest.mark.parametrize("model_type", FAMILIES)
def test_all_that_a_block_is_called_with_follows_it(model_type):
    """A block on the meta device refuses tensors of any other."""
    model = tiny_model(model_type)
    hidden, calls = enter(model, [WINDOWS[:3]])
    for block, call in zip(blocks_of(model), calls):
        with torch.no_grad():
            out = call(copy.deepcopy(block).to("meta"), hidden[0])
        assert out.is_meta and out.shape == hidden[0].shape


def test_kept_inputs_stay_at_home():
    collector = MomentCollector("it", (2,), keep=True, home=torch.device("meta"))
    collector.receive(0, torch.ones(1, 3, 4))
    assert collector.kept[0].is_meta and collector.source == torch.device("cpu")


def test_what_cannot_visit_is_refused(monkeypatch):
    model = tiny_model("llama")
    with pytest.raises(ValueError, match="jobs=2 does not go with one block at a time on cpu"):
        run(model, method="magnitude", calibrate_on="dense", device="cpu", jobs=2)
    with pytest.raises(ValueError, match="device 'nonsense' cannot be used"):
        run(model, method="magnitude", device="nonsense")
    with pytest.raises(ValueError, match=r"T5.* does not run block by block: no single block can visit cpu"):
        pruned(stacked_model("t5"), device="cpu")
    with pytest.raises(ValueError, match="no weights in memory"), Offloaded(model.to("meta"), "cpu") as blocks:
        blocks.acquire(0)


def test_what_the_device_keeps_is_released_after_every_visit(monkeypatch):
    released: list[torch.device] = []
    monkeypatch.setattr(offload, "release_cached", released.append)
    with Offloaded(tiny_model("llama"), "cpu") as blocks:
        blocks.acquire(0)
        assert not released
        blocks.commit(0)
        assert len(released) == 1
        blocks.acquire(1)
    assert released == [torch.device("cpu")] * 2
    assert devices.release_cached(torch.device("cpu")) is None  # no GPU is needed


def test_options_of_the_method_are_untouched():
    one, two = (run(tiny_model("opt"), options=QUICK, device=device) for device in (None, "cpu"))
    assert one.settings == two.settings
