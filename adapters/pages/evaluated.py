"""The page of `gramian evaluate`: every figure of a model beside that of the dense one, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gramian.adapters.pages.attention import Remark, remarks_as_html, sentence
from gramian.adapters.pages.numerals import MISSING, count, duration, number, plain_number
from gramian.adapters.pages.page import Card, Section, escape, page, table_of
from gramian.adapters.pages.records import mapping, short_title
from gramian.adapters.pages.repeat import rows_of_settings
from gramian.adapters.pages.whiskers import Whisker, whiskers

__all__ = ["page_of_evaluation"]

TITLES = {
    "text": "Text", "positions": "By position in the window", "continuations": "Greedy continuations", "copying": "Copying",
    "needle": "Facts found again", "embeddings": "Embeddings", "tasks": "Tasks",
}  # fmt: skip
INTERVALS = "In brackets 95 % intervals by the bootstrap over items; a change is of pairs on the same items."


def page_of_evaluation(document: Mapping[str, Any]) -> str:
    """The page of what `evaluate(...).as_dict()` holds, with the names of the models as `model` and `against`, where known."""
    figures = [mapping(each) for each in document.get("figures", ())]
    model, dense = (str(document.get(name) or "") for name in ("model", "against"))
    title = short_title(model) if model else "A model"
    text = mapping(mapping(document.get("settings")).get("text"))
    shape = text.get("windows")
    size = f" on {shape[0]} windows of {shape[1]} tokens ({text.get('source')})" if isinstance(shape, list | tuple) else ""
    beside = f" beside {short_title(dense)}" if dense else ""
    clear = [each for each in figures if is_clear(each)]
    changed = sum(each.get("change") is not None for each in figures)
    lead = [f"{count(len(figures))} figures of {title}{beside}, measured{size}."]
    if changed:
        lead.append(f"Of {count(changed)} changes, {count(len(clear))} are clear: zero change is outside of the interval.")
    sections = [Section("What needs attention", remarks_as_html(found))] if (found := remarks(document, text)) else []
    parts = list(dict.fromkeys(str(each.get("part", "")) for each in figures))
    for part in parts:
        some = [each for each in figures if str(each.get("part", "")) == part]
        sections.append(Section(TITLES.get(part, part or "Figures"), of_part(part, some)))
    rows = rows_of_settings(mapping(document.get("settings")))
    sections.append(Section("Settings", table_of("What the figures depend on", [], rows, kind="plain")))
    top = [each for each in figures if each.get("part") in ("text", "embeddings", "tasks")][:3]
    cards = [card(each) for each in top] + [Card("time", duration(number(document.get("seconds"))))]
    return page("gramian evaluate", title, lead, cards, sections, "Written by gramian. This page loads nothing.")


def card(figure: Mapping[str, Any]) -> Card:
    """One figure at the top."""
    dense = value_of(figure.get("dense"))
    more = "" if dense is None else f"dense model: {plain_number(dense)}"
    return Card(str(figure.get("name", "")), plain_number(value_of(figure.get("model"))), more)


def remarks(document: Mapping[str, Any], text: Mapping[str, Any]) -> list[Remark]:
    """What was left out, and text that was seen before."""
    found = []
    if text.get("seen_in_calibration"):
        title = "The model was calibrated on this text."
        found.append(Remark("warning", title, "Its figures are those of text that it has seen."))
    for name, why in mapping(document.get("left_out")).items():
        found.append(Remark("note", f"Left out: {name}.", sentence(str(why))))
    return found


def of_part(part: str, figures: Sequence[Mapping[str, Any]]) -> str:
    """A table of the figures that belong together, and a drawing of their changes, where there are several of a kind."""
    rows = []
    for each in figures:
        change = each.get("change")
        sign = "× " if each.get("change_is") == "ratio" else ""
        mark = "<small>clear</small>" if is_clear(each) else ""
        rows.append(
            [
                f"{escape(str(each.get('name', '')))}<small>{escape(items_of(each))}</small>",
                interval(each.get("model")),
                interval(each.get("dense")),
                MISSING if change is None else f"{sign}{interval(change)}{mark}",
            ]
        )
    drawn = "".join(changes(part, figures, kind) for kind in ("ratio", "difference"))
    table = table_of("Model and dense model", ["figure", "model", "dense", "change"], rows, more=INTERVALS, kind="figures")
    return f'{table}<div class="pair">{drawn}</div>' if drawn else table


def changes(part: str, figures: Sequence[Mapping[str, Any]], kind: str) -> str:
    """The changes of one kind, at least two."""
    some = []
    for each in figures:
        change = mapping(each.get("change"))
        value, low, high = (number(change.get(name)) for name in ("value", "low", "high"))
        if each.get("change_is", "difference") == kind and value is not None and low is not None and high is not None:
            some.append(Whisker(str(each.get("name", "")), value, low=low, high=high))
    if len(some) < 2:
        return ""
    middle, words = (1.0, "Model over dense model; 1 is unchanged.") if kind == "ratio" else (0.0, "Model less dense model.")
    return whiskers(some, f"Change, {TITLES.get(part, part).lower()}", words, f"{part}-{kind}", middle, ratio=kind == "ratio")


def is_clear(figure: Mapping[str, Any]) -> bool:
    """Whether the interval of a change leaves out that nothing changed."""
    change = mapping(figure.get("change"))
    low, high = number(change.get("low")), number(change.get("high"))
    unchanged = 1.0 if figure.get("change_is") == "ratio" else 0.0
    return low is not None and high is not None and (low > unchanged or high < unchanged)


def items_of(figure: Mapping[str, Any]) -> str:
    """Of how many items a figure is the mean."""
    items = figure.get("items")
    return f"{count(items)} items" if isinstance(items, int) and items else ""


def value_of(found: Any) -> float | None:
    """The middle of an interval."""
    return number(mapping(found).get("value"))


def interval(found: Any) -> str:
    """An interval as HTML: the figure, and its ends below it."""
    if not isinstance(found, Mapping):
        return MISSING
    value, low, high = (number(found.get(name)) for name in ("value", "low", "high"))
    ends = f"<small>[{plain_number(low)}, {plain_number(high)}]</small>" if low is not None and not math.isnan(low) else ""
    return f"{plain_number(value)}{ends}"
