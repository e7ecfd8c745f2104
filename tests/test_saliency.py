"""Saliency methods against gradients by hand: loops over windows, parameters and units, and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from structured_models import TOKENS, exact, pruned
from tiny import names_of, tiny_model

from gramian.adapters import saliency
from gramian.adapters.gradients import UnitSums, descend, leaves_of, prediction_value
from gramian.adapters.structure import axis, operator, parts_of
from gramian.adapters.structured_methods import STRUCTURED_METHODS, Survey
from gramian.adapters.units import menu_of

WINDOWS = TOKENS[:3, :12]
METHODS = ("tasp", "snip", "grasp", "synflow", "ntk-sap", "px", "llm-pruner")
HEADS = [("llama", "groups"), ("llama", "even"), ("gpt2", "groups"), ("opt", "groups")]


def survey(model, heads="groups", windows=WINDOWS) -> Survey:
    return Survey(model, windows, [menu_of(model, part, heads) for part in parts_of(model).values()])


def scores(name: str, model, heads="groups", windows=WINDOWS, **options) -> list[np.ndarray]:
    return list(STRUCTURED_METHODS[name].look(survey(model, heads, windows), options))


def gradients(model, window: torch.Tensor, output: str) -> dict[str, torch.Tensor]:
    """Of all parameters, by the model's own backward pass."""
    model.requires_grad_(True).zero_grad(set_to_none=True)
    logits = model(input_ids=window[None], use_cache=False).logits[0, :-1]
    rows = torch.arange(len(logits))
    value = logits[rows, window[1:]] if output == "logit" else -logits.log_softmax(-1)[rows, window[1:]]
    value.mean().backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.requires_grad_(False).zero_grad(set_to_none=True)
    return found


