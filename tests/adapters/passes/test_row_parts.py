"""Parts of the rows of an operator: every row once, whoever solves for it, and figures of all parts in one row of a report."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gramian.adapters.passes.row_parts import PARTS, ROWS, Answer, SharedPilots, joined, row_choice, rows_compete, split_rows
from gramian.adapters.run.ranks import Ranks
from gramian.proofs.kit.backends import NUMPY
from gramian.proofs.kit.strategies import normal_layer
from gramian.solvers import NM, TopK, refit

SOME = [slice(0, 3), slice(3, 4), slice(4, 9)]


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


@pytest.mark.parametrize("pattern", [TopK(0.5), TopK(0.5, per_row=True), NM(2, 4)], ids=str)
def test_masks_of_parts_are_those_of_the_whole(pattern):
    scores = np.random.default_rng(1).random((9, 8)).astype(np.float32)
    masks = row_choice(pattern, SOME, [0, 0, 0], Ranks())([scores[part] for part in SOME])
    np.testing.assert_array_equal(np.vstack(masks), pattern.largest(scores))


class Posted(Ranks):
    """One of several processes, of which the others' rows are known: those of a table by owner and turn."""

    def shared_tensor(self, value, like, owner, needed):
        assert (value is None) == (owner != self.rank) and set(needed) == {0, 2}
        rows = self.table.pop(0)
        assert like.shape == rows.shape and like.dtype == rows.dtype
        if value is not None:
            torch.testing.assert_close(value, rows, rtol=0, atol=0)
        return rows


def test_scores_come_from_those_processes_that_have_rows():
    """Processes 0 and 2 of three own the operator; what either chooses are its rows of the whole's mask."""
    scores = torch.rand((9, 8), generator=torch.Generator().manual_seed(2))
    owners, whole = [0, 2, 0], TopK(0.5).largest(scores.numpy())
    for rank in (0, 2):
        ranks = Posted(rank, 3)
        object.__setattr__(ranks, "table", [torch.cat([scores[SOME[0]], scores[SOME[2]]]), scores[SOME[1]]])
        mine = [part for part, owner in zip(SOME, owners) if owner == rank]
        masks = row_choice(TopK(0.5), SOME, owners, ranks)([scores[part].numpy() for part in mine])
        for mask, part in zip(masks, mine):
            np.testing.assert_array_equal(mask, whole[part])


@pytest.mark.parametrize("rows", [1, 5, 20])
def test_pilots_in_parts_are_refitted_as_a_whole(rows):
    problem = normal_layer(3, 60, 8, rows, drift=0.3).problem(NUMPY)
    mask = TopK(0.5).select(np.abs(problem.anchor))
    pilots = SharedPilots([0, 0], Ranks(), torch.device("cpu"))
    np.testing.assert_allclose(pilots.exact(problem, mask), refit(problem, mask).weights, rtol=1e-9, atol=1e-12)
    assert pilots.agreed(0.25) == 0.25


def test_counts_are_added_up_and_of_other_figures_the_largest_is_taken():
    answers = [
        Answer(torch.full((count, 2), float(count)), status, {"singular_rows": 3.0, "ridge_strength": float(count)})
        for count, status in ((1, "done"), (2, "late"), (3, "done"))
    ]
    found = joined(answers)
    assert found.detail == {"singular_rows": 9.0, "ridge_strength": 3.0} and found.status == "done; late"
    assert found.weights[:, 0].tolist() == [1, 2, 2, 3, 3, 3]
