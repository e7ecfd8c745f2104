"""A network between RMSNorms in another basis (claim S1), and the basis that loses least of its streams (claim S2)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from gramian.proofs.kit.claims import Claim, Counterexample, Property, Verdict
from gramian.solvers.units.stream_basis import principal_basis

__all__ = ["S1", "S2"]


# --- S1: the stream in another basis ---------------------------------------------------------------------------------


class Network(NamedTuple):
    """x (n, p) <- x + f(g * x / rms(x) W^T) O^T + b for every block (g, W, O, b), and then g * x / rms(x) H^T.

    rms(x)^2 = |x|^2 / p + epsilon. basis: orthonormal (p, k)."""

    start: np.ndarray
    blocks: tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], ...]
    gain: np.ndarray
    head: np.ndarray
    epsilon: float
    basis: np.ndarray

    def computed(self, within: np.ndarray | None = None, mean: bool = False) -> np.ndarray:
        """What leaves the network. within: a projection that stands before every norm. mean: whether norms subtract it."""
        stream = self.start
        for gain, reader, writer, bias in self.blocks:
            stream = stream + np.tanh(self.normed(stream, within, mean) * gain @ reader.T) @ writer.T + bias
        return np.asarray(self.normed(stream, within, mean) * self.gain @ self.head.T)

    def normed(self, stream: np.ndarray, within: np.ndarray | None, mean: bool) -> np.ndarray:
        """x / rms(x)."""
        read = stream if within is None else stream @ within
        read = read - read.mean(axis=1, keepdims=True) if mean else read
        return np.asarray(read / np.sqrt(np.mean(read**2, axis=1, keepdims=True) + self.epsilon))


@st.composite
def networks(draw: st.DrawFn, narrower: bool) -> Network:
    """Draw networks of one block to three, with gains, and a rotation or a basis of fewer directions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    width, tokens = draw(st.integers(2, 6)), draw(st.integers(1, 4))
    kept = draw(st.integers(1, width - 1)) if narrower else width
    blocks = []
    for _ in range(draw(st.integers(1, 3))):
        inner = draw(st.integers(1, 5))
        shapes = ((width,), (inner, width), (width, inner), (width,))
        blocks.append(tuple(rng.normal(size=shape) for shape in shapes))
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0][:, :kept]
    epsilon = draw(st.sampled_from([0.0, 1e-6, 0.5]))
    start, gain, head = (rng.normal(size=shape) for shape in ((tokens, width), (width,), (3, width)))
    return Network(start, tuple(blocks), gain, head, epsilon, basis)  # type: ignore[arg-type]


Turn = Callable[[Network], np.ndarray]  # to what leaves the network in its basis


