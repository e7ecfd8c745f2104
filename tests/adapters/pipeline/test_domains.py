"""Calibration text of several domains: Gram matrices are weighted means, and errors are known on each."""

from __future__ import annotations

import pytest
import torch
from tiny import WINDOWS, parameters, some_windows, tiny_model

import gramian
from gramian.adapters.data.domains import Domains, interleaved, split_samples
from gramian.adapters.data.mixing import given_windows
from gramian.adapters.run.forward import batches_of, domains_of_batches

LAW, NEWS = some_windows(6, seed=5), some_windows(2, seed=6)
UNITS = {"method": "numerical", "ratio": 0.3}
ZEROS = {"method": "l0", "sparsity": 0.5}


def pruned(tokens, heldout=None, family="llama", **settings):
    model = tiny_model(family)
    report = gramian.prune(model, tokens, heldout=heldout, progress=False, **settings)
    return report, parameters(model)


def inputs_of(model, windows, name="model.layers.0.mlp.down_proj"):
    """What reaches an operator of the dense model, by a plain hook."""
    found = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, args: found.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        model(windows)
    handle.remove()
    return torch.cat(found).double()


@pytest.mark.parametrize("settings", [ZEROS, UNITS, {**ZEROS, "damping": "auto"}, {"method": "greedy-output", "ratio": 0.3}])
def test_a_domain_that_weighs_nothing_changes_no_byte(settings):
    _, alone = pruned(LAW, **settings)
    _, both = pruned({"law": (LAW, 2.0), "news": (NEWS, 0.0)}, **settings)
    assert all(torch.equal(alone[name], both[name]) for name in alone)


@pytest.mark.parametrize("settings", [ZEROS, UNITS])
def test_weights_are_relative(settings):
    _, one = pruned({"law": (LAW, 1.0), "news": (NEWS, 3.0)}, **settings)
    _, other = pruned({"law": (LAW, 0.25), "news": (NEWS, 0.75)}, **settings)
    assert all(torch.equal(one[name], other[name]) for name in one)
    _, third = pruned({"law": (LAW, 3.0), "news": (NEWS, 1.0)}, **settings)
    assert any(not torch.equal(one[name], third[name]) for name in one)


@pytest.mark.parametrize("calibrate_on", ["dense", "pruned"])
def test_halves_of_one_text_are_the_text(calibrate_on):
    settings = {"method": "wanda", "sparsity": 0.5, "calibrate_on": calibrate_on, "refit": "support"}
    whole, one = pruned(LAW, **settings)
    halves, other = pruned({"first": LAW[:3], "last": LAW[3:]}, **settings)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)
    for row, mixed in zip(whole.operators, halves.operators):
        assert mixed.relative_error == pytest.approx(row.relative_error, rel=1e-3)


@pytest.mark.parametrize("weights", [(0.7, 0.3), (0.2, 0.8)])
def test_errors_on_each_domain_are_those_of_plain_products(weights):
    """The reference forms |X (V - W)^T|^2 / |X W^T|^2 from hooks on the dense model, domain by domain."""
    parts = {"law": (LAW, weights[0]), "news": (NEWS, weights[1])}
    apart = {"news": some_windows(3, seed=8), "law": some_windows(2, seed=9)}
    report, after = pruned(parts, apart, method="wanda", sparsity=0.5, calibrate_on="dense", target="own")
    dense, name = tiny_model("llama"), "model.layers.0.mlp.down_proj"
    row = next(row for row in report.operators if row.name == name)
    before = dense.get_submodule(name).weight.detach().double()
    change = after[f"{name}.weight"].double() - before

    def energies(windows):
        x = inputs_of(dense, windows)
        return torch.stack([(x @ change.T).square().sum(), (x @ before.T).square().sum()]) / len(x)

    found = {domain: energies(windows) for domain, (windows, _) in parts.items()}
    for domain, each in found.items():
        assert row.detail[f"error on {domain}"] == pytest.approx(float(each[0] / each[1]), rel=1e-4)
        lost, whole = energies(apart[domain])
        assert row.detail[f"held-out on {domain}"] == pytest.approx(float(lost / whole), rel=1e-4)
    mean = weights[0] * found["law"] + weights[1] * found["news"]
    assert row.relative_error == pytest.approx(float(mean[0] / mean[1]), rel=1e-4)
    mean = weights[0] * energies(apart["law"]) + weights[1] * energies(apart["news"])
    assert row.heldout_error == pytest.approx(float(mean[0] / mean[1]), rel=1e-4)


