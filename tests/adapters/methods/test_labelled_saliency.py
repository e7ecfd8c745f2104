"""Saliency of texts with labels: pairs of unequal length, classifiers, and what cannot be differentiated.

References run padded batches through the model as it is, with masks and -100, and torch's own backward pass.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from saliency_by_hand import agree, by_hand, context
from tiny_models import STACKS, T5, VOCABULARY, exact, some_windows, stacked_model
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, BertModel, T5ForConditionalGeneration

from gramian.adapters import prune
from gramian.adapters.data.tokens import Tokens, windows_of
from gramian.adapters.methods.unit_methods import UNIT_METHODS
from gramian.adapters.run.forward import batches_of

GRADIENTS = [name for name, method in UNIT_METHODS.items() if method.gradients]
WINDOWS = some_windows(4, 1)
PADDING = 0


def tokens(count: int, seed: int) -> list[int]:
    return torch.randint(1, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def pair(source: int, target: int, seed: int) -> dict[str, list[int]]:
    return {"input_ids": tokens(source, seed), "attention_mask": [1] * source, "labels": tokens(target, seed + 100)}


PAIRS = [pair(7, 3, 1), pair(4, 6, 2), pair(11, 2, 3), pair(4, 6, 4)]
TEXTS = [{"input_ids": tokens(size, size), "attention_mask": [1] * size, "labels": size % 3} for size in (5, 9, 4, 9)]


def batch_of(examples) -> dict[str, torch.Tensor]:
    """A padded batch, as a collator makes it."""

    def filled(name: str, rest: int) -> torch.Tensor:
        longest = max(len(each[name]) for each in examples)
        return torch.tensor([each[name] + [rest] * (longest - len(each[name])) for each in examples])

    labels = (
        filled("labels", -100) if isinstance(examples[0]["labels"], list) else torch.tensor([x["labels"] for x in examples])
    )
    return {"input_ids": filled("input_ids", PADDING), "attention_mask": filled("attention_mask", 0), "labels": labels}


def classifier(kind: str = "bert", classes: int = 3):
    shape = STACKS["bert"][1] if kind != "distilbert" else {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}
    config = AutoConfig.for_model(kind, **shape, vocab_size=VOCABULARY, num_labels=classes, pad_token_id=PADDING)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).double().eval()
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def gradients_of(model, losses) -> dict[str, torch.Tensor]:
    """|g W| of every parameter, summed over scalars that are differentiated one by one."""
    model.requires_grad_(True)
    totals: dict[str, torch.Tensor] = {}
    for value in losses:
        model.zero_grad(set_to_none=True)
        value.backward(retain_graph=True)
        for name, each in model.named_parameters():
            if each.grad is not None:
                totals[name] = totals.get(name, 0.0) + (each.grad * each).abs().detach()
    model.zero_grad(set_to_none=True)
    model.requires_grad_(False)
    return totals


def scores_of(model, examples, method: str = "tasp", **options) -> list[np.ndarray]:
    return list(UNIT_METHODS[method].gather(context(model, windows=windows_of(examples)), options))


def losses_by_text(model, examples) -> list[torch.Tensor]:
    """The mean loss of every text of one padded batch, with gradients."""
    model.requires_grad_(True)
    batch = batch_of(examples)
    labels = batch["labels"]
    logits = model(**batch).logits
    each = nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=-100, reduction="none")
    each = each.view(labels.shape)
    return [row[label != -100].mean() for row, label in zip(each, labels)] if labels.ndim == 2 else list(each)


@pytest.mark.parametrize("name", ["t5", "gated t5"])
def test_unequal_pairs_against_a_padded_batch(name):
    """TASP of the loss is the mean over pairs of |g W|, with g of the pair's own loss in a padded batch with masks."""
    model = stacked_model(name, torch.float64)
    model.config.pad_token_id = PADDING
    expected = gradients_of(model, losses_by_text(model, PAIRS))
    found = scores_of(model, PAIRS, output="loss")
    agree(found, by_hand(model, "groups", {key: each / len(PAIRS) for key, each in expected.items()}))
    one, two = (scores_of(model, [each], output="loss") for each in PAIRS[:2])  # a batch of two is two batches of one
    agree(scores_of(model, PAIRS[:2], output="loss"), [(first + second) / 2 for first, second in zip(one, two)])


