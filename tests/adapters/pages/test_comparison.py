"""Runs side by side: what is compared, what may not be, and the errors for what is no run."""

from __future__ import annotations

import json
import math

import pytest
from page_parser import parsed
from run_documents import settings, units_document, weights_document

from gramian.adapters.pages.comparison import compared, page_of_comparison, warnings_about


@pytest.fixture(name="saved")
def saved_fixture(tmp_path):
    """Writes documents as saved runs, and reads them again."""

    def save(**documents):
        for name, document in documents.items():
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "gramian.json").write_text(json.dumps(document))
        return compared([tmp_path / name for name in documents])

    return save


def measured(windows, **more):
    found = {**weights_document()["perplexity"], "nats_by_window": {"dense": [3.0] * len(windows), "pruned": windows}}
    return {**found, **more}


def test_runs_on_one_text_are_compared_window_by_window(saved):
    one, two = saved(
        a=weights_document(perplexity=measured([3.0, 3.2, 3.4])), b=weights_document(perplexity=measured([3.1, 3.2, 3.7]))
    )
    assert one.difference is None and warnings_about([one, two]) == []
    gaps = [0.1, 0.0, 0.3]
    middle = sum(gaps) / 3
    spread = math.sqrt(sum((gap - middle) ** 2 for gap in gaps) / 2 / 3)
    assert two.difference == pytest.approx((middle, spread))
    figures = two.figures()
    assert figures["perplexity"] == {"dense": 20.31, "pruned": 24.24} and figures["run"] == "b"
    assert figures["difference_to_first_nats"] == pytest.approx(middle) and figures["share"] == 0.5


def test_what_differs_is_warned_of_and_not_compared(saved):
    other = weights_document(
        perplexity=measured([3.0, 3.1], sha256="another"), fingerprint={"weights": "0" * 64},
        settings=settings(heldout={"sha256": "x"}, calibration={"sha256": "y"}),
    )  # fmt: skip
    runs = saved(a=weights_document(), b=other, c=units_document())
    titles = [remark.title for remark in warnings_about(runs)]
    assert [title.partition(":")[0] for title in titles] == [
        "The dense models differ", "Perplexity was measured on different text", "Held-out windows differ",
        "Calibration windows differ", "What was removed differs",
    ]  # fmt: skip
    assert titles[1].endswith(": a, c | b.")
    assert runs[1].difference is None


def test_runs_without_perplexity_are_no_different_text(saved):
    silent = weights_document()
    del silent["perplexity"]
    runs = saved(a=weights_document(), b=silent)
    assert warnings_about(runs) == [] and runs[1].difference is None
    assert runs[1].figures()["perplexity"] == {"dense": None, "pruned": None}


def test_directories_of_one_name_are_told_apart(tmp_path):
    for place in ("x/out", "y/out"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "gramian.json").write_text(json.dumps(weights_document()))
    runs = compared([tmp_path / "x/out", tmp_path / "y/out/gramian.json"])
    assert [each.name for each in runs] == ["x/out", "y/out"]
    assert [each.name for each in compared([tmp_path / "x/out"])] == ["out"]


def test_the_page_has_a_column_for_every_run_and_figures_that_they_have(saved):
    runs = saved(**{name: weights_document(perplexity=measured([3.0, 3.1, number])) for number, name in enumerate("abcd", 3)})
    tree = parsed(page_of_comparison(runs))
    heads = [[each.text for each in next(table.every("thead")).every("th")] for table in tree.every("table")]
    assert heads == [["figure", "a", "b", "c"], ["figure", "d"]]
    assert "cosine" not in tree.text and tree.text.count("24.24") == 4
    drawing = next(tree.every("svg"))
    assert len(list(drawing.every("circle"))) == 4


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [(None, FileNotFoundError, "no gramian.json"), ("{", ValueError, "cannot be read"), ("[]", ValueError, "is not the report"),
     ('{"method": "none"}', ValueError, "is not the report")],
)  # fmt: skip
def test_what_is_no_run_is_refused(tmp_path, text, error, words):
    if text is not None:
        (tmp_path / "gramian.json").write_text(text)
    with pytest.raises(error, match=words):
        compared([tmp_path])
