"""The frame of a page: one file of HTML that needs nothing beside it, and no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gramian.adapters.pages.style import style_sheet

__all__ = ["Card", "Section", "escape", "page", "table_of"]


@dataclass(frozen=True)
class Section:
    """One part of a page. title, hint: text. body: HTML."""

    title: str
    body: str
    hint: str = ""


@dataclass(frozen=True)
class Card:
    """A figure at the top of a page: what it is, the figure, and a few words more. All of it is text."""

    name: str
    value: str
    more: str = ""


def page(kicker: str, title: str, lead: Sequence[str], cards: Sequence[Card], sections: Sequence[Section], foot: str) -> str:
    """A page as HTML. kicker, title, lead, foot: text."""
    shown = "".join(
        f"<div><dt>{escape(card.name)}</dt><dd>{escape(card.value)}"
        + (f"<small>{escape(card.more)}</small>" if card.more else "")
        + "</dd></div>"
        for card in cards
    )
    body = "\n".join(
        f'<section aria-labelledby="part-{number}">\n<h2 id="part-{number}">{escape(section.title)}</h2>\n'
        + (f'<p class="hint">{escape(section.hint)}</p>\n' if section.hint else "")
        + f"{section.body}\n</section>"
        for number, section in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(title)} · {escape(kicker)}</title>\n"
        '<link rel="icon" href="data:,">\n'
        f"<style>\n{style_sheet()}\n</style>\n</head>\n<body>\n<main>\n<header>\n"
        f'<p class="kicker">{escape(kicker)}</p>\n<h1>{escape(title)}</h1>\n'
        f'<p class="lead">{escape(" ".join(lead))}</p>\n</header>\n'
        + (f'<dl class="cards">{shown}</dl>\n' if cards else "")
        + f"{body}\n</main>\n<footer>{escape(foot)}</footer>\n</body>\n</html>\n"
    )


def table_of(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    more: str = "",
    hidden: Sequence[int] = (),
    kind: str = "",
) -> str:
    """A table whose first column names its rows. caption, more, head: text; cells: HTML. hidden: columns that a narrow screen
    leaves out, since what they say is said elsewhere as well. kind: a class of the style sheet."""

    def marked(column: int) -> str:
        return ' class="phone-less"' if column in hidden else ""

    heads = "".join(f'<th scope="col"{marked(column)}>{escape(cell)}</th>' for column, cell in enumerate(head))
    lines = "\n".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if column == 0 else f"<td{marked(column)}>{cell}</td>"
            for column, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    below = f"<span>{escape(more)}</span>" if more else ""
    top = f"<thead><tr>{heads}</tr></thead>\n" if head else ""
    styled = f' class="{kind}"' if kind else ""
    return f"<table{styled}>\n<caption>{escape(caption)}{below}</caption>\n{top}<tbody>\n{lines}\n</tbody>\n</table>"
