"""Models trained further: the steps are those of plain torch, zeros stay, what is interrupted goes on to the same bytes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from expert_models import expert_model
from shrunk_models import changed, uneven, uniform
from tiny import WINDOWS, parameters, random_model, same, tiny_model
from torch import nn
from torch.nn.functional import cross_entropy, kl_div

import gramian
from gramian.adapters.data.generation import going_on
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.shrink import shrink_model
from gramian.adapters.training import loop
from gramian.adapters.training.loop import Training
from gramian.adapters.training.schedule import Pace, rows_of, split_windows
from gramian.adapters.training.weights import UnderMask, trained

TEXT = (torch.arange(20)[:, None] + torch.arange(1, 25) * (1 + torch.arange(20)[:, None] % 3)) % 40  # which can be learnt
PLAIN: dict[str, Any] = {
    "heldout": 4,
    "batch": 4,
    "at_once": 2,
    "positions": 1.0,
    "clip": 1e9,
    "warmup": 0.0,
    "progress": False,
}


def sparse(model_type: str, **amount: Any) -> nn.Module:
    model = tiny_model(model_type)
    gramian.prune(model, WINDOWS, "magnitude", progress=False, **(amount or {"sparsity": 0.5}))
    return model


def zero(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight == 0 for name, weight in blocks_of(model).named_parameters() if weight.ndim > 1}


def test_steps_are_those_of_plain_torch():
    """Four steps of AdamW on (1 - b) CE + b KL, with all logits at once, by a loop of our own."""
    model, teacher = sparse("llama", sparsity="2:4"), tiny_model("llama")
    other = copy.deepcopy(model)
    report = gramian.tune(model, TEXT, teacher=teacher, lr=1e-3, blend=0.3, decay=0.01, checks=1, patience=9, seed=5, **PLAIN)
    assert report.steps == 4 and report.best == 1
    windows, apart = split_windows(TEXT, 4, None, 5)
    chosen = [each for name, each in other.named_parameters() if "norm" in name or "layers" in name]
    masks = [(each != 0).float() for each in chosen]
    optimizer = torch.optim.AdamW(chosen, betas=loop.BETAS, weight_decay=0.01)

    def loss_on(rows: torch.Tensor) -> torch.Tensor:
        logs = other(rows).logits[:, :-1].flatten(0, 1).log_softmax(1)
        dense = teacher(rows).logits[:, :-1].flatten(0, 1).log_softmax(1).detach()
        return 0.7 * cross_entropy(logs, rows[:, 1:].flatten()) + 0.3 * kl_div(
            logs, dense, log_target=True, reduction="batchmean"
        )

    assert report.checks[0]["loss"] == pytest.approx(loss_on(apart).item(), rel=1e-5)
    for step in range(4):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 + torch.tensor(step / 4 * torch.pi).cos().item()) / 2
        optimizer.zero_grad()
        loss_on(windows[rows_of(16, 4, step, 5)]).backward()
        optimizer.step()
        with torch.no_grad():
            for each, mask in zip(chosen, masks):
                each.mul_(mask)
    for (name, each), expected in zip(model.named_parameters(), other.parameters()):
        torch.testing.assert_close(each, expected, rtol=1e-4, atol=2e-6, msg=name)
    assert report.checks[-1]["loss"] == pytest.approx(loss_on(apart).item(), rel=1e-4)


@pytest.mark.parametrize("train", ["norms", "lora", "kept"])
@pytest.mark.parametrize("model_type", ["gemma3_text", "gpt2", "mixtral"])
def test_zeros_stay_and_the_rest_is_what_it_was(train, model_type):
    model = expert_model("mixtral") if model_type == "mixtral" else sparse(model_type)
    with torch.no_grad():
        for each in blocks_of(model).parameters():
            each[..., ::3] *= each.ndim < 2  # -0 among them
    before, zeros, flags = parameters(model), zero(model), [each.requires_grad for each in model.parameters()]
    report = gramian.tune(model, TEXT, train=train, lr=1e-2, heldout=4, epochs=2, rank=3, progress=False)
    after = parameters(model)
    gates = {name for name in before if "gate.weight" in name}
    matrices = {name for name in zeros if train != "norms"}
    inside = blocks_of(model)
    path = next(name for name, module in model.named_modules() if module is inside)
    expected = {f"{path}.{name}" for name in matrices} - gates | {name for name in before if before[name].ndim < 2}
    assert {name for name in before if not before[name].equal(after[name])} == expected
    assert all(here.equal(zeros[name]) for name, here in zero(model).items())
    assert not any(torch.signbit(after[name][after[name] == 0]).any() for name in expected)
    assert report.zeros[0] == report.zeros[1] and report.checks[-1]["loss"] < report.checks[0]["loss"]
    assert [each.requires_grad for each in model.parameters()] == flags and not model.training


def test_a_low_rank_update_is_merged_under_the_mask():
    """W becomes M (W + 2 B A), as it was trained."""
    model = sparse("llama", sparsity="2:4")
    masks = gramian.HoldZeros(model).masks
    name = "model.layers.1.mlp.down_proj"
    before, module = parameters(model), model.get_submodule(name)
    with trained(model, "lora", 2, masks, 0) as weights:
        inner, outer = weights[f"{name}.weight.inner"], weights[f"{name}.weight.outer"]
        assert isinstance(module.parametrizations.weight[0], UnderMask) and (inner.shape, outer.shape) == ((2, 48), (32, 2))
        assert module.weight.equal(before[f"{name}.weight"])
        with torch.no_grad():
            outer.normal_()
        trained_as = model(WINDOWS).logits.detach()
        expected = masks[f"{name}.weight"] * (before[f"{name}.weight"] + 2 * outer @ inner)
    torch.testing.assert_close(module.weight, expected)
    assert model(WINDOWS).logits.equal(trained_as) and set(parameters(model)) == set(before)


@pytest.mark.parametrize("kept", [uniform, uneven])
@pytest.mark.parametrize("train", ["lora", "kept"])
def test_smaller_models_are_tuned(kept, train, tmp_path):
    dense = tiny_model("llama")
    model = changed(shrink_model, dense, kept(dense))
    shapes = {name: each.shape for name, each in model.named_parameters()}
    report = gramian.tune(model, TEXT, teacher=dense, train=train, blend=1.0, lr=1e-2, heldout=4, epochs=2, progress=False)
    assert report.checks[-1]["distillation"] < report.checks[0]["distillation"] and report.zeros == (0, 0)
    loaded, _ = gramian.load(gramian.save(model, None, tmp_path / "tuned", report=report))
    assert same(dict(model.state_dict()), dict(loaded.state_dict()))
    assert {name: each.shape for name, each in loaded.named_parameters()} == shapes


class Ended(Exception):
    """What interrupts a training."""


@pytest.mark.parametrize("train", ["lora", "kept"])
def test_a_training_goes_on_to_the_same_bytes(train, tmp_path, monkeypatch):
    """It is interrupted between checks; the model has the best weights so far then."""
    given: dict[str, Any] = {
        "train": train,
        "heldout": 4,
        "epochs": 3,
        "lr": 1e-2,
        "checks": 6,
        "patience": 9,
        "progress": False,
    }
    models = [sparse("gemma3_text") for _ in range(3)]
    whole = gramian.tune(models[0], TEXT, **given)
    step = Training.step

    def interrupted(self: Training, rate: float) -> None:
        if self.progress.step == 7:
            raise Ended
        step(self, rate)

    state = tmp_path / "state"
    monkeypatch.setattr(Training, "step", interrupted)
    with pytest.raises(Ended):
        gramian.tune(models[1], TEXT, state=state, **given)
    monkeypatch.setattr(Training, "step", step)
    assert sorted(file.name for file in state.iterdir()) == ["run.json", "tensors.safetensors"]
    assert all(here.equal(there) for here, there in zip(zero(models[1]).values(), zero(models[2]).values()))
    again = gramian.tune(models[2], TEXT, state=state, resume=True, **given)
    assert same(parameters(models[0]), parameters(models[2])) and not same(parameters(models[0]), parameters(models[1]))
    assert [each["loss"] for each in again.checks] == [each["loss"] for each in whole.checks]
    with pytest.raises(ValueError, match=r"is of another run: weights was .*settings.lr was 0.01 and is 0.02"):
        gramian.tune(models[1], TEXT, state=state, resume=True, **given | {"lr": 2e-2})
    (state / "tensors.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="cannot be read"):
        gramian.tune(models[1], TEXT, state=state, resume=True, **given)


def test_the_best_weights_are_kept(monkeypatch):
    """Held-out losses are made up: the lowest at the third check, after which two higher ones end the training."""
    made = iter([3.0, 2.0, 2.5, 1.0, 4.0, 5.0, 6.0])
    seen: list[dict[str, torch.Tensor]] = []
    check = Training.check

    def told(self: Training) -> dict[str, float]:
        seen.append(parameters(self.model))
        return {**check(self), "loss": next(made)}

    monkeypatch.setattr(Training, "check", told)
    model = sparse("llama")
    report = gramian.tune(model, TEXT, heldout=4, epochs=3, lr=1e-2, checks=10, patience=2, progress=False)
    assert len(seen) == 7 and report.best == 3 and report.stopped.startswith("stopped early")
    assert same(parameters(model), seen[3]) and same(seen[6], seen[3]) and not same(seen[5], seen[3])
    assert "kept" in str(report).splitlines()[6] and "as stored" in str(report).splitlines()[9]


def test_training_that_does_not_help_changes_nothing(monkeypatch):
    losses = iter(range(1, 9))
    check = Training.check
    monkeypatch.setattr(Training, "check", lambda self: {**check(self), "loss": float(next(losses))})
    model = sparse("llama")
    before = parameters(model)
    assert gramian.tune(model, TEXT, heldout=4, lr=1e-2, progress=False).best == 0
    assert same(before, parameters(model))


def test_windows_of_other_text_are_held_out():
    """Then all windows of the text train, and what is measured is the loss on the others, of whatever length."""
    other = TEXT.flip(0)[:3, :16]
    model = sparse("llama")
    before = model(other, labels=other).loss.item()
    settings = {**PLAIN, "heldout": 9, "lr": 1e-3, "checks": 1}
    report = gramian.tune(model, TEXT, heldout_tokens=other, **settings)
    assert report.steps == len(TEXT) // 4 and report.settings["heldout"] == 3 and "on 3 windows" in str(report)
    assert report.checks[0]["loss"] == pytest.approx(before, rel=1e-5)
    assert report.checks[-1]["loss"] == pytest.approx(model(other, labels=other).loss.item(), rel=1e-5)
    with pytest.raises(ValueError, match="token"):
        gramian.tune(model, TEXT, heldout_tokens=other + 100_000)


def test_what_is_measured_is_what_is_stored():
    """The model is rounded to its storage dtype; the last check is of these weights."""
    model = sparse("llama")
    model.config.dtype = torch.bfloat16
    report = gramian.tune(model, TEXT, heldout=4, lr=1e-2, positions=1.0, progress=False)
    assert all(each.equal(each.bfloat16().float()) for each in model.parameters())
    apart = split_windows(TEXT, 4, None, 0)[1]
    assert report.checks[-1]["loss"] == pytest.approx(model(apart, labels=apart).loss.item(), rel=1e-5)
    half = sparse("llama").bfloat16()
    gramian.tune(half, TEXT, heldout=4, progress=False)
    assert {each.dtype for each in half.parameters()} == {torch.bfloat16}


def test_activations_that_are_computed_again_change_nothing():
    models = [sparse("llama") for _ in range(2)]
    for model, again in zip(models, (False, True)):
        gramian.tune(model, TEXT, heldout=4, lr=1e-2, checkpointing=again, progress=False)
    for one, other in zip(models[0].parameters(), models[1].parameters()):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_every_epoch_has_every_window():
    seen = torch.cat([rows_of(10, 4, step, 3) for step in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10)) and not seen[:10].equal(seen[10:])
    assert not seen.equal(torch.cat([rows_of(10, 4, step, 4) for step in range(5)]))


def test_time_ends_a_training(monkeypatch):
    """A step that would end after the bound, with what follows it, is not begun; the learning rate falls to zero until then."""
    now = 0.0
    monkeypatch.setattr("gramian.adapters.training.schedule.time.monotonic", lambda: now)
    pace, rates, step = Pace(1000, 100.0, 0.1, reserve=10.0), [], 0
    while (part := pace.part(step)) < 1:
        rates.append(pace.rate(part))
        step, now = step + 1, now + 7.0
    assert 100 - 10 - 14 < now <= 100 - 10 and rates[-1] < 0.1 < max(rates) == pytest.approx(max(rates))
    monkeypatch.undo()
    assert Pace(10, None, 0.1).part(5) == 0.5 and Pace(10, None, 0.0).rate(0.5) == pytest.approx(0.5)
    model = sparse("llama")
    report = gramian.tune(model, TEXT, heldout=4, epochs=100_000, minutes=1 / 60, progress=False)
    assert report.stopped == "the time was over" and report.steps > 1 and report.seconds < 20


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "lr": ({"lr": 0.0}, "lr must be a number above 0 but is 0.0"),
    "batch": ({"batch": 3}, "batch=3 windows cannot go through the model at_once=2 at a time"),
    "train": ({"train": "all"}, "train must be one of norms, lora, kept but is 'all'"),
    "text": ({"heldout": 20}, "the text has 20 windows of 24 tokens, too few to train on any and hold 20 out"),
    "samples": ({"samples": 17, "heldout": 4}, "too few to train on 17 and hold 4 out"),
    "vocabulary": ({"teacher": random_model("llama", vocabulary=300)}, "vocabulary has 258 tokens and the teacher's 300"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_refused_before_any_work(name, monkeypatch):
    given, message = WRONG[name]
    model = sparse("llama")
    monkeypatch.setattr(Training, "__init__", None)
    with pytest.raises(ValueError, match=message):
        gramian.tune(model, TEXT, progress=False, **given)


def test_models_that_cannot_be_tuned_are_refused():
    model = sparse("llama")
    with pytest.raises(ValueError, match="the teacher is the model itself"):
        gramian.tune(model, TEXT, teacher=model)
    with pytest.raises(ValueError, match="has no head that predicts the next token"):
        gramian.tune(model.model, TEXT)
    with pytest.raises(TypeError, match="no setting 'learning_rate'"):
        gramian.tune(model, TEXT, learning_rate=1.0)
    with pytest.raises(ValueError, match="config is given, and so is lr"):
        gramian.tune(model, TEXT, config=gramian.adapters.TuneConfig(), lr=1.0)
    bare = random_model("olmo")  # its norms have no weights
    with pytest.raises(ValueError, match="neither norms nor biases"):
        gramian.tune(bare, TEXT, train="norms", heldout=4)


def test_a_loss_that_is_not_a_number_is_an_error():
    model = sparse("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.inf
    with pytest.raises(ValueError, match="is not a number"):
        gramian.tune(model, TEXT, heldout=4, progress=False)


def test_windows_that_the_teacher_writes_are_trained_on_too():
    """What follows from them is what follows from the same windows given as text."""
    model, teacher = sparse("llama"), tiny_model("llama")
    other = copy.deepcopy(model)
    settings = {**PLAIN, "heldout": 4, "lr": 1e-3, "blend": 1.0, "seed": 3}
    report = gramian.tune(model, TEXT, teacher=teacher, written=8, **settings)
    windows, apart = split_windows(TEXT, 4, None, 3)
    written = going_on(teacher, windows, 8, TEXT.shape[1] // 8, seed=3, progress=False)
    assert report.settings["tokens"] == [24, TEXT.shape[1]] and report.settings["written"] == 8
    assert 0 < report.writing < report.seconds and "s of them for what the teacher wrote" in str(report)
    del settings["heldout"]
    again = gramian.tune(other, torch.cat([windows, written]), teacher=teacher, heldout_tokens=apart, **settings)
    assert again.checks[-1]["loss"] == report.checks[-1]["loss"]
    assert same(parameters(other), parameters(model))


def test_what_was_written_is_not_written_again(tmp_path, monkeypatch):
    model, teacher = sparse("llama"), tiny_model("llama")
    settings = {**PLAIN, "lr": 1e-3, "blend": 1.0, "seed": 3, "teacher": teacher, "written": 8, "epochs": 2, "patience": 9}
    whole, other = copy.deepcopy(model), copy.deepcopy(model)
    gramian.tune(whole, TEXT, **settings)
    kept = loop.stored
    monkeypatch.setattr(loop, "stored", lambda *given: (kept(*given), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        gramian.tune(other, TEXT, state=tmp_path / "state", **settings)
    monkeypatch.setattr(loop, "stored", kept)
    monkeypatch.setattr(loop, "going_on", lambda *_, **__: pytest.fail("written again"))
    with pytest.raises(ValueError, match="is of another run"):
        gramian.tune(copy.deepcopy(model), TEXT, state=tmp_path / "state", resume=True, **{**settings, "seed": 4})
    report = gramian.tune(other := copy.deepcopy(model), TEXT, state=tmp_path / "state", resume=True, **settings)
    assert 0 < report.writing < report.seconds  # what it took before the run ended is counted
    assert same(parameters(whole), parameters(other))


def test_without_a_teacher_nobody_writes():
    with pytest.raises(ValueError, match="written=8 windows come from a teacher: give teacher="):
        gramian.tune(sparse("llama"), TEXT, written=8, **PLAIN)


def test_a_directory_with_something_else_is_left_alone(tmp_path):
    """Before any work, and after it where somebody has put something there in the meantime."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    model = sparse("llama")
    before = parameters(model)
    with pytest.raises(FileExistsError, match=r"holds something else: give state= a directory of its own"):
        gramian.tune(model, TEXT, heldout=4, state=tmp_path / "mine", progress=False)
    assert same(before, parameters(model)) and (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "state").mkdir()
    gramian.tune(model, TEXT, heldout=4, state=tmp_path / "state", progress=False)
    gramian.tune(model, TEXT, heldout=4, state=tmp_path / "state", progress=False)  # one state is replaced by another
    assert sorted(file.name for file in (tmp_path / "state").iterdir()) == ["run.json", "tensors.safetensors"]