def test_the_loss_of_one_pair_is_the_model_s_own():
    """Also where -100 stands among the labels: the decoder then reads padding, and predicts nothing there."""
    model = stacked_model("t5", torch.float64)
    model.config.pad_token_id = PADDING
    example = {**PAIRS[1], "labels": [PAIRS[1]["labels"][0], -100, *PAIRS[1]["labels"][2:]]}
    model.requires_grad_(True)
    expected = gradients_of(model, [model(**{name: torch.tensor([each]) for name, each in example.items()}).loss])
    agree(scores_of(model, [example], "snip"), by_hand(model, "groups", expected))


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_classifiers_against_a_padded_batch(kind):
    model = classifier(kind)
    expected = gradients_of(model, losses_by_text(model, TEXTS))
    agree(
        scores_of(model, TEXTS, output="loss"),
        by_hand(model, "groups", {key: each / 4 for key, each in expected.items()}),
        1e-7,
    )
    model.requires_grad_(True)
    whole = gradients_of(model, [model(**batch_of(TEXTS)).loss])  # snip: of the mean loss
    agree(scores_of(model, TEXTS, "snip"), by_hand(model, "groups", whole), 1e-7)


def test_a_number_for_each_text():
    model = classifier(classes=1)
    texts = [{**each, "labels": 0.5 * place} for place, each in enumerate(TEXTS)]
    model.requires_grad_(True)
    batch = batch_of(texts)
    expected = gradients_of(model, [model(**{**batch, "labels": batch["labels"].double()}).loss])
    agree(scores_of(model, texts, "snip"), by_hand(model, "groups", expected), 1e-7)


def test_a_causal_model_predicts_its_labels_alone():
    model = exact("llama")
    text = {"input_ids": tokens(9, 5), "attention_mask": [1] * 9, "labels": [-100] * 5 + tokens(9, 5)[5:]}
    model.requires_grad_(True)
    expected = gradients_of(model, [model(**{name: torch.tensor([each]) for name, each in text.items()}).loss])
    agree(scores_of(model, [text], "snip"), by_hand(model, "groups", expected), 1e-6)  # the library's loss is float32


@pytest.mark.parametrize("method", GRADIENTS)
def test_every_method_takes_unequal_pairs_and_classifiers(method):
    """Whatever stands in the padding, and in whichever order the texts come: what is removed is the same."""
    for model, examples in ((stacked_model("t5"), PAIRS), (classifier().float(), TEXTS)):
        batch = batch_of(examples)
        batch["input_ids"][batch["attention_mask"] == 0] = 17
        kept = []
        for given in (examples, batch, [batch]):
            report = prune(copy.deepcopy(model), given, method, ratio=0.1, progress=False)
            assert 0.1 <= report.ratio < 0.105
            kept.append({name: each.tolist() for name, each in report.keep.items()})
        assert kept[0] == kept[1] == kept[2]


