"""Saliency methods against gradients by hand: loops over windows, parameters and units, and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from saliency_by_hand import WINDOWS, agree, by_hand, context, gradients, products, scores
from structured_models import exact
from tiny import names_of, tiny_model

from gramian.adapters.methods import saliency
from gramian.adapters.methods.gradients import UnitSums, descend, leaves_of, prediction_value
from gramian.adapters.methods.unit_sets import unit_set_of
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import axis, operator

HEADS = [("llama", "groups"), ("llama", "per_kv_group"), ("gpt2", "groups"), ("opt", "groups")]


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


@pytest.mark.parametrize(("model_type", "heads"), HEADS)
@pytest.mark.parametrize("importance", ["element", "vector"])
def test_importances_of_coupled_operators_are_put_together(model_type, heads, importance):
    """By hand: the numbers of one operator after the other, all others zero, and absolute values before or after the sum."""
    model = exact(model_type)
    weights = dict(model.named_parameters())
    loss = [gradients(model, window, "loss") for window in WINDOWS]
    numbers = {name: sum(each[name] for each in loss) / len(loss) * weight for name, weight in weights.items()}
    if importance == "element":
        numbers = {name: each.abs() for name, each in numbers.items()}
    parts = []  # (operators, units) of every module
    for place, unit_set in enumerate(context(model, heads).unit_sets):
        unit_group, found = unit_set.unit_group, []
        for path in (*(f"{unit_group.block}.{path}" for path, _ in unit_group.structure.producers), unit_set.name):
            only = {name: each if name.rpartition(".")[0] == path else 0 * each for name, each in numbers.items()}
            found.append(np.abs(by_hand(model, heads, only)[place]))
        parts.append(np.array([each for each in found if each.any()]))  # keys and values that query heads share go with none
    options = {"order": 1, "importance": importance}
    agree(scores("llm-pruner", model, heads, **options), [each.sum(axis=0) for each in parts])
    agree(scores("llm-pruner", model, heads, **options, group="product"), [each.prod(axis=0) for each in parts])
    agree(scores("llm-pruner", model, heads, **options, group="max"), [each.max(axis=0) for each in parts])
    agree(scores("llm-pruner", model, heads, **options, group="last"), [each[-1] for each in parts])


@pytest.mark.parametrize("model_type", ["opt", "gpt2"])
def test_gradient_flow_is_the_fall_of_the_squared_gradient(model_type):
    """- d |g|^2 / dt / 2 as all weights of a unit shrink by the factor 1 - t, by central differences of |g|^2."""
    model = exact(model_type)
    found = scores("grasp", model)
    names = set(leaves_of(model, context(model).unit_sets))

    def squared_gradient() -> float:
        samples = [gradients(model, window, "loss") for window in WINDOWS]
        return sum(float((sum(each[name] for each in samples) / len(samples)).square().sum()) for name in names)

    def scaled(unit_group, unit: int, factor: float) -> None:
        for name, side, at in unit_group.slabs(np.array([unit]), np.array([unit])):
            module, scale = operator(model, name), torch.ones(1, dtype=torch.float64)
            scale = scale.repeat(module.weight.shape[axis(module, side)]).index_fill(0, torch.from_numpy(at), factor)
            module.weight.mul_(scale if axis(module, side) == 1 else scale[:, None])
            if side == "outputs":
                module.bias.mul_(scale)

    for place, unit_group in enumerate(unit_groups_of(model).values()):
        values = []
        for factor in (1 + 1e-4, 1 - 1e-4):
            scaled(unit_group, 1, factor)
            values.append(squared_gradient())
            scaled(unit_group, 1, 1 / factor)
        assert found[place][1] == pytest.approx((values[0] - values[1]) / 4e-4, rel=1e-5, abs=1e-9)


def test_the_gradient_is_that_of_finite_differences():
    model = exact("opt")  # its norms are in float64 too
    leaves, found = leaves_of(model, context(model).unit_sets), {}
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
    weights = {name: model.get_parameter(name) for name in leaves_of(model, context(model).unit_sets)}
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
    model = exact("opt")
    one, three = context(model, windows=WINDOWS[:1]), context(model)

    def squared(leaves, window):
        return 0.5 * (prediction_value(model, leaves, window, "logit") - 3.0) ** 2

    value = saliency.value_of(one, "logit")
    slope = abs(float(value({}, WINDOWS[0])) - 3.0)
    agree(saliency.first_order(one, squared, False), [slope * each for each in saliency.first_order(one, value, True)])
    for a, b in zip(saliency.first_order(three, squared, False), saliency.first_order(three, value, True)):
        assert np.abs(a / a.sum() - b / b.sum()).max() > 0.01 * (b / b.sum()).max()


def incoming_and_outgoing(model, leaves, value, number) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sums of number(gradient, weight) over incoming and over outgoing weights of the units of every feed-forward module."""
    unit_sets = [
        unit_set_of(model, unit_group)
        for unit_group in unit_groups_of(model).values()
        if unit_group.name in names_of(model, "channels")
    ]
    sums = UnitSums(model, unit_sets)
    descend(value, leaves, lambda name, found: sums.add(name, number(found, leaves[name])))
    pairs = []
    for unit_set in unit_sets:
        (path, _), *others = unit_set.unit_group.structure.producers
        assert not others
        pairs.append((sums.slices[f"{unit_set.unit_group.block}.{path}"], sums.slices[unit_set.name]))
    return pairs


def test_what_flows_in_flows_out():
    """ReLU: signed sums over incoming weights, biases included, are those over outgoing ones; GELU: not."""
    for model_type, conserved in (("opt", True), ("gpt2", False)):
        model = exact(model_type)
        leaves = leaves_of(model, [unit_set_of(model, unit_groups_of(model)[name]) for name in names_of(model, "channels")])
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
