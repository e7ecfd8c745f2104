"""Pages are whole, need nothing beside them, say what the document says, and can be read by everybody."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise

import pytest
from page_parser import parsed
from run_documents import blocks_document, experts_document, units_document, weights_document
from sample_pages import EVALUATION, PAGES, SOLVED

from gramian.adapters.pages.comparison import Compared, page_of_comparison
from gramian.adapters.pages.evaluated import page_of_evaluation
from gramian.adapters.pages.records import run_of
from gramian.adapters.pages.runs import page_of_run
from gramian.adapters.pages.solved import page_of_solved
from gramian.solvers import Status


@pytest.fixture(name="page", params=PAGES)
def page_fixture(request):
    return PAGES[request.param]()


def test_it_is_one_file_that_loads_nothing(page):
    tree = parsed(page)
    assert page.startswith("<!DOCTYPE html>") and tree.inside[-2].attributes["lang"] == "en"
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|\bon[a-z]+=", page)
    for each in tree.every():
        assert not {"src", "srcset", "data", "action"} & set(each.attributes)
        assert each.attributes.get("href", "#").startswith(("#", "data:,"))


def test_headings_are_in_order_and_sections_are_named(page):
    tree = parsed(page)
    levels = [int(each.tag[1]) for each in tree.every("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for section in tree.every("section"):
        named = section.attributes["aria-labelledby"]
        assert [each.attributes.get("id") for each in section.every("h2")] == [named]


def test_tables_have_captions_and_named_rows_and_columns(page):
    tables = list(parsed(page).every("table"))
    assert tables
    for table in tables:
        assert next(table.every("caption")).text
        assert all(each.attributes["scope"] in ("col", "row", "rowgroup") for each in table.every("th"))
        widths = set()
        for row in table.every("tr"):
            cells = list(row.every("th", "td"))
            assert cells[0].tag == "th"
            widths.add(sum(int(each.attributes.get("colspan", 1)) for each in cells))
        assert len(widths) == 1
        assert all(each.text for each in table.every("td"))


def test_drawings_say_what_they_show(page):
    drawings = [each for each in parsed(page).every("svg") if each.attributes.get("aria-hidden") != "true"]
    for drawing in drawings:
        assert drawing.attributes["role"] == "img" and drawing.attributes["viewbox"]
        if "aria-label" not in drawing.attributes:
            words = {each.attributes["id"]: each.text for each in drawing.every("title", "desc")}
            assert all(words[name] for name in drawing.attributes["aria-labelledby"].split())


def luminance(colour):
    """By the Web Content Accessibility Guidelines."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_are_apart_in_light_and_in_dark():
    """As the style sheet states them: text at 4.5 to 1 on what is behind it, marks and bars at 3 to 1."""
    sheet = re.search(r"<style>(.*?)</style>", page_of_run(weights_document()), re.S)[1]
    modes = [dict(re.findall(r"--([a-z0-9-]+):(#[0-9a-f]{6})", block)) for block in re.findall(r":root\{[^}]*\}", sheet)]
    assert len(modes) == 2 and modes[0].keys() == modes[1].keys() and modes[0] != modes[1]
    for colours in modes:
        text = [(name, bed) for name in ("ink", "muted", "accent") for bed in ("page", "soft")]
        text += [(name, f"{name}-bed") for name in ("warn", "note", "good")]
        text += [("ink", f"{name}-bed") for name in ("warn", "note", "good")] + [(f"t{n}", f"h{n}") for n in range(8)]
        assert {pair: contrast(*map(colours.get, pair)) for pair in text if contrast(*map(colours.get, pair)) < 4.5} == {}
        marks = ["bar", *(f"m{n}" for n in range(8))]
        assert {name for name in marks if contrast(colours[name], colours["page"]) < 3} == set()
        shades = [luminance(colours[f"h{n}"]) for n in range(8)]
        assert shades in (sorted(shades), sorted(shades, reverse=True)) and len(set(shades)) == 8


