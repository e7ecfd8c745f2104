"""Work on rows side by side: every part once, in order, with BLAS as it was before."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from gramian.solvers.backend import threads
from gramian.solvers.backend.threads import blas_threads, by_rows, crew


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


def test_a_crew_inside_a_crew_is_one_thread():
    def inner(part):
        with crew(np.ones(3)) as few:
            return few.size, few(lambda each: threading.get_ident(), [0]) == [threading.get_ident()]

    with crew(np.ones(3)) as every:
        found = every(inner, range(4))
        assert found == [(1, True)] * 4 or every.size == 1
    with crew(np.ones(3)) as after:
        assert after.size == every.size


def test_after_an_error_nothing_goes_on():
    """What the other parts write to belongs to the caller again."""
    ended = []

    def work(part):
        if part == 0:
            raise ArithmeticError
        time.sleep(0.2)
        ended.append(part)

    with pytest.raises(ArithmeticError), crew(np.ones(3)) as every:
        every(work, [0, 1])
    assert ended == [1] or every.size == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own():
    code = """
import os
import numpy as np
from gramian.solvers.backend.threads import crew
with crew(np.ones(3)) as every:
    assert every(abs, [-1, -2, -3]) == [1, 2, 3]
child = os.fork()
if child == 0:
    with crew(np.ones(3)) as every:
        os._exit(0 if every(abs, [-1, -2, -3]) == [1, 2, 3] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_by_rows_is_the_whole(monkeypatch):
    monkeypatch.setattr(threads, "ROWS", 3)
    array = np.arange(44.0).reshape(22, 2)
    for operations in (1.0, 1e9):
        np.testing.assert_array_equal(by_rows(lambda rows: 2 * array[rows], array, operations), 2 * array)
    assert by_rows(lambda rows: array[:0][rows], array[:0], 1e9).shape[1] == 2
