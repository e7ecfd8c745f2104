"""Zeros that are held: by every optimiser, in Trainer, under adapters, and put back after a merge."""

from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
import torch
from expert_models import expert_model
from shrunk_models import changed, uneven, uniform
from tiny import WINDOWS, same, some_windows, tensors, tiny_model
from torch import nn
from transformers import Trainer, TrainingArguments

import gramian
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.shrink import shrink_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of peft
OPTIMISERS: dict[str, Any] = {
    "AdamW": lambda weights: torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.1, foreach=False),
    "fused AdamW": lambda weights: torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.1, fused=True),
    "foreach Adam": lambda weights: torch.optim.Adam(weights, lr=1e-2, weight_decay=0.1, foreach=True),
    "SGD": lambda weights: torch.optim.SGD(weights, lr=1e-2, momentum=0.9, nesterov=True, weight_decay=0.1),
    "LBFGS": lambda weights: torch.optim.LBFGS(weights, lr=1e-2, max_iter=3),
}


def sparse(model: nn.Module, method: str = "magnitude", **amount: Any) -> nn.Module:
    gramian.prune(model, WINDOWS, method, progress=False, **(amount or {"sparsity": 0.5}))
    return model


def zeros_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Where matrices inside the blocks are zero; of dense models with random weights no other is."""
    return {name: weight == 0 for name, weight in blocks_of(model).named_parameters() if weight.ndim > 1}


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int = 3) -> None:
    """Steps on gradients of two batches each, clipped."""
    for number in range(count):

        def closure(number: int = number) -> torch.Tensor:
            optimizer.zero_grad()
            for batch in some_windows(4, number).split(2):
                loss = model(input_ids=batch, labels=batch).loss
                loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            return loss

        optimizer.step(closure)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_zeros_are_held_by_every_optimiser(name):
    """Moments that an optimiser has from before do not fill them in, either."""
    model = sparse(tiny_model("llama"))
    before = zeros_of(model)
    start = copy.deepcopy(model.state_dict())
    optimizer = OPTIMISERS[name](model.parameters())
    steps(model, optimizer, 1)  # without, they are filled in
    assert all((zeros_of(model)[name] != zero).any() for name, zero in before.items())
    model.load_state_dict(start)
    with gramian.HoldZeros(model):
        steps(model, optimizer)
        after = zeros_of(model)
    assert all(after[name].equal(zero) for name, zero in before.items())
    assert not any(torch.signbit(weight[weight == 0]).any() for weight in model.parameters())
    assert not model.model.layers[0].mlp.up_proj.weight.equal(start["model.layers.0.mlp.up_proj.weight"])
    steps(model, optimizer, 1)  # nothing is held any more
    assert any(not zeros_of(model)[name].equal(zero) for name, zero in before.items())


def test_held_steps_are_those_of_a_masked_loop():
    """V <- M (V - step of the masked gradient), with the norm that clips over what is trained."""
    model = sparse(tiny_model("llama"), sparsity="2:4")
    other = copy.deepcopy(model)
    with gramian.HoldZeros(model):
        steps(model, OPTIMISERS["AdamW"](model.parameters()))
    masks = {name: (weight != 0).float() for name, weight in other.named_parameters() if weight.ndim > 1}
    optimizer = OPTIMISERS["AdamW"](other.parameters())
    for number in range(3):
        optimizer.zero_grad()
        for batch in some_windows(4, number).split(2):
            other(input_ids=batch, labels=batch).loss.backward()
        for name, weight in other.named_parameters():
            if "layers" in name and name in masks:
                weight.grad *= masks[name]
        nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        optimizer.step()
    for (name, weight), expected in zip(model.named_parameters(), other.parameters()):
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("model_type", ["gpt2", "mixtral"])
def test_what_counts_as_an_operator(model_type):
    """Conv1D, packed experts; not embeddings with a zero row."""
    model = expert_model(model_type).requires_grad_(True) if model_type == "mixtral" else tiny_model(model_type)
    with torch.no_grad():
        row = model.get_input_embeddings().weight[some_windows(4, 0)[0, 0]]
        row.zero_()
        for name, weight in blocks_of(model).named_parameters():
            if weight.ndim > 1 and "gate.weight" not in name:
                weight[..., ::2] = 0
    masks = gramian.HoldZeros(model).masks
    inside = {name: weight for name, weight in model.named_parameters() if weight.ndim > 1 and (weight[..., 0] == 0).all()}
    assert set(masks) == set(inside) and all(mask.equal(inside[name] != 0) for name, mask in masks.items())
    with gramian.HoldZeros(model):
        steps(model, OPTIMISERS["AdamW"](model.parameters()), 1)
    assert all((weight[..., ::2] == 0).all() and (weight != 0).any() for weight in inside.values())
    assert (row != 0).any()


def trainer(model: nn.Module, folder: Any, **given: Any) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=1e-2,
        weight_decay=0.1, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="steps", save_steps=2, logging_steps=10,
        dataloader_pin_memory=False,
    )  # fmt: skip
    rows = [{"input_ids": row, "labels": row} for row in some_windows(12, 5)]
    return Trainer(model=model, args=arguments, train_dataset=rows, **given)


def test_zeros_are_held_in_a_trainer(tmp_path):
    """At its checkpoints and at the end, and in a second run with the same callback."""
    model = sparse(tiny_model("gemma3_text"))
    before, callback = zeros_of(model), gramian.HoldZeros(model)
    trainer(model, tmp_path, callbacks=[callback]).train()
    assert all(zeros_of(model)[name].equal(zero) for name, zero in before.items())
    masks = {name: weight != 0 for name, weight in tensors(tmp_path / "checkpoint-2").items() if name in callback.masks}
    assert masks.keys() == callback.masks.keys() and all(masks[name].equal(mask) for name, mask in callback.masks.items())
    trainer(model, tmp_path / "again", callbacks=[callback]).train()
    assert all(zeros_of(model)[name].equal(zero) for name, zero in before.items())
    trainer(model, tmp_path / "without").train()
    assert any(not zeros_of(model)[name].equal(zero) for name, zero in before.items())


def test_a_callback_of_another_model_is_refused(tmp_path):
    callback = gramian.HoldZeros(sparse(tiny_model("llama")))
    with pytest.raises(ValueError, match="made of another LlamaForCausalLM than the one that is trained"):
        trainer(tiny_model("llama"), tmp_path, callbacks=[callback]).train()


def test_nothing_to_hold_is_refused():
    with pytest.raises(ValueError, match="LlamaForCausalLM has no zero in any operator"):
        gramian.HoldZeros(tiny_model("llama"))
    model, other = sparse(tiny_model("llama")), sparse(tiny_model("gpt2"))
    with pytest.raises(ValueError, match="no operator of it: give masks of the model that was pruned"):
        gramian.HoldZeros(other, gramian.HoldZeros(model).masks)


def with_adapters(model: nn.Module, targets: Any = "all-linear") -> peft.PeftModel:
    config = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config)


def test_zeros_are_put_back_after_a_merge(tmp_path, capsys):
    """Adapters are trained with Trainer, and not held themselves; how much the merge filled in is counted by hand."""
    model = sparse(tiny_model("llama"), sparsity="2:4")
    folder = gramian.save(model, None, tmp_path / "sparse")
    masks = gramian.HoldZeros(model).masks
    adapted = with_adapters(model)
    assert gramian.HoldZeros(adapted).masks.keys() == masks.keys()
    before = {name: each.detach().clone() for name, each in adapted.named_parameters()}
    trainer(adapted, tmp_path / "run", callbacks=[gramian.HoldZeros(adapted)]).train()
    for name, each in adapted.named_parameters():
        assert each.equal(before[name]) != ("lora_" in name), name
    with pytest.raises(ValueError, match="merge_and_unload"):
        gramian.reapply(adapted, masks)
    merged = adapted.merge_and_unload()
    filled = copy.deepcopy(merged)
    found = gramian.reapply(merged, folder)
    assert "pruned weights had been filled in" in capsys.readouterr().err
    weights = dict(filled.named_parameters())
    gone = {name: weights[name].double()[~mask] for name, mask in masks.items()}
    energy = sum(float(each.square().sum()) for each in gone.values())
    assert found.weights == sum(int((each != 0).sum()) for each in gone.values()) == found.pruned
    assert found.energy == pytest.approx(energy / sum(float(weights[name].double().square().sum()) for name in masks))
    for name, mask in masks.items():
        assert dict(merged.named_parameters())[name].equal(weights[name] * mask)
    assert gramian.reapply(merged, masks).weights == 0
    loaded, _ = gramian.load(gramian.save(merged, None, tmp_path / "merged"))
    assert all((dict(loaded.named_parameters())[name] != 0).equal(mask) for name, mask in masks.items())


@pytest.mark.parametrize("kept", [uniform, uneven])
@pytest.mark.parametrize("model_type", ["llama", "opt"])
def test_adapters_are_trained_on_smaller_models(kept, model_type, tmp_path):
    """Merged, saved and loaded, the model gives what the adapted one gives."""
    dense = tiny_model(model_type)
    model = changed(shrink_model, dense, kept(dense))
    targets = ["q_proj", "v_proj", "fc2"] if model_type == "opt" else "all-linear"
    adapted = with_adapters(model, targets)
    trainer(adapted, tmp_path / "run").train()
    adapted.eval()
    merged = copy.deepcopy(adapted).merge_and_unload()
    loaded, _ = gramian.load(gramian.save(merged, None, tmp_path / "merged"))
    assert same(dict(merged.state_dict()), dict(loaded.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(loaded(WINDOWS).logits, adapted(WINDOWS).logits, rtol=1e-4, atol=1e-4)
