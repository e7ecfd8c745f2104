"""What a person, a notebook and pandas see of a run that removed units."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from gramian import extras
from gramian.adapters.html import html_table
from gramian.adapters.removal.report import ModuleReport, StructuredReport

UP = ModuleReport("layers.0.up", (48, 33), (48, 33), 0.5, 0.0171, 0.0252, 1e-9, "solved", 1.0, {"mask_error": 0.25})
HEADS = ModuleReport("layers.0.<o>", (4, 4), (2, 2), 0.0, 0.0, None, None, "nothing was removed", 0.5)


def report_of(*modules: ModuleReport) -> StructuredReport:
    return StructuredReport(modules, (2000, 1800), (1000, 800), {"mask_bound": 0.125}, {"method": "numerical"}, 2.0)


def test_reports_print_on_one_line():
    assert repr(UP) == "ModuleReport(layers.0.up, 48 -> 33 units, error 0.0171)"
    assert repr(report_of(UP)) == "StructuredReport(1 modules, 20.0 % of the blocks' parameters removed, held-out error 0.0252)"
    assert repr(report_of(HEADS)) == "StructuredReport(1 modules, 20.0 % of the blocks' parameters removed, error 0)"


def test_the_html_of_a_report_holds_what_its_text_does():
    report = report_of(UP, HEADS)
    page = ElementTree.fromstring(report._repr_html_().replace("<br>", "<br/>"))
    rows = [[cell.text for cell in row] for row in page.iter("tr")]
    lines = str(report).splitlines()
    assert [" ".join(row) for row in rows] == [" ".join(line.split()) for line in (lines[0], *lines[2:4])]
    assert rows[2][0] == HEADS.name
    assert list(page.find("caption").itertext()) == lines[4:]


def test_html_of_no_rows_and_of_markup():
    page = html_table(["<a> & b"], [], 'one "line"\nand <another>')
    assert "&lt;a&gt; &amp; b" in page and "one &quot;line&quot;<br>and &lt;another&gt;" in page and "<td" not in page


def test_a_data_frame_has_a_row_per_module():
    pytest.importorskip("pandas")
    frame = report_of(UP, HEADS).to_dataframe()
    assert frame["name"].tolist() == [UP.name, HEADS.name]
    assert frame["units_before"].tolist() == [48, 4] and frame["units_after"].tolist() == [33, 4]
    assert frame["groups_before"].tolist() == [48, 2] and frame["groups_after"].tolist() == [33, 2]
    assert frame["mask_error"][0] == 0.25 and frame["mask_error"].isna().tolist() == [False, True]
    assert frame["relative_error"].tolist() == [UP.relative_error, HEADS.relative_error]
    assert not {"units", "groups", "detail"} & set(frame.columns)


def test_pandas_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"a report as a data frame needs pandas: pip install 'gramian\[report\]'"):
        report_of(UP).to_dataframe()