def test_texts_with_labels_are_no_windows():
    """They may be padded, and padding would be learnt."""
    labelled = [{"input_ids": [1, 2, 3, 4 + n], "attention_mask": [1] * 4, "labels": [-100, -100, 3, 4 + n]} for n in range(6)]
    with pytest.raises(ValueError, match="tokens are texts with labels"):
        gramian.tune(sparse("llama"), labelled, heldout=2, progress=False)
    with pytest.raises(ValueError, match="heldout_tokens are texts with labels"):
        gramian.tune(sparse("llama"), TEXT, heldout_tokens=labelled, progress=False)


def test_sparse_weights_beside_a_low_rank_are_not_filled_in():
    model = tiny_model("llama")
    gramian.prune(model, WINDOWS, "sparse-low-rank", sparsity=0.5, heldout=None, progress=False)
    with pytest.raises(ValueError, match="training would make them dense"):
        gramian.tune(model, TEXT, heldout=4, progress=False)


def test_trainings_of_one_process_do_not_decide_for_each_other():
    """accelerate keeps the precision of the first one; what was there before is there afterwards."""
    from accelerate import Accelerator

    others = Accelerator(mixed_precision="no", cpu=True)
    found = []
    for precision in ("no", "bf16", "no"):
        model = sparse("llama")
        found.append(gramian.tune(model, TEXT, heldout=4, precision=precision, progress=False).checks[-1]["loss"])
    assert found[0] == found[2] != found[1]
    assert others.mixed_precision == "no" == Accelerator().mixed_precision


