"""Blocks refitted as a whole within a run: reported losses recomputed on whole models, supports held, the same bytes wherever
blocks live and after an interruption, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import HELDOUT, parameters, same, some_windows, tensors, tiny_model, tiny_tokenizer
from tiny import run as pruned_by
from tiny_models import stacked_model
from torch import nn

import gramian
from gramian.adapters import PruneConfig, load, save
from gramian.adapters.models.block_lists import blocks_of, blocks_path
from gramian.adapters.run.journal import Journal
from gramian.solvers import NM

pytestmark = pytest.mark.usefixtures("small_batches", "no_network")
WAYS = {
    "own output": {"method": "sparsegpt", "sparsity": "2:4"},
    "other bases": {"method": "sparsegpt", "sparsity": "2:4", "rotate_heads": True, "permute_channels": True},
    "block": {"method": "sparsegpt", "target": "block", "target_blend": 0.25},
    "half of the model": {"method": "l0", "options": {"steps": 8}},
    "all of the model, whole matrices": {"method": "wanda", "target": "model", "per_row": False},
    "units": {"method": "numerical", "ratio": 0.3},
    "units, a bias, all of the model": {"method": "flap", "ratio": 0.3, "target_blend": 1.0, "calibrate_on": "pruned"},
}
BLENDS = {
    "own output": 0.5, "other bases": 0.5, "block": 0.25, "half of the model": 0.5, "all of the model, whole matrices": 1.0,
    "units": 0.5, "units, a bias, all of the model": 1.0,
}  # fmt: skip
WINDOWS = some_windows(48, seed=3)  # in batches of 3
FITTED = 36  # of them: the last quarter is set aside


def run(model: Any, **arguments: Any) -> Any:
    return pruned_by(model, **{"tokens": WINDOWS, "refit": "block", **arguments})


def states(model: Any, windows: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What enters and what leaves every block."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(_: nn.Module, args: Any, answer: Any) -> None:
        found.append((args[0].double(), (answer[0] if isinstance(answer, tuple) else answer).double()))

    handles = [block.register_forward_hook(note) for block in blocks_of(model)]
    with torch.no_grad():
        model.base_model(input_ids=windows, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def error(dense: Any, pruned: Any, index: int, windows: torch.Tensor, blend: float) -> float:
    """The mean of |S (b(x*_t) - T_t)|^2 / |T_t|^2 over tokens, of one block, from whole models alone."""
    mixed = copy.deepcopy(pruned)
    blocks_of(mixed)[index] = blocks_of(dense)[index]

    def target(some: torch.Tensor) -> torch.Tensor:
        return blend * states(dense, some)[index][1] + (1 - blend) * states(mixed, some)[index][1]

    wanted, fitted = target(windows), target(WINDOWS[:FITTED]).flatten(0, -2)
    sizes = (fitted / fitted.norm(dim=-1, keepdim=True)).square().mean(0)
    squares = (states(pruned, windows)[index][1] - wanted).square() @ (sizes.mean() / sizes)
    return float((squares / wanted.square().sum(-1)).mean())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "opt"])
def test_reported_losses_are_those_of_the_stored_model(model_type, way):
    dense = tiny_model(model_type)
    pruned = copy.deepcopy(dense)
    report = run(pruned, heldout=HELDOUT, **WAYS[way])
    path = blocks_path(dense)
    assert [row.name for row in report.blocks] == [f"{path}.{index}" for index in range(len(blocks_of(dense)))]
    assert report.settings["target_blend"] == BLENDS[way] and any(row.epochs for row in report.blocks)
    for index, row in enumerate(report.blocks):
        found = row.error[1], row.aside_error[1], row.heldout_error[1]
        for one, windows in zip(found, (WINDOWS[:FITTED], WINDOWS[FITTED:], HELDOUT)):
            assert one == pytest.approx(error(dense, pruned, index, windows, BLENDS[way]), rel=1e-3, abs=1e-9)
        for before, after in (row.error, row.aside_error):
            assert after < before if row.epochs else after == before
        assert row.seconds > 0 and row.tried >= row.epochs
    shown = str(report)
    assert (
        "refitted block" in shown and f"{sum(row.epochs > 0 for row in report.blocks)} of {len(report.blocks)} blocks" in shown
    )
    assert json.loads(json.dumps(report.to_dict()))["refitted_blocks"][0]["name"] == f"{path}.0"


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "gpt2", "mixtral"])
def test_supports_hold_and_everything_else_is_fitted(model_type):
    """Of the first block, whose operators are the same with and without a refit; of gpt2 they are stored transposed."""
    plain, refitted = (tiny_model(model_type) for _ in range(2))
    how = {"method": "sparsegpt", "sparsity": "2:4"}
    run(plain, refit="none", **how)
    report = run(refitted, **how)
    assert report.blocks[0].epochs > 0
    inside = f"{blocks_path(plain)}.0."
    before, after = parameters(plain), parameters(refitted)
    for name in before:
        if not name.startswith(inside):
            continue
        changed = not same(before, after, [name])
        assert changed or name.endswith("k_proj.bias"), name
        if before[name].ndim > 1 and "gate.weight" not in name:
            assert (before[name] == 0).equal(after[name] == 0), name
    for row in report.operators:
        if "experts" not in row.name:
            weight = refitted.get_submodule(row.name).weight.detach()
            assert NM(2, 4).admits(((weight.T if model_type == "gpt2" else weight) != 0).numpy())
    outside = [name for name in before if ".layers." not in name and ".h." not in name]
    assert outside and same(parameters(tiny_model(model_type)), after, outside)
    assert all(each.grad is None for each in refitted.parameters())


def test_removed_units_are_those_without_a_refit():
    plain, refitted = tiny_model("gemma3_text"), tiny_model("gemma3_text")
    one = run(plain, method="numerical", ratio=0.3, refit="none")
    two = run(refitted, method="numerical", ratio=0.3)
    assert {name: kept.tolist() for name, kept in one.keep.items()} == {name: kept.tolist() for name, kept in two.keep.items()}
    assert one.parameters == two.parameters
    before, after = parameters(plain), parameters(refitted)
    assert {name: each.shape for name, each in before.items()} == {name: each.shape for name, each in after.items()}
    assert any(row.epochs for row in two.blocks) and not same(before, after)


def test_only_blocks_that_lost_something_are_refitted():
    dense = tiny_model("gemma3_text")
    model = copy.deepcopy(dense)
    report = run(model, method="sparsegpt", include=r"layers\.1\.mlp")
    assert [row.name for row in report.blocks] == ["model.layers.1"]
    before, after = parameters(dense), parameters(model)
    changed = {name.split(".")[2] for name in before if not same(before, after, [name])}
    assert changed == {"1"}


def test_a_tied_parameter_of_another_block_remains():
    model = tiny_model("llama")
    blocks = blocks_of(model)
    blocks[1].post_attention_layernorm.weight = blocks[0].post_attention_layernorm.weight
    before = parameters(model)
    report = run(model, method="sparsegpt")
    assert all(row.epochs for row in report.blocks)
    kept = "model.layers.0.post_attention_layernorm.weight"
    assert same(before, parameters(model), [kept])
    assert not same(before, parameters(model), ["model.layers.0.input_layernorm.weight"])


def test_the_same_bytes_again_and_gradients_are_none_of_its_business():
    found = []
    for needed in (True, False):
        model = tiny_model("llama").requires_grad_(needed)
        run(model, method="sparsegpt")
        assert all(each.requires_grad is needed and each.grad is None for each in model.parameters())
        found.append(parameters(model))
    assert same(*found)


# -- where blocks live, and interruptions ------------------------------------------------------------------------------


def source(folder: Path, model_type: str, dtype: torch.dtype) -> Path:
    model = tiny_model(model_type)
    model.config.dtype = dtype
    return save(model, tiny_tokenizer(), folder)


def without_times(report: Any) -> Any:
    document = report.to_dict()
    for rows in (document["refitted_blocks"], document.get("operators", []), document.get("modules", [])):
        for row in rows:
            row["seconds"] = 0
    return json.dumps({**document, "seconds": 0})


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(
    ("model_type", "dtype", "way"),
    [
        ("llama", torch.bfloat16, "own output"), ("gemma3_text", torch.float32, "half of the model"),
        ("opt", torch.float16, "block"), ("qwen2", torch.float32, "units"),
        ("llama", torch.float32, "units, a bias, all of the model"),
    ],
)  # fmt: skip
def test_the_same_bytes_wherever_blocks_live(model_type, dtype, way, tmp_path):
    """In memory, visiting a device, and streamed."""
    folder = source(tmp_path / "source", model_type, dtype)
    how = {"heldout": HELDOUT, "progress": False, "refit": "block", **WAYS[way]}
    reports = []
    for name, device in (("memory", None), ("offloaded", "cpu")):
        model, tokenizer = load(folder)
        reports.append(gramian.prune(model, WINDOWS, device=device, **how))
        save(model, tokenizer, tmp_path / name, report=reports[-1])
    reports.append(gramian.prune(folder, WINDOWS, out=tmp_path / "streamed", **how))
    assert any(row.epochs for row in reports[0].blocks)
    assert without_times(reports[0]) == without_times(reports[1]) == without_times(reports[2])
    expected = tensors(tmp_path / "memory")
    for name in ("offloaded", "streamed"):
        found = stored(tmp_path / name)
        assert found.keys() == expected.keys() and all(found[key].equal(expected[key]) for key in expected), name


@pytest.mark.parametrize("way", ["own output", "half of the model", "units"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_run_goes_on_to_the_same_bytes(count, way, tmp_path, monkeypatch):
    folder = source(tmp_path / "source", "gemma3_text", torch.bfloat16)
    how = {"heldout": HELDOUT, "progress": False, "refit": "block", **WAYS[way]}
    expected = gramian.prune(folder, WINDOWS, out=tmp_path / "expected", **how)
    written, write = [], Journal.write

    def failing(self: Journal, name: str, index: int, record: Any) -> None:
        if len(written) == count + 3 * (way == "units"):  # scores are written before
            raise KeyboardInterrupt
        write(self, name, index, record)
        written.append(index)

    if count < 3:
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "write", failing)
            with pytest.raises(KeyboardInterrupt):
                gramian.prune(folder, WINDOWS, out=tmp_path / "out", **how)
    else:  # all blocks are done, and the model is not saved
        with monkeypatch.context() as patch:
            patch.setattr("gramian.adapters.run.streaming.Stream.save", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
            with pytest.raises(OSError, match="full"):
                gramian.prune(folder, WINDOWS, out=tmp_path / "out", **how)
    report = gramian.prune(folder, WINDOWS, out=tmp_path / "out", resume=True, **how)
    assert without_times(report) == without_times(expected)
    for file in (tmp_path / "expected").glob("*.safetensors"):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_an_error_leaves_the_model_as_it_was(monkeypatch):
    model = tiny_model("opt")
    before = parameters(model)
    from gramian.adapters.passes import block_refits

    solve, seen = block_refits.BlockFit.solve, []

    def failing(self: Any, *steps: Any) -> Any:
        found = solve(self, *steps)
        seen.append(found)
        if len(seen) == 2:
            raise RuntimeError("the second block")
        return found

    monkeypatch.setattr(block_refits.BlockFit, "solve", failing)
    with pytest.raises(RuntimeError, match=r"decoder\.layers\.1.*the second block"):
        run(model, method="sparsegpt")
    assert same(before, parameters(model))


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "fistapruner"}, "refit='block' needs calibrate_on='pruned'"),
        ({"method": "l0", "calibrate_on": "dense", "jobs": 2}, "refit='block' needs calibrate_on='pruned'"),
        ({"method": "numerical", "calibrate_on": "dense"}, "refit='block' needs calibrate_on='pruned'"),
        ({"method": "experts"}, "refit='block' does not go with 'experts', which removes whole experts"),
        ({"method": "depth"}, "refit='block' does not go with 'depth', which removes whole blocks"),
        ({"method": "magnitude", "damping": 0.1}, "add refit='support'"),
    ],
)
def test_what_does_not_go_with_it(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        PruneConfig(refit="block", **given)
    assert len(str(caught.value).splitlines()) == 1


def test_what_a_run_refuses_before_any_work():
    with pytest.raises(ValueError, match="refit='block' needs 2 calibration windows at least"):
        run(tiny_model("llama"), tokens=WINDOWS[:1], method="sparsegpt")
    with pytest.raises(ValueError, match="refit='block' needs a model that runs block by block, but T5"):
        run(stacked_model("t5"), method="sparsegpt")
    with pytest.raises(ValueError, match="refit='block' needs activations of the model pruned so far, and units of BertModel"):
        run(stacked_model("bert"), method="numerical", ratio=0.3)


def test_texts_of_several_lengths_with_labels():
    draw = torch.Generator().manual_seed(0)
    texts = [{"input_ids": torch.randint(0, 250, (8 + 4 * (place % 3),), generator=draw), "label": 1} for place in range(40)]
    report = run(stacked_model("bert"), tokens=texts, method="sparsegpt")
    assert [row.name for row in report.blocks] == ["encoder.layer.0", "encoder.layer.1"]
    assert any(row.epochs for row in report.blocks) and all(row.error[1] <= row.error[0] for row in report.blocks)


def test_two_windows_are_enough_for_both_parts():
    report = run(tiny_model("llama"), tokens=WINDOWS[:2], method="sparsegpt")
    assert all(row.error[0] > 0 and row.aside_error[0] > 0 and row.heldout_error is None for row in report.blocks)


@pytest.mark.parametrize(
    "amount", [{"method": "wanda", "sparsity": "2:4", "include": "mlp"}, {"method": "numerical", "ratio": 0.3}]
)
def test_zeros_of_an_earlier_run_are_held(amount):
    """Of operators that this run does not prune, or of which it keeps some units."""
    model = tiny_model("llama")
    gramian.prune(model, WINDOWS, "wanda", sparsity="2:4", include="self_attn|up_proj|gate_proj", progress=False)
    before = {name: each.detach() == 0 for name, each in model.named_parameters() if "layers" in name and each.ndim == 2}
    run(model, **amount)
    for name, each in model.named_parameters():
        if name not in before or not before[name].any():
            continue
        if each.shape == before[name].shape:
            assert bool((each[before[name]] == 0).all()), name
        else:  # of the units that are left half of the weights were zero
            assert float((each == 0).float().mean()) >= 0.45, name


def test_a_block_may_have_parameters_of_its_own():
    model = tiny_model("llama")
    for block in blocks_of(model):
        block.gain = nn.Parameter(torch.ones(model.config.hidden_size))
        plain = block.forward
        block.forward = lambda *args, plain=plain, block=block, **given: plain(*args, **given) * block.gain
    before = [block.gain.detach().clone() for block in blocks_of(model)]
    run(model, method="sparsegpt", sparsity="2:4")
    assert not all(block.gain.equal(gain) for block, gain in zip(blocks_of(model), before))
