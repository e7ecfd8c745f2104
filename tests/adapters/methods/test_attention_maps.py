"""Distances between heads, against maps that eager attention returns and scipy's Jensen-Shannon distance."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from rounding import rounding_of
from scipy.spatial.distance import jensenshannon
from structured_models import TOKENS, exact
from tiny import FAMILIES, SHAPES, VOCABULARY, names_of, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gramian.adapters import head_distances
from gramian.adapters.methods import attention_maps
from gramian.adapters.methods.attention_maps import attention_rows, row_distances

WINDOWS = TOKENS[:3]


@torch.no_grad()
def reference(model, windows) -> list[np.ndarray]:
    """By module, from whole maps and scipy, pair by pair."""
    model.set_attn_implementation("eager")
    maps = model(input_ids=windows, output_attentions=True, use_cache=False).attentions
    return [
        np.array([[jensenshannon(p[:, i], p[:, j], axis=-1).mean() for j in range(p.shape[1])] for i in range(p.shape[1])])
        for p in (np.asarray(layer.double()) for layer in maps)
    ]


@pytest.mark.parametrize("chunk", [2**25, 2**10])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_distances_are_those_of_the_maps(model_type, chunk, monkeypatch):
    monkeypatch.setattr(attention_maps, "ROW_BYTES", chunk)
    model = exact(model_type)
    found = head_distances(model, WINDOWS)
    assert list(found) == names_of(model, "heads")
    for distances, expected in zip(found.values(), reference(model, WINDOWS)):
        np.testing.assert_allclose(distances, np.nan_to_num(expected), atol=1e-7)
        assert np.array_equal(distances, distances.T) and not distances.diagonal().any()
        assert 0.01 < distances.max() <= np.log(2) ** 0.5


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_model_computes_the_same_and_is_left_as_it_was(model_type):
    model = tiny_model(model_type)
    before = model.config._attn_implementation
    slack = rounding_of(model, lambda each: each(input_ids=WINDOWS, use_cache=False).logits)
    with torch.no_grad():
        expected = model(input_ids=WINDOWS, use_cache=False).logits
        with attention_rows(model, {}):
            assert model.config._attn_implementation == attention_maps.NAME
            torch.testing.assert_close(model(input_ids=WINDOWS, use_cache=False).logits, expected, rtol=0, atol=slack)
    with pytest.raises(RuntimeError, match="stop"), attention_rows(model, {}):
        raise RuntimeError("stop")
    assert model.config._attn_implementation == before and attention_maps.NAME not in ALL_ATTENTION_FUNCTIONS
    assert torch.equal(model(input_ids=WINDOWS, use_cache=False).logits, expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-3)])
def test_rows_with_zeros_ties_and_disjoint_supports(dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(2, 5, 7, 9, generator=generator, dtype=torch.float64) ** 8
    rows[:, :, 3, 1:] = 0  # one key
    rows[:, 1] = rows[:, 0]
    rows[:, 2] = rows[:, 0] * (1 + 1e-4 * torch.rand(2, 7, 9, generator=generator, dtype=torch.float64))
    rows[:, 3, :, ::2] = 0
    rows[:, 3, 3, 1] = 1.0
    rows[:, 4] = (rows[:, 3] == 0).double()  # disjoint
    rows /= rows.sum(-1, keepdim=True)
    found = row_distances(rows.to(dtype)).numpy().reshape(5, 5, 2, 7)
    for i in range(5):
        for j in range(5):
            expected = np.nan_to_num(jensenshannon(rows[:, i], rows[:, j], axis=-1))
            np.testing.assert_allclose(found[i, j], expected, atol=tolerance)
    assert not found[0, 1].any()
    np.testing.assert_allclose(found[3, 4], np.log(2) ** 0.5, atol=tolerance)
    triangle = found[:, None] <= found[:, :, None] + found[None] + 2 * tolerance
    assert triangle.all()


def test_one_head_one_key_and_equal_heads():
    shape = SHAPES["opt"] | {"num_attention_heads": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("opt", **shape, vocab_size=VOCABULARY)).eval()
    assert all(np.array_equal(each, np.zeros((1, 1))) for each in head_distances(model, WINDOWS).values())
    model = tiny_model("llama")
    with torch.no_grad():
        rows = model.model.layers[1].self_attn.q_proj.weight.view(4, -1, 32)
        rows[1] = rows[0]  # both of one key/value group
    first, second = head_distances(model, WINDOWS).values()
    assert second[0, 1] == 0 and np.all(second[np.triu_indices(4, 1)][1:] > 0.01) and first[0, 1] > 0.01
    name = "model.layers.1.self_attn.o_proj"
    for names in ([name], name, [name, name]):
        assert list(head_distances(model, WINDOWS, names)) == [name]
    both = head_distances(model, WINDOWS, [name, name, name.replace("1", "0")])
    assert all(both[each].tolist() == expected.tolist() for each, expected in head_distances(model, WINDOWS).items())


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation made."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, torch.Tensor):
                self.bytes = max(self.bytes, each.untyped_storage().nbytes())
        return made


def test_memory_is_of_a_few_rows_and_not_of_whole_maps(monkeypatch):
    """512 tokens and 16 heads: one map of all heads would take 16 MiB."""
    monkeypatch.setattr(attention_maps, "ROW_BYTES", 2**20)
    shape = SHAPES["gpt2"] | {"n_head": 16, "n_positions": 512, "n_layer": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **shape, vocab_size=VOCABULARY)).eval()
    tokens = torch.randint(0, VOCABULARY, (1, 512), generator=torch.Generator().manual_seed(0))
    with Largest() as largest:
        head_distances(model, tokens)
    assert largest.bytes <= 2 * 2**20


def test_a_chunk_of_32_heads_over_2048_tokens_takes_less_than_half_a_gibibyte():
    code = """
import pathlib, re, resource, torch
from gramian.adapters.methods.attention_maps import ROW_BYTES, row_distances


def peak():  # in KiB; the usage of a new process begins with the peak of the one that made it, its status does not
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


rows = torch.full((1, 32, ROW_BYTES // (4 * 32 * 2048), 2048), 2.0**-11)
before = peak()
assert not row_distances(rows).any()
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 2**19  # KiB


def test_attention_that_cannot_be_seen(monkeypatch):
    model = tiny_model("opt")
    with pytest.raises(ValueError, match=r"'lm_head' is no attention module; names look like model\.decoder"):
        head_distances(model, WINDOWS, ["lm_head"])
    with pytest.raises(ValueError, match=r"hold token \d+, but the model's vocabulary"):
        head_distances(model, WINDOWS + 2 * VOCABULARY)
    for layer in model.model.decoder.layers:
        monkeypatch.setattr(layer.self_attn, "forward", lambda hidden_states, **_: (hidden_states, None))
    with pytest.raises(ValueError, match=r"maps of OPTForCausalLM cannot be seen: .* AttentionInterface"):
        head_distances(model, WINDOWS)
