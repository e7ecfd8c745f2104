"""Figures of pairs of models against the whole logits of both."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from stacked_models import WINDOWS as PAIRS
from stacked_models import stacked_model
from tiny import VOCABULARY, random_model, tiny_model

from gramian.adapters.measure import next_tokens
from gramian.adapters.measure.continuations import agreement_lengths, greedy
from gramian.adapters.measure.differences import buckets, compared
from gramian.adapters.measure.embeddings import cosines, neighbours_kept

ROWS = torch.randint(VOCABULARY, (5, 20), generator=torch.Generator().manual_seed(1))


def changed(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return other


def logs_of(model, rows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        if model.config.model_type == "t5":
            first, second = rows[:, :10], rows[:, 10:]
            before = torch.cat([torch.zeros_like(second[:, :1]), second[:, :-1]], dim=1)
            return model(input_ids=first, decoder_input_ids=before).logits.double().log_softmax(dim=-1)
        return model(input_ids=rows).logits[:, :-1].double().log_softmax(dim=-1)


CASES: dict[str, Any] = {
    "llama": lambda: tiny_model("llama"),
    "gemma2": lambda: tiny_model("gemma2"),  # with capped logits
    "cohere": lambda: random_model("cohere", logit_scale=0.0625),
    "t5": lambda: stacked_model("t5"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_figure_is_that_of_the_whole_logits(name, monkeypatch):
    monkeypatch.setattr(next_tokens, "LOGITS", 7 * VOCABULARY)  # 7 positions at a time, of 19 or 10
    dense = CASES[name]()
    model, rows = changed(dense), PAIRS[:5] if name == "t5" else ROWS
    found = compared(model, dense, rows, batch=2, progress=False)
    ours, theirs = logs_of(model, rows), logs_of(dense, rows)
    target = rows[:, -ours.shape[1] :, None]
    np.testing.assert_allclose(found.losses, -ours.gather(2, target).squeeze(2), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.dense_losses, -theirs.gather(2, target).squeeze(2), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.divergence, (theirs.exp() * (theirs - ours)).sum(dim=2), rtol=1e-3, atol=1e-5)
    assert np.array_equal(found.agreement, ours.argmax(dim=2) == theirs.argmax(dim=2))
    assert 0 < found.agreement.mean() < 1 and found.first == rows.shape[1] - ours.shape[1]


def test_a_model_differs_in_nothing_from_itself():
    model = tiny_model("qwen3")
    found = compared(model, copy.deepcopy(model), ROWS, progress=False)
    assert not found.divergence.any() and found.agreement.all()
    alone = compared(model, None, ROWS, batch=5, progress=False)
    np.testing.assert_allclose(alone.losses, found.losses, rtol=1e-5, atol=1e-5)
    assert alone.divergence is None and alone.dense_losses is None


def test_a_token_that_the_dense_model_rules_out_adds_nothing(monkeypatch):
    dense = tiny_model("llama")
    forward = dense.lm_head.forward
    monkeypatch.setattr(dense.lm_head, "forward", lambda hidden: forward(hidden).index_fill(-1, torch.tensor([3]), -torch.inf))
    rows = torch.where(ROWS == 3, 4, ROWS)
    assert np.isfinite(compared(tiny_model("llama"), dense, rows, progress=False).divergence).all()


def test_damage_is_named():
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    with pytest.raises(ValueError, match=r"losses of the dense model, LlamaForCausalLM, are NaN or infinite at window 0"):
        compared(tiny_model("llama"), model, ROWS, progress=False)


@pytest.mark.parametrize(
    ("first", "length", "expected"),
    [
        (1, 100, [(1, 16), (16, 32), (32, 64), (64, 100)]),
        (1, 16, [(1, 16)]),
        (10, 20, [(10, 20)]),
        (1, 65, [(1, 16), (16, 32), (32, 65)]),
        (1, 2, [(1, 2)]),
    ],
)
def test_buckets_of_positions(first, length, expected):
    assert buckets(first, length) == expected


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "gpt2"])
def test_continuations_are_those_of_generate(model_type):
    model = tiny_model(model_type)
    prompts = ROWS[:, :6]
    mask = torch.ones_like(prompts)
    expected = model.generate(
        prompts, attention_mask=mask, max_new_tokens=9, min_new_tokens=9, do_sample=False, eos_token_id=None
    )
    assert greedy(model, prompts, 9, progress=False).equal(expected[:, 6:])


def test_agreement_ends_at_the_first_difference():
    one, other = torch.tensor([[1, 2, 3, 4]] * 3), torch.tensor([[1, 2, 9, 4], [9, 2, 3, 4], [1, 2, 3, 4]])
    assert agreement_lengths(one, other).tolist() == [2, 0, 4]


def test_embeddings_beside_loops():
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(8, 5, generator=generator)
    after = before + 0.8 * torch.randn(8, 5, generator=generator)

    def nearest(points, place):
        unit = [point / point.norm() for point in points.double()]
        return max((other for other in range(8) if other != place), key=lambda other: float(unit[place] @ unit[other]))

    kept = [nearest(before, place) == nearest(after, place) for place in range(8)]
    assert neighbours_kept(before, after).tolist() == kept and 0 < sum(kept) < 8
    expected = [float(one @ other / one.norm() / other.norm()) for one, other in zip(before.double(), after.double())]
    np.testing.assert_allclose(cosines(before, after), expected, rtol=1e-12)
