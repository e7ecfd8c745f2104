"""One width for all modules of a kind, and rounded widths: against every choice, counted in models that stock classes build."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from found_models import FOUND, found_model
from hypothesis import given
from hypothesis import strategies as st
from stacked_models import stacked_model
from structured_models import in_blocks, pruned
from tiny import SHAPES, random_model, tiny_model
from transformers import AutoConfig, AutoModelForCausalLM

from gramian.adapters import PruneConfig
from gramian.adapters.methods.rounded_widths import Rounding, rounded_counts
from gramian.adapters.methods.unit_sets import UnitSet
from gramian.adapters.models.shrink import shrink_model
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.removal.plan import plan_removal


def plan(model, **settings):
    return plan_removal(model, PruneConfig(**{"method": "random", "allocation": "equal"} | settings))


def widths(model, planned) -> dict[str, tuple[int, int]]:
    """Units and groups of every module after the plan, by the kind of its consumer."""
    found: dict[str, set] = {}
    for unit_set, count in zip(planned.unit_sets, planned.counts):
        found.setdefault(unit_set.name.rpartition(".")[2], set()).add(unit_set.width(count))
    assert all(len(each) == 1 for each in found.values())
    return {name: each.pop() for name, each in found.items()}


def parameters_of(config, **changed) -> dict[str, int] | None:
    """Parameters of attention and feed-forward modules in a model that the stock class builds, None where it refuses."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(type(config)(**config.to_dict() | changed))
    except Exception:
        return None
    found = {"o_proj": 0, "down_proj": 0}
    for name, each in model.named_parameters():
        if ".layers." in name and "norm" not in name:
            found["o_proj" if "self_attn" in name else "down_proj"] += each.numel()
    return found