def turned(given: Network, fold: bool = True, scale: bool = True, write: bool = True, bias: bool = True) -> Network:
    """sqrt(k / p) x Q, sqrt(k / p) Q^T O and Q^T b, sqrt(p / k) W diag(g) Q, and gains of one."""
    basis = given.basis
    width, kept = basis.shape
    ratio = (kept / width) ** 0.5 if scale else 1.0
    ones = np.ones(kept)

    def read(reader: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return np.asarray((reader * gain if fold else reader) @ basis / ratio)

    blocks = tuple(
        (
            ones if fold else (gain @ basis**2),  # of a gain that is not folded, what it is on the average in a direction
            read(reader, gain),
            ratio * (basis.T @ writer if write else writer[:kept]),
            ratio * (added @ basis if bias else added[:kept]),
        )
        for gain, reader, writer, added in given.blocks
    )
    last = ones if fold else given.gain @ basis**2
    return Network(ratio * given.start @ basis, blocks, last, read(given.head, given.gain), given.epsilon, np.eye(kept))


def equals_the_projected(given: Network, turn: Turn) -> None:
    """The network in the basis computes what the network as it was does with Q Q^T before every norm, which with k = p is I."""
    expected = given.computed(given.basis @ given.basis.T)
    np.testing.assert_allclose(turn(given), expected, rtol=0, atol=1e-8 * (1 + np.abs(expected).max()))


def same_without_gains() -> None:
    """g * (x Q) / |x| is not (g * x / |x|) Q: x = (3, 4), g = (2, 1), Q = [[3, -4], [4, 3]] / 5."""
    vector, gain = (Fraction(3), Fraction(4)), (Fraction(2), Fraction(1))
    rotation = ((Fraction(3, 5), Fraction(-4, 5)), (Fraction(4, 5), Fraction(3, 5)))

    def turn(row: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
        return tuple(sum((row[i] * rotation[i][j] for i in range(2)), Fraction(0)) for j in range(2))

    length = Fraction(5)  # of x, and of x Q
    moved = turn(vector)
    assert sum(entry**2 for entry in moved) == sum(entry**2 for entry in vector) == length**2
    before = turn(tuple(g * entry / length for g, entry in zip(gain, vector)))
    after = tuple(g * entry / length for g, entry in zip(gain, moved))
    assert before != after
    assert turn(tuple(entry / length for entry in vector)) == tuple(entry / length for entry in moved)  # as it is without g


PROJECTED = {
    "gains where they are": lambda given: turned(given, fold=False).computed(),
    "writers as they were": lambda given: turned(given, write=False).computed(),
    "biases as they were": lambda given: turned(given, bias=False).computed(),
}

S1 = Claim(
    "S1",
    "SliceGPT; gramian, adapters/models/narrowing.py",
    "a network x <- x + O f(W diag(g) x / rms(x)) + b with the stream sqrt(k/p) Q^T x, writers sqrt(k/p) Q^T O and biases "
    "sqrt(k/p) Q^T b, readers sqrt(p/k) W diag(g) Q and gains of 1 computes the same for orthogonal Q (p, p), and for "
    "orthonormal Q (p, k) what the network does with Q Q^T before every norm, whatever the epsilon in rms",
    Verdict.HOLDS,
    properties=(
        Property(
            "the network in the basis of a rotation is the network",
            networks(narrower=False),
            equals_the_projected,
            lambda given: turned(given).computed(),
            {**PROJECTED, "norms that subtract a mean": lambda given: turned(given).computed(mean=True)},
        ),
        Property(
            "the network in fewer directions is the one with Q Q^T before its norms",
            networks(narrower=True),
            equals_the_projected,
            lambda given: turned(given).computed(),
            {**PROJECTED, "epsilon beside a mean over k": lambda given: turned(given, scale=False).computed()},
        ),
    ),
    counterexamples=(Counterexample("gains that stay behind a rotated norm", same_without_gains),),
)


# --- S2: the basis ---------------------------------------------------------------------------------------------------


class Streams(NamedTuple):
    """vectors: several (n, p) of one p. kept: k. other: orthonormal (p, k)."""

    vectors: tuple[np.ndarray, ...]
    kept: int
    other: np.ndarray


@st.composite
def streams(draw: st.DrawFn) -> Streams:
    """Draw streams with directions of any size, fewer tokens than channels among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    width = draw(st.integers(2, 6))
    kept = draw(st.integers(1, width))
    found = []
    for _ in range(draw(st.integers(1, 3))):
        sizes = np.array(draw(st.lists(st.sampled_from([0.0, 0.1, 1.0, 1.0, 3.0]), min_size=width, max_size=width)))
        mixed = np.linalg.qr(rng.normal(size=(width, width)))[0]
        found.append(rng.normal(size=(draw(st.integers(1, 8)), width)) * sizes @ mixed)
    return Streams(tuple(found), kept, np.linalg.qr(rng.normal(size=(width, kept)))[0])


Choose = Callable[[Streams], np.ndarray]  # to a basis (p, k)


def lost(vectors: tuple[np.ndarray, ...], basis: np.ndarray) -> float:
    """sum |X - X Q Q^T|^2."""
    return float(sum(np.sum((each - each @ basis @ basis.T) ** 2) for each in vectors))


def is_the_least(case: Streams, choose: Choose) -> None:
    """What is lost is the tail of squared singular values of all vectors together, which no other basis is below."""
    values = np.linalg.svd(np.concatenate(case.vectors), compute_uv=False) ** 2
    tail, energy = float(np.sum(values[case.kept :])), float(np.sum(values)) + 1e-300
    basis = choose(case)
    np.testing.assert_allclose(basis.T @ basis, np.eye(case.kept), atol=1e-10)
    assert abs(lost(case.vectors, basis) - tail) <= 1e-11 * energy
    assert lost(case.vectors, case.other) >= tail - 1e-11 * energy


def principal(case: Streams) -> np.ndarray:
    """The toolkit's answer, whose certificate closes."""
    found = principal_basis([each.T @ each for each in case.vectors], case.kept)
    energy = sum(float(np.sum(each**2)) for each in case.vectors)
    assert found.certificate.gap <= 2 * found.certificate.slack + 1e-11 * energy
    return np.asarray(found.basis)


def by_channels(case: Streams) -> np.ndarray:
    """The channels of largest norm, as they are."""
    energy = sum(np.sum(each**2, axis=0) for each in case.vectors)
    return np.asarray(np.eye(len(energy))[:, np.argsort(-np.asarray(energy))[: case.kept]])


def of_the_first(case: Streams) -> np.ndarray:
    """The principal directions of the first stream alone."""
    return principal(case._replace(vectors=case.vectors[:1]))


def centred(case: Streams) -> np.ndarray:
    """Principal directions as of a covariance."""
    return principal(case._replace(vectors=tuple(each - each.mean(axis=0) for each in case.vectors)))


S2 = Claim(
    "S2",
    "Ky Fan; gramian, solvers/units/stream_basis.py",
    "of all Q (p, k) with Q^T Q = I the k principal directions of sum_l X_l^T X_l lose least of the streams X_l: "
    "sum_l |X_l - X_l Q Q^T|^2 is the sum of its p - k least eigenvalues, and no Q has less",
    Verdict.HOLDS,
    properties=(
        Property(
            "what the principal directions lose is the tail, and others lose no less",
            streams(),
            is_the_least,
            principal,
            {"the largest channels": by_channels, "the first stream's": of_the_first, "without the mean": centred},
        ),
    ),
)