def test_what_was_stopped_early_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    """Nothing more is done, as when saving has failed after it."""
    how: dict[str, Any] = {
        "heldout": 2, "epochs": 9, "lr": 5e-2, "patience": 1, "checks": 30, "batch": 2, "at_once": 2, "progress": False,
    }  # fmt: skip
    one, other = sparse("llama"), sparse("llama")
    first = gramian.tune(one, TEXT, state=tmp_path / "state", **how)
    assert first.stopped.startswith("stopped early") and first.steps < 81
    monkeypatch.setattr(Training, "step", lambda self, rate: pytest.fail("it went on"))
    again = gramian.tune(other, TEXT, state=tmp_path / "state", resume=True, **how)
    assert again.stopped == first.stopped and again.steps == first.steps and same(parameters(one), parameters(other))


def test_an_interrupted_training_leaves_what_can_be_stored(monkeypatch, tmp_path):
    """The best weights so far, rounded to the dtype of the checkpoint; the same training with them is another one."""
    model, step = sparse("llama"), Training.step
    model.config.dtype = torch.bfloat16
    before = parameters(model)

    def interrupted(self: Training, rate: float) -> None:
        if self.progress.step == 6:
            raise Ended
        step(self, rate)

    monkeypatch.setattr(Training, "step", interrupted)
    how: dict[str, Any] = {"heldout": 4, "epochs": 3, "lr": 1e-2, "checks": 6, "state": tmp_path / "s", "progress": False}
    with pytest.raises(Ended):
        gramian.tune(model, TEXT, **how)
    assert all(each.equal(each.bfloat16().float()) for each in model.parameters()) and not same(before, parameters(model))
    with pytest.raises(ValueError, match="Repeat that run, with the model as it was before it, to go on"):
        gramian.tune(model, TEXT, resume=True, **how)
