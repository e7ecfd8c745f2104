"""Blocks and kinds read off names, and numbers as they are written."""

import math

import pytest

from gramian.adapters.pages.kinds import grid_of
from gramian.adapters.pages.numerals import duration, mean, number, per_cent, plain_number, worst


def test_blocks_are_rows_and_kinds_are_columns():
    grid = grid_of([f"model.layers.{block}.{kind}" for block in (0, 2, 10) for kind in ("attn.q", "mlp.up")])
    assert grid.blocks == (("model.layers", 0), ("model.layers", 2), ("model.layers", 10))
    assert grid.kinds == ("attn.q", "mlp.up") and grid.labels == ("q", "up")
    assert grid.cells[("model.layers", 10), "mlp.up"] == (5,) and grid.of_kind("attn.q") == [0, 2, 4]


def test_encoder_and_decoder_are_lists_of_their_own_and_names_that_end_alike_are_told_apart():
    names = [f"{side}.block.{block}.layer.{layer}.{part}" for side, layer, part in (
        ("encoder", 0, "SelfAttention.q"), ("encoder", 1, "Dense.wo"), ("decoder", 0, "SelfAttention.q"),
        ("decoder", 1, "EncDecAttention.q"), ("decoder", 2, "Dense.wo"),
    ) for block in (0, 1)]  # fmt: skip
    grid = grid_of(names)
    assert grid.lists == ("encoder.block", "decoder.block") and len(grid.blocks) == 4
    assert grid.labels == ("SelfAttention.q", "wo", "EncDecAttention.q")


def test_many_experts_stand_together_and_few_numbered_operators_apart():
    experts = grid_of([f"layers.0.mlp.experts.{kind}.{number}" for kind in ("up", "down") for number in range(4)])
    assert experts.labels == ("up", "down") and [len(places) for places in experts.cells.values()] == [4, 4]
    modules = grid_of([f"layers.0.experts.{number}.{kind}" for number in range(9) for kind in ("w1", "w2")])
    assert modules.labels == ("w1", "w2")
    chain = grid_of(["h.0.mlp.0", "h.0.mlp.2", "h.1.mlp.0", "h.1.mlp.2"])
    assert chain.labels == ("mlp.0", "mlp.2") and all(len(places) == 1 for places in chain.cells.values())


def test_operators_outside_of_blocks_have_a_row():
    grid = grid_of(["embed.proj", "layers.0.proj", "layers.0.other", "2.weight"])
    assert ("", None) in grid.blocks and sorted(place for places in grid.cells.values() for place in places) == [0, 1, 2, 3]
    assert len(set(grid.labels)) == len(grid.labels)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.5, "50.0"), (1.0, "100"), (0.012345, "1.23"), (0.00012345, "0.012"), (1e-7, "<0.001"), (12.5, "1,250"),
     (None, "–"), (math.nan, "nan"), (math.inf, "∞"), (-0.05, "−5.00"), (0.09994, "9.99"), (0.9999, "100")],
)  # fmt: skip
def test_fractions_in_per_cent(value, text):
    assert per_cent(value) == text


def test_cells_are_no_wider_than_five_letters():
    values = [10.0 ** (power / 7) for power in range(-60, 8)]
    assert max(len(per_cent(value, spare=True)) for value in values if value >= 1e-5) <= 5


@pytest.mark.parametrize(
    ("value", "text"),
    [(24.2354, "24.24"), (123456.0, "123,456"), (0.0, "0"), (2.5e-9, "2.50e−09"), (-0.3, "−0.3000"), (None, "–")],
)
def test_numbers_have_the_digits_that_count(value, text):
    assert plain_number(value) == text


def test_times_and_means():
    assert [duration(each) for each in (0.04, 12.3, 518.0, 9000.0)] == ["0.0 s", "12 s", "8.6 min", "2.5 h"]
    assert mean([1.0, None, math.nan, 3.0]) == 2.0 and mean([None, math.inf]) is None
    assert worst([1.0, 3.0, None]) == 3.0 and worst([None]) is None and math.isnan(worst([1.0, math.nan]))
    assert number("inf") == math.inf and number(True) is None and number([1]) is None and number("a word") is None
