"""A page as a tree of elements, parsed strictly: every element is closed in its place, and every name is unique."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}


@dataclass
class Element:
    """One element. inside: elements and text in order."""

    tag: str
    attributes: dict[str, str]
    inside: list[Element | str] = field(default_factory=list)

    def every(self, *tags: str) -> Iterator[Element]:
        """All elements inside with one of the tags, in order; all of them without one."""
        for each in self.inside:
            if isinstance(each, Element):
                if not tags or each.tag in tags:
                    yield each
                yield from each.every(*tags)

    @property
    def text(self) -> str:
        """All text inside."""
        return "".join(each if isinstance(each, str) else each.text for each in self.inside)

    def of_class(self, name: str) -> list[Element]:
        """All elements inside of a class."""
        return [each for each in self.every() if name in each.attributes.get("class", "").split()]


class PageParser(HTMLParser):
    """Builds the tree; AssertionError for what is not closed in its place."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>, line {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def parsed(page: str) -> Element:
    """The page, whose names are unique."""
    parser = PageParser()
    parser.feed(page)
    parser.close()
    assert len(parser.open) == 1, f"not closed: {[each.tag for each in parser.open[1:]]}"
    names = [each.attributes["id"] for each in parser.open[0].every() if "id" in each.attributes]
    assert len(names) == len(set(names)), names
    return parser.open[0]