def test_units_report_each_domain_and_say_its_figures():
    report, _ = pruned({"law": LAW, "news": NEWS}, {"law": WINDOWS, "news": WINDOWS}, **UNITS)
    for row in report.modules:
        assert {"error on law", "held-out on law", "error on news", "held-out on news"} <= set(row.detail)
        assert row.detail["held-out on law"] == pytest.approx(row.detail["held-out on news"], rel=1e-6)
    assert [each["name"] for each in report.to_dict()["settings"]["domains"]] == ["law", "news"]
    assert "law" in str(report) and "news" in str(report)


@pytest.mark.parametrize(
    ("tokens", "heldout", "settings", "message"),
    [
        ({"a": (LAW, 0.5), "b": NEWS}, None, ZEROS, "none in 'b': give all of them one"),
        ({"a": (LAW, 0.0), "b": (NEWS, 0.0)}, None, ZEROS, "weights of all domains are 0"),
        ({"a": (LAW, -1.0), "b": (NEWS, 2.0)}, None, ZEROS, "finite number of at least 0"),
        ({"a": LAW, "b": NEWS[:, :20]}, None, ZEROS, "cut all texts into one length"),
        ({"a": LAW, "b": NEWS}, WINDOWS, ZEROS, "held-out windows of none"),
        ({"a": LAW, "b": NEWS}, {"a": LAW, "c": NEWS}, ZEROS, "give heldout= by the same names"),
        (LAW, {"a": LAW, "c": NEWS}, ZEROS, "calibration windows are not"),
        ({"a": (LAW, 0.5), "b": (NEWS, 0.5)}, None, {"method": "snip", "ratio": 0.2}, "'snip' all windows count alike"),
        ({"a": (LAW, 0.5), "b": (NEWS, 0.5)}, None, {"method": "depth", "ratio": 0.5}, "'depth' all windows count alike"),
        ({"a": (LAW, 0.5), "b": (NEWS, 0.5)}, None, {"method": "slicegpt", "ratio": 0.5}, "'slicegpt' all windows count alike"),
        ({"a": (LAW, 0.5), "b": (NEWS, 0.5)}, None, {**ZEROS, "refit": "block"}, "count alike"),
    ],
)
def test_refusals_before_anything_is_written(tokens, heldout, settings, message):
    model = tiny_model("llama")
    before = {name: tensor.clone() for name, tensor in parameters(model).items()}
    with pytest.raises(ValueError, match=message):
        gramian.prune(model, tokens, heldout=heldout, progress=False, **settings)
    assert all(torch.equal(before[name], tensor) for name, tensor in parameters(model).items())


def test_what_reads_windows_takes_them_in_proportion():
    report, _ = pruned({"a": (LAW, 0.75), "b": (NEWS, 0.25)}, method="snip", ratio=0.2)
    assert report.ratio > 0.1


@pytest.mark.parametrize("samples", [2, 3, 7, 32])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.999, 0.001), (0.0, 1.0, 2.0), (3.0, 1.0)])
def test_samples_are_split_by_weight(weights, samples):
    named = {str(place): weight for place, weight in enumerate(weights)}
    counts = split_samples(named, samples)
    assert sum(counts.values()) == samples
    for name, weight in named.items():
        assert abs(counts[name] - samples * weight / sum(weights)) < 1
        assert (counts[name] > 0) == (weight > 0)


def test_factors_make_weights_exact():
    domains = Domains(("a", "b"), (0.7, 0.3), (0, 0, 0, 1))
    assert domains.factors == pytest.approx((0.7 * 4 / 3, 0.3 * 4))
    assert sum(factor * count for factor, count in zip(domains.factors, domains.counts)) == pytest.approx(4)


def test_batches_are_of_one_domain_and_come_in_turns():
    tokens = given_windows({"a": some_windows(400, seed=1), "b": some_windows(200, seed=2)})
    batches, numbers = batches_of(tokens), domains_of_batches(tokens)
    counts = [sum(len(batch) for batch, number in zip(batches, numbers) if number == one) for one in (0, 1)]
    assert len(batches) == len(numbers) and counts == [400, 200]
    assert set(numbers[-3:]) == {0, 1}
    assert interleaved([[1, 2, 3, 4], [5, 6]]) == [1, 5, 2, 3, 6, 4]