def test_moments_are_of_tokens_alone():
    """No batch holds padding, and every text is in one."""
    batches = batches_of(windows_of(PAIRS))
    assert [tuple(each.ids.shape) for each in batches] == [(1, 7), (2, 4), (1, 11)]
    assert sorted(row for each in batches for row in each.ids.tolist()) == sorted(each["input_ids"] for each in PAIRS)
    model, seen = stacked_model("t5", torch.float64), []
    model.config.pad_token_id = PADDING
    name = "decoder.block.1.layer.2.DenseReluDense.wo"
    consumer, dense = model.get_submodule(name), model.get_submodule(name).weight.clone()
    hook = consumer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = batch_of(PAIRS)
    with torch.no_grad():
        model(**batch)
    hook.remove()
    tokens_of_targets = seen[0][batch["labels"] != -100]
    scores = dense.abs() * tokens_of_targets.norm(dim=0)
    prune(model, PAIRS, "wanda", sparsity=0.5, per_row=False, include=name, progress=False)
    gone = scores.flatten().argsort()[: scores.numel() // 2]
    assert (consumer.weight.flatten()[gone] == 0).all() and (consumer.weight == 0).sum() == scores.numel() // 2


# -- what cannot be differentiated -------------------------------------------------------------------------------------


class Detached(T5ForConditionalGeneration):
    """Its logits are computed, and then cut off."""

    def forward(self, **given):
        answer = super().forward(**given)
        answer.logits = self.cut(answer.logits)
        return answer

    @staticmethod
    def cut(logits: torch.Tensor) -> torch.Tensor:
        return logits.detach()


class Whole(Detached):
    @staticmethod
    def cut(logits: torch.Tensor) -> torch.Tensor:
        return logits.argmax(dim=-1, keepdim=True)


def t5_of(kind):
    return kind(AutoConfig.for_model("t5", **T5, vocab_size=VOCABULARY)).eval()


@pytest.mark.parametrize("method", GRADIENTS)
def test_outputs_without_derivatives_are_refused_in_a_sentence(method):
    for kind, message in (
        (Detached, "do not depend on its weights as torch.autograd sees it"),
        (Whole, "are int64, and whole"),
    ):
        model = t5_of(kind)
        before = {name: each.clone() for name, each in model.named_parameters()}
        with pytest.raises(ValueError, match=message) as found:
            prune(model, PAIRS, method, ratio=0.1, progress=False)
        assert "\n" not in str(found.value) and kind.__name__ in str(found.value)
        assert all(each.equal(before[name]) for name, each in model.named_parameters())


@pytest.mark.parametrize("method", ["tasp", "snip", "grasp", "llm-pruner"])
def test_labels_that_are_missing_or_of_another_kind_are_refused(method):
    config = AutoConfig.for_model("bert", **STACKS["bert"][1], vocab_size=VOCABULARY)
    for model, given, message in (
        (classifier(), WINDOWS, "BertForSequenceClassification predicts a label of each text, and the windows have none"),
        (classifier(), PAIRS, "predicts one label of each text, and the labels are texts: give a class for each"),
        (classifier(classes=2), TEXTS, "the labels run from 0 to 2, but .* predicts one of 2 classes, 0 to 1"),
        (BertModel(config).eval(), TEXTS, "BertModel predicts no tokens"),
        (stacked_model("t5"), TEXTS, "T5ForConditionalGeneration predicts tokens, and the labels are one number"),
        (stacked_model("t5"), [pair(4, 3, 1) | {"labels": [1, VOCABULARY]}], f"a vocabulary of {VOCABULARY} tokens"),
    ):
        with pytest.raises(ValueError, match=message) as found:
            prune(model, given, method, ratio=0.1, progress=False)
        assert "\n" not in str(found.value)


def test_frozen_parameters_are_as_good_as_any():
    model, frozen = classifier().float().requires_grad_(True), classifier().float()
    free, fixed = (prune(each, TEXTS, "tasp", ratio=0.1, progress=False) for each in (model, frozen))
    assert all(np.array_equal(free.keep[name], fixed.keep[name]) for name in fixed.keep)
    assert all(each.grad is None and not each.requires_grad for each in frozen.parameters())


def test_batches_of_a_collator_are_their_texts():
    plain, loaded = windows_of(PAIRS), windows_of([batch_of(PAIRS[:2]), batch_of(PAIRS[2:])])
    assert isinstance(plain, Tokens) and plain.digest == loaded.digest
    assert plain.digest != windows_of([*PAIRS[:3], {**PAIRS[3], "labels": PAIRS[2]["labels"]}]).digest
