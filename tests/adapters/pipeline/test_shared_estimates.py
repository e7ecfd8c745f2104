"""What a run takes that several processes share, against counts made by other means."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_model

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates.figures import EstimatedOperator, Rates
from gramian.adapters.estimates.runs import run_estimate
from gramian.adapters.estimates.shared import shared_estimate, slowest
from gramian.adapters.passes import row_parts
from gramian.adapters.run.ranks import Ranks, Shares, dealt

WINDOWS, HELDOUT = (96, 256), 16  # 12 batches of 8 windows and 4 of 4


def planned(ranks: int, method: str = "sparsegpt", bandwidth: float = 1e9, **settings):
    model, config = tiny_model("llama"), PruneConfig(method=method, sparsity=0.5, **settings)
    base = run_estimate(model, WINDOWS, config, heldout=HELDOUT, rates=Rates(1e9, 5e8))
    return base, shared_estimate(model, WINDOWS, config, ranks, bandwidth, base, heldout=HELDOUT)


@pytest.mark.parametrize("method", ["sparsegpt", "l0", "fistapruner"])
def test_one_process_takes_what_a_run_takes(method):
    base, found = planned(1, method)
    assert found.alone == pytest.approx(base.duration)
    assert found.duration == pytest.approx(found.alone)
    assert (found.speedup, found.traffic) == (pytest.approx(1.0), 0)
    assert found.memory == base.peak


@pytest.mark.parametrize("seconds", [[3.0, 1.0, 1.0, 1.0], [1.0], [5.0, 4.0, 3.0, 3.0, 3.0], [2.0, 2.0]])
def test_work_is_divided_within_four_thirds_of_the_best_division(seconds):
    operators = [EstimatedOperator(f"{number}", (1, 1), each) for number, each in enumerate(seconds)]
    for ranks in (1, 2, 3):
        best = min(
            max(sum(spent for spent, rank in zip(seconds, owners) if rank == each) for each in range(ranks))
            for owners in product(range(ranks), repeat=len(seconds))
        )
        owners = dealt([[each] for each in seconds], [0.0] * len(seconds), ranks)
        found = slowest(operators, owners)
        assert best <= found <= 4 / 3 * best  # Graham's bound for the longest first
        assert found == max(sum(spent for spent, (rank,) in zip(seconds, owners) if rank == each) for each in range(ranks))


def test_operators_that_are_alike_are_not_split():
    """Parts of an operator wait for one another: two alike fall to two processes, or to two teams; three that are not are all
    split evenly."""
    alike = [[1.0] * 8, [1.0] * 8]
    assert dealt(alike, [1.0, 1.0], 1) == [[0] * 8, [0] * 8]
    assert dealt(alike, [1.0, 1.0], 2) == [[0] * 8, [1] * 8]
    teams = dealt(alike, [1.0, 1.0], 4)
    assert [set(owners) for owners in teams] == [{0, 1}, {2, 3}]
    assert all(owners.count(owner) == 4 for owners in teams for owner in set(owners))
    wide = dealt([[1.0] * 4, [1.0], [1.0]], [0.0] * 3, 2)
    assert sorted(wide[0]) == [0, 0, 1, 1] and sorted(wide[1] + wide[2]) == [0, 1]
    assert dealt([[1.0] * 2], [1.0], 2) == [[0, 1]] and dealt([], [], 2) == []


def test_what_an_operator_costs_by_itself_is_counted_once_for_each_of_its_processes():
    """Of 8, 1 and 1 rows two processes have 5 each; undivided one has 8. With 12 for each operator by itself these are 5 + 36
    at most and 26."""
    costs = [[1.0] * 8, [1.0], [1.0]]
    assert set(dealt(costs, [0.1] * 3, 2)[0]) == {0, 1}
    owners = dealt(costs, [12.0] * 3, 2)
    assert [len(set(theirs)) for theirs in owners] == [1, 1, 1] and owners[1] == owners[2] != owners[0][:1]


@given(st.lists(st.tuples(st.integers(1, 8), st.floats(0.1, 9.0)), min_size=1, max_size=5), st.integers(1, 9))
def test_no_process_has_much_more_than_it_must(operators, size):
    """Within Graham's bound for parts that are dealt one by one."""
    costs = [[cost] * parts for parts, cost in operators]
    owners = dealt(costs, [0.0] * len(costs), size)
    load = [0.0] * size
    for parts, theirs in zip(costs, owners):
        assert len(parts) == len(theirs)
        for cost, owner in zip(parts, theirs):
            load[owner] += cost
    flat = [cost for parts in costs for cost in parts]
    least = max(max(flat), sum(flat) / size)
    assert max(load) <= 1.05 * 4 / 3 * (least + max(flat)) * (1 + 1e-9)


def test_every_process_that_shares_rows_factorises():
    """Of 14 seconds 2 go by the Gram matrix alone; the other 12 are divided, into as many parts as there are."""
    one, parts = EstimatedOperator("a", (4, 4), 14.0, 2.0), [[1.0] * 4]
    assert [slowest([one], dealt(parts, [0.0], ranks)) for ranks in (1, 2, 3, 4, 9)] == [14.0, 8.0, 8.0, 5.0, 5.0]


def test_what_is_made_by_turns_is_made_once():
    """Of 18 seconds 2 are everyone's, 4 are made by turns, and 12 are divided."""
    one = EstimatedOperator("a", (4, 4), 18.0, 2.0, 4.0)
    assert [slowest([one], dealt([[1.0] * 4], [0.0], ranks)) for ranks in (1, 2, 4)] == [18.0, 10.0, 6.0]