def test_a_heat_map_holds_the_number_of_every_operator_and_shades_it_by_rank():
    document = weights_document(blocks=4)
    tree = parsed(page_of_run(document))
    heldout, calibration, zeros = tree.of_class("heat")
    for figure, key in ((heldout, "heldout_error"), (calibration, "relative_error"), (zeros, "sparsity")):
        body = next(figure.every("tbody"))
        rows = [list(row.every("td")) for row in body.every("tr")]
        assert [len(row) for row in rows] == [7] * 4
        cells = [cell for row in rows for cell in row]
        for cell, operator in zip(cells, document["operators"]):
            assert float(cell.text) == pytest.approx(100 * operator[key], rel=0.051)
        by_value = sorted(zip((each[key] for each in document["operators"]), (cell.attributes["class"] for cell in cells)))
        assert [shade for _, shade in by_value] == sorted(shade for _, shade in by_value)
    heads = [each.text for each in next(heldout.every("thead")).every("th")]
    assert heads == ["block", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def test_experts_of_a_kind_share_a_cell_with_their_mean():
    document = weights_document(blocks=2, experts=12)
    calibration = parsed(page_of_run(document)).of_class("heat")[1]
    last = [list(row.every("td"))[-1] for row in next(calibration.every("tbody")).every("tr")]
    for block, cell in enumerate(last):
        errors = [row["relative_error"] for row in document["operators"] if f"{block}.mlp.experts" in row["name"]]
        assert float(cell.text) == pytest.approx(100 * sum(errors) / 12, rel=0.051)
        assert cell.attributes["title"] == "mean of 12"


def test_a_point_per_operator_stands_where_its_errors_are():
    document = weights_document(blocks=3)
    plot = next(
        each
        for each in parsed(page_of_run(document)).every("svg")
        if "scatter-title" in each.attributes.get("aria-labelledby", "")
    )
    points = [(float(each.attributes["x"]), float(each.attributes["y"])) for each in plot.every("use")]
    assert len(points) == 21
    first = [row for row in document["operators"] if row["name"].endswith("q_proj")]
    logs = [math.log(row["relative_error"]) for row in first]
    across = [x for x, _ in points[:3]]
    assert (across[1] - across[0]) / (logs[1] - logs[0]) == pytest.approx(
        (across[2] - across[0]) / (logs[2] - logs[0]), rel=0.05
    )
    shapes = {use.attributes["href"] for use in plot.every("use")}
    assert len(shapes) == 7  # a shape for every kind: colour is not all


def test_heads_that_stay_are_drawn_and_said():
    tree = parsed(page_of_run(units_document()))
    strips = [each for each in tree.every("svg") if "aria-label" in each.attributes]
    assert [each.attributes["aria-label"] for each in strips] == [
        "4 of 6 stay; without 1, 4", "5 of 6 stay; without 1", "5 of 6 stay; without 1"
    ]  # fmt: skip
    assert [each.attributes["class"] for each in strips[0].every("rect")] == ["bar", "out", "bar", "bar", "out", "bar"]
    text = tree.text
    assert "4 of 6, 66.7 %; without 1, 4; alike 0, 2" in text and "1,601 of 2,048, 78.2 %" in text


def test_experts_that_stay_are_said():
    text = parsed(page_of_run(experts_document())).text
    assert "4 of 6, 66.7 %; without 2, 5" in text and "removed experts with 30.0 % of the parameters" in text


def test_only_what_was_removed_is_said_to_be():
    document = units_document()
    assert "removed heads and hidden channels with" in parsed(page_of_run(document)).text
    for heads, words in ((True, "removed hidden channels with"), (False, "removed heads with")):
        rows = [
            {**row, "units": [row["units"][0]] * 2} if (row["name"] in document["kept"]) == heads else row
            for row in document["modules"]
        ]
        assert words in parsed(page_of_run({**document, "modules": rows})).text


def test_blocks_that_went_are_said_and_are_rows_of_one_column():
    run = run_of(blocks_document())
    assert len(run.grid.kinds) == 1 and len(run.grid.blocks) == 12
    text = parsed(page_of_run(blocks_document())).text
    assert "removed 2 of the 12 blocks of org/model, numbers 8, 3" in text
    assert "the stream between blocks lost 1.00 % of its energy" in text.replace("1.0 %", "1.00 %")
    assert "heads and hidden channels" not in text and "Heads and channels" not in text


def test_blocks_that_were_refitted_have_a_table():
    row = {"name": "model.layers.0", "error": [0.2, 0.125], "aside_error": [0.25, 0.15], "heldout_error": None, "seconds": 7.5}
    blocks = [{**row, "epochs": 2, "tried": 3}, {**row, "name": "<b>", "aside_error": [0.5, 0.5], "epochs": 0, "tried": 2}]
    for document in (weights_document(), units_document()):
        text = parsed(page_of_run({**document, "refitted_blocks": blocks})).text
        assert "Blocks refitted as a whole" in text and "refitting blocks" in text and "15 s" in text
        assert "epoch 2 of 3" in text and "20 → 12.5" in text.replace("20.0", "20") and "<b>as it was" in text
        for nothing in ([], None, "words"):
            assert "refitted" not in parsed(page_of_run({**document, "refitted_blocks": nothing})).text
        assert "Blocks refitted" in parsed(page_of_run({**document, "refitted_blocks": [None, {"error": 3}, "x"]})).text


def test_the_first_sentences_and_figures():
    lead = parsed(page_of_run(weights_document())).of_class("lead")[0].text
    assert lead.startswith("The method l0 set 50.0 % of the weights in 21 operators of org/model to zero, calibrated on 16 ")
    assert "Perplexity went from 20.31 to 24.24" in lead and lead.count(". ") == 1
    text = parsed(page_of_run(units_document())).text
    assert "3.00 M → 2.50 M" in text and "+0.176 ± 0.018 nats per token" in text.replace("0.177", "0.176")


def remarks_in(document):
    return [(each.attributes["class"], each.text) for each in parsed(page_of_run(document)).of_class("remarks")[0].every("li")]


def test_what_needs_attention_comes_first_and_names_operators():
    document = weights_document()
    rows = document["operators"]
    assert [kind for kind, _ in remarks_in(document)] == ["good", "good"]
    rows[3]["status"] = Status.BROKEN.value
    rows[4].update(relative_error=0.6, heldout_error=0.7)
    rows[5].update(relative_error=0.001, heldout_error=0.01)
    rows[6].update(residual=0.2)
    rows[7].update(heldout_error="nan")
    rows[8].update(detail={"borrowed_tokens": 3.0})
    document["settings"]["refused"] = {"model.layers.9.mlp": "a gate of its own"}
    document["perplexity"] = {**document["perplexity"], "pruned": 50.0}
    found = remarks_in(document)
    assert [kind for kind, _ in found] == ["warning"] * 3 + ["note"] * 5
    for place, words in ((0, "50.00"), (1, rows[3]["name"]), (2, rows[4]["name"])):
        assert words in found[place][1]
    expected = {5: "Calibration text", 6: "not the best", 7: "No relative", 8: "few tokens"}
    for name, words in [
        ("model.layers.9.mlp", "A gate of its own"),
        *((rows[at]["name"], each) for at, each in expected.items()),
    ]:
        assert any(name in text and words in text for _, text in found), name
    assert next(parsed(page_of_run(document)).every("h2")).text == "What needs attention"


def test_names_that_hold_markup_are_text():
    evil = '<script>alert("1")</script>&"\''
    document = json.loads(json.dumps(weights_document()).replace("org/model", json.dumps(evil)[1:-1]))
    document["operators"][0]["name"] = f"model.layers.0.{evil}"
    document["operators"][1]["status"] = evil
    document["settings"].update(method=evil, options={evil: evil}, calibration={"source": evil})
    document["perplexity"] = {**document["perplexity"], "source": evil, "windows": evil}
    for page in (page_of_run(document), page_of_comparison([Compared(evil, run_of(document), None)])):
        tree = parsed(page)
        assert "<script" not in page and not list(tree.every("script")) and evil in tree.text
    units = units_document()
    units["modules"][0]["name"] = f"model.layers.0.{evil}"
    units["settings"]["refused"] = {evil: evil}
    assert "<script" not in page_of_run(units) and evil in parsed(page_of_run(units)).text
    solved = [{**row, "method": evil, "file": f"{evil}.safetensors", "pattern": evil} for row in SOLVED]
    assert "<script" not in page_of_solved(solved)
    figures_of_two = json.loads(json.dumps(EVALUATION).replace("held out of builtin", json.dumps(evil)[1:-1]))
    figures_of_two["figures"][0].update(name=evil, part=evil)
    assert "<script" not in page_of_evaluation({**figures_of_two, "model": evil, "against": evil, "left_out": {evil: evil}})


def test_an_evaluation_is_shown_with_its_intervals_and_clear_changes_are_marked():
    tree = parsed(page_of_evaluation(EVALUATION))
    rows = {row[0]: row[1:] for table in tree.every("table") for line in table.every("tr")
            if len(row := [each.text for each in line.every("th", "td")]) == 4}  # fmt: skip
    assert rows["perplexity16 items"] == ["24.20[23.10, 25.30]", "20.30[19.30, 21.30]", "× 1.190[1.170, 1.210]clear"]
    assert rows["copying, 64 tokens20 items"][2] == "−0.04000[−0.1000, 0.02000]"
    assert "Left out: needle." in tree.text and "Of 5 changes, 3 are clear" in tree.text
    assert [each.text for each in tree.every("title")][1:] == ["Change, by position in the window", "Change, copying"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf", None])
def test_numbers_that_are_none_are_shown_as_such(value):
    """In memory they are numbers, and in `gramian.json` words."""
    for document, key in ((weights_document(), "operators"), (units_document(), "modules")):
        for row in document[key][:4]:
            row.update(relative_error=value, heldout_error=value, residual=value)
        document["perplexity"] = {**document["perplexity"], "pruned": value, "difference_nats": value}
        document.update(seconds=value)
        text = parsed(page_of_run(document)).text
        assert "None" not in text
        for row in document[key]:
            row.update(relative_error=value, heldout_error=value, residual=value)
        parsed(page_of_run(document))


def test_a_page_of_a_thousand_operators_is_small():
    document = weights_document(blocks=48, experts=16)
    assert len(document["operators"]) > 1000
    assert len(page_of_run(document).encode()) < 2**19


def test_reports_of_the_users_own_have_no_page():
    for document in ({}, {"method": "none"}, {"operators": []}, {"operators": 3}, {"modules": [1, 2]}, {"operators": [{}]}):
        assert page_of_run(document) is None
