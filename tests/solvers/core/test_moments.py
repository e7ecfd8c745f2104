"""Streamed moments against the matrices they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rounding import rounding_of_loss

from gramian.proofs.kit.strategies import Layer, layers, normal_layer
from gramian.solvers import Moments, Quadratic


def close(xp, array, expected, rtol=1e-12):
    expected = np.asarray(expected)
    np.testing.assert_allclose(xp.numpy(array), expected, rtol=rtol, atol=rtol * max(1e-300, np.max(np.abs(expected))))


def collected(xp, *batches, width, **options):
    moments = Moments(width)
    for batch in batches:
        moments.update(*(None if part is None else xp.asarray(part) for part in batch), **options)
    return moments


@given(layer=layers())
def test_equal_direct_products(xp, layer: Layer):
    star, width = layer.inputs, layer.inputs.shape[1]
    moments = collected(xp, (star, layer.dense), width=width)
    close(xp, moments.require(), star.T @ star)
    assert moments.tokens == len(star)
    assert moments.gram.dtype == xp.dtype("float64")
    if layer.dense is None:
        assert moments.cross is None and moments.drift is None
    else:
        change = star - layer.dense
        size = np.max(np.abs(change)) * np.max(np.abs(star)) * len(star)
        np.testing.assert_allclose(xp.numpy(moments.cross), change.T @ star, rtol=0, atol=1e-13 * size)
        close(xp, moments.drift, change.T @ change)


@given(layer=layers(), data=st.data())
def test_batches_do_not_matter(xp, layer: Layer, data):
    star, dense = layer.inputs, layer.dense
    cut = data.draw(st.integers(0, len(star)), label="cut")
    parts = [(star[part], None if dense is None else dense[part]) for part in (slice(cut), slice(cut, None))]
    split, whole = (collected(xp, *batches, width=star.shape[1]) for batches in (parts, [(star, dense)]))
    assert split.tokens == whole.tokens
    for name in ("gram",) if dense is None else ("gram", "cross", "drift"):
        close(xp, getattr(split, name), xp.numpy(getattr(whole, name)), rtol=1e-11)


def test_leading_axes_are_tokens(xp):
    layer = normal_layer(0, 24, 5, 2, drift=0.2)
    folded = collected(xp, (layer.inputs.reshape(2, 3, 4, 5), layer.dense.reshape(2, 3, 4, 5)), width=5)
    flat = collected(xp, (layer.inputs, layer.dense), width=5)
    assert folded.tokens == flat.tokens == 24
    for name in ("gram", "cross", "drift"):
        close(xp, getattr(folded, name), xp.numpy(getattr(flat, name)))
    single = collected(xp, (layer.inputs[0],), width=5)
    close(xp, single.require(), np.outer(layer.inputs[0], layer.inputs[0]))


@given(layer=layers(), data=st.data())
def test_token_weights_are_repetitions(xp, layer: Layer, data):
    star, dense = layer.inputs, layer.dense
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(star), max_size=len(star)), label="times"))
    weighted = collected(xp, (star, dense), width=star.shape[1], weights=xp.asarray(times))
    repeated = [None if part is None else np.repeat(part, times, axis=0) for part in (star, dense)]
    expected = collected(xp, repeated, width=star.shape[1])
    assert weighted.tokens == expected.tokens == times.sum()
    for name in ("gram", "total") if dense is None else ("gram", "cross", "drift", "total", "shift"):
        found, size = xp.numpy(getattr(weighted, name)), np.abs(star).max(initial=0) * max(1, times.sum())
        np.testing.assert_allclose(found, xp.numpy(getattr(expected, name)), rtol=1e-11, atol=1e-12 * size * (1 + size))


def test_two_sets_of_tokens_merge(xp):
    """As if they had come one after the other, also with more channels than small integers are cached for."""
    rng = np.random.default_rng(4)
    star, dense = rng.normal(size=(2, 12, 300))
    first, second = (collected(xp, (star[part], dense[part]), width=300) for part in (slice(5), slice(5, None)))
    whole, both = collected(xp, (star, dense), width=300), first.merged(second)
    assert both.tokens == whole.tokens == 12
    for name in ("gram", "cross", "drift", "total", "shift"):
        np.testing.assert_allclose(xp.numpy(getattr(both, name)), xp.numpy(getattr(whole, name)), rtol=1e-11, atol=1e-11)
    for other in (Moments(301), collected(xp, (star,), width=300)):
        with pytest.raises(ValueError, match="only for one width, and with dense counterparts in both or in neither"):
            first.merged(other)


@pytest.mark.parametrize("shape", [(3, 2), (5, 2), (2, 4)])
def test_dense_inputs_of_another_shape_are_refused(xp, shape):
    with pytest.raises(ValueError, match=r"inputs are \(4, 2\) but the dense inputs are"):
        collected(xp, (np.ones((4, 2)), np.ones(shape)), width=2)
    with pytest.raises(ValueError, match="there are 3 token weights but 4 tokens"):
        collected(xp, (np.ones((4, 2)),), width=2, weights=xp.asarray(np.ones(3)))


def test_padding_is_excluded_by_weight_zero(xp):
    layer = normal_layer(1, 12, 4, 2, drift=0.3)
    keep = np.arange(12) % 3 != 0
    padded = collected(xp, (layer.inputs, layer.dense), width=4, weights=xp.asarray(keep.astype(float)))
    honest = collected(xp, (layer.inputs[keep], layer.dense[keep]), width=4)
    for name in ("gram", "cross", "drift"):
        close(xp, getattr(padded, name), xp.numpy(getattr(honest, name)))


@pytest.mark.parametrize("products", ["float64", "float32"])
@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
def test_padding_may_hold_anything(xp, nothing, products):
    """In the inputs, in the dense inputs, or in both; what has a weight is refused as ever."""
    layer = normal_layer(1, 12, 4, 2, drift=0.3)
    keep = np.arange(12) % 3 != 0
    spoilt = [np.where(keep[:, None], part, nothing) for part in (layer.inputs, layer.dense)]
    honest = collected(xp, (layer.inputs[keep], layer.dense[keep]), width=4, products=products)
    for star, dense in ((spoilt[0], layer.dense), (layer.inputs, spoilt[1]), spoilt):
        padded = collected(xp, (star, dense), width=4, weights=xp.asarray(keep.astype(float)), products=products)
        assert padded.tokens == 8
        for name in ("gram", "cross", "drift", "total", "shift"):
            close(xp, getattr(padded, name), xp.numpy(getattr(honest, name)), rtol=1e-12 if products == "float64" else 1e-6)
    with pytest.raises(ValueError, match="the inputs hold NaN or Inf"):
        collected(xp, (spoilt[0], layer.dense), width=4, weights=xp.asarray(np.full(12, 1e-300)), products=products)


def test_tokens_are_the_sum_of_their_weights_rounded_when_read(xp):
    """However they come: 60 batches of one token of weight 0.4 are 24 tokens, and not 60 times none."""
    star = np.random.default_rng(3).normal(size=(60, 4))
    weights = np.full(60, 0.4)
    one_by_one, at_once = Moments(4), Moments(4)
    for row in range(60):
        one_by_one.update(xp.asarray(star[row : row + 1]), weights=xp.asarray(weights[row : row + 1]))
    at_once.update(xp.asarray(star), weights=xp.asarray(weights))
    assert one_by_one.tokens == at_once.tokens == 24
    assert one_by_one.mass == pytest.approx(24) and type(one_by_one.tokens) is int
    close(xp, one_by_one.gram, xp.numpy(at_once.gram))
    half = Moments(4)
    half.update(xp.asarray(star[:1]), weights=xp.asarray(weights[:1]))
    both = half.merged(half).merged(half)
    assert half.tokens == 0 and both.mass == pytest.approx(1.2) and both.tokens == 1
    both.update(xp.asarray(star[:3]))
    assert both.tokens == 4
    with pytest.raises(TypeError, match="moments merge with Moments but the other is 3"):
        half.merged(3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-300])
def test_token_weights_are_finite_and_at_least_zero(xp, bad):
    moments = collected(xp, (np.ones((3, 2)),), width=2)
    with pytest.raises(ValueError, match=f"token weights must be finite and at least zero but 1 are not, as {bad}"):
        moments.update(xp.asarray(np.ones((3, 2))), weights=xp.asarray(np.array([1.0, bad, 0.0])))
    assert moments.tokens == 3 and float(moments.gram[0, 0]) == 3


def test_batches_with_and_without_dense_inputs_mix(xp):
    """A batch without dense inputs adds nothing to C and E, whichever comes first."""
    layer = normal_layer(2, 20, 4, 2, drift=0.3)
    star, dense = layer.inputs, layer.dense
    expected = star.copy()
    expected[10:] = dense[10:]  # X* = X in the first half
    whole = collected(xp, (star, expected), width=4)
    for batches in ([(star[:10],), (star[10:], dense[10:])], [(star[10:], dense[10:]), (star[:10],)]):
        mixed = collected(xp, *batches, width=4)
        for name in ("gram", "cross", "drift"):
            close(xp, getattr(mixed, name), xp.numpy(getattr(whole, name)))


def test_equal_dense_inputs_change_nothing(xp):
    layer = normal_layer(3, 20, 4, 2)
    same = Quadratic.from_data(xp.asarray(layer.inputs), xp.asarray(layer.weight), xp.asarray(layer.inputs))
    ones = np.ones((2, 4))
    point, slack = xp.asarray(ones), rounding_of_loss(layer, ones)
    assert same.loss(point) == pytest.approx(layer.problem(xp).loss(point), abs=slack) and slack < 1e-9 * layer.energy


def test_half_precision_inputs_accumulate_in_double():
    """300 x 300 is past float16's range, and 1 + 2^-12 past bfloat16's digits: both survive only in float64."""
    for half in (torch.float16, torch.bfloat16, torch.float32):
        inputs = torch.full((4096, 2), 300.0).to(half)
        inputs[:, 1] = 1.0
        inputs[0, 1] = 2.0**-6
        moments = Moments(2)
        for batch in inputs.split(64):
            moments.update(batch)
        direct = inputs.double().T @ inputs.double()
        assert moments.gram.dtype == torch.float64
        assert torch.equal(moments.gram, direct), half  # every product and sum here is exact in float64
    inputs = torch.tensor([[1.0], [1.0]]).bfloat16()
    dense = torch.tensor([[1.0 - 2**-8], [1.0]]).bfloat16()  # the difference is squared after it is taken, in float64
    moments = Moments(1)
    moments.update(inputs, dense)
    assert moments.drift.item() == 2.0**-16 and moments.cross.item() == 2.0**-8


def test_half_precision_numpy():
    moments = Moments(2)
    moments.update(np.full((10, 2), 300, dtype=np.float16))
    np.testing.assert_array_equal(moments.require(), np.full((2, 2), 900_000.0))
    moments.update(np.array([[1, 2]]))  # integers too
    np.testing.assert_array_equal(moments.require(), [[900_001, 900_002], [900_002, 900_004]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_rejected_before_anything_is_added(xp, bad):
    good = np.ones((3, 2))
    spoilt = good.copy()
    spoilt[1, 1] = bad
    moments = collected(xp, (good, 2 * good), width=2)
    before = [xp.numpy(getattr(moments, name)).copy() for name in ("gram", "cross", "drift")]
    for batch, message in (((spoilt,), "inputs hold NaN or Inf"), ((good, spoilt), "dense inputs hold NaN or Inf")):
        with pytest.raises(ValueError, match=message):
            moments.update(*(xp.asarray(part) for part in batch))
    for name, expected in zip(("gram", "cross", "drift"), before):
        np.testing.assert_array_equal(xp.numpy(getattr(moments, name)), expected)
    assert moments.tokens == 3


def test_errors_name_both_sides(xp):
    moments = Moments(4)
    with pytest.raises(ValueError, match=r"3 channels .* width 4"):
        moments.update(xp.asarray(np.ones((2, 3))))
    with pytest.raises(ValueError, match=r"\(2, 4\) .* \(3, 4\)"):
        moments.update(xp.asarray(np.ones((2, 4))), xp.asarray(np.ones((3, 4))))
    with pytest.raises(ValueError, match="no tokens were seen"):
        moments.require()
    assert moments.tokens == 0 and moments.gram is None


@given(layer=layers(), weight=st.sampled_from([0.25, 1.0, 3.0, 1e6]))
def test_scaled_is_what_token_weights_give(xp, layer: Layer, weight):
    dense = 0.5 * layer.inputs
    count, width = layer.inputs.shape
    plain = collected(xp, (layer.inputs, dense), width=width)
    weighted = collected(xp, (layer.inputs, dense, np.full(count, weight)), width=width)
    scaled = plain.scaled(weight)
    for name in ("gram", "cross", "drift", "total", "shift"):
        close(xp, getattr(scaled, name), xp.numpy(getattr(weighted, name)))
    assert scaled.mass == pytest.approx(weighted.mass) and scaled.tokens == weighted.tokens
    close(xp, plain.gram, xp.numpy(collected(xp, (layer.inputs,), width=width).gram))  # what is scaled remains as it was


def test_scaled_refuses_weights_that_are_none(xp):
    moments = collected(xp, (np.ones((3, 2)),), width=2)
    assert moments.scaled(2.0).cross is None and float(xp.numpy(moments.scaled(0.0).gram).max()) == 0
    for weight in (-1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="weight of tokens must be a finite number"):
            moments.scaled(weight)
