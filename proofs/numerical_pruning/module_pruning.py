"""Numerical Pruning, Sections 3.1, 3.3, 3.4 and Appendix C.3: pruned columns and rows, and the modules around them (claims
N13, N18, N20).

D is the hidden size, D_h the size of a head, D_inter the number of MLP channels. With grouped queries n key/value heads serve
g = H / n query heads each: W_q is (D, n, g, D_h), W_k and W_v are (D, n, D_h), and W_o is (n, g, D_h, D). The paper's case is
g = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.proofs.kit.rational import Vector, dot, exact
from gramian.proofs.numerical_pruning.compensation import Pruned, pruned_layers

__all__ = ["CLAIMS"]

PAPER = "Numerical Pruning"


@dataclass(frozen=True)
class Block:
    """inputs: X (N, D). query, key, value, output: the attention weights, as above. up, gate: (D, D_inter). down: (D_inter,
    D). In the masks True is kept. heads: boolean (n, D_h), whose rows are all True or all False. channels: boolean (n, D_h).
    inner: boolean (D_inter,)."""

    inputs: np.ndarray
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray
    up: np.ndarray
    gate: np.ndarray
    down: np.ndarray
    heads: np.ndarray
    channels: np.ndarray
    inner: np.ndarray

    def attention(self, scores: np.ndarray, values: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return the module's outputs under three masks (n, D_h): on the columns of W_q and W_k, on those of W_v, and on the
        rows of W_o."""
        query = np.einsum("td,dngh->ngth", self.inputs, self.query * scores[:, None])
        key = np.einsum("td,dnh->nth", self.inputs, self.key * scores)
        logits = np.einsum("ngth,nsh->ngts", query, key) / np.sqrt(key.shape[-1])
        attention = np.exp(logits - logits.max(axis=-1, keepdims=True))
        attention /= attention.sum(axis=-1, keepdims=True)
        value = np.einsum("td,dnh->nth", self.inputs, self.value * values)
        return np.asarray(np.einsum("ngts,nsh,nghd->td", attention, value, self.output * outputs[:, None, :, None]))

    def mlp(self, inputs: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """(SiLU(X W_gate) o X W_up) W_down, where the rows of W_down off `kept` are zero."""
        return np.asarray((silu(inputs @ self.gate) * (inputs @ self.up)) @ (self.down * kept[:, None]))


def silu(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / (1 + np.exp(-values)))


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    width, kv_heads, group, size, inner = (draw(st.integers(1, largest)) for largest in (4, 3, 3, 3, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    kept, channels, units = (
        draw(arrays(bool, shape, fill=st.nothing())) for shape in ((kv_heads, 1), (kv_heads, size), (inner,))
    )
    return Block(
        inputs=2 * rng.normal(size=(5, width)),
        query=rng.normal(size=(width, kv_heads, group, size)),
        key=rng.normal(size=(width, kv_heads, size)),
        value=rng.normal(size=(width, kv_heads, size)),
        output=rng.normal(size=(kv_heads, group, size, width)),
        up=rng.normal(size=(width, inner)),
        gate=rng.normal(size=(width, inner)),
        down=rng.normal(size=(inner, width)),
        heads=np.repeat(kept, size, axis=1),
        channels=channels,
        inner=units,
    )


def check_alignment(block: Block, chosen: Any) -> None:
    """The pruned module computes what the dense one does with the same rows of W_o set to zero."""
    scores, values, outputs = chosen(block)
    everything = np.ones_like(outputs)
    dense = block.attention(everything, everything, outputs)
    assert_allclose(block.attention(scores, values, outputs), dense, rtol=0, atol=1e-10 * (1 + np.max(np.abs(dense))))


def check_mlp(block: Block, pruned: Any) -> None:
    dense = block.mlp(block.inputs, block.inner)
    assert_allclose(pruned(block), dense, rtol=0, atol=1e-12 * (1 + np.max(np.abs(dense))))


def compact(block: Block, shift: int = 0) -> np.ndarray:
    """Return the MLP without the pruned columns of W_up and W_gate and rows of W_down. shift: by how much W_up is cut
    elsewhere."""
    kept, other = block.inner, np.roll(block.inner, shift)
    return np.asarray((silu(block.inputs @ block.gate[:, kept]) * (block.inputs @ block.up[:, other])) @ block.down[kept])


def group_cost(width: int, group: int, size: int) -> int:
    """(2 g + 2) D D_h: the parameters of one key/value head with its g query heads."""
    return (2 * group + 2) * width * size


def check_group_cost(sizes: tuple[int, int, int, int], cost: Any) -> None:
    width, group, size, kv_heads = sizes
    parameters = []
    for n in (kv_heads, kv_heads - 1):
        shapes = (width, n, group, size), (width, n, size), (width, n, size), (n, group, size, width)
        parameters.append(sum(np.empty(shape).size for shape in shapes))
    assert parameters[0] - parameters[1] == cost(width, group, size)


def powers(logits: Vector) -> Vector:
    """Return the softmax of `logits` times log 2, which is rational: 2^l / sum 2^l for integers l."""
    values = [Fraction(2) ** int(logit) for logit in logits]
    return [value / sum(values) for value in values]


def check_channel_mask() -> None:
    """One head has two channels, a query (1, 1), keys (1, 0) and (0, 0), and values (1, 0) in channel 2, with W_q in units of
    sqrt(2) log 2. Without channel 1 of W_o the head delivers 2/3, and without channel 1 of W_q and W_k as well 1/2."""
    keys, values = exact([[1, 0], [0, 0]]), exact([1, 0])
    assert dot(powers([dot(exact([1, 1]), key) for key in keys]), values) == Fraction(2, 3)
    assert dot(powers([dot(exact([0, 1]), key) for key in keys]), values) == Fraction(1, 2)


def check_grouped_scale() -> None:
    """For D_h = 128 alpha is 1280/3 in LLaMA-3-8B (H = 32, n = 8) and 768 in LLaMA-3-70B (H = 64, n = 8), where 4 D_h / 3 =
    512/3."""
    for group, alpha in ((4, Fraction(1280, 3)), (8, Fraction(768)), (1, Fraction(512, 3))):
        assert Fraction(group_cost(4096, group, 128), 3 * 4096) == alpha


# -- columns -----------------------------------------------------------------------------------------------------------


def column_loss(case: Pruned) -> float:
    """sum of |X W_i|^2 over the pruned columns i."""
    return float(np.sum((case.inputs @ case.weight[:, case.gone]) ** 2))


def column_refit(case: Pruned) -> float:
    """Return the loss that would remain if the kept outputs could stand in for the pruned ones."""
    outputs = case.inputs @ case.weight
    mixture = np.linalg.lstsq(outputs[:, case.kept], outputs[:, case.gone], rcond=None)[0]
    return float(np.sum((outputs[:, case.gone] - outputs[:, case.kept] @ mixture) ** 2))


def check_columns(case: Pruned, loss: Any) -> None:
    """The formula is the least loss over all weights V with V_P = 0, and the kept columns as they are attain it."""
    outputs, kept = case.inputs @ case.weight, ~case.pruned
    assert_allclose(np.sum((case.inputs @ (case.weight * kept) - outputs) ** 2), loss(case), rtol=0, atol=1e-9 * case.scale)
    best = np.linalg.lstsq(case.inputs, outputs, rcond=None)[0] * kept
    free = np.random.default_rng(0).normal(size=case.weight.shape) * kept
    for rival in (best, free):
        assert np.all((case.inputs @ rival)[:, case.gone] == 0)
        assert np.sum((case.inputs @ rival - outputs) ** 2) >= loss(case) - 1e-9 * case.scale


# -- Appendix C.3 ------------------------------------------------------------------------------------------------------


def gated(block: Block, inputs: np.ndarray, gate: Any) -> np.ndarray:
    """(phi(H_gate) o H_up) W_down."""
    return np.asarray((gate(inputs @ block.gate) * (inputs @ block.up)) @ block.down)


def check_gate(block: Block, mlp: Any) -> None:
    """Z(X) + Z(-X) = (H_up o H_gate) W_down, since SiLU(x) - SiLU(-x) = x. Inputs and outputs are (B, N, D)."""
    inputs = np.stack([block.inputs, 0.5 * block.inputs, block.inputs[::-1]])
    there, back = mlp(block, inputs), mlp(block, -inputs)
    assert there.shape == inputs.shape
    assert_allclose(there + back, gated(block, inputs, np.asarray), rtol=0, atol=1e-10 * (1 + np.max(np.abs(there))))


def check_no_gate() -> None:
    """With X = 1, W_up = W_down = 1 and W_gate = log 3, exp(-H_gate) is 1/3, so that SiLU(H_gate) is 3/4 of H_gate."""
    assert 1 / (1 + Fraction(1, 3)) == Fraction(3, 4) != 1


def check_one_softmax() -> None:
    """Two heads of one channel have, with logits in units of log 2, a query (1, 1), keys (1, 0) and (0, 1), and values (1, 0)
    in channel 1. One softmax over both channels delivers 1/2 there, the head alone 2/3."""
    keys, values = exact([[1, 0], [0, 1]]), exact([1, 0])
    assert dot(powers([dot(exact([1, 1]), key) for key in keys]), values) == Fraction(1, 2)
    assert dot(powers([key[0] for key in keys]), values) == Fraction(2, 3)


SIZES = st.tuples(st.integers(1, 8), st.integers(1, 4), st.integers(1, 6), st.integers(1, 4))

CLAIMS = (
    Claim(
        "N13",
        f"{PAPER}, Sections 3.1 and 3.3, Appendix C.3",
        "One mask on the columns of W_q, W_k, W_v and the rows of W_o, and one on the columns of W_up, W_gate and the rows of "
        "W_down, keeps the internal computation; a head weighs alpha = 4 D_h / 3 MLP channels.",
        Verdict.CONDITIONAL,
        "For attention the mask must consist of whole heads (with grouped queries of whole groups): then, and for the MLP with "
        "any mask, the module equals the dense one with those rows of W_o or W_down at zero. A mask inside a head changes the "
        "logits unless W_q and W_k are left alone. alpha = 4 D_h / 3 is for g = 1; a group costs (2 g + 2) D D_h, so that "
        "alpha = (2 g + 2) D_h / 3.",
        (
            Property(
                "whole heads",
                blocks(),
                check_alignment,
                lambda block: (block.heads,) * 3,
                {
                    "any channels": lambda block: (block.channels,) * 3,
                    "another mask for W_o": lambda block: (block.heads, block.heads, np.ones_like(block.heads)),
                },
            ),
            Property(
                "any channels of W_v and W_o",
                blocks(),
                check_alignment,
                lambda block: (np.ones_like(block.heads), block.channels, block.channels),
                {
                    "and W_q, W_k": lambda block: (block.channels,) * 3,
                    "another mask for W_o": lambda block: (
                        np.ones_like(block.heads),
                        block.channels,
                        np.ones_like(block.heads),
                    ),
                },
            ),
            Property(
                "any channels of the MLP",
                blocks(),
                check_mlp,
                compact,
                {"W_up by another mask": lambda block: compact(block, shift=1)},
            ),
            Property(
                "what a group costs",
                SIZES,
                check_group_cost,
                group_cost,
                {
                    "4 D D_h": lambda width, group, size: 4 * width * size,
                    "4 g D D_h": lambda width, group, size: 4 * group * width * size,
                },
            ),
        ),
        (
            Counterexample("a channel inside a head", check_channel_mask),
            Counterexample("LLaMA-3", check_grouped_scale),
        ),
    ),
    Claim(
        "N18",
        f"{PAPER}, Section 3.4",
        "Where columns of W are pruned, the same columns of X W become zero, and no change of the others can compensate.",
        Verdict.HOLDS,
        "",
        (
            Property(
                "the least loss is that of plain pruning",
                pruned_layers(outputs=True),
                check_columns,
                column_loss,
                {
                    "made up for by the kept columns": column_refit,
                    "half": lambda case: column_loss(case) / 2,
                },
            ),
        ),
    ),
    Claim(
        "N20",
        f"{PAPER}, Appendix C.3",
        "Z_attn = Softmax(Q K^T / sqrt(D_k)) V W_o and Z_mlp = (H_up o H_gate) W_down, for X (B, N, D), W_q, W_k, W_v, W_up, "
        "W_gate (D, D_p) and W_o, W_down (D_p, D); H = index(D / D_h).",
        Verdict.REFUTED,
        "The LLaMA modules meant have one softmax per head of D_h channels, H = D / D_h of them, and Z_mlp = (H_up o "
        "SiLU(H_gate)) W_down. What is printed is Z_mlp(X) + Z_mlp(-X). The shapes hold.",
        (
            Property(
                "SiLU on the gate",
                blocks(),
                check_gate,
                lambda block, inputs: gated(block, inputs, silu),
                {
                    "no activation": lambda block, inputs: gated(block, inputs, np.asarray),
                    "the sigmoid": lambda block, inputs: gated(block, inputs, lambda gate: 1 / (1 + np.exp(-gate))),
                    "tanh": lambda block, inputs: gated(block, inputs, np.tanh),
                },
            ),
        ),
        (Counterexample("one unit", check_no_gate), Counterexample("two heads", check_one_softmax)),
    ),
)
