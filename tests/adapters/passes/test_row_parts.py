"""Parts of the rows of an operator: every row once, whoever solves for it, and figures of all parts in one row of a report."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gramian.adapters.passes.row_parts import PARTS, ROWS, Answer, joined, rows_compete, split_rows
from gramian.solvers import NM, TopK


@given(st.integers(1, 20_000))
def test_every_row_is_in_one_part(rows):
    parts = split_rows(rows, True)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rows))
    assert len(parts) <= PARTS
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == 1 or min(sizes) >= ROWS
    assert len(parts) == PARTS or rows < ROWS * (len(parts) + 1)
    assert split_rows(rows, False) == [slice(0, rows)]


def test_patterns_that_compare_rows():
    assert [rows_compete(each) for each in (NM(2, 4), TopK(0.5, per_row=True), TopK(0.5))] == [False, False, True]

    class Own:
        """A pattern of which nothing is known."""

    assert rows_compete(Own())  # type: ignore[arg-type]


def test_answers_are_joined():
    answers = [
        Answer(torch.ones(2, 3), "found", {"damping": 0.01, "steps": 4.0}),
        Answer(torch.zeros(1, 3), "raised", {"damping": 0.1}),
        Answer(2 * torch.ones(1, 3), "found", {"damping": 0.01}),
    ]
    whole = joined(answers)
    np.testing.assert_array_equal(whole.weights[:, 0], [1, 1, 0, 2])
    assert whole.status == "found; raised"
    assert whole.detail == {"damping": 0.1, "steps": 4.0}
    assert joined(answers[:1]).status == "found"


@pytest.mark.parametrize("count", [1, 3])
def test_a_part_of_all_rows_is_the_whole(count):
    parts = split_rows(ROWS * count, True)
    weight = torch.randn(ROWS * count, 2)
    assert torch.equal(joined([Answer(weight[part], "found", {}) for part in parts]).weights, weight)
