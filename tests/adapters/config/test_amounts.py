"""How sparse operators become: numbers, patterns, and rules by name, of which the first that matches holds."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import WINDOWS, tiny_model
from torch import nn

import gramian
from gramian.adapters.config.amounts import rules_of
from gramian.adapters.models.discovery import operator_names
from gramian.solvers import NM, TopK


def zeros(model: nn.Module) -> dict[str, float]:
    weights = {name: model.get_submodule(name).weight.detach().numpy() for name in operator_names(model)}
    return {name: float(np.mean(weight == 0)) for name, weight in weights.items()}


def test_the_first_rule_that_matches_holds():
    rules = rules_of({"*": 0.1, r"0\.mlp": 0.7, "mlp": "2:4", "q_proj": 0})
    assert [rules.amount(name) for name in ("0.mlp.up_proj", "1.mlp.up_proj", "q_proj", "o_proj")] == [0.7, NM(2, 4), 0, 0.1]
    assert rules_of({"mlp": 0.5}).amount("o_proj") == 0
    names = ["0.mlp.up_proj", "1.mlp.up_proj", "q_proj", "o_proj"]
    patterns = rules.patterns(names, True)
    assert patterns == {names[0]: TopK(0.7, True), names[1]: NM(2, 4), names[3]: TopK(0.1, True)}


def test_rules_on_a_model():
    model = tiny_model("llama")
    rules = {r"layers\.0\.mlp": 0.75, "mlp": "1:4", "q_proj": 0.0, "v_proj": 0.25}
    report = gramian.prune(model, WINDOWS, "magnitude", sparsity=rules, progress=False)
    for name, part in zeros(model).items():
        expected = 0.75 if "mlp" in name else 0.25 if "v_proj" in name else 0.0
        assert part == pytest.approx(expected, abs=1e-3), name
    assert {row.name for row in report.operators} | set(report.dense) == set(operator_names(model))
    assert all("v_proj" not in name and "mlp" not in name for name in report.dense) and len(report.dense) == 6
    assert "6 more operators remain dense" in str(report)
    assert report.to_dict()["settings"]["sparsity"] == rules


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"mpl": 0.5, "*": 0.5}, "the rule 'mpl' of sparsity changes nothing, as it matches no operator"),
        ({"mlp": 0.5, r"mlp\.up": 0.7}, r"the rule 'mlp\\\\.up' of sparsity changes nothing, as an earlier rule takes"),
        ({"mlp": 0.0}, "sparsity leaves every operator dense"),
        ({"q_proj": "3:7", "*": 0.5}, r"model.layers.0.self_attn.q_proj: .*multiple of 7"),
    ],
)
def test_rules_that_cannot_be(rules, message):
    model = tiny_model("llama")
    with pytest.raises(ValueError, match=message):
        gramian.prune(model, WINDOWS, "magnitude", sparsity=rules, progress=False)
    assert not any(zeros(model).values())


def test_a_rule_for_the_rest_may_hold_for_none():
    report = gramian.prune(tiny_model("llama"), WINDOWS, "magnitude", sparsity={"proj": 0.5, "*": 0.9}, progress=False)
    assert report.sparsity == 0.5


def test_blocks_of_a_method_that_zeroes_weights():
    model = tiny_model("llama")
    gramian.prune(model, WINDOWS, "magnitude", blocks="1:", progress=False)
    assert {name.split(".")[2] for name, part in zeros(model).items() if part} == {"1"}
    with pytest.raises(ValueError, match="no operator is left by blocks='5:': there are blocks 0 to 1"):
        gramian.prune(tiny_model("llama"), WINDOWS, "magnitude", blocks="5:", progress=False)