CASES = [
    # a model type, changes to its shape, of what channels are multiples, and the number that heads have to divide if any
    ("llama", {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8}, None, 32),
    ("qwen3", {"num_attention_heads": 12, "num_key_value_heads": 6}, None, None),
    ("gemma3_text", {"num_attention_heads": 4, "num_key_value_heads": 4}, 16, 32),
    ("mistral", {"num_attention_heads": 5, "num_key_value_heads": 5, "intermediate_size": 47}, None, None),  # prime widths
    ("qwen2", {"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "intermediate_size": 96}, 4, None),
]


@pytest.mark.parametrize("ratio", [0.2, 0.5])
@pytest.mark.parametrize(("model_type", "shape", "multiple", "divided"), CASES)
def test_the_choice_is_the_best_of_all_that_the_stock_class_builds(model_type, shape, multiple, divided, ratio):
    """Every number of groups and of channels is built, and its parameters are counted."""
    model = random_model(model_type, **shape)
    config, planned = model.config, plan(model, ratio=ratio, round_to=multiple)
    heads, groups, channels = config.num_attention_heads, config.num_key_value_heads, config.intermediate_size
    step = multiple or next(step for step in (8, 4, 2, 1) if channels % step == 0)
    dense, amount = parameters_of(config), ratio * in_blocks(model)
    assert planned.amount == pytest.approx(amount)
    sizes = {"head_dim": getattr(config, "head_dim", None) or config.hidden_size // heads}
    total = sum(dense.values())
    attention, mlp, keys = {}, {}, {}
    for kept in range(1, groups + 1):
        units = kept * heads // groups
        narrow = parameters_of(config, num_attention_heads=units, num_key_value_heads=kept, **sizes)
        assert (narrow is None) == (divided is not None and divided % units > 0)
        if narrow is not None:
            attention[units, kept] = dense["o_proj"] - narrow["o_proj"]
    for width in range(step, channels + 1, step):
        mlp[width, width] = dense["down_proj"] - parameters_of(config, intermediate_size=width)["down_proj"]
    near = dense["down_proj"] / channels * step / 2
    for one, two in itertools.product(attention, mlp):
        removed = {"o_proj": attention[one], "down_proj": mlp[two]}
        miss = abs(sum(removed.values()) - amount)
        part = amount / (total if groups > 1 else dense["down_proj"])
        apart = sum(abs(removed[kind] - part * dense[kind]) for kind in dense if groups > 1 or kind == "down_proj")
        keys[one, two] = (max(miss, near), round(apart, 6), round(miss, 6))
    found = widths(model, planned)
    chosen = (found.get("o_proj", (heads, groups)), found["down_proj"])
    assert keys[chosen] == min(keys.values())
    assert keys[chosen][2] <= near + 1e-6 or min(each[2] for each in keys.values()) == keys[chosen][2]


def test_kinds_have_close_to_the_same_fraction_removed():
    """With heads as fine as here, both kinds are within a head of the ratio of all that can be removed."""
    model = random_model("qwen3", num_attention_heads=16, num_key_value_heads=16, head_dim=4, intermediate_size=192)
    for ratio in (0.25, 0.6):
        found = widths(model, plan(model, ratio=ratio))
        assert abs(1 - found["o_proj"][0] / 16 - (1 - found["down_proj"][0] / 192)) <= 1 / 16 + 8 / 192


@pytest.mark.parametrize("name", ["opt", "gpt2", "bert", "gpt_neox", "stablelm"])
def test_heads_that_are_tied_to_the_hidden_size_remain(name):
    make = {"bert": stacked_model}.get(name, tiny_model)
    model = found_model(*FOUND[name][:2]) if name in FOUND else make(name)
    groups = unit_groups_of(model)
    planned = plan(model, ratio=0.2)
    assert [each.name for each in planned.unit_sets] == [key for key, each in groups.items() if each.size == 1]
    assert set(planned.refused) == {key for key, each in groups.items() if each.size > 1}
    assert len(set(planned.counts)) == 1 and planned.counts[0] < 48
    with pytest.raises(ValueError, match=r"builds no fewer heads in every block.*another allocation"):
        plan(model, ratio=0.05, exclude="mlp", include="att")


def test_a_model_that_states_no_width_is_refused():
    with pytest.raises(ValueError, match="BloomForCausalLM builds no fewer channels in every block"):
        plan(found_model(*FOUND["bloom"][:2]), ratio=0.2)


def test_uneven_modules_become_equal():
    """No wider than the narrowest of them, whatever the ratio; one that asks for less than half of that is out of reach."""
    model = random_model("qwen3", num_hidden_layers=3, num_key_value_heads=4, intermediate_size=96)
    names = list(unit_groups_of(model))
    shrink_model(model, {names[0]: [0, 1, 2], names[1]: range(80), names[3]: range(40), names[5]: range(64)})
    found = widths(model, plan(model, ratio=0.3))
    assert found["o_proj"][0] <= 3 and found["down_proj"][0] <= 40
    _, report = pruned(model, method="magnitude-l2", allocation="equal", ratio=0.3)
    assert {row.units[1] for row in report.modules if "mlp" in row.name} == {found["down_proj"][0]}
    assert model.config.intermediate_size == found["down_proj"][0] and model.config.num_attention_heads == found["o_proj"][0]
    with pytest.raises(
        ValueError, match=r"a ratio of 0.01 is out of reach: 0.\d+ is the least that is removed for equal widths"
    ):
        plan(uneven_model(), ratio=0.01)


def uneven_model():
    model = random_model("qwen3", intermediate_size=96)
    shrink_model(model, {"model.layers.0.mlp.down_proj": range(48)})
    return model


def test_modules_without_a_width_in_common():
    model = random_model("qwen3", num_attention_heads=4, num_key_value_heads=2)
    shrink_model(model, {"model.layers.0.self_attn.o_proj": [0, 2]})  # one head of each group, where the other block has two
    with pytest.raises(ValueError, match=r"no width that .* have 2 units in 2 groups and 4 units in 2 groups"):
        plan(model, ratio=0.2)
    assert widths(model, plan(model, ratio=0.2, heads="per_kv_group"))["o_proj"] == (2, 2)


@pytest.mark.parametrize("name", ["t5", "gated t5"])
def test_stacks_of_one_width(name):
    model = stacked_model(name)
    planned = plan(model, ratio=0.1)
    assert len(set(planned.counts)) == 1 and planned.counts[0] % 8 == 0
    assert len(planned.counts) == model.config.num_layers + model.config.num_decoder_layers


def test_budgets_are_kept_to():
    model = random_model("llama", intermediate_size=96)
    whole = sum(each.numel() for each in model.parameters())
    for goes, allocation in itertools.product((1000, 7000), ("equal", "score")):
        for multiple in (None, 16) if allocation == "equal" else (16,):
            narrow = copy.deepcopy(model)
            _, report = pruned(
                narrow,
                method="magnitude-l2",
                ratio=None,
                budget=f"params={whole - goes}",
                round_to=multiple,
                allocation=allocation,
            )
            left = sum(each.numel() for each in narrow.parameters())
            assert report.parameters == (whole, left) and left <= whole - goes


# -- rounded widths ------------------------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(4, 17), min_size=1, max_size=4),
    seed=st.integers(0, 999),
    multiple=st.sampled_from([1, 2, 3, 4]),
    at_least=st.booleans(),
    bias=st.sampled_from([0, 2]),
)
def test_rounded_counts_are_the_best_multiples(sizes, seed, multiple, at_least, bias):
    """All multiples of every module are tried: the nearest sum first, then the least squared change. Heads stay as they are."""
    rng = np.random.default_rng(seed)
    groups = list(unit_groups_of(tiny_model("llama")).values())
    channels, heads = groups[1], groups[0]
    counts = [int(rng.integers(multiple, size + 1)) for size in sizes]
    unit_sets = [UnitSet(channels, np.arange(size)[:, None], False, 5) for size in sizes]
    unit_sets.append(UnitSet(heads, np.arange(4).reshape(2, 2), False, 70))
    counts.append(int(rng.integers(1, 3)))
    biases = [bias] * len(unit_sets)

    def removed(kept):
        return sum(
            (each.removable - count) * each.cost - bias * (count < each.removable) for each, count in zip(unit_sets, kept)
        )

    wanted = removed(counts) - float(rng.random())
    if wanted <= 0:
        return
    found = rounded_counts(counts, unit_sets, biases, wanted, Rounding(multiple, at_least))
    assert found[-1] == counts[-1] and all(count % multiple == 0 and 0 < count <= size for count, size in zip(found, sizes))
    assert not at_least or removed(found) >= wanted
    keys = {}
    options = []
    for count, size in zip(counts, sizes):
        whole = count == size and size % multiple == 0
        if bias and whole:  # a module from which nothing was to be removed
            options.append([size])
        else:
            options.append(
                [each for each in range(multiple, size + 1, multiple) if not bias or each < size or size == multiple]
            )
    near = multiple * 5 * (1 if at_least else 0.5)
    for kept in itertools.product(*options):
        total = removed([*kept, counts[-1]])
        if total > 0 and (total >= wanted or not at_least):
            keys[kept] = (max(abs(total - wanted), near), sum((a - b) ** 2 for a, b in zip(kept, counts)))
    if all(len(each) == 1 for each in options):
        return
    assert keys[tuple(found[:-1])] == min(keys.values())


@pytest.mark.parametrize("allocation", ["equal", "per_type", "score", "loss"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma3_text"])
def test_every_allocation_gives_multiples_and_meets_the_ratio(model_type, allocation):
    model = random_model(model_type, **({"n_inner": 88} if model_type == "gpt2" else {"intermediate_size": 88}))
    dense = copy.deepcopy(model)
    step = (2 if model_type == "gpt2" else 3) * 32 * 8 * len(unit_groups_of(model)) // 2  # at most, of all modules together
    for multiple in (8, 16):
        narrow, report = pruned(copy.deepcopy(dense), allocation=allocation, ratio=0.3, round_to=multiple)
        units = [row.units[1] for row in report.modules if row.units[0] == 88]
        assert all(count % multiple == 0 for count in units) and len(units) == len(unit_groups_of(model)) // 2
        miss = abs(in_blocks(dense) - in_blocks(narrow) - 0.3 * in_blocks(dense))
        assert miss <= step * multiple / 8 / (2 if allocation == "equal" else len(units))
        cost = report.settings["widths"]
        assert cost["removed"] == in_blocks(dense) - in_blocks(narrow) and f"multiples of {multiple}" in str(report)
        assert cost["wanted"] == pytest.approx(0.3 * in_blocks(dense))


@pytest.mark.parametrize("allocation", ["equal", "score"])
def test_multiples_that_are_none_are_refused_before_any_work(allocation):
    model = tiny_model("llama")
    with pytest.raises(
        ValueError, match=r"round_to=64 has no multiple among the 48 channels of model\.layers\.0\.mlp\.down_proj"
    ):
        plan(model, allocation=allocation, ratio=0.2, round_to=64)
    with pytest.raises(ValueError, match=r"0\.3[0-9]* is the least that is removed for .*multiples of 32"):
        plan(random_model("llama", num_key_value_heads=1, intermediate_size=63), allocation=allocation, ratio=0.1, round_to=32)
    with pytest.raises(ValueError, match="is the largest"):
        plan(model, allocation=allocation, ratio=0.7, round_to=16)
    with pytest.raises(ValueError, match="round_to must be a whole number of at least 1"):
        plan(model, allocation=allocation, ratio=0.2, round_to=0)
    with pytest.raises(ValueError, match=r"is the largest|multiples of 48"):
        plan(model, allocation=allocation, ratio=0.7, round_to=48)


def test_rounding_belongs_to_methods_that_remove_channels():
    for method in ("wanda", "experts"):
        with pytest.raises(ValueError, match=rf"round_to=8 does not go with '{method}'"):
            PruneConfig(method, round_to=8)


def test_configurations_are_those_of_the_shapes():
    """What the cases above take for granted of transformers: which classes have heads divide the hidden size."""
    for model_type, _, _, divided in CASES:
        shape = SHAPES[model_type] | {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 16}
        if divided is None:
            AutoConfig.for_model(model_type, **shape)
        else:
            with pytest.raises(Exception, match="hidden"):
                AutoConfig.for_model(model_type, **shape)
