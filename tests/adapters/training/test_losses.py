"""Losses and their derivatives, chunk by chunk, against plain torch on all logits at once."""

from __future__ import annotations

import pytest
import torch
from tiny import VOCABULARY, random_model, some_windows
from torch.nn.functional import cross_entropy, kl_div

from gramian.adapters.training import losses
from gramian.adapters.training.losses import Trunk, head_of, losses_at, mean_loss
from gramian.adapters.training.schedule import positions_of

ROWS = some_windows(3, 4)
TYPES = ["llama", "gemma2", "opt", "gpt2", "granite"]  # gemma2 caps its logits, granite scales them


def plain(model, teacher, positions, blend):
    """(1 - b) CE + b KL at some positions, by torch's own functions, with gradients by its tape."""
    made, target = model(ROWS).logits, ROWS[:, 1:]
    at = positions[:, :, None].expand(-1, -1, VOCABULARY)
    logs = made.gather(1, at).flatten(0, 1).log_softmax(1)
    wanted = target.gather(1, positions).flatten()
    with torch.no_grad():
        other = teacher(ROWS).logits.gather(1, at).flatten(0, 1).log_softmax(1)
    next_token = cross_entropy(logs, wanted)
    divergence = kl_div(logs, other, log_target=True, reduction="batchmean")
    return next_token, divergence, (1 - blend) * next_token + blend * divergence


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_loss_and_its_derivative_are_those_of_plain_torch(model_type, chunk, monkeypatch):
    monkeypatch.setattr(losses, "LOGITS", chunk * VOCABULARY)
    model, teacher = (random_model(model_type, seed=seed) for seed in (0, 1))
    embeddings = {id(each.weight) for each in (model.get_input_embeddings(), model.get_output_embeddings())}
    for each in model.parameters():
        each.requires_grad_(id(each) not in embeddings)
    positions = positions_of(ROWS, 0.5, 3)
    assert positions.shape == (3, 12) and (positions.diff() > 0).all() and positions.max() < 23
    hidden = Trunk(model)(ROWS, positions).flatten(0, 1)
    with torch.no_grad():
        taught = (head_of(teacher), Trunk(teacher)(ROWS, positions).flatten(0, 1))
    target = ROWS[:, 1:].gather(1, positions).flatten()
    loss = mean_loss(head_of(model), hidden, target, taught, 0.3)
    (3 * loss).backward()
    grads = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    next_token, divergence, expected = plain(model, teacher, positions, 0.3)
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    found = losses_at(head_of(model), hidden.detach(), target, taught)
    assert found.next_token.item() / 36 == pytest.approx(next_token.item(), rel=1e-5)
    assert found.distillation.item() / 36 == pytest.approx(divergence.item(), rel=1e-4)
    assert len(grads) > 5
    largest = max(float(each.abs().max()) for each in grads.values())
    for name, each in model.named_parameters():
        if each.grad is not None:
            torch.testing.assert_close(grads[name], each.grad, rtol=1e-3, atol=1e-5 * largest, msg=name)


def test_without_a_teacher_it_is_the_next_token():
    model = random_model("llama")
    positions = positions_of(ROWS, 1.0, 0)
    assert positions.tolist() == [list(range(23))] * 3
    with torch.no_grad():
        found = losses_at(head_of(model), Trunk(model)(ROWS, positions).flatten(0, 1), ROWS[:, 1:].flatten(), None)
        expected = model(ROWS, labels=ROWS).loss
    assert found.next_token.item() / 69 == pytest.approx(expected.item(), rel=1e-5) and found.distillation == 0


def test_large_logits_do_not_overflow():
    """They are taken relative to their largest: KL of two peaks is the difference of two logits."""
    made = torch.tensor([[4000.0, 0.0, -4000.0]])
    sums = losses.Losses(torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))
    losses.add_losses(sums, made, torch.tensor([1]), [torch.tensor([[0.0, 3000.0, 0.0]]), torch.empty(1, 3)], 0.25, True)
    assert sums.next_token.item() == 4000 and sums.distillation.item() == pytest.approx(4000)
    assert made.tolist() == [[1.0, -1.0, 0.0]]  # q - 0.75 [v = w] - 0.25 p


@pytest.mark.parametrize(
    ("model_type", "dtype"), [("llama", torch.bfloat16), ("gemma3_text", torch.bfloat16), ("gemma2", None)]
)
def test_a_frozen_head_in_lower_precision_is_what_autocast_makes_of_it(model_type, dtype):
    """It is cast once, so that it needs no autocast; where logits are more than an embedding's, the model's own forward makes
    them as before. Derivatives go through both."""
    model = random_model(model_type)
    hidden = torch.randn((5, model.config.hidden_size), generator=torch.Generator().manual_seed(0), requires_grad=True)
    model.get_output_embeddings().requires_grad_(False)
    made = head_of(model, torch.bfloat16).logits(hidden)
    assert made.dtype == (dtype or torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ways = [head_of(model, each).logits(hidden) for each in (torch.bfloat16, None)]
    torch.testing.assert_close(*ways, rtol=0, atol=0)
    slopes = [torch.autograd.grad(each.float().square().sum(), hidden)[0] for each in ways]
    torch.testing.assert_close(*slopes, rtol=0, atol=0)


def test_a_head_that_something_wraps_is_left_to_it():
    """Hooks of a head, and forwards that libraries put in place of its own, are not gone round."""
    hidden = torch.ones((2, random_model("llama").config.hidden_size))
    hooked = random_model("llama")
    hooked.get_output_embeddings().register_forward_hook(lambda module, inputs, output: 2 * output)
    replaced = random_model("llama")
    head = replaced.get_output_embeddings()
    head.forward = lambda hidden, own=head.forward: 2 * own(hidden)
    with torch.no_grad():
        expected = 2 * random_model("llama").get_output_embeddings()(hidden)
        for model in (hooked, replaced):
            torch.testing.assert_close(head_of(model, torch.bfloat16).logits(hidden), expected, rtol=0, atol=0)


def test_memory_for_logits_is_used_again(monkeypatch):
    """Fewer rows are a part of it, more of either are made anew, and nothing depends on what was in it."""
    monkeypatch.setattr(losses, "LOGITS", 4 * 7)  # chunks of four, four and one
    head = losses.Head(lambda hidden: 1.5 * hidden, 7)
    processor = torch.device("cpu")
    assert [each.shape for each in head.room(2, 1, processor)] == [(2, 7)]
    first = head.room(4, 3, processor)
    assert [each.shape for each in first] == [(4, 7)] * 3
    assert head.room(2, 1, processor)[0].data_ptr() == first[0].data_ptr()
    generator = torch.Generator().manual_seed(1)
    hidden, target = torch.randn((9, 7), generator=generator), torch.arange(9) % 7
    found = []
    for content in (0.0, float("nan")):
        for each in head.room(4, 3, processor):
            each.fill_(content)
        slope = torch.full_like(hidden, float("nan"))
        sums = losses_at(head, hidden, target, (head, hidden.flip(0)), 0.5, slope)
        found.append((sums.next_token, sums.distillation, slope))
    assert found[0][1] > 0 and found[0][2].isfinite().all()
    for before, after in zip(*found):
        torch.testing.assert_close(before, after, rtol=0, atol=0)
