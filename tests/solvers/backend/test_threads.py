"""Work on rows side by side: every part once, in order, with BLAS as it was before."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from gramian.solvers.backend.threads import blas_threads, crew


def pools():
    return [pool["num_threads"] for pool in blas_threads().info()]


def test_every_part_is_done_once_and_in_order():
    before = pools()
    with crew(np.ones(3)) as every:
        assert set(pools()) <= {1}
        assert every(lambda part: part * part, range(100)) == [part * part for part in range(100)]
        assert every(lambda part: part, []) == []
    assert pools() == before
    with crew(np.ones(3), 10.0) as few:
        assert few.size == 1 and few(lambda part: threading.get_ident(), [0]) == [threading.get_ident()]


def test_an_error_comes_through_and_restores(monkeypatch):
    before = pools()

    def fail(part):
        raise ArithmeticError(f"part {part}")

    with pytest.raises(ArithmeticError, match="part 0"), crew(np.ones(3)) as every:
        every(fail, [0, 1])
    assert pools() == before


def test_blocks_of_several_threads_overlap():
    """The last of them restores what was before the first, in whatever order they end."""
    before, begun, ended = pools(), threading.Event(), threading.Event()

    def other():
        with crew(np.ones(3)):
            begun.set()
            ended.wait(10)

    thread = threading.Thread(target=other)
    with crew(np.ones(3)):
        thread.start()
        begun.wait(10)
    assert set(pools()) <= {1}
    ended.set()
    thread.join()
    assert pools() == before


def test_handling_of_errors_is_that_of_the_one_who_asks():
    with np.errstate(divide="raise"), crew(np.ones(3)) as every, pytest.raises(FloatingPointError):
        every(lambda part: np.ones(1) / np.zeros(1), [0, 1])
