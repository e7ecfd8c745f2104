"""A task that a small model learns in seconds: sequences of symbols, each class with a rule of its own for what comes next.

The model has more channels than it needs, so a good selection of what is removed costs little, and a bad one costs much.
"""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from gramian.adapters import perplexity, prune

CLASSES, SYMBOLS, LENGTH, NOISE = 3, 12, 16, 0.1
RULES = torch.stack([torch.randperm(SYMBOLS, generator=torch.Generator().manual_seed(rule)) for rule in range(CLASSES)])


def sequences(count: int, seed: int) -> torch.Tensor:
    """A token for the class, then symbols of which each follows from the one before, but for some noise."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(0, CLASSES, (count,), generator=generator)
    symbols = [torch.randint(0, SYMBOLS, (count,), generator=generator)]
    while len(symbols) < LENGTH - 1:
        other = torch.randint(0, SYMBOLS, (count,), generator=generator)
        stray = torch.rand(count, generator=generator) < NOISE
        symbols.append(torch.where(stray, other, RULES[kind, symbols[-1]]))
    return torch.stack([kind + SYMBOLS, *symbols], dim=1)


@pytest.fixture(scope="module")
def trained() -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=SYMBOLS + CLASSES, hidden_size=24, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=LENGTH, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    steps = 150
    optimiser = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-2, total_steps=steps)
    for step in range(steps):
        batch = sequences(32, 100 + step)
        model(input_ids=batch, labels=batch, use_cache=False).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    return model.eval().requires_grad_(False)


def loss(model: PreTrainedModel) -> float:
    """Nats per token on sequences that calibrated nothing."""
    return float(perplexity(model, sequences(128, 2), batch=128, progress=False).losses.mean())


def after(model: PreTrainedModel, ratio: float, **options) -> float:
    narrow = copy.deepcopy(model)
    report = prune(narrow, sequences(48, 1), ratio=ratio, progress=False, **{"method": "numerical"} | options)
    near = 0.035 if report.settings["allocation"] == "equal" else 0.0  # half of a step of eight channels in both blocks
    assert ratio - near <= report.ratio < ratio + 0.01 + near
    return loss(narrow)


def test_the_task_is_learnt(trained):
    assert loss(trained) < 1.0  # the loss without knowledge is log(12) = 2.5, and that of the noise alone about 0.7


@pytest.mark.parametrize("ratio", [0.3, 0.5])
def test_numerical_beats_random(trained, ratio):
    dense = loss(trained)
    ours = after(trained, ratio) - dense
    random = [after(trained, ratio, method="random", options={"seed": seed}) - dense for seed in range(3)]
    assert ours < 0.25 * min(random), (ours, random)


def test_numerical_beats_the_baselines(trained):
    ours = after(trained, 0.5)
    others = {name: after(trained, 0.5, method=name) for name in ("magnitude-l1", "magnitude-l2", "wanda-sp", "flap")}
    assert ours < min(others.values()), (ours, others)


def test_each_part_of_it_helps(trained):
    """Compensation, a selection of units, and a selection that counts on compensation: without any one the loss is higher."""
    best = after(trained, 0.5)
    without = {
        "compensation": after(trained, 0.5, compensate=False),
        "scores that count on it": after(trained, 0.5, options={"score": "newton"}, allocation="equal"),
        "any score": after(trained, 0.5, method="random", compensate=True),
    }
    assert best < min(without.values()), (best, without)
