"""What a person sees of a run: one line, a table, HTML, a data frame."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from gramian import extras
from gramian.adapters import Report
from gramian.adapters.estimates.figures import Estimate, EstimatedOperator, Rates
from gramian.adapters.report import OperatorReport

ROW = OperatorReport("a<b", (4, 6), "2:4", 0.5, 0.25, None, 1e-9, "converged", 1.5, {"lasso_gap": 0.125})
REPORT = Report((ROW,), {"method": "l0"}, 2.0)


def test_one_line_says_what_was_done():
    assert repr(ROW) == "OperatorReport(a<b, 4x6, 50.0 % zeros, error 0.25)"
    assert repr(REPORT) == "Report(l0, 1 operators, 50.0 % zeros, error 0.25)"
    heldout = Report((replace(ROW, heldout_error=0.5),), {"method": "l0"}, 2.0)
    assert repr(heldout) == "Report(l0, 1 operators, 50.0 % zeros, held-out error 0.5)"


def test_html_is_the_table_with_its_names_escaped():
    cells = re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", REPORT._repr_html_())
    head, rows = REPORT.cells()
    assert cells == [*head, "a&lt;b", *rows[0][1:]]
    assert REPORT.totals() in REPORT._repr_html_()


def test_a_data_frame_holds_every_figure():
    pytest.importorskip("pandas")
    frame = REPORT.to_dataframe()
    assert list(frame["name"]) == ["a<b"] and frame["lasso_gap"][0] == 0.125 and frame["relative_error"][0] == 0.25
    assert "detail" not in frame


def test_without_pandas_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs pandas: pip install 'gramian\[report\]'"):
        REPORT.to_dataframe()


def test_an_estimate_is_one_line():
    estimate = Estimate((EstimatedOperator("a", (2, 3), 4.0),), {"model": 3 * 2**20}, {"solvers": 4.0}, Rates(1.0, 1.0), 0.5)
    assert repr(estimate) == "Estimate(1 operators, 3 MiB at the peak, 4 s)"


def test_many_experts_stand_in_one_line():
    """With means and the sum of the seconds; the figures of each are in `to_dict`, and few of them one by one."""
    rows = [
        OperatorReport(
            f"layer.experts.up.{number}", (4, 6), "50%", 0.5, 0.1 * number, 0.2 if number else None, 0.0, "done", 1.5,
            {"routed_tokens": 10.0 * number, "borrowed_tokens": 6.0 if not number else 0.0},
        )
        for number in range(9)
    ]  # fmt: skip
    dense = OperatorReport("layer.o", (4, 4), "50%", 0.5, 0.3, 0.3, 0.0, "done", 2.0)
    report = Report((dense, *rows), {"method": "wanda"}, 4.0)
    _, _, first, second, *rest = str(report).splitlines()
    assert first.split() == ["layer.o", "4x4", "50.00%", "0.3", "0.3", "0", "-", "-", "2.0"]
    assert second.split() == ["layer.experts.up.*", "(9)", "4x6", "50.00%", "0.4", "0.2", "0", "0.667", "40", "13.5"]
    assert len(rest) == 1 and "1 experts saw fewer tokens than they have inputs" in rest[0]
    assert len(report.to_dict()["operators"]) == 10
    few = str(Report(tuple(rows[:8]), {"method": "wanda"}, 4.0))
    assert all(f"layer.experts.up.{number} " in few for number in range(8))