def test_inverses_of_l0_are_made_by_turns():
    """One for each of 45 stages, 2 p^3 operations in float32; other methods have none."""
    for method, stages in (("l0", 45), ("sparsegpt", 0)):
        base, _ = planned(1, method)
        for operator in base.operators:
            assert operator.turned == pytest.approx(stages * 2 * operator.shape[1] ** 3 / 1e9)
            assert operator.turned + operator.fixed <= operator.seconds


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_batches_that_the_busiest_process_runs(ranks):
    base, found = planned(ranks)
    share = {2: 7 / 14, 3: 5 / 14, 5: 3.5 / 14}[ranks]
    assert found.seconds["forward passes"] == pytest.approx(share * base.seconds["forward passes"])
    assert found.seconds["moments"] == pytest.approx(share * base.seconds["moments"])


def test_stages_wait_for_one_another_where_the_target_is_the_model_s():
    own, staged = planned(2, "l0", target="own")[1], planned(2, "l0")[1]
    assert own.seconds["solvers"] < staged.seconds["solvers"]
    base, many = planned(100, "l0")
    operators = {operator.name: operator.seconds for operator in base.operators}
    longest = sum(
        max(operators[f"model.layers.{block}.{name}"] for name in stage)
        for block in range(2)
        for stage in (
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"],
            ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"],
        )
    )  # fmt: skip
    assert many.seconds["solvers"] == pytest.approx(longest)


def test_blocks_are_shared_on_dense_inputs():
    base, found = planned(2, "fistapruner")
    blocks = [sum(o.seconds for o in base.operators if f"layers.{block}." in o.name) for block in range(2)]
    assert found.seconds["solvers"] == pytest.approx(max(blocks))
    assert planned(7, "fistapruner")[1].seconds["solvers"] == pytest.approx(max(blocks))


def test_traffic_is_weights_and_moments_of_every_section():
    model = tiny_model("llama")
    found = planned(2)[1]
    weights = sum(p.numel() for n, p in model.named_parameters() if n.endswith("_proj.weight"))
    shapes = {n: p.shape for n, p in model.named_parameters() if n.endswith("_proj.weight")}
    squares = sum(
        shape[1] ** 2 for name, shape in shapes.items() if any(each in name for each in ("q_proj", "o_proj", "gate_", "down_"))
    )
    size = next(model.parameters()).element_size()
    assert found.traffic == (weights * size + 8 * 8 * squares) // 2
    assert planned(2, bandwidth=1e6)[1].seconds["exchange"] == pytest.approx(1e3 * found.seconds["exchange"])


@pytest.mark.parametrize("parts", [(1, 0), (5, 1), (16, 4), (17, 2), (100, 40)])
def test_groups_do_not_depend_on_the_number_of_processes(parts):
    alone, batches = Shares(Ranks(), parts), range(sum(parts))
    groups = [alone.group(batch) for batch in batches]
    assert groups == sorted(groups)
    assert len(set(groups)) == sum(min(16, part) for part in parts)
    for size in (2, 3, 64):
        every = [Shares(Ranks(rank, size), parts) for rank in range(size)]
        assert [every[-1].group(batch) for batch in batches] == groups
        assert all(sum(each.mine(batch) for each in every) == 1 for batch in batches)
        for start, count in ((0, parts[0]), parts):
            loads = [sum(map(each.mine, range(start, start + count))) for each in every]
            assert max(loads) - min(loads) <= 1 + count // 16


@pytest.mark.parametrize(("size", "pieces"), [(1, 4), (2, 4), (3, 10), (4, 4), (8, 16)])
def test_a_section_that_one_process_runs_is_one_piece(size, pieces):
    shares = Shares(Ranks(0, size), (16, 4))
    assert len(shares.pieces) == pieces + 4
    assert {shares.section(group) for group in shares.all_groups()} == set(range(8))
    assert [shares.whole(section) for section in range(4)].count(True) == {1: 4, 2: 2, 3: 1, 4: 1, 8: 0}[size]


def test_methods_that_every_process_solves_for_alike_are_refused():
    model = tiny_model("llama")
    config = PruneConfig(method="flap", ratio=0.2)
    base = run_estimate(model, WINDOWS, config, rates=Rates(1e9, 5e8))
    with pytest.raises(ValueError, match="removes units, which every process solves for alike"):
        shared_estimate(model, WINDOWS, config, 2, 1e9, base)


@pytest.mark.parametrize("ranks", [2, 8])
def test_rows_that_compete_are_shared_and_their_scores_are_exchanged(ranks, monkeypatch):
    """As much work each as where rows do not compete, and a score more at every step of every weight of operators that are
    split: by two processes those that are by themselves in a stage, since gate and up are alike, and q is as k and v."""
    monkeypatch.setattr(row_parts, "ROWS", 4)
    model, shapes = tiny_model("llama"), []
    found = {}
    for name, rows in (("compete", False), ("apart", True)):
        config = PruneConfig(method="l0", sparsity=0.5, per_row=rows)
        base = run_estimate(model, WINDOWS, config, heldout=HELDOUT, rates=Rates(1e9, 5e8))
        found[name] = shared_estimate(model, WINDOWS, config, ranks, 1e9, base, heldout=HELDOUT)
        split = ("o_proj", "down_proj") if ranks == 2 else ("proj",)
        shapes = [operator.shape for operator in base.operators if operator.name.endswith(split)]
    assert found["compete"].seconds["solvers"] == pytest.approx(found["apart"].seconds["solvers"], rel=1e-6)
    exchanged = 180 * 4 * sum(rows * columns for rows, columns in shapes) * (1 - 1 / ranks)
    assert found["compete"].traffic - found["apart"].traffic == pytest.approx(exchanged, abs=2)
