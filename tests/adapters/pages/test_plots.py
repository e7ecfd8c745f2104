"""`report.plot()`: the figures of the page by matplotlib, without pyplot."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from gramian import extras
from gramian.adapters import Report
from gramian.adapters.pages.plots import plot
from gramian.adapters.removal.report import ModuleReport, StructuredReport
from gramian.adapters.report import OperatorReport


def operator(block, kind, error, heldout):
    return OperatorReport(f"layers.{block}.{kind}", (4, 6), "50%", 0.5, error, heldout, 1e-9, "done", 1.0)


REPORT = Report(
    tuple(operator(b, k, 0.01 * (b + 1), 0.02 * (b + 1)) for b in range(3) for k in ("q", "up")), {"method": "l0"}, 9.0
)


def test_the_figures_hold_the_figures():
    figure = REPORT.plot()
    assert [axes.get_title() for axes in figure.axes] == [
        "error on held-out text, %", "error on calibration text, %", "zeros, %", "held-out against calibration error",
        "where the seconds went",
    ]  # fmt: skip
    drawn = np.asarray(figure.axes[1].images[0].get_array())
    assert drawn == pytest.approx(np.array([[0.01, 0.01], [0.02, 0.02], [0.03, 0.03]]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["2.0", "2.0", "4.0", "4.0", "6.0", "6.0"]
    points = np.concatenate([marks.get_offsets() for marks in figure.axes[3].collections])
    assert len(points) == 6 and np.allclose(points[:, 1], 2 * points[:, 0])
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_units_and_odd_numbers_are_drawn():
    rows = [ModuleReport("layers.0.o", (4, 2), (4, 2), 0.5, math.nan, None, None, "done", 1.0)]
    rows += [ModuleReport("layers.1.o", (4, 4), (4, 4), 0.0, 0.0, None, None, "nothing was removed", 0.0)]
    report = StructuredReport(tuple(rows), (10, 8), (10, 8), {}, {"method": "flap"}, 1.0, {"layers.0.o": np.array([0, 3])})
    figure = report.plot()
    assert [text.get_text() for text in figure.axes[1].texts] == ["50.0", "100"]
    assert figure._repr_png_()
    assert report.to_dict()["kept"] == {"layers.0.o": [0, 3]}


def test_no_state_that_others_share_is_touched():
    """Neither pyplot nor a backend is loaded, in a process of its own."""
    program = (
        "import sys; from gramian.adapters.report import OperatorReport, Report\n"
        "row = OperatorReport('a.0.b', (4, 6), '50%', .5, .1, .2, 0., 'done', 1.)\n"
        "import matplotlib\n"
        "state = lambda: {key: str(matplotlib.rcParams[key]) for key in matplotlib.rcParams if key != 'backend'}\n"
        "before = state()\n"
        "Report((row,), {}, 1.).plot()\n"
        "assert 'matplotlib.pyplot' not in sys.modules and state() == before"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"a figure needs matplotlib: pip install 'gramian\[report\]'"):
        REPORT.plot()


def test_a_report_without_rows_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        plot({})
