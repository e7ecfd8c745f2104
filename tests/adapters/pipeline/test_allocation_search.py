"""Budgets searched by the model's output: levels and divergences by hand, totals, reports, runs that fail or go on."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from command_line import FAST, call, model_fixture, no_network_fixture, short_builtin_text_fixture  # noqa: F401
from expert_models import expert_model
from stacked_models import stacked_model
from tiny import HELDOUT, WINDOWS, parameters, random_model, same, some_windows, tensors, tiny_model

import gramian
from gramian.adapters import PruneConfig
from gramian.adapters.estimates.runs import disk_space, run_estimate
from gramian.adapters.methods.unit_sets import unit_set_of
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.passes import searched
from gramian.adapters.passes.depth import divided
from gramian.adapters.passes.level_gradients import gradients, has_gradients, prices_by, slopes_of
from gramian.adapters.passes.level_judge import LevelJudge, ModelLevels
from gramian.adapters.passes.levels import OperatorLevels, counts_of, zeros_of
from gramian.adapters.passes.planned import plan_of
from gramian.adapters.passes.sparsities import patterns_with, together
from gramian.adapters.run.journal import Journal, journal_of
from gramian.adapters.run.level_files import DENSE, LevelFiles
from gramian.adapters.targets import AllZero
from gramian.solvers import TopK
from gramian.solvers.levels import level_search
from gramian.solvers.levels.level_search import Confirmed, search_levels

FIGURES = ("uniform", "start", "found", "final", "found - start", "found - uniform")
MANY = some_windows(16, 4)


@pytest.fixture(name="few", autouse=True)
def few_fixture(monkeypatch):
    """Searches that end soon."""
    monkeypatch.setattr(level_search, "CANDIDATES", 6)


def prune(model: Any, method: str = "sparsegpt", **settings: Any) -> Any:
    arguments: dict[str, Any] = {"tokens": MANY, "heldout": HELDOUT, "allocation": "search", "progress": False}
    arguments |= settings
    return gramian.prune(model, arguments.pop("tokens"), method, **arguments)


@torch.no_grad()
def logits(model: Any, windows: torch.Tensor) -> torch.Tensor:
    return model(input_ids=windows, use_cache=False).logits.double().log_softmax(-1)


def divergence(dense: torch.Tensor, found: torch.Tensor) -> float:
    return float((dense.exp() * (dense - found)).sum(-1).mean())


def zeros(model: Any, report: Any) -> int:
    return sum(int((model.get_submodule(row.name).weight == 0).sum()) for row in report.operators)


# -- levels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.7, 0.99])
def test_levels_of_weights_go_from_none_to_all_through_what_is_given(sparsity, per_row):
    pattern = TopK(sparsity, per_row)
    found = zeros_of((6, 40), pattern)
    assert found[0] == 0 and found[-1] == 240 and list(found) == sorted(set(found))
    assert int((~pattern.select(np.random.default_rng(0).random((6, 40)))).sum()) in found
    assert not per_row or all(count % 6 == 0 for count in found)
    for count in found[1:-1]:
        mask = TopK(count / 240, per_row).select(np.random.default_rng(1).random((6, 40)))
        assert int((~mask).sum()) == count


def test_levels_of_units_go_down_to_the_least():
    model = tiny_model("llama")
    for group in unit_groups_of(model).values():
        unit_set = unit_set_of(model, group)
        counts = counts_of(unit_set, 1)
        assert counts[0] == unit_set.removable and counts[-1] == 1 and list(counts) == sorted(set(counts), reverse=True)
        if unit_set.channels:
            assert all(count % 8 == 0 for count in counts_of(unit_set, 8, 8))


def test_levels_come_back_from_the_disk_as_they_were(tmp_path):
    files, weights = LevelFiles(tmp_path), torch.randn(3, 5)
    files.write("a.b", {DENSE: weights, "1": weights.bfloat16(), "2": weights.half()})
    assert files.read("a.b", DENSE).equal(weights)
    assert files.read("a.b", "1").equal(weights.bfloat16()) and files.read("a.b", "2").equal(weights.half())


# -- the judge ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2", "opt"])
def test_divergences_are_those_of_whole_models(name, tmp_path):
    """Whatever was asked before and is kept, and the dense weights come back to the bit."""
    model, files = tiny_model(name), LevelFiles(tmp_path)
    dense, before = logits(model, HELDOUT), parameters(model)
    config = PruneConfig("sparsegpt", include="down_proj|o_proj|c_proj|fc2|out_proj")
    rows = []
    for operator in plan_of(model, config)[0]:  # type: ignore[index]
        layer = gramian.adapters.models.layers.Layer.at(model, operator)
        noisy = [layer.weight + 0.1 * level * torch.randn_like(layer.weight) for level in (1, 2)]
        files.write(operator, {DENSE: layer.weight.contiguous(), "1": noisy[0], "2": noisy[1]})
        rows.append(OperatorLevels(operator, (0, 1, 2, 3), (0.0, 0.1, 0.2, 1.0), vanishes=True))
    judge = LevelJudge(ModelLevels(model, files, rows), HELDOUT, 2)
    generator = np.random.default_rng(0)
    for turn in range(8):
        choice = tuple(generator.integers(4, size=len(rows)).tolist())
        found = judge(choice, range(2))
        for part, windows in enumerate(HELDOUT.tensor_split(2)):
            expected = divergence(dense[: len(windows)] if part == 0 else dense[-len(windows) :], logits(model, windows))
            expected *= 2 * len(windows) / len(HELDOUT)
            assert found[part] == pytest.approx(expected, rel=1e-4, abs=1e-6)
            assert judge.present(part) == pytest.approx(found[part], rel=1e-6)
        assert np.mean(found) == pytest.approx(divergence(dense, logits(model, HELDOUT)), rel=1e-4, abs=1e-6)
        if turn % 2:
            judge.follow(choice)
    judge.levels.restore()
    assert same(before, parameters(model))


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2", "gpt_oss", "bert"])
def test_slopes_are_derivatives_of_the_divergence(name, tmp_path):
    """Central differences along the way to other levels, of operators that are transposed, packed, or in an encoder."""
    makers = {"gpt_oss": expert_model, "bert": stacked_model}
    model = makers.get(name, tiny_model)(name)
    model = model if name == "gpt_oss" else model.double()  # its grouped products know no float64
    before, files = parameters(model), LevelFiles(tmp_path)
    config = PruneConfig("sparsegpt", include="experts" if name == "gpt_oss" else "down_proj|o_proj|c_proj|output|up_proj")
    rows = []
    torch.manual_seed(0)
    for operator in plan_of(model, config)[0]:  # type: ignore[index]
        layer = gramian.adapters.models.layers.Layer.at(model, operator)
        noisy = [layer.weight + 0.1 * level * layer.weight.std() * torch.randn_like(layer.weight) for level in (1, 2)]
        files.write(operator, {DENSE: layer.weight.contiguous(), "1": noisy[0], "2": noisy[1]})
        rows.append(OperatorLevels(operator, (0, 1, 2, 3), (0.0, 0.1, 0.2, 1.0), vanishes=True))
    levels = ModelLevels(model, files, rows)
    judge, choice = LevelJudge(levels, HELDOUT, 2), (1,) * len(rows)
    assert has_gradients(judge) and same(before, parameters(model))
    levels.put(choice)
    judge.follow(choice)
    found = dict(gradients(judge))
    assert sorted(found) == list(range(len(rows)))
    smooth = [place for place in range(len(rows)) if name != "gpt_oss" or levels.block[place] == max(levels.block)]  # no router
    for place in smooth[:: max(1, len(smooth) // 6)]:
        slopes, layer, step = slopes_of(judge, place, found[place]), levels.layers[place], 1e-2
        for level in (0, 2, 3):
            here = layer.weight.clone()
            change = levels.weight(place, level).to(here) - here
            values = []
            for sign in (1, -1):
                layer.weight.copy_(here + sign * step * change)
                values.append(np.mean([judge.present(part, levels.block[place]) for part in range(2)]))
            layer.weight.copy_(here)
            assert slopes[level] == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.01, abs=1e-5)
        assert slopes[1] == 0
    prices = prices_by(judge, choice, lambda: None)
    assert all(each[1] == 0 and np.isfinite(each).all() for each in prices)
    levels.restore()
    assert same(before, parameters(model)) and not any(each.grad is not None for each in model.parameters())


def test_where_there_is_no_gradient_steps_are_measured(monkeypatch):
    model, given = tiny_model("llama"), {}

    def watched(*arguments, **settings):
        given.update(settings)
        return search_levels(*arguments, **settings)

    monkeypatch.setattr(searched, "search_levels", watched)
    block = model.model.layers[1]
    monkeypatch.setattr(block, "forward", torch.no_grad()(block.forward))
    report = prune(model, sparsity=0.6)
    assert given["prices"] is None and report.settings["search"]["accepted"] >= 1


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize(
    "settings", [{"sparsity": 0.6}, {"sparsity": {"down|c_fc": 0.7, "*": 0.5}, "per_row": True, "include": "mlp"}]
)
def test_a_search_of_weights(name, settings):
    """The total is that of the uniform choice, what is reported is true of the model, and no worse than the start."""
    model, plain = tiny_model(name), tiny_model(name)
    dense = logits(model, HELDOUT)
    if name == "gemma3_text":
        settings = {"include": "layers.[01].mlp"} | settings
    uniform = prune(plain, **settings, allocation="uniform")
    report = prune(model, **settings)
    found = report.settings["search"]
    row = max(report.operators, key=lambda each: each.shape[0])
    off = abs(zeros(model, report) - zeros(plain, uniform))
    assert off == 0 if "per_row" not in settings else off <= row.shape[0]
    assert report.settings["pattern"] == uniform.settings["pattern"]
    assert found["found"] <= found["start"] and found["measure"] == "output" and found["accepted"] >= 1
    assert found["ended"].startswith("no better choice") and found["rounds"] > 0 and found["evaluations"] > 0
    heldout = found["heldout"]
    assert set(FIGURES) <= set(heldout) and heldout["windows"] == len(HELDOUT)
    assert heldout["final"]["mean"] == pytest.approx(divergence(dense, logits(model, HELDOUT)), rel=1e-3)
    assert heldout["found - start"]["mean"] == pytest.approx(heldout["found"]["mean"] - heldout["start"]["mean"], abs=1e-9)
    assert "divergence" in str(report)


def test_encoders_are_judged_by_their_hidden_states_and_experts_are_operators():
    model = stacked_model("bert")
    report = prune(model, sparsity=0.6, include="output|intermediate")
    found = report.settings["search"]
    assert found["measure"] == "hidden" and found["found"] <= found["start"] and "relative error" in str(report)
    mixture, plain = expert_model("gpt_oss"), expert_model("gpt_oss")
    report = prune(mixture, sparsity=0.6, include="experts", search_minutes=0.05)
    uniform = prune(plain, sparsity=0.6, include="experts", allocation="uniform")
    assert len(report.operators) == len(uniform.operators) >= 8 and report.sparsity == pytest.approx(uniform.sparsity, abs=1e-3)
    assert report.settings["search"]["found"] <= report.settings["search"]["start"]


def test_the_uniform_choice_is_the_method_on_dense_inputs():
    """Its divergence, and its standard error over windows, by hand."""
    model, other = tiny_model("llama"), tiny_model("llama")
    dense = logits(model, HELDOUT)
    found = prune(model, sparsity=0.6, search_minutes=1e-6).settings["search"]["heldout"]["uniform"]
    gramian.prune(other, divided(MANY)[0], "sparsegpt", sparsity=0.6, calibrate_on="dense", progress=False)
    after = logits(other, HELDOUT)
    each = [divergence(one, two) for one, two in zip(dense, after)]
    assert found["mean"] == pytest.approx(np.mean(each), rel=1e-4)
    assert found["standard_error"] == pytest.approx(np.std(each, ddof=1) / len(each) ** 0.5, rel=1e-3)


def test_a_block_that_does_little_becomes_sparser_than_others():
    model = random_model("llama", num_hidden_layers=3)
    with torch.no_grad():
        for path in ("self_attn.o_proj", "mlp.down_proj"):
            model.model.layers[1].get_submodule(path).weight.mul_(1e-3)
    report = prune(model, sparsity=0.5, include="mlp|o_proj")
    sparsity = {
        number: np.mean([row.sparsity for row in report.operators if f"layers.{number}." in row.name]) for number in range(3)
    }
    assert sparsity[1] > 0.6 > 0.5 > max(sparsity[0], sparsity[2])
    found = report.settings["search"]["heldout"]
    assert found["found - uniform"]["mean"] < -3 * found["found - uniform"]["standard_error"]


def test_operators_and_modules_may_vanish(monkeypatch):
    """Then no method is asked for them, whatever it is, and the others have what is left of the total."""

    def vanished(budget, objective, state, *, groups, prices, time_limit, keep):
        choice = [len(each) - 1 if place in groups[0] else 0 for place, each in enumerate(budget.amounts)]
        place = len(choice) - 1
        while budget.total(choice) < budget.wanted:
            choice[place] += 1
            place = place - 1 if choice[place] == len(budget.amounts[place]) - 2 else place
        found = Confirmed(tuple(choice), tuple(objective(tuple(choice), range(len(state.present.values)))))
        return replace(state, best=found, ended="it was told to")

    monkeypatch.setattr(searched, "search_levels", vanished)
    model, plain = tiny_model("llama"), tiny_model("llama")
    uniform = prune(plain, sparsity=0.5, allocation="uniform")
    report = prune(model, "l0", sparsity=0.5, options={"steps": 5})
    assert zeros(model, report) == zeros(plain, uniform)
    gone = [row for row in report.operators if ".layers.0.self_attn." in row.name]
    assert len(gone) == 4 and all(row.sparsity == 1 and row.pattern == "100%" and row.relative_error == 1 for row in gone)
    assert all(row.residual == 0 for row in gone)


def test_what_may_vanish_together_is_a_module_or_a_block():
    names = ["a.0.attn.q", "a.0.attn.o", "a.0.mlp.up", "a.1.mlp.up", "a.1.mlp.down"]
    assert together(["a.0", "a.1"], names) == [(0, 1), (3, 4), (0, 1, 2)]
    assert together(["a.0"], ["a.0.attn.q", "a.0.attn.o"]) == []  # something has to stay


def test_counts_are_settled_at_the_total():
    model = tiny_model("llama")
    names = [f"model.layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")]
    given = dict.fromkeys(names, TopK(0.5))
    size = model.get_submodule(names[0]).weight.numel()
    found = patterns_with(model, given, dict(zip(names, (0, size, size // 2 + 7))), 3 * size // 2)
    assert found[names[1]] == AllZero() and found[names[0]] == TopK(0.0)
    assert found[names[2]].zeros(size) == size // 2
    assert AllZero().admits(np.zeros((2, 2), dtype=bool)) and not AllZero().admits(np.eye(2, dtype=bool))


def test_outliers_make_blocks_denser_by_hand():
    model = random_model("llama", num_hidden_layers=3)
    with torch.no_grad():
        for each in ("gate_proj", "up_proj", "down_proj"):
            model.model.layers[1].mlp.get_submodule(each).weight[::7, ::5] *= 20
    ratios = []
    with gramian.capture(model, [name for name, module in model.model.layers.named_modules(prefix="model.layers")
                                 if isinstance(module, torch.nn.Linear)]) as layers:  # fmt: skip
        logits(model, MANY)
    for number in range(3):
        some = [layer for name, layer in layers.items() if f"layers.{number}." in name]
        scores = np.concatenate([
            np.ravel(np.abs(layer.weight.double().numpy()) * np.sqrt(np.diag(layer.moments.gram))) for layer in some
        ])  # fmt: skip
        ratios.append(float((scores > 5 * scores.mean()).mean()))
    assert ratios[1] == max(ratios) and len(set(ratios)) > 1
    plain = copy.deepcopy(model)
    uniform = prune(plain, "wanda", sparsity=0.6, per_row=False, allocation="uniform")
    report = prune(model, "wanda", sparsity=0.6, per_row=False, allocation="owl")
    assert zeros(model, report) == zeros(plain, uniform) and report.settings["allocation"] == "owl"
    spread = 0.16 * (np.array(ratios) - min(ratios)) / (max(ratios) - min(ratios))
    for number in range(3):
        some = [row for row in report.operators if f"layers.{number}." in row.name]
        found = sum(row.sparsity * np.prod(row.shape) for row in some) / sum(np.prod(row.shape) for row in some)
        assert found == pytest.approx(0.6 + spread.mean() - spread[number], abs=1e-3)


# -- units -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {"ratio": 0.3}),
        ("llama", {"ratio": 0.3, "heads": "per_kv_group"}),
        ("llama", {"ratio": 0.3, "round_to": 8}),
        ("gemma3_text", {"ratio": 0.5, "swap_search": True}),
        ("gpt2", {"ratio": 0.4}),
    ],
)
def test_a_search_of_units(name, settings, tmp_path):
    model = tiny_model(name)
    dense, inside = logits(model, HELDOUT), PruneConfig("numerical", **settings)
    amount = plan_of(model, inside).amount  # type: ignore[union-attr]
    report = prune(model, "numerical", **settings)
    found, removed = report.settings["search"], report.parameters[0] - report.parameters[1]
    channel = 3 * model.config.hidden_size if name != "gpt2" else 2 * model.config.hidden_size + 1
    multiple = settings.get("round_to", 1)
    assert removed == sum(parameter.numel() for parameter in tiny_model(name).parameters()) - report.parameters[1]
    assert amount <= removed < amount + channel if multiple == 1 else abs(removed - amount) <= multiple * channel / 2
    assert found["found"] <= found["start"]
    assert found["heldout"]["final"]["mean"] == pytest.approx(divergence(dense, logits(model, HELDOUT)), rel=1e-3)
    if multiple > 1:
        assert all(row.units[1] % multiple == 0 for row in report.modules if "mlp" in row.name)
    again = gramian.load(gramian.save(model, None, tmp_path / "out", report=report))[0]
    assert torch.allclose(logits(again, HELDOUT), logits(model, HELDOUT), atol=1e-4)


# -- runs that fail, and runs that go on -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sparsegpt", "numerical"])
def test_a_run_that_fails_in_the_search_leaves_the_model_as_it_was(method, monkeypatch):
    model = tiny_model("llama")
    before = parameters(model)

    def failing(budget, objective, state, **settings):
        objective(tuple(len(each) - 1 for each in budget.amounts), [0])
        assert not same(before, parameters(model))
        raise KeyboardInterrupt

    monkeypatch.setattr(searched, "search_levels", failing)
    with pytest.raises(KeyboardInterrupt):
        prune(model, method)
    assert same(before, parameters(model))


@pytest.mark.parametrize("amount", [("sparsegpt", "--sparsity", "0.6"), ("numerical", "--ratio", "0.4")])
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(amount, model, tmp_path, monkeypatch):
    method, *how = amount
    windows = ["--samples", "12", "--length", "32", "--heldout", "3"]
    command = ["prune", model, "--method", method, *how, "--allocation", "search", *windows, "--no-perplexity"]
    command += ["--include", "mlp|o_proj"]
    assert call(*command, "--out", tmp_path / "whole") == 0
    assert not journal_of(tmp_path / "whole").exists()
    write, kept = Journal.write, []

    class Killed(BaseException):
        pass

    def until(name: str, count: int) -> None:
        left = [count]

        def writing(self, *given):
            write(self, *given)
            left[0] -= given[0] == name
            if not left[0]:
                raise Killed

        monkeypatch.setattr(Journal, "write", writing)
        arguments = ["--resume"] if kept else []
        with pytest.raises(Killed):
            call(*command, "--out", tmp_path / "parts", *arguments)
        kept.append(sorted(file.name for file in journal_of(tmp_path / "parts").iterdir()))

    for name, count in (("levels", 1), ("search", 1), ("search", 4), ("search", 3), ("weights" if how[0] == "--sparsity" else
                                                                                    "removal", 1)):  # fmt: skip
        until(name, count)
    assert "levels" in kept[0] and "search-00000.safetensors" not in kept[0]
    assert any(name.startswith("levels-") for name in kept[0]) and "search-00000.safetensors" in kept[1]
    monkeypatch.setattr(Journal, "write", write)
    assert call(*command, "--out", tmp_path / "parts", "--resume") == 0
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert set(whole) == set(parts) and all(whole[name].equal(parts[name]) for name in whole)
    assert not journal_of(tmp_path / "parts").exists()


def test_minutes_bound_the_search(monkeypatch):
    given = {}

    def watched(*arguments, **settings):
        given.update(settings)
        return search_levels(*arguments, **settings | {"time_limit": 1e-9})

    monkeypatch.setattr(searched, "search_levels", watched)
    model = tiny_model("llama")
    found = prune(model, search_minutes=0.5).settings
    assert given["time_limit"] == 30 and found["search"]["ended"] == "the time was over"
    assert found["search"]["found"] == found["search"]["start"] and found["search_minutes"] == 0.5
    assert PruneConfig("l0", allocation="search").own("search_minutes") == 30


def test_what_a_search_takes_is_foreseen():
    model = tiny_model("llama")
    for method in ("sparsegpt", "numerical"):
        config, plain = PruneConfig(method, allocation="search", search_minutes=2), PruneConfig(method)
        plan = plan_of(model, config)
        assert disk_space(model, config, plan) > disk_space(model, plain, plan_of(model, plain))
        seconds = run_estimate(model, (16, 24), config, heldout=4).seconds
        assert seconds["search"] == 120 and "search" not in run_estimate(model, (16, 24), plain).seconds


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": "2:4"}, "allocation='search' moves zeros from operator to operator, and the pattern 2:4"),
        ({"sparsity": {"mlp": "2:4", "*": 0.5}, "allocation": "owl"}, "allocation='owl' moves zeros"),
        (
            {"allocation": "loss"},
            "allocation='loss' does not go with 'sparsegpt', which zeroes single weights: take one of uni",
        ),
        ({"allocation": "uniform", "search_minutes": 3}, "search_minutes=3 needs allocation='search'"),
        ({"search_minutes": 0}, "search_minutes must be a number above 0 but is 0"),
        ({"search_minutes": float("inf")}, "search_minutes must be a number above 0 but is inf"),
        ({"heldout": [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}] * 3}, "not of labels"),
        ({"method": "numerical", "allocation": "owl"}, "allocation='owl' does not go with 'numerical', which removes whole"),
        ({"method": "flap"}, "makes up for removed units in a bias"),
        ({"method": "experts"}, "removes whole experts"),
        ({"method": "depth"}, "removes whole blocks"),
        ({"method": "greedy-output", "heads_by_similarity": True}, "leave one of them out"),
        ({"heldout": None}, "only held-out ones say what it has gained"),
        ({"tokens": WINDOWS[:1]}, "there is one: give two or more"),
        ({"device": "cpu"}, "one block at a time is on cpu"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_work(settings, message):
    model = tiny_model("llama")
    before = parameters(model)
    with pytest.raises(ValueError, match=message) as caught:
        prune(model, settings.pop("method", "sparsegpt"), **settings)
    assert same(before, parameters(model)) and len(str(caught.value).splitlines()) == 1


def test_models_that_are_one_piece_or_streamed_are_refused(model, tmp_path, capsys):
    with pytest.raises(ValueError, match="needs a model that runs block by block"):
        prune(stacked_model("t5"))
    command = ["prune", model, "--out", tmp_path / "out", "--method", "sparsegpt", "--allocation", "search", *FAST]
    assert call(*command, "--memory", "stream") == 1
    assert "--memory host" in capsys.readouterr().err
    assert call(*command, "--heldout", "0") == 1
    assert "held-out" in capsys.readouterr().err and not (tmp_path / "out").exists()
