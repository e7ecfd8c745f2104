"""A task that a small classifier learns in seconds, pruned, fine-tuned through Trainer, saved, and loaded by stock classes.

Two symbols stand before noise of any length, and a table that was drawn at random says which class a text with them is of: the
hidden channels hold it, so that a good selection of what is removed costs little, and a bad one costs much.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    set_seed,
)

import gramian
from gramian.adapters.measure.answers import answered

SYMBOLS, CLASSES, NOISE, PADDING = 8, 3, 4, 0
VOCABULARY = 1 + 2 * SYMBOLS + NOISE
TABLE = torch.randint(0, CLASSES, (SYMBOLS, SYMBOLS), generator=torch.Generator().manual_seed(5))


def examples(count: int, seed: int) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        one, two = torch.randint(0, SYMBOLS, (2,), generator=generator).tolist()
        length = int(torch.randint(1, 7, (1,), generator=generator))
        noise = torch.randint(1 + 2 * SYMBOLS, VOCABULARY, (length,), generator=generator).tolist()
        ids = [1 + one, 1 + SYMBOLS + two, *noise]
        found.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(TABLE[one, two])})
    return found


def collated(texts: list[dict]) -> dict[str, torch.Tensor]:
    longest = max(len(each["input_ids"]) for each in texts)
    rows = {
        name: torch.tensor([each[name] + [PADDING] * (longest - len(each[name])) for each in texts])
        for name in ("input_ids", "attention_mask")
    }
    return rows | {"labels": torch.tensor([each["labels"] for each in texts])}


TRAIN, CALIBRATE, TEST = examples(1024, 1), examples(64, 2), examples(256, 3)


@pytest.fixture(scope="module")
def classifier() -> PreTrainedModel:
    config = AutoConfig.for_model(
        "bert", hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, vocab_size=VOCABULARY,
        num_labels=CLASSES, max_position_embeddings=32, pad_token_id=PADDING, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    model, steps = AutoModelForSequenceClassification.from_config(config), 200
    optimiser = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(0, len(TRAIN), (64,)).tolist()
        model(**collated([TRAIN[place] for place in chosen])).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    return model.eval()


def fine_tuned(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    set_seed(0)
    settings = TrainingArguments(
        str(folder), max_steps=60, per_device_train_batch_size=64, learning_rate=4e-3, report_to=[], save_strategy="no",
        disable_tqdm=True, logging_strategy="no", use_cpu=True,
    )  # fmt: skip
    Trainer(model, settings, data_collator=collated, train_dataset=TRAIN).train()
    return model.eval()


def accuracy(model: PreTrainedModel) -> float:
    """By the stock forward pass of one padded batch."""
    batch = collated(TEST)
    with torch.no_grad():
        return float((model(**batch).logits.argmax(dim=-1) == batch["labels"]).float().mean())


def test_pruned_fine_tuned_saved_and_loaded(classifier, tmp_path):
    assert accuracy(classifier) > 0.97
    settings = {"ratio": 0.35, "include": r"layer\.\d\.output", "progress": False}
    pruned = copy.deepcopy(classifier)
    assert 0.35 <= gramian.prune(pruned, CALIBRATE, "tasp", **settings).ratio < 0.37
    by_chance = []
    for seed in range(5):
        rival = copy.deepcopy(classifier)
        gramian.prune(rival, CALIBRATE, "random", options={"seed": seed}, **settings)
        by_chance.append(accuracy(rival))
    before = accuracy(pruned)
    assert before > sum(by_chance) / len(by_chance) + 0.05, (before, by_chance)
    assert answered(pruned, TEST).accuracy == pytest.approx(before)

    tuned = fine_tuned(pruned, tmp_path / "trainer")
    assert accuracy(tuned) > max(0.97, before - 1e-6)
    folder = gramian.save(tuned, None, tmp_path / "saved")
    stock = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = collated(TEST)
    with torch.no_grad():
        assert stock(**batch).logits.equal(tuned(**batch).logits)
    ours, _ = gramian.load(folder, classifier=True)
    assert type(ours) is type(stock) and accuracy(ours) == accuracy(tuned)
    assert json.loads((folder / "config.json").read_text())["intermediate_size"] < 48


def test_uneven_widths_keep_the_head(classifier, tmp_path):
    """Saved as a classifier, loaded as one, and as the encoder that it holds."""
    config = copy.deepcopy(classifier.config)
    config.num_hidden_layers = 2
    smaller = type(classifier)(config).eval()
    smaller.bert.encoder.layer[1].output.dense.weight.data.mul_(3.0)  # whose channels are kept longer
    report = gramian.prune(smaller, CALIBRATE, "tasp", ratio=0.3, progress=False)
    assert len({each.units[1] for each in report.modules}) > 1
    folder = gramian.save(smaller, None, tmp_path / "uneven")
    again, _ = gramian.load(folder, classifier=True)
    batch = collated(TEST)
    with torch.no_grad():
        assert again(**batch).logits.equal(smaller(**batch).logits)
        encoder, _ = gramian.load(folder)
        states = smaller.bert(input_ids=batch["input_ids"]).last_hidden_state
        assert encoder(input_ids=batch["input_ids"]).last_hidden_state.equal(states)
    padded = gramian.save(again, None, tmp_path / "padded", pad=True)
    stock = AutoModelForSequenceClassification.from_pretrained(padded).eval()
    with torch.no_grad():
        torch.testing.assert_close(stock(**batch).logits, smaller(**batch).logits, rtol=1e-4, atol=1e-4)
