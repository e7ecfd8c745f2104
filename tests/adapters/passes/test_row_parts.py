"""Parts of the rows of an operator: every row once, whoever solves for it, and figures of all parts in one row of a report."""

from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gramian.adapters.passes.row_parts import PARTS, ROWS, Answer, SharedPilots, joined, peers_of, rows_compete, split_rows
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
    masks = peers_of(pattern, SOME, [0, 0, 0], Ranks()).choose([scores[part] for part in SOME])
    np.testing.assert_array_equal(np.vstack(masks), pattern.largest(scores))


class Met(Ranks):
    """Processes 0 and 2 of three, each a thread: one gives a tensor, the other waits for it."""

    @classmethod
    def both(cls):
        processes, posts = (cls(0, 3), cls(2, 3)), {0: Queue(), 2: Queue()}
        for each in processes:
            object.__setattr__(each, "posts", posts)
            object.__setattr__(each, "sizes", [])
        return processes

    def shared_tensor(self, value, like, owner, needed):
        assert (value is None) == (owner != self.rank) and set(needed) == {0, 2}
        if value is not None:
            self.posts[owner].put(value.clone())
            return value
        value = self.posts[owner].get(timeout=20)
        assert value.shape == like.shape and value.dtype == like.dtype
        self.sizes.append(value.numel())
        return value


def test_scores_come_from_those_processes_that_have_rows():
    """Processes 0 and 2 of three own the operator; what either chooses are its rows of the whole's mask. Where the cut is near
    the last one, scores around it are given alone."""
    scores = torch.rand((9, 400), generator=torch.Generator().manual_seed(2)).numpy()
    steps, owners, processes = [scores, *[scores * np.float32(1.01)] * 3, scores[::-1].copy()], [0, 2, 0], Met.both()

    def chosen(ranks):
        mine = [part for part, owner in zip(SOME, owners) if owner == ranks.rank]
        peers = peers_of(TopK(0.5), SOME, owners, ranks)
        return [np.vstack(peers.choose([step[part] for part in mine])) for step in steps]

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(chosen, processes)
    for step, first, second in zip(steps, one, other):
        whole = TopK(0.5).largest(step)
        np.testing.assert_array_equal(np.vstack([first[:3], second, first[3:]]), whole)
    assert [each.sizes[0] for each in processes] == [400, 8 * 400]
    assert max(processes[1].sizes[2:]) < 8 * 400 / 4


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_all_need_in_turn_is_made_once(count):
    processes, made = Met.both(), {0: [], 2: []}

    def run(ranks):
        in_turn = peers_of(NM(2, 4), SOME, [0, 2, 0], ranks).in_turn

        def make(number):
            made[ranks.rank].append(number)
            return np.full((2, 2), number, np.float32)

        return [in_turn(number, count, make)[0, 1] for number in range(count)]

    with ThreadPoolExecutor(2) as pool:
        assert [each == list(range(count)) for each in pool.map(run, processes)] == [True, True]
    assert set(made[0]) | set(made[2]) == set(range(count)) and len(made[0]) == len(made[2]) == (count + 1) // 2
    alone: list[int] = []
    in_turn = peers_of(NM(2, 4), SOME, [0, 0, 0], Ranks()).in_turn
    assert in_turn(3, 5, lambda number: alone.append(number) or number) == 3 and alone == [3]


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
