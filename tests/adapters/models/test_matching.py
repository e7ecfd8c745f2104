"""Expressions that choose operators: as Python's own, and within bounds of time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramian.adapters import PruneConfig
from gramian.adapters.models.families import chosen_names
from gramian.adapters.models.matching import matches

NAMES = [f"model.layers.{index}.{part}" for index in (0, 1, 10) for part in ("self_attn.q_proj", "mlp.down_proj")]
PARTS = st.sampled_from(["layers", r"\.", "1", "0", "_proj", "(q|down)", "[a-z]", ".*", "$", "^model", r"\d+", "(?!1)", "x"])


@given(st.lists(PARTS, max_size=5).map("".join))
def test_it_is_as_python_has_it(expression):
    assert [matches(expression, name) for name in NAMES] == [re.search(expression, name) is not None for name in NAMES]


@pytest.mark.parametrize("expression", [r"^(a?.?){40}\1[A-Z]", r"^((\w|\w\w|\.|\.\w)*)*[A-Z]$"])
def test_one_that_tries_every_way_is_refused_in_time(expression):
    name, started = "model.layers.0.self_attn.a_very_long_name_of_an_operator_aaaaaaaaaaaaaaaaaaa", time.process_time()
    with pytest.raises(ValueError, match="takes more than 1 s for the name 'model") as caught:
        chosen_names([name] * 100, None, expression)
    assert repr(expression) in str(caught.value)
    with pytest.raises(ValueError, match="takes more than 1 s"):
        PruneConfig("wanda", sparsity={expression: 0.5, "*": 0.2}).amounts.patterns([name], per_row=True)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "expression", ["(([a-z_.0-9]+)+)+!", "(a|aa)+(.*)*(.*)*!", "^(([a-z])+.)+[A-Z]([a-z])+$", "(.+)+(.+)+(?!)$"]
)
def test_others_are_answered_in_time(expression):
    """Python's own engine needs minutes, or years, for each of them."""
    assert not any(matches(expression, name * 2) for name in NAMES)


def test_what_is_no_expression():
    with pytest.raises(ValueError, match=r"'\(' is not a regular expression"):
        matches("(", "a")
