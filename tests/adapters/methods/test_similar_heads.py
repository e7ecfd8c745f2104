"""Heads by similarity: tau says how many go, hidden channels meet the rest, and recovery has windows of its own."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_models import LENGTH, random_model, some_windows

from gramian.adapters import head_distances, prune
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.config.run_config import RunConfig
from gramian.adapters.data.tokens import windows_of
from gramian.adapters.fingerprint import fingerprint
from gramian.adapters.models.unit_groups import unit_groups_of

WINDOWS, OTHERS = some_windows(6, 1), some_windows(9, 2)
HEADS = 8


@pytest.fixture(scope="module")
def model():
    return random_model("llama", hidden_size=64, num_attention_heads=HEADS, num_key_value_heads=HEADS)


@pytest.fixture(scope="module")
def distances(model) -> dict[str, np.ndarray]:
    return head_distances(model, WINDOWS)


@pytest.fixture(scope="module")
def quantiles(distances) -> list[float]:
    pairs = np.concatenate([each[np.triu_indices(len(each), 1)] for each in distances.values()])
    return [float(tau) for tau in np.quantile(pairs, [0.25, 0.5, 0.75])]


def by_similarity(model, tau: float, **settings):
    smaller = copy.deepcopy(model)
    options = {"tau": tau} | settings.pop("options", {})
    report = prune(smaller, WINDOWS, "greedy-output", heads_by_similarity=True, options=options, progress=False, **settings)
    return smaller, report


def algorithm_1(distances: np.ndarray, tau: float) -> list[int]:
    """As it is printed."""
    candidates: list[int] = []
    for i in range(len(distances)):
        for j in range(len(distances)):
            if i != j and distances[i][j] < tau and i not in candidates and j not in candidates:
                candidates.append(i)
    return candidates


def test_a_larger_tau_removes_more_heads(model, distances, quantiles):
    counts = []
    for tau in quantiles:
        smaller, report = by_similarity(model, tau)
        assert {each.name for each in report.modules} == set(distances)  # without an amount no channel is touched
        counts.append(sum(each.units[0] - each.units[1] for each in report.modules))
        assert report.settings["similar_heads"] == {"removed": counts[-1], "of": 2 * HEADS} and report.settings["ratio"] is None
        assert f"{counts[-1]} of 16 heads are similar to a kept one at tau={tau:g}, and removed" in str(report)
        for name, each in distances.items():
            kept = report.keep[name]
            gone = np.setdiff1d(np.arange(HEADS), kept)
            assert np.all(each[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)] >= tau)
            assert np.all(each[np.ix_(gone, kept)].min(axis=1) < tau)
            assert unit_groups_of(smaller)[name].units == len(kept)
    assert 0 < counts[0] < counts[1] < counts[2] < 2 * HEADS


def test_the_printed_algorithm_removes_what_it_prints(model, distances, quantiles):
    _, report = by_similarity(model, quantiles[0], options={"similar": "scan"})
    gone = {name: np.setdiff1d(np.arange(HEADS), kept).tolist() for name, kept in report.keep.items()}
    assert gone == {name: algorithm_1(each, quantiles[0]) for name, each in distances.items()} and any(gone.values())


def test_hidden_channels_meet_the_rest(model, distances, quantiles):
    heads = by_similarity(model, quantiles[0])[1]
    _, report = by_similarity(model, quantiles[0], ratio=heads.ratio + 0.1)
    assert all(np.array_equal(report.keep[name], heads.keep[name]) for name in distances)
    channels = [each for each in report.modules if each.name not in distances]
    assert len(channels) == 2 and all(each.units[1] < each.units[0] for each in channels)
    assert heads.ratio + 0.1 <= report.ratio < heads.ratio + 0.105
    _, report = by_similarity(model, quantiles[0], ratio=heads.ratio / 2)  # which the heads alone are more than
    assert report.ratio == pytest.approx(heads.ratio) and all(
        np.array_equal(report.keep[name], heads.keep[name]) for name in distances
    )


def test_whole_groups_of_grouped_query_attention():
    model = random_model("llama", num_attention_heads=8, num_key_value_heads=4)
    heads = head_distances(model, WINDOWS)
    tau = float(np.quantile(np.concatenate([each[np.triu_indices(8, 1)] for each in heads.values()]), 0.9))
    _, report = by_similarity(model, tau)
    assert any(each.units[1] < 8 for each in report.modules)
    for name, each in heads.items():
        groups = sorted({int(unit) // 2 for unit in report.keep[name]})
        assert report.keep[name].tolist() == [2 * group + member for group in groups for member in (0, 1)]
        for group in set(range(4)) - set(groups):  # each head of either group has one in the other that is similar
            pairs = [each[2 * group : 2 * group + 2, 2 * other : 2 * other + 2] for other in groups]
            assert any(max(pair.min(axis=1).max(), pair.min(axis=0).max()) < tau for pair in pairs)


def test_what_contradicts_it_is_refused(model):
    for settings, message in (
        ({"method": "flap"}, "does not go with 'flap', which compares no heads: take 'greedy-output'"),
        ({"options": {"tau": 0}}, "needs a distance below which heads are similar, but tau is 0"),
        ({"options": {"tau": None}}, "but tau is None: give one above 0"),
        ({"heads": "per_kv_group"}, "and heads='per_kv_group' as many of every group: take 'groups'"),
        ({"swap_search": True}, "swap_search=True would exchange the heads"),
    ):
        with pytest.raises(ValueError, match=message):
            PruneConfig(**{"method": "greedy-output", "heads_by_similarity": True} | settings)
    with pytest.raises(ValueError, match=r"none of model\.layers\.0\.mlp\.down_proj .* has any"):
        by_similarity(model, 0.2, include="mlp")
    with pytest.raises(ValueError, match=r"ratio=0.1 is met by hidden channels .*: leave ratio=0.1 out"):
        by_similarity(model, 0.2, include="self_attn", ratio=0.1)
    before = {name: each.clone() for name, each in model.named_parameters()}
    with pytest.raises(ValueError, match=r"similar heads are 0 of the .* and hidden channels can make up 18,048 of the others"):
        prune(model, WINDOWS, "greedy-output", heads_by_similarity=True, ratio=0.5, options={"tau": 0.001}, progress=False)
    assert all(each.equal(before[name]) for name, each in model.named_parameters())


# -- recovery ----------------------------------------------------------------------------------------------------------


def test_recovery_is_fitted_on_its_own_windows(model, distances, quantiles):
    """Units are those that the calibration windows choose; the kept columns solve least squares on the recovery windows."""
    settings = {"calibrate_on": "dense", "damping": 0.0, "blocks": "1:"}
    plain, without = by_similarity(model, quantiles[1], **settings)
    smaller, report = by_similarity(model, quantiles[1], recovery=OTHERS, **settings)
    (row,) = report.modules
    assert np.array_equal(report.keep[row.name], without.keep[row.name]) and row.units[1] < HEADS
    inputs = torch.cat(_inputs(model, row.name, OTHERS)).double().numpy()
    size = inputs.shape[1] // HEADS
    columns = (report.keep[row.name][:, None] * size + np.arange(size)).reshape(-1)
    dense = model.get_submodule(row.name).weight.detach().double().numpy()
    expected = np.linalg.lstsq(inputs[:, columns], inputs @ dense.T, rcond=None)[0].T
    np.testing.assert_allclose(smaller.get_submodule(row.name).weight.detach().numpy(), expected, atol=2e-4)
    assert not plain.get_submodule(row.name).weight.equal(smaller.get_submodule(row.name).weight)
    assert report.settings["recovery"]["windows"] == [9, LENGTH] and "recovery" not in without.settings


def _inputs(model, name: str, windows: torch.Tensor) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, given: found.append(given[0].flatten(0, -2).clone()))
    with torch.no_grad():
        model(input_ids=windows)
    hook.remove()
    return found


def test_recovery_is_refused_where_nothing_is_fitted_on_it(model):
    for method, settings in (("wanda", {"sparsity": 0.5}), ("magnitude-l1", {"ratio": 0.1})):
        with pytest.raises(ValueError, match=f"recovery windows change nothing with '{method}'"):
            prune(copy.deepcopy(model), WINDOWS, method, recovery=OTHERS, progress=False, **settings)
    with pytest.raises(ValueError, match="recovery_samples=3 needs a source"):
        RunConfig(recovery_samples=3)
    assert RunConfig(recovery_calibration="builtin", samples=5).recovery == ("builtin", 5)


def test_a_run_is_known_by_its_recovery():
    config, place = PruneConfig("greedy-output"), torch.device("cpu")
    plain, one, other = (
        fingerprint("weights", windows_of(WINDOWS), None, config, place, {}, own)
        for own in (None, windows_of(OTHERS), windows_of(WINDOWS))
    )
    assert "recovery" not in plain and one["recovery"] != other["recovery"]