def by_hand(model, heads: str, of_weights: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """Sums of numbers of all weights over what leaves with each atom, entry by entry."""
    found = []
    for part in parts_of(model).values():
        menu = menu_of(model, part, heads)
        totals = []
        for units in menu.atoms:
            total = 0.0
            groups = np.empty(0, dtype=int) if menu.even else np.unique(units // part.members)
            for name, side, places in part.slabs(units, groups):
                for place in places:
                    total += float(of_weights[f"{name}.weight"].select(axis(operator(model, name), side), place).sum())
                    if side == "outputs" and f"{name}.bias" in of_weights:
                        total += float(of_weights[f"{name}.bias"][place])
            totals.append(total)
        found.append(np.array(totals))
    return found


def products(model) -> dict[str, torch.Tensor]:
    """|gradient . weight| of every parameter that has a gradient."""
    named = {name: each for name, each in model.named_parameters() if each.grad is not None}
    return {name: (each.grad * each).abs().detach() for name, each in named.items()}


def agree(found, expected, rtol=1e-9):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-12 * np.abs(other).max())


# -- the scores --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model_type", "heads"), HEADS)
def test_first_and_second_order_scores(model_type, heads):
    model = exact(model_type)
    weights = dict(model.named_parameters())
    logit, loss = ([gradients(model, window, output) for window in WINDOWS] for output in ("logit", "loss"))

    def summed(number):
        return by_hand(model, heads, {name: number(name, weight).abs() for name, weight in weights.items()})

    def mean(found, name, power=1):
        return sum(each[name] ** power for each in found) / len(found)

    samples = [summed(lambda name, weight, each=each: each[name] * weight) for each in logit]
    each = [np.mean(units, axis=0) for units in zip(*samples)]
    batch = summed(lambda name, weight: mean(logit, name) * weight)
    agree(scores("tasp", model, heads), each)
    agree(scores("tasp", model, heads, samples="batch"), batch)
    assert all((one >= other - 1e-12).all() and (one > other).any() for one, other in zip(each, batch))  # batches cancel
    agree(scores("snip", model, heads), summed(lambda name, weight: mean(loss, name) * weight))
    agree(scores("llm-pruner", model, heads, order=1), scores("snip", model, heads))
    second = summed(lambda name, weight: mean(loss, name) * weight - 0.5 * mean(loss, name, 2) * weight**2)
    agree(scores("llm-pruner", model, heads), second)
    for output in ("loss", "logprob"):
        agree(scores("tasp", model, heads, output=output), scores("snip", model, heads, samples="each"))


@pytest.mark.parametrize("model_type", ["opt", "gpt2"])
def test_gradient_flow_is_the_fall_of_the_squared_gradient(model_type):
    """- d |g|^2 / dt / 2 as all weights of a unit shrink by the factor 1 - t, by central differences of |g|^2."""
    model = exact(model_type)
    found = scores("grasp", model)
    names = set(leaves_of(model, survey(model).menus))

    def squared_gradient() -> float:
        samples = [gradients(model, window, "loss") for window in WINDOWS]
        return sum(float((sum(each[name] for each in samples) / len(samples)).square().sum()) for name in names)

    def scaled(part, unit: int, factor: float) -> None:
        for name, side, at in part.slabs(np.array([unit]), np.array([unit])):
            module, scale = operator(model, name), torch.ones(1, dtype=torch.float64)
            scale = scale.repeat(module.weight.shape[axis(module, side)]).index_fill(0, torch.from_numpy(at), factor)
            module.weight.mul_(scale if axis(module, side) == 1 else scale[:, None])
            if side == "outputs":
                module.bias.mul_(scale)

    for place, part in enumerate(parts_of(model).values()):
        values = []
        for factor in (1 + 1e-4, 1 - 1e-4):
            scaled(part, 1, factor)
            values.append(squared_gradient())
            scaled(part, 1, 1 / factor)
        assert found[place][1] == pytest.approx((values[0] - values[1]) / 4e-4, rel=1e-5, abs=1e-9)


def test_the_gradient_is_that_of_finite_differences():
    model = exact("opt")  # its norms are in float64 too
    leaves, found = leaves_of(model, survey(model).menus), {}
    descend(prediction_value(model, leaves, WINDOWS[0], "logit"), leaves, lambda name, each: found.update({name: each}))
    assert set(found) == set(leaves)
    for name, gradient in found.items():
        weight = model.get_parameter(name)
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        kept, values = weight.clone(), []
        for step in (1e-5, -1e-5):
            weight.copy_(kept + step * direction)
            values.append(float(prediction_value(model, {}, WINDOWS[0], "logit")))
        weight.copy_(kept)
        assert (gradient * direction).sum() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("model_type", ["llama", "opt", "gpt2"])
def test_perturbed_outputs(model_type):
    """Two draws by hand: the gradient is that of the plain model less that of the perturbed one."""
    model = exact(model_type)
    found = scores("ntk-sap", model, epsilon=1e-3, draws=2, seed=5)
    generator = torch.Generator().manual_seed(5)
    weights = {name: model.get_parameter(name) for name in leaves_of(model, survey(model).menus)}
    total = dict.fromkeys(weights, 0.0)
    for _ in range(2):
        inputs = {"inputs_embeds": torch.randn(1, 12, 32, generator=generator).double(), "use_cache": False}
        noise = [1e-3**0.5 * torch.randn(*weight.shape, generator=generator) for weight in weights.values()]

        def moved(sign: int, noise=noise):
            for weight, each in zip(weights.values(), noise):
                weight.data.add_(sign * each)

        plain = model(**inputs).logits
        moved(1)
        difference = 2 * (plain - model(**inputs).logits)
        model.requires_grad_(True)
        for sign, step in ((-1, -1), (1, 0)):
            value = (sign * difference * model(**inputs).logits).sum()
            for name, each in zip(weights, torch.autograd.grad(value, list(weights.values()))):
                total[name] = total[name] + each / 2
            moved(step)
        model.requires_grad_(False)
    zeros = {name: torch.zeros_like(each) for name, each in model.named_parameters()}
    agree(found, by_hand(model, "groups", zeros | {name: each.abs() for name, each in total.items()}), rtol=1e-5)


# -- identities --------------------------------------------------------------------------------------------------------


def test_one_sample_and_a_loss_of_the_output_rank_alike():
    """L = (f - y)^2 / 2 of one window: |dL/df| times the saliency of f; of several windows the rankings differ."""
    model = exact("llama")
    one, three = survey(model, windows=WINDOWS[:1]), survey(model)

    def squared(leaves, window):
        return 0.5 * (prediction_value(model, leaves, window, "logit") - 3.0) ** 2

    value = saliency.value_of(one, "logit")
    slope = abs(float(value({}, WINDOWS[0])) - 3.0)
    agree(saliency.first_order(one, squared, False), [slope * each for each in saliency.first_order(one, value, True)])
    ratios = [a / b for a, b in zip(saliency.first_order(three, squared, False), saliency.first_order(three, value, True))]
    assert all(each.max() > 1.01 * each.min() for each in ratios)


def incoming_and_outgoing(model, leaves, value, number) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sums of number(gradient, weight) over incoming and over outgoing weights of the units of every feed-forward module."""
    menus = [menu_of(model, part) for part in parts_of(model).values() if part.name in names_of(model, "channels")]
    sums = UnitSums(model, menus)
    descend(value, leaves, lambda name, found: sums.add(name, number(found, leaves[name])))
    pairs = []
    for menu in menus:
        (path, _), *others = menu.part.structure.producers
        assert not others
        pairs.append((sums.slices[f"{menu.part.block}.{path}"], sums.slices[menu.name]))
    return pairs


def test_what_flows_in_flows_out():
    """ReLU: signed sums over incoming weights, biases included, are those over outgoing ones; GELU: not."""
    for model_type, conserved in (("opt", True), ("gpt2", False)):
        model = exact(model_type)
        leaves = leaves_of(model, [menu_of(model, parts_of(model)[name]) for name in names_of(model, "channels")])
        value = prediction_value(model, leaves, WINDOWS[0], "logit")
        for entering, leaving in incoming_and_outgoing(model, leaves, value, lambda found, weight: found * weight):
            same = np.abs(entering - leaving).max() < 1e-10 * np.abs(leaving).max()
            assert same == conserved and np.abs(leaving).max() > 0


@pytest.mark.parametrize("model_type", ["opt", "llama"])
def test_synaptic_flow_is_the_saliency_at_absolute_weights_and_ones(model_type):
    model, other = exact(model_type), exact(model_type)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    found = scores("synflow", model)
    assert all(parameter.equal(before[name]) for name, parameter in model.named_parameters())
    for parameter in other.parameters():
        parameter.abs_()
    other.requires_grad_(True)
    other(inputs_embeds=torch.ones(1, 12, 32, dtype=torch.float64), use_cache=False).logits.sum().backward()
    agree(found, by_hand(other, "groups", products(other)))
    single = tiny_model(model_type)
    assert scores("synflow", single)[0].dtype == np.float64 and np.isfinite(scores("synflow", single.bfloat16())[0]).all()


def test_paths_of_a_relu_model():
    """R by its definition, from two models of the same architecture whose activation functions are patched."""
    model = exact("opt")
    found = scores("px", model)
    gates = []
    total = 0.0
    for window in WINDOWS:
        gates.clear()
        for block in model.model.decoder.layers:
            vars(block)["activation_fn"] = lambda given: (gates.append((given > 0).double()), given.relu())[1]
        model(input_ids=window[None])
        units = exact("opt")
        for parameter in units.parameters():
            parameter.fill_(1.0)
        for place, block in enumerate(units.model.decoder.layers):
            vars(block)["activation_fn"] = lambda given, place=place: given * gates[place]
        embedded = model.get_input_embeddings()(window[None]) ** 2
        total = total + units(inputs_embeds=embedded, use_cache=False).logits / len(WINDOWS)
    squares = exact("opt")
    for parameter in squares.parameters():
        parameter.square_()
    for block in squares.model.decoder.layers:
        vars(block)["activation_fn"] = lambda given: given
    squares.requires_grad_(True)
    (squares(inputs_embeds=torch.ones_like(embedded), use_cache=False).logits * total).sum().backward()
    agree(found, by_hand(squares, "groups", products(squares)))


# -- the model afterwards, and refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_left_behind(name, monkeypatch):
    model = tiny_model("llama").train()
    before = {name: (each, each.clone(), each.requires_grad) for name, each in model.named_parameters()}
    mine = torch.ones_like(model.model.layers[0].mlp.up_proj.weight)
    model.model.layers[0].mlp.up_proj.weight.grad = mine
    one, two = scores(name, model), scores(name, model)
    assert all(np.array_equal(a, b) for a, b in zip(one, two))
    monkeypatch.setattr(UnitSums, "add", lambda *_: (_ for _ in ()).throw(RuntimeError("stop")))
    with pytest.raises(RuntimeError, match="stop"):
        scores(name, model)
    for key, parameter in model.named_parameters():
        kept, value, required = before[key]
        assert parameter is kept and parameter.equal(value) and parameter.requires_grad == required
        assert parameter.grad is (mine if "layers.0.mlp.up_proj" in key else None)
        assert not parameter._backward_hooks and not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", METHODS)
def test_dead_and_duplicate_units(name):
    model = tiny_model("llama")
    for block in model.model.layers:
        with torch.no_grad():
            block.mlp.down_proj.weight[:, :3] = 0
            for weight in (block.mlp.up_proj.weight, block.mlp.gate_proj.weight):
                weight[:3] = 0
                weight[10:14] = weight[20:24]
            block.mlp.down_proj.weight[:, 10:14] = block.mlp.down_proj.weight[:, 20:24]
    for part, found in zip(parts_of(model).values(), scores(name, model)):
        assert np.isfinite(found).all()
        if part.size == 1:
            if name != "ntk-sap":  # noise tells duplicates apart
                np.testing.assert_allclose(found[10:14], found[20:24], rtol=1e-3, atol=1e-5 * np.abs(found).max())
                assert not found[:3].any()


@pytest.mark.parametrize("part", [0.0625, 0.25, 0.5, 0.9])
def test_half_of_all_units_leave_and_attention_stays(part):
    """h - ceil(r h) units stay of all modules together, with rows of producers and columns of the consumer cut alike."""
    model = exact("opt")
    inside = sum(each.numel() for each in model.model.decoder.layers.parameters())
    ratio = part * 2 * 48 * (2 * 32 + 1) / inside
    for allocation in ("numerical", "uniform"):
        model, report = pruned(exact("opt"), method="tasp", ratio=ratio, allocation=allocation)
        assert [row.name for row in report.modules] == names_of(model, "channels")
        left = [row.units[1] for row in report.modules]
        assert sum(left) == 96 - math.ceil(part * 96) and all(each.residual is None for each in report.modules)
        for block, width in zip(model.model.decoder.layers, left):
            assert block.fc1.weight.shape == (width, 32) and block.fc2.weight.shape == (32, width)
            assert block.self_attn.q_proj.weight.shape == (32, 32)
        if allocation == "uniform":
            assert max(left) - min(left) <= 1
    _, report = pruned(exact("opt"), method="tasp", include=".")
    assert [row.name for row in report.modules] == list(parts_of(model))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tasp", {"output": "entropy"}, "output must be one of logit, logprob, loss but is 'entropy'"),
        ("tasp", {"samples": "some"}, "samples must be one of each, batch but is 'some'"),
        ("snip", {"output": "loss"}, "snip has no option 'output'; it has samples"),
        ("llm-pruner", {"order": 3}, "order must be 1 or 2 but is 3"),
        ("ntk-sap", {"epsilon": 0.0}, "epsilon must be a positive number"),
        ("ntk-sap", {"draws": 0}, "draws must be a whole number of at least 1"),
        ("ntk-sap", {"seed": -1}, "seed must be a whole number of at least 0"),
        ("grasp", {"damping": 1.0}, "grasp has no option 'damping'; it has none"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        STRUCTURED_METHODS[name].bind(options)


def test_gradients_that_are_not_finite_name_their_operator():
    model = tiny_model("llama")
    model.model.norm.weight.data.fill_(3e38)
    with pytest.raises(ValueError, match=r"model\.layers\.\d\.[\w.]+: its gradients hold NaN or Inf"):
        scores("tasp", model)
